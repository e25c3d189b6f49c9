package store_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// touched is a device that counts what somebody has to wait for.
type touched struct {
	*disktest.Device
	n int
}

func (d *touched) ReadAt(p []byte, off int64) (int, error)  { d.n++; return d.Device.ReadAt(p, off) }
func (d *touched) WriteAt(p []byte, off int64) (int, error) { d.n++; return d.Device.WriteAt(p, off) }
func (d *touched) Sync() error                              { d.n++; return d.Device.Sync() }
func (d *touched) WriteThrough(p []byte, off int64) (int, error) {
	d.n++
	return d.Device.WriteThrough(p, off)
}

const nowRegions = 6

// nowDisk is a disk with one volume in an epoch, and the end of its chain.
type nowDisk struct {
	dev *touched
	*store.Disk
}

func newNowDisk(t *testing.T) *nowDisk {
	t.Helper()
	u := &nowDisk{dev: &touched{Device: disktest.New(64<<20, 1)}}
	if err := store.Format(u.dev, store.Identity{UUID: [16]byte{2}, Disk: 3}, store.FormatOptions{JournalBytes: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	var err error
	if u.Disk, err = store.Open(u.dev, store.Config{CacheBytes: 4096}); err != nil {
		t.Fatal(err)
	}
	shards := []raid.ShardRef{{Gen: 1, Regions: nowRegions}}
	for _, r := range []*raid.DiskRequest{
		{Kind: raid.ReqShards, Shards: shards}, {Kind: raid.ReqFence, Epoch: 1, Shards: shards}, {Kind: raid.ReqStart, Epoch: 1, Stream: 1},
	} {
		r.Vol, r.Disk = 7, 3
		u.Step(0, []*raid.DiskRequest{r})
		u.sync()
	}
	return u
}

func (u *nowDisk) sync() []raid.DiskReply {
	var out []raid.DiskReply
	for u.SyncWanted() {
		j := u.BeginSync()
		out = append(out, u.EndSync(j, j.Run())...)
	}
	return out
}

// nowRequests makes requests such as an owner sends, one history by seed.
func nowRequests(rng *rand.Rand, n int) []*raid.DiskRequest {
	var out []*raid.DiskRequest
	seq := raid.Seq(0)
	for len(out) < n {
		r := &raid.DiskRequest{Vol: 7, Disk: 3, From: 1, Epoch: 1, Stream: 1, ID: uint64(len(out))}
		switch x := rng.IntN(20); {
		case x < 9:
			r.Kind = raid.ReqPrepare
			r.Rec = &raid.Record{Epoch: 1, Seq: seq + 1, Prev: seq, BID: uint64(seq + 1), Parts: raid.DiskSet{3}}
			for range rng.IntN(60) + 1 {
				b := make([]byte, raid.BlockBytes)
				b[0], b[1] = byte(seq), byte(rng.IntN(256))
				r.Rec.Blocks = append(r.Rec.Blocks, raid.Block{Gen: 1, No: uint32(rng.IntN(nowRegions * raid.BlocksPerRegion)), Data: b})
			}
			r.Commit, r.Touch = seq-min(seq, 3), seq-min(seq, 3)
			seq++
		case x < 11:
			r.Kind, r.Commit, r.Touch = raid.ReqCommit, seq, seq
		case x == 11:
			r.Kind = raid.ReqVerify
		case x == 12: // the chain does not fit
			r.Kind = raid.ReqPrepare
			r.Rec = &raid.Record{Epoch: 1, Seq: seq + 5, Prev: seq + 4, BID: 1, Parts: raid.DiskSet{3}, Blocks: []raid.Block{{Gen: 1, Data: make([]byte, raid.BlockBytes)}}}
		case x == 13: // there is no such extent
			r.Kind, r.Extent, r.Gen, r.Count = raid.ReqRead, 9, 1, 1
		default:
			r.Kind, r.Gen, r.S = raid.ReqRead, 1, seq
			r.First = uint32(rng.IntN(nowRegions * raid.BlocksPerRegion))
			r.Count = uint32(rng.IntN(int(raid.BlocksPerRegion-r.First%raid.BlocksPerRegion))) + 1
			if rng.IntN(2) == 0 {
				r.Count = 1
			}
		}
		out = append(out, r)
	}
	return out
}

// TestStepNowIsStep gives one history to two disks, to one of them at once where that is possible: the answers must be the same, in the same order, and
// the device not be touched.
func TestStepNowIsStep(t *testing.T) {
	at, all := 0, 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		slow, quick := newNowDisk(t), newNowDisk(t)
		reqs := nowRequests(rng, 400)
		for now := int64(1); len(reqs) > 0; now += 1_000_000 {
			n := min(rng.IntN(4)+1, len(reqs))
			want := slow.Step(now, reqs[:n])
			before := quick.dev.n
			got, done := quick.StepNow(now, reqs[:n])
			if quick.dev.n != before {
				t.Fatalf("seed %d: StepNow has touched the device %d times", seed, quick.dev.n-before)
			}
			at, all = at+done, all+n
			got = append(got, quick.Step(now, reqs[done:n])...)
			if rng.IntN(3) == 0 {
				want, got = append(want, slow.sync()...), append(got, quick.sync()...)
			}
			if rng.IntN(8) == 0 {
				for _, d := range []*nowDisk{slow, quick} {
					if _, err := d.Background(now); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !reflect.DeepEqual(clearEmpty(want), clearEmpty(got)) {
				t.Fatalf("seed %d at %d:\n%s\n%s", seed, now, brief(want), brief(got))
			}
			reqs = reqs[n:]
		}
	}
	if at < all/2 || at > all*95/100 {
		t.Errorf("%d of %d requests were executed at once: one of the two ways is hardly tried", at, all)
	}
}

func clearEmpty(rs []raid.DiskReply) []raid.DiskReply {
	if len(rs) == 0 {
		return nil
	}
	return rs
}

func brief(rs []raid.DiskReply) string {
	s := ""
	for i := range rs {
		s += fmt.Sprintf("%d:%d/%d ", rs[i].ID, rs[i].Kind, rs[i].Seq)
	}
	return s
}
