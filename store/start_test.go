//go:build linux

package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// starter is a device that can begin a write.
type starter interface {
	store.Device
	StartThrough(p []byte, off int64, bell int) bool
	EndThrough(wait bool) (int, error)
}

// newBell returns an eventfd.
func newBell(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// rings reports whether the bell rings within so many milliseconds, and stills it.
func rings(t *testing.T, bell, ms int) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(bell), Events: unix.POLLIN}}, ms)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			t.Fatal(err)
		case n == 0:
			return false
		}
		_, err = unix.Read(bell, make([]byte, 8))
		return err == nil
	}
}

// alignedPages returns n pages of a byte at an address that is a multiple of a page.
func alignedPages(t *testing.T, b byte, n int) []byte {
	t.Helper()
	p, err := unix.Mmap(-1, 0, 4096*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(p) })
	copy(p, pagesOf(b, n))
	return p
}

// writtenMax is how much of a file is written when createIn returns: the kernel begins no write of a block that never was.
const writtenMax = 4 << 20

// createIn makes a file in dir and opens it.
func createIn(t *testing.T, dir string, size int64) (path string, dev starter) {
	t.Helper()
	path = filepath.Join(dir, "disk")
	if err := store.CreateFile(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := store.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	for off := int64(0); off < min(size, writtenMax); off += 1 << 20 {
		if _, err := d.WriteThrough(alignedPages(t, 0, 256), off); err != nil {
			t.Fatal(err)
		}
	}
	return path, d.(starter)
}

// startingFile is a file on which writes can be begun.
func startingFile(t *testing.T, size int64) (path string, dev starter) {
	t.Helper()
	path, dev = createIn(t, t.TempDir(), size)
	for range 10 { // one may have to wait for something
		if dev.StartThrough(alignedPages(t, 0, 1), 0, newBell(t)) {
			if _, err := dev.EndThrough(true); err == nil {
				return path, dev
			}
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI lacks native AIO with O_DIRECT in %s", t.TempDir())
	}
	t.Skipf("needs native AIO with O_DIRECT in %s", t.TempDir())
	return "", nil
}

// late is a device that begins writes, and ends them when somebody waits or when it is told to.
type late struct {
	store.Device
	t       *testing.T
	bell    int
	p, was  []byte // nil: none under way
	off     int64
	ended   bool
	again   bool  // it ends without having been done
	err     error // it ends with this
	starts  int
	through atomic.Int64
}

func (d *late) WriteThrough(p []byte, off int64) (int, error) {
	d.through.Add(1)
	return d.Device.WriteThrough(p, off)
}

func (d *late) StartThrough(p []byte, off int64, bell int) bool {
	if len(p) == 0 {
		d.t.Error("started to write nothing")
	}
	if d.p != nil {
		return false
	}
	d.p, d.was, d.off, d.bell, d.ended = p, slices.Clone(p), off, bell, false
	d.starts++
	return true
}

func (d *late) end() {
	d.ended = true
	if _, err := unix.Write(d.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		d.t.Error(err)
	}
}

func (d *late) EndThrough(wait bool) (int, error) {
	if d.p == nil {
		d.t.Error("asked for the outcome of nothing")
		return 0, os.ErrClosed
	}
	if !d.ended && !wait {
		return 0, store.ErrUnderWay
	}
	if !d.ended {
		d.end()
	}
	if !bytes.Equal(d.p, d.was) {
		d.t.Error("the bytes have changed under the write")
	}
	p := d.p
	d.p, d.was = nil, nil
	switch {
	case d.again:
		return 0, store.ErrAgain
	case d.err != nil:
		return 0, d.err
	}
	return d.Device.WriteThrough(p, d.off)
}

func newLate(t *testing.T) (*late, *user) {
	t.Helper()
	dev := &late{Device: disktest.New(64<<20, 1), t: t}
	u := newUser(t, dev, 8<<20)
	u.make(7)
	dev.through.Store(0)
	return dev, u
}

// blocksFrom returns the numbers of n blocks.
func blocksFrom(first, n int) (nos []uint32) {
	for i := range n {
		nos = append(nos, uint32(first+i))
	}
	return nos
}

// logRecord has a record of n blocks logged.
func (u *user) logRecord(seq raid.Seq, n int) []raid.DiskReply {
	return u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: rec(1, seq, seq-1, blocksFrom(0, n)...)})
}

// beginGroup has a record of n blocks logged and begins its group.
func (u *user) beginGroup(seq raid.Seq, n int) *store.SyncJob {
	u.t.Helper()
	u.logRecord(seq, n)
	if !u.d.SyncWanted() {
		u.t.Fatal("nothing to write")
	}
	return u.d.BeginSync()
}

func (u *user) wantAcked(out []raid.DiskReply, seq raid.Seq) {
	u.t.Helper()
	if n := len(out); n == 0 || out[n-1].Kind != raid.RepAck || out[n-1].Seq != seq {
		u.t.Fatalf("%d is not acknowledged: %+v", seq, out)
	}
}

// wantEnd opens the disk again, on dev, and looks how far it has come.
func wantEnd(t *testing.T, dev store.Device, seq raid.Seq) {
	t.Helper()
	u := &user{t: t, dev: dev}
	u.open()
	u.do(&raid.DiskRequest{Kind: raid.ReqShards, Since: 1, Shards: fourRegions})
	if rep, _ := u.takeover(7, 2, 1, []raid.HistRange{{From: 1, To: 1, End: seq}}, 0); rep.Damaged || rep.EndSeq != seq {
		t.Fatalf("of %d records there are %d, damaged %v", seq, rep.EndSeq, rep.Damaged)
	}
}

// A job that was started has not ended before the device says so and has no effect; then Run has its outcome.
func TestStartedJob(t *testing.T) {
	dev, u := newLate(t)
	bell := newBell(t)
	job := u.beginGroup(1, 3)
	if job.Quick() {
		t.Fatal("quick on a device that is not in memory")
	}
	if !job.Start(bell) || job.Start(bell) {
		t.Fatal("not started, or twice")
	}
	for range 3 {
		if ended, again := job.Ended(); ended || again || rings(t, bell, 0) {
			t.Fatalf("ended %v, again %v at once", ended, again)
		}
	}
	dev.end()
	if !rings(t, bell, 10_000) {
		t.Fatal("no bell")
	}
	for range 2 {
		if ended, again := job.Ended(); !ended || again {
			t.Fatalf("ended %v, again %v after the bell", ended, again)
		}
	}
	u.wantAcked(u.d.EndSync(job, job.Run()), 1)
	if dev.starts != 1 || dev.through.Load() != 0 {
		t.Fatalf("started %d times, written %d times besides", dev.starts, dev.through.Load())
	}
	job = u.beginGroup(2, 3) // and Run waits by itself
	if !job.Start(bell) {
		t.Fatal("not started")
	}
	u.wantAcked(u.d.EndSync(job, job.Run()), 2)
	wantEnd(t, dev, 2)
}

// What the device cannot do without keeping somebody waiting is a job like any other afterwards: another goroutine runs it, and a flush
// may come first.
func TestStartedJobAgain(t *testing.T) {
	for _, how := range []string{"elsewhere", "here", "flush beside"} {
		t.Run(how, func(t *testing.T) {
			dev, u := newLate(t)
			dev.again = true
			job := u.beginGroup(1, 3)
			if !job.Start(newBell(t)) {
				t.Fatal("not started")
			}
			seq := raid.Seq(1)
			var out []raid.DiskReply
			if how == "here" {
				out = u.d.EndSync(job, job.Run())
			} else {
				dev.end()
				if ended, again := job.Ended(); !ended || !again {
					t.Fatalf("ended %v, again %v", ended, again)
				}
				run := make(chan error, 1)
				go func() { run <- job.Run() }()
				for ; how == "flush beside" && seq < 3; seq++ { // together more than a group has
					out = append(out, u.logRecord(seq+1, 200)...)
				}
				if ended, again := job.Ended(); !ended || again != (how == "elsewhere") { // a flush has done it
					t.Fatalf("ended %v, again %v after that", ended, again)
				}
				out = append(out, u.d.EndSync(job, <-run)...)
				for u.d.SyncWanted() {
					j := u.d.BeginSync()
					out = append(out, u.d.EndSync(j, j.Run())...)
				}
			}
			u.wantAcked(out, seq)
			if n := dev.through.Load(); dev.starts != 1 || n != int64(seq) {
				t.Fatalf("started %d times, written %d times besides", dev.starts, n)
			}
			wantEnd(t, dev, seq)
		})
	}
}

// A request that has to make room waits for the group that was started, before the memory is used for the next one.
func TestFlushOfStartedGroup(t *testing.T) {
	_, file := startingFile(t, 64<<20)
	onFile := newUser(t, file, 8<<20)
	onFile.make(7)
	_, onLate := newLate(t)
	for name, u := range map[string]*user{"late": onLate, "file": onFile} {
		bell := newBell(t)
		job := u.beginGroup(1, 200)
		if !job.Start(bell) {
			t.Fatalf("%s: not started", name)
		}
		var out []raid.DiskReply
		for seq := raid.Seq(2); seq <= 3; seq++ { // together more than a group has
			out = append(out, u.logRecord(seq, 200)...)
		}
		u.wantAcked(out, 2)
		if !rings(t, bell, 10_000) {
			t.Fatalf("%s: no bell", name)
		}
		next := u.d.BeginSync() // before anybody has asked about the first one
		started := next.Start(bell)
		if name == "late" && !started {
			t.Fatal("the next one is not started")
		}
		if ended, _ := job.Ended(); !ended {
			t.Fatalf("%s: a flush has taken the outcome, and it has not ended", name)
		}
		if err := job.Run(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		u.d.EndSync(job, nil)
		u.wantAcked(u.d.EndSync(next, next.Run()), 3)
		wantEnd(t, u.dev, 3)
	}
}

// A group that a flush has written is not started any more: its bytes may be the next group's by then.
func TestGroupOfAFlushIsNotStarted(t *testing.T) {
	_, u := newLate(t)
	bell := newBell(t)
	job := u.beginGroup(1, 200)
	var out []raid.DiskReply
	for seq := raid.Seq(2); seq <= 3; seq++ { // together more than a group has
		out = append(out, u.logRecord(seq, 200)...)
	}
	u.wantAcked(out, 2)
	if job.Start(bell) {
		t.Fatal("it is written once more")
	}
	u.d.EndSync(job, job.Run())
	next := u.d.BeginSync()
	u.wantAcked(u.d.EndSync(next, next.Run()), 3)
	wantEnd(t, u.dev, 3)
}

// Whoever must not wait leaves checkpoints to others, who get on with them by whatever they do next.
func TestEndSyncNowLeavesWhatTakesLong(t *testing.T) {
	_, u := newLate(t)
	began, seq := u.d.Status(), raid.Seq(0)
	asked := false
	for ; !asked && seq < 2000; seq++ {
		job := u.beginGroup(seq+1, 20)
		replies, more := u.d.EndSyncNow(job, job.Run())
		u.wantAcked(replies, seq+1)
		asked = more
	}
	if s := u.d.Status(); !asked || s.Checkpoints != began.Checkpoints {
		t.Fatalf("after %d records: asked for help %v, %d checkpoints made", seq, asked, s.Checkpoints-began.Checkpoints)
	}
	for range 1000 {
		if _, err := u.d.Background(int64(seq) * 1_000_000); err != nil {
			t.Fatal(err)
		}
		for u.d.SyncWanted() {
			j := u.d.BeginSync()
			u.d.EndSync(j, j.Run())
		}
	}
	if u.d.Status().Checkpoints == began.Checkpoints {
		t.Error("nobody has made a checkpoint")
	}
}

// Jobs that empty the device's cache are not started. Checkpoints go on beside groups that are.
func TestStartedHistory(t *testing.T) {
	_, file := startingFile(t, 64<<20)
	onFile := newUser(t, file, 8<<20)
	onFile.make(7)
	lateDev, onLate := newLate(t)
	for name, u := range map[string]*user{"late": onLate, "file": onFile} {
		bell := newBell(t)
		began, seq, started, waited, again := u.d.Status(), raid.Seq(0), 0, 0, 0
		for u.d.Status().Checkpoints < began.Checkpoints+3 {
			if seq++; seq > 2000 {
				t.Fatalf("%s: no checkpoints", name)
			}
			u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Commit: seq - 1, Touch: seq - 1,
				Rec: rec(1, seq, seq-1, blocksFrom(int(seq)%900, 20)...)})
			for u.d.SyncWanted() {
				job := u.d.BeginSync()
				if job.Start(bell) {
					started++
					ended, _ := job.Ended()
					if !ended {
						waited++
					}
					if lateDev.p != nil {
						lateDev.end()
					}
					if !rings(t, bell, 10_000) {
						t.Fatalf("%s: no bell", name)
					}
					ended, more := job.Ended()
					if !ended {
						t.Fatalf("%s: not ended after the bell", name)
					}
					if more {
						again++
					}
				}
				u.d.EndSync(job, job.Run())
			}
			if _, err := u.d.Background(int64(seq) * 4e6); err != nil {
				t.Fatal(err)
			}
		}
		groups := int(u.d.Status().Groups - began.Groups)
		t.Logf("%s: of %d groups %d were started, %d of them had not ended at once, %d were written again", name, groups, started, waited, again)
		if started-again < groups/2 || waited == 0 || u.d.Status().Syncs-began.Syncs == uint64(groups) || name == "late" && started != groups {
			t.Errorf("%s: %d jobs for %d groups", name, u.d.Status().Syncs-began.Syncs, groups)
		}
		wantEnd(t, u.dev, seq)
	}
}

// A fault that is set fails the job whether it is started or not.
func TestStartWithFaults(t *testing.T) {
	broken := errors.New("broken")
	for name, f := range map[string]store.Faults{"write": {Write: broken}, "sync": {Sync: broken}, "here": {Write: broken, To: 64 << 20}} {
		for _, after := range []bool{false, true} {
			inner, _ := newLate(t)
			dev := store.NewFaultDevice(inner)
			u := &user{t: t, dev: dev}
			u.open()
			u.takeover(7, 2, 1, nil, 0)
			u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 2, Stream: 1, Rec: rec(2, 1, 0, 1)})
			job := u.d.BeginSync()
			dev.Set(store.Faults{Read: broken, Write: broken, From: 63 << 20, To: 64 << 20}) // not where the journal is
			if !after {
				dev.Set(f)
			}
			if job.Start(newBell(t)) != after {
				t.Fatalf("%s: started before the fault was set: %v", name, after)
			}
			if dev.Set(f); after {
				inner.end()
				if ended, again := job.Ended(); !ended || again {
					t.Fatalf("%s: ended %v, again %v", name, ended, again)
				}
			}
			u.d.EndSync(job, job.Run())
			if err := u.d.Failed(); !errors.Is(err, broken) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	dev, u := newLate(t)
	dev.err = broken
	job := u.beginGroup(1, 1)
	if !job.Start(newBell(t)) {
		t.Fatal("not started")
	}
	if out := u.d.EndSync(job, job.Run()); len(out) != 0 || !errors.Is(u.d.Failed(), broken) || dev.through.Load() != 0 {
		t.Fatalf("a device's own error: %v, %+v", u.d.Failed(), out)
	}
}

// What a file was told to write is there for another descriptor that goes past the page cache, when it has ended. A place that is in the
// page cache may have to be written again, and ends that for the next one.
func TestStartThroughOfAFile(t *testing.T) {
	path, dev := startingFile(t, 4<<20)
	bell := newBell(t)
	other, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const writes = 48
	again, got := 0, alignedPages(t, 0, 64)
	for i := range writes {
		p, off := alignedPages(t, byte(i+1), 64-i%(writes/2)), int64(i%3)<<20
		if i == writes/2 {
			if _, err := dev.ReadAt(make([]byte, 3<<20), 0); err != nil {
				t.Fatal(err)
			}
		}
		if !dev.StartThrough(p, off, bell) {
			t.Fatalf("%d: not started", i)
		}
		if dev.StartThrough(p, off+2<<20, bell) {
			t.Fatalf("%d: two are under way", i)
		}
		if !rings(t, bell, 10_000) {
			t.Fatalf("%d: no bell", i)
		}
		n, err := dev.EndThrough(false)
		if errors.Is(err, store.ErrAgain) {
			again++
			n, err = dev.WriteThrough(p, off)
		}
		if err != nil || n != len(p) {
			t.Fatalf("%d: %d, %v", i, n, err)
		}
		if _, err := other.ReadAt(got[:len(p)], off); err != nil || !bytes.Equal(got[:len(p)], p) {
			t.Fatalf("%d: reads %d, %v", i, got[0], err)
		}
	}
	if t.Logf("%d of %d had to be written again", again, writes); again > writes/4 {
		t.Error("more than the few places that were in the page cache")
	}
}

// A file that is closed waits for what it was told to write, and writes nothing more.
func TestCloseWithAStartedWrite(t *testing.T) {
	whole := 0
	for range 10 {
		path, dev := startingFile(t, 2<<20)
		bell, p := newBell(t), alignedPages(t, 7, 256)
		if !dev.StartThrough(p, 0, bell) {
			t.Fatal("not started")
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		if !rings(t, bell, 0) {
			t.Fatal("closed before the end of the write")
		}
		if _, err := dev.EndThrough(true); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("%v", err)
		}
		if dev.StartThrough(p, 0, bell) {
			t.Fatal("started on a closed file")
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b[:len(p)], p) {
			whole++
		}
	}
	if whole == 0 {
		t.Error("nothing was written")
	}
}

// Whatever would keep the caller, or be refused, is not begun.
func TestStartThroughSaysNo(t *testing.T) {
	_, dev := startingFile(t, 2<<20)
	p, bell := alignedPages(t, 3, 2), newBell(t)
	for name, c := range map[string]struct {
		p   []byte
		off int64
	}{
		"memory": {p[512 : 512+4096], 0}, "length": {p[:4096+512], 0}, "place": {p[:4096], 512}, "beyond": {p, 2<<20 - 4096},
		"before": {p, -4096}, "nothing": {nil, 0},
	} {
		if dev.StartThrough(c.p, c.off, bell) {
			t.Errorf("%s: started", name)
			_, _ = dev.EndThrough(true)
		}
	}
	if !dev.StartThrough(p, 0, bell) {
		t.Error("no longer started at all")
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Logf("no tmpfs to test with: %v", err)
		return
	}
	dir, err := os.MkdirTemp("/dev/shm", "start") //nolint:usetesting // on a tmpfs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_, memory := createIn(t, dir, 32<<20)
	if memory.StartThrough(p, 0, bell) {
		t.Error("tmpfs: started")
	}
	quickIn(t, memory)
}

// quickIn looks which jobs are quick on a device in memory.
func quickIn(t *testing.T, memory store.Device) {
	t.Helper()
	u := newUser(t, store.NewFaultDevice(memory), 8<<20)
	u.make(7)
	for seq, c := range []struct {
		blocks int
		quick  bool
	}{{1, true}, {62, true}, {64, false}} {
		job := u.beginGroup(raid.Seq(seq+1), c.blocks)
		if job.Quick() != c.quick {
			t.Errorf("a group of %d blocks: quick is %v", c.blocks, !c.quick)
		}
		if job.Start(newBell(t)) {
			t.Error("started in memory")
		}
		u.d.EndSync(job, job.Run())
	}
	if (&store.SyncJob{}).Quick() || (&store.SyncJob{}).Start(0) {
		t.Error("a job without a group is quick, or started")
	}
}
