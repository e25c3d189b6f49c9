package raid_test

import (
	"slices"
	"testing"

	. "clade/raid"
)

// What disks answer late, twice, wrongly or not at all must cost no more than it has to.

// A disk's time to answer Start begins with that Start, however long FENCING took.
func TestTimeToStartBeginsWithStart(t *testing.T) {
	tr := newTrace(t, Layout{K: 2, M: 2, UnitBytes: 4096})
	w := tr.takeover()
	w.held = func(r *DiskRequest) bool { return r.Disk == 4 }
	w.shelve = only(CmdActivate)
	tr.until("Activate is proposed", func() bool { return len(w.pending) > 0 })
	tr.pass(50 * ms) // Raft's round
	w.shelve = nil
	tr.run()
	if !tr.inSync(1, 2, 3) {
		t.Fatalf("in-sync %v: a disk was given up before it could answer", tr.v.InSync())
	}
	w.write(0, 1)
	tr.heal()
}

// toA tells requests to A by their kind.
func toA(k ReqKind) func(*DiskRequest) bool {
	return func(r *DiskRequest) bool { return r.Disk == diskA && r.Kind == k }
}

// nack lets a disk refuse a request, which it never sees.
func (w *tracedOwner) nack(r *DiskRequest, why NackReason) {
	w.o.Reply(w.tr.now, &DiskReply{Kind: RepNack, Vol: r.Vol, Disk: r.Disk, Epoch: r.Epoch, Stream: r.Stream, ID: r.ID, Nack: why, Err: "test"})
}

// take removes the held requests of a kind from the wire to a disk and returns them.
func (w *tracedOwner) take(d DiskID, k ReqKind) (out []*DiskRequest) {
	l := w.wires[d]
	l.reqs = slices.DeleteFunc(l.reqs, func(r *DiskRequest) bool {
		if r.Kind == k {
			out = append(out, r)
		}
		return r.Kind == k
	})
	if len(out) == 0 {
		w.tr.t.Fatalf("no request of kind %d is on its way to disk %d", k, d)
	}
	return out
}

// A volume that cannot do without a disk waits for it: what the disk refused once is tried again.
func TestNeededDiskIsTriedAgain(t *testing.T) {
	for _, why := range []NackReason{NackRefused, NackGone} {
		tr, w := leftC(t)
		w.held = toA(ReqPrepare)
		w.begin(0, 9)
		tr.run()
		for _, r := range w.take(diskA, ReqPrepare) {
			w.nack(r, why)
		}
		w.held = nil
		tr.run()
		tr.until("the volume admits again", w.o.Admitting)
		w.write(0, 3)
		tr.heal()
	}
}

// A Read that was sent elsewhere long ago is refused: no reason to give the disk up.
func TestLateRefusalOfAReadIsNothing(t *testing.T) {
	tr := newTrace21(t)
	w := tr.serve()
	w.write(0, 1)
	tr.pass(second)
	w.kill()
	w = tr.serve() // with an empty cache
	w.held = toA(ReqRead)
	w.read(0)
	tr.pass(second)
	for _, r := range w.take(diskA, ReqRead) {
		w.nack(r, NackRefused)
	}
	tr.pass(second)
	for _, e := range w.events {
		if e.Kind == EventDropped {
			t.Fatalf("disk %d is dropped: %s", e.Disk, e.Text)
		}
	}
}

// A Prepare that is refused while a repair of the same disk waits for its sources is not taken for the repair's refusal.
func TestRefusedPrepareIsNoRefusedRepair(t *testing.T) {
	tr := newTrace21(t)
	w := tr.serve()
	w.write(0, 1)
	tr.pass(second)
	tr.applyOn(diskA)
	tr.disk(diskA).Spoil(0)
	w.kill()
	w = tr.serve()
	rebuilt := false // the second Read of B is the repair's
	w.held = func(r *DiskRequest) bool {
		if toA(ReqPrepare)(r) || rebuilt && r.Kind == ReqRead && r.First == 0 {
			return true
		}
		rebuilt = rebuilt || r.Disk == diskC && r.Kind == ReqRead
		return false
	}
	w.mustRead(0, 1)
	w.begin(600, 2)
	tr.run()
	w.take(diskB, ReqRead)
	for _, r := range w.take(diskA, ReqPrepare) {
		w.nack(r, NackRefused)
	}
	w.shelve = func(VolumeCommand) bool { return true }
	tr.run()
	if len(w.pending) == 0 {
		t.Fatal("a disk that refuses a record goes on unnoticed")
	}
	w.shelve = nil
	tr.pass(second)
	tr.heal()
}

// delay lets an owner's replies of a kind arrive so much later.
func (w *tracedOwner) delay(k ReplyKind, ns int64) {
	seen := map[*DiskReply]int64{}
	w.mute = func(r *DiskReply) bool {
		if r.Kind == k && seen[r] == 0 {
			seen[r] = w.tr.now
		}
		return r.Kind == k && w.tr.now-seen[r] < ns
	}
}

// Disks that are slow to start are waited for: asking again makes void what they were about to answer.
func TestSlowStartsAreWaitedFor(t *testing.T) {
	tr := newTrace21(t)
	w := tr.takeover()
	w.delay(RepStarted, 350*ms)
	tr.pass(2500 * ms)
	if !w.o.Admitting() {
		t.Fatalf("it does not serve: %+v", w.o.Status())
	}
	tr.heal()
}

// A disk whose chain goes further than any batch that was ever made has acknowledged nothing of what comes: it is damaged.
func TestChainBeyondTheLastBatchAcknowledgesNothing(t *testing.T) {
	tr := newTrace21(t)
	w := tr.takeover()
	w.held = func(r *DiskRequest) bool { return r.Disk == diskA && (r.Kind == ReqStart || r.Kind == ReqPrepare) }
	tr.run()
	start := w.take(diskA, ReqStart)[0]
	w.o.Reply(tr.now, &DiskReply{Kind: RepStarted, Vol: 7, Disk: diskA, Epoch: 1, Stream: start.Stream, ID: start.ID, EndSeq: 5})
	w.shelve = func(VolumeCommand) bool { return true }
	token := w.begin(0, 1)
	tr.run()
	if w.acked(token) {
		t.Fatal("a write was answered that A has never been sent")
	}
	w.held, w.shelve = nil, nil
	tr.pass(second)
	tr.heal()
}
