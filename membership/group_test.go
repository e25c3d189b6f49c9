package membership_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"clade/membership"
	"clade/raid"
	"clade/store/raftlog"
)

const ms = int64(1e6)

// groupSim runs several Groups in one goroutine with a network and disks that are slow, lossy and crash.
type groupSim struct {
	t       *testing.T
	r       *rand.Rand
	now     int64
	lossy   bool
	nodes   map[raid.NodeID]*simNode
	ids     []raid.NodeID
	net     []flight
	cut     map[raid.NodeID]bool
	results map[uint64]string // index -> result, the same at every node
	opt     membership.GroupOptions
	nextID  uint64
	trace   bytes.Buffer
}

type simNode struct {
	id    raid.NodeID
	disk  *raftlog.Memory
	group *membership.Group
	seqs  []uint64 // Begins that are not complete
}

type flight struct {
	at  int64
	to  raid.NodeID
	msg []byte
}

func newGroupSim(t *testing.T, seed uint64, n int) *groupSim {
	s := &groupSim{t: t, r: rand.New(rand.NewPCG(seed, 3)), nodes: map[raid.NodeID]*simNode{}, cut: map[raid.NodeID]bool{}, results: map[uint64]string{}}
	s.opt = membership.GroupOptions{SnapshotEntries: 40, KeepEntries: 8}
	for i := range n {
		id := raid.NodeID(i + 1)
		nd := &simNode{id: id, disk: raftlog.NewMemory()}
		if id == 1 {
			if err := nd.disk.Write(raftlog.Batch{Snapshot: membership.Bootstrap(1)}); err != nil {
				t.Fatal(err)
			}
		}
		s.nodes[id] = nd
		s.ids = append(s.ids, id)
		s.start(nd)
	}
	return s
}

func (s *groupSim) start(n *simNode) {
	opt := s.opt
	opt.Node, opt.Storage = n.id, n.disk
	g, err := membership.NewGroup(s.now, opt)
	if err != nil {
		s.t.Fatalf("node %d: %v", n.id, err)
	}
	n.group, n.seqs = g, nil
}

func (s *groupSim) crash(n *simNode) {
	n.disk = n.disk.Crash(s.r.IntN(n.disk.Pending() + 1))
	s.start(n)
}

// collect executes the effects of a node.
func (s *groupSim) collect(n *simNode) {
	fx := n.group.Take()
	for _, w := range fx.Writes {
		b := raftlog.Batch{Snapshot: w.Snapshot, Compact: w.CompactTo}
		if w.Append != nil {
			b = raftlog.BatchOf(w.Append)
		}
		n.disk.Begin(b)
		n.seqs = append(n.seqs, w.Seq)
	}
	for _, m := range fx.Messages {
		raw, err := proto.Marshal(m)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&s.trace, "%d %x\n", s.now, raw)
		copies := 1
		if s.lossy {
			copies = []int{0, 1, 1, 1, 1, 1, 2}[s.r.IntN(7)]
		}
		for range copies {
			delay := 1 + s.r.Int64N(2*ms)
			if s.lossy && s.r.IntN(20) == 0 {
				delay = s.r.Int64N(800 * ms)
			}
			s.net = append(s.net, flight{s.now + delay, raid.NodeID(m.GetTo()), raw})
		}
	}
	for _, r := range fx.Applied {
		got := fmt.Sprintf("%+v", r)
		if want, ok := s.results[r.Index]; ok && want != got {
			s.t.Fatalf("index %d: node %d says %s, another said %s", r.Index, n.id, got, want)
		}
		s.results[r.Index] = got
	}
}

func (s *groupSim) step() {
	s.now += 1 + s.r.Int64N(4*ms)
	due := []flight{}
	s.net = slices.DeleteFunc(s.net, func(f flight) bool {
		if f.at <= s.now {
			due = append(due, f)
		}
		return f.at <= s.now
	})
	for _, f := range due {
		m := &raftpb.Message{}
		if err := proto.Unmarshal(f.msg, m); err != nil {
			s.t.Fatal(err)
		}
		if n := s.nodes[f.to]; n != nil && !s.cut[f.to] && !s.cut[raid.NodeID(m.GetFrom())] {
			_ = n.group.Step(raid.NodeID(m.GetFrom()), m) // a dropped proposal is proposed again
			s.collect(n)
		}
	}
	for _, id := range s.ids {
		n := s.nodes[id]
		if s.lossy && s.r.IntN(400) == 0 {
			s.crash(n)
		}
		if k := len(n.seqs); k > 0 && s.r.IntN(3) > 0 {
			k = 1 + s.r.IntN(k)
			if err := n.disk.Complete(k); err != nil {
				s.t.Fatalf("node %d: %v", id, err)
			}
			n.group.Stored(n.seqs[k-1])
			n.seqs = n.seqs[k:]
		}
		n.group.Tick(s.now)
		s.collect(n)
		if err := n.group.Stopped(); err != nil {
			s.t.Fatalf("node %d stopped: %v", id, err)
		}
	}
}

func (s *groupSim) until(what string, limit int64, ok func() bool) {
	s.t.Helper()
	for end := s.now + limit; !ok(); {
		if s.step(); s.now > end {
			s.t.Fatalf("%s: not within %d s", what, limit/1e9)
		}
	}
}

func (s *groupSim) leader() *simNode {
	for _, id := range s.ids {
		if n := s.nodes[id]; !s.cut[id] && n.group.IsLeader() {
			return n
		}
	}
	return nil
}

func (s *groupSim) propose(n *simNode, b membership.Body) {
	s.nextID++
	_ = n.group.Propose(membership.Header{ID: s.nextID, By: n.id, ClockMs: s.now / ms}, b)
	s.collect(n)
}

// insist proposes through random nodes until ok.
func (s *groupSim) insist(what string, b membership.Body, ok func(*membership.State) bool) {
	s.t.Helper()
	last := int64(-1e9)
	s.until(what, 60e9, func() bool {
		if s.now-last > 100*ms {
			last = s.now
			s.propose(s.nodes[s.ids[s.r.IntN(len(s.ids))]], b)
		}
		l := s.leader()
		return l != nil && ok(l.group.State())
	})
}

func info(i int) membership.NodeInfo {
	return membership.NodeInfo{Addr: fmt.Sprintf("10.0.0.%d:7000", i), MaxFeature: 1, SANPaths: 1}
}

// found makes a cluster of all nodes, as an operator and the Planner would.
func (s *groupSim) found() {
	s.insist("init", &membership.ClusterInit{Cluster: membership.UUID{1}, Name: "c", Shelf: 7, SectorCount: 16, Feature: 1, NodeName: "n1", NodeKey: membership.UUID{1}, Node: info(1)},
		(*membership.State).Initialised)
	for i, id := range s.ids[1:] {
		name := fmt.Sprint("n", i+2)
		s.insist("join", &membership.NodeJoin{Name: name, Key: membership.UUID{byte(id)}, Node: info(i + 2)}, func(st *membership.State) bool { return st.NodeNamed(name) != nil })
	}
	planner := membership.NewPlanner(membership.PlannerOptions{})
	s.until("all vote", 60e9, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		h := s.health()
		v := l.group.View()
		st := l.group.State()
		for i := range st.Nodes {
			if n := &st.Nodes[i]; n.Term == 0 {
				s.propose(l, &membership.NodeBoot{Node: n.ID, Info: info(int(n.ID))})
			}
		}
		for _, d := range planner.Plan(st, &h, &v, s.now) {
			switch {
			case d.Conf != nil:
				_ = l.group.ProposeConf(d.Conf.Kind, d.Conf.Node)
				s.collect(l)
			case d.Propose != nil:
				s.propose(l, d.Propose)
			}
		}
		return len(st.Voters.Cur) == len(s.ids) && !st.Voters.Joint() && len(v.Members) == len(s.ids) && !slices.ContainsFunc(v.Members, func(m membership.RaftMember) bool { return m.Learner })
	})
}

func (s *groupSim) health() membership.Health {
	h := membership.Health{Self: 1}
	for _, id := range s.ids {
		st := s.nodes[id].group.State()
		if n := st.Node(id); n != nil {
			h.Nodes = append(h.Nodes, membership.NodeHealth{Node: id, Term: n.Term, HeartbeatNs: s.now, LV: st.Voters.LV, ReachAll: true})
		}
	}
	return h
}

func (s *groupSim) agree() {
	s.t.Helper()
	s.until("all agree", 60e9, func() bool {
		first := s.nodes[s.ids[0]].group
		for _, id := range s.ids {
			if g := s.nodes[id].group; g.Applied() != first.Applied() || !bytes.Equal(g.State().Snapshot(), first.State().Snapshot()) {
				return false
			}
		}
		return s.leader() != nil
	})
}

func TestGroupAgreesThroughLossAndCrashes(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			s := newGroupSim(t, seed, 3)
			s.found()
			s.lossy = true
			for i := range 150 {
				n := s.nodes[s.ids[s.r.IntN(3)]]
				s.propose(n, &membership.DiskAdd{Node: raid.NodeID(1 + i%3), UUID: membership.UUID{byte(i), 1}, CapacityMiB: 100, Label: "d"})
				for range 20 {
					s.step()
				}
			}
			s.lossy = false
			s.agree()
			st := s.nodes[1].group.State()
			if len(st.Disks) < 40 {
				t.Errorf("%d of 150 proposals were applied", len(st.Disks))
			}
			first, _ := s.nodes[1].disk.FirstIndex()
			last, _ := s.nodes[1].disk.LastIndex()
			if last-first > 120 {
				t.Errorf("the log holds %d..%d: it is not bounded", first, last)
			}
			for _, id := range s.ids { // a restart makes the same state again from snapshot and log
				before := s.nodes[id].group.State().Snapshot()
				at := s.nodes[id].group.Applied()
				s.crash(s.nodes[id])
				s.until("replay", 10e9, func() bool { return s.nodes[id].group.Applied() >= at })
				if s.nodes[id].group.Applied() == at && !bytes.Equal(before, s.nodes[id].group.State().Snapshot()) {
					t.Errorf("node %d: snapshot and replay differ", id)
				}
			}
		})
	}
}

func TestGroupIsDeterministic(t *testing.T) {
	run := func(t *testing.T) (out []byte) {
		t.Run("run", func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 5)
			s := newGroupSim(t, 9, 3)
			s.lossy = true
			s.found()
			for range 500 {
				s.step()
			}
			out = s.trace.Bytes()
		})
		return out
	}
	if a, b := run(t), run(t); !bytes.Equal(a, b) {
		t.Errorf("two runs of one seed sent different messages (%d and %d bytes)", len(a), len(b))
	}
}

func TestGroupElectsAnotherLeaderAndTakesTheFormerBack(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	s := newGroupSim(t, 1, 3)
	s.found()
	old := s.leader()
	s.cut[old.id] = true
	start := s.now
	s.until("a new leader", 5e9, func() bool { l := s.leader(); return l != nil && l.id != old.id })
	t.Logf("new leader after %d ms", (s.now-start)/ms)
	s.insist("progress without it", &membership.SetDraining{Node: 2, On: true}, func(st *membership.State) bool { return st.Node(2).Draining })
	delete(s.cut, old.id)
	s.agree()
	if l := s.leader(); l.id == old.id {
		t.Error("the former leader came back and took over although nobody had failed")
	}
}

func TestGroupSnapshotBringsAFarBehindNodeUpToDate(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 2)
	s := newGroupSim(t, 2, 3)
	s.found()
	s.until("a leader", 5e9, func() bool { return s.leader() != nil })
	behind := s.ids[0]
	if s.leader().id == behind {
		behind = s.ids[1]
	}
	s.cut[behind] = true
	for i := range 100 {
		l := s.leader()
		s.propose(l, &membership.DiskAdd{Node: 1, UUID: membership.UUID{byte(i), 2}, CapacityMiB: 1, Label: "x"})
		s.step()
	}
	s.until("the log is compacted past it", 20e9, func() bool {
		first, _ := s.leader().disk.FirstIndex()
		return first > s.nodes[behind].group.Applied()+1
	})
	delete(s.cut, behind)
	s.agree()
	if n := len(s.nodes[behind].group.State().Disks); n != 100 {
		t.Errorf("node %d has %d disks, want 100", behind, n)
	}
}

// Whatever a peer sends, the node goes on: messages of a real history, with their fields changed at random.
func TestGroupSurvivesMalformedMessages(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 3)
	s := newGroupSim(t, 3, 3)
	s.found()
	var seen []*raftpb.Message
	for range 300 {
		for _, f := range s.net {
			m := &raftpb.Message{}
			if err := proto.Unmarshal(f.msg, m); err != nil {
				t.Fatal(err)
			}
			if len(seen) < 500 {
				seen = append(seen, m)
			}
		}
		if s.r.IntN(5) == 0 {
			s.propose(s.nodes[2], &membership.SetDraining{Node: 3, On: s.r.IntN(2) == 0})
		}
		s.step()
	}
	kinds := map[raftpb.MessageType]bool{}
	refused := 0
	for i := range 40000 {
		m := proto.Clone(seen[s.r.IntN(len(seen))]).(*raftpb.Message)
		mangle(s.r, m)
		kinds[m.GetType()] = true
		n := s.nodes[s.ids[s.r.IntN(3)]]
		m.To = new(uint64(n.id))
		if err := n.group.Step(raid.NodeID(m.GetFrom()), m); err != nil {
			refused++
		}
		s.collect(n)
		if i%50 == 0 {
			s.step()
		}
	}
	t.Logf("%d of 40000 refused, %d types", refused, len(kinds))
	for _, id := range s.ids {
		if err := s.nodes[id].group.Stopped(); err != nil {
			t.Errorf("node %d: %v", id, err)
		}
	}
}

func mangle(r *rand.Rand, m *raftpb.Message) {
	odd := func() *uint64 {
		v := []uint64{0, 1, 2, 3, 5, 17, 40, 1000, 1 << 40, 1<<62 + 1, ^uint64(0)}[r.IntN(11)]
		return &v
	}
	for range 1 + r.IntN(3) {
		switch r.IntN(14) {
		case 0:
			m.Type = raftpb.MessageType(r.IntN(26)).Enum()
		case 1:
			m.From = odd()
		case 2:
			m.Term = odd()
		case 3:
			m.LogTerm = odd()
		case 4:
			m.Index = odd()
		case 5:
			m.Commit = odd()
		case 6:
			m.Reject = new(r.IntN(2) == 0)
		case 7:
			m.RejectHint = odd()
		case 8:
			m.Context = []byte("CampaignTransfer")
		case 9:
			m.Entries = append(m.Entries, &raftpb.Entry{Index: odd(), Term: odd(), Type: raftpb.EntryType(r.IntN(4)).Enum(), Data: []byte("x")})
		case 10:
			m.Entries = append(m.Entries, nil)
		case 11:
			m.Snapshot = &raftpb.Snapshot{Data: []byte("x"), Metadata: &raftpb.SnapshotMetadata{Index: odd(), Term: odd(), ConfState: &raftpb.ConfState{Voters: []uint64{*odd(), *odd()}, Learners: []uint64{*odd()}}}}
		case 12:
			m.Snapshot = membership.Bootstrap(raid.NodeID(*odd()))
			m.Snapshot.Metadata.Index = odd()
			m.Snapshot.Metadata.ConfState.Learners = []uint64{*odd()}
		case 13:
			m.Responses = append(m.Responses, &raftpb.Message{})
		}
	}
}
