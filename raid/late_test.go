package raid_test

import (
	"testing"

	. "clade/raid"
)

// Reads whose disks answer late, or never, while others could.

// Strict reads need answers to a question asked after they came; slow answers are good enough.
func TestSlowDisksConfirmTheEpoch(t *testing.T) {
	tr := newTrace21(t)
	w := tr.takeover()
	w.o = NewOwner(OwnerConfig{Node: tr.v.Owner, Seed: 1, Strict: true}, tr.v, tr.now)
	for _, m := range tr.disks {
		w.connect(m.ID())
	}
	w.o.NodeAlive(tr.now, tr.v.Disks())
	tr.run()
	w.write(0, 1)
	w.delay(RepVerified, 350*ms)
	w.read(0)
	id := tr.tokens
	tr.pass(2 * second)
	if got, ok := w.answer(id); !ok || got != 1 {
		t.Fatalf("reads as %d (answered: %v) while every disk confirms the epoch within 350 ms", got, ok)
	}
	w.mute = nil
	tr.heal()
}

// A read asks on when a disk that nobody could replace at first hangs, and another one is back.
func TestReadLeavesADiskThatHangs(t *testing.T) {
	tr := newTrace(t, Layout{K: 1, M: 1, UnitBytes: 4096})
	w := tr.serve()
	w.write(0, 1)
	tr.pass(second)
	w.kill()
	w = tr.serve()
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead }
	w.read(0)
	id := tr.tokens
	tr.pass(second) // both have been asked, in turn
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead && r.Disk == 2 }
	tr.pass(5 * second)
	if got, ok := w.answer(id); !ok || got != 1 {
		t.Fatalf("reads as %d (answered: %v) though disk 1 is well", got, ok)
	}
	w.held = nil
	tr.heal()
}
