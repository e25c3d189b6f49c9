package membership

import (
	"fmt"
	"slices"

	"clade/raid"
)

func keyOf(parts ...any) string { return fmt.Sprint(parts...) }

// planVoters leads a node into the cluster and out of it, one change at a time (B: C6):
//
//	in:  AddLearner, wait until it has caught up, VotersBegin(cur + node), wait for all reports of lv, Promote, VotersEnd
//	out: VotersBegin(cur − node), Demote, wait for all reports of lv, VotersEnd, NodeRemove, Remove from Raft
//
// Raft's own change of votes lies between Begin and End. Whoever holds a term stays in Raft while he does: he must hear of every
// change of voters, or his report of it never comes and no change ever ends.
func (p *Planner) planVoters(s *State, h *Health, v *RaftView, nowNs int64) []Decision {
	d, key := p.voterStep(s, h, v, nowNs)
	if d.Propose == nil && d.Conf == nil || !p.once(nowNs, key) {
		return nil
	}
	return []Decision{d}
}

func (p *Planner) voterStep(s *State, h *Health, v *RaftView, nowNs int64) (Decision, string) {
	conf := func(k ConfKind, n *Node, why string) (Decision, string) {
		return Decision{Conf: &ConfDecision{k, n.ID}, Why: why + " " + n.Name}, keyOf("conf", k, n.ID)
	}
	if s.Voters.Joint() {
		return p.voterChangeStep(s, h, v, conf)
	}
	for i := range s.Nodes { // Raft's voters and the lease voters are the same outside of a change
		n := &s.Nodes[i]
		m := v.Member(n.ID)
		votes := slices.Contains(s.Voters.Cur, n.ID)
		nh := h.node(n.ID)
		switch {
		case m == nil && !n.Leaving:
			return conf(ConfAddLearner, n, "add as learner: node")
		case m != nil && !m.Learner && !votes: // a former leader got this far
			return conf(ConfDemote, n, "not a lease voter any more: node")
		case n.Leaving && !votes:
			return Decision{Propose: &NodeRemove{Node: n.ID}, Why: "leaving: node " + n.Name}, keyOf("remove", n.ID)
		case n.Leaving && votes && len(s.Voters.Cur) > 1:
			next := slices.DeleteFunc(slices.Clone(s.Voters.Cur), func(id raid.NodeID) bool { return id == n.ID })
			return Decision{Propose: &VotersBegin{New: next, LV: s.Voters.LV}, Why: "leaving: node " + n.Name}, keyOf("begin", s.Voters.LV)
		case !n.Leaving && m != nil && m.Learner && votes:
			return conf(ConfPromote, n, "lease voter already: node")
		case !n.Leaving && m != nil && m.Learner && len(s.Voters.Cur) < p.opt.MaxVoters &&
			m.Match+caughtUpEntries >= v.Last && m.Active && alive(n, nh, nowNs):
			next := slices.Sorted(slices.Values(append(slices.Clone(s.Voters.Cur), n.ID)))
			return Decision{Propose: &VotersBegin{New: next, LV: s.Voters.LV}, Why: "caught up: node " + n.Name}, keyOf("begin", s.Voters.LV)
		}
	}
	for _, m := range v.Members { // removed from the state, still in Raft
		if s.Node(m.Node) == nil {
			return Decision{Conf: &ConfDecision{ConfRemove, m.Node}, Why: fmt.Sprintf("no member any more: node %d", m.Node)}, keyOf("conf", ConfRemove, m.Node)
		}
	}
	return Decision{}, ""
}

// voterChangeStep brings Raft's voters to Cur, then ends the change when every living term has reported it.
func (p *Planner) voterChangeStep(s *State, h *Health, v *RaftView, conf func(ConfKind, *Node, string) (Decision, string)) (Decision, string) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		m := v.Member(n.ID)
		votes := slices.Contains(s.Voters.Cur, n.ID)
		switch {
		case votes && m == nil:
			return conf(ConfAddLearner, n, "add as learner: node")
		case votes && m.Learner:
			return conf(ConfPromote, n, "promote: node")
		case !votes && m != nil && !m.Learner:
			return conf(ConfDemote, n, "no voter any more: node")
		}
	}
	end := &VotersEnd{LV: s.Voters.LV}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !n.Held {
			continue
		}
		nh := h.node(n.ID)
		if nh == nil || nh.Term != n.Term || nh.LV < s.Voters.LV {
			return Decision{}, "" // it will report, or its term be revoked under the joint rule
		}
		end.Reported = append(end.Reported, NodeTerm{n.ID, n.Term})
	}
	return Decision{Propose: end, Why: "all living terms have reported the new voters"}, keyOf("end", s.Voters.LV)
}
