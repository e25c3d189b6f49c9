package main

import (
	"fmt"
	"slices"
	"strings"

	"clade/aoe/initiator/bench"
)

// scaleMarkdown is the report.
func scaleMarkdown(t *scale) string {
	var b strings.Builder
	m := &t.Machine
	fmt.Fprintf(&b, "# Cost and tail\n\nMade by `make bench-scale`; [performance.md](performance.md) says what each line means.\n\n")
	fmt.Fprintf(&b, "%s, revision %s. %d processors (%s), %s, disk files on %s. Load average before: %s. The run took %.1f minutes.\n",
		m.When, m.Revision, m.Processors, m.CPU, m.Kernel, m.FileSystem, m.LoadBefore, m.Minutes)
	if others := scaleDisturbance(t); others > quiet {
		fmt.Fprintf(&b, "\n**Something else kept %.1f processors busy, on average: rates and gaps say little, processor time for an operation somewhat more. Measure again on a quiet machine.**\n", others)
	}
	section := func(title, text, content string) { fmt.Fprintf(&b, "\n## %s\n%s\n%s", title, text, content) }
	section("Goals", "", goalTable(judgeScale(t)))
	if len(t.Cells) > 0 {
		section("Cost", fmt.Sprintf("4 KiB at random places, %d in flight in all: operations for a second of processor time of all nodes' processes, and of the base case (%s)\n"+
			"measured by turns with it over as many bytes (%s; less of the small and the large volume); the rate; latencies. Idle: of a processor, for each node.\n", scaleDepth, caseBase, bytesText(scaleSpan)), costTable(t))
	}
	if len(t.Costs) > 0 {
		section("Memory", "RSS of the largest process of a node, after the loads; what it is larger than the base case's, and may be.\n", memoryTable(t))
	}
	if len(t.Gaps) > 0 {
		section("Takeover", "The longest time for which a write of any volume was not answered after kill -9 of all processes of the owner, in ms.\n", gapTable(t))
	}
	if len(t.Resync.MBps) > 0 {
		section("Resync", "Of a whole shard of 1 GiB. All three disks are files on one; each byte is written twice, to the journal and in place.\n", resyncTable(t))
	}
	if len(t.Failed) > 0 {
		fmt.Fprintf(&b, "\n## Not measured\n\n")
		for _, f := range t.Failed {
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(f, "\n", " "))
		}
	}
	return b.String()
}

// scaleDisturbance is how many processors something else than a case's cluster and the client used, on average.
func scaleDisturbance(t *scale) float64 {
	sum, n := 0.0, 0
	for i := range scaleCases {
		for _, l := range scaleLoads {
			c := t.cell(scaleCases[i].name, l.name)
			if c == nil {
				continue
			}
			for _, r := range append(slices.Clone(c.Base), c.Case...) {
				sum += r.Others
				n++
			}
		}
	}
	return sum / float64(max(n, 1))
}

func costTable(t *scale) string {
	heads := []string{""}
	for _, l := range scaleLoads {
		heads = append(heads, l.op+"s/CPU s", "of base", l.op+"s/s", "p50 / p99.9 µs")
	}
	g := newGrid(append(heads, "idle %")...)
	for i := range scaleCases {
		name := scaleCases[i].name
		cells, something := []string{name}, false
		for _, l := range scaleLoads {
			rs, ratio := t.ofBase(l.name), "-"
			if i > 0 {
				rs = nil
				if c := t.cell(name, l.name); c != nil {
					rs = c.Case
				}
				if v, ok := t.costRatio(name, l.name); ok {
					ratio = number(v)
				}
			}
			if len(rs) == 0 {
				cells = append(cells, "-", "-", "-", "-")
				continue
			}
			something = true
			iops := median(each(rs, func(r *bench.Result) float64 { return r.IOPS }))
			p50 := median(each(rs, func(r *bench.Result) float64 { return r.Latency.P50 }))
			p999 := median(each(rs, func(r *bench.Result) float64 { return r.Latency.P999 }))
			cells = append(cells, number(1e6/max(meanUs(rs), 1e-9)), ratio, number(iops), number(p50)+" / "+number(p999))
		}
		idle := "-"
		if c := t.Costs[name]; c != nil && c.IdlePercent > 0 {
			idle = number(c.IdlePercent)
		}
		if something {
			g.row(append(cells, idle)...)
		}
	}
	return g.b.String()
}

func memoryTable(t *scale) string {
	g := newGrid("", "MiB", "volumes owned", "MiB of shards", "more", "may be more")
	for i := range scaleCases {
		c := t.Costs[scaleCases[i].name]
		if c == nil || c.LargestMiB == 0 {
			continue
		}
		more, most := "-", "-"
		if v, limit, ok := t.growthMiB(scaleCases[i].name); ok && i > 0 {
			more, most = fmt.Sprintf("%.0f", v), fmt.Sprintf("%.0f", limit)
		}
		g.row(scaleCases[i].name, fmt.Sprintf("%.0f", c.LargestMiB), fmt.Sprint(c.Owned), number(c.ShardMiB), more, most)
	}
	return g.b.String()
}

func gapTable(t *scale) string {
	g := newGrid("", "median", "longest", "of base")
	base := median(t.Gaps[takeEmpty])
	for _, kind := range []string{takeEmpty, takeFull, takeMany, takeSmall, takeLarge} {
		v := t.Gaps[kind]
		if len(v) == 0 {
			continue
		}
		of := "-"
		if base > 0 && kind != takeEmpty {
			of = number(median(v) / base)
		}
		g.row(kind, number(median(v)), number(slices.Max(v)), of)
	}
	return g.b.String()
}

func resyncTable(t *scale) string {
	r := &t.Resync
	g := newGrid("load beside it", "resync MB/s", "IOPS without", "IOPS during", "of it")
	for _, load := range []string{"", "r16", "w16"} {
		if len(r.MBps[load]) == 0 {
			continue
		}
		name, cells := "none", []string{"-", "-", "-"}
		for _, l := range scaleLoads {
			if v, ok := r.share(load); ok && l.name == load {
				name, cells = l.op+"s", []string{number(median(r.Undisturbed[load])), number(median(r.During[load])), number(v)}
			}
		}
		g.row(append([]string{name, number(median(r.MBps[load]))}, cells...)...)
	}
	out := g.b.String()
	for i := range t.Limits {
		out += fmt.Sprintf("\nThe disk: %s: %s MB/s.\n", t.Limits[i].Title, number(t.Limits[i].MBps))
	}
	return out
}
