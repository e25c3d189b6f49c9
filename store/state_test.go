package store_test

import (
	"strings"
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// More volumes and shards than a checkpoint can hold are refused; those that are there go on, and what goes makes room.
func TestStateFull(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(1)
	refused := func(r *raid.DiskRequest) bool {
		t.Helper()
		for _, a := range u.send(r) {
			if a.Kind == raid.RepNack {
				if a.Nack != raid.NackRefused || !strings.Contains(a.Err, "no room") {
					t.Fatalf("%+v", a)
				}
				return true
			}
		}
		return false
	}
	last := raid.VolumeID(0)
	for v := raid.VolumeID(2); last == 0; v++ {
		if v > 20000 {
			t.Fatal("no end of volumes")
		}
		if refused(&raid.DiskRequest{Vol: v, Kind: raid.ReqShards, Since: 1, Shards: fourRegions}) {
			last = v - 1
		}
	}
	t.Logf("%d volumes", last)
	for n := raid.Seq(1); n <= 400; n++ { // records that nobody commits take room in the checkpoint, too
		u.prepare(1, 0, 0, rec(1, n, n-1, uint32(n)))
	}
	u.quiesce()
	if err := u.d.Failed(); err != nil {
		t.Fatal(err)
	}
	one := []raid.ShardRef{{Gen: 1, Regions: 1}}
	if !refused(&raid.DiskRequest{Vol: last + 1, Kind: raid.ReqShards, Shards: one}) {
		t.Error("a new volume's shard is not refused")
	}
	dev.Crash()
	u.open()
	u.do(&raid.DiskRequest{Vol: 2, Kind: raid.ReqShards})
	u.do(&raid.DiskRequest{Vol: 3, Kind: raid.ReqShards})
	if refused(&raid.DiskRequest{Vol: last + 1, Kind: raid.ReqShards, Shards: one}) {
		t.Error("there is room again, but not for a new volume")
	}
	u.quiesce()
	if err := u.d.Failed(); err != nil {
		t.Fatal(err)
	}
	rep, _ := u.takeover(1, 2, 1, []raid.HistRange{{From: 1, To: 1, End: 400}}, 400)
	if rep.EndSeq != 400 || rep.Damaged {
		t.Fatalf("%+v", rep)
	}
}

// However a disk is laid out, its checkpoints hold what DESIGN section 6 asks for, and a shard for every 32 MiB.
func TestStateRoom(t *testing.T) {
	for _, c := range []struct{ disk, journal int64 }{
		{32 << 20, 8 << 20}, {400 << 20, 64 << 20}, {1 << 30, 256 << 20}, {4 << 30, 1 << 30}, {1 << 40, 0}, {100 << 40, 0},
	} {
		dev := disktest.New(c.disk, 1)
		if err := store.Format(dev, store.Identity{}, store.FormatOptions{JournalBytes: c.journal}); err != nil {
			t.Fatal(err)
		}
		volumes, shards, err := store.StateRoom(dev)
		t.Logf("disk of %d MiB: %d volumes or %d shards", c.disk>>20, volumes, shards)
		if err != nil || volumes < 256 || shards < uint64(c.disk>>25) {
			t.Errorf("disk of %d MiB, journal %d MiB: %d volumes or %d shards: %v", c.disk>>20, c.journal>>20, volumes, shards, err)
		}
	}
}
