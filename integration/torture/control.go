package torture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"clade/aoe/initiator"
	"clade/integration/lab"
)

// control is the traffic of a slot that has no load: config strings and reservations, through everything that happens.
type control struct {
	host   *lab.Host
	shelf  uint16
	slot   uint8
	rnd    *rand.Rand
	counts *counters
	io     context.Context
	bad    func(what string, err error)
}

const (
	controlEvery = 400 * time.Millisecond
	racers       = 4
)

// renewEach is after how many changes the initiators get new MACs: a cluster remembers 64 control requests of a MAC for a minute
// or more, and is silent to one that makes more of them (docs/protocol.md, C20).
const renewEach = 12

// run works until ctx ends or something is wrong.
func (c *control) run(ctx context.Context) {
	var all [3]*initiator.Client
	var err error
	defer func() { closeAll(all[:]) }()
	for n := 0; err == nil && ctx.Err() == nil; n++ {
		if n%renewEach == 0 {
			closeAll(all[:])
			if all, err = c.open(); err != nil {
				break
			}
		}
		a, b, out := all[0], all[1], all[2]
		do, cancel := context.WithTimeout(c.io, opMax)
		switch c.rnd.IntN(3) {
		case 0:
			err = c.config(do, a, b, n)
		case 1:
			err = c.race(do, a)
		default:
			err = c.reserve(do, a, b, out, n)
		}
		cancel()
		if err == nil {
			c.counts.controls.Add(1)
		}
		pause(ctx, controlEvery)
	}
	if err != nil && c.io.Err() == nil {
		c.bad("config strings and reservations", fmt.Errorf("slot %d: %w", c.slot, err))
	}
}

func closeAll(clients []*initiator.Client) {
	for _, x := range clients {
		if x != nil {
			_ = x.Close() // nothing is under way
		}
	}
}

func (c *control) open() ([3]*initiator.Client, error) {
	var all [3]*initiator.Client
	for i := range all {
		var err error
		if all[i], err = c.host.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: c.shelf, Slot: c.slot}); err != nil {
			return all, err
		}
	}
	return all, nil
}

// config sets a string; it is what anybody reads.
func (c *control) config(ctx context.Context, a, b *initiator.Client, n int) error {
	want := fmt.Appendf(nil, "torture-%d", n)
	told, err := a.Config(ctx, initiator.ConfigForceSet, want)
	if err != nil {
		return err
	}
	if !bytes.Equal(told, want) {
		return fmt.Errorf("config string set to %q, the answer says %q", want, told)
	}
	read, err := b.Config(ctx, initiator.ConfigRead, nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(read, want) {
		return fmt.Errorf("config string set to %q, then read as %q", want, read)
	}
	return nil
}

// race lets several set it at once where there is none: exactly one wins.
func (c *control) race(ctx context.Context, a *initiator.Client) error {
	if _, err := a.Config(ctx, initiator.ConfigForceSet, nil); err != nil {
		return err
	}
	res, err := c.host.Race(ctx, c.shelf, c.slot, racers, "racer-")
	if err != nil {
		return err
	}
	return res.Check()
}

// reserve gives the volume to a and b: out is refused, b reads what a wrote, and released it is open to all.
func (c *control) reserve(ctx context.Context, a, b, out *initiator.Client, n int) error {
	if _, err := a.Reserve(ctx, initiator.ReserveSet, a.MAC(), b.MAC()); err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	want := bytes.Repeat([]byte{byte(n)}, 4096)
	if err := a.WriteAt(ctx, want, 0); err != nil {
		return fmt.Errorf("reserved, written by its holder: %w", err)
	}
	if err := out.WriteAt(ctx, make([]byte, 4096), 0); !errors.Is(err, initiator.ErrReserved) {
		return fmt.Errorf("reserved by others, yet a write was answered: %w", errOr(err))
	}
	got := make([]byte, len(want))
	if err := b.ReadAt(ctx, got, 0); err != nil {
		return fmt.Errorf("reserved, read by its other holder: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("a reserved volume holds other bytes than its holder wrote: %#x, want %#x", got[0], want[0])
	}
	if _, err := b.Reserve(ctx, initiator.ReserveSet); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := out.ReadAt(ctx, got, 0); err != nil {
		return fmt.Errorf("released, read by another one: %w", err)
	}
	return nil
}

// errSuccess stands for the answer that should not have been.
var errSuccess = errors.New("success")

func errOr(err error) error {
	if err == nil {
		return errSuccess
	}
	return err
}
