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
