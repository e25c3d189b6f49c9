package sim

import (
	"fmt"
	"runtime/debug"
)

// world is one run.
type world struct {
	shape    shape
	sched    scheduler
	rnd      random // for everything that has no source of its own
	tl       *timeline
	count    faultCount
	stats    stats
	hosts    []*host
	clients  []*client
	switches []*etherSwitch
	peers    *peerNet
	atlas    *atlas
	inject   *injector
	operator *operator
	history  *history
	checks   *invariants
	procs    int          // processes started so far
	script   func(*world) // instead of random faults

	failure  string
	failedNs int64
}

// stats counts what happened.
type stats struct {
	ops    int
	steps  int
	checks int
	// diskChecks counts the disks that were checked after a crash.
	diskChecks int
}

// result is what became of a seed.
type result struct {
	seed      uint64
	shape     string
	failure   string // empty: passed
	failedNs  int64
	timeline  string
	hash      uint64
	effects   uint64
	virtualNs int64
	stats     stats
	faults    faultCount
	checked   int
}

// summary is one line about a run.
func (r *result) summary() string {
	return fmt.Sprintf("%s\n%.1f virtual seconds, %d operations, %d process steps, %d effects, hash %016x, %d register operations checked, faults %v",
		r.shape, float64(r.virtualNs)/1e9, r.stats.ops, r.stats.steps, r.effects, r.hash, r.checked, r.faults.counts)
}

// run plays one seed from beginning to end. The caller has put crypto/rand under the seed's control.
func run(seed uint64, o options) *result {
	w := newWorld(seed, o)
	checked := 0
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, stopped := p.(failed); !stopped {
					w.failure = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
					w.failedNs = w.sched.nowNs
				}
			}
		}()
		w.play()
		checked = w.history.judge()
	}()
	r := &result{seed: seed, shape: w.shape.String(), failure: w.failure, failedNs: w.failedNs, hash: w.tl.hash, effects: w.tl.n,
		virtualNs: w.sched.nowNs, stats: w.stats, faults: w.count, checked: checked}
	if r.failure != "" {
		r.timeline = w.tl.String()
	}
	return r
}

// failed unwinds a run that has failed.
type failed struct{}

// fail ends the run: the first violation is the one that counts.
func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.failedNs = w.sched.nowNs
		w.tl.add(w.sched.nowNs, colFault, "FAILED: %s", w.failure)
	}
	panic(failed{})
}

func newWorld(seed uint64, o options) *world {
	w := &world{shape: newShape(seed, o), rnd: newRandom(seed, "world")}
	w.tl = newTimeline(20000, w.shape.nodes)
	w.tl.echo, w.script = o.echo, o.script
	w.history = newHistory(len(w.shape.volumes), w.fail)
	w.checks = newInvariants(w)
	for p := range w.shape.paths {
		w.switches = append(w.switches, &etherSwitch{sched: &w.sched, rnd: newRandom(seed, fmt.Sprint("ether", p)), faults: w.shape.ether, count: &w.count})
	}
	members := w.shape.nodes + w.shape.spares
	w.peers = newPeerNet(&w.sched, newRandom(seed, "peers"), &w.count, members, w.shape.peerDelayNs)
	w.peers.hooks = func(n int) *process { return w.hosts[n].proc }
	w.atlas = newAtlas(w)
	for n := range members {
		w.hosts = append(w.hosts, newHost(w, n))
	}
	for i, s := range w.shape.initiators {
		w.clients = append(w.clients, newClient(w, i+1, s))
	}
	w.inject = &injector{w: w, rnd: newRandom(seed, "faults")}
	w.operator = newOperator(w)
	return w
}

// runUntil runs events until a true time, or until done says so.
func (w *world) runUntil(ns int64, done func() bool) bool {
	for w.sched.step(ns) {
		if done != nil && done() {
			return true
		}
	}
	w.sched.nowNs = max(w.sched.nowNs, ns)
	return done != nil && done()
}

// play is the course of a run: found the cluster, break things, heal, and demand that all is well within ten seconds.
func (w *world) play() {
	w.found()
	for _, c := range w.clients {
		c.start()
	}
	if w.script != nil {
		w.script(w)
	} else {
		w.inject.start()
		w.runUntil(w.sched.nowNs+w.shape.safetyNs, nil)
	}
	w.note("safety phase over, everything heals")
	w.inject.stop()
	w.heal()
	w.live()
	w.settle()
}

func (w *world) note(format string, args ...any) {
	w.tl.add(w.sched.nowNs, colFault, format, args...)
}

// cutAll cuts or heals all wires of one node.
func (w *world) cutAll(n int, cut bool) {
	for o := range w.hosts {
		if o != n {
			w.peers.setCut(n, o, cut)
			w.peers.setCut(o, n, cut)
		}
	}
}

// heal brings back whatever is down.
func (w *world) heal() {
	for n, h := range w.hosts {
		w.cutAll(n, false)
		h.heal()
	}
	for _, s := range w.switches {
		s.faults = etherFaults{delayNs: w.shape.ether.delayNs}
	}
}

// live demands what must be true ten seconds after the last fault: every volume served and in-sync, all load done. The load goes on
// for some of that time: it reads what the faults have left.
func (w *world) live() {
	until := w.sched.nowNs + w.shape.livenessNs
	w.runUntil(w.sched.nowNs+w.shape.afterNs, nil)
	for _, c := range w.clients {
		c.stop()
		for _, s := range c.sessions {
			s.release()
		}
	}
	w.demand(until, true)
	w.demand(w.sched.nowNs+90*second, false)
}

// demand runs until all is well, at the latest until a time.
func (w *world) demand(until int64, patient bool) {
	from := w.sched.nowNs
	if !w.runUntil(until, func() bool { return w.stats.steps%16 == 0 && w.unwell(patient) == "" }) {
		if why := w.unwell(patient); why != "" {
			w.fail("liveness: %.0f s after the load has ended %s", float64(until-from)/1e9, why)
		}
	}
}
