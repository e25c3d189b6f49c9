package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"clade/integration/lab"
	"clade/integration/torture"
)

// tortureOptions are the flags of lab torture.
type tortureOptions struct {
	minutes   float64
	layout    string
	nodes     int
	witnesses int
	sanPaths  int
	seed      uint64
	svg, keep string
}

// tortureShapes are what a run without --layout goes through.
var tortureShapes = []lab.Spec{{Layout: "2+1", Nodes: 3}, {Layout: "3+2", Nodes: 5}, {Layout: "1+1", Nodes: 2, Witnesses: 1}}

func (o *labOptions) tortureCommand() *cobra.Command {
	t := &tortureOptions{}
	cmd := &cobra.Command{
		Use:   "torture",
		Short: "Let a nemesis loose on a lab under load, and check everything",
		Long: `Let a nemesis loose on a lab under load, and check everything.

Nodes of a new lab are killed, paused, cut off, made deaf or mute, drained, robbed
of their power and of their disks, one after the other and two at a time, never
more than the layout bears. Meanwhile initiators read, write and verify, set config
strings and reserve. Exit code 1 if a history is not linearizable, an initiator was
told of an error, an identity changed, or health did not come back by itself; logs
and history are then kept, and the output says where.

Without --layout three shapes take turns: 2+1 on 3 nodes, 3+2 on 5, and 1+1 with a
witness; --minutes is for all of them.`,
		Example: `  clade lab torture --minutes 10
  clade lab torture --minutes 60 --layout 3+2 --nodes 5 --seed 42 --svg torture.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := labContext(cmd)
			defer cancel()
			return o.torture(ctx, cmd, t)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&t.minutes, "minutes", 10, "how long the nemesis is at work, in all")
	f.StringVar(&t.layout, "layout", "", "k+m: one shape only")
	f.IntVar(&t.nodes, "nodes", 0, "storage nodes (default k+m)")
	f.IntVar(&t.witnesses, "witness", 0, "further nodes without disks")
	f.IntVar(&t.sanPaths, "san-paths", 2, "SAN switches, and interfaces of each node")
	f.Uint64Var(&t.seed, "seed", 0, "of the plan (default: a new one)")
	f.StringVar(&t.svg, "svg", "", "write a picture of throughput and faults to this file")
	f.StringVar(&t.keep, "keep", "", "keep logs and results in this directory (default: only those of violations, in a new one for temporary files)")
	return cmd
}

// shapes returns the labs to be made.
func (t *tortureOptions) shapes() ([]lab.Spec, error) {
	if t.layout == "" {
		if t.nodes != 0 || t.witnesses != 0 {
			return nil, errors.New("--nodes and --witness go with --layout")
		}
		return tortureShapes, nil
	}
	s := lab.Spec{Layout: t.layout, Nodes: t.nodes, Witnesses: t.witnesses}
	if s.Nodes == 0 {
		var k, m int
		if _, err := fmt.Sscanf(t.layout, "%d+%d", &k, &m); err != nil {
			return nil, fmt.Errorf("--layout %q: write k+m, as in 2+1", t.layout)
		}
		s.Nodes = k + m
	}
	return []lab.Spec{s}, nil
}

func (o *labOptions) torture(ctx context.Context, cmd *cobra.Command, t *tortureOptions) error {
	shapes, err := t.shapes()
	if err != nil {
		return err
	}
	if t.minutes <= 0 || t.minutes > 60*24*30 {
		return fmt.Errorf("--minutes %v: choose more than 0, at most a month", t.minutes)
	}
	if t.seed == 0 {
		t.seed = rand.Uint64N(1e9) + 1
	}
	each := time.Duration(t.minutes * float64(time.Minute) / float64(len(shapes)))
	results := []*torture.Result{}
	show := newTortureProgress(cmd.ErrOrStderr())
	for i, s := range shapes {
		s.SANPaths = t.sanPaths // and each shape has a plan of its own
		s.Name = fmt.Sprintf("torture-%d", os.Getpid())
		cfg := torture.Config{Spec: s, Seed: t.seed + uint64(i), Duration: each, Tell: show.tell}
		if t.keep != "" {
			cfg.KeepDir = fmt.Sprintf("%s/%d-%s", t.keep, i+1, torture.Shape(s))
		}
		res, rerr := torture.Run(ctx, cfg)
		show.finish()
		if res == nil {
			return rerr
		}
		results = append(results, res)
		if !o.json && len(res.Events) > 0 {
			printTorture(cmd.OutOrStdout(), res)
		}
		if err = rerr; err != nil {
			break
		}
	}
	if t.svg != "" {
		err = errors.Join(err, writeSVG(t.svg, results))
	}
	if o.json {
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), map[string]any{"seed": t.seed, "runs": results}))
	}
	return errors.Join(err, t.verdict(results))
}

// verdict is an error if anything was violated.
func (t *tortureOptions) verdict(results []*torture.Result) error {
	for _, r := range results {
		if n := len(r.Violations); n > 0 {
			return fmt.Errorf("torture: %s, seed %d: %d violations; the first: %s: %s; logs and histories: %s", r.Shape, r.Seed, n,
				r.Violations[0].What, r.Violations[0].Text, r.Evidence)
		}
	}
	return nil
}

func writeSVG(file string, results []*torture.Result) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("--svg: %w", err)
	}
	return errors.Join(torture.WriteSVG(f, results), f.Close())
}

// printTorture prints one run.
func printTorture(w io.Writer, r *torture.Result) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.Style().Format.Header = text.FormatDefault
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}, {Number: 3, Align: text.AlignRight}, {Number: 4, Align: text.AlignRight},
		{Number: 5, Align: text.AlignRight}})
	t.AppendHeader(table.Row{"fault (" + r.Shape + ")", "times", "longest stall ms", "median stall ms", "longest, Linux timing ms"})
	for _, x := range r.Faults {
		if x.Alone == 0 { // only ever together with another one
			t.AppendRow(table.Row{x.Kind, x.Times, "-", "-", "-"})
			continue
		}
		t.AppendRow(table.Row{x.Kind, x.Times, x.LongestMs, x.MedianMs, x.LongestLinuxMs})
	}
	t.Render()
	c := &r.Counts
	fmt.Fprintf(w, "%s on %d nodes: %d faults in %.0f s; %d operations (%d reads, %d writes, %d flushes, %d control), %d of a sector checked in %d slices; violations: %d\n",
		r.Shape, r.Nodes+r.Witnesses, len(r.Events), float64(r.DurationMs)/1000, c.Operations(), c.Reads, c.Writes, c.Flushes, c.Controls, c.Checked, c.Slices, len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintf(w, "VIOLATION after %.1f s: %s: %s\n", float64(v.AtMs)/1000, v.What, v.Text)
	}
	if r.Evidence != "" {
		fmt.Fprintf(w, "logs and histories: %s\n", r.Evidence)
	}
	rerun := fmt.Sprintf("clade lab torture --layout %s --nodes %d --seed %d --minutes %.1f", r.Layout, r.Nodes, r.Seed, float64(r.DurationMs)/60000)
	if r.Witnesses > 0 {
		rerun += fmt.Sprintf(" --witness %d", r.Witnesses)
	}
	fmt.Fprintf(w, "the same plan again: %s\n\n", rerun)
}

// tortureProgress shows how far a run is: a bar on a terminal, else a line now and then.
type tortureProgress struct {
	w    io.Writer
	bar  *progressbar.ProgressBar
	said time.Time
	tty  bool
}

const tortureLineEvery = 15 * time.Second

func newTortureProgress(w io.Writer) *tortureProgress {
	return &tortureProgress{w: w, tty: isTerminal(w)}
}

func (p *tortureProgress) tell(x torture.Progress) {
	line := fmt.Sprintf("%s: %d faults, %d operations, %d violations; %s", x.Shape, x.Faults, x.Operations, x.Violations, x.Now)
	if !p.tty {
		if time.Since(p.said) >= tortureLineEvery {
			p.said = time.Now()
			fmt.Fprintf(p.w, "%4.0f of %.0f s  %s\n", x.Elapsed.Seconds(), x.Duration.Seconds(), line)
		}
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(x.Duration.Milliseconds(), progressbar.OptionSetWriter(p.w), progressbar.OptionSetWidth(20),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false))
	}
	p.bar.Describe(line)
	_ = p.bar.Set64(x.Elapsed.Milliseconds()) // a bar that cannot be drawn is no reason to stop
}

func (p *tortureProgress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
	p.said = time.Time{}
}
