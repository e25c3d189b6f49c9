package initiator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"clade/aoe"
)

// Contender is one initiator in a Race and what it was told.
type Contender struct {
	MAC    aoe.MAC
	Wanted string // the string it tried to set; every contender has another
	Won    bool
	Told   string // the string in force, as its answer said
	Err    error  // neither won nor lost: no answer, or another error
	TookNs int64
}

// RaceResult is the outcome of a Race.
type RaceResult struct {
	Before     string // the string in force before; only an empty one can be won
	Contenders []Contender
	Winners    int
	Final      string // the string in force afterwards
}

// Check returns an error unless exactly one contender won, everybody was told
// the winner's string, and that is the one in force.
func (r *RaceResult) Check() error {
	for i := range r.Contenders {
		if c := &r.Contenders[i]; c.Err != nil {
			return fmt.Errorf("initiator: race: %s got no verdict: %w", c.MAC, c.Err)
		}
	}
	if r.Winners != 1 {
		return fmt.Errorf("initiator: race: %d of %d contenders were told that they won, want exactly one (the string before was %q)", r.Winners, len(r.Contenders), r.Before)
	}
	for i := range r.Contenders {
		c := &r.Contenders[i]
		if c.Told != r.Final || c.Won && c.Wanted != r.Final {
			return fmt.Errorf("initiator: race: %s wanted %q and was told %q, but %q is in force", c.MAC, c.Wanted, c.Told, r.Final)
		}
	}
	return nil
}

// Race lets n new initiators, each with a random MAC of its own, set n different
// config strings (prefix and a number) at the same moment. The arbitration of
// the protocol promises that exactly one wins; see RaceResult.Check.
func (h *Host) Race(ctx context.Context, shelf uint16, slot uint8, n int, prefix string) (*RaceResult, error) {
	if n < 1 || n > 1024 {
		return nil, fmt.Errorf("initiator: race of %d: want 1 to 1024 contenders", n)
	}
	res := &RaceResult{Contenders: make([]Contender, n)}
	clients := make([]*Client, 0, n)
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	for i := range res.Contenders {
		c, err := h.NewClient(Config{MAC: NewMAC(), Shelf: shelf, Slot: slot})
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
		before, err := c.Config(ctx, ConfigRead, nil) // makes the path known
		if err != nil {
			return nil, err
		}
		res.Before = string(before)
		res.Contenders[i] = Contender{MAC: c.MAC(), Wanted: fmt.Sprintf("%s%d", prefix, i+1)}
	}
	start := make(chan struct{})
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Add(1)
		go func() {
			defer wait.Done()
			<-start
			contend(ctx, c, &res.Contenders[i])
		}()
	}
	close(start)
	wait.Wait()
	for i := range res.Contenders {
		if res.Contenders[i].Won {
			res.Winners++
		}
	}
	final, err := clients[0].Config(ctx, ConfigRead, nil)
	res.Final = string(final)
	return res, err
}

func contend(ctx context.Context, c *Client, r *Contender) {
	from := c.host.clock()
	told, err := c.Config(ctx, ConfigSet, []byte(r.Wanted))
	r.TookNs = c.host.clock() - from
	r.Told = string(told)
	switch {
	case err == nil:
		r.Won = bytes.Equal(told, []byte(r.Wanted))
	case !errors.Is(err, ErrConfigPresent):
		r.Err = err
	}
}
