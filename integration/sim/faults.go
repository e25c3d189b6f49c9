package sim

import "slices"

// The fault injector: one fault after the other at random times, each with its own duration, chosen by the seed's rates. What
// it may do is bounded by the atlas; when the safety phase ends it stops and everything is healed.

// atlas keeps damage within what the layouts survive. Processes, hosts and links may fail in any number: that only costs
// time, every acknowledged byte is still on its disk. Data may be damaged on the victims alone, at most m of each extent,
// and in such a run nothing else fails that would make another disk stale, or k shards as of one moment would be asked of
// disks that do not have them.
type atlas struct {
	victims []int // host indexes whose disks may lose data
}

func newAtlas(w *world) *atlas {
	a := &atlas{}
	if !w.shape.damage {
		return a
	}
	budget := 1 << 30
	for _, v := range w.shape.volumes {
		m := v.m
		if v.perDisk { // a host may hold several shards of one extent
			m = v.m / w.shape.disksPerNode
		}
		budget = min(budget, m)
	}
	hosts := w.rnd.Perm(w.shape.storageNodes())
	a.victims = hosts[:min(budget, len(hosts))]
	slices.Sort(a.victims)
	return a
}

func (a *atlas) victim(host int) bool { return slices.Contains(a.victims, host) }

// injector makes faults happen.
type injector struct {
	w       *world
	rnd     random
	stopped bool
	calm    bool     // a lie is out
	undo    []func() // heals what is still broken, oldest first
}

func (j *injector) start() {
	if j.w.shape.faultEachNs <= 0 {
		return
	}
	j.next()
}

func (j *injector) next() {
	wait := int64(float64(j.w.shape.faultEachNs) * j.rnd.ExpFloat64())
	j.w.sched.after(wait, func() {
		if j.stopped {
			return
		}
		if kind := j.rnd.weighted(j.w.shape.rates[:]); kind >= 0 {
			j.inject(faultKind(kind))
			j.next()
		}
	})
}

// stop ends injection and heals everything that lasts.
func (j *injector) stop() {
	j.stopped = true
	for _, f := range j.undo {
		f()
	}
	j.undo = nil
}

// lasting applies a fault now and takes it back after a while, or at the end of the safety phase.
func (j *injector) lasting(ns int64, apply, heal func()) {
	apply()
	done := false
	once := func() {
		if !done {
			done = true
			heal()
		}
	}
	j.undo = append(j.undo, once)
	j.w.sched.after(ns, once)
}

// node picks a host to fail: any, or a victim when data may be damaged. -1: none may.
func (j *injector) node() int {
	if j.w.shape.damage {
		if len(j.w.atlas.victims) == 0 {
			return -1
		}
		return pick(j.rnd, j.w.atlas.victims...)
	}
	var members []int
	for n, h := range j.w.hosts {
		if !h.off {
			members = append(members, n)
		}
	}
	return pick(j.rnd, members...)
}

// duration is short mostly, long now and then.
func (j *injector) duration() int64 {
	switch j.rnd.IntN(10) {
	case 0:
		return j.rnd.between(1000, 6000) * ms
	case 1, 2, 3:
		return j.rnd.between(200, 1500) * ms
	}
	return j.rnd.between(1, 300) * ms
}

func (j *injector) inject(kind faultKind) {
	w := j.w
	n := j.node()
	if n < 0 || j.calm {
		return
	}
	h := w.hosts[n]
	d := j.duration()
	hit := func(format string, args ...any) {
		w.count.hit(faultNames[kind])
		w.tl.add(w.sched.nowNs, colFault, format, args...)
		w.tl.mix(w.sched.nowNs, column(n), 'F', []byte{byte(kind)})
	}
	switch kind {
	case faultCrash, faultCrashNoProof:
		if h.proc == nil || h.frozen {
			return
		}
		hit("node %d: process killed, back in %d ms, guardian %v", n+1, d/ms, kind == faultCrash && w.shape.guardian)
		h.crash(kind == faultCrash && w.shape.guardian, d)
	case faultPower:
		hit("node %d: power lost, back in %d ms", n+1, d/ms)
		h.powerLoss(d)
	case faultPowerAll:
		if w.shape.damage {
			return
		}
		hit("all power lost")
		for _, h := range w.hosts {
			h.powerLoss(d + j.rnd.Int64N(2*second))
		}
	case faultPause:
		if h.proc == nil {
			return
		}
		hit("node %d: stopped for %d ms", n+1, d/ms)
		h.pause(d)
	case faultFreeze, faultClockStands, faultClockSet:
		j.injectClock(kind, h, d, hit)
	case faultWitness, faultHandoff, faultDrain, faultJoin, faultLeave, faultRecreate:
		j.injectOperation(kind, n, d, hit)
	default:
		j.injectNetwork(kind, n, d, hit)
	}
}

// leaseNsMax is longer than any lease lasts by its own clock.
const leaseNsMax = second

// clockMarginNs is how long a machine may be frozen without being told: a lease is 5 ms shorter than the promise behind it.
const clockMarginNs = 4 * ms

func (j *injector) injectClock(kind faultKind, h *host, d int64, hit func(string, ...any)) {
	switch {
	case h.frozen || h.off:
	case kind == faultFreeze:
		hit("node %d: machine frozen for %d ms", h.index+1, d/ms)
		h.freeze(d, false)
	case kind == faultClockStands:
		if !j.w.shape.allStrict() {
			if h.stoodNs+10*second > j.w.sched.nowNs { // one margin for one lease
				return
			}
			d = min(d, clockMarginNs)
		} else {
			j.w.history.strict = true
			h.staleNs = j.w.sched.nowNs + d + leaseNsMax
		}
		h.stoodNs = j.w.sched.nowNs
		hit("node %d: machine and clock frozen for %.1f ms", h.index+1, float64(d)/float64(ms))
		h.freeze(d, true)
	case h.proc != nil:
		p := h.proc
		hit("node %d: wall clock set", h.index+1)
		p.input(func(now int64) { p.node.ClockJumped(now) })
	}
}

// injectOperation does what people do.
func (j *injector) injectOperation(kind faultKind, n int, d int64, hit func(string, ...any)) {
	w := j.w
	switch kind {
	case faultWitness:
		h := w.hosts[w.shape.nodes-1]
		if w.shape.damage || h.off {
			return
		}
		hit("witness lost, back in %d ms", 4*d/ms)
		h.powerLoss(4 * d)
	case faultHandoff:
		hit("operator moves a volume to node %d", n+1)
		w.operator.handoff(n)
	case faultDrain:
		hit("node %d is drained for %d ms", n+1, d/ms)
		h := w.hosts[n]
		j.lasting(d, func() { w.operator.drain(h, true) }, func() { w.operator.drain(h, false) })
	case faultJoin:
		// Ids are given in order, so spares join in order.
		for _, h := range w.hosts[w.shape.nodes:] {
			if h.spare == spareWaits {
				hit("node %d is to join", h.index+1)
				w.operator.join(h)
			}
			if h.spare == spareJoins || h.spare == spareWaits {
				h.spare = spareJoins
				return
			}
		}
	case faultLeave:
		for _, h := range w.hosts[w.shape.nodes:] {
			if h.spare == spareMember {
				hit("node %d is to leave", h.index+1)
				h.spare = spareLeaves
				w.operator.leave(h)
				return
			}
		}
	case faultRecreate:
		slot := j.rnd.IntN(len(w.shape.volumes))
		if w.operator.busy() == "" {
			hit("the volume of slot %d is made anew", slot)
			w.operator.recreate(slot)
		}
	}
}

func (j *injector) injectNetwork(kind faultKind, n int, d int64, hit func(string, ...any)) {
	w := j.w
	switch kind {
	case faultPartition:
		hit("node %d: cut off from all others for %d ms", n+1, d/ms)
		j.lasting(d, func() { w.cutAll(n, true) }, func() { w.cutAll(n, false) })
	case faultCutOneWay:
		to := j.rnd.IntN(len(w.hosts))
		if to == n {
			return
		}
		hit("nothing gets from node %d to node %d for %d ms", n+1, to+1, d/ms)
		j.lasting(d, func() { w.peers.setCut(n, to, true) }, func() { w.peers.setCut(n, to, false) })
	case faultReset:
		to := j.rnd.IntN(len(w.hosts))
		if to == n {
			return
		}
		hit("connection of nodes %d and %d reset", n+1, to+1)
		w.peers.reset(n, to)
	case faultPort:
		p := j.rnd.IntN(w.shape.paths)
		hit("node %d: SAN port %d down for %d ms", n+1, p, d/ms)
		h := w.hosts[n]
		j.lasting(d, func() { h.carrier(p, false) }, func() { h.carrier(p, true) })
	case faultPath, faultStorm:
		p := j.rnd.IntN(w.shape.paths)
		sw := w.switches[p]
		was := w.shape.ether
		if kind == faultPath {
			hit("SAN path %d carries nothing for %d ms", p, d/ms)
			j.lasting(d, func() { sw.faults.loss = 1 }, func() { sw.faults = was })
			return
		}
		hit("SAN path %d: storm for %d ms", p, d/ms)
		j.lasting(d, func() {
			sw.faults.loss, sw.faults.dup, sw.faults.late = 0.2, 0.2, 0.3
			sw.faults.lateNs = 80 * ms
		}, func() { sw.faults = was })
	default:
		j.injectDisk(kind, n, d, hit)
	}
}

func (j *injector) injectDisk(kind faultKind, n int, d int64, hit func(string, ...any)) {
	h := j.w.hosts[n]
	if len(h.disks) == 0 {
		return
	}
	x := h.disks[j.rnd.IntN(len(h.disks))]
	switch kind {
	case faultSlowDisk:
		hit("node %d: disk %d slow for %d ms", n+1, x.number, d/ms)
		j.lasting(d, func() { x.slow = 100 }, func() { x.slow = 1 })
	case faultRot:
		if j.w.atlas.victim(n) {
			hit("node %d: sectors of disk %d go bad", n+1, x.number)
			x.rot(j.rnd)
		}
	case faultLie:
		if j.w.atlas.victim(n) {
			j.lie(x, d, hit)
		}
	case faultDiskGone:
		if j.w.atlas.victim(n) {
			hit("node %d: disk %d gone for %d ms", n+1, x.number, d/ms)
			j.lasting(d, func() { x.gone(true) }, func() { x.gone(false) })
		}
	}
}
