package store_test

import (
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// noPages is a device that forgets what is written to a part of it: the pages of regions that nobody reads.
type noPages struct {
	*disktest.Device
	from, to int64
}

func (d *noPages) WriteAt(p []byte, off int64) (int, error) {
	if off >= d.from && off < d.to {
		return len(p), nil
	}
	return d.Device.WriteAt(p, off)
}

// pin fills the journal with records that nobody commits until it takes no more.
func (u *user) pin(vol raid.VolumeID, from raid.Seq) raid.Seq {
	u.t.Helper()
	for n := from; n < from+3000; n++ {
		for _, r := range u.prepare(vol, 0, 0, rec(1, n, n-1, uint32(n)%1000)) {
			if r.Kind == raid.RepNack {
				return n - 1
			}
		}
	}
	u.t.Fatal("the journal is never full")
	return 0
}

// Requests whose entries take very much are refused when the journal has no room for them. Nothing panics, and the disk goes on.
func TestHugeRequestsTinyJournal(t *testing.T) {
	for _, full := range []bool{false, true} {
		u := newUser(t, disktest.New(64<<20, 1), 8<<20)
		u.make(1)
		n := raid.Seq(0)
		if full {
			n = u.pin(1, 1)
		}
		hist := make([]raid.HistRange, 340_000)
		for i := range hist {
			hist[i] = raid.HistRange{From: 1, To: 1, End: n}
		}
		u.do(&raid.DiskRequest{Vol: 1, Kind: raid.ReqFence, Epoch: 2})
		for _, k := range []int{340_000, 300_000, 100_000, 50_000} {
			out := u.do(&raid.DiskRequest{Vol: 1, Kind: raid.ReqStart, Epoch: 2, Stream: 1, Hist: hist[:k], End: n})
			if k > 200_000 && (len(out) != 1 || out[0].Nack != raid.NackRefused) {
				t.Fatalf("full %v, a history of %d ranges: %+v", full, k, out)
			}
		}
		if _, st := u.takeover(1, 3, 1, []raid.HistRange{{From: 1, To: 2, End: n}}, n); st.EndSeq != n || st.Damaged {
			t.Fatalf("full %v: %+v", full, st)
		}
	}
}

// A volume of very many shards is made, narrowed and wiped in pieces on a disk whose journal is full of what cannot be applied. What
// that logs in the end waits until there is room.
func TestManyShardsFullJournal(t *testing.T) {
	const most = 12_000
	refs := make([]raid.ShardRef, most)
	for i := range refs {
		refs[i] = raid.ShardRef{Extent: uint32(i), Gen: 1, Regions: 1}
	}
	dev := disktest.New(most<<20+400<<20, 1)
	u := newUser(t, dev, 8<<20)
	areas, err := store.Areas(dev)
	if err != nil {
		t.Fatal(err)
	}
	u.dev = &noPages{dev, areas.Pages.Offset + 8*8192, areas.Pages.Offset + areas.Pages.Bytes}
	open := func() {
		if u.d, err = store.Open(u.dev, store.Config{CacheBytes: 1, AtOnce: 500}); err != nil {
			t.Fatal(err)
		}
	}
	open()
	u.make(1)
	u.do(&raid.DiskRequest{Vol: 2, Kind: raid.ReqShards, Shards: []raid.ShardRef{{Gen: 1, Regions: 1}}})
	u.do(&raid.DiskRequest{Vol: 2, Kind: raid.ReqFence, Epoch: 1})
	u.do(&raid.DiskRequest{Vol: 2, Kind: raid.ReqStart, Epoch: 1, Stream: 1})
	want := func(kind raid.ReplyKind, r *raid.DiskRequest, from raid.Seq) raid.Seq {
		t.Helper()
		r.Vol = 3
		out := u.do(r)
		n := u.pin(1, from)
		for i := range 200 {
			for _, a := range out {
				if a.Kind == kind && a.Vol == 3 {
					return n
				}
				if a.Kind == raid.RepNack {
					t.Fatalf("request %d: %+v", r.Kind, a)
				}
			}
			if i == 100 { // it commits at last
				u.do(&raid.DiskRequest{Vol: 1, Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: n, Touch: n})
			}
			if _, err := u.d.Background(1); err != nil {
				t.Fatal(err)
			}
			out = u.do(&raid.DiskRequest{Vol: 2, Kind: raid.ReqVerify, Epoch: 1})
		}
		t.Fatalf("request %d is not answered", r.Kind)
		return 0
	}
	commit := func(n raid.Seq) {
		u.do(&raid.DiskRequest{Vol: 1, Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: n, Touch: n})
	}
	n := want(raid.RepShards, &raid.DiskRequest{Kind: raid.ReqShards, Shards: refs}, 1)
	commit(n)
	u.do(&raid.DiskRequest{Vol: 3, Kind: raid.ReqFence, Epoch: 1})
	u.do(&raid.DiskRequest{Vol: 3, Kind: raid.ReqStart, Epoch: 1, Stream: 1})
	commit(want(raid.RepWiped, &raid.DiskRequest{Kind: raid.ReqWipe, Epoch: 1, Stream: 1}, n+1))
	u.do(&raid.DiskRequest{Vol: 3, Kind: raid.ReqShards, Epoch: 1, Shards: refs[:1]})
	dev.Crash()
	open()
	if used := u.d.Status().RegionsUsed; used != 4+1+1 {
		t.Errorf("%d regions are in use", used)
	}
}
