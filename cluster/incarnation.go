package cluster

import (
	"errors"
	"slices"

	"clade/membership"
	"clade/raid"
)

// incarnation is this process's life as a lease holder, and its voter (A.2).
type incarnation struct {
	voter    *membership.Voter
	holder   *membership.Holder // nil until our NodeBoot has applied and the term is in the state file
	term     raid.Term          // ours by our own NodeBoot; 0: none
	proven   bool               // the proof of death was used, or did not fit
	bootNs   int64
	termMeta uint64 // MetaWrite of the term under way
	beatNs   int64  // last heartbeat
	lv       uint64
	writes   []voterWrite
}

type voterWrite struct {
	meta  uint64
	voter uint64
	to    raid.NodeID
}

const bootRetryNs = 300 * ms

// bootStep proposes NodeBoot until a term is ours. Without proof of death a held term has to be revoked first, which the
// leader does by itself as nobody heartbeats for it.
func (n *Node) bootStep() {
	inc := &n.inc
	if inc.term != 0 || inc.bootNs != 0 && n.now-inc.bootNs < bootRetryNs {
		return
	}
	row := n.group.State().Node(n.opt.ID)
	if row == nil {
		return
	}
	boot := &membership.NodeBoot{Node: n.opt.ID, Term: row.Term, Info: n.opt.Info}
	if row.Held {
		if inc.proven || n.opt.ProofTerm != row.Term {
			if n.group.IsLeader() {
				n.leader.revoke.Start(n.opt.ID, row.Term)
			}
			return
		}
		boot.Proof = true
	}
	inc.bootNs = n.now
	_, _ = n.propose(boot) // lost: proposed again
}

// termApplied follows NodeBoot, NodeDead and NodeRevoke. Any NodeBoot of this process may be the one that applies, also one that
// seemed lost and was proposed again: its id tells whose it is.
func (n *Node) termApplied(r *membership.Result) {
	if r.Type == "node_boot" && r.By == n.opt.ID && n.ownID(r.ID) && n.inc.term == 0 {
		n.booted(r)
	}
	if r.OK() {
		n.nodeTermMoved(r.Node)
	}
}

// followTerm gives our term up when the applied state has ended it, by a command, in a snapshot, or with our membership.
func (n *Node) followTerm() {
	if n.inc.term == 0 {
		return
	}
	if row := n.group.State().Node(n.opt.ID); row == nil || row.Term > n.inc.term {
		n.termEnded()
	}
}

func (n *Node) booted(r *membership.Result) {
	inc := &n.inc
	if !r.OK() {
		if errors.Is(r.Err, membership.ErrTerm) || errors.Is(r.Err, membership.ErrHeld) {
			inc.bootNs = 0 // again with the current term
			return
		}
		n.event(Event{Kind: EventDropped, Text: "this node is not admitted: " + r.Err.Error()})
		return
	}
	inc.term, inc.proven = r.Term, true
	inc.termMeta = n.newID()
	n.ready.Meta = append(n.ready.Meta, MetaWrite{ID: inc.termMeta, Term: r.Term})
	n.event(Event{Kind: EventBooted, Node: n.opt.ID})
}

// termEnded gives everything up that hung on the term, then asks for a new one: the same process may go on (A.2).
func (n *Node) termEnded() {
	if n.inc.holder != nil {
		n.inc.holder.TermBumped()
	}
	n.event(Event{Kind: EventTermEnded, Node: n.opt.ID})
	n.inc.term, n.inc.holder, n.inc.bootNs, n.inc.termMeta = 0, nil, 0, 0
	n.checkOwners()
}

// MetaStored says that a MetaWrite is durable.
func (n *Node) MetaStored(nowNs int64, id uint64) {
	n.tick(nowNs)
	inc := &n.inc
	if id == inc.termMeta && inc.term != 0 {
		inc.termMeta = 0
		s := n.group.State()
		inc.lv = s.Voters.LV*2 + b2u(s.Voters.Joint())
		inc.holder = membership.NewHolder(n.opt.ID, inc.term, s.Voters)
		inc.beatNs = 0
		n.heartbeatStep()
		n.checkOwners()
		return
	}
	for i, w := range inc.writes {
		if w.meta == id {
			inc.writes = append(inc.writes[:i:i], inc.writes[i+1:]...)
			if reply, ok := inc.voter.Stored(w.voter); ok {
				n.sendRevokeReply(w.to, reply)
			}
			return
		}
	}
}

func (inc *incarnation) nextBeat(every int64) int64 {
	if inc.holder == nil {
		return 1 << 62
	}
	return inc.beatNs + every
}

// heartbeatStep asks all members for a lease. The time of sending is the now of the last input, so it was read before.
func (n *Node) heartbeatStep() {
	inc := &n.inc
	if inc.holder == nil || inc.beatNs != 0 && n.now-inc.beatNs < n.opt.HeartbeatNs {
		return
	}
	if inc.holder.Over() != "" {
		// This term can never be valid again: end it ourselves; a living process proves the end of its own term (A.2).
		if inc.beatNs == 0 || n.now-inc.beatNs > bootRetryNs {
			inc.beatNs = n.now
			_, _ = n.propose(&membership.NodeDead{Node: n.opt.ID, Term: inc.term}) // lost: proposed again
		}
		return
	}
	inc.beatNs = n.now
	hb := &Heartbeat{Heartbeat: inc.holder.Send(n.now), Paths: n.pathReports(), Silent: n.silenceReports(), Disks: n.disks.open, Reach: n.reach(),
		Peers: slices.Clone(n.peers.conn), Volumes: n.volumeReports()}
	for i := range n.group.State().Nodes {
		if id := n.group.State().Nodes[i].ID; id != n.opt.ID {
			n.sendControl(id, &PeerMessage{Heartbeat: hb})
		}
	}
	n.heartbeatFrom(n.opt.ID, hb)
}

// heartbeatFrom answers a holder and notes how its node is.
func (n *Node) heartbeatFrom(from raid.NodeID, hb *Heartbeat) {
	if hb.Node != from {
		n.bad("heartbeat of node %d from node %d", hb.Node, from)
		return
	}
	n.noteHealth(from, hb)
	ack, ok := n.inc.voter.Heartbeat(n.now, hb.Heartbeat)
	if !ok {
		return
	}
	if from == n.opt.ID {
		n.inc.holder.Ack(n.now, ack)
		return
	}
	n.sendControl(from, &PeerMessage{HeartbeatAck: &ack})
}

// revokeFrom answers the leader's wish to end a term.
func (n *Node) revokeFrom(from raid.NodeID, q membership.RevokeRequest) {
	reply, ok, write := n.inc.voter.Revoke(n.now, q)
	if write != nil {
		id := n.newID()
		n.inc.writes = append(n.inc.writes, voterWrite{meta: id, voter: write.ID, to: from})
		rev := write.Revoked
		n.ready.Meta = append(n.ready.Meta, MetaWrite{ID: id, Revoked: &rev})
	}
	if ok {
		n.sendRevokeReply(from, reply)
	}
}

func (n *Node) sendRevokeReply(to raid.NodeID, r membership.RevokeReply) {
	if to == n.opt.ID {
		n.leader.revoke.Reply(n.now, r)
		return
	}
	n.sendControl(to, &PeerMessage{RevokeReply: &r})
}
