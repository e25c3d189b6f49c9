package membership

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"clade/raid"
)

// Defaults of GroupOptions.
const (
	DefaultTickNs          = 10e6
	DefaultElectionTicks   = 30 // a follower campaigns after 30..59 ticks without its leader: 300..600 ms
	DefaultHeartbeatTicks  = 5
	DefaultSnapshotEntries = 2048
	DefaultKeepEntries     = 512
	maxMessageEntryBytes   = 256 << 10
	maxUncommittedBytes    = 4 << 20
	maxPending             = 1024
	snapshotTimeoutNs      = 5e9
)

// GroupOptions configures a Group; zero fields get the defaults above.
type GroupOptions struct {
	Node            raid.NodeID
	Storage         raft.Storage // reads only; the caller executes StorageWrites against the same store
	TickNs          int64
	ElectionTicks   int
	HeartbeatTicks  int
	SnapshotEntries uint64 // a snapshot is taken after so many applied entries
	KeepEntries     uint64 // entries kept below a snapshot for followers that lag a little
}

// StorageWrite is one durable write to the Raft log. Writes are executed in order of Seq; several may share one sync. When
// all up to Seq are durable, the caller says Stored(Seq). A write that fails is final: the node stops.
type StorageWrite struct {
	Seq uint64
	// Append is a MsgStorageAppend: snapshot received from the leader, entries, hard state. Nil for a snapshot of our own.
	Append *raftpb.Message
	// Snapshot is our own: save it, then drop the log up to CompactTo. Nil otherwise.
	Snapshot  *raftpb.Snapshot
	CompactTo uint64
}

// GroupEffects is what Take hands over. It is valid until the next call to the Group; the messages are the caller's.
type GroupEffects struct {
	Messages []*raftpb.Message // to peers; may be lost
	Writes   []StorageWrite
	Applied  []Result // in order of index, of all proposers
	Restored bool     // State was replaced by a snapshot: look at all of it
	Events   []string // for the log
}

// Group runs State under Raft. All of it happens in the caller's goroutine.
//
// Entries are applied inside the Group as soon as they are committed and durable here: State lives in memory, and after a
// restart it is made again from the snapshot and the log.
type Group struct {
	opt     GroupOptions
	rn      *raft.RawNode
	state   *State
	conf    *raftpb.ConfState
	lastNs  int64
	applied uint64 // last applied index, conf changes and empty entries included
	term    uint64 // Raft term of that entry
	last    uint64 // last index of the log, unstable entries included
	snap    uint64 // index of our newest snapshot
	nextSeq uint64
	writes  []StorageWrite // handed out or about to be, not yet durable
	taken   int            // how many of writes Take has handed out
	out     GroupEffects
	stop    error
	log     groupLog
	sending []sendingSnapshot
}

// Bootstrap returns the snapshot that the storage of a cluster's first node starts from: one voter, an empty state.
// Every other node starts from an empty storage and gets a snapshot from the leader.
func Bootstrap(first raid.NodeID) *raftpb.Snapshot {
	s := &State{Applied: 1}
	return &raftpb.Snapshot{Data: s.Snapshot(), Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(1)), Term: new(uint64(1)),
		ConfState: &raftpb.ConfState{Voters: []uint64{uint64(first)}},
	}}
}

// NewGroup starts from what the storage holds.
func NewGroup(nowNs int64, opt GroupOptions) (*Group, error) {
	opt.TickNs = cmp.Or(opt.TickNs, DefaultTickNs)
	opt.ElectionTicks = cmp.Or(opt.ElectionTicks, DefaultElectionTicks)
	opt.HeartbeatTicks = cmp.Or(opt.HeartbeatTicks, DefaultHeartbeatTicks)
	opt.SnapshotEntries = cmp.Or(opt.SnapshotEntries, DefaultSnapshotEntries)
	opt.KeepEntries = cmp.Or(opt.KeepEntries, DefaultKeepEntries)
	g := &Group{opt: opt, lastNs: nowNs, state: &State{}}
	snap, err := opt.Storage.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("membership: read snapshot: %w", err)
	}
	if !raft.IsEmptySnap(snap) {
		if g.state, err = Restore(snap.GetData()); err != nil {
			return nil, fmt.Errorf("membership: snapshot at index %d: %w", snap.GetMetadata().GetIndex(), err)
		}
		g.applied, g.term = snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()
	}
	g.snap = g.applied
	if g.last, err = opt.Storage.LastIndex(); err != nil {
		return nil, fmt.Errorf("membership: read last index: %w", err)
	}
	if _, g.conf, err = opt.Storage.InitialState(); err != nil {
		return nil, fmt.Errorf("membership: read hard state: %w", err)
	}
	if g.conf != nil && len(g.conf.Voters) > 0 && !confStateOK(g.conf) {
		return nil, fmt.Errorf("membership: stored configuration %v: %w", g.conf, ErrInvalid)
	}
	g.rn, err = raft.NewRawNode(&raft.Config{
		ID: uint64(opt.Node), ElectionTick: opt.ElectionTicks, HeartbeatTick: opt.HeartbeatTicks,
		Storage: liveStorage{opt.Storage, g}, Applied: g.applied, AsyncStorageWrites: true,
		MaxSizePerMsg: maxMessageEntryBytes, MaxUncommittedEntriesSize: maxUncommittedBytes, MaxInflightMsgs: 64,
		CheckQuorum: true, PreVote: true, StepDownOnRemoval: true, Logger: &g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("membership: start raft: %w", err)
	}
	g.pump()
	return g, nil
}

// liveStorage is what Raft reads: the store, but a snapshot for a follower is made of the state as applied now. The stored one
// may be older than the follower's membership, and Raft ignores a snapshot whose configuration does not name the receiver.
type liveStorage struct {
	raft.Storage
	g *Group
}

// Snapshot returns the applied state.
func (l liveStorage) Snapshot() (*raftpb.Snapshot, error) {
	if l.g.applied == 0 {
		return l.Storage.Snapshot()
	}
	return l.g.snapshot(), nil
}

func (g *Group) snapshot() *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: g.state.Snapshot(), Metadata: &raftpb.SnapshotMetadata{
		Index: new(g.applied), Term: new(g.term), ConfState: proto.Clone(g.conf).(*raftpb.ConfState)}}
}

// State returns the applied state. It changes with the Group's inputs.
func (g *Group) State() *State { return g.state }

// Stopped returns why the node must stop (B: L8), or nil. A stopped Group takes no more input.
func (g *Group) Stopped() error { return g.stop }

// Leader returns the leader as far as this node knows, 0 for none, and the Raft term.
func (g *Group) Leader() (raid.NodeID, uint64) {
	st := g.rn.BasicStatus()
	return raid.NodeID(st.Lead), st.HardState.GetTerm()
}

// IsLeader reports whether this node leads.
func (g *Group) IsLeader() bool { return g.rn.BasicStatus().RaftState == raft.StateLeader }

// Applied returns the index of the last applied entry.
func (g *Group) Applied() uint64 { return g.applied }

// Tick moves Raft's clock to nowNs. After a pause of this process Raft sees one election time-out at most.
func (g *Group) Tick(nowNs int64) {
	if g.stop != nil {
		return
	}
	ticks := (nowNs - g.lastNs) / g.opt.TickNs
	if ticks <= 0 {
		return
	}
	g.lastNs += ticks * g.opt.TickNs
	for range min(ticks, int64(g.opt.ElectionTicks)) {
		g.rn.Tick()
	}
	g.resendSnapshots(nowNs)
	g.pump()
}

// resendSnapshots tells Raft to try again where a snapshot has been under way for too long: Raft itself waits for ever, and not
// every loss breaks a link.
func (g *Group) resendSnapshots(nowNs int64) {
	if !g.IsLeader() {
		g.sending = nil
		return
	}
	var now []sendingSnapshot
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if pr.State != tracker.StateSnapshot {
			return
		}
		s := sendingSnapshot{id, pr.PendingSnapshot, nowNs}
		if i := slices.IndexFunc(g.sending, func(o sendingSnapshot) bool { return o.to == id && o.index == s.index }); i >= 0 {
			s.since = g.sending[i].since
		}
		now = append(now, s)
	})
	g.sending = now
	for _, s := range now {
		if nowNs-s.since >= snapshotTimeoutNs {
			g.rn.ReportSnapshot(s.to, raft.SnapshotFailure)
		}
	}
}

type sendingSnapshot struct {
	to, index uint64
	since     int64
}

// NextTickNs returns when Tick has something to do again.
func (g *Group) NextTickNs() int64 { return g.lastNs + g.opt.TickNs }

// Step takes a message that the transport says came from a node; of a message that a third node relayed (B: L2), from is the
// node that made it. Whatever it is, it cannot stop the node: what Raft would
// choke on is dropped with an error, and the caller counts it.
func (g *Group) Step(from raid.NodeID, m *raftpb.Message) error {
	if g.stop != nil {
		return g.stop
	}
	if err := g.validate(from, m); err != nil {
		return fmt.Errorf("membership: %s from node %d: %w", m.GetType(), from, err)
	}
	err := g.rn.Step(m)
	g.pump()
	if errors.Is(err, raft.ErrProposalDropped) || errors.Is(err, raft.ErrStepPeerNotFound) {
		return err
	}
	return nil
}

// Propose puts a command to the cluster; the Result comes out of Take, at every node, if it is ever applied. It may be lost:
// the proposer asks again after a while, which the commands' guards make harmless.
func (g *Group) Propose(h Header, b Body) error {
	if g.stop != nil {
		return g.stop
	}
	data, err := Encode(h, b)
	if err != nil {
		return err
	}
	err = g.rn.Propose(data)
	g.pump()
	return err
}

// ConfKind is a change of Raft's configuration, one node at a time.
type ConfKind uint8

// The changes.
const (
	ConfAddLearner ConfKind = iota + 1
	ConfPromote
	ConfRemove
	ConfDemote // a voter becomes a learner: it votes no more, and goes on to be told
)

// ProposeConf puts a configuration change to the cluster. Like a command it may be lost or be void.
func (g *Group) ProposeConf(k ConfKind, n raid.NodeID) error {
	if g.stop != nil {
		return g.stop
	}
	cc := confChange(k, n)
	if cc == nil || !confChangeOK(g.conf, cc) {
		return fmt.Errorf("membership: configuration change %d of node %d: %w", k, n, ErrInvalid)
	}
	err := g.rn.ProposeConfChange(cc)
	g.pump()
	return err
}

// Campaign makes the node stand for election now.
func (g *Group) Campaign() {
	if g.stop == nil {
		_ = g.rn.Campaign() // it can only say that this node may not stand
		g.pump()
	}
}

// ForgetLeader says that the leader is believed dead (its connections were reset): the node will vote at once, but stays
// with the leader if it is heard again.
func (g *Group) ForgetLeader() {
	if g.stop == nil {
		_ = g.rn.ForgetLeader()
		g.pump()
	}
}

// TransferLeader asks Raft to make another node the leader.
func (g *Group) TransferLeader(to raid.NodeID) {
	if g.stop == nil && slices.Contains(g.conf.GetVoters(), uint64(to)) {
		g.rn.TransferLeader(uint64(to))
		g.pump()
	}
}

// Unreachable says that messages to a peer have been lost: its link broke.
func (g *Group) Unreachable(n raid.NodeID) {
	if g.stop == nil && n != g.opt.Node {
		g.rn.ReportUnreachable(uint64(n))
		g.rn.ReportSnapshot(uint64(n), raft.SnapshotFailure)
		g.pump()
	}
}

// Stored says that all StorageWrites up to seq are durable.
func (g *Group) Stored(seq uint64) {
	for g.stop == nil && g.taken > 0 && g.writes[0].Seq <= seq {
		w := g.writes[0]
		g.writes = g.writes[1:]
		g.taken--
		if w.Append == nil {
			continue
		}
		if s := w.Append.GetSnapshot(); !raft.IsEmptySnap(s) {
			g.restore(s)
		}
		for _, m := range w.Append.GetResponses() {
			if m.GetTo() == uint64(g.opt.Node) {
				if err := g.rn.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
					panic(fmt.Sprintf("membership: raft refuses its own %s: %v", m.GetType(), err))
				}
			} else {
				g.out.Messages = append(g.out.Messages, m)
			}
		}
	}
	g.pump()
}

// Take hands over the effects since the last call.
func (g *Group) Take() *GroupEffects {
	out := g.out
	out.Writes = slices.Clone(g.writes[g.taken:])
	g.taken = len(g.writes)
	out.Events = g.log.take()
	g.out = GroupEffects{}
	return &out
}

// pump collects what Raft wants, and applies what is committed, until it wants nothing more.
func (g *Group) pump() {
	for g.stop == nil && g.rn.HasReady() {
		rd := g.rn.Ready()
		for _, m := range rd.Messages {
			switch m.GetType() {
			case raftpb.MsgStorageAppend:
				if n := len(m.GetEntries()); n > 0 {
					g.last = m.GetEntries()[n-1].GetIndex()
				} else if !raft.IsEmptySnap(m.GetSnapshot()) {
					g.last = m.GetSnapshot().GetMetadata().GetIndex()
				}
				g.write(StorageWrite{Append: m})
			case raftpb.MsgStorageApply:
				for _, e := range m.GetEntries() {
					if g.apply(e); g.stop != nil {
						return
					}
				}
				for _, r := range m.GetResponses() {
					if err := g.rn.Step(r); err != nil {
						panic(fmt.Sprintf("membership: raft refuses its own %s: %v", r.GetType(), err))
					}
				}
			default:
				g.out.Messages = append(g.out.Messages, m)
			}
		}
		g.snapshotIfDue()
	}
}

func (g *Group) write(w StorageWrite) {
	g.nextSeq++
	w.Seq = g.nextSeq
	g.writes = append(g.writes, w)
}

// apply executes one committed entry.
func (g *Group) apply(e *raftpb.Entry) {
	if e.GetIndex() <= g.applied {
		return
	}
	switch e.GetType() {
	case raftpb.EntryNormal:
		if len(e.GetData()) > 0 {
			r := g.state.Apply(e.GetIndex(), e.GetData())
			if r.Stop != nil {
				g.stop = r.Stop
				return
			}
			g.out.Applied = append(g.out.Applied, r)
		}
	case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
		// What confChangeOK refuses is void on every node alike: it depends on the log alone.
		if cc := decodeConfChange(e); cc != nil && confChangeOK(g.conf, cc) {
			g.conf = nextConf(g.conf, cc) // before Raft asks for a snapshot that names the new member
			g.applied, g.term = e.GetIndex(), e.GetTerm()
			g.conf = g.rn.ApplyConfChange(cc)
		}
	}
	g.applied, g.term = e.GetIndex(), e.GetTerm()
}

// snapshotIfDue bounds the log.
func (g *Group) snapshotIfDue() {
	if g.applied-g.snap < g.opt.SnapshotEntries {
		return
	}
	g.snap = g.applied
	compact := g.applied - min(g.opt.KeepEntries, g.applied)
	g.write(StorageWrite{CompactTo: compact, Snapshot: g.snapshot()})
}

// restore replaces State by a snapshot from the leader, which validate has decoded once.
func (g *Group) restore(s *raftpb.Snapshot) {
	if s.GetMetadata().GetIndex() <= g.applied {
		return
	}
	st, err := Restore(s.GetData())
	if err != nil {
		g.stop = fmt.Errorf("membership: snapshot at index %d from the leader: %w", s.GetMetadata().GetIndex(), err)
		return
	}
	g.state, g.conf = st, proto.Clone(s.GetMetadata().GetConfState()).(*raftpb.ConfState)
	g.applied, g.term = s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()
	g.snap = g.applied
	g.out.Restored = true
}

// RaftMember is one row of RaftView.
type RaftMember struct {
	Node    raid.NodeID
	Learner bool
	Match   uint64 // what the leader knows to be durable there; 0 when this node does not lead
	Active  bool   // heard from since the leader's last check
}

// RaftView is Raft's configuration as applied here, with the leader's view of its followers' progress.
type RaftView struct {
	Leader  raid.NodeID
	Term    uint64
	Lead    bool // this node leads
	Last    uint64
	Applied uint64
	Members []RaftMember // sorted by node
}

// Member returns a node's row, or nil.
func (v *RaftView) Member(n raid.NodeID) *RaftMember {
	for i := range v.Members {
		if v.Members[i].Node == n {
			return &v.Members[i]
		}
	}
	return nil
}

// View returns Raft's view of the group.
func (g *Group) View() RaftView {
	st := g.rn.Status()
	v := RaftView{Leader: raid.NodeID(st.Lead), Term: st.HardState.GetTerm(), Lead: st.RaftState == raft.StateLeader, Last: g.last, Applied: g.applied}
	add := func(ids []uint64, learner bool) {
		for _, id := range ids {
			m := RaftMember{Node: raid.NodeID(id), Learner: learner}
			if p, ok := st.Progress[id]; ok {
				m.Match, m.Active = p.Match, p.RecentActive || id == uint64(g.opt.Node)
			}
			v.Members = append(v.Members, m)
		}
	}
	add(g.conf.GetVoters(), false)
	add(g.conf.GetLearners(), true)
	slices.SortFunc(v.Members, func(a, b RaftMember) int { return cmp.Compare(a.Node, b.Node) })
	return v
}
