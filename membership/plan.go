package membership

import (
	"cmp"
	"slices"

	"clade/raid"
)

// Times of the leader's decisions.
const (
	SuspectNs         = 200e6 // no heartbeat for so long: begin to revoke
	proposeAgainNs    = 200e6 // a proposal whose effect is not seen is made again
	seenRecentNs      = 1e9   // a beacon or initiator frame so young shows a living SAN path (B: L14)
	seenDeadNs        = 3e9   // none for so long shows a dead one
	handoffHoldMinNs  = 2e9
	handoffHoldMaxNs  = 300e9
	handoffCalmNs     = 60e9 // initiator frames for so long reset the hold-off
	spreadSettleNs    = 5e9  // a node that came back gets volumes to even their number out only then
	takeoverRetryNs   = 1e9  // a candidate that released without ever being active waits so long
	takeoverRetryMax  = 60e9
	DefaultMaxVoters  = 5
	caughtUpEntries   = 64
	settleAfterLeadNs = 300e6 // a new leader first listens
)

// PathHealth is one SAN path of a node, as it says itself in its heartbeat (B: L1).
type PathHealth struct {
	Carrier     bool
	MTUOK       bool
	BeaconNs    int64 // when the newest beacon of another node was received, by the reader's clock; 0: never
	InitiatorNs int64 // when the newest initiator frame was received; 0: never
}

// HeardBeacon is when a node last heard a beacon that another has sent on one of its paths, or began to listen for it.
type HeardBeacon struct {
	Node raid.NodeID
	Path int
	AtNs int64 // by the reader's clock
}

// NodeHealth is what the leader has heard of a node.
type NodeHealth struct {
	Node        raid.NodeID
	Term        raid.Term    // of the heartbeat
	HeartbeatNs int64        // when the last one arrived; 0: never
	TermNs      int64        // when the leader applied the node's present term; 0: before it led
	Resets      bool         // its connections were reset and its port refuses: no proof, but suspicion (B: C4)
	LV          uint64       // lease voters it goes by
	Paths       []PathHealth // empty: it says nothing of its SAN
	Heard       []HeardBeacon
	Reach       raid.DiskSet // disks it has a connection to
	ReachAll    bool         // it reaches every disk (shortcut for tests and small clusters)
}

// VolumeHealth is what the leader has heard of a volume from its owner.
type VolumeHealth struct {
	Vol       raid.VolumeID
	FenceSeen raid.Epoch // highest fence with which a disk has refused the owner (B: L7)
	CalmNs    int64      // initiators have been heard without a gap for so long
}

// Health is the leader's view of the cluster.
type Health struct {
	Self    raid.NodeID
	Nodes   []NodeHealth
	Volumes []VolumeHealth
	LeadNs  int64 // since when this node leads
}

func (h *Health) node(n raid.NodeID) *NodeHealth {
	for i := range h.Nodes {
		if h.Nodes[i].Node == n {
			return &h.Nodes[i]
		}
	}
	return nil
}

func (h *Health) volume(v raid.VolumeID) VolumeHealth {
	for i := range h.Volumes {
		if h.Volumes[i].Vol == v {
			return h.Volumes[i]
		}
	}
	return VolumeHealth{Vol: v}
}

// Decision is one thing the leader does now: exactly one of its fields is set.
type Decision struct {
	Propose Body      // a command
	Revoke  *NodeTerm // start to revoke this term
	Conf    *ConfDecision
	Why     string // for the log
}

// ConfDecision is a change of Raft's configuration.
type ConfDecision struct {
	Kind ConfKind
	Node raid.NodeID
}

// PlannerOptions configures a Planner; zero fields get the defaults.
type PlannerOptions struct {
	MaxVoters int // nodes beyond that stay learners
	NoSpread  bool
}

// Planner makes the leader's decisions from State, Raft's view and Health. What it remembers are only times of earlier
// decisions: a new leader starts with an empty one.
type Planner struct {
	opt      PlannerOptions
	made     []madeDecision
	holds    []hold
	tries    []try
	lastMove int64
}

type madeDecision struct {
	key string
	at  int64
}

// hold is a volume's hold-off after a handoff.
type hold struct {
	vol    raid.VolumeID
	since  int64
	forNs  int64
	target raid.NodeID
}

// try is a takeover that the planner has proposed, and what became of it.
type try struct {
	vol    raid.VolumeID
	node   raid.NodeID
	epoch  raid.Epoch // of the takeover
	failed int        // releases without ever having been active, in a row
	until  int64      // not again before
}

// NewPlanner returns a planner for a node that has just become leader.
func NewPlanner(opt PlannerOptions) *Planner {
	opt.MaxVoters = cmp.Or(opt.MaxVoters, DefaultMaxVoters)
	return &Planner{opt: opt, lastMove: -handoffHoldMaxNs}
}

// Plan returns what to do now, most urgent first. It is called by the leader only, every few ticks and after each apply.
func (p *Planner) Plan(s *State, h *Health, v *RaftView, nowNs int64) []Decision {
	if !s.Initialised() {
		return nil
	}
	p.made = slices.DeleteFunc(p.made, func(m madeDecision) bool { return nowNs-m.at >= proposeAgainNs })
	var out []Decision
	out = append(out, p.planRevoke(s, h, nowNs)...)
	out = append(out, p.planTakeover(s, h, nowNs)...)
	out = append(out, p.planVoters(s, h, v, nowNs)...)
	out = append(out, p.planHandoff(s, h, nowNs)...)
	return out
}

// once reports whether a decision has not been made in the last proposeAgainNs, and remembers it.
func (p *Planner) once(nowNs int64, key string) bool {
	if slices.ContainsFunc(p.made, func(m madeDecision) bool { return m.key == key }) {
		return false
	}
	p.made = append(p.made, madeDecision{key, nowNs})
	return true
}

// alive reports whether a node holds its term and has been heard of lately.
func alive(n *Node, h *NodeHealth, nowNs int64) bool {
	return n.Held && h != nil && h.Term == n.Term && h.HeartbeatNs != 0 && nowNs-h.HeartbeatNs < SuspectNs
}

// planRevoke suspects nodes that hold a term and are not heard (CONTRACT of A.2: suspicion starts a revocation, never a
// takeover).
func (p *Planner) planRevoke(s *State, h *Health, nowNs int64) []Decision {
	var out []Decision
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !n.Held || n.ID == h.Self {
			continue
		}
		if why := suspicion(n, h, nowNs); why != "" && p.once(nowNs, keyOf("revoke", n.ID, n.Term)) {
			out = append(out, Decision{Revoke: &NodeTerm{n.ID, n.Term}, Why: why})
		}
	}
	return out
}

// suspicion returns why a node's term should be revoked, or "".
func suspicion(n *Node, h *Health, nowNs int64) string {
	nh := h.node(n.ID)
	heard := h.LeadNs + settleAfterLeadNs - SuspectNs // what a new leader has not heard yet may still come
	if nh != nil && nh.Term >= n.Term {
		heard = max(heard, nh.HeartbeatNs)
	}
	if nh != nil {
		heard = max(heard, nh.TermNs) // a new term has its first heartbeat still to make: else it would be ended at once, for ever
	}
	switch {
	case nh != nil && nh.Resets && nh.HeartbeatNs < nowNs:
		return "connections to node " + n.Name + " were reset"
	case nowNs-heard >= SuspectNs:
		return "no heartbeat from node " + n.Name
	}
	return ""
}

// Suspects reports whether a term should still be revoked: Revocations.Stop asks.
func (p *Planner) Suspects(s *State, h *Health, nowNs int64, t NodeTerm) bool {
	n := s.Node(t.Node)
	return n != nil && n.Held && n.Term == t.Term && suspicion(n, h, nowNs) != ""
}
