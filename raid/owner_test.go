package raid_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	. "clade/raid"
	"clade/raid/raidtest"
)

// The owner is tested by seeded histories over model disks: delays, broken streams whose old messages still arrive, owners
// that die or go on as zombies after a takeover, disks that are lost and return, proposals that are late or duplicated.
// What initiators saw must be a possible history of each sector, and the parities must fit in the end.

const (
	ms     = int64(1_000_000)
	second = 1000 * ms
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this one history and print it")
	seedsFlag = flag.Int("seeds", 16, "histories to run")
)

type link struct {
	d       DiskID
	owner   *world
	reqs    []*DiskRequest
	replies []*DiskReply
	zombie  bool // the owner has given this connection up; requests may still arrive
}

// world is one owner incarnation and its connections.
type world struct {
	o     *Owner
	links map[DiskID]*link
	old   []*link
	dead  bool // the process is gone
	seen  int  // volume versions it has been told
	epoch Epoch
}

type op struct {
	id         uint64
	write      bool
	sector     uint64
	n          int
	start, end int // steps; end 0: open
	dropped    bool
	got        []uint64
}

type history struct {
	t        testing.TB
	rng      *rand.Rand
	verbose  bool
	step     int
	now      int64
	v        *Volume
	versions []*Volume
	disks    []*raidtest.Disk
	down     map[DiskID]bool
	worlds   []*world
	pending  []VolumeCommand
	ops      []*op
	byToken  map[uint64]*op
	sectors  uint64
	healthy  bool
	strict   bool // reads ask the disks, too
	garbling bool // answers arrive twice, or do not fit what was asked for
}

func newHistory(t testing.TB, seed uint64) *history {
	h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 1)), byToken: map[uint64]*op{}, down: map[DiskID]bool{}, verbose: *seedFlag != 0,
		strict: seed%4 == 0}
	shapes := []Layout{{1, 1, 4096}, {2, 1, 4096}, {2, 1, 65536}, {3, 2, 8192}, {4, 2, 4096}, {1, 2, 4096}, {2, 2, 4096}}
	l := shapes[h.rng.IntN(len(shapes))]
	v := &Volume{ID: 7, Layout: l, Size: uint64(l.K) * 2 * RegionBytes, Owner: 0}
	var all DiskSet
	for i := range l.Width() {
		d := DiskID(i + 1)
		all = all.With(d)
		h.disks = append(h.disks, raidtest.New(d))
		v.Members = append(v.Members, Member{Disk: d, InSync: true})
	}
	for range 2 {
		x := Extent{Regions: 1}
		for _, i := range h.rng.Perm(l.Width()) {
			x.Shards = append(x.Shards, Placement{Disk: all[i], Gen: 1})
		}
		v.Extents = append(v.Extents, x)
	}
	h.v = v
	h.versions = []*Volume{v}
	h.sectors = 96 // a few rows only: collisions are the point
	return h
}

func (h *history) logf(f string, a ...any) {
	if h.verbose {
		fmt.Printf("%6d %8.3f  %s\n", h.step, float64(h.now)/1e9, fmt.Sprintf(f, a...))
	}
}

func (h *history) disk(d DiskID) *raidtest.Disk { return h.disks[d-1] }

// takeover makes a new owner, whether or not the former one lives.
func (h *history) takeover() {
	v := h.v.Clone()
	v.Epoch++
	v.Owner, v.OwnerTerm, v.Active = NodeID(v.Epoch), 1, false
	v.Ver++
	h.set(v)
	w := &world{links: map[DiskID]*link{}}
	w.o = NewOwner(OwnerConfig{Node: v.Owner, Strict: h.strict, Seed: h.rng.Uint64(), CacheBytes: 1 << 18, ResyncWindow: 2, AckTimeoutNs: second}, v, h.now)
	w.seen, w.epoch = len(h.versions), v.Epoch
	h.worlds = append(h.worlds, w)
	h.logf("takeover: epoch %d", v.Epoch)
	var alive DiskSet
	for _, m := range h.disks {
		if !h.down[m.ID()] {
			alive = alive.With(m.ID())
			h.connect(w, m.ID())
		}
	}
	w.o.NodeAlive(h.now, alive)
	h.drain(w)
}

func (h *history) set(v *Volume) {
	if len(v.InSync()) < len(h.disks) { // a latent error and a lost disk at once is more than m=1 survives
		for _, m := range h.disks {
			m.Mend()
		}
	}
	h.v = v
	h.versions = append(h.versions, v)
}

func (h *history) current() *world {
	if len(h.worlds) == 0 {
		return nil
	}
	return h.worlds[len(h.worlds)-1]
}

func (h *history) connect(w *world, d DiskID) {
	w.links[d] = &link{d: d, owner: w}
	w.o.Connected(h.now, d, true)
}

func (h *history) disconnect(w *world, d DiskID) {
	l := w.links[d]
	if l == nil {
		return
	}
	l.zombie, l.replies = true, nil
	w.old = append(w.old, l)
	delete(w.links, d)
	w.o.Connected(h.now, d, false)
	h.logf("epoch %d loses its stream to disk %d", w.epoch, d)
}

// drain moves an owner's effects out.
func (h *history) drain(w *world) {
	if w.dead {
		return
	}
	w.o.Tick(h.now)
	fx := w.o.Take()
	for _, r := range fx.Requests {
		if l := w.links[r.Disk]; l != nil {
			l.reqs = append(l.reqs, r)
		}
	}
	for _, c := range fx.Proposals {
		h.logf("epoch %d proposes %v disk %d f %v c0 %d end %d s %d ver %d", w.epoch, c.Kind, c.Disk, c.F, c.C0, c.End, c.S, c.Ver)
		h.pending = append(h.pending, c)
		if h.rng.IntN(10) == 0 {
			h.pending = append(h.pending, c)
		}
	}
	for _, e := range fx.Events {
		h.logf("epoch %d event %d disk %d %v %s", w.epoch, e.Kind, e.Disk, e.Disks, e.Text)
	}
	for _, d := range fx.Done {
		h.done(w, d)
	}
}

func (h *history) done(w *world, d Completion) {
	o := h.byToken[d.Token]
	delete(h.byToken, d.Token)
	if o == nil {
		h.t.Fatalf("token %d ended twice", d.Token)
	}
	switch d.Kind {
	case DoneDropped:
		o.dropped, o.end = true, h.step
	case DoneWrite:
		o.end = h.step
		h.logf("epoch %d ack write %d sector %d+%d", w.epoch, o.id, o.sector, o.n)
	case DoneRead:
		if w != h.current() && !h.strict { // its lease is over: a zombie's read is not answered
			o.dropped = true
			return
		}
		o.end = h.step
		var buf []byte
		for _, b := range d.Data {
			buf = append(buf, b...)
		}
		for i := range o.n {
			o.got = append(o.got, binary.LittleEndian.Uint64(buf[i*SectorBytes:]))
		}
		h.checkRead(o)
	case DoneUnreadable:
		if h.garbling {
			o.dropped, o.end = true, h.step
			return
		}
		h.t.Fatalf("epoch %d: sector %d unreadable", w.epoch, o.sector)
	}
}

// checkRead holds a read against what is known: its value was written, not dropped, not overwritten before the read began, and
// no earlier read had seen a newer one.
func (h *history) checkRead(r *op) {
	for i, id := range r.got {
		s := r.sector + uint64(i)
		w := h.writeOf(id, s)
		for _, x := range h.ops {
			if s < x.sector || s >= x.sector+uint64(x.n) || x == r || x.dropped {
				continue
			}
			switch {
			case x.write && x.end != 0 && x.end < r.start && after(x, w):
				h.t.Fatalf("read at step %d of sector %d gives write %d, overwritten by acknowledged write %d", h.step, s, id, x.id)
			case !x.write && x.end != 0 && x.end < r.start:
				if seen := h.writeOf(x.got[s-x.sector], s); seen != nil && seen != w && after(seen, w) {
					h.t.Fatalf("read at step %d of sector %d gives write %d after a read gave %d", h.step, s, id, seen.id)
				}
			}
		}
	}
}

// after reports whether x began after w had ended; w nil is the state before all writes.
func after(x, w *op) bool { return w == nil || w.end != 0 && w.end < x.start }

func (h *history) writeOf(id, sector uint64) *op {
	if id == 0 {
		return nil
	}
	w := h.ops[id-1]
	if !w.write || w.dropped || sector < w.sector || sector >= w.sector+uint64(w.n) {
		h.t.Fatalf("step %d: sector %d holds %d, which is no write of it that may have happened: %+v", h.step, sector, id, w)
	}
	return w
}

func (h *history) submit(w *world) {
	o := &op{id: uint64(len(h.ops) + 1), write: h.rng.IntN(3) > 0, start: h.step}
	o.n = 1 + h.rng.IntN(16)
	if h.rng.IntN(2) == 0 {
		o.n = 8
	}
	o.sector = uint64(h.rng.IntN(int(h.sectors) - o.n))
	if h.rng.IntN(2) == 0 {
		o.sector &^= 7
	}
	io := &IO{Token: o.id, Offset: h.offset(o.sector), Bytes: o.n * SectorBytes}
	if o.write && !w.o.Admitting() || !o.write && (!w.o.AdmittingReads() || w != h.current() && !h.strict) {
		return
	}
	if o.write {
		io.Data = make([]byte, io.Bytes)
		for i := range o.n {
			binary.LittleEndian.PutUint64(io.Data[i*SectorBytes:], o.id)
		}
	}
	h.ops = append(h.ops, o)
	h.byToken[o.id] = o
	if o.write {
		w.o.Write(h.now, io)
	} else {
		w.o.Read(h.now, io)
	}
	clear(io.Data)
}

// offset spreads the sectors over both extents.
func (h *history) offset(sector uint64) uint64 {
	half := h.sectors / 2
	mid := uint64(h.v.Layout.K) * RegionBytes
	return mid - half*SectorBytes + sector*SectorBytes
}

func (h *history) apply(c VolumeCommand) {
	v, err := h.v.Apply(c)
	h.logf("apply %v disk %d epoch %d ver %d: %v", c.Kind, c.Disk, c.Epoch, c.Ver, err)
	if err != nil {
		return
	}
	h.set(v)
}

// tell gives an owner the next volume version, in order.
func (h *history) tell(w *world) {
	if w.seen < len(h.versions) && !w.dead {
		w.o.SetVolume(h.now, h.versions[w.seen])
		w.seen++
	}
}

func (h *history) stepOnce() {
	h.step++
	h.now += int64(h.rng.IntN(int(4 * ms)))
	w := h.worlds[h.rng.IntN(len(h.worlds))]
	if h.rng.IntN(4) > 0 {
		w = h.current()
	}
	switch n := h.rng.IntN(100); {
	case n < 30:
		for range h.rng.IntN(6) {
			h.submit(w)
		}
	case n < 80:
		h.deliver(w)
	case n < 88:
		h.disks[h.rng.IntN(len(h.disks))].ApplyOne()
	case n < 94:
		if len(h.pending) > 0 {
			i := h.rng.IntN(len(h.pending))
			c := h.pending[i]
			h.pending = slices.Delete(h.pending, i, i+1)
			h.apply(c)
		}
	default:
		h.tell(w)
	}
	if !h.healthy {
		h.fault(w)
	}
	h.drain(w)
}

func (h *history) deliver(w *world) {
	m := h.disks[h.rng.IntN(len(h.disks))]
	l := w.links[m.ID()]
	if len(w.old) > 0 && h.rng.IntN(5) == 0 {
		l = w.old[h.rng.IntN(len(w.old))]
	}
	if l == nil || h.down[l.d] {
		return
	}
	for range 1 + h.rng.IntN(4) {
		if len(l.reqs) > 0 {
			r := l.reqs[0]
			l.reqs = l.reqs[1:]
			if rep := h.disk(l.d).Handle(r); rep != nil && !l.zombie {
				l.replies = append(l.replies, rep)
			}
		}
	}
	for range 1 + h.rng.IntN(4) {
		if len(l.replies) > 0 && !w.dead && !l.zombie {
			r := l.replies[0]
			l.replies = l.replies[1:]
			w.o.Reply(h.now, h.garble(l, r))
		}
	}
}

func (h *history) fault(w *world) {
	switch n := h.rng.IntN(1500); {
	case n < 4:
		h.takeover()
	case n < 6:
		w.dead = true
		h.logf("epoch %d dies", w.epoch)
		if w == h.current() {
			h.takeover()
		}
	case n < 10:
		h.disconnect(w, h.disks[h.rng.IntN(len(h.disks))].ID())
	case n < 30:
		for _, m := range h.disks {
			if !h.down[m.ID()] && w.links[m.ID()] == nil && !w.dead {
				h.connect(w, m.ID())
			}
		}
	case n < 34:
		h.loseDisk()
	case n < 44:
		for _, m := range h.disks {
			delete(h.down, m.ID())
		}
	case n < 46:
		h.corrupt()
	case n < 48:
		h.now += 200 * ms
	}
}

// loseDisk takes one disk away from everybody, at most m at a time.
func (h *history) loseDisk() {
	if len(h.down) >= h.v.Layout.M {
		return
	}
	d := h.disks[h.rng.IntN(len(h.disks))].ID()
	h.down[d] = true
	h.logf("disk %d is lost", d)
	for _, w := range h.worlds {
		if !w.dead {
			h.disconnect(w, d)
			w.o.NodeDead(h.now, DiskSet{d})
		}
	}
}

// corrupt damages a block in place on one in-sync disk while nothing else is wrong with the row.
func (h *history) corrupt() {
	if len(h.v.InSync()) < len(h.disks) || len(h.down) > 0 || h.v.Layout.M == 0 {
		return
	}
	for _, m := range h.disks {
		if m.Spoilt() {
			return
		}
	}
	m := h.disks[h.rng.IntN(len(h.disks))]
	if m.Spoil(h.rng.IntN(1 << 20)) {
		h.logf("a block of disk %d is bad", m.ID())
	}
}

// heal ends all faults; within ten seconds everything must be served and in-sync again.
func (h *history) heal() {
	h.healthy = true
	clear(h.down)
	for _, w := range h.worlds {
		if w != h.current() {
			w.dead = true
		}
	}
	w := h.current()
	if w.dead || w.o.Status().State == OwnerDead || h.v.Released >= h.v.Epoch {
		h.takeover()
		w = h.current()
	}
	for _, m := range h.disks {
		if w.links[m.ID()] == nil {
			h.connect(w, m.ID())
		}
	}
	for end := h.now + 20*second; h.now < end; {
		h.stepOnce()
		if w = h.current(); w.o.Status().State == OwnerDead {
			h.takeover()
		}
	}
	for i := 0; i < 200000 && (len(h.byToken) > 0 || len(h.v.InSync()) < len(h.disks)); i++ {
		h.step++
		h.now += ms / 4
		h.deliver(w)
		h.tell(w)
		for len(h.pending) > 0 {
			c := h.pending[0]
			h.pending = h.pending[1:]
			h.apply(c)
		}
		h.drain(w)
	}
	if len(h.v.InSync()) < len(h.disks) {
		h.t.Fatalf("not healthy after the faults have ended: in-sync %v, status %+v, suspended %q", h.v.InSync(), w.o.Status(), w.o.Status().Suspended)
	}
	h.readBack(w)
	parityFits(h.t, h.v, h.disks, h.current().o.Status().Commit)
}

func (h *history) readBack(w *world) {
	for s := uint64(0); s+8 <= h.sectors; s += 8 {
		o := &op{id: uint64(len(h.ops) + 1), sector: s, n: 8, start: h.step}
		h.ops = append(h.ops, o)
		h.byToken[o.id] = o
		w.o.Read(h.now, &IO{Token: o.id, Offset: h.offset(s), Bytes: 8 * SectorBytes})
		for i := 0; i < 20000 && o.end == 0; i++ {
			h.step++
			h.now += ms / 4
			h.deliver(w)
			h.drain(w)
		}
		if o.end == 0 {
			h.t.Fatalf("sector %d is not readable: %+v", s, w.o.Status())
		}
	}
}

// parityFits applies everything and compares every row's parity with its data.
func parityFits(t testing.TB, v *Volume, disks []*raidtest.Disk, commit Seq) {
	for _, m := range disks {
		m.ApplyAll(commit)
	}
	c := NewCoder(v.Layout)
	g := NewGeometry(v)
	for ext := range v.Extents {
		for no := range uint32(BlocksPerRegion) {
			var shards, want [][]byte
			for role := range v.Layout.Width() {
				p := g.BlockPlacement(uint32(ext), no, role)
				b := disks[p.Disk-1].BlockNow(uint32(ext), no, p.Gen)
				if b == nil { // a bad block that nobody has read yet
					return
				}
				shards = append(shards, b)
				if role >= v.Layout.K {
					b = make([]byte, BlockBytes)
				}
				want = append(want, b)
			}
			c.Encode(want)
			for role := range want {
				if !slices.Equal(want[role], shards[role]) {
					t.Fatalf("extent %d row %d: parity %d does not fit the data", ext, no, role)
				}
			}
		}
	}
}

func run(t testing.TB, seed uint64) {
	h := newHistory(t, seed)
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("seed %d: step %d: panic: %v", seed, h.step, p)
		}
		if t.Failed() {
			t.Logf("replay: go test ./raid -run TestHistories -seed %d", seed)
		}
	}()
	h.live()
}

// live is the whole history.
func (h *history) live() {
	h.takeover()
	for range 6000 {
		h.stepOnce()
	}
	h.heal()
}

func TestHistories(t *testing.T) {
	if *seedFlag != 0 {
		run(t, *seedFlag)
		return
	}
	for seed := uint64(1); seed <= uint64(*seedsFlag) && !t.Failed(); seed++ {
		run(t, seed)
	}
}
