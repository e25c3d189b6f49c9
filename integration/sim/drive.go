package sim

import (
	"errors"
	"fmt"

	"clade/membership"
	"clade/raid"
)

// hostDisk is a disk as hardware: what it holds outlives processes and, as far as it was synced, power.
type hostDisk struct {
	h           *host
	number      int // 1.. over the whole cluster
	id          raid.DiskID
	uuid        membership.UUID
	capacityMiB uint64
	gate        *gate
	slow        int64 // factor on all times
	isGone      bool
	model       *modelMachine
}

type gate struct{ ops, left int }

type diskMachine interface {
	Step(nowNs int64, reqs []*raid.DiskRequest) []raid.DiskReply
	SyncWanted() bool
	beginSync() (run func() error, end func(error) []raid.DiskReply)
	Background(nowNs int64) (more bool, err error)
	Failed() error
}

func newHostDisk(h *host, number int) *hostDisk {
	return &hostDisk{h: h, number: number, slow: 1, uuid: membership.UUID{'d', byte(number)}, capacityMiB: 48, gate: &gate{left: -1},
		model: &modelMachine{vols: map[raid.VolumeID]*modelDisk{}}}
}

func (d *hostDisk) admit(id raid.DiskID) error {
	d.id = id
	d.model.id = id
	if d.h.proc != nil {
		d.h.proc.openDisk(d)
	}
	return nil
}

func (d *hostDisk) processGone() { d.gate.left = -1 }
func (d *hostDisk) powerLoss()   {}
func (d *hostDisk) rot(random)   {}
func (d *hostDisk) gone(bool)    {}

func (p *process) open() {
	for path := range p.w.shape.paths {
		p.pathState(path, p.h.ports[path].up)
	}
	for _, d := range p.h.disks {
		if d.id != 0 {
			p.openDisk(d)
		}
	}
}

func (p *process) openDisk(d *hostDisk) {
	dr := &driver{p: p, hd: d, disk: d.model.open()}
	p.drivers = append(p.drivers, dr)
	p.input(func(now int64) { p.node.DiskState(now, d.id, true, nil, "opened") })
}

// errCrashed is what a device answers to a process that is dead already.
var errCrashed = errors.New("the process has ended")

// driver runs one store.Disk for one process, as the runtime's worker and syncer would.
type driver struct {
	p       *process
	hd      *hostDisk
	disk    diskMachine
	queue   []*raid.DiskRequest
	running bool
	syncing bool
	idleSet bool
	failed  bool
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
		replies := cloneReplies(d.disk.Step(d.p.now(), reqs))
		d.running = true
		d.after(d.cost(before), func() {
			d.running = false
			d.p.diskReplies(replies)
			d.check()
			d.kickIfQueued()
		})
	}
	d.check()
	d.maybeSync()
	d.maybeIdle()
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
	run, end := d.disk.beginSync()
	d.syncing = true
	var err error
	early := d.rnd().chance(0.5)
	if early {
		err = run()
	}
	d.after(d.rnd().delay(d.p.h.w.shape.diskSyncNs)*d.hd.slow, func() {
		if !early {
			err = run()
		}
		d.syncing = false
		replies := cloneReplies(end(err))
		d.p.diskReplies(replies)
		d.check()
		d.kickIfQueued()
	})
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
