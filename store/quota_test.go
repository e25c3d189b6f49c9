package store_test

import (
	"fmt"
	"math/rand/v2"
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
	n := raid.Seq(0)
	for used := 0; n == 0 || used+raidBytes(blocks) <= quota; used += raidBytes(blocks) {
		n++
		var nos []uint32
		for i := range uint32(blocks) {
			nos = append(nos, (uint32(n)+i)%raid.BlocksPerRegion)
		}
		acked := false
		for _, r := range u.prepare(vol, 0, 0, rec(1, n, n-1, nos...)) {
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
					shards := []raid.ShardRef{{Gen: 1, Regions: 1}}
					u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqShards, Shards: shards})
					u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqFence, Epoch: 1, Shards: shards})
					out := u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqStart, Epoch: 1, Stream: 1})
					if len(out) != 1 || out[0].Kind != raid.RepStarted || out[0].Quota == 0 {
						t.Fatalf("volume %d: %+v", v, out)
					}
					quota[v] = int(out[0].Quota)
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

// Whatever the order in which volumes come, are told, and go: what was told to those that are there is in sum less than the journal
// can hold back.
func TestQuotaSum(t *testing.T) {
	for _, size := range []int64{8 << 20, 64 << 20, 1 << 30} {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 5))
			told := map[int]uint64{} // the most that each was told
			next := 0
			for range 20000 {
				if grow := rng.IntN(1000) < 520+int(seed%3)*100; grow || len(told) == 0 {
					next++
					told[next] = store.QuotaOf(size, len(told)+1)
				} else {
					victim, least := 0, uint64(1<<63)
					for v, q := range told { // the worst that can happen: those with much stay
						if q < least || q == least && v < victim {
							victim, least = v, q
						}
					}
					delete(told, victim)
				}
				if len(told) > 600 {
					break
				}
				sum := uint64(0)
				for _, q := range told {
					sum += q
				}
				if most := uint64(store.PinnedMaxOf(size)); sum > most {
					t.Fatalf("journal of %d: %d volumes were told %d bytes, at most %d", size, len(told), sum, most)
				}
			}
		}
	}
}
