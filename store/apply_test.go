package store_test

import (
	"bytes"
	"testing"

	"clade/raid"
	"clade/store"
)

// A block that is written again and again while it is in the journal is written in place once, and what is there is the newest, also for
// whoever opens the disk when only a part has been applied.
func TestOverwrittenBlocksAreWrittenInPlaceOnce(t *testing.T) {
	const records = 200
	u := newNowDisk(t)
	block := func(seq raid.Seq) []byte { return bytes.Repeat([]byte{byte(seq)}, raid.BlockBytes) }
	for seq := raid.Seq(1); seq <= records; seq++ {
		u.Step(1, []*raid.DiskRequest{{Kind: raid.ReqPrepare, Vol: 7, Disk: 3, From: 1, Epoch: 1, Stream: 1, Commit: seq - 1, Rec: &raid.Record{
			Epoch: 1, Seq: seq, Prev: seq - 1, BID: uint64(seq), Parts: raid.DiskSet{3}, Blocks: []raid.Block{{Gen: 1, No: 5, Data: block(seq)}},
		}}})
		u.sync()
	}
	read := func(epoch raid.Epoch) []byte {
		t.Helper()
		out := u.Step(1, []*raid.DiskRequest{{Kind: raid.ReqRead, Vol: 7, Disk: 3, From: 1, Epoch: epoch, Stream: 1, S: records, Gen: 1, First: 5, Count: 1}})
		if len(out) != 1 || out[0].Kind != raid.RepRead || out[0].R < records-1 {
			t.Fatalf("%+v", out)
		}
		return out[0].Blocks[0]
	}
	before := u.dev.n
	for _, now := range []int64{1e9, 2e9} { // it is idle since the first one
		if _, err := u.Background(now); err != nil {
			t.Fatal(err)
		}
	}
	if s := u.Status(); s.Applied != records-1 { // the last one is not known to be committed
		t.Fatalf("%d records are applied", s.Applied)
	}
	if n := u.dev.n - before; n > 2 { // the region's page is read, and the block written
		t.Errorf("%d records of one block cost %d reads and writes", records-1, n)
	}
	if got := read(1); !bytes.Equal(got, block(records)) {
		t.Errorf("the block is that of record %d", got[0])
	}
	// As a power cut leaves it: all of the last record, or nothing that is not synced.
	u.dev.Crash()
	u.dev.PowerOn()
	var err error
	if u.Disk, err = store.Open(u.dev, store.Config{CacheBytes: 4096}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*raid.DiskRequest{{Kind: raid.ReqFence, Epoch: 2}, {Kind: raid.ReqStart, Epoch: 2, Stream: 1, End: records, Hist: []raid.HistRange{{From: 1, To: 1, End: records}}}} {
		r.Vol, r.Disk = 7, 3
		u.Step(0, []*raid.DiskRequest{r})
		u.sync()
	}
	if got := read(2); !bytes.Equal(got, block(records)) {
		t.Errorf("after a power cut the block is that of record %d", got[0])
	}
}
