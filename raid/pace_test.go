package raid_test

import (
	"testing"

	. "clade/raid"
)

// twoRegionsStale brings C to be stale with a change in each of its two regions, and back, with its Fills held.
func twoRegionsStale(t *testing.T) (*trace, *tracedOwner) {
	tr, w := staleC(t)
	w.write(2*BlocksPerRegion+2, 3)
	w.held = func(r *DiskRequest) bool { return r.Disk == diskC && r.Kind == ReqFill }
	tr.restore(diskC)
	return tr, w
}

func (w *tracedOwner) fills() (n int) {
	for _, r := range w.wires[diskC].reqs {
		if r.Kind == ReqFill {
			n++
		}
	}
	return n
}

// TestCopiesYieldToInitiators: one at a time while they want anything, and a rest after it of three times what it took.
func TestCopiesYieldToInitiators(t *testing.T) {
	tr, w := twoRegionsStale(t)
	use := func() {
		tr.now += 10 * ms
		if _, ok := w.read(1); !ok {
			t.Fatal("a read waits for a resync of another region")
		}
	}
	for n := 0; w.fills() == 0; n++ {
		if use(); n == 1000 {
			t.Fatal("nothing is copied")
		}
	}
	use()
	use()
	if n := w.fills(); n != 1 {
		t.Fatalf("%d regions are copied at once", n)
	}
	let := w.fills() // this one arrives now, 20 ms after it was begun
	w.held = func(r *DiskRequest) bool {
		if r.Disk == diskC && r.Kind == ReqFill && let > 0 {
			let--
			return false
		}
		return r.Disk == diskC && r.Kind == ReqFill
	}
	tr.run()
	for range 5 {
		use()
		if n := w.fills(); n != 0 {
			t.Fatal("the next region is copied without a rest")
		}
	}
	use()
	if n := w.fills(); n != 1 {
		t.Fatalf("after the rest %d regions are copied", n)
	}
	w.held = nil
	tr.heal()
}

// TestCopiesDoNotWaitForNobody: with nobody else there, many regions are copied at once.
func TestCopiesDoNotWaitForNobody(t *testing.T) {
	tr, w := twoRegionsStale(t)
	tr.pass(second)
	if n := w.fills(); n != 2 {
		t.Fatalf("%d regions are copied at once", n)
	}
	w.held = nil
	tr.heal()
}

// TestCopiesRestOnlySoLong: a copy that took long, or never ends, does not hold up the others for ever.
func TestCopiesRestOnlySoLong(t *testing.T) {
	tr, w := twoRegionsStale(t)
	for n := 0; w.fills() < 1; n++ {
		if tr.now += 10 * ms; n == 1000 {
			t.Fatal("nothing is copied")
		}
		w.read(1)
	}
	began := tr.now
	for w.fills() < 2 {
		if tr.now += 10 * ms; tr.now > began+100*ms {
			break
		}
		w.read(1)
	}
	if n := w.fills(); n != 2 || tr.now > began+100*ms {
		t.Fatalf("%d regions are copied after %d ms", n, (tr.now-began)/ms)
	}
	w.held = nil
	tr.heal()
}

// TestOwnersOfANodeShareThePace: the copies of one volume yield to the initiators of another.
func TestOwnersOfANodeShareThePace(t *testing.T) {
	var p Pace
	tr := newTrace21(t)
	tr.pace = &p
	w := tr.serve()
	other := newTrace21(t)
	other.pace, other.now = &p, tr.now
	busy := other.serve()
	w.write(0, 1)
	tr.lose(diskC)
	tr.until("C is stale", func() bool { return tr.inSync(diskA, diskB) })
	w.write(2, 2)
	w.write(2*BlocksPerRegion+2, 3)
	w.held = func(r *DiskRequest) bool { return r.Disk == diskC && r.Kind == ReqFill }
	tr.restore(diskC)
	for range 200 {
		other.now = tr.now
		busy.write(0, 1)
		tr.pass(10 * ms)
		if w.fills() > 0 {
			break
		}
	}
	if n := w.fills(); n != 1 {
		t.Fatalf("%d regions are copied at once", n)
	}
	w.held = nil
	tr.heal()
}
