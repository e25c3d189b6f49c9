package store_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"clade/raid"
	"clade/store"
)

// BenchmarkCheckpointBump measures how long single group commits take while the journal fills and is trimmed again and again, as a
// worker drives a disk: the sync beside, Background at least every 4 ms. max/p50 is the bump that a checkpoint makes.
func BenchmarkCheckpointBump(b *testing.B) {
	path := filepath.Join(b.TempDir(), "disk")
	if err := store.CreateFile(path, 3<<30); err != nil {
		b.Fatal(err)
	}
	dev, err := store.OpenFile(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	if err := store.Format(dev, store.Identity{Disk: 3}, store.FormatOptions{Force: true, JournalBytes: 256 << 20}); err != nil {
		b.Fatal(err)
	}
	d, err := store.Open(dev, store.Config{})
	if err != nil {
		b.Fatal(err)
	}
	const regions = 2048
	now := func() int64 { return time.Now().UnixNano() }
	commit := func(reqs ...*raid.DiskRequest) {
		for _, r := range reqs {
			r.Vol, r.Epoch, r.Disk = 1, 1, 3
		}
		d.Step(now(), reqs)
		for d.SyncWanted() {
			j := d.BeginSync()
			d.EndSync(j, j.Run())
		}
	}
	commit(&raid.DiskRequest{Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: regions}}})
	for {
		more, err := d.Background(now())
		if err != nil {
			b.Fatal(err)
		}
		commit()
		if !more {
			break
		}
	}
	commit(&raid.DiskRequest{Kind: raid.ReqFence})
	commit(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 1})
	data := make([]byte, raid.BlockBytes)
	n, no := raid.Seq(0), uint32(1)
	var took []time.Duration
	last := now()
	for b.Loop() {
		var reqs []*raid.DiskRequest
		c := n
		for range 16 {
			rec := &raid.Record{Epoch: 1, Seq: n + 1, Prev: n, BID: 1, Parts: raid.DiskSet{3}}
			for range 8 {
				no = (no*1664525 + 1013904223)
				rec.Blocks = append(rec.Blocks, raid.Block{Gen: 1, No: no >> 3 % (regions * raid.BlocksPerRegion), Data: data})
			}
			n++
			reqs = append(reqs, &raid.DiskRequest{Kind: raid.ReqPrepare, Stream: 1, Rec: rec, Commit: c, Touch: c})
		}
		began := time.Now()
		commit(reqs...)
		if t := now(); t-last > 4e6 {
			if _, err := d.Background(t); err != nil {
				b.Fatal(err)
			}
			last = t
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	p50 := took[len(took)/2]
	b.ReportMetric(float64(p50)/1e6, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1])/float64(p50), "max/p50")
	b.ReportMetric(float64(d.Status().Checkpoints), "checkpoints")
}
