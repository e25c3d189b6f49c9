package raid_test

import (
	"testing"

	. "clade/raid"
)

// Answers that do not fit what was asked for, and answers that come when much else happens.

// alter lets a story change the answers of a disk on their way.
func (w *tracedOwner) alter(d DiskID, change func(*DiskReply)) {
	for _, r := range w.wires[d].replies {
		change(r)
	}
}

// A region table that is too short says nothing of the regions that it leaves out: a resync that believed it would not copy them.
func TestAShortRegionTableIsNotBelieved(t *testing.T) {
	tr, w := leftC(t)
	w.write(0, 7) // C misses it
	tr.restore(diskC)
	w.mute = func(r *DiskReply) bool { return r.Kind == RepRegions }
	tr.until("the in-sync disks have told their regions", func() bool {
		n := 0
		for _, d := range []DiskID{diskA, diskB} {
			for _, r := range w.wires[d].replies {
				if r.Kind == RepRegions {
					n++
				}
			}
		}
		return n == 2
	})
	for _, d := range []DiskID{diskA, diskB} {
		w.alter(d, func(r *DiskReply) { r.Regions = nil })
	}
	w.mute = nil
	tr.until("C is in-sync", func() bool { return tr.inSync(diskA, diskB, diskC) })
	tr.lose(diskA) // only with C is there what was written
	tr.until("A is stale", func() bool { return tr.inSync(diskB, diskC) })
	w.kill()
	w = tr.serve()
	w.mustRead(0, 7)
	tr.heal()
}

// A disk that answers a Read with a wrong number of blocks is left alone for a second, and others are asked.
func TestAWrongNumberOfBlocksIsNotAskedForAgainAtOnce(t *testing.T) {
	tr := newTrace21(t)
	w := tr.serve()
	w.write(0, 1)
	tr.pass(second)
	w.kill()
	w = tr.serve() // with an empty cache
	asked := 0
	w.mute = func(r *DiskReply) bool {
		if r.Kind == RepRead && r.Disk == diskA {
			asked++
			r.Blocks = append(r.Blocks, r.Blocks...)
		}
		return false
	}
	w.mustRead(0, 1) // rebuilt
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	tr.heal()
}

// What was admitted before a suspension of more than a second is committed and not answered (A.4.1), also what commits while the
// suspension goes on because the disk still owes something.
func TestNothingIsAnsweredInALongSuspension(t *testing.T) {
	for _, long := range []bool{false, true} {
		tr, w := leftC(t)
		passed := 0
		w.held = func(r *DiskRequest) bool {
			if !toA(ReqPrepare)(r) {
				return false
			}
			passed--
			return passed < 0
		}
		early := w.begin(0, 9)
		tr.run()
		late := w.begin(2, 9)
		tr.run()
		tr.until("the volume is suspended", func() bool { return w.o.Status().Suspended != "" })
		if long {
			tr.pass(1100 * ms)
		}
		passed = 1
		tr.run()
		if s := w.o.Status(); s.Suspended == "" || s.Next != s.Commit+2 {
			t.Fatalf("one of two batches should have committed in the suspension: %+v", s)
		}
		if w.acked(early) == long {
			t.Errorf("long %v: the first write is answered: %v", long, !long)
		}
		w.held = nil
		tr.until("the volume admits again", w.o.Admitting)
		tr.pass(second)
		if w.acked(late) == long {
			t.Errorf("long %v: the second write is answered: %v", long, !long)
		}
	}
}

// Of a row that has lost more than its parities can bear, a part cannot be written; all of it can, and then it is good again.
func TestARowThatIsOverwrittenWholeNeedsNothingOld(t *testing.T) {
	tr := newTrace21(t)
	w := tr.serve()
	w.write(0, 1)
	tr.pass(second)
	tr.applyOn(diskA)
	tr.applyOn(diskC)
	tr.disk(diskA).Spoil(0)
	tr.disk(diskC).Spoil(0)
	w.kill()
	w = tr.serve() // with an empty cache: two of three blocks of the row are lost
	part := w.begin(1, 3)
	tr.run()
	if w.done[part].Kind != DoneUnreadable {
		t.Fatalf("a part of a lost row was written: %+v", w.done[part])
	}
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead } // so that both wait at once
	one := w.begin(1, 4)
	tr.run()
	two := w.begin(0, 5)
	w.held = nil
	tr.run()
	w.mustAck(one, 1, 4)
	w.mustAck(two, 0, 5)
	w.mustRead(0, 5)
	tr.heal()
}
