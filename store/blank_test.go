package store_test

import (
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// TestABlankDiskIsTakenBack: a disk comes back empty, or from before the volume was made, under its own name. It says that it is damaged,
// is wiped, and from then on holds the shards that Raft says it has.
func TestABlankDiskIsTakenBack(t *testing.T) {
	for _, atOnce := range []int{0, 1} {
		u := newUser(t, disktest.New(64<<20, 1), 8<<20)
		u.d, _ = store.Open(u.dev, store.Config{CacheBytes: 1, AtOnce: atOnce})
		u.do(&raid.DiskRequest{Kind: raid.ReqShards, Epoch: 3, Since: 2, Shards: fourRegions})
		if rep, _ := u.takeover(7, 3, 2, []raid.HistRange{{From: 1, To: 2, End: 9}}, 9); !rep.Damaged {
			t.Fatalf("a disk without its shards: %+v", rep)
		}
		wiped := false
		for _, r := range u.do(&raid.DiskRequest{Kind: raid.ReqWipe, Epoch: 3, Stream: 1, ID: 5, Shards: fourRegions}) {
			wiped = wiped || r.Kind == raid.RepWiped
		}
		for range 100 {
			more, err := u.d.Background(0)
			if err != nil {
				t.Fatal(err)
			}
			for u.d.SyncWanted() {
				j := u.d.BeginSync()
				for _, r := range u.d.EndSync(j, j.Run()) {
					wiped = wiped || r.Kind == raid.RepWiped
				}
			}
			if !more && wiped {
				break
			}
		}
		if !wiped {
			t.Fatal("the Wipe is not answered")
		}
		out := u.do(&raid.DiskRequest{Kind: raid.ReqFill, Epoch: 3, Stream: 1, ID: 6, S: 9, R: 9, Gen: 1, Last: true,
			Blocks: []raid.Block{{Gen: 1, No: 2, Data: make([]byte, raid.BlockBytes)}}})
		if len(out) == 0 || out[0].Kind != raid.RepFilled {
			t.Fatalf("a Fill after the Wipe: %+v", out)
		}
		u.dev.(*disktest.Device).Crash()
		u.open()
		if rep, _ := u.takeover(7, 4, 3, []raid.HistRange{{From: 1, To: 3, End: 9}}, 9); rep.Damaged || rep.Base != 9 {
			t.Fatalf("after all that: %+v", rep)
		}
		if rep, err := store.Check(u.dev, nil); err != nil || len(rep.Damage) != 0 || rep.Shards != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
}
