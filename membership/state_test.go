package membership

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"clade/raid"
)

// machine applies commands as one node would see them.
type machine struct {
	t     *testing.T
	s     *State
	log   [][]byte
	clock int64
}

func (m *machine) apply(by raid.NodeID, b Body) Result {
	m.t.Helper()
	m.clock += 10
	data, err := Encode(Header{ID: uint64(len(m.log)), By: by, ClockMs: m.clock}, b)
	if err != nil {
		m.t.Fatal(err)
	}
	m.log = append(m.log, data)
	return m.s.Apply(uint64(len(m.log)), data)
}

func (m *machine) must(by raid.NodeID, b Body) Result {
	m.t.Helper()
	r := m.apply(by, b)
	if !r.OK() {
		m.t.Fatalf("%s: %v %v", b.CommandType(), r.Err, r.Stop)
	}
	return r
}

func testInfo(i int) NodeInfo {
	return NodeInfo{Addr: fmt.Sprintf("10.0.0.%d:7000", i), MaxFeature: 1, SANPaths: 2}
}

// newCluster returns a cluster of n booted nodes with d disks of 10 GiB each; disk ids go round the nodes.
func newCluster(t *testing.T, n, d int) *machine {
	t.Helper()
	m := &machine{t: t, s: &State{}}
	m.must(0, &ClusterInit{Cluster: UUID{0xAB, 0xCD}, Name: "test", Shelf: 7, SectorCount: 16, Feature: 1, NodeName: "n1", NodeKey: UUID{1}, Node: testInfo(1)})
	for i := 2; i <= n; i++ {
		m.must(1, &NodeJoin{Name: fmt.Sprint("n", i), Key: UUID{byte(i)}, Node: testInfo(i)})
	}
	for i := 1; i <= n; i++ {
		m.must(raid.NodeID(i), &NodeBoot{Node: raid.NodeID(i), Info: testInfo(i)})
	}
	if n > 1 {
		all := []raid.NodeID{}
		rep := []NodeTerm{}
		for i := 1; i <= n; i++ {
			all, rep = append(all, raid.NodeID(i)), append(rep, NodeTerm{raid.NodeID(i), 1})
		}
		m.must(1, &VotersBegin{New: all, LV: 1})
		m.must(1, &VotersEnd{LV: 2, Reported: rep})
	}
	for j := range d {
		for i := 1; i <= n; i++ {
			m.must(1, &DiskAdd{Node: raid.NodeID(i), UUID: UUID{byte(i), byte(j + 1)}, CapacityMiB: 10 << 10, Label: fmt.Sprintf("/dev/disk%d", j)})
		}
	}
	return m
}

func createCmd(slot uint8, k, p int, sizeMiB uint64) *Create {
	return &Create{Slot: slot, Name: fmt.Sprint("v", slot), SizeBytes: sizeMiB << 20, Layout: raid.Layout{K: k, M: p, UnitBytes: 64 << 10}}
}

// served returns a cluster of three nodes with volume 1 (2+1) active at node 1, epoch 1.
func served(t *testing.T) *machine {
	m := newCluster(t, 3, 1)
	m.must(1, createCmd(3, 2, 1, 2048))
	m.must(1, &Takeover{Vol: 1, Epoch: 0, Next: 1, Node: 1, Term: 1})
	m.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdActivate, Vol: 1, Epoch: 1, Ver: 1, F: raid.NewDiskSet(1, 2, 3)}))
	return m
}

func volCmd(c raid.VolumeCommand) *VolumeCommand { return &VolumeCommand{c} }

func TestCommandsAreVoidUnlessTheirGuardHolds(t *testing.T) {
	base := map[string]func(*testing.T) *machine{
		"empty":  func(t *testing.T) *machine { return &machine{t: t, s: &State{}} },
		"three":  func(t *testing.T) *machine { return newCluster(t, 3, 1) },
		"served": served,
		"released": func(t *testing.T) *machine {
			m := served(t)
			m.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdRelease, Vol: 1, Epoch: 1}))
			return m
		},
		"joint": func(t *testing.T) *machine {
			m := newCluster(t, 3, 0)
			m.must(1, &VotersBegin{New: []raid.NodeID{2, 3}, LV: 2})
			return m
		},
	}
	in := testInfo(9)
	cases := []struct {
		base, name string
		by         raid.NodeID
		cmd        Body
		want       error // nil: takes effect
	}{
		{"empty", "anything before init", 1, &SetDraining{Node: 1}, ErrNotInit},
		{"three", "init twice", 1, &ClusterInit{Cluster: UUID{1}, Name: "x", SectorCount: 2, Feature: 1, NodeName: "y", Node: in}, ErrExists},
		{"empty", "shelf is the broadcast address", 0, &ClusterInit{Cluster: UUID{1}, Name: "x", Shelf: 0xFFFF, SectorCount: 2, Feature: 1, NodeName: "y", Node: in}, ErrInvalid},

		{"three", "join", 1, &NodeJoin{Name: "n4", Node: in}, nil},
		{"three", "join with a known name", 1, &NodeJoin{Name: "n2", Key: UUID{77}, Node: in}, ErrExists},
		{"three", "join with a known address", 1, &NodeJoin{Name: "n4", Node: testInfo(2)}, ErrExists},
		{"three", "join again with the same key", 1, &NodeJoin{Name: "n2", Key: UUID{2}, Node: testInfo(2)}, nil},
		{"three", "join of an old binary", 1, &NodeJoin{Name: "n4", Node: NodeInfo{Addr: "a:1"}}, ErrFeature},
		{"three", "join with a bad name", 1, &NodeJoin{Name: "a b", Node: in}, ErrInvalid},

		{"three", "boot over a held term without proof", 2, &NodeBoot{Node: 2, Term: 1, Info: testInfo(2)}, ErrHeld},
		{"three", "boot over a held term with proof", 2, &NodeBoot{Node: 2, Term: 1, Proof: true, Info: testInfo(2)}, nil},
		{"three", "boot with proof for another term", 2, &NodeBoot{Node: 2, Term: 0, Proof: true, Info: testInfo(2)}, ErrTerm},
		{"three", "boot with another's address", 2, &NodeBoot{Node: 2, Term: 1, Proof: true, Info: testInfo(3)}, ErrExists},
		{"three", "dead", 1, &NodeDead{Node: 2, Term: 1}, nil},
		{"three", "dead of another term", 1, &NodeDead{Node: 2, Term: 2}, ErrTerm},
		{"three", "revoke by one of three", 1, &NodeRevoke{Node: 2, Term: 1, Yes: []raid.NodeID{1}}, ErrVotes},
		{"three", "revoke by one voter twice and a stranger", 1, &NodeRevoke{Node: 2, Term: 1, Yes: []raid.NodeID{1, 1, 9}}, ErrVotes},
		{"three", "revoke by two of three", 1, &NodeRevoke{Node: 2, Term: 1, Yes: []raid.NodeID{3, 1}}, nil},
		{"three", "revoke of a former term", 1, &NodeRevoke{Node: 2, Term: 0, Yes: []raid.NodeID{3, 1}}, ErrTerm},
		{"joint", "revoke by a majority of the old voters only", 1, &NodeRevoke{Node: 2, Term: 1, Yes: []raid.NodeID{1, 2}}, ErrVotes},
		{"joint", "revoke by majorities of both", 1, &NodeRevoke{Node: 2, Term: 1, Yes: []raid.NodeID{2, 3}}, nil},
		{"joint", "a second change of voters", 1, &VotersBegin{New: []raid.NodeID{1}, LV: 3}, ErrInUse},
		{"joint", "end before all have reported", 1, &VotersEnd{LV: 3, Reported: []NodeTerm{{1, 1}, {2, 1}}}, ErrVotes},
		{"joint", "end with a report of a former term", 1, &VotersEnd{LV: 3, Reported: []NodeTerm{{1, 1}, {2, 1}, {3, 0}}}, ErrVotes},
		{"joint", "end of another change", 1, &VotersEnd{LV: 2, Reported: []NodeTerm{{1, 1}, {2, 1}, {3, 1}}}, ErrTerm},
		{"joint", "end", 1, &VotersEnd{LV: 3, Reported: []NodeTerm{{1, 1}, {2, 1}, {3, 1}}}, nil},
		{"three", "voters that are no nodes", 1, &VotersBegin{New: []raid.NodeID{1, 9}, LV: 2}, ErrNotFound},
		{"three", "no voters", 1, &VotersBegin{LV: 2}, ErrInvalid},
		{"three", "voters planned at another lv", 1, &VotersBegin{New: []raid.NodeID{1}, LV: 1}, ErrTerm},

		{"served", "remove a node with shards", 1, &NodeRemove{Node: 3}, ErrInUse},
		{"served", "leave with shards", 1, &NodeLeave{Node: 3}, ErrInUse},
		{"three", "remove a voter", 1, &NodeRemove{Node: 3}, ErrInUse},
		{"three", "leave", 1, &NodeLeave{Node: 3}, nil},
		{"joint", "remove a voter of the old set", 1, &NodeRemove{Node: 1}, ErrInUse},

		{"three", "a known disk from another node", 1, &DiskAdd{Node: 2, UUID: UUID{1, 1}, CapacityMiB: 1}, ErrExists},
		{"three", "a disk without size", 1, &DiskAdd{Node: 2, UUID: UUID{9}}, ErrInvalid},
		{"three", "a disk of a stranger", 1, &DiskAdd{Node: 9, UUID: UUID{9}, CapacityMiB: 1}, ErrNotFound},
		{"three", "attach a disk whose node lives", 1, &DiskAttach{Disk: 1, Node: 2, Gen: 1}, ErrInUse},
		{"three", "attach planned at another generation", 1, &DiskAttach{Disk: 1, Node: 2, Gen: 2}, ErrTerm},
		{"three", "remove a free disk", 1, &DiskRemove{Disk: 1}, nil},
		{"served", "remove a disk in use", 1, &DiskRemove{Disk: 1}, ErrInUse},
		{"three", "disk state", 1, &DiskSetState{Disk: 1, Gen: 1, State: "odd"}, ErrInvalid},

		{"served", "a slot that is taken", 1, &Create{Slot: 3, Name: "w", SizeBytes: 4096, Layout: raid.Layout{K: 1, UnitBytes: 4096}}, ErrExists},
		{"served", "a name that is taken", 1, &Create{Slot: 4, Name: "v3", SizeBytes: 4096, Layout: raid.Layout{K: 1, UnitBytes: 4096}}, ErrExists},
		{"three", "the broadcast slot", 1, createCmd(255, 2, 1, 64), ErrInvalid},
		{"three", "a unit that is no power of two", 1, &Create{Slot: 1, Name: "w", SizeBytes: 4096, Layout: raid.Layout{K: 1, UnitBytes: 12288}}, ErrInvalid},
		{"three", "a unit of 2 MiB", 1, &Create{Slot: 1, Name: "w", SizeBytes: 4096, Layout: raid.Layout{K: 1, UnitBytes: 2 << 20}}, ErrInvalid},
		{"three", "half a block", 1, &Create{Slot: 1, Name: "w", SizeBytes: 6144, Layout: raid.Layout{K: 1, UnitBytes: 4096}}, ErrInvalid},
		{"three", "33 shards", 1, createCmd(1, 30, 3, 64), ErrInvalid},
		{"three", "more domains than nodes", 1, createCmd(1, 3, 1, 64), ErrNoSpace},
		{"three", "more than fits", 1, createCmd(1, 2, 1, 21<<10), ErrNoSpace},
		{"three", "exactly what fits", 1, createCmd(1, 2, 1, 20<<10), nil},

		{"served", "takeover while the owner lives", 2, &Takeover{Vol: 1, Epoch: 1, Next: 2, Node: 2, Term: 1}, ErrOwned},
		{"released", "takeover", 2, &Takeover{Vol: 1, Epoch: 1, Next: 2, Node: 2, Term: 1}, nil},
		{"released", "takeover past a disk's fence", 2, &Takeover{Vol: 1, Epoch: 1, Next: 9, Node: 2, Term: 1}, nil},
		{"released", "takeover of a former epoch", 2, &Takeover{Vol: 1, Epoch: 0, Next: 2, Node: 2, Term: 1}, raid.ErrEpoch},
		{"released", "takeover into the same epoch", 2, &Takeover{Vol: 1, Epoch: 1, Next: 1, Node: 2, Term: 1}, ErrInvalid},
		{"released", "takeover by a former term", 2, &Takeover{Vol: 1, Epoch: 1, Next: 2, Node: 2, Term: 0}, ErrTerm},
		{"served", "delete while the owner lives", 2, &Delete{Vol: 1, Epoch: 1, Ver: 2}, ErrOwned},
		{"released", "delete", 2, &Delete{Vol: 1, Epoch: 1, Ver: 2}, nil},
		{"released", "delete of another version", 2, &Delete{Vol: 1, Epoch: 1, Ver: 1}, raid.ErrVersion},
		{"served", "stale", 1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 2, Disk: 2, S: 5}), nil},
		{"served", "stale by another node", 2, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 2, Disk: 2}), ErrNotOwner},
		{"served", "stale of a former version", 1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 1, Disk: 2}), raid.ErrVersion},
		{"served", "insync of a former epoch", 1, volCmd(raid.VolumeCommand{Kind: raid.CmdInSync, Vol: 1, Epoch: 0, Ver: 2, Disk: 2}), raid.ErrEpoch},
		{"served", "release by another node", 2, volCmd(raid.VolumeCommand{Kind: raid.CmdRelease, Vol: 1, Epoch: 1}), ErrNotOwner},
		{"served", "handoff", 2, &Handoff{Vol: 1, Epoch: 1, Target: 2}, nil},
		{"served", "handoff to the owner", 2, &Handoff{Vol: 1, Epoch: 1, Target: 1}, ErrExists},
		{"served", "handoff in a former epoch", 2, &Handoff{Vol: 1, Epoch: 0, Target: 2}, raid.ErrEpoch},
		{"three", "a feature level nobody has", 1, &SetFeatureLevel{Level: 2}, ErrFeature},
		{"three", "back to a former level", 1, &SetFeatureLevel{Level: 1}, ErrFeature},
	}
	for _, c := range cases {
		t.Run(c.base+"/"+c.name, func(t *testing.T) {
			m := base[c.base](t)
			before := m.s.Snapshot()
			r := m.apply(c.by, c.cmd)
			if !errors.Is(r.Err, c.want) || r.Stop != nil {
				t.Fatalf("got %v, stop %v; want %v", r.Err, r.Stop, c.want)
			}
			if r.Err != nil && strings.Contains(r.Err.Error(), "%!") {
				t.Errorf("message: %v", r.Err)
			}
			if c.want != nil {
				old, err := Restore(before)
				if err != nil {
					t.Fatal(err)
				}
				old.Applied = m.s.Applied // all that a void command may change
				for i := range old.Nodes {
					old.Nodes[i].ClockMark = m.s.Nodes[i].ClockMark
				}
				if !bytes.Equal(old.Snapshot(), m.s.Snapshot()) {
					t.Errorf("a void command changed the state:\n%s\n%s", old.Snapshot(), m.s.Snapshot())
				}
			}
		})
	}
}

func TestABootOrphansWhatTheNodeOwned(t *testing.T) {
	for _, end := range []Body{
		&NodeBoot{Node: 1, Term: 1, Proof: true, Info: testInfo(1)},
		&NodeDead{Node: 1, Term: 1},
		&NodeRevoke{Node: 1, Term: 1, Yes: []raid.NodeID{2, 3}},
	} {
		m := served(t)
		if !m.s.OwnerLives(m.s.Volume(1).Data) {
			t.Fatal("no living owner to begin with")
		}
		m.must(2, end)
		if m.s.OwnerLives(m.s.Volume(1).Data) {
			t.Errorf("%s: the owner still counts as living", end.CommandType())
		}
		if held := m.s.Node(1).Held; held != (end.CommandType() == "node_boot") {
			t.Errorf("%s: held = %t", end.CommandType(), held)
		}
		old := m.s.Volume(1)
		m.must(2, &Takeover{Vol: 1, Epoch: 1, Next: 2, Node: 2, Term: 1})
		now := m.s.Volume(1)
		if d := now.Data; d.Owner != 2 || d.OwnerTerm != 1 || d.Epoch != 2 || d.Active || d.Ver != 3 {
			t.Errorf("after the takeover: %+v", d)
		}
		if old.Data.Owner != 1 || old.Data.Epoch != 1 {
			t.Error("the takeover changed a volume that had been handed out")
		}
		if r := m.apply(1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 2, Disk: 2})); !errors.Is(r.Err, ErrNotOwner) {
			t.Errorf("the former owner marks a disk stale: %v", r.Err)
		}
	}
}

func TestANodeThatLeavesCanBeRemovedAndNothingElse(t *testing.T) {
	m := newCluster(t, 3, 1)
	m.must(1, &NodeLeave{Node: 3})
	m.must(1, &VotersBegin{New: []raid.NodeID{1, 2}, LV: 2})
	m.must(1, &VotersEnd{LV: 3, Reported: []NodeTerm{{1, 1}, {2, 1}, {3, 1}}})
	m.must(1, &NodeRemove{Node: 3})
	if m.s.Node(3) != nil || m.s.Disk(3) != nil {
		t.Error("node 3 or its disk is still there")
	}
	if r := m.must(1, &NodeJoin{Name: "n3", Node: testInfo(3)}); r.Node != 4 {
		t.Errorf("the next node got id %d: ids are never used again", r.Node)
	}
}

func TestAttachMovesADiskThatWasLetGo(t *testing.T) {
	m := newCluster(t, 4, 1)
	m.must(1, &Create{Slot: 1, Name: "v", SizeBytes: 1 << 30, Layout: raid.Layout{K: 2, M: 1, UnitBytes: 4096}, Disks: raid.NewDiskSet(1, 2, 3)})
	m.must(1, &DiskSetState{Disk: 1, Gen: 1, State: DiskDetached})
	if r := m.apply(1, &DiskAttach{Disk: 1, Node: 2, Gen: 1}); !errors.Is(r.Err, ErrInUse) {
		t.Errorf("two shards of an extent on one node: %v", r.Err)
	}
	m.must(1, &DiskAttach{Disk: 1, Node: 4, Gen: 1})
	if d := m.s.Disk(1); d.Node != 4 || d.AttachGen != 2 || d.State != DiskOK {
		t.Errorf("%+v", d)
	}
	m.must(1, &NodeDead{Node: 4, Term: 1})
	m.must(1, &DiskAttach{Disk: 1, Node: 1, Gen: 2})
}

func TestPlacementUsesDifferentNodesAndFillsEvenly(t *testing.T) {
	m := newCluster(t, 5, 2)
	m.must(1, createCmd(1, 2, 1, 10<<10))
	v := m.s.Volume(1).Data
	if v.Size != 10<<30 || len(v.Extents) != 10 {
		t.Fatalf("%d extents, size %d", len(v.Extents), v.Size)
	}
	parity := map[raid.DiskID]int{}
	for i, x := range v.Extents {
		nodes := map[raid.NodeID]bool{}
		for _, p := range x.Shards {
			nodes[m.s.Disk(p.Disk).Node] = true
			if p.Gen != 0 || v.Member(p.Disk) == nil || !v.Member(p.Disk).InSync {
				t.Errorf("extent %d: %+v", i, p)
			}
		}
		if len(nodes) != 3 || x.Regions != 512 {
			t.Errorf("extent %d: %d nodes, %d regions", i, len(nodes), x.Regions)
		}
		parity[x.Shards[2].Disk]++
	}
	low, high := uint64(1<<60), uint64(0)
	for d := raid.DiskID(1); d <= 10; d++ {
		low, high = min(low, m.s.UsedMiB(d)), max(high, m.s.UsedMiB(d))
	}
	if high-low > 512 {
		t.Errorf("disks hold %d..%d MiB", low, high)
	}
	if len(parity) < 4 {
		t.Errorf("parity is on %d disks only", len(parity))
	}
	m.must(1, &Create{Slot: 2, Name: "odd", SizeBytes: 3<<30 + 4096, Layout: raid.Layout{K: 3, M: 0, UnitBytes: 4096}, Domain: DomainDisk, Disks: raid.NewDiskSet(1, 6, 2)})
	v = m.s.Volume(2).Data
	if len(v.Extents) != 3 || v.Extents[0].Regions != 342 || v.Extents[2].Regions != 341 {
		t.Errorf("3 GiB and a block over k=3: %d extents of %d, last %d", len(v.Extents), v.Extents[0].Regions, v.Extents[len(v.Extents)-1].Regions)
	}
	if id := m.s.Volume(1).Identity; id.Serial != "abcd0000000000000001" || id.BufCount == 0 || id.Model == "" {
		t.Errorf("identity %+v", id)
	}
}

func TestVolumeIDsAndSlotsAfterADelete(t *testing.T) {
	m := newCluster(t, 3, 1)
	m.must(1, createCmd(3, 2, 1, 64))
	m.must(1, &Delete{Vol: 1})
	r := m.must(1, createCmd(3, 2, 1, 64))
	if r.Volume != 2 || m.s.Slot(3).Data.ID != 2 || m.s.Volume(1) != nil {
		t.Errorf("the slot's next volume has id %d: ids are never used again (M6)", r.Volume)
	}
}

func TestUnknownCommandsStopTheNodeAndReservedOnesAreRefused(t *testing.T) {
	for _, c := range []struct {
		data string
		stop bool
		err  error
	}{
		{`{"v":1,"type":"warp","body":{}}`, true, nil},
		{`{"v":2,"type":"set_draining","body":{"node":1}}`, true, nil},
		{`{"v":1,"type":"set_draining","body":{"node":1,"until":5}}`, true, nil},
		{`{"v":1,"type":"volume","by":1,"body":{"kind":77,"vol":1}}`, true, nil},
		{`{"v":1,"type":"control","by":1,"body":{"req":{"kind":77,"src":"02:00:00:00:00:01"}}}`, true, nil},
		{`{"v":1,"type":"grow","body":{"vol":1}}`, false, ErrNotRelease},
		{`{"v":1,"type":"force","body":{}}`, false, ErrNotRelease},
		{`{"v":1,"type":"set_draining","body":{"node":"x"}}`, false, ErrInvalid},
		{`{"v":1,"type":"set_draining"}`, false, ErrInvalid},
		{`not json`, false, ErrInvalid},
		{``, false, ErrInvalid},
	} {
		m := newCluster(t, 1, 0)
		before := m.s.Snapshot()
		r := m.s.Apply(100, []byte(c.data))
		if (r.Stop != nil) != c.stop || !errors.Is(r.Err, c.err) {
			t.Errorf("%s: err %v, stop %v", c.data, r.Err, r.Stop)
		}
		if c.stop && !bytes.Equal(before, m.s.Snapshot()) {
			t.Errorf("%s: changed the state of a node that must stop", c.data)
		}
	}
}

func TestLogTimeCountsOnlyWhatOneNodeHasSeenPass(t *testing.T) {
	m := newCluster(t, 2, 0)
	at := func(by raid.NodeID, clockMs int64) int64 {
		data, err := Encode(Header{By: by, ClockMs: clockMs}, &SetDraining{Node: 1})
		if err != nil {
			t.Fatal(err)
		}
		m.s.Apply(m.s.Applied+1, data)
		return m.s.TimeMs
	}
	for _, c := range []struct {
		name    string
		by      raid.NodeID
		clockMs int64
		want    int64
	}{
		{"node 1's first", 1, 100_000, 20_000}, // its boot, at 50 ms, opened the generation
		{"within the generation", 1, 119_999, 20_000},
		{"node 2, whose clock is an hour ahead", 2, 3_700_000, 20_000},
		{"node 1: 20 s have passed", 1, 120_000, 40_000},
		{"node 2, 40 s later: it opens its own count", 2, 3_740_000, 40_000},
		{"and 20 s after that", 2, 3_760_000, 60_000},
		{"a day without a command counts once", 1, 90_000_000, 60_000},
		{"a day without a command counts once", 1, 180_000_000, 80_000},
		{"a clock that went back", 1, 5, 80_000},
		{"a stranger", 9, 1e15, 80_000},
	} {
		if got := at(c.by, c.clockMs); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestSnapshotIsTheState(t *testing.T) {
	m := served(t)
	m.must(1, createCmd(9, 1, 1, 5000))
	m.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: 1, Ver: 2, Disk: 2, S: 5}))
	m.must(1, &NodeDead{Node: 1, Term: 1})
	m.must(2, &Takeover{Vol: 1, Epoch: 1, Next: 4, Node: 2, Term: 1})
	m.must(2, volCmd(raid.VolumeCommand{Kind: raid.CmdActivate, Vol: 1, Epoch: 4, Ver: 4, F: raid.NewDiskSet(1, 3), C0: 7, End: 9}))
	snap := m.s.Snapshot()
	for cut := range len(m.log) { // restore anywhere and replay the rest
		s := &State{}
		for i := range cut {
			s.Apply(uint64(i+1), m.log[i])
		}
		s, err := Restore(s.Snapshot())
		if err != nil {
			t.Fatalf("after %d commands: %v", cut, err)
		}
		for i := cut; i < len(m.log); i++ {
			s.Apply(uint64(i+1), m.log[i])
		}
		if !bytes.Equal(s.Snapshot(), snap) {
			t.Fatalf("snapshot after %d of %d commands and replay of the rest differ:\n%s\n%s", cut, len(m.log), s.Snapshot(), snap)
		}
	}
	for i := range snap { // every damaged byte is found
		bad := bytes.Clone(snap)
		bad[i] ^= 0x20
		if _, err := Restore(bad); err == nil {
			t.Fatalf("byte %d of %d damaged, and nobody noticed", i, len(snap))
		}
	}
	newer := bytes.Clone(snap)
	newer[7]++
	if _, err := Restore(newer); !errors.Is(err, ErrSnapshotLevel) {
		t.Errorf("a newer snapshot: %v", err)
	}
}

func TestALargeVolumeIsPlacedAndPackedQuickly(t *testing.T) {
	m := newCluster(t, 8, 0)
	for i := range 8 * 16 {
		m.must(1, &DiskAdd{Node: raid.NodeID(1 + i%8), UUID: UUID{byte(i), 9, 9}, CapacityMiB: 20 << 20, Label: "d"})
	}
	m.must(1, createCmd(1, 6, 2, 100<<20)) // 100 TiB
	snap := m.s.Snapshot()
	n := len(m.s.Volume(1).Data.Extents)
	if n < 100000 || len(snap) > 32*n {
		t.Errorf("%d extents in %d bytes", n, len(snap))
	}
	if _, err := Restore(snap); err != nil {
		t.Error(err)
	}
}

func FuzzApply(f *testing.F) {
	for _, d := range served(&testing.T{}).log {
		f.Add(d)
	}
	f.Add([]byte(`{"v":1,"type":"control","by":1,"ms":5,"body":{"vol":1,"epoch":1,"req":{"kind":1,"src":"02:00:00:00:00:01","config":"WA=="}}}`))
	f.Add([]byte(`{"v":1,"type":"volume","by":1,"body":{"kind":1,"vol":1,"epoch":1,"ver":2,"f":[3,3,1],"z":[9]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := served(t)
		a := m.s.Apply(1000, data)
		after := m.s.Snapshot()
		if _, err := Restore(after); err != nil && a.Stop == nil {
			t.Fatalf("the state after %q does not restore: %v", data, err)
		}
		other := served(t).s
		b := other.Apply(1000, data)
		if (a.Control == nil) != (b.Control == nil) || a.Control != nil && *a.Control != *b.Control {
			t.Fatalf("two replicas: %+v and %+v", a.Control, b.Control)
		}
		a.Control, b.Control = nil, nil
		if fmt.Sprint(a) != fmt.Sprint(b) || !bytes.Equal(after, other.Snapshot()) {
			t.Fatalf("two replicas: %+v and %+v", a, b)
		}
	})
}

func FuzzRestore(f *testing.F) {
	snap := served(&testing.T{}).s.Snapshot()
	f.Add(snap[snapshotHeaderBytes:])
	f.Add([]byte(`{"volumes":[{"volume":{},"extents":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := Restore(sealSnapshot(1, body))
		if err != nil {
			return
		}
		again, err := Restore(s.Snapshot())
		if err != nil {
			t.Fatalf("what was restored does not restore: %v", err)
		}
		if !bytes.Equal(again.Snapshot(), s.Snapshot()) {
			t.Fatal("a state has two snapshots")
		}
		for i, d := range served(t).log {
			s.Apply(s.Applied+uint64(i)+1, d)
		}
	})
}

func TestReplacePutsANewDiskInThePlaceOfALostOne(t *testing.T) {
	m := newCluster(t, 4, 1)
	m.must(1, &Create{Slot: 1, Name: "v", SizeBytes: 1 << 30, Layout: raid.Layout{K: 2, M: 1, UnitBytes: 4096}, Disks: raid.NewDiskSet(1, 2, 3)})
	was := *m.s.Disk(3)
	c := DiskReplace{Disk: 3, Gen: 1, Node: 3, UUID: UUID{9}, CapacityMiB: was.CapacityMiB, Label: "new"}
	refused := func(why string, want error, change func(c *DiskReplace)) {
		t.Helper()
		x := c
		change(&x)
		if r := m.apply(1, &x); !errors.Is(r.Err, want) {
			t.Errorf("%s: %v", why, r.Err)
		}
	}
	refused("a volume counts on it", ErrInUse, func(*DiskReplace) {})
	stale := *m.s.Volume(1).Data
	stale.Members = slices.Clone(stale.Members)
	stale.Member(3).InSync = false
	m.s.Volume(1).Data = &stale
	refused("no such disk", ErrNotFound, func(c *DiskReplace) { c.Disk = 9 })
	refused("planned at another generation", ErrTerm, func(c *DiskReplace) { c.Gen = 2 })
	refused("too small for its shards", ErrNoSpace, func(c *DiskReplace) { c.CapacityMiB = 511 })
	refused("another disk of the cluster", ErrInvalid, func(c *DiskReplace) { c.UUID = m.s.Disk(4).UUID })
	refused("its node lives", ErrInUse, func(c *DiskReplace) { c.Node = 4 })
	m.must(1, &NodeDead{Node: 3, Term: 1})
	refused("another shard of the extent is there", ErrInUse, func(c *DiskReplace) { c.Node = 1 })
	c.Node = 4
	for range 2 { // it may be said twice
		if r := m.must(1, &c); r.Disk != 3 || r.Node != 4 {
			t.Errorf("%+v", r)
		}
	}
	if d := m.s.Disk(3); d.Node != 4 || d.AttachGen != 2 || d.UUID != c.UUID || d.Label != "new" || m.s.DiskUUID(was.UUID) != nil {
		t.Errorf("%+v", d)
	}
}
