package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
)

// RunConfig describes a run of several initiators against one volume.
type RunConfig struct {
	Host     *initiator.Host
	Shelf    uint16
	Slot     uint8
	Clients  int // each with a MAC of its own; default 4
	Depth    int // operations that a client has in flight; default 4
	Workload WorkloadConfig
	Seed     uint64
	// Client is the template of the sessions; MAC, Shelf and Slot are filled in.
	Client initiator.Config
	// OpTimeout ends an operation that is not answered; its write stays open in
	// the history. Default 30 s.
	OpTimeout time.Duration
	// Operations ends the run after so many in all; 0 = when the context ends.
	Operations int64
	// Recorder takes the history; nil = a new one.
	Recorder *Recorder
}

// Summary is what a run did. Check its Recorder's Records.
type Summary struct {
	Recorder    *Recorder
	Reads       int64
	Writes      int64
	Open        int64 // not answered
	Failed      int64 // answered with an error
	FirstError  error // of Failed
	Resent      uint64
	LongestNs   int64 // the longest stall of any client
	Latency     initiator.Histogram
	DurationNs  int64
	DamagedRead int // sectors
}

func (c *RunConfig) fill() {
	if c.Clients <= 0 {
		c.Clients = 4
	}
	if c.Depth <= 0 {
		c.Depth = 4
	}
	if c.OpTimeout <= 0 {
		c.OpTimeout = 30 * time.Second
	}
	if c.Recorder == nil {
		c.Recorder = NewRecorder(false)
	}
}

// Run loads a volume until the context ends or all operations are done, and
// returns what happened. The end of the context is no error. Operations that
// are in flight then are finished or time out; those not answered within two
// more seconds stay open.
func Run(ctx context.Context, cfg RunConfig) (*Summary, error) {
	cfg.fill()
	r := &runner{cfg: cfg, sum: &Summary{Recorder: cfg.Recorder}}
	r.left.Store(cfg.Operations)
	startNs := initiator.BootNs()
	var clients []*initiator.Client
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	for i := 0; i < cfg.Clients; i++ {
		c, err := r.newClient()
		if err != nil {
			return nil, fmt.Errorf("load: client %d: %w", i, err)
		}
		clients = append(clients, c)
	}
	// Operations outlive the run a little: an answer that is on its way makes
	// the history stronger.
	io, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(2*time.Second, cancel) })
	defer stop()
	var wait sync.WaitGroup
	for i, c := range clients {
		load := &lockedWorkload{w: NewWorkload(cfg.Workload, i, cfg.Seed)}
		for range cfg.Depth {
			wait.Add(1)
			go func() {
				defer wait.Done()
				r.work(ctx, io, c, i, load)
			}()
		}
	}
	wait.Wait()
	s := r.sum
	for _, c := range clients {
		st := c.Stats()
		s.Resent += st.Resent
		s.LongestNs = max(s.LongestNs, st.LongestStallNs)
		s.Latency.Merge(&st.Latency)
	}
	s.DurationNs = initiator.BootNs() - startNs
	s.DamagedRead = cfg.Recorder.DamagedSectors()
	return s, nil
}

type runner struct {
	cfg  RunConfig
	left atomic.Int64
	mu   sync.Mutex
	sum  *Summary
}

// newClient makes a session whose copies are recorded.
func (r *runner) newClient() (*initiator.Client, error) {
	cfg := r.cfg.Client
	mac := initiator.NewMAC()
	if cfg.MAC != (aoe.MAC{}) && r.cfg.Clients == 1 {
		mac = cfg.MAC
	}
	cfg.MAC, cfg.Shelf, cfg.Slot = mac, r.cfg.Shelf, r.cfg.Slot
	cfg.OnSend = func(c initiator.Copy) { r.cfg.Recorder.Sent(mac, c) }
	return r.cfg.Host.NewClient(cfg)
}

type lockedWorkload struct {
	mu sync.Mutex
	w  *Workload
}

func (l *lockedWorkload) next() Operation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Next()
}

// work runs one operation after the other.
func (r *runner) work(ctx, io context.Context, c *initiator.Client, client int, load *lockedWorkload) {
	for ctx.Err() == nil {
		if r.cfg.Operations > 0 && r.left.Add(-1) < 0 {
			return
		}
		next := load.next()
		// A fresh buffer each time: one that timed out must not change under
		// a frame that is being sent.
		data := make([]byte, next.Sectors*SectorBytes)
		op := &initiator.Op{Kind: initiator.OpRead, LBA: next.LBA, Data: data}
		if next.Write {
			op.Kind = initiator.OpWrite
			Fill(data, next.Value, next.LBA)
		}
		nowNs := initiator.BootNs()
		rec := r.cfg.Recorder.Begin(nowNs, client, next.Write, next.LBA, next.Sectors, next.Value)
		op.User = rec
		op.DeadlineNs = nowNs + int64(r.cfg.OpTimeout)
		err := c.Do(io, op)
		status := StatusOf(err)
		r.cfg.Recorder.End(initiator.BootNs(), rec, status, data)
		r.count(next.Write, status, err)
	}
}

// StatusOf says how an operation with this error ended.
func StatusOf(err error) Status {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, initiator.ErrTimeout), errors.Is(err, initiator.ErrCanceled), errors.Is(err, initiator.ErrDown):
		return Open
	}
	return Failed
}

func (r *runner) count(write bool, status Status, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case status == Open:
		r.sum.Open++
	case status == Failed:
		r.sum.Failed++
		if r.sum.FirstError == nil {
			r.sum.FirstError = err
		}
	case write:
		r.sum.Writes++
	default:
		r.sum.Reads++
	}
}
