package cluster

import (
	"slices"
	"strings"
	"testing"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

func TestAVolumeIsCreatedDiscoveredWrittenAndRead(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	q := aoe.AppendConfigRequest(nil, aoe.Header{Dst: aoe.Broadcast, Src: s.mac, Shelf: aoe.ShelfWildcard, Slot: aoe.SlotWildcard, Tag: [4]byte{1}}, aoe.ConfigRead, nil)
	l.transmit(nil, q)
	l.pass(50 * ms)
	answers := 0
	for _, r := range s.got {
		if r.Tag == [4]byte{1} {
			answers++
			if r.Src != l.servingMAC(1) || r.Shelf != labShelf || r.Slot != 1 {
				t.Errorf("discovery is answered by %s for e%d.%d", r.Src, r.Shelf, r.Slot)
			}
		}
	}
	if answers != 1 {
		t.Errorf("%d answers to discovery", answers)
	}
	s.put(1, 8, 0xAB)
	if got := s.read(1, 8); got != 0xAB {
		t.Errorf("read %#x", got)
	}
	if got := s.read(1, 16); got != 0 {
		t.Errorf("a block never written reads %#x", got)
	}
	took := l.server(1).node.Latencies()
	if reads, writes := took.Read.count(), took.Write.count(); reads != 2 || writes != 1 || took.Write.SumNs <= 0 || took.Write.SumNs > second {
		t.Errorf("%d reads and %d writes, which took %d ns, are in the latencies", reads, writes, took.Write.SumNs)
	}
}

func (l *Latency) count() (sum uint64) {
	for _, n := range l.Counts {
		sum += n
	}
	return sum
}

func TestAProvenDeathFailsOverWithoutLeaseWait(t *testing.T) {
	for _, dead := range []string{"an owner that follows", "an owner that leads"} {
		t.Run(dead, func(t *testing.T) {
			l := newLab(t, 3)
			l.found()
			vol := l.create(1, 2, 1)
			lead, _ := l.boxes[0].node.group.Leader()
			want := lead
			if dead == "an owner that follows" {
				want = lead%3 + 1
			}
			l.moveTo(vol, 1, want)
			s := l.station(1)
			s.put(1, 0, 0x11)
			old := l.server(1)
			old.kill()
			at := l.now
			old.proveDeath()
			l.until("another node serves", func() bool { return l.server(1) != nil })
			if took := l.now - at; took > 60*ms {
				t.Errorf("the takeover took %d ms", took/ms)
			}
			if got := s.read(1, 0); got != 0x11 {
				t.Errorf("read %#x after the takeover", got)
			}
			if ids := l.answersSince(at, 1); len(ids) != 1 || ids[0] == old.id {
				t.Errorf("answers from nodes %v after node %d died", ids, old.id)
			}
		})
	}
}

// moveTo hands a volume to a node.
func (l *lab) moveTo(vol raid.VolumeID, slot uint8, to raid.NodeID) {
	l.t.Helper()
	for range 20 {
		if b := l.server(slot); b != nil && b.id == to {
			return
		}
		l.handoff(vol, to)
		l.run(second, func() bool { b := l.server(slot); return b != nil && b.id == to })
	}
	l.t.Fatalf("volume %d does not move to node %d", vol, to)
}

func (l *lab) handoff(vol raid.VolumeID, to raid.NodeID) {
	l.t.Helper()
	mv := l.boxes[to-1].node.State().Volume(vol)
	if r := l.command(to, &membership.Handoff{Vol: vol, Epoch: mv.Data.Epoch, Target: to}); r.Err != "" {
		l.t.Logf("handoff: %s", r.Err)
	}
}

// TestARemoteOwnerIsToldOfADiskThatIsGone: the connection to a node goes on when one of its disks has to be opened anew, so nothing
// else tells the owner that what it has asked is lost; a resync waited for ever.
func TestARemoteOwnerIsToldOfADiskThatIsGone(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 1)
	owner := l.server(1)
	other := l.box(owner.id%3 + 1)
	since := len(owner.events)
	other.pull(true)
	other.pull(false)
	l.until("the owner knows", func() bool {
		return slices.ContainsFunc(owner.events[since:], func(e Event) bool { return strings.Contains(e.Text, "not open on this node any more") })
	})
	l.until("it is in sync again", func() bool {
		return len(owner.node.State().Volumes[0].Data.InSync()) == 3 && owner.node.Status(l.now).Health == "healthy"
	})
	s.put(1, 8, 2)
	if got := s.read(1, 8); got != 2 {
		t.Errorf("read %#x", got)
	}
}
