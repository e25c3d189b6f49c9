package store_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"clade/raid"
	"clade/store"
)

// BenchmarkPrepare measures durable Prepares per second with so many in each group commit, and the share of what the same device
// does when the same bytes are written in sequence and synced as often (raw = 1). Applying and checkpoints are part of it.
func BenchmarkPrepare(b *testing.B) {
	for _, c := range []struct{ records, blocks int }{{1, 1}, {32, 1}, {64, 2}, {16, 16}} {
		b.Run(fmt.Sprintf("%dx%dKiB", c.records, 4*c.blocks), func(b *testing.B) { benchPrepare(b, c.records, c.blocks) })
	}
}

func benchPrepare(b *testing.B, records, blocks int) {
	path := filepath.Join(b.TempDir(), "disk")
	if err := store.CreateFile(path, 512<<20); err != nil {
		b.Fatal(err)
	}
	dev, err := store.OpenFile(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	raw := rawTime(b, dev, records*(blocks*raid.BlockBytes)+4096)
	if err := store.Format(dev, store.Identity{Disk: 3}, store.FormatOptions{Force: true}); err != nil {
		b.Fatal(err)
	}
	d, err := store.Open(dev, store.Config{})
	if err != nil {
		b.Fatal(err)
	}
	step := func(now int64, reqs ...*raid.DiskRequest) (out []raid.DiskReply) {
		for _, r := range reqs {
			r.Vol, r.Epoch, r.Disk = 1, 1, 3
		}
		out = d.Step(now, reqs)
		for d.SyncWanted() {
			j := d.BeginSync()
			out = append(out, d.EndSync(j, j.Run())...)
		}
		return out
	}
	step(0, &raid.DiskRequest{Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: 256}}})
	step(0, &raid.DiskRequest{Kind: raid.ReqFence})
	step(0, &raid.DiskRequest{Kind: raid.ReqStart, Stream: 1})
	data := make([]byte, raid.BlockBytes)
	n, no := raid.Seq(0), uint32(0)
	b.SetBytes(int64(records * blocks * raid.BlockBytes))
	b.ReportAllocs()
	for b.Loop() {
		var reqs []*raid.DiskRequest
		commit := n
		for range records {
			rec := &raid.Record{Epoch: 1, Seq: n + 1, Prev: n, BID: 1, Parts: raid.DiskSet{3}}
			for range blocks {
				no = (no*5 + 1) % (256 * raid.BlocksPerRegion)
				rec.Blocks = append(rec.Blocks, raid.Block{Gen: 1, No: no, Data: data})
			}
			n++
			reqs = append(reqs, &raid.DiskRequest{Kind: raid.ReqPrepare, Stream: 1, Rec: rec, Commit: commit, Touch: commit})
		}
		out := step(int64(n)*1000, reqs...)
		if len(out) == 0 || out[len(out)-1].Seq != n {
			b.Fatalf("%d is not acknowledged: %+v", n, out)
		}
		if _, err := d.Background(int64(n) * 1000); err != nil {
			b.Fatal(err)
		}
	}
	perGroup := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(records)/perGroup.Seconds(), "prepares/s")
	b.ReportMetric(float64(raw)/float64(perGroup), "of-raw")
}

// rawTime returns how long a sequential write of n bytes and a sync take, at the best of several tries of many.
func rawTime(b *testing.B, dev store.Device, n int) time.Duration {
	b.Helper()
	buf := make([]byte, n)
	for i := range buf {
		buf[i] = byte(i)
	}
	const times = 100
	began := time.Now()
	for i := range times {
		if _, err := dev.WriteAt(buf, int64(i*n)%(64<<20)); err != nil {
			b.Fatal(err)
		}
		if err := dev.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began) / times
}
