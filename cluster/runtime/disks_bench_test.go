package runtime

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clade/raid"
	"clade/store"
)

// BenchmarkDiskStream measures what a node's disk worker does with a stream of 4 KiB Prepares, so many of them outstanding, over files
// in TMPDIR: one disk, and three on one machine at the same time. Applying and checkpoints are part of it. ns/op is per Prepare of any
// disk; to be compared with store's BenchmarkRaw of the same run.
func BenchmarkDiskStream(b *testing.B) {
	for _, disks := range []int{1, 3} {
		for _, depth := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%ddisks/qd%d", disks, depth), func(b *testing.B) { benchStream(b, disks, depth) })
		}
	}
}

// streamer is an owner that keeps depth Prepares with a disk.
type streamer struct {
	worker  *diskWorker
	replies chan raid.DiskReply
	reqs    []*raid.DiskRequest
	sentNs  []int64
	tookNs  []int64
	dev     *countedDevice
	disk    *store.Disk
}

// countedDevice counts what a disk asks of its device.
type countedDevice struct {
	store.Device
	writes, bytes, syncs, through atomic.Int64
}

func (d *countedDevice) WriteAt(p []byte, off int64) (int, error) {
	d.writes.Add(1)
	d.bytes.Add(int64(len(p)))
	return d.Device.WriteAt(p, off)
}

func (d *countedDevice) WriteThrough(p []byte, off int64) (int, error) {
	d.through.Add(1)
	d.bytes.Add(int64(len(p)))
	return d.Device.WriteThrough(p, off)
}

func (d *countedDevice) count(sum *[4]int64) {
	for i, c := range []*atomic.Int64{&d.writes, &d.bytes, &d.syncs, &d.through} {
		sum[i] += c.Load()
	}
}

func (d *countedDevice) Sync() error {
	d.syncs.Add(1)
	return d.Device.Sync()
}

const streamRegions = 1024

func newStreamer(b *testing.B, path string, prepares int) *streamer {
	b.Helper()
	if err := store.CreateFile(path, 2<<30); err != nil {
		b.Fatal(err)
	}
	raw, err := store.OpenFile(path)
	if err != nil {
		b.Fatal(err)
	}
	s := &streamer{dev: &countedDevice{Device: raw}, replies: make(chan raid.DiskReply, 1024)}
	if err := store.Format(raw, store.Identity{Disk: 3}, store.FormatOptions{JournalBytes: 256 << 20}); err != nil {
		b.Fatal(err)
	}
	if s.disk, err = store.Open(s.dev, store.Config{}); err != nil {
		b.Fatal(err)
	}
	s.worker = newDiskWorker(3, path, s.disk, -1, func(e diskEvent) {
		for i := range e.replies {
			s.replies <- e.replies[i]
		}
	})
	m := newMetrics(nil)
	s.worker.stats = m.disk("3")
	var wg sync.WaitGroup
	wg.Go(s.worker.syncer)
	wg.Go(s.worker.run)
	b.Cleanup(func() {
		s.worker.stop()
		wg.Wait()
	})
	s.ask(&raid.DiskRequest{Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: streamRegions}}})
	s.ask(&raid.DiskRequest{Kind: raid.ReqFence})
	s.ask(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 1})
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 16*raid.BlockBytes)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for n := range raid.Seq(prepares) {
		at := rng.IntN(16) * raid.BlockBytes
		rec := &raid.Record{Epoch: 1, Seq: n + 1, Prev: n, BID: 1, Parts: raid.DiskSet{3}, Reqs: make([]raid.ReqHeader, 1),
			Blocks: []raid.Block{{Gen: 1, No: rng.Uint32N(streamRegions * raid.BlocksPerRegion), Data: data[at : at+raid.BlockBytes : at+raid.BlockBytes]}}}
		s.reqs = append(s.reqs, &raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 1, Epoch: 1, Disk: 3, Stream: 1, Rec: rec})
	}
	s.sentNs, s.tookNs = make([]int64, prepares), make([]int64, 0, prepares)
	return s
}

// ask sends a request and waits for its answer.
func (s *streamer) ask(r *raid.DiskRequest) {
	r.Vol, r.Epoch, r.Disk = 1, 1, 3
	s.worker.enqueue(r)
	<-s.replies
}

// run sends all Prepares, at most depth of them unanswered.
func (s *streamer) run(depth int) error {
	sent, acked := 0, 0
	for acked < len(s.reqs) {
		from := sent
		for ; sent < len(s.reqs) && sent-acked < depth; sent++ {
			s.reqs[sent].Commit, s.reqs[sent].Touch = raid.Seq(acked), raid.Seq(acked)
			s.sentNs[sent] = bootNs()
		}
		s.worker.enqueue(s.reqs[from:sent]...)
		r := <-s.replies
		if r.Kind != raid.RepAck {
			return fmt.Errorf("not an acknowledgement: %+v", r)
		}
		for now := bootNs(); acked < int(r.Seq); acked++ {
			s.tookNs = append(s.tookNs, now-s.sentNs[acked])
			s.reqs[acked] = nil
		}
	}
	return nil
}

func benchStream(b *testing.B, disks, depth int) {
	dir := b.TempDir()
	var all []*streamer
	each := max(b.N/disks, 1)
	for i := range disks {
		all = append(all, newStreamer(b, filepath.Join(dir, fmt.Sprint(i)), each))
	}
	var before, after [4]int64
	for _, s := range all {
		s.dev.count(&before)
	}
	b.ReportAllocs()
	cpu := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			if err := s.run(depth); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	used := cpuTime() - cpu
	var took []int64
	for _, s := range all {
		took = append(took, s.tookNs...)
		s.dev.count(&after)
	}
	if b.Failed() {
		return
	}
	slices.Sort(took)
	n := float64(each * disks)
	b.ReportMetric(float64(each)/b.Elapsed().Seconds(), "iops/disk")
	b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-us")
	b.ReportMetric(float64(used)/n/1e3, "cpu-us/write")
	for i, unit := range []string{"writes/write", "bytes/write", "syncs/write", "through/write"} {
		b.ReportMetric(float64(after[i]-before[i])/n, unit)
	}
}

// cpuTime is what the process has used, in and out of the kernel.
func cpuTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
