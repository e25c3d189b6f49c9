package cluster

import (
	"cmp"
	"fmt"
	"slices"

	"clade/membership"
	"clade/raid"
)

// leaderDuty is what a node knows of the others' health, and what it does about it while it leads.
type leaderDuty struct {
	planner  *membership.Planner // nil: not leading
	revoke   membership.Revocations
	leadNs   int64
	planNs   int64
	nodes    []nodeHealth // sorted by node
	deaths   []death      // proofs not yet applied
	deleting []deletion
}

type nodeHealth struct {
	id     raid.NodeID
	term   raid.Term
	heard  int64
	termNs int64 // when its present term was applied here
	resets bool
	lv     uint64
	hb     *Heartbeat
}

type death struct {
	membership.NodeTerm
	atNs int64
}

// deletion keeps a volume without owner until it is deleted.
type deletion struct {
	vol   raid.VolumeID
	until int64
}

const planEveryNs = 20 * ms

func (l *leaderDuty) index(id raid.NodeID) (int, bool) {
	return slices.BinarySearchFunc(l.nodes, id, func(h nodeHealth, id raid.NodeID) int { return cmp.Compare(h.id, id) })
}

// known returns what is known of a node, nil for nothing.
func (l *leaderDuty) known(id raid.NodeID) *nodeHealth {
	if i, ok := l.index(id); ok {
		return &l.nodes[i]
	}
	return nil
}

// node is known, but makes a row where there is none; nil when there are too many.
func (l *leaderDuty) node(id raid.NodeID) *nodeHealth {
	i, ok := l.index(id)
	if !ok {
		if len(l.nodes) >= membership.MaxNodes {
			return nil
		}
		l.nodes = slices.Insert(l.nodes, i, nodeHealth{id: id})
	}
	return &l.nodes[i]
}

func (n *Node) noteHealth(from raid.NodeID, hb *Heartbeat) {
	h := n.leader.node(from)
	if h == nil || hb.Term < h.term {
		return
	}
	h.term, h.heard, h.resets, h.lv, h.hb = hb.Term, n.now, false, hb.LV, hb
}

// leaderChanged starts or ends the leader's duties.
func (n *Node) leaderChanged(lead raid.NodeID) {
	n.event(Event{Kind: EventLeader, Node: lead})
	if lead == n.opt.ID && n.leader.planner == nil {
		n.leader.planner = membership.NewPlanner(n.opt.Planner)
		n.leader.leadNs = n.now
	} else if lead != n.opt.ID {
		n.leader.planner = nil
		n.leader.revoke.Stop(func(membership.NodeTerm) bool { return false })
	}
	n.deathStep()
}

// leaderStep does what only the leader does, and repeats proofs of death until they have applied.
func (n *Node) leaderStep() {
	l := &n.leader
	n.deathStep()
	if l.planner == nil {
		return
	}
	n.revokeStep()
	if n.now-l.planNs < planEveryNs {
		return
	}
	n.plan()
}

func (n *Node) plan() {
	l := &n.leader
	if l.planner == nil {
		return
	}
	l.planNs = n.now
	s, h, view := n.group.State(), n.health(), n.group.View()
	for _, d := range l.planner.Plan(s, h, &view, n.now) {
		n.decide(d)
	}
	l.revoke.Stop(func(t membership.NodeTerm) bool {
		return l.planner.Suspects(s, h, n.now, t) || t.Node == n.opt.ID && n.inc.term == 0
	})
}

func (n *Node) decide(d membership.Decision) {
	switch {
	case d.Propose != nil:
		if t, ok := d.Propose.(*membership.Takeover); ok && n.isDeleting(t.Vol) {
			return
		}
		n.event(Event{Kind: EventDecision, Text: d.Propose.CommandType() + ": " + d.Why})
		_, _ = n.propose(d.Propose) // lost: the planner decides again
	case d.Revoke != nil:
		n.event(Event{Kind: EventDecision, Node: d.Revoke.Node, Text: "revoke: " + d.Why})
		n.leader.revoke.Start(d.Revoke.Node, d.Revoke.Term)
		n.revokeStep()
	case d.Conf != nil:
		n.event(Event{Kind: EventDecision, Node: d.Conf.Node, Text: "raft configuration: " + d.Why})
		_ = n.group.ProposeConf(d.Conf.Kind, d.Conf.Node)
	}
}

// revokeStep asks the voters and proposes what their answers allow.
func (n *Node) revokeStep() {
	voters := n.group.State().Voters
	for _, q := range n.leader.revoke.Due(n.now) {
		for _, id := range n.leader.revoke.Missing(q, voters) {
			if id == n.opt.ID {
				n.revokeFrom(n.opt.ID, q)
				continue
			}
			n.sendControl(id, &PeerMessage{Revoke: &q})
		}
	}
	n.proposeRevokes()
}

func (n *Node) proposeRevokes() {
	for _, c := range n.leader.revoke.Done(n.group.State().Voters) {
		_, _ = n.propose(c) // lost: done again, the answers stay true
		n.leader.revoke.Stop(func(t membership.NodeTerm) bool { return t.Node != c.Node || t.Term != c.Term })
	}
}

// health is the leader's view of the cluster, in its own clock.
func (n *Node) health() *membership.Health {
	h := &membership.Health{Self: n.opt.ID, LeadNs: n.leader.leadNs}
	for i := range n.leader.nodes {
		x := &n.leader.nodes[i]
		m := membership.NodeHealth{Node: x.id, Term: x.term, HeartbeatNs: x.heard, TermNs: x.termNs, Resets: x.resets, LV: x.lv}
		if x.hb != nil {
			m.Reach = x.hb.Reach
			for _, p := range x.hb.Paths {
				m.Paths = append(m.Paths, membership.PathHealth{Carrier: p.Carrier, MTUOK: p.MTUOK,
					BeaconNs: since(x.heard, p.BeaconAge), InitiatorNs: since(x.heard, p.InitiatorAge)})
			}
			for _, q := range x.hb.Silent {
				m.Heard = append(m.Heard, membership.HeardBeacon{Node: q.Node, Path: int(q.Path), AtNs: since(x.heard, max(q.Ns, 0))})
			}
			for _, v := range x.hb.Volumes {
				h.Volumes = append(h.Volumes, membership.VolumeHealth{Vol: v.Vol, FenceSeen: v.FenceSeen, CalmNs: v.CalmNs})
			}
		}
		h.Nodes = append(h.Nodes, m)
	}
	return h
}

func since(heard, age int64) int64 {
	if age < 0 {
		return 0
	}
	return max(heard-age, 1)
}

// deadFrom takes a proof of death. Whoever hears it makes it known; if it was the leader who died, nobody waits for an
// election time-out.
func (n *Node) deadFrom(t membership.NodeTerm) {
	row := n.group.State().Node(t.Node)
	if row == nil || row.Term != t.Term || !row.Held || t.Node == n.opt.ID {
		return
	}
	n.event(Event{Kind: EventDecision, Node: t.Node, Text: fmt.Sprintf("its guardian proves the end of term %d", t.Term)})
	if !slices.ContainsFunc(n.leader.deaths, func(d death) bool { return d.NodeTerm == t }) && len(n.leader.deaths) < membership.MaxNodes {
		n.leader.deaths = append(n.leader.deaths, death{NodeTerm: t})
	}
	n.leaderLost(t.Node)
	n.deathStep()
}

// leaderLost makes the followers of a leader whose process is gone vote at once, and the lowest of them stand. It stands
// again if another sign of the death comes while there is no leader yet: the first time the others may not have noticed, and
// have then refused it.
func (n *Node) leaderLost(id raid.NodeID) {
	lead, _ := n.group.Leader()
	if lead != id && lead != 0 || id == n.opt.ID {
		return
	}
	n.group.ForgetLeader()
	view := n.group.View()
	for _, m := range view.Members {
		if m.Node == n.opt.ID && !m.Learner {
			n.group.Campaign()
			break
		}
		if m.Node != id && !m.Learner && n.peers.up(m.Node) {
			break
		}
	}
	n.takeGroup()
}

// deathStep proposes NodeDead until the term has moved on.
func (n *Node) deathStep() {
	s := n.group.State()
	n.leader.deaths = slices.DeleteFunc(n.leader.deaths, func(d death) bool {
		row := s.Node(d.Node)
		return row == nil || row.Term != d.Term || !row.Held
	})
	if lead, _ := n.group.Leader(); lead == 0 {
		return
	}
	for i := range n.leader.deaths {
		if d := &n.leader.deaths[i]; d.atNs == 0 || n.now-d.atNs > 100*ms {
			d.atNs = n.now
			_, _ = n.propose(&membership.NodeDead{Node: d.Node, Term: d.Term})
		}
	}
}

// nodeTermMoved tells the owners whose disks have lost their node, and plans at once.
func (n *Node) nodeTermMoved(id raid.NodeID) {
	s := n.group.State()
	row := s.Node(id)
	if h := n.leader.node(id); h != nil {
		h.termNs, h.resets = n.now, false // what was reset belonged to the former term
	}
	if row != nil {
		disks := s.DisksOf(id)
		for _, v := range n.vols {
			switch {
			case v.owner == nil:
			case row.Held && id != n.opt.ID:
			case !row.Held:
				v.owner.NodeDead(n.now, disks)
			}
		}
	}
	n.tellAlive()
	n.plan()
}

// isDeleting reports whether the leader keeps a volume without owner to delete it.
func (n *Node) isDeleting(id raid.VolumeID) bool {
	return slices.ContainsFunc(n.leader.deleting, func(d deletion) bool { return d.vol == id })
}

// nodeRemoved forgets a node that is no member any more; its id is never used again.
func (n *Node) nodeRemoved(id raid.NodeID) {
	n.inc.voter.Forget(id)
	n.leader.nodes = slices.DeleteFunc(n.leader.nodes, func(h nodeHealth) bool { return h.id == id })
	n.peers.beats = slices.DeleteFunc(n.peers.beats, func(b peerBeat) bool { return b.id == id })
}
