package initiator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"clade/aoe"
)

// Client is one initiator's session with one volume, with calls that block. All
// methods may be called by any goroutine; operations of concurrent calls run
// concurrently, as on a disk.
type Client struct {
	host *Host
	mac  aoe.MAC

	mu      sync.Mutex // guards the device and what follows
	dev     *Device
	timer   *time.Timer
	armedNs int64 // when the timer fires; never if it does not
	dirty   bool  // received since the last flush
	closed  bool
}

// NewClient starts a session. cfg.MTUs is taken from the ports; a TagSeed of 0
// is replaced by a random one, so that a new process never looks like a
// retransmission of an old one. cfg.OnSend is called with the session locked.
func (h *Host) NewClient(cfg Config) (*Client, error) {
	if cfg.MAC == (aoe.MAC{}) || cfg.MAC[0]&1 != 0 {
		return nil, fmt.Errorf("initiator: %s is no source address", cfg.MAC)
	}
	if cfg.Shelf == shelfAll || cfg.Slot == slotAll {
		return nil, fmt.Errorf("initiator: e%d.%d is a wildcard, not a volume", cfg.Shelf, cfg.Slot)
	}
	cfg.MTUs = h.mtus()
	if cfg.TagSeed == 0 {
		cfg.TagSeed = randomSeed()
	}
	c := &Client{host: h, mac: cfg.MAC, dev: NewDevice(cfg), armedNs: never}
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.join(cfg.MAC); err != nil {
		return nil, err
	}
	h.change(func(t *routeTable) {
		t.byMAC[cfg.MAC] = append(t.byMAC[cfg.MAC], c)
		t.all = append(t.all, c)
	})
	return c, nil
}

// Close ends the session: its operations end with ErrDown.
func (c *Client) Close() error {
	h := c.host
	h.mu.Lock()
	defer h.mu.Unlock()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.timer.Stop()
	c.dev.Down(h.clock())
	c.act()
	c.mu.Unlock()
	h.change(func(t *routeTable) {
		t.byMAC[c.mac] = without(t.byMAC[c.mac], c)
		t.all = without(t.all, c)
	})
	return h.leave(c.mac)
}

func without[T comparable](list []T, x T) []T {
	kept := list[:0]
	for _, v := range list {
		if v != x {
			kept = append(kept, v)
		}
	}
	return kept
}

// MAC returns the source address of the session.
func (c *Client) MAC() aoe.MAC { return c.mac }

// Address returns the volume's shelf and slot.
func (c *Client) Address() (shelf uint16, slot uint8) { return c.dev.Address() }

// Stats returns the session's counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dev.Stats(c.host.clock())
}

// Paths lists the ways to the volume that are known.
func (c *Client) Paths() []PathInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dev.Paths()
}

// Do runs one operation and returns its error. The context's deadline ends it
// with ErrTimeout, its cancellation with ErrCanceled; the op's own DeadlineNs
// holds too. A write that ends so may still be executed later.
func (c *Client) Do(ctx context.Context, op *Op) error {
	if until, ok := ctx.Deadline(); ok {
		ns := c.host.clock() + max(1, int64(time.Until(until)))
		if op.DeadlineNs == 0 || ns < op.DeadlineNs {
			op.DeadlineNs = ns
		}
	}
	wake := make(chan struct{})
	c.mu.Lock()
	op.wake = wake
	c.dev.Submit(c.host.clock(), op)
	c.act()
	c.mu.Unlock()
	select {
	case <-wake:
		return op.Err
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// The device has the same deadline; its timer is the one that counts,
		// but it must not be waited for.
		c.end(op, ErrTimeout)
	} else {
		c.end(op, ErrCanceled)
	}
	<-wake
	return op.Err
}

// end gives an operation up, unless it is done.
func (c *Client) end(op *Op, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dev.Cancel(c.host.clock(), op)
	if errors.Is(op.Err, ErrCanceled) {
		op.Err = err
	}
	c.act()
}

// receive takes a frame; it says whether the client has to be flushed for it and
// was not marked for that before.
func (c *Client) receive(iface int, frame []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.dev.Receive(c.host.clock(), iface, frame)
	was := c.dirty
	c.dirty = true
	return !was
}

func (c *Client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.act()
}

func (c *Client) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armedNs = never
	if !c.closed {
		c.dev.Tick(c.host.clock())
		c.act()
	}
}

// act carries out what the device wants. The session is locked.
func (c *Client) act() {
	c.dirty = false
	e := c.dev.Take()
	c.host.send(e.Frames)
	for _, op := range e.Done {
		if op.wake != nil {
			close(op.wake)
			op.wake = nil
		}
	}
	// The timer is only ever moved forward: one that fires too early costs
	// less than one that is set for every frame.
	if next := e.NextTickNs; next < c.armedNs && !c.closed {
		c.armedNs = next
		c.timer.Reset(time.Duration(max(0, next-c.host.clock())))
	}
}
