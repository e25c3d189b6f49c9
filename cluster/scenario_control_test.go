package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"clade/aoe"
)

// TestOneOf64InitiatorsSetsTheConfigString: all set it if it is empty, at once, and their owner dies amidst. Exactly one is told
// that it won, its string is there, and every retransmission is told the same as the first copy.
func TestOneOf64InitiatorsSetsTheConfigString(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("the owner dies: %v", kill), func(t *testing.T) {
			l := newLab(t, 3)
			l.found()
			l.create(1, 2, 1)
			var stas []*station
			var sets [][]byte
			for i := range 64 {
				s := l.station(byte(i + 1))
				stas = append(stas, s)
				sets = append(sets, aoe.AppendConfigRequest(nil, s.header(1), aoe.ConfigSet, []byte{byte(i + 1)}))
			}
			missing := func() bool {
				for i, s := range stas {
					if s.answer(sets[i]) == nil {
						return true
					}
				}
				return false
			}
			for round := 0; missing(); round++ {
				if round > 50 {
					t.Fatal("not everybody was answered")
				}
				for i, s := range stas {
					if s.answer(sets[i]) == nil {
						l.transmit(nil, sets[i])
					}
				}
				if kill && round == 0 {
					l.run(ms, func() bool { return len(l.server(1).node.State().Dedupe) > 10 })
					old := l.server(1)
					old.kill()
					old.proveDeath()
				}
				l.pass(50 * ms)
			}
			winner := -1
			for i, s := range stas {
				switch r := s.answer(sets[i]); {
				case !r.Failed && winner >= 0:
					t.Errorf("initiators %d and %d were both told that they won", winner, i)
				case !r.Failed:
					winner = i
				case r.Error != aoe.ErrorStringPresent:
					t.Errorf("initiator %d was told error %d", i, r.Error)
				}
			}
			if winner < 0 {
				t.Fatal("nobody won")
			}
			cfg, _ := aoe.ParseConfig(stas[0].ask(aoe.AppendConfigRequest(nil, stas[0].header(1), aoe.ConfigRead, nil)).Frame)
			if !slices.Equal(cfg.String, []byte{byte(winner + 1)}) {
				t.Errorf("the string is %v, initiator %d won", cfg.String, winner)
			}
			for i, s := range stas {
				s.got = nil
				if r := s.ask(sets[i]); r.Failed == (i == winner) {
					t.Errorf("initiator %d, winner %d: the retransmission was told failed=%v", i, winner, r.Failed)
				}
			}
		})
	}
}

// TestAForcedReservationIsAFence: it is not answered while a write of somebody it excludes is in flight, and none is executed
// afterwards (DESIGN 4.6).
func TestAForcedReservationIsAFence(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 1, 2) // every disk is part of every write
	x, y := l.station(1), l.station(2)
	x.put(1, 0, 1)
	owner := l.server(1)
	lead, _ := owner.node.group.Leader()
	for _, b := range l.boxes {
		if b != owner && b.id != lead {
			b.pause(150 * ms) // the write is held up by its disk, the control plane is not
			break
		}
	}
	w := x.write(1, 0, 2)
	l.transmit(nil, w)
	l.pass(ms)
	force := aoe.AppendReserveRequest(nil, y.header(1), aoe.ReserveForce, []aoe.MAC{y.mac})
	l.transmit(nil, force)
	l.pass(50 * ms)
	if len(owner.node.State().Slot(1).Control.Reserved) == 0 {
		t.Fatal("the reservation has not been agreed on yet: the scenario tests nothing")
	}
	if x.answer(w) != nil {
		t.Fatal("the write is not held up: the scenario tests nothing")
	}
	if y.answer(force) != nil {
		t.Error("the reservation was answered while a write of the excluded was in flight")
	}
	late := x.write(1, 0, 3)
	if r := x.ask(late); !r.Failed || r.Error != aoe.ErrorReserved {
		t.Errorf("the excluded initiator's write: failed %v, error %d", r.Failed, r.Error)
	}
	if r := y.ask(force); r.Failed {
		t.Errorf("the forced reservation failed with error %d", r.Error)
	}
	if x.answer(w) == nil {
		t.Error("the reservation was answered before the write in flight")
	}
	if got := y.read(1, 0); got != 2 {
		t.Errorf("read %#x, want what was in flight: 2", got)
	}
	if r := x.ask(x.readRequest(1, 0)); !r.Failed || r.Error != aoe.ErrorReserved {
		t.Errorf("the excluded initiator's read: failed %v, error %d", r.Failed, r.Error)
	}
}

// TestLostControlRequestsDoNotFillTheTable: requests whose proposals were lost and whose senders gave up are forgotten.
func TestLostControlRequestsDoNotFillTheTable(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	vol := l.create(1, 2, 1)
	lead, _ := l.box(1).node.group.Leader()
	owner := l.box(lead%3 + 1)
	l.moveTo(vol, 1, owner.id)
	l.isolate(owner, true)
	for i := range controlsMax {
		h := aoe.Header{Dst: l.servingMAC(1), Src: aoe.MAC{2, 0x22, 0, 0, byte(i >> 8), byte(i)}, Shelf: labShelf, Slot: 1, Tag: [4]byte{1, 2, 3, 4}}
		l.transmit(nil, aoe.AppendConfigRequest(nil, h, aoe.ConfigSet, []byte("lost")))
	}
	l.pass(50 * ms)
	l.isolate(owner, false)
	l.pass(second)
	if b := l.server(1); b != owner {
		t.Fatal("the owner has lost its volume: the scenario tests nothing")
	}
	if n := len(owner.node.volume(vol).controls); n != controlsMax {
		t.Fatalf("%d requests are under way: the scenario tests nothing", n)
	}
	s := l.station(1)
	if r := s.ask(aoe.AppendConfigRequest(nil, s.header(1), aoe.ConfigSet, []byte("mine"))); r.Failed {
		t.Errorf("failed with error %d", r.Error)
	}
}

// TestAMaskHidesTheVolumeFromOthers: who is not on the list gets no answer at all, not even an announcement.
func TestAMaskHidesTheVolumeFromOthers(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	in, out := l.station(1), l.station(2)
	in.ask(aoe.AppendMaskRequest(nil, in.header(1), aoe.MaskEdit, []aoe.Directive{{Command: aoe.MaskAdd, MAC: in.mac}}))
	out.got, in.got = nil, nil
	l.takeoverOf(func(v *volume) bool { return v.owner.Admitting() })
	l.transmit(nil, out.readRequest(1, 0))
	l.pass(2 * second)
	if len(out.got) != 0 {
		t.Errorf("the masked initiator got %d frames", len(out.got))
	}
	if len(in.got) == 0 {
		t.Error("the other one got no announcement")
	}
	in.put(1, 0, 7)
}

// TestAnOperatorsReservationIsAFenceToo, at whatever node it is asked for (B: C19).
func TestAnOperatorsReservationIsAFenceToo(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	vol := l.create(1, 1, 2) // every disk is part of every write
	x, y := l.station(1), l.station(2)
	x.put(1, 0, 1)
	owner := l.server(1)
	lead, _ := owner.node.group.Leader()
	var held *box
	for _, b := range l.boxes {
		if b != owner && b.id != lead {
			held = b
		}
	}
	asked := l.boxes[0]
	for _, b := range l.boxes {
		if b != owner && b != held {
			asked = b
		}
	}
	held.pause(100 * ms)
	w := x.write(1, 0, 2)
	l.transmit(nil, w)
	l.pass(ms)
	r := l.operate(asked.id, AdminRequest{Kind: "control", Vol: vol, Control: &aoe.ControlRequest{Kind: aoe.ControlReserveForce, MACs: []aoe.MAC{y.mac}}})
	if r.Err != "" {
		t.Fatal(r.Err)
	}
	l.pass(wireNs)
	if x.answer(w) == nil {
		t.Error("it was done before a write of the excluded was")
	}
	if r := x.ask(x.write(1, 0, 3)); r.Error != aoe.ErrorReserved {
		t.Errorf("the excluded initiator's write: failed %v, error %d", r.Failed, r.Error)
	}
	y.put(1, 0, 4)
	for _, c := range []struct {
		req  aoe.ControlRequest
		want string
	}{
		{aoe.ControlRequest{Kind: aoe.ControlReserveSet, MACs: []aoe.MAC{x.mac}}, "reserved"},
		{aoe.ControlRequest{Kind: aoe.ControlConfigSet, Config: []byte("a")}, ""},
		{aoe.ControlRequest{Kind: aoe.ControlConfigSet, Config: []byte("b")}, `"a" already`},
	} {
		if r := l.operate(asked.id, AdminRequest{Kind: "control", Vol: vol, Control: &c.req}); !strings.Contains(r.Err, c.want) || c.want == "" && r.Err != "" {
			t.Errorf("%+v: %q does not say %q", c.req, r.Err, c.want)
		}
	}
	if r := l.operate(1, AdminRequest{Kind: "control", Vol: 99, Control: &aoe.ControlRequest{Kind: aoe.ControlConfigSet}}); !strings.Contains(r.Err, "no volume 99") {
		t.Errorf("a volume that is not there: %q", r.Err)
	}
}
