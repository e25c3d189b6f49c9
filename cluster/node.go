package cluster

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

const (
	ms     = int64(1_000_000)
	second = 1000 * ms
)

// IntakeAgeNs is how old a frame may be at intake, and an answer to a write that was rolled forward (A.4.1, A.4.12).
const IntakeAgeNs = 100 * ms

// Options is what a node is told at birth.
type Options struct {
	ID          raid.NodeID
	Cluster     membership.UUID
	Shelf       uint16
	Info        membership.NodeInfo
	Storage     raft.Storage            // reads only; Ready.Raft is executed against the same store
	Revoked     []membership.Revoked    // durable, from earlier processes
	ProofTerm   raid.Term               // proof of death for this term of the former process; 0: none (A.2)
	Paths       int                     // SAN paths
	PathMACs    []aoe.MAC               // source addresses for node beacons, by path
	Seed        uint64                  // random, differs between processes
	Group       membership.GroupOptions // timing only
	Lease       membership.VoterOptions
	HeartbeatNs int64 // default 50 ms
	CacheBytes  int   // stripe caches of all owned volumes, in equal parts; default 64 MiB

	CacheVolumeBytes int // the most of it that one volume gets; 0: no bound
	Planner          membership.PlannerOptions
	Owner            raid.OwnerConfig // timing only
}

// Node is one process of the cluster. It only composes: each concern is a struct of its own.
type Node struct {
	opt      Options
	now      int64
	tickedNs int64 // last Tick
	group    *membership.Group
	inc      incarnation
	leader   leaderDuty
	san      sanHealth
	peers    peerTable
	disks    diskTable
	admin    adminTable
	vols     []*volume    // of the applied state, sorted by id
	slots    [256]*volume // the same by slot
	ready    Ready
	tx       txQueue
	tokens   tokenTable
	nextID   uint64
	pace     raid.Pace // of what all its owners copy

	watch problemWatch

	wasLeader raid.NodeID
	wasValid  bool
	leaseNs   int64 // since when wasValid is what it is
	stats     Stats
	latencies Latencies
}

// Stats counts what a node has done and dropped. Counters only grow.
type Stats struct {
	FramesIn      uint64 `json:"frames_in"`
	FramesOut     uint64 `json:"frames_out"`
	DropOld       uint64 `json:"drop_old"`       // older than 100 ms at intake
	DropOther     uint64 `json:"drop_other"`     // not for us
	DropClosed    uint64 `json:"drop_closed"`    // the owner admits nothing now
	DropInitiator uint64 `json:"drop_initiator"` // more than bufcnt frames of one initiator
	DropLease     uint64 `json:"drop_lease"`     // answers withheld by the serving rule
	BadPeer       uint64 `json:"bad_peer"`       // malformed or senseless peer messages
	Reads         uint64 `json:"reads"`
	Writes        uint64 `json:"writes"`
	Flushes       uint64 `json:"flushes"`
	Controls      uint64 `json:"controls"`
	RolledForward uint64 `json:"rolled_forward"`
	ReadBytes     uint64 `json:"read_bytes"`
	WriteBytes    uint64 `json:"write_bytes"`
	Takeovers     uint64 `json:"takeovers"`
}

// New starts a node from what its storage holds. It serves nothing before its own NodeBoot has applied.
func New(nowNs int64, opt Options) (*Node, error) {
	if opt.HeartbeatNs == 0 {
		opt.HeartbeatNs = membership.DefaultHeartbeatNs
	}
	if opt.CacheBytes == 0 {
		opt.CacheBytes = 64 << 20
	}
	g := opt.Group
	g.Node, g.Storage = opt.ID, opt.Storage
	group, err := membership.NewGroup(nowNs, g)
	if err != nil {
		return nil, fmt.Errorf("cluster: node %d: %w", opt.ID, err)
	}
	n := &Node{opt: opt, now: nowNs, group: group, nextID: opt.Seed &^ 0xFFFFFFFF}
	lease := opt.Lease
	lease.Node = opt.ID
	n.inc.voter = membership.NewVoter(nowNs, lease, opt.Revoked)
	n.san.paths = make([]pathState, opt.Paths)
	n.syncState()
	return n, nil
}

func (n *Node) tick(nowNs int64) { n.now = max(n.now, nowNs) }

func (n *Node) newID() uint64 { n.nextID++; return n.nextID }

// ownID reports whether this process has given an id out: its upper half is the process's own.
func (n *Node) ownID(id uint64) bool { return id>>32 == n.opt.Seed>>32 && id <= n.nextID }

// State returns the applied replicated state; it changes with the node's inputs.
func (n *Node) State() *membership.State { return n.group.State() }

// Group returns the Raft group, for status.
func (n *Node) Group() *membership.Group { return n.group }

// Stats returns the counters.
func (n *Node) Stats() Stats { return n.stats }

// ID returns the node's id.
func (n *Node) ID() raid.NodeID { return n.opt.ID }

func (n *Node) event(e Event) { n.ready.Events = append(n.ready.Events, e) }

func (n *Node) bad(f string, a ...any) {
	n.stats.BadPeer++
	n.event(Event{Kind: EventDropped, Text: fmt.Sprintf(f, a...)})
}

// Tick lets time pass.
func (n *Node) Tick(nowNs int64) {
	n.tick(nowNs)
	n.tickedNs = n.now
	n.group.Tick(n.now)
	n.takeGroup()
	n.bootStep()
	n.heartbeatStep()
	n.leaderStep()
	n.sanStep()
	n.adminStep()
	n.watchStep()
	for _, v := range n.vols {
		if v.owner != nil {
			v.owner.Tick(n.now)
			n.controlStep(v)
		}
	}
}

// RaftStored says that all StorageWrites up to seq are durable.
func (n *Node) RaftStored(nowNs int64, seq uint64) {
	n.tick(nowNs)
	n.group.Stored(seq)
	n.takeGroup()
}

// ClockJumped says that the host's clock has jumped: the lease term is over, and what was received before is too old (A.2, A.4.1).
func (n *Node) ClockJumped(nowNs int64) {
	n.tick(nowNs)
	n.san.notBefore = n.now
	if n.inc.holder != nil {
		n.inc.holder.ClockJumped()
	}
}

// propose puts a command to the group and returns its id. It may be lost; the proposer looks at the applied state.
func (n *Node) propose(b membership.Body) (uint64, error) {
	id := n.newID()
	err := n.group.Propose(membership.Header{ID: id, By: n.opt.ID, ClockMs: n.now / ms}, b)
	return id, err
}

// takeGroup collects what the group wants and follows what has applied.
func (n *Node) takeGroup() {
	for {
		fx := n.group.Take()
		for _, m := range fx.Messages {
			n.sendControl(raid.NodeID(m.GetTo()), &PeerMessage{Raft: m})
		}
		n.ready.Raft = append(n.ready.Raft, fx.Writes...)
		for _, e := range fx.Events {
			n.event(Event{Kind: EventRaft, Text: e})
		}
		if len(fx.Applied) > 0 || fx.Restored {
			n.syncState()
		}
		for i := range fx.Applied {
			n.applied(&fx.Applied[i])
		}
		if fx.Restored { // the commands that ended terms are not seen one by one
			for i := range n.group.State().Nodes {
				n.nodeTermMoved(n.group.State().Nodes[i].ID)
			}
			for i := range n.group.State().Disks {
				n.diskMoved(n.group.State().Disks[i].ID)
			}
		}
		n.followTerm()
		if len(fx.Messages) == 0 && len(fx.Writes) == 0 && len(fx.Applied) == 0 && !fx.Restored && len(fx.Events) == 0 {
			break
		}
	}
	if lead, _ := n.group.Leader(); lead != n.wasLeader {
		n.wasLeader = lead
		n.leaderChanged(lead)
	}
}

// applied follows one command that has applied.
func (n *Node) applied(r *membership.Result) {
	switch r.Type {
	case "node_boot", "node_dead", "node_revoke":
		n.termApplied(r)
	case "node_remove":
		if r.OK() {
			n.nodeRemoved(r.Node)
		}
	case "disk_attach", "disk_replace":
		if r.OK() {
			n.diskMoved(r.Disk)
		}
	case "control":
		if r.By == n.opt.ID {
			n.controlApplied(r)
		}
	case "volume":
		n.volumeApplied(r)
	}
	if r.By == n.opt.ID {
		n.adminApplied(r)
	}
}

// syncState brings volumes, voters and disks in line with the applied state.
func (n *Node) syncState() {
	s := n.group.State()
	if n.inc.holder != nil && n.inc.lv != s.Voters.LV*2+b2u(s.Voters.Joint()) {
		n.inc.lv = s.Voters.LV*2 + b2u(s.Voters.Joint())
		n.inc.holder.SetVoters(s.Voters)
	}
	gone := false
	for _, v := range n.vols {
		if s.Volume(v.id) == nil {
			n.volumeDeleted(v)
			gone = true
		}
	}
	if gone {
		n.vols = slices.DeleteFunc(n.vols, func(v *volume) bool { return s.Volume(v.id) == nil })
	}
	changed := gone
	for i, mv := range s.Volumes {
		if i >= len(n.vols) || n.vols[i].id != mv.Data.ID {
			n.vols = slices.Insert(n.vols, i, n.newVolume(mv))
			changed = true
		}
		if v := n.vols[i]; v.mv != mv || v.fresh {
			n.volumeChanged(v, mv)
		}
	}
	if changed {
		clear(n.slots[:])
		for _, v := range n.vols {
			n.slots[v.target.Identity.Slot] = v
		}
	}
	n.settleShards()
	n.checkOwners()
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
