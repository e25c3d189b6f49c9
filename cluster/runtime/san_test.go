package runtime

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"clade/aoe"
	"clade/aoe/link"
	"clade/cluster"
)

// wire is a switch with one port of the node under test per path, and one of an initiator.
type wire struct {
	sw        *link.Switch
	clock     int64 // CLOCK_REALTIME of the switch
	ports     []*sanPort
	raw       []*link.SwitchPort
	initiator *link.SwitchPort
}

func newWire(t *testing.T, paths int) *wire {
	t.Helper()
	w := &wire{clock: link.RealtimeNs()}
	w.sw = link.NewSwitch(link.SwitchConfig{MTU: 9000, Clock: func() int64 { return w.clock }})
	for i := range paths {
		port, err := w.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 0, 0, 0, 0, byte(i + 1)}, QueueFrames: 1 << 14})
		if err != nil {
			t.Fatal(err)
		}
		p := &sanPort{path: i, spec: port.Name(), sectorCount: 16}
		if err := p.open(port); err != nil {
			t.Fatal(err)
		}
		w.ports, w.raw = append(w.ports, p), append(w.raw, port)
	}
	var err error
	if w.initiator, err = w.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 0, 0, 0, 1, 0}}); err != nil {
		t.Fatal(err)
	}
	return w
}

// send sends frame number n to a path at the present time of the switch.
func (w *wire) send(t *testing.T, path int, n uint32) {
	t.Helper()
	f := make([]byte, 60)
	copy(f, []byte{2, 0, 0, 0, 0, byte(path + 1)})
	copy(f[6:], []byte{2, 0, 0, 0, 1, 0})
	binary.BigEndian.PutUint16(f[12:], link.EtherTypeAoE)
	binary.BigEndian.PutUint32(f[20:], n)
	if sent, err := w.initiator.Send([]link.TxFrame{{Header: f}}); sent != 1 || err != nil {
		t.Fatalf("send: %d, %v", sent, err)
	}
}

// taken runs intake once and returns the frames' numbers; it reads them inside the call, as the node does.
func (w *wire) taken(t *testing.T, untilNs int64) (numbers []uint32, paths []int, more bool) {
	t.Helper()
	last := int64(0)
	more, errs := intake(w.ports, untilNs, nil, func(frames []cluster.SANFrame) {
		for _, f := range frames {
			numbers = append(numbers, binary.BigEndian.Uint32(f.Data[20:]))
			paths = append(paths, f.Path)
			if f.RxNs < last-50e3 || f.RxNs > untilNs { // the clocks are read anew for each batch
				t.Errorf("frame %d of time %d after %d, limit %d", numbers[len(numbers)-1], f.RxNs, last, untilNs)
			}
			last = f.RxNs
		}
	})
	if len(errs) > 0 {
		t.Fatalf("intake: %v", errs)
	}
	return numbers, paths, more
}

func TestIntakeMergesThePathsByReceiveTime(t *testing.T) {
	w := newWire(t, 3)
	rng := rand.New(rand.NewPCG(1, 2))
	w.clock -= 50e6
	const n = 900 // many receive batches on each path
	for i := range uint32(n) {
		w.clock += 50e3 // each port converts times for itself, which is exact to some microseconds
		w.send(t, rng.IntN(3), i)
	}
	got, paths, more := w.taken(t, bootNs())
	if more || len(got) != n || !slices.IsSorted(got) {
		t.Fatalf("got %d frames (more %t), sorted %t; want %d in the order of sending", len(got), more, slices.IsSorted(got), n)
	}
	seen := map[int]int{}
	for _, p := range paths {
		seen[p]++
	}
	if len(seen) != 3 {
		t.Fatalf("frames by path: %v", seen)
	}
}

func TestIntakeLeavesWhatIsTooNewOrTooMuchForTheNextTurn(t *testing.T) {
	w := newWire(t, 2)
	w.clock -= 80e6
	w.send(t, 0, 1)
	w.clock += 40e6
	w.send(t, 1, 2)
	w.clock += 1e6
	w.send(t, 0, 3)
	limit := bootNs() - 60e6
	if got, _, more := w.taken(t, limit); fmt.Sprint(got) != "[1]" || !more {
		t.Fatalf("frames received by then: %v, more %t; want [1] and more", got, more)
	}
	if got, _, more := w.taken(t, bootNs()); fmt.Sprint(got) != "[2 3]" || more {
		t.Fatalf("the next turn: %v, more %t; want [2 3] and no more", got, more)
	}
	for i := range uint32(intakeFramesMax + 10) {
		w.send(t, int(i)%2, i)
	}
	var all []uint32
	got, _, more := w.taken(t, bootNs())
	if len(got) != intakeFramesMax || !more {
		t.Fatalf("one turn took %d frames, more %t", len(got), more)
	}
	all = append(all, got...)
	got, _, more = w.taken(t, bootNs())
	all = append(all, got...)
	if len(all) != intakeFramesMax+10 || more {
		t.Fatalf("two turns took %d frames, more %t", len(all), more)
	}
}

func TestServingMACsAreJoinedWhenALatePortOpens(t *testing.T) {
	w := newWire(t, 1)
	p := &sanPort{path: 0, sectorCount: 2}
	mac, other := aoe.MAC{2, 9, 9, 9, 9, 1}, aoe.MAC{2, 9, 9, 9, 9, 2}
	for _, c := range []struct {
		mac  aoe.MAC
		join bool
	}{{mac, true}, {other, true}, {other, false}} {
		if err := p.change(c.mac, c.join); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.open(w.raw[0]); err != nil {
		t.Fatal(err)
	}
	if got := w.raw[0].Stats().JoinedMACs; got != 1 {
		t.Fatalf("%d addresses joined, want 1", got)
	}
	if err := p.change(mac, false); err != nil {
		t.Fatal(err)
	}
	if got := w.raw[0].Stats().JoinedMACs; got != 0 {
		t.Fatalf("%d addresses joined after leaving, want 0", got)
	}
}

func TestLookSaysWhatIsWrongWithAPathAndReopensIt(t *testing.T) {
	w := newWire(t, 1)
	p, port := w.ports[0], w.raw[0]
	if s := p.look(port); !s.up || !s.carrier || !s.mtuOK {
		t.Fatalf("a good path: %+v", s)
	}
	p.sectorCount = 18
	if s := p.look(port); s.up || !s.carrier || s.mtuOK || s.why == "" {
		t.Fatalf("a path whose MTU is too small: %+v", s)
	}
	p.sectorCount = 16
	w.sw.SetState(port, link.StateDown)
	if s := p.look(port); s.up || s.carrier {
		t.Fatalf("a path without carrier: %+v", s)
	}
	w.sw.SetState(port, link.StateGone)
	if s := p.look(port); s.up || s.why == "" {
		t.Fatalf("a path whose interface is gone: %+v", s)
	}
	w.sw.SetState(port, link.StateUp)
	if s := p.look(port); !s.up {
		t.Fatalf("the interface is back: %+v", s)
	}
	if s := p.look(nil); s.up || s.why == "" {
		t.Fatalf("an interface that never opened: %+v", s)
	}
}
