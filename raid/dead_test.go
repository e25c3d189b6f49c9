package raid_test

import (
	"testing"

	. "clade/raid"
)

// What is over stays over: an owner that is DEAD, and answers from disks that were not asked.

// An owner that dies in the middle of a resync sends nothing any more but its Release, whatever becomes of its streams.
func TestADeadOwnerSendsNothing(t *testing.T) {
	tr, w := staleC(t)
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead }
	tr.restore(diskC)
	tr.until("C is being copied", func() bool { return len(w.wires[diskA].reqs)+len(w.wires[diskB].reqs) > 0 })
	v := tr.v.Clone()
	v.Epoch++
	v.Ver++
	v.Active = false
	w.o.SetVolume(tr.now, v)
	if w.o.State() != OwnerDead {
		t.Fatalf("it lives: %+v", w.o.Status())
	}
	w.o.Take()
	for _, d := range []DiskID{diskA, diskB, diskC} {
		w.o.Connected(tr.now, d, false)
		w.o.Connected(tr.now, d, true)
		if fx := w.o.Take(); len(fx.Requests)+len(fx.Proposals)+len(fx.Done) > 0 {
			t.Errorf("after disk %d broke: %d requests, first %+v", d, len(fx.Requests), fx.Requests)
		}
	}
}

// Blocks that come from another disk than the one that was asked are not taken for its own: they are another role's.
func TestBlocksOfAnotherDiskAreNotTaken(t *testing.T) {
	tr := newTrace21(t)
	w := tr.serve()
	w.write(0, 1)
	w.write(1, 2)
	tr.pass(second)
	w.kill()
	w = tr.serve()
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead }
	w.read(0)
	id := tr.tokens
	asked := w.take(diskA, ReqRead)[0]
	other := tr.disk(diskA).Handle(asked)
	other.Disk, other.Blocks[0] = diskB, tr.disk(diskB).BlockNow(0, 0, 1)
	var start Stream
	w.connectAgain(diskB, &start)
	other.Stream = start
	w.o.Reply(tr.now, other)
	w.held = nil
	tr.run()
	if got, ok := w.answer(id); ok && got != 1 {
		t.Fatalf("block 0 reads as %d", got)
	}
	w.o.Reply(tr.now, tr.disk(diskA).Handle(asked))
	tr.run()
	if got, ok := w.answer(id); !ok || got != 1 {
		t.Fatalf("block 0 reads as %d (answered: %v)", got, ok)
	}
	tr.heal()
}

// connectAgain breaks a stream and opens it again; it tells which one the owner uses then.
func (w *tracedOwner) connectAgain(d DiskID, stream *Stream) {
	w.cut(d)
	w.connect(d)
	fx := w.o.Take()
	for _, r := range fx.Requests {
		if r.Disk == d && r.Kind == ReqStart {
			*stream = r.Stream
		}
		w.wires[r.Disk].reqs = append(w.wires[r.Disk].reqs, r)
	}
}

// A Read's answer that names a later change than any that was ever committed cannot be right. Rebuilds that used it would read again
// and again, the third time holding the region's lock for ever; another source is taken instead.
func TestAnImpossibleSeqIsNotReadForEver(t *testing.T) {
	tr := newTrace(t, Layout{K: 2, M: 2, UnitBytes: 4096})
	w := tr.serve()
	w.write(0, 1)
	w.write(1, 2)
	tr.pass(second)
	tr.applyOn(1)
	tr.disk(1).Spoil(0)
	w.kill()
	w = tr.serve()
	asked := 0
	w.mute = func(r *DiskReply) bool {
		if r.Kind == RepRead && r.Disk == 2 {
			asked++
			r.R = 1 << 60
		}
		return false
	}
	w.mustRead(0, 1)
	if asked > 5 {
		t.Errorf("asked %d times", asked)
	}
	w.write(0, 3) // no lock is left
	w.mute = nil
	tr.heal()
}
