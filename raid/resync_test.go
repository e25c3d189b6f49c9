package raid_test

import (
	"slices"
	"testing"

	. "clade/raid"
)

// Resyncs that meet errors give up and begin anew; none is left hanging.

// A resync that is given up lets go of a region for which another one waits, and that one fails at once: both end.
func TestTwoResyncsEndTogether(t *testing.T) {
	tr := newTrace(t, Layout{K: 2, M: 2, UnitBytes: 4096})
	w := tr.serve()
	w.write(0, 1)
	tr.pass(second)
	tr.lose(3)
	tr.lose(4)
	tr.until("two are stale", func() bool { return tr.inSync(1, 2) })
	w.write(0, 2)
	tr.pass(5 * second) // no hold-off is left
	var first, start *DiskRequest
	w.held = func(r *DiskRequest) bool {
		switch {
		case r.Kind == ReqRegions && r.Disk == 1 && first == nil:
			first = r // disk 3 learns later than disk 4 what to copy
		case r.Kind == ReqStart && r.Disk == 4:
			start = r
		}
		return r == first || r.Kind == ReqRead
	}
	tr.restore(3)
	tr.restore(4)
	tr.until("disk 4 is being copied", func() bool {
		return slices.ContainsFunc(w.wires[1].reqs, func(r *DiskRequest) bool { return r.Kind == ReqRead })
	})
	first = &DiskRequest{}
	tr.run()
	w.cut(2)
	w.o.Reply(tr.now, &DiskReply{Kind: RepNack, Vol: 7, Disk: 4, Epoch: start.Epoch, Stream: start.Stream, ID: 1 << 40, Nack: NackRefused})
	if n := len(w.o.Status().Resync); n != 0 {
		t.Fatalf("%d resyncs go on", n)
	}
	tr.heal()
}

// A resync that fails is one failure, however many regions were to be copied at once: one hold-off, one new stream.
func TestFailedResyncFailsOnce(t *testing.T) {
	tr, w := leftC(t)
	for region := range 2 {
		w.write(region*2*BlocksPerRegion, 2)
	}
	tr.pass(5 * second)
	w.held = func(r *DiskRequest) bool { return r.Kind == ReqRegions && r.Disk == diskA }
	tr.restore(diskC)
	tr.until("A is asked what changed", func() bool { return len(w.wires[diskA].reqs) > 0 })
	w.o.Reply(tr.now, tr.disk(diskA).Handle(w.take(diskA, ReqRegions)[0]))
	w.cut(diskB)
	w.events = nil
	w.shelve = func(VolumeCommand) bool { return true }
	w.held = nil
	tr.run()
	n := 0
	for _, e := range w.events {
		if e.Kind == EventDropped {
			n++
		}
	}
	if n > 1 {
		t.Fatalf("one resync was given up %d times", n)
	}
	tr.heal()
}

// The chain of a joining disk has a gap: what was under way on the old stream will not be answered, and is done again.
func TestGapBeginsResyncAnew(t *testing.T) {
	tr, w := staleC(t)
	w.held = func(r *DiskRequest) bool { return r.Disk == diskC && r.Kind == ReqFill }
	tr.restore(diskC)
	var fill *DiskRequest
	tr.until("C gets a Fill", func() bool {
		for _, r := range w.wires[diskC].reqs {
			if r.Kind == ReqFill {
				fill = r
			}
		}
		return fill != nil
	})
	w.o.Reply(tr.now, &DiskReply{Kind: RepNack, Vol: 7, Disk: diskC, Epoch: fill.Epoch, Stream: fill.Stream, Nack: NackGap})
	w.held = nil
	tr.heal()
}

// A disk that is gone just when it should begin anew is tried again when it is back.
func TestDiskIsGoneWhileWiped(t *testing.T) {
	tr := newTrace21(t)
	w := tr.serve()
	tr.lose(diskC)
	tr.until("C is stale as of 0", func() bool { return tr.inSync(diskA, diskB) })
	w.write(0, 1)
	w.held = func(r *DiskRequest) bool { return r.Disk == diskC && r.Kind == ReqWipe }
	tr.restore(diskC)
	tr.until("C is being wiped", func() bool { return len(w.wires[diskC].reqs) > 0 })
	for _, r := range w.take(diskC, ReqWipe) {
		w.nack(r, NackGone)
	}
	w.held = nil
	tr.heal()
}

// Writes that waited for the credit of a joining disk go on when it leaves.
func TestCreditOfALostJoinerIsFree(t *testing.T) {
	tr, w := staleC(t)
	w.held = func(r *DiskRequest) bool { return r.Disk == diskC && (r.Kind == ReqPrepare || r.Kind == ReqFill) }
	tr.restore(diskC)
	tr.until("C is copied", func() bool {
		return slices.ContainsFunc(w.wires[diskC].reqs, func(r *DiskRequest) bool { return r.Kind == ReqFill })
	})
	var tokens []uint64
	for i := range 400 {
		tokens = append(tokens, w.begin(i, 7))
		tr.run()
	}
	last := tokens[len(tokens)-1]
	if w.acked(last) {
		t.Fatal("the credit of C is not used up")
	}
	w.cut(diskC)
	tr.run()
	for i, token := range tokens {
		w.mustAck(token, i, 7)
	}
	w.held = nil
	tr.heal()
}
