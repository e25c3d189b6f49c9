package store_test

import (
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// reads is a device that counts the bytes that are read.
type reads struct {
	*disktest.Device
	bytes int
}

func (d *reads) ReadAt(p []byte, off int64) (int, error) {
	d.bytes += len(p)
	return d.Device.ReadAt(p, off)
}

// When the regions of large shards, or of many, changed last is read in pieces, while records are applied: no call reads much, other
// requests are answered meanwhile, and no change up to s is forgotten, nor one later than s named.
func TestRegionsInPieces(t *testing.T) {
	const regions, extents, atOnce = 300, 3, 64
	dev := &reads{Device: disktest.New(1200<<20, 1)}
	u := newUser(t, dev, 8<<20)
	var err error
	if u.d, err = store.Open(dev, store.Config{CacheBytes: 1, AtOnce: atOnce}); err != nil {
		t.Fatal(err)
	}
	var shards []raid.ShardRef
	for x := range uint32(extents) {
		shards = append(shards, raid.ShardRef{Extent: x, Gen: 1, Regions: regions})
	}
	out := u.do(&raid.DiskRequest{Kind: raid.ReqShards, Shards: shards})
	for range 100 {
		u.after(0)
		out = append(out, u.d.Step(0, nil)...)
	}
	u.do(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 1, Shards: shards})
	u.do(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 1, Stream: 1})

	newest := [extents][regions]raid.Seq{}
	n := raid.Seq(0)
	write := func(region uint32, commit bool) {
		n++
		r := rec(1, n, n-1, region*raid.BlocksPerRegion)
		r.Blocks[0].Extent = region % extents
		newest[region%extents][region] = n
		c := n - 1
		if !commit {
			c = 0
		}
		u.prepare(7, c, c, r)
	}
	for i := range uint32(200) {
		write(i*7%regions, i < 150) // the last of them are not in place when it is asked
	}
	s, want := n, newest
	for x := range uint32(extents) {
		r := &raid.DiskRequest{Kind: raid.ReqRegions, Epoch: 1, Stream: 1, ID: uint64(x) + 1, S: s, Touch: s, Extent: x, Gen: 1}
		if a := u.send(r); len(a) != 0 {
			t.Fatalf("answered at once: %d", a[0].Kind)
		}
	}
	answers := map[uint32][]raid.Seq{}
	for i := uint32(0); len(answers) < extents; i++ {
		if i > 200 {
			t.Fatal("no answer")
		}
		write(i*11%regions, true) // commits, and so lets apply, what the answers cover
		dev.bytes = 0
		if _, err := u.d.Background(1e9); err != nil { // idle: it applies all that it may
			t.Fatal(err)
		}
		if dev.bytes > 2*4096*(atOnce+raid.BlocksPerRegion*4) {
			t.Fatalf("%d bytes in one piece", dev.bytes)
		}
		for _, a := range u.d.Step(0, nil) {
			if a.Kind == raid.RepRegions && uint64(a.Extent)+1 == a.ID {
				answers[a.Extent] = a.Regions
			}
		}
	}
	for x, got := range answers {
		if len(got) != regions {
			t.Fatalf("extent %d: %d regions", x, len(got))
		}
		for i, seq := range got {
			if newer := newest[x][i] > s; seq < want[x][i] || seq > s || !newer && seq != want[x][i] {
				t.Errorf("extent %d region %d changed at %d, it says %d (as of %d)", x, i, want[x][i], seq, s)
			}
		}
	}
	if n <= s+10 {
		t.Error("answered in one piece")
	}
}

// Many small shards that are asked about in one call are not read in one.
func TestRegionsOfManyShards(t *testing.T) {
	dev := &reads{Device: disktest.New(400<<20, 1)}
	u := newUser(t, dev, 8<<20)
	var err error
	if u.d, err = store.Open(dev, store.Config{CacheBytes: 1, AtOnce: 16}); err != nil {
		t.Fatal(err)
	}
	var shards []raid.ShardRef
	var reqs []*raid.DiskRequest
	for x := range uint32(20) {
		shards = append(shards, raid.ShardRef{Extent: x, Gen: 1, Regions: 10})
		reqs = append(reqs, &raid.DiskRequest{Vol: 7, Disk: 3, From: 1, Kind: raid.ReqRegions, Epoch: 1, Stream: 1, ID: uint64(x), Extent: x, Gen: 1})
	}
	u.do(&raid.DiskRequest{Kind: raid.ReqShards, Shards: shards})
	u.after(0)
	u.do(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 1, Shards: shards})
	u.do(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 1, Stream: 1})
	dev.bytes = 0
	out := u.d.Step(0, reqs)
	if dev.bytes > 2*4096*16 {
		t.Errorf("one Step has read %d bytes", dev.bytes)
	}
	u.after(0)
	if out = append(out, u.d.Step(0, nil)...); len(out) != len(reqs) {
		t.Fatalf("%d answers to %d requests", len(out), len(reqs))
	}
	for i, a := range out {
		if a.Kind != raid.RepRegions || a.ID != uint64(i) || len(a.Regions) != 10 {
			t.Fatalf("answer %d: %+v", i, a)
		}
	}
}
