package sim

import (
	"fmt"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// A disk that lies: it says that a sync is done, and when the power fails, everything since some earlier moment is gone. What the
// protocol promises about it (B: C15, C26, C32) is that a disk which has lost what it acknowledged to a living owner is found out by
// that owner's memory, and one that has fallen back behind its own last Activate, or is blank, by the fence. A liar that comes back
// after another has taken over can only be found out by what other disks still have in their journals: that is outside of the
// fault model, so here such a disk comes back blank. While a lie is out nothing else is injected.

// lie is what is known of a disk that lost its tail, until it is found out.
type lie struct {
	volumes []lieOf
}

type lieOf struct {
	vol   raid.VolumeID
	epoch raid.Epoch // of the owner to whom it lied
	top   raid.Seq   // the newest committed batch that it took part in
}

const (
	lieForNs     = 200 * ms // what is lost is at most so old
	lieNoticedNs = 5 * second
)

// lies returns what a disk would be lying about now, or false while some owner could not find it out.
func (j *injector) lies(x *hostDisk) (*lie, bool) {
	w := j.w
	st := w.newestState()
	if x.h.proc == nil || x.h.proc.paused || x.h.frozen || st == nil || x.gate.gone || w.driverOf(x.id) == nil {
		return nil, false
	}
	l := &lie{}
	for _, v := range st.Volumes {
		if v.Data.Member(x.id) == nil {
			continue
		}
		if !v.Data.Active || !st.OwnerLives(v.Data) || v.Data.Owner == x.h.id() || v.Handoff != 0 {
			return nil, false
		}
		p := w.hosts[v.Data.Owner-1].proc
		if p == nil || p.bootedTerm != v.Data.OwnerTerm || p.paused || w.atlas.victim(p.index) {
			return nil, false
		}
		of := lieOf{vol: v.ID(), epoch: v.Data.Epoch}
		for _, o := range p.node.Owners(p.now()) {
			if o.Vol != v.ID() {
				continue
			}
			if o.Epoch != v.Data.Epoch || o.Status.State != raid.OwnerActive {
				return nil, false
			}
			w.checks.owner(p)
			if !raid.NewDiskSet(o.Status.Waiting...).Has(x.id) {
				return nil, false
			}
			for n := o.Status.Commit; n > 0 && of.top == 0; n-- {
				if b := &w.checks.committed[v.ID()][n-1]; b.parts.Has(x.id) && b.epoch == v.Data.Epoch {
					of.top = n
				}
			}
		}
		l.volumes = append(l.volumes, of)
	}
	return l, true
}

// lie begins one: the disk's present contents are what will be left.
func (j *injector) lie(x *hostDisk, back int64, hit func(string, ...any)) {
	if _, ok := j.lies(x); !ok || j.calm {
		return
	}
	j.calm = true
	past := x.dev.Clone(j.rnd.Uint64())
	since := j.rnd.between(1, lieForNs)
	j.w.sched.after(since, func() {
		l, ok := j.lies(x)
		if !ok || j.stopped {
			j.calm = false
			return
		}
		hit("node %d: power lost, and disk %d has lied for %.1f ms; back in %d ms", x.h.index+1, x.number, float64(since)/float64(ms), back/ms)
		x.replace(past)
		x.lied = l
		j.w.checks.forgetDisk(x.id)
		x.h.powerLoss(back)
		j.awaitNotice(x, j.w.sched.nowNs+back+lieNoticedNs)
	})
}

func (d *hostDisk) replace(dev *disktest.Device) {
	d.dev, d.gate.Device = dev, dev
}

// blank is a new device under a disk's name.
func blank(x *hostDisk) *disktest.Device {
	dev := disktest.New(x.dev.Size(), x.h.w.rnd.Uint64())
	if err := store.Format(dev, x.identity(), store.FormatOptions{JournalBytes: journalBytes}); err != nil {
		panic(err)
	}
	return dev
}

// awaitNotice keeps everything calm until the lie is found out.
func (j *injector) awaitNotice(x *hostDisk, until int64) {
	j.w.sched.after(10*ms, func() {
		open := x.lied == nil && j.w.driverOf(x.id) != nil
		why := ""
		for _, s := range j.w.checks.lying {
			if s.disk == x.id {
				open, why = false, fmt.Sprintf("volume %d", s.vol)
			}
		}
		switch {
		case open:
			j.calm = false
		case j.w.sched.nowNs > until && x.h.proc != nil:
			j.w.fail("disk %d lied, and nobody has noticed: %s", x.number, why)
		default:
			j.awaitNotice(x, until)
		}
	})
}

// confess is what a disk that lied looks like when it is opened again: rolled back, or blank if its owner's memory is gone.
func (d *hostDisk) confess() {
	w := d.h.w
	if d.lied == nil {
		return
	}
	st := w.newestState()
	for _, of := range d.lied.volumes {
		if v := st.Volume(of.vol); v != nil && (v.Data.Epoch != of.epoch || v.Data.Owner == 0 || w.hosts[v.Data.Owner-1].proc == nil) {
			w.note("disk %d comes back blank", d.number)
			d.replace(blank(d))
			break
		}
	}
}

// confessed notes what has to be found out now that the disk is open.
func (c *invariants) confessed(d *driver) {
	l := d.hd.lied
	d.hd.lied = nil
	if l == nil {
		return
	}
	for _, of := range l.volumes {
		s := c.shadow(d.hd.id, of.vol)
		s.rolled = s.rolled && s.view.EndSeq < of.top
		if s.view.EndSeq < of.top && !s.view.Damaged && c.w.newestState().Volume(of.vol) != nil {
			c.w.count.hit("lie that has to be noticed")
			c.lying = append(c.lying, s)
			s.liedTop = of.top
		}
	}
}

// forgetDisk drops what was known of a disk whose contents have gone back in time.
func (c *invariants) forgetDisk(id raid.DiskID) {
	for k, s := range c.shadows {
		if k.disk == id {
			s.forget()
			s.rolled = true
		}
	}
}
