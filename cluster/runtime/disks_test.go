package runtime

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clade/raid"
	"clade/store"
)

// testWorker is a disk's worker and what it has posted.
type testWorker struct {
	*diskWorker
	faults *store.FaultDevice
	wg     sync.WaitGroup
	rung   atomic.Int64

	mu      sync.Mutex
	events  []diskEvent
	arrived *sync.Cond
}

// newTestWorker returns a worker of a new disk. bell: the disk may do writes by itself.
func newTestWorker(t *testing.T, bell bool) *testWorker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := store.CreateFile(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	dev, err := store.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Format(dev, store.Identity{Disk: 3}, store.FormatOptions{JournalBytes: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	w := &testWorker{faults: store.NewFaultDevice(dev)}
	w.arrived = sync.NewCond(&w.mu)
	disk, err := store.Open(w.faults, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if bell {
		if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	w.diskWorker = newDiskWorker(3, path, disk, fd, w.posted)
	m := newMetrics(nil)
	w.stats = m.disk("3")
	if bell {
		w.listen(t, fd)
	}
	w.wg.Go(w.syncer)
	w.wg.Go(w.run)
	t.Cleanup(func() {
		w.stop()
		w.wg.Wait()
	})
	for _, r := range []*raid.DiskRequest{{Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: 2}}}, {Kind: raid.ReqFence}, {Kind: raid.ReqStart, Stream: 1}} {
		w.give(r)
	}
	w.wait(3)
	return w
}

// listen does what the core does when the bell rings.
func (w *testWorker) listen(t *testing.T, bell int) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var count [8]byte
		for {
			if _, err := unix.Read(bell, count[:]); err != nil || count[7] != 0 {
				return
			}
			w.rung.Add(1)
			w.collectNow(w.posted)
		}
	}()
	t.Cleanup(func() { // before the worker stops: it must not need the core for that
		last := [8]byte{7: 1}
		if _, err := unix.Write(bell, last[:]); err != nil {
			t.Error(err)
		}
		<-ended
		_ = unix.Close(bell) // of a test
	})
}

func (w *testWorker) posted(e diskEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	w.arrived.Broadcast()
}

// give does what the core does with requests. It reports whether the core has executed some of them.
func (w *testWorker) give(reqs ...*raid.DiskRequest) bool {
	address(reqs)
	n := len(reqs)
	if reqs, _ = w.stepNow(reqs, w.posted); len(reqs) > 0 {
		w.enqueue(reqs...)
	}
	return len(reqs) < n
}

// giveCore waits until the core has executed r: the worker's goroutine may hold an idle disk for a moment.
func (w *testWorker) giveCore(r *raid.DiskRequest) {
	reqs := []*raid.DiskRequest{r}
	address(reqs)
	for len(reqs) > 0 {
		reqs, _ = w.stepNow(reqs, w.posted)
		time.Sleep(time.Millisecond)
	}
}

func address(reqs []*raid.DiskRequest) {
	for _, r := range reqs {
		r.Vol, r.Epoch, r.Disk = 1, 1, 3
	}
}

// replies returns the answers so far. Under mu.
func (w *testWorker) replies() []raid.DiskReply {
	var out []raid.DiskReply
	for _, e := range w.events {
		out = append(out, e.replies...)
	}
	return out
}

func (w *testWorker) until(done func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !done() {
		w.arrived.Wait()
	}
}

func (w *testWorker) wait(replies int) { w.until(func() bool { return len(w.replies()) >= replies }) }

// TestCoreAndWorkerShareADisk gives a stream of records and reads to a disk, partly to the core, partly to the worker: each record must find the
// one before it, and each read what was written before it, or is refused for no reason.
func TestCoreAndWorkerShareADisk(t *testing.T) {
	t.Run("goroutines wait", func(t *testing.T) { shareADisk(t, newTestWorker(t, false)) })
	t.Run("the disk rings", func(t *testing.T) {
		w := newTestWorker(t, true)
		shareADisk(t, w)
		if w.rung.Load() > 0 {
			return
		}
		const why = "the disk has done nothing by itself: has the file system of the temporary directory no O_DIRECT?"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	})
}

func shareADisk(t *testing.T, w *testWorker) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	const records = 1500
	byCore, byWorker, id := 0, 0, uint64(0)
	for seq := raid.Seq(1); seq <= records; {
		var reqs []*raid.DiskRequest
		for range rng.IntN(stepNowMax+4) + 1 { // sometimes too many for the core
			b := make([]byte, raid.BlockBytes)
			b[0], b[1] = byte(seq), byte(seq>>8)
			rec := &raid.Record{Epoch: 1, Seq: seq, Prev: seq - 1, BID: uint64(seq), Parts: raid.DiskSet{3}, Blocks: []raid.Block{{Gen: 1, No: uint32(seq % 500), Data: b}}}
			id++
			reqs = append(reqs, &raid.DiskRequest{Kind: raid.ReqPrepare, Stream: 1, Rec: rec, Commit: seq - 1, Touch: seq - 1},
				&raid.DiskRequest{Kind: raid.ReqRead, Stream: 1, ID: id, Gen: 1, First: uint32(seq % 500), Count: 1, S: seq})
			seq++
		}
		if w.give(reqs...) {
			byCore++
		} else {
			byWorker++
		}
		if rng.IntN(4) == 0 {
			w.until(func() bool { return acked(w.replies()) >= seq-1 })
		}
	}
	last := id
	w.until(func() bool { rs := w.replies(); return acked(rs) >= records && reads(rs) == last })
	w.mu.Lock()
	defer w.mu.Unlock()
	want := uint64(0)
	for _, r := range w.replies()[3:] {
		switch {
		case r.Kind == raid.RepAck:
		case r.Kind != raid.RepRead:
			t.Fatalf("%+v", r)
		default:
			if want++; r.ID != want {
				t.Fatalf("read %d is answered before read %d", r.ID, want)
			}
			if b := r.Blocks[0]; b[0] != byte(want) || b[1] != byte(want>>8) {
				t.Fatalf("read %d finds %d", want, int(b[0])+int(b[1])<<8)
			}
		}
	}
	if byCore == 0 || byWorker == 0 {
		t.Errorf("%d times the core, %d times the worker: one of the two is not tried", byCore, byWorker)
	}
}

// acked returns what the newest acknowledgement says.
func acked(rs []raid.DiskReply) (seq raid.Seq) {
	for _, r := range rs {
		if r.Kind == raid.RepAck {
			seq = max(seq, r.Seq)
		}
	}
	return seq
}

// reads returns the last read that was answered.
func reads(rs []raid.DiskReply) (id uint64) {
	for _, r := range rs {
		if r.Kind == raid.RepRead {
			id = r.ID
		}
	}
	return id
}

func TestADiskFailsWhileTheCoreUsesIt(t *testing.T) {
	for _, bell := range []bool{false, true} {
		failWhileUsed(t, newTestWorker(t, bell))
	}
}

func failWhileUsed(t *testing.T, w *testWorker) {
	t.Helper()
	w.faults.Set(store.Faults{Sync: unix.EIO})
	rec := &raid.Record{Epoch: 1, Seq: 1, BID: 1, Parts: raid.DiskSet{3}, Blocks: []raid.Block{{Gen: 1, Data: make([]byte, raid.BlockBytes)}}}
	w.giveCore(&raid.DiskRequest{Kind: raid.ReqPrepare, Stream: 1, Rec: rec})
	<-w.done
	w.until(func() bool { return w.events[len(w.events)-1].failed != nil })
	if w.give(&raid.DiskRequest{Kind: raid.ReqCommit, Stream: 1, Commit: 1, Touch: 1}) {
		t.Error("the core still uses a disk that has failed")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.replies()[3:] {
		if r.Kind == raid.RepAck {
			t.Errorf("acknowledged what the disk could not write: %+v", r)
		}
	}
	if err := w.events[len(w.events)-1].failed; !errors.Is(err, unix.EIO) {
		t.Errorf("it is said to have failed by %v", err)
	}
}
