package lab

import (
	"context"
	"fmt"
	"sync"
	"time"

	"clade/aoe/initiator"
)

// WarmUpWrites is how many writes an initiator must have made before its stalls mean anything: the retransmission timer of the
// Linux driver starts at 16.5 s, and a frame lost early waits for that.
const WarmUpWrites = 300

const probeBytes = 4096

// Prober writes one block after the other, always the same one, and remembers how long the longest write took: what a
// program notices that waits for its disk. Any goroutine may call its methods.
type Prober struct {
	client *initiator.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	writes    int64
	longestNs int64
	beganNs   int64 // of the write under way
	err       error
}

// StartProber starts an initiator with a MAC of its own that writes at a byte offset. mode says whose timing it has.
func StartProber(ctx context.Context, h *Host, shelf uint16, slot uint8, off int64, mode initiator.Mode) (*Prober, error) {
	c, err := h.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: shelf, Slot: slot, Mode: mode})
	if err != nil {
		return nil, fmt.Errorf("lab: prober: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Prober{client: c, cancel: cancel, done: make(chan struct{})}
	go p.run(ctx, off)
	return p, nil
}

// StartLinuxProber is StartProber with the timing of the Linux driver.
func StartLinuxProber(ctx context.Context, h *Host, shelf uint16, slot uint8, off int64) (*Prober, error) {
	return StartProber(ctx, h, shelf, slot, off, initiator.ModeLinux)
}

func (p *Prober) run(ctx context.Context, off int64) {
	defer close(p.done)
	data := make([]byte, probeBytes)
	for i := 0; ctx.Err() == nil; i++ {
		data[i%probeBytes]++
		now := initiator.BootNs()
		p.mu.Lock()
		p.beganNs = now
		p.mu.Unlock()
		err := p.client.WriteAt(ctx, data, off)
		took := initiator.BootNs() - now
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		p.longestNs = max(p.longestNs, took)
		p.beganNs = 0
		p.writes++
		if err != nil {
			p.err = err
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Reset forgets the longest stall so far.
func (p *Prober) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longestNs = 0
}

// Longest returns the longest stall since Reset, that of a write which still waits included.
func (p *Prober) Longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	ns := p.longestNs
	if p.beganNs != 0 {
		ns = max(ns, initiator.BootNs()-p.beganNs)
	}
	return time.Duration(ns)
}

// Await waits until n more writes are done.
func (p *Prober) Await(ctx context.Context, n int64) error {
	p.mu.Lock()
	until := p.writes + n
	p.mu.Unlock()
	for {
		p.mu.Lock()
		writes, err := p.writes, p.err
		p.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("lab: prober: %w", err)
		case writes >= until:
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("lab: prober: %d of %d writes were answered: %w", n-(until-writes), n, ctx.Err())
		}
	}
}

// Close ends the prober.
func (p *Prober) Close() error {
	p.cancel()
	<-p.done
	return p.client.Close()
}
