package disktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"clade/raid"
	"clade/store"
)

// Crasher is a device that can lose power.
type Crasher interface {
	store.Device
	Crash()
}

// History is one random life of a disk: owners that keep the rules of A.4 use it, its power fails, and whatever it says or returns
// is compared with the plainest possible model. It depends on nothing but its fields and the device.
type History struct {
	Dev     store.Device
	Seed    uint64
	Volumes int
	Crashes bool // power cuts now and then; Dev must be a Crasher

	rng    *rand.Rand
	disk   *store.Disk
	vols   []*volume
	job    *store.SyncJob
	now    int64
	id     uint64
	waits  map[uint64]func(*raid.DiskReply) error
	boot   byte
	Trace  func(format string, args ...any) // nil: silent
	Counts map[string]int
}

const diskID raid.DiskID = 7

// ID is the identity that histories give their disks.
var ID = store.Identity{Cluster: [16]byte{1}, UUID: [16]byte{2}, Disk: diskID, AttachGen: 1}

func (h *History) log(format string, args ...any) {
	if h.Trace != nil {
		h.Trace(format, args...)
	}
}

// Start formats the device and makes the volumes.
func (h *History) Start(opt store.FormatOptions) error {
	h.rng = rand.New(rand.NewPCG(h.Seed, 0x4157))
	h.Counts = map[string]int{}
	if err := store.Format(h.Dev, ID, opt); err != nil {
		return err
	}
	for i := range h.Volumes {
		h.vols = append(h.vols, newVolume(raid.VolumeID(i+1), 3, 2))
	}
	return h.open()
}

// open opens the disk, asks for every volume's shards, and lets new owners take over.
func (h *History) open() error {
	h.boot++
	h.waits, h.job = map[uint64]func(*raid.DiskReply) error{}, nil
	d, err := store.Open(h.Dev, store.Config{Node: 1, BootID: raid.BootID{h.boot}, CacheBytes: 64 << 10, AtOnce: 1 + 9*int(h.Seed%2)})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	h.disk = d
	for _, v := range h.vols {
		if err := h.send(v, &raid.DiskRequest{Kind: raid.ReqShards, Shards: v.shards(), Since: v.since}, func(r *raid.DiskReply) error {
			return expect(r, raid.RepShards)
		}); err != nil {
			return err
		}
	}
	if err := h.settle(); err != nil {
		return err
	}
	for _, v := range h.vols {
		if err := h.takeover(v); err != nil {
			return err
		}
	}
	return h.settle()
}

func expect(r *raid.DiskReply, kind raid.ReplyKind) error {
	if r.Kind != kind {
		return fmt.Errorf("volume %d: answer %d (nack %d %q, fence %d, end %d) instead of %d", r.Vol, r.Kind, r.Nack, r.Err, r.Fence, r.EndSeq, kind)
	}
	return nil
}

// send hands one request over and takes what is answered at once.
func (h *History) send(v *volume, r *raid.DiskRequest, then func(*raid.DiskReply) error) error {
	h.id++
	r.Vol, r.Disk, r.Epoch, r.ID, r.From = v.id, diskID, v.epoch, h.id, 1
	if r.Kind != raid.ReqFence && r.Kind != raid.ReqShards {
		r.Stream = v.stream
	}
	if then != nil {
		h.waits[r.ID] = then
	}
	h.now += 100_000
	return h.take(h.disk.Step(h.now, []*raid.DiskRequest{r}))
}

func (h *History) take(replies []raid.DiskReply) error {
	for i := range replies {
		r := &replies[i]
		if h.disk.Failed() != nil {
			return h.disk.Failed()
		}
		if r.Kind == raid.RepAck {
			if err := h.acked(r); err != nil {
				return err
			}
			continue
		}
		then := h.waits[r.ID]
		if then == nil {
			return fmt.Errorf("unasked answer %d to %d of volume %d (nack %d %q end %d)", r.Kind, r.ID, r.Vol, r.Nack, r.Err, r.EndSeq)
		}
		delete(h.waits, r.ID)
		if err := then(r); err != nil {
			return err
		}
	}
	return nil
}

func (h *History) acked(r *raid.DiskReply) error {
	v := h.vols[r.Vol-1]
	if r.Epoch != v.epoch || r.Stream != v.stream {
		return nil // of a former stream
	}
	if r.Commit > v.commit {
		return fmt.Errorf("volume %d: durable commit %d, but the owner's is %d", v.id, r.Commit, v.commit)
	}
	newest := v.base
	if n := len(v.sent); n > 0 {
		newest = max(newest, v.sent[n-1].Seq)
	}
	if r.Seq > max(newest, v.based, v.prev) {
		return fmt.Errorf("volume %d: acknowledges %d, sent was %d", v.id, r.Seq, newest)
	}
	v.acked, v.told = max(v.acked, r.Seq), max(v.told, r.Commit)
	if v.phase == catching {
		h.catchUp(v)
	}
	return nil
}

// sync makes everything durable that was asked for: job begun, or a new one.
func (h *History) sync() error {
	if h.job == nil {
		if !h.disk.SyncWanted() {
			return nil
		}
		h.job = h.disk.BeginSync()
	}
	job := h.job
	h.job = nil
	if !job.Group() || h.rng.IntN(2) == 0 {
		return h.take(h.disk.EndSync(job, job.Run()))
	}
	replies, _ := h.disk.EndSyncNow(job, job.Run()) // what is left is done by whatever comes next
	return h.take(replies)
}

// settle syncs until nothing is left to sync.
func (h *History) settle() error {
	for range 1000 {
		if h.disk.Failed() != nil {
			return h.disk.Failed()
		}
		if h.job == nil && !h.disk.SyncWanted() {
			if len(h.waits) == 0 {
				return nil
			}
			waits := len(h.waits)
			more, err := h.disk.Background(h.now)
			if err != nil {
				return err
			}
			if err := h.take(h.disk.Step(h.now, nil)); err != nil {
				return err
			}
			if !more && !h.disk.SyncWanted() && len(h.waits) == waits {
				return nil // what is not answered now never is: its stream has ended
			}
		}
		if err := h.sync(); err != nil {
			return err
		}
	}
	return fmt.Errorf("the disk wants syncs for ever")
}

// Step does one random thing.
func (h *History) Step() error {
	if h.disk.Failed() != nil {
		return h.disk.Failed()
	}
	v := h.vols[h.rng.IntN(len(h.vols))]
	switch n := h.rng.IntN(100); {
	case n < 30:
		return h.write(v)
	case n < 45:
		return h.commit(v)
	case n < 54:
		return h.read(v)
	case n < 66:
		return h.syncSome()
	case n < 75:
		return h.background()
	case n < 81:
		return h.repair(v)
	case n < 83:
		return h.restream(v)
	case n < 84:
		return h.takeoverSettled(v)
	case n < 96:
		return h.resync(v)
	case n < 98:
		return h.regions(v)
	default:
		return h.restart()
	}
}

func (h *History) syncSome() error {
	if h.job == nil && h.disk.SyncWanted() && h.rng.IntN(2) == 0 {
		h.job = h.disk.BeginSync() // finished by a later call: the disk goes on meanwhile
		return h.disk.Failed()
	}
	return h.sync()
}

func (h *History) background() error {
	h.now += int64(h.rng.IntN(3)) * 1_500_000_000
	for range 1 + h.rng.IntN(4) {
		more, err := h.disk.Background(h.now)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	return nil
}

// restart closes the disk, or cuts the power, and opens it again.
func (h *History) restart() error {
	if !h.Crashes || h.rng.IntN(4) > 0 {
		return nil
	}
	h.Counts["crash"]++
	h.log("crash")
	h.Dev.(Crasher).Crash()
	return h.open()
}

// Reopen opens the disk after a crash that came from outside, and checks everything.
func (h *History) Reopen() error {
	h.log("reopen")
	if err := h.open(); err != nil {
		return err
	}
	return h.Verify()
}

// Close lets everything become durable; the device stays open.
func (h *History) Close() error { return h.settle() }

// Verify reads every block of every volume that is in sync and compares it.
func (h *History) Verify() error {
	if err := h.settle(); err != nil {
		return err
	}
	for _, v := range h.vols {
		if err := h.regions(v); err != nil {
			return err
		}
		for x, n := range v.regions {
			for r := range n {
				if err := h.readRange(v, uint32(x), r*raid.BlocksPerRegion, raid.BlocksPerRegion); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *History) read(v *volume) error {
	x := uint32(h.rng.IntN(len(v.regions)))
	r := uint32(h.rng.IntN(int(v.regions[x])))
	first := uint32(h.rng.IntN(40))
	return h.readRange(v, x, r*raid.BlocksPerRegion+first, uint32(1+h.rng.IntN(40)))
}

func (h *History) readRange(v *volume, x, first, n uint32) error {
	if v.phase != inSync {
		return nil
	}
	s := v.commit
	h.Counts["read"]++
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqRead, S: s, Touch: v.touch(s), Extent: x, Gen: v.gen, First: first, Count: n}, func(rep *raid.DiskReply) error {
		if err := expect(rep, raid.RepRead); err != nil {
			return err
		}
		if rep.R > s || len(rep.Blocks) != int(n) {
			return fmt.Errorf("volume %d: read as of %d: r = %d, %d blocks", v.id, s, rep.R, len(rep.Blocks))
		}
		for i, b := range rep.Blocks {
			p := place{x, first + uint32(i)}
			want := v.at(p, s)
			if want == nil {
				want = make([]byte, raid.BlockBytes)
			}
			if !bytes.Equal(b, want) {
				return fmt.Errorf("volume %d extent %d block %d as of %d (end %d): %s", v.id, x, p.no, s, v.next-1, v.whose(p, b))
			}
		}
		return nil
	})
}

// regions asks when each region changed last: nothing newer may be forgotten (B: C16).
func (h *History) regions(v *volume) error {
	if v.phase != inSync {
		return nil
	}
	s := v.commit
	newest := map[regionAt]raid.Seq{}
	for p, list := range v.truth {
		for _, x := range list {
			if x.seq <= s {
				newest[p.region()] = max(newest[p.region()], x.seq)
			}
		}
	}
	for x, n := range v.regions {
		err := h.send(v, &raid.DiskRequest{Kind: raid.ReqRegions, S: s, Touch: v.touch(s), Extent: uint32(x), Gen: v.gen}, func(rep *raid.DiskReply) error {
			if err := expect(rep, raid.RepRegions); err != nil {
				return err
			}
			if len(rep.Regions) != int(n) {
				return fmt.Errorf("volume %d extent %d: %d regions instead of %d", v.id, x, len(rep.Regions), n)
			}
			for i, seq := range rep.Regions {
				if want := newest[regionAt{uint32(x), uint32(i)}]; seq < want || seq > s {
					return fmt.Errorf("volume %d extent %d region %d changed at %d, it says %d (as of %d)", v.id, x, i, want, seq, s)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// whose describes wrong bytes: which version they are.
func (v *volume) whose(p place, b []byte) string {
	out := fmt.Sprintf("versions %v; got ", seqs(v.truth[p]))
	switch {
	case b == nil:
		return out + "BadBlock"
	case bytes.Equal(b, make([]byte, len(b))):
		return out + "zeros"
	}
	for _, x := range v.truth[p] {
		if bytes.Equal(b, x.data) {
			return out + fmt.Sprint("as of ", x.seq)
		}
	}
	return out + "something else"
}

func seqs(list []version) []raid.Seq {
	var out []raid.Seq
	for _, x := range list {
		out = append(out, x.seq)
	}
	return out
}
