package store_test

import (
	"bytes"
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

func TestALifeOfADisk(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	id := store.Identity{Cluster: [16]byte{1}, UUID: [16]byte{2}, Disk: 3}
	if err := store.Format(dev, id, store.FormatOptions{JournalBytes: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	d, err := store.Open(dev, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	shards := []raid.ShardRef{{Extent: 0, Gen: 1, Regions: 4}}
	do := func(r *raid.DiskRequest) []raid.DiskReply {
		r.Vol, r.Disk, r.From = 7, 3, 1
		out := d.Step(0, []*raid.DiskRequest{r})
		for d.SyncWanted() {
			j := d.BeginSync()
			out = append(out, d.EndSync(j, j.Run())...)
		}
		return out
	}
	do(&raid.DiskRequest{Kind: raid.ReqShards, Shards: shards})
	if out := do(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 1, Shards: shards}); len(out) != 1 || out[0].Report.Damaged {
		t.Fatalf("%+v", out)
	}
	if out := do(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 1, Stream: 1}); len(out) != 1 || out[0].Kind != raid.RepStarted || out[0].EndSeq != 0 {
		t.Fatalf("%+v", out)
	}
	block := bytes.Repeat([]byte{0xAB}, 4096)
	for n := raid.Seq(1); n <= 500; n++ {
		b := append([]byte(nil), block...)
		b[0], b[1] = byte(n), byte(n>>8)
		out := do(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Commit: n - 1, Touch: n - 1,
			Rec: &raid.Record{Epoch: 1, Seq: n, Prev: n - 1, BID: uint64(n), Parts: raid.DiskSet{3}, Blocks: []raid.Block{{Gen: 1, No: uint32(n), Data: b}}}})
		if len(out) != 1 || out[0].Kind != raid.RepAck || out[0].Seq != n {
			t.Fatalf("seq %d: %+v", n, out)
		}
		if n%50 == 0 {
			for more := true; more; {
				if more, err = d.Background(int64(n) * 1e9); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	check := func(upto raid.Seq) {
		t.Helper()
		for first := uint32(0); first < 768; first += 256 {
			out := do(&raid.DiskRequest{Kind: raid.ReqRead, Epoch: 1, Stream: 1, S: upto, Gen: 1, First: first, Count: 256})
			if len(out) != 1 || out[0].Kind != raid.RepRead {
				t.Fatalf("%+v", out)
			}
			for i, b := range out[0].Blocks {
				no := first + uint32(i)
				want := byte(no)
				if no == 0 || no > uint32(upto) {
					want = 0
				}
				if b == nil || b[0] != want {
					t.Fatalf("block %d reads %v", no, b[:min(len(b), 2)])
				}
			}
		}
	}
	check(500)
	dev.Crash()
	if d, err = store.Open(dev, store.Config{}); err != nil {
		t.Fatal(err)
	}
	out := do(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 2, Since: 1, Shards: shards})
	if len(out) != 1 || out[0].Report == nil || out[0].Report.Damaged || out[0].Report.EndSeq != 500 || out[0].Report.Commit != 499 || len(out[0].Report.Records) != 1 {
		t.Fatalf("%+v %+v", out, out[0].Report)
	}
	hist := []raid.HistRange{{From: 1, To: 1, End: 499}}
	out = do(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 2, Stream: 1, Hist: hist, End: 499})
	if len(out) != 1 || out[0].EndSeq != 499 {
		t.Fatalf("%+v", out)
	}
	out = do(&raid.DiskRequest{Kind: raid.ReqRead, Epoch: 2, Stream: 1, S: 499, Gen: 1, First: 500, Count: 1})
	if len(out) != 1 || out[0].Blocks[0][0] != 0 {
		t.Fatalf("a void record is read: %+v", out)
	}
}

func TestCheckFindsWhatWasSpoilt(t *testing.T) {
	dev := disktest.New(64<<20, 2)
	if err := store.Format(dev, store.Identity{UUID: [16]byte{9}, Disk: 1}, store.FormatOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := store.Open(dev, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	shards := []raid.ShardRef{{Gen: 1, Regions: 2}}
	block := bytes.Repeat([]byte{0x5A}, 4096)
	for _, r := range []*raid.DiskRequest{
		{Kind: raid.ReqShards, Shards: shards}, {Kind: raid.ReqFence, Epoch: 1, Shards: shards}, {Kind: raid.ReqStart, Epoch: 1, Stream: 1},
		{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: &raid.Record{Epoch: 1, Seq: 1, BID: 1, Parts: raid.DiskSet{1}, Blocks: []raid.Block{{Gen: 1, No: 5, Data: block}}}},
		{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: 1, Touch: 1},
	} {
		r.Vol, r.Disk = 7, 1
		d.Step(0, []*raid.DiskRequest{r})
		for d.SyncWanted() {
			j := d.BeginSync()
			d.EndSync(j, j.Run())
		}
	}
	if d, err = store.Open(dev, store.Config{}); err != nil { // applies and checkpoints
		t.Fatal(err)
	}
	rep, err := store.Check(dev, nil)
	if err != nil || len(rep.Damage) != 0 || rep.Blocks != 1 || rep.Shards != 1 {
		t.Fatalf("a sound disk: %+v, %v", rep, err)
	}
	at := find(t, dev, block)
	if _, err := dev.WriteAt([]byte{0}, at); err != nil {
		t.Fatal(err)
	}
	rep, err = store.Check(dev, nil)
	if err != nil || len(rep.Damage) != 1 || rep.Damage[0].Place != "block" || rep.Damage[0].Block != 5 || rep.Damage[0].Offset != at {
		t.Fatalf("a spoilt block: %+v, %v", rep, err)
	}
	_ = d
}

// find returns where the block lies in the data area: its last copy on the device.
func find(t *testing.T, dev store.Device, block []byte) int64 {
	t.Helper()
	b := make([]byte, len(block))
	for off := dev.Size() - 4096; off >= 0; off -= 4096 {
		if _, err := dev.ReadAt(b, off); err == nil && bytes.Equal(b, block) {
			return off
		}
	}
	t.Fatal("the block is nowhere")
	return 0
}
