package sim

import (
	"errors"
	"fmt"
	"slices"

	"clade/membership"
	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// hostDisk is a disk as hardware: what it holds outlives processes and, as far as it was synced, power.
type hostDisk struct {
	h           *host
	number      int // 1.. over the whole cluster
	id          raid.DiskID
	uuid        membership.UUID
	gen         uint64
	capacityMiB uint64
	dev         *disktest.Device
	gate        *gate
	lied        *lie
	slow        int64 // factor on all times
	rottenImage bool
}

// errCrashed is what a device answers to a process that is dead already, errGone what one answers that has been pulled out.
var (
	errCrashed = errors.New("the process has ended")
	errGone    = errors.New("no such device")
)

// gate stands between a store.Disk and its device: it counts operations, so that they take virtual time, and can end a
// process in the midst of a call: what was written before stays, nothing comes after.
type gate struct {
	*disktest.Device
	ops  int
	left int // operations until the process dies; -1: it does not
	gone bool
}

func (g *gate) pass() error {
	g.ops++
	switch {
	case g.gone:
		return errGone
	case g.left < 0:
		return nil
	case g.left == 0:
		return errCrashed
	}
	g.left--
	return nil
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	if err := g.pass(); err != nil {
		return 0, err
	}
	return g.Device.ReadAt(p, off)
}

func (g *gate) ReadCached(p []byte, off int64) bool {
	return g.pass() == nil && g.Device.ReadCached(p, off)
}

func (g *gate) WriteAt(p []byte, off int64) (int, error) {
	if err := g.pass(); err != nil {
		return 0, err
	}
	return g.Device.WriteAt(p, off)
}

func (g *gate) WriteThrough(p []byte, off int64) (int, error) {
	if err := g.pass(); err != nil {
		return 0, err
	}
	return g.Device.WriteThrough(p, off)
}

func (g *gate) Sync() error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.Device.Sync()
}

const journalBytes = 8 << 20

func newHostDisk(h *host, number int) *hostDisk {
	d := &hostDisk{h: h, number: number, slow: 1, uuid: membership.UUID{'d', byte(number)}}
	d.dev = disktest.New(int64(h.w.shape.diskMiB)<<20, h.w.shape.seed<<8+uint64(number))
	d.gate = &gate{Device: d.dev, left: -1}
	if err := store.Format(d.dev, d.identity(), store.FormatOptions{JournalBytes: journalBytes}); err != nil {
		panic(err)
	}
	var err error
	if d.capacityMiB, err = store.CapacityMiB(d.dev); err != nil {
		panic(err)
	}
	return d
}

func (d *hostDisk) identity() store.Identity {
	return store.Identity{Cluster: clusterID, UUID: d.uuid, Disk: d.id, AttachGen: d.gen}
}

// admit writes down what the cluster has assigned to the disk, and opens it.
func (d *hostDisk) admit(id raid.DiskID, gen uint64) error {
	d.id, d.gen = id, gen
	if err := store.SetIdentity(d.dev, d.identity()); err != nil {
		return err
	}
	if d.h.proc != nil {
		d.h.proc.openDisk(d)
	}
	return nil
}

// processGone closes the disk after its process has ended. What was written is in the kernel's cache.
func (d *hostDisk) processGone() { d.gate.left = -1 }

// powerLoss loses or tears what was not synced.
func (d *hostDisk) powerLoss() { d.dev.Crash() }

// check is store.Check of what a crash has left, now and then, as it takes real time. One torn superblock of two is no damage.
func (d *hostDisk) check() {
	w := d.h.w
	if d.gate.gone || w.atlas.victim(d.h.index) || !w.rnd.chance(0.2) {
		return
	}
	rep, err := store.Check(d.dev, nil)
	if err != nil {
		w.fail("disk %d after a crash: %v", d.number, err)
	}
	torn := 0
	for _, x := range rep.Damage {
		if x.Place == "superblock" {
			torn++
		}
		if w.operator.doomed[x.Volume] { // its slots may be another volume's already, and the journal not say so yet
			continue
		}
		if x.Place != "superblock" || torn > 1 {
			w.fail("disk %d after a crash: %+v", d.number, x)
		}
	}
	w.stats.diskChecks++
}

// rot damages sectors: silently, or so that they cannot be read. Most lie in the data of shards, some in checksum pages, in the
// journal and in the images of the state.
func (d *hostDisk) rot(r random) {
	areas, err := store.Areas(d.dev)
	if err != nil {
		return // both superblocks are gone already
	}
	a := areas.Data
	switch r.IntN(20) {
	case 0:
		if d.rottenImage { // one copy of two: without any the disk is lost for good, and an operator would have to replace it
			return
		}
		d.rottenImage = true
		a = areas.Image
	case 1, 2:
		a = areas.Journal
	case 3, 4, 5:
		a = areas.Pages
	}
	// Shards are handed out from the front: that is where something is. The journal is used all round.
	within := min(a.Bytes, 12<<20)
	switch a {
	case areas.Image:
		within = min(a.Bytes, 64<<10)
	case areas.Pages:
		within = min(a.Bytes, 64*2*4096)
	}
	n := r.between(1, 64) * sectorBytes
	off := (a.Offset + r.Int64N(max(within-n, sectorBytes))) / sectorBytes * sectorBytes
	if r.chance(0.5) {
		d.dev.Rot(off, n)
	} else {
		d.dev.Latent(off, n)
	}
}

// gone pulls the disk out or plugs it in again.
func (d *hostDisk) gone(gone bool) {
	d.gate.gone = gone
	if p := d.h.proc; !gone && p != nil {
		p.reopenDisk(d)
	}
}

// open begins a process's use of the host's ports and disks.
func (p *process) open() {
	for path := range p.w.shape.paths {
		p.pathState(path, p.h.ports[path].up)
	}
	for _, d := range p.h.disks {
		if d.id != 0 && !d.gate.gone {
			p.openDisk(d)
		}
	}
}

// openDisk recovers a disk and offers it to the node.
func (p *process) openDisk(d *hostDisk) {
	d.confess()
	disk, err := store.Open(d.gate, store.Config{Node: p.h.id(), BootID: p.h.boot, CacheBytes: 256 << 10, AttachGen: d.gen})
	if err != nil {
		if p.w.atlas != nil && p.w.atlas.victim(p.index) {
			p.note("disk %d cannot be opened: %v", d.number, err)
			return
		}
		p.w.fail("node %d: disk %d cannot be opened: %v", p.index+1, d.number, err)
	}
	dr := &driver{p: p, hd: d, disk: disk}
	p.drivers = append(p.drivers, dr)
	p.w.checks.opened(dr)
	vols := disk.Volumes()
	p.input(func(now int64) { p.node.DiskState(now, d.id, true, vols, "opened") })
}

// reopenDisk forgets a disk that has failed and opens it anew.
func (p *process) reopenDisk(d *hostDisk) {
	for _, x := range p.drivers {
		if x.hd == d {
			x.failed, x.queue = true, nil
		}
	}
	p.drivers = slices.DeleteFunc(p.drivers, func(x *driver) bool { return x.hd == d })
	p.input(func(now int64) { p.node.DiskState(now, d.id, false, nil, "pulled out") })
	p.openDisk(d)
}

// driver runs one store.Disk for one process, as the runtime's worker and syncer would.
type driver struct {
	p       *process
	hd      *hostDisk
	disk    *store.Disk
	queue   []*raid.DiskRequest
	running bool
	syncing bool
	idleSet bool
	failed  bool
	streams map[raid.VolumeID]*raid.DiskRequest // newest Start
}

func (d *driver) rnd() random { return d.p.rnd }

// cost turns the operations since a count into time.
func (d *driver) cost(since int) int64 {
	w := d.p.h.w
	n := int64(d.hd.gate.ops - since)
	return (5*us + d.rnd().delay(w.shape.diskOpNs)*n) * d.hd.slow
}

// after runs f unless the process has ended by then; a stopped process does nothing either, until it goes on.
func (d *driver) after(ns int64, f func()) { d.p.after(ns, f) }

func (d *driver) push(reqs ...*raid.DiskRequest) {
	if d.failed {
		return
	}
	for _, r := range reqs {
		if r.Kind == raid.ReqStart {
			if d.streams == nil {
				d.streams = map[raid.VolumeID]*raid.DiskRequest{}
			}
			// A former owner that wakes up sends a Start, too; the disk refuses it.
			if was := d.streams[r.Vol]; was == nil || was.Epoch < r.Epoch || was.Epoch == r.Epoch && was.Stream < r.Stream {
				d.streams[r.Vol] = r
			}
		}
	}
	d.queue = append(d.queue, reqs...)
	d.kick()
}

func (d *driver) kick() {
	if d.running || d.failed {
		return
	}
	d.running = true
	d.after(d.rnd().delay(10*us), d.work)
}

// work takes all that has queued, as one group.
func (d *driver) work() {
	d.running = false
	if d.failed {
		return
	}
	if len(d.queue) > 0 {
		reqs := d.queue
		d.queue = nil
		before := d.hd.gate.ops
		w := d.p.w
		w.checks.beforeStep(d)
		replies := d.step(reqs)
		w.checks.stepped(d, reqs, replies)
		d.running = true
		d.after(d.cost(before), func() {
			if d.running = false; d.failed {
				return
			}
			d.p.diskReplies(replies)
			d.check()
			d.kickIfQueued()
		})
	}
	d.check()
	d.maybeSync()
	d.maybeIdle()
}

// step executes requests as the core of a node does, and what that leaves, or each third time everything, as its worker.
func (d *driver) step(reqs []*raid.DiskRequest) []raid.DiskReply {
	var replies []raid.DiskReply
	if d.hd.gate.ops%3 != 0 {
		now, n := d.disk.StepNow(d.p.now(), reqs)
		replies, reqs = cloneReplies(now), reqs[n:]
	}
	if len(reqs) == 0 {
		return replies
	}
	return append(replies, cloneReplies(d.disk.Step(d.p.now(), reqs))...)
}

func (d *driver) kickIfQueued() {
	if len(d.queue) > 0 {
		d.kick()
	}
	d.maybeSync()
	d.maybeIdle()
}

// maybeSync starts the one sync that may be under way. The device is told to sync when it begins or when it ends: a real one
// makes some of what is written meanwhile durable as well.
func (d *driver) maybeSync() {
	if d.syncing || d.failed || !d.disk.SyncWanted() {
		return
	}
	job := d.disk.BeginSync()
	d.syncing = true
	var err error
	early := d.rnd().chance(0.5)
	if early {
		err = job.Run()
	}
	d.after(d.rnd().delay(d.p.h.w.shape.diskSyncNs)*d.hd.slow, func() {
		if d.failed { // pulled out meanwhile: nothing gets to the device any more, which may be another driver's already
			return
		}
		if !early {
			err = job.Run()
		}
		d.syncing = false
		replies := cloneReplies(d.endSync(job, err))
		d.p.w.checks.promised(d, replies)
		d.p.w.checks.afterDisk(d)
		d.p.diskReplies(replies)
		d.check()
		d.kickIfQueued()
	})
}

// endSync ends a job as a disk's own goroutine does, or as the core does, which leaves what may take long to others.
func (d *driver) endSync(job *store.SyncJob, err error) []raid.DiskReply {
	if !job.Group() || d.rnd().chance(0.5) {
		return d.disk.EndSync(job, err)
	}
	replies, _ := d.disk.EndSyncNow(job, err)
	return replies
}

// maybeIdle lets the disk apply and checkpoint a little at a time when nothing else is to be done.
func (d *driver) maybeIdle() {
	if d.idleSet || d.failed {
		return
	}
	d.idleSet = true
	d.after(d.rnd().delay(2*ms), d.idle)
}

func (d *driver) idle() {
	d.idleSet = false
	if d.failed {
		return
	}
	if d.running {
		d.maybeIdle()
		return
	}
	before := d.hd.gate.ops
	more, err := d.disk.Background(d.p.now())
	d.p.w.checks.afterDisk(d)
	if err != nil {
		d.fail(err)
		return
	}
	d.check()
	d.maybeSync()
	if more || d.hd.gate.ops != before {
		d.running = true
		d.after(d.cost(before), func() {
			d.running = false
			d.kickIfQueued()
		})
	}
}

// check looks whether the disk has given up.
func (d *driver) check() {
	if d.failed || d.p.dead {
		return
	}
	if d.hd.gate.left == 0 {
		d.p.h.crashNow()
		return
	}
	if err := d.disk.Failed(); err != nil {
		d.fail(err)
	}
}

func (d *driver) fail(err error) {
	if d.failed || d.p.dead {
		return
	}
	if errors.Is(err, errCrashed) {
		d.p.h.crashNow()
		return
	}
	d.failed = true
	d.queue = nil
	d.p.note("disk %d failed: %v", d.hd.number, err)
	d.p.diskDown(d.hd, fmt.Errorf("disk %d: %w", d.hd.number, err))
}

// cloneReplies keeps replies beyond the call that made them.
func cloneReplies(in []raid.DiskReply) []raid.DiskReply { return append([]raid.DiskReply(nil), in...) }
