package raid_test

import (
	"testing"

	. "clade/raid"
)

// Rows that have lost more blocks than their parities bear: what needs none of them can be written.

// lostRow is a volume RS(4+1) in whose first row the blocks of data 0 and the parity are lost; no row is in the cache.
func lostRow(t *testing.T) (*trace, *tracedOwner) {
	tr := newTrace(t, Layout{K: 4, M: 1, UnitBytes: 4096})
	w := tr.serve()
	for i := range 4 {
		w.write(i, 1)
	}
	tr.pass(second)
	for _, d := range []DiskID{1, 5} {
		tr.applyOn(d)
		tr.disk(d).Spoil(0)
	}
	w.kill()
	return tr, tr.serve()
}

// Writing the lost block itself needs the other three data blocks and not the parity, though that would be fewer reads. Afterwards
// the row is whole again: this is how a file system heals a sector.
func TestALostBlockIsHealedByWritingIt(t *testing.T) {
	tr, w := lostRow(t)
	delete(tr.want, 0)
	w.write(0, 9)
	w.mustRead(0, 9)
	tr.heal()
	tr.lose(2) // the parity is good, too
	tr.until("disk 2 is stale", func() bool { return tr.inSync(1, 3, 4, 5) })
	w.kill()
	w = tr.serve()
	w.mustRead(1, 1)
	tr.heal()
}

// A write that does need what is lost fails alone: one that heals the row and one of another row, all queued at once, are done.
func TestOnlyWhatNeedsALostBlockFails(t *testing.T) {
	tr, w := lostRow(t)
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead }
	needs := w.begin(1, 7) // block 1 alone: by parity (lost) or by the other data blocks (one is lost)
	tr.run()
	far := w.begin(4, 5)
	tr.run()
	w.held = nil
	tr.run()
	if k := w.done[needs].Kind; k != DoneUnreadable {
		t.Fatalf("the write ended as %d", k)
	}
	w.mustAck(far, 4, 5)
	w.mustRead(1, 1)
	w.write(0, 9)
	w.write(1, 8)
	tr.heal()
}

// A write that arrives while the row's old blocks are being read for another one, and that makes them superfluous, saves both.
func TestWhatHealsARowSavesTheWritesBeforeIt(t *testing.T) {
	tr, w := lostRow(t)
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRead }
	first := w.begin(1, 7)
	tr.run()
	second := w.begin(0, 9)
	tr.run()
	w.held = nil
	tr.run()
	w.mustAck(first, 1, 7)
	w.mustAck(second, 0, 9)
	tr.heal()
}
