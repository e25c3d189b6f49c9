package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// raidBytes is what an owner counts of a record of so many blocks against its quota.
func raidBytes(blocks int) int { return blocks*(raid.BlockBytes+64) + 256 }

// useUp sends records that nobody commits until a quota is used up as an owner does it, at least one, and returns the last.
func (u *user) useUp(vol raid.VolumeID, quota, blocks int) raid.Seq {
	u.t.Helper()
	return u.useUpIn(1, vol, quota, blocks)
}

func (u *user) useUpIn(e raid.Epoch, vol raid.VolumeID, quota, blocks int) raid.Seq {
	u.t.Helper()
	n := raid.Seq(0)
	for used := 0; n == 0 || used+raidBytes(blocks) <= quota; used += raidBytes(blocks) {
		n++
		var nos []uint32
		for i := range uint32(blocks) {
			nos = append(nos, (uint32(n)+i)%raid.BlocksPerRegion)
		}
		acked := false
		for _, r := range u.prepare(vol, 0, 0, rec(e, n, n-1, nos...)) {
			if r.Kind == raid.RepNack {
				u.t.Fatalf("volume %d seq %d, %d of a quota of %d bytes used: %+v", vol, n, used, quota, r)
			}
			acked = acked || r.Kind == raid.RepAck && r.Vol == vol && r.Seq == n
		}
		if !acked {
			u.t.Fatalf("volume %d seq %d is not acknowledged", vol, n)
		}
	}
	return n
}

// Volumes come one after the other, and each uses up the quota that it was told: nothing is ever refused, and a further volume that
// commits goes on (A.3 Shared log). An owner drops a disk that refuses.
func TestQuotasInSum(t *testing.T) {
	for _, c := range []struct {
		journal int64
		vols    int
		blocks  int
	}{{8 << 20, 40, 1}, {8 << 20, 20, 3}, {20 << 20, 12, 8}, {20 << 20, 100, 1}} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%dMiB/%dx%d/%v", c.journal>>20, c.vols, c.blocks, before), func(t *testing.T) {
				dev := disktest.New(512<<20, 1)
				u := newUser(t, dev, c.journal)
				quota := map[raid.VolumeID]int{}
				begin := func(v raid.VolumeID) {
					quota[v] = int(u.begin(v, 1, 1))
				}
				last := raid.VolumeID(c.vols + 1)
				if before { // all are told before any of them uses it
					for v := raid.VolumeID(1); v <= last; v++ {
						begin(v)
					}
				}
				sum := 0
				for v := raid.VolumeID(1); v < last; v++ {
					if !before {
						begin(v)
					}
					sum += quota[v]
					u.useUp(v, quota[v], c.blocks)
				}
				if !before {
					begin(last)
				}
				for n := raid.Seq(1); n <= 700; n++ {
					for _, r := range u.prepare(last, n-1, n-1, rec(1, n, n-1, uint32(n)%raid.BlocksPerRegion)) {
						if r.Kind == raid.RepNack {
							t.Fatalf("a volume that commits, seq %d: %+v", n, r)
						}
					}
				}
				t.Logf("quotas of %d KiB in sum, journal %d KiB", sum>>10, c.journal>>10)
				dev.Crash()
				var err error
				if u.d, err = store.Open(dev, store.Config{}); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// begin starts a volume with one region in an epoch and stream and returns what it is told.
func (u *user) begin(v raid.VolumeID, e raid.Epoch, sigma raid.Stream) uint64 {
	u.t.Helper()
	shards := []raid.ShardRef{{Gen: 1, Regions: 1}}
	u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqShards, Shards: shards, Since: e - 1})
	u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqFence, Epoch: e, Shards: shards})
	hist := []raid.HistRange{{From: 1, To: e - 1}}
	for _, r := range u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqStart, Epoch: e, Stream: sigma, Hist: hist}) {
		if r.Kind == raid.RepStarted && r.Vol == v && !r.Damaged && r.Quota > 0 {
			return r.Quota
		}
	}
	u.t.Fatalf("volume %d epoch %d stream %d is not started", v, e, sigma)
	return 0
}

// Whatever the order in which volumes come, are told, are told again in the same epoch and in later ones, and go, and the disk is
// opened again: what their owners may have sent on credit is in sum less than the journal can hold back. In one epoch that is the most
// that was told in it.
func TestQuotaSum(t *testing.T) {
	type owner struct {
		epoch raid.Epoch
		sigma raid.Stream
		owed  uint64
	}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 5))
		dev := disktest.New(700<<20, seed)
		u := newUser(t, dev, 16<<20)
		limit := uint64(store.PinnedMaxOf(16 << 20))
		most, next := uint64(0), raid.VolumeID(0)
		vols := map[raid.VolumeID]*owner{}
		var ids []raid.VolumeID
		tell := func(v raid.VolumeID, anew bool) {
			o := vols[v]
			if o.sigma++; anew {
				o.epoch, o.sigma = o.epoch+1, 1
			}
			q := u.begin(v, o.epoch, o.sigma)
			if o.owed = max(o.owed, q); anew {
				o.owed = q
			}
		}
		for range 400 {
			switch n := rng.IntN(100); {
			case n < 35+int(seed%3)*10 || len(ids) == 0:
				next++
				vols[next] = &owner{}
				ids = append(ids, next)
				tell(next, true)
			case n < 75:
				tell(ids[rng.IntN(len(ids))], n%2 == 0)
			case n < 95: // of three the one with least: the worst that can happen is that those with much stay
				at := rng.IntN(len(ids))
				for range 2 {
					if k := rng.IntN(len(ids)); vols[ids[k]].owed < vols[ids[at]].owed {
						at = k
					}
				}
				u.do(&raid.DiskRequest{Vol: ids[at], Kind: raid.ReqShards})
				delete(vols, ids[at])
				ids = slices.Delete(ids, at, at+1)
			case n < 98:
				dev.Crash()
				u.open()
			default:
				u.quiesce()
				u.open()
			}
			sum := uint64(0)
			for _, o := range vols {
				sum += o.owed
			}
			if most = max(most, sum); sum > limit {
				t.Fatalf("seed %d: %d volumes may have sent %d bytes, at most %d", seed, len(vols), sum, limit)
			}
		}
		t.Logf("%d volumes in the end, at most %d of %d KiB", len(ids), most>>10, limit>>10)
	}
}

// A disk with few volumes gives them most of its room; those that came late have their share when they are started again.
func TestQuotaOfFewVolumes(t *testing.T) {
	for _, journal := range []int64{8 << 20, 64 << 20} {
		limit := uint64(store.PinnedMaxOf(journal))
		u := newUser(t, disktest.New(400<<20, 1), journal)
		var last []uint64
		for e := raid.Epoch(1); e <= 4; e++ {
			last = nil
			sum := uint64(0)
			for v := raid.VolumeID(1); v <= 4; v++ {
				q := u.begin(v, e, 1)
				if e == 1 && v == 1 && q < limit*3/10 {
					t.Errorf("journal of %d MiB: the only volume is told %d of %d", journal>>20, q, limit)
				}
				last = append(last, q)
				sum += q
			}
			t.Logf("journal of %d MiB, epoch %d: %d KiB of %d", journal>>20, e, kib(last), limit>>10)
			if sum < limit/2 {
				t.Errorf("journal of %d MiB: four volumes are told %d of %d", journal>>20, sum, limit)
			}
		}
		if slices.Min(last) < limit/8 {
			t.Errorf("journal of %d MiB: the poorest of four has %d of %d", journal>>20, slices.Min(last), limit)
		}
		for v := raid.VolumeID(2); v <= 4; v++ { // what they had is the other's
			u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqShards})
		}
		if q := u.begin(1, 4, 2); q < limit/4 {
			t.Errorf("journal of %d MiB: the only volume that is left is told %d of %d", journal>>20, q, limit)
		}
	}
}

func kib(list []uint64) (out []uint64) {
	for _, n := range list {
		out = append(out, n>>10)
	}
	return out
}

// What was told in an epoch stands in that epoch, whatever else came since: the owner has used it up, and the disk was opened again.
// Then the others use up theirs, are started in new epochs, and use up what they were told now. Nothing is refused.
func TestQuotaUsedUpBeforeRestart(t *testing.T) {
	for _, blocks := range []int{1, 3} {
		dev := disktest.New(512<<20, 1)
		u := newUser(t, dev, 8<<20)
		quota := u.begin(1, 1, 1)
		u.useUp(1, int(quota), blocks)
		const others = 10
		for e := raid.Epoch(1); e <= 4; e++ {
			dev.Crash()
			u.open()
			for v := raid.VolumeID(2); v < 2+others; v++ {
				u.useUpIn(e, v, int(u.begin(v, e, 1)), blocks)
			}
		}
		if q := u.begin(1, 1, 2); q < quota*9/10 { // a base may be less
			t.Errorf("%d bytes were told, and now %d in the same epoch", quota, q)
		}
		for n := raid.Seq(1); n <= 700; n++ {
			if n == 1 {
				u.begin(99, 1, 1)
			}
			for _, r := range u.prepare(99, n-1, n-1, rec(1, n, n-1, uint32(n)%raid.BlocksPerRegion)) {
				if r.Kind == raid.RepNack {
					t.Fatalf("a volume that commits, seq %d: %+v", n, r)
				}
			}
		}
	}
}
