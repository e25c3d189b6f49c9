package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"clade/aoe/initiator"
)

const (
	probeBytes = 4096
	probeWarm  = 300 // writes after which the retransmission timer of the Linux driver has come down from 16.5 s
)

// probed is a line of probe's result.
type probed struct {
	UnixMs    int64   `json:"unix_ms"` // when this interval ended
	Writes    int64   `json:"writes"`  // answered so far
	Warm      bool    `json:"warm"`    // stalls mean something from here on
	LongestMs float64 `json:"longest_ms"`
	LinuxMs   float64 `json:"linux_ms"`
}

// prober writes one block again and again and remembers the longest wait of the present interval. A write that still waits
// when an interval ends counts in it and, with its whole time, in those that follow.
type prober struct {
	client *initiator.Client
	off    int64
	pause  time.Duration

	mu        sync.Mutex
	writes    int64
	longestNs int64
	beganNs   int64 // of the write under way; 0: none
}

// run writes until ctx ends, which is no error. The volume may be silent for as long as it likes.
func (p *prober) run(ctx context.Context) error {
	data := make([]byte, probeBytes)
	for i := 0; ctx.Err() == nil; i++ {
		data[i%probeBytes]++
		p.begin(initiator.BootNs())
		err := p.client.WriteAt(ctx, data, p.off)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		p.answered(initiator.BootNs())
		select {
		case <-time.After(p.pause):
		case <-ctx.Done():
		}
	}
	return nil
}

func (p *prober) begin(nowNs int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beganNs = nowNs
}

func (p *prober) answered(nowNs int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longestNs = max(p.longestNs, nowNs-p.beganNs)
	p.beganNs = 0
	p.writes++
}

// take returns the number of writes so far and the longest wait of the interval that ends now.
func (p *prober) take(nowNs int64) (writes, longestNs int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	longestNs, p.longestNs = p.longestNs, 0
	if p.beganNs != 0 {
		longestNs = max(longestNs, nowNs-p.beganNs)
	}
	return p.writes, longestNs
}

func (o *initiatorOptions) probeCommand() *cobra.Command {
	var offset string
	var every, pause time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "probe e<shelf>.<slot>",
		Short: "Write one block again and again, and say how long the volume stands still",
		Long: `Write one block again and again, and say how long the volume stands still: the
longest that a write had to wait in each interval, once with this library's
timing and once with that of the Linux driver.

It overwrites 8 KiB of the volume, from --offset on. It waits for a volume that does
not answer, also at the start, and ends when it is interrupted.`,
		Example: "  clade initiator probe -i eth1 e7.1 --offset 1GiB",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			off, err := parseBytes("offset", offset)
			if err != nil {
				return err
			}
			if off%probeBytes != 0 || every <= 0 || pause < 0 || count < 0 {
				return usageError("--offset %s, --every %s, --pause %s, --count %d: want a multiple of 4KiB, and no negative numbers", offset, every, pause, count)
			}
			return o.withClient(args, func(s *session, c *initiator.Client) error {
				shelf, slot := c.Address()
				linux, err := s.host.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: shelf, Slot: slot, Mode: initiator.ModeLinux})
				if err != nil {
					return err
				}
				return o.probe(cmd, [2]*prober{{client: c, off: off, pause: pause}, {client: linux, off: off + probeBytes, pause: pause}}, every, count)
			})
		},
	}
	cmd.Flags().StringVar(&offset, "offset", "", "where to write, in bytes")
	cmd.Flags().DurationVar(&every, "every", time.Second, "an interval")
	cmd.Flags().DurationVar(&pause, "pause", 5*time.Millisecond, "between two writes")
	cmd.Flags().IntVar(&count, "count", 0, "end after so many intervals (default: when interrupted)")
	_ = cmd.MarkFlagRequired("offset") // fails only for a flag that does not exist
	return cmd
}

// probe waits for the volume, then prints a line for each interval.
func (o *initiatorOptions) probe(cmd *cobra.Command, both [2]*prober, every time.Duration, count int) error {
	ctx, stop := signal.NotifyContext(commandContext(cmd), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, p := range both {
		if err := awaitVolume(ctx, p.client); err != nil || ctx.Err() != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	for _, p := range both {
		running.Go(func() {
			if err := p.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
		if err := o.printProbed(cmd, both); err != nil || n == count {
			return err
		}
	}
}

// awaitVolume asks a volume for its identity until it answers or ctx ends, which is no error.
func awaitVolume(ctx context.Context, c *initiator.Client) error {
	for {
		once, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.Identify(once)
		cancel()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, initiator.ErrTimeout) {
			return err
		}
	}
}

// printProbed prints the interval that ends now, as one line.
func (o *initiatorOptions) printProbed(cmd *cobra.Command, both [2]*prober) error {
	now := initiator.BootNs()
	writes, longest := both[0].take(now)
	linuxWrites, linux := both[1].take(now)
	l := probed{UnixMs: time.Now().UnixMilli(), Writes: writes + linuxWrites, Warm: min(writes, linuxWrites) >= probeWarm, LongestMs: ms(longest), LinuxMs: ms(linux)}
	w := cmd.OutOrStdout()
	if o.json {
		return json.NewEncoder(w).Encode(l)
	}
	warm := ""
	if !l.Warm {
		warm = "  (not warm yet)"
	}
	_, err := fmt.Fprintf(w, "%s  longest wait %7.1f ms, with Linux timing %7.1f ms, %d writes%s\n", time.UnixMilli(l.UnixMs).Format("15:04:05.000"), l.LongestMs, l.LinuxMs, l.Writes, warm)
	return err
}
