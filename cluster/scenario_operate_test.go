package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
	"clade/raid/raidtest"
)

// TestADrainMovesEveryVolumeAway quickly and one at a time, and nothing comes back until it is undone.
func TestADrainMovesEveryVolumeAway(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	s := l.station(1)
	for slot := range uint8(4) {
		l.create(slot, 2, 1)
		s.put(slot, 0, slot+1)
	}
	from := l.server(0)
	at := l.now
	l.must(2, &membership.SetDraining{Node: from.id, On: true})
	l.until("it owns nothing", func() bool { return len(from.node.Owners(l.now)) == 0 })
	t.Logf("drained in %d ms", (l.now-at)/ms)
	for slot := range uint8(4) {
		if got := s.read(slot, 0); got != slot+1 {
			t.Errorf("slot %d reads %#x", slot, got)
		}
		if l.server(slot) == from {
			t.Errorf("slot %d is on the drained node", slot)
		}
	}
	l.pass(5 * second)
	if n := len(from.node.Owners(l.now)); n != 0 {
		t.Errorf("the drained node owns %d volumes again", n)
	}
	l.must(2, &membership.SetDraining{Node: from.id, On: false})
	l.until("it owns one again", func() bool { return len(from.node.Owners(l.now)) > 0 })
}

// TestAHandoffTakesNoLeaseWait and costs the former owner nothing.
func TestAHandoffTakesNoLeaseWait(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	vol := l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 5)
	from := l.server(1)
	to := l.box(from.id%3 + 1)
	l.pass(10 * second) // hold-offs of the beginning are over
	at := l.now
	l.handoff(vol, to.id)
	l.until("the target serves", func() bool { return l.server(1) == to })
	if took := l.now - at; took > 50*ms {
		t.Errorf("the handoff took %d ms", took/ms)
	}
	if got := s.read(1, 0); got != 5 {
		t.Errorf("read %#x", got)
	}
	if !from.node.leaseValidAt(l.now) {
		t.Error("the former owner has lost its lease")
	}
}

// TestAnOwnerWithoutCarrierHandsOff: its cluster side is in order, its SAN side is not (B: L1).
func TestAnOwnerWithoutCarrierHandsOff(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 5)
	l.pass(5 * second)
	old := l.server(1)
	old.plug(false)
	l.until("another node serves", func() bool { b := l.server(1); return b != nil && b != old })
	if got := s.read(1, 0); got != 5 {
		t.Errorf("read %#x", got)
	}
	st := l.server(1).node.Status(l.now)
	if !slices.ContainsFunc(st.Problems, func(p Problem) bool { return strings.Contains(p.What, "carrier") && p.Do != "" }) {
		t.Errorf("problems: %+v", st.Problems)
	}
}

// TestAnOwnerThatCannotBeHeardHandsOff: it hears all, its link is up, and nothing that it sends arrives.
func TestAnOwnerThatCannotBeHeardHandsOff(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 5)
	l.pass(5 * second)
	old := l.server(1)
	old.mute = true
	muteNs := l.now
	l.until("another node serves", func() bool { b := l.server(1); return b != nil && b != old })
	if took := l.now - muteNs; took > 3500*ms {
		t.Errorf("the handoff took %d ms", took/ms)
	}
	if got := s.read(1, 0); got != 5 {
		t.Errorf("read %#x", got)
	}
}

// TestASwitchThatComesBackMovesNothing: for a moment some nodes hear and others are not heard yet.
func TestASwitchThatComesBackMovesNothing(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	l.pass(5 * second)
	old := l.server(1)
	for _, b := range l.boxes {
		b.mute = true
	}
	l.pass(10 * second)
	for _, b := range l.boxes {
		if b != old {
			b.mute = false
		}
	}
	l.pass(200 * ms) // its own beacon is the last to come through
	old.mute = false
	l.pass(5 * second)
	if b := l.server(1); b != old {
		t.Errorf("the volume has moved from node %d", old.id)
	}
}

// TestADeletedVolumeIsGoneEverywhere, also from a disk that was away and from a node that learned of its life and its death at
// once.
func TestADeletedVolumeIsGoneEverywhere(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	vol := l.create(1, 2, 1)
	away := l.server(1)
	away = l.box(away.id%3 + 1)
	away.kill()
	l.until("it is served without the one that is away", func() bool { return l.server(1) != nil })
	if r := l.operate(l.server(1).id, AdminRequest{Kind: "delete", Vol: vol}); r.Err != "" {
		t.Fatal(r.Err)
	}
	l.pass(100 * ms)
	for _, b := range l.boxes {
		if b != away && len(b.volumes) != 0 {
			t.Errorf("node %d keeps shards of the deleted volume", b.id)
		}
	}
	if l.server(1) != nil {
		t.Error("it is still served")
	}
	if len(away.volumes) == 0 {
		t.Fatal("the disk that is away has no shards: the scenario tests nothing")
	}
	away.start(true)
	l.until("the disk that was away has dropped them", func() bool { return len(away.volumes) == 0 })
	again := l.create(1, 2, 1)
	if again == vol {
		t.Errorf("volume id %d was used again", vol)
	}
	if got := l.station(1).read(1, 0); got != 0 {
		t.Errorf("the new volume in the old slot reads %#x", got)
	}
}

// TestShardsOfUnknownVolumesAreLeftAlone until the applied state has got as far as them: only then it can be said that they were
// deleted.
func TestShardsOfUnknownVolumesAreLeftAlone(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	b := l.box(2)
	later := raid.VolumeID(1)
	b.volumes[volumeAt{b.disks[0], later}] = raidtest.New(b.disks[0])
	b.volumes[volumeAt{b.disks[0], later + 1}] = raidtest.New(b.disks[0])
	b.input(b.openDisks)
	l.pass(second)
	if len(b.volumes) != 2 {
		t.Fatal("shards of a volume that this node may not know yet were dropped")
	}
	l.create(1, 2, 1)
	if l.must(1, &membership.Create{Slot: 2, Name: "v2", SizeBytes: 8 << 20, Layout: raid.Layout{K: 1, M: 1, UnitBytes: 4096},
		Disks: raid.NewDiskSet(l.box(1).disks[0], l.box(3).disks[0])}).Volume != later+1 {
		t.Fatal("not volume 2")
	}
	l.pass(second)
	if b.volumes[volumeAt{b.disks[0], later}] == nil {
		t.Error("shards of a living volume were dropped")
	}
	if r := l.operate(2, AdminRequest{Kind: "delete", Vol: later + 1}); r.Err != "" {
		t.Fatal(r.Err)
	}
	l.pass(second)
	if b.volumes[volumeAt{b.disks[0], later + 1}] != nil {
		t.Error("shards of a deleted volume were kept")
	}
}

func TestWhatCannotBeCreatedIsRefusedWithAReason(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	layout := func(k, m int) raid.Layout { return raid.Layout{K: k, M: m, UnitBytes: 4096} }
	for _, c := range []struct {
		what, want string
		body       membership.Body
	}{
		{"too wide", "needs disks on 4 different nodes", &membership.Create{Slot: 2, Name: "x", SizeBytes: 8 << 20, Layout: layout(3, 1)}},
		{"odd size", "multiple of 4 KiB", &membership.Create{Slot: 2, Name: "x", SizeBytes: 5000, Layout: layout(2, 1)}},
		{"used slot", `"v1"`, &membership.Create{Slot: 1, Name: "x", SizeBytes: 8 << 20, Layout: layout(2, 1)}},
		{"wildcard slot", "slot 255", &membership.Create{Slot: 255, Name: "x", SizeBytes: 8 << 20, Layout: layout(2, 1)}},
		{"too large", "MiB left", &membership.Create{Slot: 2, Name: "x", SizeBytes: 1 << 40, Layout: layout(2, 1)}},
		{"used name", "n2", &membership.NodeJoin{Name: "n2", Key: membership.UUID{99}, Node: membership.NodeInfo{Addr: "x:1", MaxFeature: 1}}},
		{"used address", "n2:7", &membership.NodeJoin{Name: "n9", Key: membership.UUID{99}, Node: membership.NodeInfo{Addr: "n2:7", MaxFeature: 1}}},
		{"old binary", "upgrade", &membership.NodeJoin{Name: "n9", Key: membership.UUID{99}, Node: membership.NodeInfo{Addr: "x:1"}}},
		{"unknown disk", "disk 77", &membership.DiskRemove{Disk: 77}},
		{"disk in use", "volume", &membership.DiskRemove{Disk: 1}},
	} {
		if r := l.command(3, c.body); !strings.Contains(r.Err, c.want) {
			t.Errorf("%s: %q does not say %q", c.what, r.Err, c.want)
		}
	}
	if r := l.operate(2, AdminRequest{Kind: "propose", Type: "make_coffee"}); !strings.Contains(r.Err, "make_coffee") {
		t.Errorf("unknown command: %q", r.Err)
	}
	if r := l.operate(2, AdminRequest{Kind: "dance"}); !strings.Contains(r.Err, "dance") {
		t.Errorf("unknown request: %q", r.Err)
	}
}

// TestADiskThatIsMovedToAnotherNodeIsFoundThere: its volume's owner opens a new stream to the node that it is attached to now.
func TestADiskThatIsMovedToAnotherNodeIsFoundThere(t *testing.T) {
	l := newLab(t, 4)
	l.found()
	from, to := l.box(3), l.box(4)
	d := from.disks[0]
	vol := l.must(1, &membership.Create{Slot: 1, Name: "v1", SizeBytes: 8 << 20, Layout: raid.Layout{K: 2, M: 1, UnitBytes: 4096},
		Disks: raid.NewDiskSet(l.box(1).disks[0], l.box(2).disks[0], d)}).Volume
	l.moveTo(vol, 1, 1)
	owner := l.box(1)
	s := l.station(1)
	s.put(1, 0, 1)
	from.pull(true)
	s.put(1, 0, 2)
	l.until("the disk is stale", func() bool { return !owner.node.State().Slot(1).Data.InSync().Has(d) })
	gen := owner.node.State().Disk(d).AttachGen
	l.must(1, &membership.DiskSetState{Disk: d, Gen: gen, State: membership.DiskDetached})
	l.must(1, &membership.DiskAttach{Disk: d, Node: to.id, Gen: gen})
	from.disks, to.disks = nil, append(to.disks, d)
	for at, v := range from.volumes {
		if at.disk == d {
			to.volumes[at] = v
			delete(from.volumes, at)
		}
	}
	to.input(to.openDisks)
	l.until("the disk is in-sync again on its new node", func() bool { return owner.node.State().Slot(1).Data.InSync().Has(d) })
	owner.kill()
	owner.proveDeath()
	l.until("another node serves", func() bool { return l.server(1) != nil })
	if got := s.read(1, 0); got != 2 {
		t.Errorf("read %#x", got)
	}
}

// TestADiskThatFailsAndComesBackIsResynced, whether it is the owner's own or another's.
func TestADiskThatFailsAndComesBackIsResynced(t *testing.T) {
	for _, own := range []bool{true, false} {
		l := newLab(t, 3)
		l.found()
		l.create(1, 1, 2) // every disk is part of every write
		s := l.station(1)
		s.put(1, 0, 1)
		owner := l.server(1)
		b := owner
		if !own {
			b = l.box(owner.id%3 + 1)
		}
		b.pull(true)
		s.put(1, 0, 2)
		in := func() bool { return owner.node.State().Slot(1).Data.InSync().Has(b.disks[0]) }
		if in() {
			t.Fatal("a write was acknowledged without a disk that counts as in-sync")
		}
		if st := owner.node.Status(l.now); st.Health != "degraded" || len(st.Problems) == 0 {
			t.Errorf("health %q, problems %v", st.Health, st.Problems)
		}
		b.pull(false)
		l.until("the disk is in-sync again", in)
	}
}

// TestANodeLeaves: the leader takes it out of the voters and then out of the cluster, and nobody keeps anything of it. A later
// node gets another id.
func TestANodeLeaves(t *testing.T) {
	l := newLab(t, 4, 4)
	l.found()
	l.create(1, 2, 1)
	l.must(2, &membership.NodeLeave{Node: 4})
	l.until("it is out", func() bool { return l.box(1).node.State().Node(4) == nil && l.box(2).node.State().Node(4) == nil })
	l.pass(2 * second)
	for _, b := range l.boxes[:3] {
		if v := b.node.State().Voters; slices.Contains(v.Cur, 4) || v.Joint() {
			t.Errorf("node %d: voters %+v", b.id, v)
		}
		if slices.ContainsFunc(b.node.leader.nodes, func(h nodeHealth) bool { return h.id == 4 }) {
			t.Errorf("node %d remembers its health", b.id)
		}
		if st := b.node.Status(l.now); len(st.Nodes) != 3 || st.Health != "healthy" {
			t.Errorf("node %d: %d nodes, health %s, problems %v", b.id, len(st.Nodes), st.Health, st.Problems)
		}
	}
	if l.box(4).node.leaseValidAt(l.now) {
		t.Error("the node that left believes in its lease")
	}
	if r := l.must(3, &membership.NodeJoin{Name: "n4", Key: membership.UUID{77}, Node: membership.NodeInfo{Addr: "n4:7", MaxFeature: 1, SANPaths: 1}}); r.Node != 5 {
		t.Errorf("the next node is number %d", r.Node)
	}
}

// TestARequestSurvivesTheLeader: its first proposal goes down with the leader, it is made again.
func TestARequestSurvivesTheLeader(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	lead, _ := l.box(1).node.group.Leader()
	b := l.box(lead%3 + 1)
	body, err := json.Marshal(&membership.Create{Slot: 1, Name: "v1", SizeBytes: 8 << 20, Layout: raid.Layout{K: 1, M: 1, UnitBytes: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	const id = 1 << 40
	l.box(lead).pause(second)
	b.input(func(now int64) { b.node.Admin(now, AdminRequest{ID: id, Kind: "propose", Type: "create", Body: body}) })
	l.pass(10 * ms)
	l.box(lead).kill()
	l.until("a reply", func() bool { return l.calls[id] != nil })
	if r := l.calls[id]; r.Err != "" || r.Volume != 1 || b.node.State().Volume(1) == nil {
		t.Errorf("%+v", r)
	}
	if len(b.node.admin.open) != 0 {
		t.Errorf("%d requests are still open", len(b.node.admin.open))
	}
}

// TestARequestIsNotTakenForOneOfADeadProcess: the driver of each process numbers its requests from one, and the owner still has the
// dead one's.
func TestARequestIsNotTakenForOneOfADeadProcess(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	vol := l.create(1, 1, 1)
	owner := l.server(1)
	asked, other := l.box(owner.id%3+1), l.box((owner.id+1)%3+1)
	const id = 1 << 40
	ask := func(c *aoe.ControlRequest) {
		asked.input(func(now int64) { asked.node.Admin(now, AdminRequest{ID: id, Kind: "control", Vol: vol, Control: c}) })
	}
	l.isolate(other, true)
	ask(&aoe.ControlRequest{Kind: aoe.ControlConfigSet, Config: []byte("dead")})
	l.until("the request at the owner", func() bool { return len(owner.node.admin.open) == 1 })
	asked.kill()
	l.pass(100 * ms)
	l.calls = map[uint64]*AdminReply{}
	asked.start(true)
	ask(&aoe.ControlRequest{Kind: aoe.ControlReserveForce, MACs: []aoe.MAC{{2, 0, 0, 0, 0, 9}}})
	l.isolate(other, false)
	l.until("a reply", func() bool { return l.calls[id] != nil })
	l.pass(second)
	if r := l.calls[id]; r.Err != "" || len(l.server(1).node.State().Volume(vol).Control.Reserved) != 1 {
		t.Errorf("answered %+v, reserved for %v", r, l.server(1).node.State().Volume(vol).Control.Reserved)
	}
}

// TestOperatorsMayNotSayWhatMachinesKnow: a death without proof would let two nodes serve.
func TestOperatorsMayNotSayWhatMachinesKnow(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	at := l.box(2).node.inc.term
	for _, c := range []membership.Body{&membership.NodeDead{Node: 2, Term: at}, &membership.NodeBoot{Node: 2, Term: at, Proof: true},
		&membership.NodeRevoke{Node: 2, Term: at, Yes: []raid.NodeID{1, 2, 3}}, &membership.VotersEnd{}, &membership.Takeover{}} {
		if r := l.command(1, c); r.Err == "" {
			t.Errorf("%s was taken", c.CommandType())
		}
	}
	if got := l.box(1).node.State().Node(2).Term; got != at {
		t.Errorf("term %d became %d", at, got)
	}
	for _, id := range []raid.NodeID{1, 2, 3} {
		from := l.now
		if r := l.operate(id, AdminRequest{Kind: "delete", Vol: 99}); !strings.Contains(r.Err, "no volume 99") || l.now-from > 100*ms {
			t.Errorf("node %d, after %d ms: %q", id, (l.now-from)/ms, r.Err)
		}
	}
}
