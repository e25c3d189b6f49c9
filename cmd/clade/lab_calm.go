package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"clade/integration/torture"
)

func (o *labOptions) calmCommand() *cobra.Command {
	var minutes float64
	cfg := torture.CalmConfig{}
	cmd := &cobra.Command{
		Use:   "calm",
		Short: "Saturate the processors, lose frames, and see that no volume moves",
		Long: `Saturate the processors, lose frames, and see that no volume moves.

Nothing fails in this run: a process for each processor burns time, some of all
frames are lost, in each direction and on both networks, and
initiators load the volumes as in 'clade lab torture'. At the default settings no
volume may change its owner over that. It prints the changes of owners, how much was
left of each lease at its worst renewal, and the longest stall. Exit code 1 if an
owner changed or anything was violated.

Frames are dropped in the kernel, by a filter on the switches' ports; netem is not
needed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if minutes <= 0 || minutes > 60*24*30 {
				return fmt.Errorf("--minutes %v: choose more than 0, at most a month", minutes)
			}
			cfg.Duration = time.Duration(minutes * float64(time.Minute))
			cfg.Spec.Name = fmt.Sprintf("calm-%d", os.Getpid())
			if cfg.Seed == 0 {
				cfg.Seed = rand.Uint64N(1e9) + 1
			}
			cfg.Loss /= 100
			ctx, cancel := labContext(cmd)
			defer cancel()
			return o.calm(ctx, cmd, cfg)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&minutes, "minutes", 10, "how long")
	f.StringVar(&cfg.Spec.Layout, "layout", "2+1", "k+m")
	f.IntVar(&cfg.Spec.Nodes, "nodes", 3, "storage nodes")
	f.IntVar(&cfg.Spec.Witnesses, "witness", 0, "further nodes without disks")
	f.IntVar(&cfg.Spec.SANPaths, "san-paths", 2, "SAN switches, and interfaces of each node")
	f.Float64Var(&cfg.Loss, "loss", 1, "per cent of all frames that are lost")
	f.IntVar(&cfg.Busy, "busy", runtime.NumCPU(), "processes that burn time")
	f.Uint64Var(&cfg.Seed, "seed", 0, "of the load (default: a new one)")
	f.StringVar(&cfg.KeepDir, "keep", "", "keep logs and results in this directory (default: only those of violations, in a new one for temporary files)")
	return cmd
}

func (o *labOptions) calm(ctx context.Context, cmd *cobra.Command, cfg torture.CalmConfig) error {
	show := newTortureProgress(cmd.ErrOrStderr())
	cfg.Tell = show.tell
	res, err := torture.Calm(ctx, cfg)
	show.finish()
	if res == nil {
		return err
	}
	if o.json {
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), res))
	} else if err == nil || len(res.Violations) > 0 {
		printCalm(cmd.OutOrStdout(), res)
	}
	if n := len(res.Violations); n > 0 {
		err = errors.Join(err, fmt.Errorf("calm: %d violations; the first: %s: %s; logs: %s", n, res.Violations[0].What, res.Violations[0].Text, res.Evidence))
	}
	return err
}

func printCalm(w io.Writer, r *torture.CalmResult) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"node", "least left of its lease", "terms that ended"})
	for _, x := range r.Leases {
		t.AppendRow(table.Row{x.Node, inMs(time.Duration(x.LeastMs) * time.Millisecond), x.Terms})
	}
	t.Render()
	c := &r.Counts
	fmt.Fprintf(w, "%s, %d busy processes, %.3g %% of the frames lost, %.0f s: owner changes: %d, leader changes: %d; longest stall %d ms (Linux timing: %d ms); %d operations, violations: %d\n",
		r.Shape, r.Busy, r.Loss*100, float64(r.DurationMs)/1000, len(r.Changes), r.Leaders, r.LongestMs, r.LongestLinuxMs, c.Operations(), len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintf(w, "VIOLATION after %.1f s: %s: %s\n", float64(v.AtMs)/1000, v.What, v.Text)
	}
}

// burnCommand is what calm starts beside the lab: it burns the time of one processor until its input ends.
func burnCommand() *cobra.Command {
	return &cobra.Command{Use: "burn", Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, cmd.InOrStdin())
			done <- err
		}()
		for n := 0; ; n++ {
			if n&0xFFFFF == 0 {
				select {
				case err := <-done:
					return err
				default:
				}
			}
		}
	}}
}
