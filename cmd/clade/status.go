package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"clade/cluster"
	"clade/cluster/runtime"
)

const (
	statusProblemsMax = 6
	statusRowsMax     = 10
	watchEvery        = time.Second
)

func newStatusCommand() *cobra.Command {
	var t target
	var watch, events bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the cluster is well, and what is wrong, since when, and what to do",
		Long: `Say whether the cluster is well, and what is wrong, since when, and what to do.

Exit codes: 0 healthy, 3 the node does not answer, 4 degraded or down.`,
		Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return watchStatus(cmd, &t)
			}
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			if err := t.print(cmd, s, func(w io.Writer) { printStatus(w, s, events) }); err != nil {
				return err
			}
			if s.Health != "healthy" {
				return failure(exitRefused, "", "the cluster is %s", s.Health)
			}
			return nil
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second, with the speed of resyncs, until interrupted")
	cmd.Flags().BoolVar(&events, "events", false, "also show the newest events of this node")
	return cmd
}

// watchStatus repaints the status until interrupted.
func watchStatus(cmd *cobra.Command, t *target) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	w := cmd.OutOrStdout()
	rates := resyncRates{}
	for {
		s, err := t.status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if t.json {
			if err != nil {
				return err
			}
			if err := t.print(cmd, s, nil); err != nil {
				return err
			}
		} else {
			var b strings.Builder
			if err != nil {
				fmt.Fprintf(&b, "%v\n", err)
			} else {
				printStatus(&b, s, false)
				rates.print(&b, s)
			}
			if isTerminal(w) {
				fmt.Fprint(w, "\x1b[H\x1b[2J")
			}
			fmt.Fprint(w, b.String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// resyncRates remembers where each resync began to be watched, for its estimate.
type resyncRates map[string]resyncMark

type resyncMark struct {
	done int
	atMs int64
}

// print shows a bar and the time left for each resync.
func (r resyncRates) print(w io.Writer, s *runtime.Status) {
	for _, v := range s.Volumes {
		for _, x := range v.Resync {
			key := fmt.Sprintf("%s/%d", v.Address, x.Disk)
			m, ok := r[key]
			if !ok || x.Done < m.done {
				m = resyncMark{x.Done, s.NowMs}
				r[key] = m
			}
			fmt.Fprintf(w, "resync of disk %d, %s  %s %s\n", x.Disk, v.Address, bar(x.Done, x.Total, 30), timeLeft(m, x.Done, x.Total, s.NowMs))
		}
	}
}

func bar(done, total, width int) string {
	full := 0
	if total > 0 {
		full = min(width, done*width/total)
	}
	return fmt.Sprintf("[%s%s] %d/%d MiB", strings.Repeat("#", full), strings.Repeat(".", width-full), done, total)
}

func timeLeft(m resyncMark, done, total int, nowMs int64) string {
	spent := nowMs - m.atMs
	if done <= m.done || spent <= 0 {
		return ""
	}
	rate := float64(done-m.done) / float64(spent) // MiB per ms
	left := time.Duration(float64(total-done)/rate) * time.Millisecond
	return fmt.Sprintf("%.0f MiB/s, %s left", rate*1000, left.Round(time.Second))
}

// printStatus writes what fits a screen.
func printStatus(w io.Writer, s *runtime.Status, events bool) {
	leader := "none"
	if s.LeaderName != "" {
		leader = s.LeaderName
	}
	fmt.Fprintf(w, "cluster %s, shelf %d: %s\n", s.Name, s.Shelf, strings.ToUpper(s.Health))
	fmt.Fprintf(w, "leader %s; this node %s\n", leader, lease(s.LeaseValid))
	if len(s.Problems) > 0 {
		fmt.Fprintln(w)
		printProblems(w, s)
	}
	if len(s.Nodes) > 0 {
		fmt.Fprintln(w)
		printNodes(w, s, statusRowsMax)
	}
	if len(s.Volumes) > 0 {
		fmt.Fprintln(w)
		printVolumes(w, s, statusRowsMax)
	}
	if len(s.Nodes) > 0 && len(s.Disks) == 0 {
		fmt.Fprintln(w, "\nno disks yet: clade disk add PATH")
	} else if len(s.Volumes) == 0 && len(s.Disks) > 0 {
		fmt.Fprintln(w, "\nno volumes yet: clade volume create --slot 1 --size 10GiB --layout 2+1")
	}
	if !events {
		return
	}
	fmt.Fprintln(w)
	for _, e := range s.Events[max(0, len(s.Events)-20):] {
		fmt.Fprintf(w, "%s  %s\n", time.UnixMilli(e.TimeMs).Format("15:04:05.000"), eventLine(&e))
	}
}

func lease(valid bool) string {
	if valid {
		return "may serve (its lease is valid)"
	}
	return "does not serve now (no lease)"
}

func eventLine(e *runtime.HistoryEvent) string {
	parts := []string{e.Kind}
	if e.Volume != 0 {
		parts = append(parts, fmt.Sprintf("slot %d", e.Slot))
	}
	if e.Epoch != 0 {
		parts = append(parts, fmt.Sprintf("epoch %d", e.Epoch))
	}
	if e.Disk != 0 {
		parts = append(parts, fmt.Sprintf("disk %d", e.Disk))
	}
	if e.Peer != 0 {
		parts = append(parts, fmt.Sprintf("node %d", e.Peer))
	}
	line := strings.Join(parts, ", ")
	if e.Text != "" {
		line += ": " + e.Text
	}
	return line
}

// printProblems says what is wrong, since when, and what to do.
func printProblems(w io.Writer, s *runtime.Status) {
	for i, p := range s.Problems {
		if i == statusProblemsMax {
			fmt.Fprintf(w, "  and %d more: clade status --json\n", len(s.Problems)-i)
			return
		}
		since := ""
		if at, ok := s.SinceMs[p.Key]; ok && s.NowMs-at >= 1000 {
			since = fmt.Sprintf(" (for %s)", shortDuration(s.NowMs-at))
		}
		fmt.Fprintln(w, wrap("! "+p.What+since, "  ", outputColumns))
		if p.Do != "" {
			fmt.Fprintln(w, wrap("  -> "+p.Do, "     ", outputColumns))
		}
	}
}

func shortDuration(ms int64) string {
	d := (time.Duration(ms) * time.Millisecond).Round(time.Second)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Hour:
		return d.Round(time.Minute).String()[:strings.Index(d.Round(time.Minute).String(), "m")+1]
	}
	return d.String()
}

// wrap breaks a line at spaces so that no part is wider than width columns.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	col := 0
	for i, word := range strings.Split(text, " ") {
		if i > 0 {
			if col+1+len(word) > width {
				b.WriteString("\n" + indent)
				col = len(indent)
			} else {
				b.WriteByte(' ')
				col++
			}
		}
		b.WriteString(word)
		col += len(word)
	}
	return b.String()
}

func printNodes(w io.Writer, s *runtime.Status, rowsMax int) {
	tw := plainTable(w)
	tw.AppendHeader(table.Row{"NODE", "STATE", "ADDRESS", "OWNS", "SAN", "NOTE"})
	for i, n := range s.Nodes {
		if rowsMax > 0 && i == rowsMax && len(s.Nodes) > rowsMax+1 {
			tw.AppendRow(table.Row{fmt.Sprintf("+%d more", len(s.Nodes)-i), "", "see clade node list"})
			break
		}
		tw.AppendRow(table.Row{cut(n.Name, 18), n.State, cut(n.Addr, 22), n.Owns, sanText(n.Paths), cut(nodeNote(s, &n), 30)})
	}
	tw.Render()
}

func sanText(paths []cluster.PathReport) string {
	if len(paths) == 0 {
		return "-"
	}
	good := 0
	for _, p := range paths {
		if p.Carrier && p.MTUOK {
			good++
		}
	}
	return fmt.Sprintf("%d/%d", good, len(paths))
}

func nodeNote(s *runtime.Status, n *cluster.NodeStatus) string {
	var notes []string
	if n.ID == s.Self {
		notes = append(notes, "this node")
	}
	if n.ID == s.Leader {
		notes = append(notes, "leader")
	}
	if n.Witness {
		notes = append(notes, "witness")
	}
	if n.Draining {
		notes = append(notes, "draining")
	}
	return strings.Join(notes, ", ")
}

func printVolumes(w io.Writer, s *runtime.Status, rowsMax int) {
	tw := plainTable(w)
	tw.AppendHeader(table.Row{"VOLUME", "NAME", "SIZE", "LAYOUT", "HEALTH", "OWNER", "IN SYNC"})
	for i, v := range s.Volumes {
		if rowsMax > 0 && i == rowsMax && len(s.Volumes) > rowsMax+1 {
			tw.AppendRow(table.Row{fmt.Sprintf("+%d more", len(s.Volumes)-i), "see clade volume list"})
			break
		}
		owner := v.OwnerName
		if owner == "" {
			owner = "-"
		}
		tw.AppendRow(table.Row{v.Address, cut(v.Name, 24), humanize.IBytes(v.SizeBytes), v.Layout, v.Health, cut(owner, 20),
			fmt.Sprintf("%d/%d", len(v.InSync), len(v.InSync)+len(v.Stale))})
	}
	tw.Render()
}

// cut shortens a text to n columns.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n-1] + "~"
}

// waitFor asks for the status until done says so, the time is over, or the command is interrupted.
func (t *target) waitFor(ctx context.Context, limit time.Duration, done func(*runtime.Status) bool) (*runtime.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		s, err := t.status(ctx)
		if err == nil && done(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = failure(exitFailed, "See: clade status", "not done after %s", limit)
			}
			return s, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
