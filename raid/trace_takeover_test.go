package raid_test

import (
	"testing"

	. "clade/raid"
)

// story is a trace by the name of the rule (docs/protocol.md) that it needs.
type story struct {
	rule string
	tell func(t testing.TB)
}

var stories = []story{
	{"KEEP_UNREACHED", unreachedIsNotKept},
	{"S_ACKED", staleAsOfCommitted},
	{"S_END", staleAsOfC0},
	{"RECON_NOHIST", voidStaysVoid},
	{"C15a", liarIsLeftOut},
	{"C15b", rebootedIsLeftOut},
	{"C24a", oneNameForAllParts},
	{"C32", liarIsCopiedWhole},
}

// unreachedIsNotKept (C1): B has missed a batch that the takeover keeps, and comes back as the takeover ends.
func unreachedIsNotKept(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(1, 1)
	tr.pass(second)
	toB := func(r *DiskRequest) bool { return r.Disk == diskB }
	o.held = toB
	o.begin(1, 2)
	tr.run()
	o.kill()
	n := tr.takeover()
	n.held = toB
	tr.until("the new owner goes on without B", func() bool { return n.o.State() == OwnerActive })
	n.held = nil
	tr.run()
	n.mustRead(1, 2)
	tr.heal()
}

// staleAsOfCommitted (C2a): C has acknowledged 2, which nobody else gets; the next owner gives the name 2 to another batch.
func staleAsOfCommitted(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	o.held = func(r *DiskRequest) bool { return r.Disk != diskC }
	o.begin(0, 2)
	tr.run()
	tr.lose(diskC)
	tr.pass(second)
	if !tr.inSync(diskA, diskB) {
		t.Fatalf("C is not stale: %v", tr.v.InSync())
	}
	o.kill()
	n := tr.serve()
	n.write(0, 3)
	tr.heal()
}

// staleAsOfC0 (C2b): the takeover keeps 2, which C never had.
func staleAsOfC0(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	o.held = func(r *DiskRequest) bool { return r.Disk == diskC }
	o.begin(0, 2)
	tr.run()
	o.kill()
	tr.lose(diskC)
	n := tr.serve()
	n.mustRead(0, 2)
	tr.heal()
}

// voidStaysVoid (C10b): epoch 2 has declared 2 void, but A, the only disk that has it, has not heard. Epoch 3 must not keep it,
// nor tell its initiator that it is written.
func voidStaysVoid(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	o.held = func(r *DiskRequest) bool { return r.Disk == diskC }
	o.begin(0, 2)
	tr.run()
	o.kill()
	n := tr.takeover()
	n.held = func(r *DiskRequest) bool { return r.Kind == ReqStart && r.Disk == diskA }
	tr.run()
	if end, _ := EndOf(tr.v.Hist, 1); end != 1 || !tr.inSync(diskA, diskB, diskC) {
		t.Fatalf("epoch 1 ends at %d, in-sync %v", end, tr.v.InSync())
	}
	n.kill()
	tr.lose(diskC)
	n = tr.serve()
	for _, f := range n.forward {
		if f.Req.AgeUs == 2 {
			t.Fatal("a write that epoch 2 declared void is answered by epoch 3")
		}
	}
	n.mustRead(0, 1)
	tr.heal()
}

// lostTail brings A, B and C to: 2 is committed and acknowledged, and B's drive has lost it.
func lostTail(t testing.TB, told bool) (*trace, *tracedOwner) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(1, 1)
	tr.pass(second)
	o.write(1, 2)
	if told {
		tr.pass(second) // the commit point has arrived on A and C
	}
	o.kill()
	tr.disk(diskB).LoseTail(2)
	return tr, tr.serve()
}

// liarIsLeftOut (C15a): a disk that lacks what is known to be committed must not serve it.
func liarIsLeftOut(t testing.TB) {
	tr, n := lostTail(t, true)
	n.mustRead(1, 2)
	tr.heal()
}

// rebootedIsLeftOut (C15b): nobody knows that 2 is committed, but B's host has rebooted: rather leave B out than cut 2.
func rebootedIsLeftOut(t testing.TB) {
	tr, n := lostTail(t, false)
	n.mustRead(1, 2)
	tr.heal()
}

// oneNameForAllParts (C24): the parts of a batch differ in their bytes and are one batch all the same.
func oneNameForAllParts(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1) // acknowledged, its commit point not told
	o.kill()
	n := tr.serve()
	n.mustRead(0, 1)
	tr.heal()
}

// liarIsCopiedWhole (C32): B lacks 2, which is below C0: to copy what changed after C0 is not enough.
func liarIsCopiedWhole(t testing.TB) {
	tr, n := lostTail(t, true)
	tr.until("B is in-sync again", func() bool { return tr.inSync(diskA, diskB, diskC) })
	n.kill()
	n = tr.serve() // its cache is empty: B itself must answer
	n.mustRead(1, 2)
	tr.heal()
}
