package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"clade/aoe/initiator"
	"clade/aoe/initiator/load"
	"clade/integration/lab"
)

// What the initiators of a slot do.
const (
	regionSectors = 8192 // the range of a slice
	maxSectors    = 48   // of an operation: three frames of 16
	regionsOfSlot = 6
	sessions      = 4 // of each slot; the last one has the Linux driver's timing
	depth         = 2 // operations in flight of each
	opMax         = 150 * time.Second
	flushOneIn    = 64
	sweepSectors  = 64
)

// Counts is what initiators did.
type Counts struct {
	Reads    int64 `json:"reads"`
	Writes   int64 `json:"writes"`
	Flushes  int64 `json:"flushes"`
	Controls int64 `json:"controls"` // config strings, reservations, IDENTIFY
	Checked  int64 `json:"checked"`  // operations on sectors whose order was decided
	Slices   int64 `json:"slices"`
}

type counters struct{ reads, writes, flushes, controls, checked, slices atomic.Int64 }

func (c *counters) counts() Counts {
	return Counts{Reads: c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(), Controls: c.controls.Load(),
		Checked: c.checked.Load(), Slices: c.slices.Load()}
}

// traffic loads one slot, slice after slice.
type traffic struct {
	host   *lab.Host
	shelf  uint16
	slot   uint8
	seed   uint64
	slice  time.Duration
	meter  *meter
	counts *counters
	worker int // the first number for the meter
	bad    func(what string, err error, evidence []*load.Record)

	io      context.Context // ends when the run is given up: what waits then is no error
	clients [sessions]*initiator.Client
	sweeper *initiator.Client // reads whole ranges
	rec     atomic.Pointer[load.Recorder]
	regions [regionsOfSlot]region
}

// region is what is known of a range between two slices of it.
type region struct {
	values  []load.Value   // per sector, as read when nothing was under way; nil: zeros
	carried []*load.Record // writes that were never answered: they may come at any time
}

// passed is a slice whose load is over, and whose late copies are still under way.
type passed struct {
	rec    *load.Recorder
	region int
}

// run loads the slot until ctx ends, checks all slices, and returns when that is done.
func (t *traffic) run(ctx context.Context) {
	defer t.close()
	var last *passed
	var settling sync.WaitGroup
	for n := 0; ctx.Err() == nil; n++ {
		if err := t.renew(n); err != nil {
			t.bad("initiator", err, nil)
			return
		}
		now := &passed{rec: load.NewRecorder(false), region: n % regionsOfSlot}
		t.rec.Store(now.rec)
		t.load(ctx, n, now)
		settling.Wait()
		if before := last; before != nil {
			settling.Go(func() { t.settle(before) }) // beside the next slice
		}
		last = now
	}
	settling.Wait()
	if last == nil || t.io.Err() != nil {
		return
	}
	select {
	case <-time.After(copyLife): // nothing else comes between the last slice and its reading
		t.settle(last)
	case <-t.io.Done():
	}
}

func (t *traffic) close() {
	for _, c := range append(t.clients[:], t.sweeper) {
		if c != nil {
			_ = c.Close() // nothing is under way
		}
	}
}

// copyLife is how long a copy of a frame can be under way: nodes drop what is older than 100 ms, by the kernel's receive time.
const copyLife = time.Second

// renew opens the sessions: all of them first, later one in turn has its MAC changed.
func (t *traffic) renew(n int) error {
	if t.sweeper == nil {
		c, err := t.host.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: t.shelf, Slot: t.slot})
		if err != nil {
			return err
		}
		t.sweeper = c
	}
	for i := range t.clients {
		if t.clients[i] != nil {
			// The Linux driver's timer starts at 16 s: that session lives on.
			if i == sessions-1 || n%(sessions-1) != i {
				continue
			}
			if err := t.clients[i].Close(); err != nil {
				return err
			}
		}
		cfg := initiator.Config{MAC: initiator.NewMAC(), Shelf: t.shelf, Slot: t.slot}
		if i == sessions-1 {
			cfg.Mode = initiator.ModeLinux
		}
		mac := cfg.MAC
		cfg.OnSend = func(c initiator.Copy) { t.rec.Load().Sent(mac, c) }
		c, err := t.host.NewClient(cfg)
		if err != nil {
			return err
		}
		t.clients[i] = c
	}
	return nil
}

// timingOf returns the timing of a session.
func timingOf(session int) timing {
	if session == sessions-1 {
		return linuxTiming
	}
	return libraryTiming
}

// load is one slice: all sessions at once, until its time is over and everything is answered.
func (t *traffic) load(ctx context.Context, n int, p *passed) {
	ctx, cancel := context.WithTimeout(ctx, t.slice)
	defer cancel()
	var wg sync.WaitGroup
	for i, c := range t.clients {
		cfg := load.WorkloadConfig{BaseLBA: uint64(p.region) * regionSectors, Sectors: regionSectors, MaxSectors: maxSectors, HotPercent: 20, HotSectors: 256}
		// A number of its own for each session of each slice makes every value unique.
		client := n*sessions + i
		work := &workload{w: load.NewWorkload(cfg, client, t.seed)}
		for d := range depth {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(t.seed, uint64(client)<<8|uint64(d)))
				for ctx.Err() == nil {
					if rnd.IntN(flushOneIn) == 0 {
						t.flush(c)
					}
					t.do(c, p.rec, client, i*depth+d, timingOf(i), work.next())
				}
			})
		}
	}
	wg.Wait()
	t.counts.slices.Add(1)
}

type workload struct {
	mu sync.Mutex
	w  *load.Workload
}

func (w *workload) next() load.Operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Next()
}

// do does one operation and records it.
func (t *traffic) do(c *initiator.Client, rec *load.Recorder, client, worker int, tm timing, next load.Operation) {
	data := make([]byte, next.Sectors*load.SectorBytes)
	op := &initiator.Op{Kind: initiator.OpRead, LBA: next.LBA, Data: data}
	count := &t.counts.reads
	if next.Write {
		op.Kind, count = initiator.OpWrite, &t.counts.writes
		load.Fill(data, next.Value, next.LBA)
	}
	now := initiator.BootNs()
	r := rec.Begin(now, client, next.Write, next.LBA, next.Sectors, next.Value)
	op.User, op.DeadlineNs = r, now+int64(opMax)
	t.meter.begin(t.worker+worker, tm, now)
	err := c.Do(t.io, op)
	now = initiator.BootNs()
	t.meter.end(t.worker+worker, now)
	rec.End(now, r, load.StatusOf(err), data)
	if t.io.Err() != nil {
		return
	}
	if err != nil {
		t.bad("an initiator was told of an error", fmt.Errorf("slot %d: %s of %d sectors at LBA %d: %w", t.slot, op.Kind, next.Sectors, next.LBA, err), nil)
		return
	}
	count.Add(1)
}

func (t *traffic) flush(c *initiator.Client) {
	ctx, cancel := context.WithTimeout(t.io, opMax)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		if t.io.Err() != nil {
			return
		}
		t.bad("an initiator was told of an error", fmt.Errorf("slot %d: flush: %w", t.slot, err), nil)
		return
	}
	t.counts.flushes.Add(1)
}

// settle reads the whole range of a slice that is long over, decides its history with that, and keeps what the next slice of
// the range starts from.
func (t *traffic) settle(p *passed) {
	reg := &t.regions[p.region]
	base := uint64(p.region) * regionSectors
	values := make([]load.Value, 0, regionSectors)
	for at := uint64(0); at < regionSectors; at += sweepSectors {
		data := make([]byte, sweepSectors*load.SectorBytes)
		now := initiator.BootNs()
		r := p.rec.Begin(now, 0, false, base+at, sweepSectors, load.Zeros)
		err := t.sweeper.Do(t.io, &initiator.Op{Kind: initiator.OpRead, LBA: base + at, Data: data, DeadlineNs: now + int64(opMax)})
		p.rec.End(initiator.BootNs(), r, load.StatusOf(err), data)
		if t.io.Err() != nil {
			return
		}
		if err != nil {
			t.bad("an initiator was told of an error", fmt.Errorf("slot %d: read of all: %w", t.slot, err), nil)
			return
		}
		values = append(values, r.Values...)
	}
	before := reg.values
	records := append(reg.carried, p.rec.Records()...)
	res := load.Check(records, load.Options{Initial: func(lba uint64) load.Value {
		if before == nil {
			return load.Zeros
		}
		return before[lba-base]
	}})
	t.counts.checked.Add(int64(res.Operations))
	if err := res.Err(); err != nil {
		t.bad("a history that no disk could have", fmt.Errorf("slot %d: %w", t.slot, err), records)
	}
	reg.values, reg.carried = values, nil
	for _, r := range records {
		if r.Write && r.Status != load.OK {
			reg.carried = append(reg.carried, r)
		}
	}
}
