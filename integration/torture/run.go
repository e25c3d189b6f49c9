package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"clade/aoe/initiator"
	"clade/aoe/initiator/load"
	"clade/integration/lab"
)

// Config describes a run.
type Config struct {
	Spec     lab.Spec // Nodes, Witnesses, Layout, SANPaths, Name, Dir, Binary; the rest is filled in
	Seed     uint64
	Duration time.Duration // of the faults; the last one is finished, and everything checked, after it
	Slice    time.Duration // of the history; default 12 s
	KeepDir  string        // where logs, the result and histories of violations go; default: kept only with violations, in a new directory
	// Tell is told now and then how far the run is; nil: nobody is. It must not block.
	Tell func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Shape      string
	Elapsed    time.Duration // of Duration
	Duration   time.Duration
	Faults     int
	Operations int64
	Violations int
	Now        string // what happens
}

const (
	healthyMax   = 90 * time.Second
	giveUpMax    = 10 * time.Second // how long initiators may go on after a violation
	loadedSlots  = 2
	slotBytes    = 64 << 20
	smallFSBytes = 1 << 30
	tellEvery    = 500 * time.Millisecond
)

// run is one run.
type run struct {
	cfg     Config
	lab     *lab.Lab
	host    *lab.Host
	plan    *plan
	nemesis *nemesis
	meter   *meter
	counts  counters
	rnd     *rand.Rand // of the checks
	base    *identity
	began   time.Time
	stop    context.CancelFunc // ends all at a violation

	mu     sync.Mutex
	result *Result
	now    string
	epochs map[uint8]uint64 // by slot: the highest seen
}

// Shape returns a short name for what a lab is like: 2+1, or 1+1+witness.
func Shape(s lab.Spec) string {
	out := s.Layout
	if s.Witnesses > 0 {
		out += "+witness"
	}
	return out
}

// Run makes a lab, lets the nemesis loose on it for cfg.Duration, checks everything, and takes the lab away. Violations are in
// the result; an error means that the run itself could not be done, or not to its end. The result is nil if it could not begin.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	r, err := newRun(cfg)
	if err != nil {
		return nil, err
	}
	return r.result, r.inLab(ctx, func(ctx context.Context) error {
		return r.loaded(ctx, func(ctx context.Context) {
			for ctx.Err() == nil && time.Since(r.began) < r.cfg.Duration {
				r.round(ctx, r.plan.next())
			}
		})
	})
}

// newRun fills in what a configuration leaves open.
func newRun(cfg Config) (*run, error) {
	if cfg.Slice <= 0 {
		cfg.Slice = 12 * time.Second
	}
	s := &cfg.Spec
	s.Held, s.VolatileCache, s.DiskFaults, s.SmallFS = true, true, true, smallFSBytes
	s.Slots, s.SizeBytes = loadedSlots+1, slotBytes
	*s = s.WithDefaults()
	r := &run{cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 2)), epochs: map[uint8]uint64{}}
	r.result = &Result{Shape: Shape(*s), Nodes: s.Nodes, Witnesses: s.Witnesses, Layout: s.Layout, SANPaths: s.SANPaths, Seed: cfg.Seed}
	var k, m int
	if _, err := fmt.Sscanf(s.Layout, "%d+%d", &k, &m); err != nil {
		return nil, fmt.Errorf("torture: layout %q: %w", s.Layout, err)
	}
	r.plan = newPlan(cfg.Seed, *s, m)
	return r, nil
}

// inLab does something with a lab and initiators' interfaces in it.
func (r *run) inLab(ctx context.Context, do func(context.Context) error) error {
	var err error
	if r.lab, err = lab.Up(ctx, r.cfg.Spec, nil); err != nil {
		return err
	}
	if r.host, err = r.lab.OpenHost(); err == nil {
		err = errors.Join(do(ctx), r.host.Close())
	}
	return errors.Join(err, r.lab.Down())
}

// loaded does something while all initiators are at work, and checks everything afterwards.
func (r *run) loaded(parent context.Context, do func(context.Context)) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	r.stop = cancel
	io, giveUp := context.WithCancel(context.WithoutCancel(parent))
	defer giveUp()
	context.AfterFunc(ctx, func() { time.AfterFunc(giveUpMax, giveUp) })
	var err error
	if r.base, err = r.identify(ctx); err != nil {
		return err
	}
	r.meter, r.began = newMeter(), time.Now()
	r.nemesis = &nemesis{lab: r.lab, log: r.say, hit: map[string]bool{}}

	calm, end := context.WithCancel(ctx) // of the load: it ends when the last fault is healed
	defer end()
	var load sync.WaitGroup
	r.startLoad(calm, io, &load)
	load.Go(func() { r.tell(calm) })
	do(ctx)
	r.say("the last operations and histories")
	end()
	load.Wait()
	r.finish()
	if len(r.result.Violations) > 0 || r.cfg.KeepDir != "" {
		return errors.Join(r.evidence(), parent.Err())
	}
	return parent.Err()
}

// startLoad starts all initiators.
func (r *run) startLoad(ctx, io context.Context, wg *sync.WaitGroup) {
	for slot := 1; slot <= loadedSlots; slot++ {
		t := &traffic{host: r.host, shelf: r.lab.Spec.Shelf, slot: uint8(slot), seed: r.cfg.Seed + uint64(slot), slice: r.cfg.Slice, meter: r.meter,
			counts: &r.counts, worker: slot * sessions * depth, io: io, bad: r.violation}
		wg.Go(func() { t.run(ctx) })
	}
	c := &control{host: r.host, shelf: r.lab.Spec.Shelf, slot: loadedSlots + 1, rnd: rand.New(rand.NewPCG(r.cfg.Seed, 3)), counts: &r.counts, io: io,
		bad: func(what string, err error) { r.violation(what, err, nil) }}
	wg.Go(func() { c.run(ctx) })
}

// say notes what happens.
func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = fmt.Sprintf(format, args...)
}

// violation notes what must not be, and ends the run.
func (r *run) violation(what string, err error, evidence []*load.Record) {
	r.note(what, err, evidence...)
	r.stop()
}

// note notes what must not be, and lets the run go on.
func (r *run) note(what string, err error, evidence ...*load.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.result.Violations) < violationsMax {
		r.result.Violations = append(r.result.Violations, Violation{AtMs: time.Since(r.began).Milliseconds(), What: what, Text: err.Error(), history: evidence})
	}
}

// tell reports progress until ctx ends.
func (r *run) tell(ctx context.Context) {
	if r.cfg.Tell == nil {
		return
	}
	for {
		c := r.counts.counts()
		r.mu.Lock()
		p := Progress{Shape: r.result.Shape, Elapsed: min(time.Since(r.began), r.cfg.Duration), Duration: r.cfg.Duration, Faults: len(r.result.Events),
			Operations: c.Reads + c.Writes + c.Flushes + c.Controls, Violations: len(r.result.Violations), Now: r.now}
		r.mu.Unlock()
		r.cfg.Tell(p)
		select {
		case <-time.After(tellEvery):
		case <-ctx.Done():
			return
		}
	}
}

// pause waits; it returns false if the run is over.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// round lets the acts of one round happen, waits until all is well again, and measures.
func (r *run) round(ctx context.Context, rd round) {
	r.say("all is well")
	if !pause(ctx, rd.pause) {
		return
	}
	r.meter.reset()
	began := time.Now()
	events := make([]*Event, len(rd.acts))
	hits := make([]struck, len(rd.acts))
	for _, s := range rd.steps() {
		if !pause(ctx, s.at-time.Since(began)) {
			return
		}
		var err error
		switch {
		case !s.end:
			if hits[s.act], err = r.nemesis.choose(ctx, rd.acts[s.act]); errors.Is(err, errBusy) {
				continue
			}
			e := &Event{Kind: rd.acts[s.act].kind, Node: hits[s.act].node, BeginMs: time.Since(r.began).Milliseconds()}
			events[s.act] = e
			if err == nil {
				err = r.nemesis.begin(ctx, hits[s.act])
			}
		case events[s.act] != nil:
			events[s.act].EndMs = time.Since(r.began).Milliseconds()
			err = r.nemesis.end(ctx, hits[s.act])
		}
		if err != nil && ctx.Err() == nil {
			r.violation("the nemesis, or an operator's command, failed: "+string(rd.acts[s.act].kind), err, nil)
			return
		}
	}
	r.settle(ctx, events)
}

// settle waits until the cluster is healthy and nobody waits any more for what was asked before, and counts the stall.
func (r *run) settle(ctx context.Context, events []*Event) {
	r.say("until all is well again")
	from := time.Now()
	if err := r.healthy(ctx); err != nil {
		if ctx.Err() == nil {
			r.violation("health did not come back", err, nil)
		}
		return
	}
	if err := r.meter.await(ctx, initiator.BootNs()); err != nil {
		if ctx.Err() == nil {
			r.violation("an operation is not answered although all is well", err, nil)
		}
		return
	}
	// Whatever was written since has made an owner notice a disk that is gone.
	if err := r.healthy(ctx); err != nil {
		if ctx.Err() == nil {
			r.violation("health did not come back", err, nil)
		}
		return
	}
	took := time.Since(from)
	stall := r.meter.since()
	r.mu.Lock()
	happened := 0
	for _, e := range events {
		if e != nil {
			happened++
		}
	}
	for _, e := range events {
		if e == nil {
			continue
		}
		e.HealthyMs = int(took.Milliseconds())
		e.StallMs, e.LinuxStallMs = int(stall[libraryTiming]/1e6), int(stall[linuxTiming]/1e6)
		e.Overlapped = happened > 1
		r.result.Events = append(r.result.Events, *e)
	}
	r.mu.Unlock()
	if err := r.check(ctx); err != nil && ctx.Err() == nil {
		r.violation("the cluster is not what it was", err, nil)
	}
}

// healthy waits until every node has both its processes and a lease, by its own word, and the cluster is healthy by the word of
// who knows best: that one may not have noticed yet what was short.
func (r *run) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthyMax)
	defer cancel()
	for i := range r.lab.Nodes {
		for {
			err := r.alive(ctx, r.lab.Nodes[i].Name)
			if err == nil {
				break
			}
			if !pause(ctx, 20*time.Millisecond) {
				return err
			}
		}
	}
	return lab.AwaitHealthy(ctx, r.lab)
}

// alive says what a node lacks.
func (r *run) alive(ctx context.Context, node string) error {
	n, err := r.lab.Running(node)
	if err != nil {
		return err
	}
	if n != 2 {
		return fmt.Errorf("torture: of %s run %d processes, not a guardian and its worker: see its log", node, n)
	}
	st, err := r.lab.AskNode(ctx, node)
	if err == nil && !st.LeaseValid {
		err = fmt.Errorf("torture: %s has no lease", node)
	}
	return err
}

// finish fills in what is known at the end.
func (r *run) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.result
	res.Counts = r.counts.counts()
	res.DurationMs = time.Since(r.began).Milliseconds()
	longest, bins, binNs := r.meter.whole()
	res.LongestMs, res.LongestLinuxMs = int(longest[libraryTiming]/1e6), int(longest[linuxTiming]/1e6)
	res.Bins, res.BinMs = bins, binNs/1e6
	res.sum()
}

// evidence saves what was seen, and says where.
func (r *run) evidence() error {
	dir := r.cfg.KeepDir
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp("", "clade-torture-"); err != nil {
			return err
		}
	}
	r.result.Evidence = dir
	return r.save(dir)
}
