package cluster

import (
	"testing"

	"clade/aoe"
	"clade/raid"
)

// takeoverOf kills the owner of slot 1 with proof, and runs until its successor is where at says.
func (l *lab) takeoverOf(at func(v *volume) bool) (next *box) {
	l.t.Helper()
	old := l.server(1)
	old.kill()
	old.proveDeath()
	l.until("a successor is there", func() bool {
		for _, b := range l.boxes {
			if b.node != nil {
				for _, v := range b.node.vols {
					if v.owner != nil && at(v) {
						next = b
						return true
					}
				}
			}
		}
		return false
	})
	return next
}

// TestFramesOfTheTakeoverAreExecutedAtOnce: what comes in after the end of the former term is executed when the volume opens, in
// order, without a retransmission (A.4.12).
func TestFramesOfTheTakeoverAreExecutedAtOnce(t *testing.T) {
	states := map[string]func(v *volume) bool{
		"while fencing":              func(v *volume) bool { return v.owner.State() == raid.OwnerFencing },
		"before the disks' chains":   func(v *volume) bool { return v.owner.State() == raid.OwnerActive && !v.owner.Admitting() },
		"when it has just been open": func(v *volume) bool { return v.owner.Admitting() },
	}
	for name, at := range states {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 3)
			l.found()
			l.create(1, 2, 1)
			s := l.station(1)
			s.put(1, 0, 1)
			l.takeoverOf(at)
			from := l.now
			frames := [][]byte{s.write(1, 0, 2), s.write(1, 0, 3), s.write(1, 0, 4)}
			for _, f := range frames {
				l.transmit(nil, f)
				l.pass(ms / 10)
			}
			if !l.run(20*ms, func() bool {
				return s.answer(frames[0]) != nil && s.answer(frames[1]) != nil && s.answer(frames[2]) != nil
			}) {
				t.Fatalf("not all of the writes were answered in %d ms without a retransmission", (l.now-from)/ms)
			}
			if got := s.read(1, 0); got != 4 {
				t.Errorf("read %#x, the last write put 4", got)
			}
		})
	}
}

// TestAFrameFromBeforeTheTakeoverIsNotExecuted: the former owner may have executed and answered it, and later ones after it
// (B: C31). It has waited in the successor's socket until that was active.
func TestAFrameFromBeforeTheTakeoverIsNotExecuted(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	late := s.write(1, 0, 1)
	rxNs := l.now
	s.put(1, 0, 2)
	next := l.takeoverOf(func(v *volume) bool { return v.owner.Admitting() })
	if l.now-rxNs > IntakeAgeNs {
		t.Fatal("the takeover was too slow: the frame is too old in any case")
	}
	next.input(func(now int64) { next.node.Frames(now, []SANFrame{{RxNs: rxNs, Data: late}}) })
	l.pass(50 * ms)
	if s.answer(late) != nil {
		t.Error("it was answered")
	}
	if got := s.read(1, 0); got != 2 {
		t.Errorf("read %#x where an acknowledged write put 2", got)
	}
}

func TestFramesThatHaveWaitedAreDropped(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 1)
	l.pass(second)
	owner := l.server(1)
	old, young := s.write(1, 0, 2), s.readRequest(1, 0)
	at := l.now
	owner.input(func(now int64) {
		owner.node.Frames(now, []SANFrame{{RxNs: now - IntakeAgeNs - 1, Data: old}, {RxNs: now - IntakeAgeNs, Data: young}})
	})
	l.pass(50 * ms)
	if s.answer(old) != nil || s.answer(young) == nil {
		t.Errorf("answered: the frame of 100 ms %v, the older one %v", s.answer(young) != nil, s.answer(old) != nil)
	}
	owner.input(func(now int64) { owner.node.ClockJumped(now) })
	young = s.readRequest(1, 0)
	owner.input(func(now int64) { owner.node.Frames(now, []SANFrame{{RxNs: now - ms, Data: young}}) })
	l.pass(20 * ms)
	if s.answer(young) != nil {
		t.Error("a frame from before a jump of the clock was answered")
	}
	l.until("it is served again under another term", func() bool { b := l.server(1); return b != nil })
	if ids := l.answersSince(at, 1); len(ids) == 0 {
		t.Error("nobody has answered at all")
	}
}

// TestAnInitiatorHasAtMostBufcntFramesQueued: the rest is dropped, and what is queued is answered.
func TestAnInitiatorHasAtMostBufcntFramesQueued(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s, other := l.station(1), l.station(2)
	owner := l.server(1)
	var sent [][]byte
	var burst []SANFrame
	for i := range 100 {
		f := s.write(1, uint64(8*i), 1)
		sent = append(sent, f)
		burst = append(burst, SANFrame{Data: f})
	}
	single := other.write(1, 8000, 1)
	burst = append(burst, SANFrame{Data: single})
	owner.input(func(now int64) {
		for i := range burst {
			burst[i].RxNs = now
		}
		owner.node.Frames(now, burst)
	})
	l.pass(100 * ms)
	answered := 0
	for _, f := range sent {
		if s.answer(f) != nil {
			answered++
		}
	}
	if answered != 64 {
		t.Errorf("%d of 100 frames were answered, bufcnt is 64", answered)
	}
	if other.answer(single) == nil {
		t.Error("another initiator's frame was dropped as well")
	}
}

// TestOnlyTheServingMACIsAnsweredFrom: every AoE frame that any node ever sends has the serving MAC as its source.
func TestOnlyTheServingMACIsAnsweredFrom(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	l.create(2, 1, 1)
	s := l.station(1)
	s.put(1, 0, 1)
	s.put(2, 0, 1)
	l.takeoverOf(func(v *volume) bool { return v.owner.Admitting() })
	s.put(1, 8, 1)
	for _, h := range l.air {
		if h.frame[12] != aoe.EtherType>>8 || h.frame[13] != aoe.EtherType&0xff {
			continue
		}
		if src := aoe.MAC(h.frame[6:12]); src != l.servingMAC(h.frame[18]) {
			t.Errorf("node %d answered for slot %d from %s", h.from, h.frame[18], src)
		}
	}
	if len(l.air) == 0 {
		t.Error("no frames")
	}
}

// TestAnnouncementsFollowTheirTimes: at 0, 50, 200 ms, 1 s, then every 5 s, and when somebody else sends from our MAC (B: L3).
func TestAnnouncementsFollowTheirTimes(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	next := l.takeoverOf(func(v *volume) bool { return v.activeNs != 0 })
	from := next.node.vols[0].activeNs
	l.pass(12 * second)
	var at []int64
	announcements := func() {
		at = nil
		for _, h := range l.air {
			if h.atNs >= from && h.from == next.id && h.frame[13] == aoe.EtherType&0xff && aoe.MAC(h.frame[0:6]) == aoe.Broadcast {
				at = append(at, (h.atNs-from+5*ms)/(10*ms)*10)
			}
		}
	}
	announcements()
	want := []int64{0, 50, 200, 1000, 6000, 11000}
	if len(at) != len(want) {
		t.Fatalf("announcements after %v ms, want %v", at, want)
	}
	for i := range want {
		if d := at[i] - want[i]; d < 0 || d > 10 {
			t.Errorf("announcements after %v ms, want %v", at, want)
			break
		}
	}
	stray := aoe.AppendBeacon(nil, l.servingMAC(1), aoe.Broadcast, &aoe.Identity{Shelf: labShelf, Slot: 1}, &aoe.Control{})
	for range 3 {
		l.transmit(nil, stray)
	}
	l.pass(20 * ms)
	if announcements(); len(at) != len(want)+1 {
		t.Errorf("%d announcements after three stray frames from our MAC, want one", len(at)-len(want))
	}
}

// TestAWriteThatIsRolledForwardIsAnsweredByTheSuccessor under its original tag, if it received the write's Prepare itself and
// lately; else never: tags recur (A.4.12).
func TestAWriteThatIsRolledForwardIsAnsweredByTheSuccessor(t *testing.T) {
	for _, c := range []struct {
		what   string
		waitNs int64
		want   bool
	}{{"at once", 0, true}, {"after 150 ms", 150 * ms, false}} {
		t.Run(c.what, func(t *testing.T) {
			l := newLab(t, 3)
			l.found()
			l.create(1, 1, 2)
			s := l.station(1)
			s.put(1, 0, 1)
			l.pass(second)
			old := l.server(1)
			w := s.write(1, 0, 2)
			l.transmit(nil, w)
			prepared := func(b *box) bool {
				for _, r := range b.node.tokens.receipts {
					if b != old && l.now-r.atNs < ms {
						return true
					}
				}
				return false
			}
			l.until("the others have the Prepare", func() bool {
				for _, b := range l.boxes {
					if b != old && !prepared(b) {
						return false
					}
				}
				return true
			})
			old.kill()
			l.pass(c.waitNs)
			old.proveDeath()
			l.until("another node serves", func() bool { return l.server(1) != nil })
			l.pass(50 * ms)
			if got := s.answer(w) != nil; got != c.want {
				t.Errorf("answered: %v", got)
			}
			if got := s.read(1, 0); got != 2 {
				t.Errorf("read %#x: a write on every disk was cut", got)
			}
		})
	}
}
