package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/initiator/bench"
	"clade/aoe/link"
)

// benchOptions are the flags of bench, besides those that it shares with the initiator commands.
type benchOptions struct {
	initiatorOptions
	op, size, start, span    string
	readPercent, depth, macs int
	totalDepth               int
	places                   uint64
	random, sequential       bool
	seconds, warmUp          float64
	maxOut                   int
	destroy, fill            bool
	pids                     []int
}

func newBenchCommand() *cobra.Command {
	return newBenchCommandWith(&benchOptions{initiatorOptions: initiatorOptions{shelf: -1, slot: -1, isTerminal: isTerminal,
		openPort: func(name string) (link.Port, error) { return link.Open(link.Config{Interface: name, BatchFrames: 64}) }}})
}

// newBenchCommandWith builds the command over other ports.
func newBenchCommandWith(o *benchOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench e<shelf>.<slot> ...",
		Short: "Measure the speed of any AoE target",
		Long: `Measure the speed of any AoE target: Clade, vblade, ggaoed or a Coraid shelf.

A fixed number of operations is kept going; each answer begins the next one.
Nothing is cached on this side. Of several volumes each initiator uses all, and
the same span of each. Sending and receiving raw Ethernet frames needs
root or the capability CAP_NET_RAW.

Reading changes nothing. WRITING DESTROYS WHAT THE VOLUME HOLDS: --op write,
--op mixed and --fill overwrite all of the span (the whole volume, if --span
does not say less) with noise, and are refused without --destroy.

What was never written is often answered without any disk: to measure reads of
a new volume, write it first, with --fill.`,
		Example: `  clade bench -i eth1 e7.1 --depth 16
  clade bench -i eth1 e7.1 --op write --destroy --depth 16 --seconds 30
  clade bench -i eth1 e7.1 --op read --size 1MiB --sequential --depth 8
  clade bench -i eth1 e7.1 e7.2 e7.3 --macs 8 --total-depth 64
  clade bench -i eth1 e7.1 --pid 812 --pid 813 --json
  clade bench null-target -i eth1 e9.1`,
		Args: benchArgsAll,
		RunE: func(cmd *cobra.Command, args []string) error { return benchUsage(o.run(cmd, args)) },
	}
	p := cmd.PersistentFlags()
	p.StringSliceVarP(&o.interfaces, "interface", "i", nil, "network interface: a name, its MAC, or an IP prefix on it (repeat for several paths)")
	f := cmd.Flags()
	f.StringVar(&o.op, "op", "read", "read, write or mixed")
	f.StringVar(&o.size, "size", "4KiB", "of an operation: a multiple of 512 bytes, up to 1MiB")
	f.IntVar(&o.depth, "depth", 1, "operations in flight, of each initiator on each volume")
	f.IntVar(&o.totalDepth, "total-depth", 0, "operations in flight of all initiators on all volumes together, instead of --depth")
	f.IntVar(&o.macs, "macs", 1, "initiators, each with a MAC of its own")
	f.BoolVar(&o.random, "random", false, "at random places of the span (the default)")
	f.BoolVar(&o.sequential, "sequential", false, "in order; each initiator in its own part of the span")
	f.IntVar(&o.readPercent, "read-percent", 50, "reads among --op mixed")
	f.StringVar(&o.start, "start", "0", "where the span begins in the volume")
	f.StringVar(&o.span, "span", "", "how much of the volume is used (default: to its end)")
	f.Uint64Var(&o.places, "places", 0, "use only so many places, spread over the span (default: all of it)")
	f.Float64Var(&o.seconds, "seconds", 10, "how long to measure")
	f.Float64Var(&o.warmUp, "warm-up", 1, "seconds before that, which do not count")
	f.BoolVar(&o.fill, "fill", false, "write all of the span once before; needs --destroy")
	f.BoolVar(&o.destroy, "destroy", false, "yes, overwrite what the volume holds")
	f.IntVar(&o.maxOut, "max-out", 64, "frames in flight per initiator and path, at most; Linux has 64 (aoe_maxout)")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "an operation that takes longer fails the run")
	f.IntSliceVar(&o.pids, "pid", nil, "process of the target, for its CPU per I/O (repeat for all of them)")
	f.StringVar(&o.sourceMAC, "source-mac", "", "MAC address to speak as (default: the interface's own)")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.BoolVar(&o.progress, "progress", false, "show progress even if stderr is no terminal")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return benchUsage(usageError("%w", err)) })
	cmd.AddCommand(o.nullCommand())
	return cmd
}

// benchUsage sends people with wrong arguments to the right help.
func benchUsage(err error) error {
	var usage *initiatorError
	if errors.As(err, &usage) && usage.code == exitUsage {
		return &initiatorError{usage.code, usage.err, "See: clade bench --help"}
	}
	return err
}

// benchArgs wants the volume's address.
func benchArgs(cmd *cobra.Command, args []string) error {
	return benchUsage(usageArgs(cobra.ExactArgs(1))(cmd, args))
}

// benchArgsAll wants the addresses of one volume at least.
func benchArgsAll(cmd *cobra.Command, args []string) error {
	return benchUsage(usageArgs(cobra.MinimumNArgs(1))(cmd, args))
}

// config reads the flags.
func (o *benchOptions) config(args []string) (bench.Config, error) {
	var c bench.Config
	at, err := parseAddress(args[0])
	if err != nil {
		return c, err
	}
	c.Shelf, c.Slot = at.shelf, at.slot
	for _, name := range args[1:] {
		more, err := parseAddress(name)
		if err != nil {
			return c, err
		}
		c.Also = append(c.Also, bench.Volume{Shelf: more.shelf, Slot: more.slot})
	}
	if c.Op, err = bench.ParseOp(o.op); err != nil {
		return c, usageError("%w", err)
	}
	size, err := benchSize("--size", o.size)
	if err != nil {
		return c, err
	}
	c.SizeBytes = int(min(size, bench.SizeBytesMax+1))
	if c.StartBytes, err = benchSize("--start", o.start); err != nil {
		return c, err
	}
	if o.span != "" {
		if c.SpanBytes, err = benchSize("--span", o.span); err != nil {
			return c, err
		}
	}
	if o.random && o.sequential {
		return c, usageError("--random and --sequential exclude each other")
	}
	if o.macs < 1 || o.macs > 1 && o.sourceMAC != "" {
		return c, usageError("--macs %d: choose 1 or more; with --source-mac, 1", o.macs)
	}
	const hour = 3600
	if !(o.seconds > 0 && o.seconds <= 100*hour) || !(o.warmUp >= 0 && o.warmUp <= hour) || o.timeout <= 0 || o.depth == 0 {
		return c, usageError("--seconds, --timeout and --depth have to be more than 0, --warm-up not less")
	}
	c.TotalDepth, c.Places = o.totalDepth, o.places
	c.Depth, c.ReadPercent, c.Sequential, c.Fill, c.MaxOut, c.Pids = o.depth, o.readPercent, o.sequential, o.fill, o.maxOut, o.pids
	c.Seed = rand.Uint64()
	c.MeasureNs, c.WarmUpNs, c.TimeoutNs = int64(o.seconds*1e9), int64(o.warmUp*1e9), int64(o.timeout)
	if (c.Op.Writes() || c.Fill) && !o.destroy {
		what := "--op " + c.Op.String()
		if !c.Op.Writes() {
			what = "--fill"
		}
		return c, &initiatorError{exitRefused, fmt.Errorf("%s DESTROYS what %s holds; nothing was done", what, strings.Join(args, " ")), "If that is what you want, add --destroy."}
	}
	for range o.macs {
		if o.macs > 1 {
			c.MACs = append(c.MACs, initiator.NewMAC())
		}
	}
	if err := c.Validate(); err != nil {
		return c, usageError("%w", err)
	}
	return c, nil
}

// benchSize reads a number of bytes.
func benchSize(flag, s string) (uint64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil {
		return 0, usageError("%s %q: write a number with a unit, as in 4KiB", flag, s)
	}
	return n, nil
}

func (o *benchOptions) run(cmd *cobra.Command, args []string) error {
	c, err := o.config(args)
	if err != nil {
		return err
	}
	ports, mac, err := o.openPorts()
	if err != nil {
		return err
	}
	defer closePorts(ports)
	c.Ports = ports
	if len(c.MACs) == 0 {
		c.MACs = []aoe.MAC{mac}
	}
	stderr := cmd.ErrOrStderr()
	if c.Op.Writes() || c.Fill {
		fmt.Fprintf(stderr, "clade: overwriting %s: WHAT IT HOLDS IS DESTROYED\n", strings.Join(args, " "))
	}
	line := o.progress || o.isTerminal(stderr)
	if line {
		c.Tell = func(p bench.Progress) {
			fmt.Fprintf(stderr, "\r\x1b[K%-8s %3.0f %%  %s IOPS", p.Phase, 100*p.Done, humanize.Comma(int64(p.IOPS)))
		}
	}
	stop := make(chan struct{})
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-interrupts:
			close(stop)
		case <-ended:
		}
	}()
	c.Stop = stop
	result, err := bench.Run(c)
	if line {
		fmt.Fprint(stderr, "\r\x1b[K")
	}
	if err != nil {
		return explain(err)
	}
	return o.print(cmd, result, result.WriteText)
}

func closePorts(ports []link.Port) {
	for _, p := range ports {
		_ = p.Close() // the process ends
	}
}

func (o *benchOptions) nullCommand() *cobra.Command {
	var size string
	cmd := &cobra.Command{
		Use:   "null-target e<shelf>.<slot>",
		Short: "Serve a volume that answers at once and stores nothing, until interrupted",
		Long: `Serve a volume that answers every read and write at once and stores nothing.

What 'clade bench' measures against it is what the wire, the two kernels and the
initiator allow: no storage behind AoE can be faster. Reads return noise.`,
		Example: `  clade bench null-target -i eth1 e9.1`,
		Args:    benchArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return benchUsage(o.runNull(cmd, args[0], size))
		},
	}
	cmd.Flags().StringVar(&size, "size", "1GiB", "size that it claims to have")
	return cmd
}

func (o *benchOptions) runNull(cmd *cobra.Command, name, size string) error {
	at, err := parseAddress(name)
	if err != nil {
		return err
	}
	bytes, err := benchSize("--size", size)
	if err != nil {
		return err
	}
	if bytes < aoe.SectorBytes || bytes > 1<<50 {
		return usageError("--size %s: choose 512B to 1PiB", size)
	}
	if len(o.interfaces) != 1 {
		return usageError("a null target has one interface: --interface NAME")
	}
	ports, _, err := o.openPorts()
	if err != nil {
		return err
	}
	defer closePorts(ports)
	null, err := bench.NewNull(ports[0], at.shelf, at.slot, bytes)
	if err != nil {
		return explain(err)
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	ctx := commandContext(cmd)
	go func() {
		select {
		case <-interrupts:
		case <-ctx.Done():
		}
		null.Stop()
	}()
	fmt.Fprintf(cmd.ErrOrStderr(), "clade: %v answers on %s and stores nothing\n", at, ports[0].Name())
	if err := null.Serve(); err != nil {
		return explain(err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s requests answered\n", humanize.Comma(int64(null.Served())))
	return nil
}
