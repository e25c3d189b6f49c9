package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clade/aoe/initiator/bench"
)

// lookAround describes the machine. What cannot be found out stays empty.
func lookAround(ctx context.Context, dir string) machine {
	m := machine{Processors: runtime.NumCPU(), When: time.Now().UTC().Format("2006-01-02 15:04 UTC")}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	raw, _ := os.ReadFile("/proc/cpuinfo") // as much as there is
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	raw, _ = os.ReadFile("/proc/loadavg")
	m.LoadBefore = strings.Join(strings.Fields(string(raw))[:min(3, len(strings.Fields(string(raw))))], " ")
	if out, err := command(ctx, "df", "--output=source,fstype", dir); err == nil {
		if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); len(lines) == 2 {
			m.FileSystem = strings.Join(strings.Fields(lines[1]), " ")
		}
	}
	if out, err := command(ctx, "git", "describe", "--always", "--dirty"); err == nil {
		m.Revision = strings.TrimSpace(string(out))
	}
	return m
}

// number prints a value with three or four digits that say something.
func number(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	switch {
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// grid is a Markdown table in the making.
type grid struct {
	b       strings.Builder
	columns int
}

func newGrid(heads ...string) *grid {
	g := &grid{columns: len(heads)}
	g.row(heads...)
	g.b.WriteString("|---|" + strings.Repeat("---:|", len(heads)-1) + "\n")
	return g
}

func (g *grid) row(cells ...string) { g.b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }

// byColumn makes a table with a line for each row that has anything, in which cell says what is in each column.
func byColumn(t *table, cell func(row string, l *load) string) string {
	heads := []string{""}
	for i := range loads {
		heads = append(heads, loads[i].title)
	}
	g := newGrid(heads...)
	for _, row := range allRows {
		if len(t.Cells[row]) == 0 {
			continue
		}
		cells := []string{row}
		something := false
		for i := range loads {
			c := cell(row, &loads[i])
			something = something || c != "-"
			cells = append(cells, c)
		}
		if something {
			g.row(cells...)
		}
	}
	return g.b.String()
}

// ratio is the rate of a row against that of another.
func ratio(t *table, row, of, col string) string {
	a, ok := t.rate(row, col)
	b, ok2 := t.rate(of, col)
	if !ok || !ok2 || b == 0 || row == of {
		return "-"
	}
	return number(a / b)
}

// limitOf is what the disk can do of the kind that a column does: the physical limit that no target of one disk can pass. Writes at
// depth 1 are held against three appends in parallel, since three nodes of a lab share one disk.
var limitOf = map[string]string{"w1": limitAppend3, "w16": limitDsync16, "w64": limitDsync16, "d1": limitRead1, "d16": limitRead16, "d64": limitRead64,
	"sw": limitBigWrite, "sr": limitBigRead}

// diskRatio is the rate of a disk-backed row against the disk's limit.
func diskRatio(t *table, row string, l *load) string {
	lim := t.limit(limitOf[l.name])
	v, ok := t.rate(row, l.name)
	if !ok || lim == nil || row == rowNull || row == rowVblade || row == rowRAM {
		return "-"
	}
	if l.large {
		return number(v / lim.MBps)
	}
	if l.name == "w1" { // of each of the three
		return number(v / (lim.PerSecond / 3))
	}
	return number(v / lim.PerSecond)
}

// markdown is the report.
func markdown(t *table) string {
	var b strings.Builder
	m := &t.Machine
	fmt.Fprintf(&b, "# Measured speed\n\nMade by `make bench`; [performance.md](performance.md) says what each row and column means.\n\n")
	fmt.Fprintf(&b, "%s, revision %s. %d processors (%s), %s, disk files on %s. Load average before: %s. The run took %.1f minutes.\n",
		m.When, m.Revision, m.Processors, m.CPU, m.Kernel, m.FileSystem, m.LoadBefore, m.Minutes)
	if others := disturbance(t); others > quiet {
		fmt.Fprintf(&b, "\n**Something else kept %.1f processors busy, on average: these figures say little. Measure again on a quiet machine.**\n", others)
	}
	section := func(title, text, content string) { fmt.Fprintf(&b, "\n## %s\n%s\n%s", title, text, content) }

	section("Goals", "", goalTable(judge(t)))
	section("Rates", "IOPS of 4 KiB operations, MB/s (10^6 bytes) of 1 MiB operations; the best of the rounds.\n",
		byColumn(t, func(row string, l *load) string { return rateText(l, t.best(row, l.name)) }))
	section("Of vblade", "vblade answers writes from the page cache, Clade when they are durable.\n",
		byColumn(t, func(row string, l *load) string { return ratio(t, row, rowVblade, l.name) }))
	section("Of the wire alone", "", byColumn(t, func(row string, l *load) string { return ratio(t, row, rowNull, l.name) }))
	if len(t.Limits) > 0 {
		section("The disk itself", "The faster of two measurements, before and after the others.\n", limitTable(t))
		section("Of the disk", "Reads that the page cache answers are left out, but the sequential ones, which it may have answered.\n",
			byColumn(t, func(row string, l *load) string { return diskRatio(t, row, l) }))
	}
	section("CPU", "µs of processor time for an operation: all processes of the target (workers and guardians), and the client after the stroke.\n",
		byColumn(t, func(row string, l *load) string { return cpuText(t.best(row, l.name)) }))
	section("Latency", "p50 / p99 / p99.9 in µs, and the longest time without any answer in ms.\n",
		byColumn(t, func(row string, l *load) string { return latencyText(t.best(row, l.name)) }))
	section("Retransmissions", "Frames sent again, of a thousand.\n",
		byColumn(t, func(row string, l *load) string { return resentText(t.best(row, l.name)) }))
	section("Disk bytes", "What the target made its disks read / write for an operation, in bytes. Little read means that memory answered.\n",
		byColumn(t, func(row string, l *load) string { return diskText(t.best(row, l.name)) }))
	section("Disturbance", "How many of the processors something else than target and client kept busy: the kernel's own threads, and strangers.\n",
		byColumn(t, func(row string, l *load) string { return othersText(t.best(row, l.name)) }))
	if len(t.Failed) > 0 {
		fmt.Fprintf(&b, "\n## Not measured\n\n")
		for _, f := range t.Failed {
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(f, "\n", " "))
		}
	}
	return b.String()
}

func goalTable(verdicts []verdict) string {
	g := newGrid("goal", "measured", "wanted", "")
	met := 0
	for i := range verdicts {
		v := &verdicts[i]
		value, sign := "-", "≥"
		if v.Measured {
			value = number(v.Value) + " " + v.Unit
		}
		if v.Most {
			sign = "≤"
		}
		if v.Met {
			met++
		}
		wanted := "-"
		if v.Limit > 0 {
			wanted = fmt.Sprintf("%s %s %s", sign, number(v.Limit), v.Unit)
		}
		g.row(v.Text, value, wanted, v.word())
	}
	return g.b.String() + fmt.Sprintf("\n%d of %d met.\n", met, len(verdicts))
}

func limitTable(t *table) string {
	g := newGrid("", "per second", "MB/s", "mean µs", "p50 µs", "p99 µs")
	for i := range diskProbes {
		if l := t.limit(diskProbes[i].name); l != nil {
			g.row(l.Title, number(l.PerSecond), number(l.MBps), number(l.MeanUs), number(l.P50Us), number(l.P99Us))
		}
	}
	return g.b.String()
}

func cpuText(r *bench.Result) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%s / %s", number(r.TargetUsPerIO), number(r.ClientUsPerIO))
}

func latencyText(r *bench.Result) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%s / %s / %s, %s", number(r.Latency.P50), number(r.Latency.P99), number(r.Latency.P999), number(r.LongestGapUs/1e3))
}

func resentText(r *bench.Result) string {
	if r == nil || r.FramesSent == 0 {
		return "-"
	}
	return number(1000 * float64(r.Resent) / float64(r.FramesSent))
}

// quiet is how many processors something else may use before a run is called disturbed: journals and writeback need a little.
const quiet = 0.25

// disturbance is how many processors something else than target and client used, on average over all cells.
func disturbance(t *table) float64 {
	sum, n := 0.0, 0
	for _, row := range allRows {
		for i := range loads {
			if r := t.best(row, loads[i].name); r != nil {
				sum += r.Others
				n++
			}
		}
	}
	return sum / float64(max(n, 1))
}

func othersText(r *bench.Result) string {
	if r == nil {
		return "-"
	}
	return number(r.Others)
}

func diskText(r *bench.Result) string {
	if r == nil || r.DiskReadPerIO+r.DiskWritePerIO == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f / %.0f", r.DiskReadPerIO, r.DiskWritePerIO)
}
