package store

import (
	"testing"

	"clade/raid"
)

// Steady load allocates nothing per request: a group of many costs its answers, and no more than one of a single one does.
func TestAllocations(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("instrumented code allocates")
	}
	one, many := groupAllocations(t, 1), groupAllocations(t, 32)
	t.Logf("%.1f for a group of one, %.1f for a group of 32", one, many)
	if one > 3 || many > one+2 {
		t.Fatalf("a group of one takes %.1f allocations, a group of 32 takes %.1f", one, many)
	}
}

// cachedDevice is bytes in memory, which a disk may read at once.
type cachedDevice struct{ sliceDevice }

func (d *cachedDevice) ReadCached(p []byte, off int64) bool {
	n, _ := d.ReadAt(p, off)
	return n == len(p)
}

// BenchmarkRead is a read of one block that is in place, of a device that has it in memory; each time 64 of them come together.
func BenchmarkRead(b *testing.B) {
	dev := &cachedDevice{sliceDevice{make([]byte, 64<<20)}}
	if err := Format(dev, Identity{Disk: 3}, FormatOptions{JournalBytes: 16 << 20}); err != nil {
		b.Fatal(err)
	}
	d, err := Open(dev, Config{})
	if err != nil {
		b.Fatal(err)
	}
	step := func(reqs ...*raid.DiskRequest) {
		for _, r := range reqs {
			r.Vol, r.Epoch, r.Disk = 1, 1, 3
		}
		d.Step(1, reqs)
		for d.SyncWanted() {
			j := d.BeginSync()
			d.EndSync(j, j.Run())
		}
	}
	const regions = 16
	step(&raid.DiskRequest{Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: regions}}})
	step(&raid.DiskRequest{Kind: raid.ReqFence})
	step(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 1})
	data := make([]byte, raid.BlockBytes)
	for region := range uint32(regions) {
		fill := &raid.DiskRequest{Kind: raid.ReqFill, Stream: 1, Gen: 1, Region: region}
		for i := range uint32(raid.BlocksPerRegion) {
			fill.Blocks = append(fill.Blocks, raid.Block{Gen: 1, No: region*raid.BlocksPerRegion + i, Data: data})
		}
		step(fill)
	}
	var reqs []*raid.DiskRequest
	for i := range uint32(64) {
		no := i * 7919 % (regions * raid.BlocksPerRegion)
		reqs = append(reqs, &raid.DiskRequest{Kind: raid.ReqRead, Vol: 1, Epoch: 1, Disk: 3, Stream: 1, Gen: 1, First: no, Count: 1})
	}
	for _, now := range []bool{false, true} {
		b.Run(map[bool]string{false: "step", true: "now"}[now], func(b *testing.B) {
			b.SetBytes(raid.BlockBytes)
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(reqs) {
				var out []raid.DiskReply
				if now {
					out, _ = d.StepNow(1, reqs)
				} else {
					out = d.Step(1, reqs)
				}
				if len(out) != len(reqs) || out[0].Kind != raid.RepRead || out[0].Blocks[0] == nil {
					b.Fatalf("%d answers: %+v", len(out), out)
				}
			}
		})
	}
}

// groupAllocations returns how many allocations a group of so many Prepares takes, with applying and checkpoints.
func groupAllocations(t *testing.T, records int) float64 {
	const groups = 1500
	dev := &sliceDevice{make([]byte, 256<<20)}
	if err := Format(dev, Identity{Disk: 3}, FormatOptions{JournalBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dev, Config{})
	if err != nil {
		t.Fatal(err)
	}
	now := int64(1)
	step := func(reqs ...*raid.DiskRequest) {
		d.Step(now, reqs)
		for d.SyncWanted() {
			j := d.BeginSync()
			d.EndSync(j, j.Run())
		}
		if _, err := d.Background(now); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*raid.DiskRequest{{Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: 64}}}, {Kind: raid.ReqFence}, {Kind: raid.ReqStart, Stream: 1}} {
		r.Vol, r.Epoch, r.Disk = 1, 1, 3
		step(r)
	}
	n, no := raid.Seq(0), uint32(1)
	data := make([]byte, raid.BlockBytes)
	var sent [][]*raid.DiskRequest
	for range groups + 1 {
		var reqs []*raid.DiskRequest
		for range records {
			no = (no*5 + 1) % (64 * raid.BlocksPerRegion)
			rec := &raid.Record{Epoch: 1, Seq: n + 1, Prev: n, BID: 1, Parts: raid.DiskSet{3}, Blocks: []raid.Block{{Gen: 1, No: no, Data: data}}}
			reqs = append(reqs, &raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 1, Epoch: 1, Disk: 3, Stream: 1, Rec: rec, Commit: n, Touch: n})
			n++
		}
		sent = append(sent, reqs)
	}
	for _, reqs := range sent[:groups/2] { // pools, maps and buffers grow to their size
		step(reqs...)
	}
	at := groups / 2
	per := testing.AllocsPerRun(groups/2-1, func() { step(sent[at]...); at++ })
	if d.Failed() != nil || d.Status().Records != uint64((at)*records) {
		t.Fatalf("%d records of %d: %v", d.Status().Records, at*records, d.Failed())
	}
	return per
}
