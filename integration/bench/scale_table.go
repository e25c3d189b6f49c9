package main

import (
	"fmt"
	"slices"

	"clade/aoe/initiator/bench"
)

// scale is all that a run has measured.
type scale struct {
	Machine   machine              `json:"machine"`
	Cells     map[string]*cellPair `json:"cells"` // by case and load, see cellName
	Costs     map[string]*cost     `json:"costs"` // by case
	Takeovers int                  `json:"takeovers"`
	Gaps      map[string][]float64 `json:"gaps_ms"` // by kind of takeover
	Resync    resyncResult         `json:"resync"`
	Limits    []limit              `json:"limits"`
	Goals     []verdict            `json:"goals"`
	Failed    []string             `json:"failed,omitempty"`
}

// cellPair is a case measured by turns with the base case.
type cellPair struct {
	Base []*bench.Result `json:"base"`
	Case []*bench.Result `json:"case"`
}

// cost is what a cluster takes.
type cost struct {
	IdlePercent float64 `json:"idle_percent"` // of a processor, for each node, that nobody uses
	LargestMiB  float64 `json:"largest_mib"`  // RSS of the largest process of a node
	Owned       int     `json:"owned"`        // volumes of the node that has most
	ShardMiB    float64 `json:"shard_mib"`    // of shards on each node
}

// resyncResult is how fast a disk was filled, and what others noticed of it.
type resyncResult struct {
	MBps        map[string][]float64 `json:"mb_per_s"` // by the load beside it; "": none
	Undisturbed map[string][]float64 `json:"undisturbed_iops"`
	During      map[string][]float64 `json:"during_iops"`
}

func cellName(name, load string) string { return name + ": " + load }

func (t *scale) add(name, load string, base bool, r *bench.Result) {
	if t.Cells == nil {
		t.Cells = map[string]*cellPair{}
	}
	c := t.Cells[cellName(name, load)]
	if c == nil {
		c = &cellPair{}
		t.Cells[cellName(name, load)] = c
	}
	if base {
		c.Base = append(c.Base, r)
	} else {
		c.Case = append(c.Case, r)
	}
}

func (t *scale) cell(name, load string) *cellPair { return t.Cells[cellName(name, load)] }

// ofBase returns what was measured of the base case by turns with all others, in their order, but where it was used less for their sake.
func (t *scale) ofBase(load string) (out []*bench.Result) {
	for i := range scaleCases {
		if c := t.cell(scaleCases[i].name, load); c != nil && scaleCases[i].usedBytes() == scaleSpan {
			out = append(out, c.Base...)
		}
	}
	return out
}

func (t *scale) costOf(name string) *cost {
	if t.Costs == nil {
		t.Costs = map[string]*cost{}
	}
	if t.Costs[name] == nil {
		t.Costs[name] = &cost{}
	}
	return t.Costs[name]
}

func (t *scale) addGap(kind string, ms float64) {
	if t.Gaps == nil {
		t.Gaps = map[string][]float64{}
	}
	t.Gaps[kind] = append(t.Gaps[kind], ms)
}

// median returns the middle of some values, of an even number of them the lower one; 0 of none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[(len(s)-1)/2]
}

// each returns a figure of each result.
func each(rs []*bench.Result, f func(*bench.Result) float64) []float64 {
	var out []float64
	for _, r := range rs {
		out = append(out, f(r))
	}
	return out
}

// meanUs returns processor time per operation over several results of about equal length.
func meanUs(rs []*bench.Result) float64 {
	us, ops := 0.0, 0.0
	for _, r := range rs {
		us += r.TargetUsPerIO * float64(r.Ops)
		ops += float64(r.Ops)
	}
	if ops == 0 {
		return 0
	}
	return us / ops
}

// costRatio returns a case's operations for a CPU second by those of the base case that it was measured with.
func (t *scale) costRatio(name, load string) (float64, bool) {
	c := t.cell(name, load)
	if c == nil {
		return 0, false
	}
	a, b := meanUs(c.Case), meanUs(c.Base)
	return b / max(a, 1e-9), a > 0 && b > 0
}

// growthMiB returns how much larger a case's largest process is than the base case's, and what DESIGN section 6 lets it be: the stripe
// cache of each further volume that it serves and 16 bytes for each further MiB of shards, twice, since the collector may let as much
// garbage be, and what says nothing.
func (t *scale) growthMiB(name string) (grown, allowed float64, ok bool) {
	const volumeCacheMiB, bytesPerMiB = 64, 16
	base, c := t.Costs[caseBase], t.Costs[name]
	if base == nil || c == nil || base.LargestMiB == 0 || c.LargestMiB == 0 {
		return 0, 0, false
	}
	more := volumeCacheMiB*float64(max(c.Owned-base.Owned, 0)) + bytesPerMiB*max(c.ShardMiB-base.ShardMiB, 0)/mib
	return c.LargestMiB - base.LargestMiB, 2*more + scaleSlackMiB, true
}

// scaleGoal is a line of the list.
func scaleGoal(text, unit string, most bool, limit float64, value float64, ok bool) verdict {
	v := verdict{Text: text, Unit: unit, Most: most, Value: value, Limit: limit, Measured: ok}
	v.Met = ok && (value >= limit && !most || value <= limit && most)
	return v
}

// judgeScale looks at all goals, in order.
func judgeScale(t *scale) []verdict {
	var out []verdict
	for i := range scaleCases[1:] {
		name := scaleCases[1+i].name
		for _, l := range scaleLoads {
			v, ok := t.costRatio(name, l.name)
			out = append(out, scaleGoal(fmt.Sprintf("%s: %ss for a CPU second, of those of the base case", name, l.op), "x", false, scaleWithin, v, ok))
		}
	}
	for i := range scaleCases[1:] {
		if c := &scaleCases[1+i]; c.own {
			v, most, ok := t.growthMiB(c.name)
			out = append(out, scaleGoal(c.name+": memory of the largest process more than in the base case", "MiB", true, most, v, ok))
		}
	}
	base := median(t.Gaps[takeEmpty])
	for _, kind := range []string{takeFull, takeMany, takeSmall, takeLarge} {
		v := median(t.Gaps[kind])
		out = append(out, scaleGoal("takeover of "+kind+": longest gap (median), of that of "+takeEmpty, "x", true, 2, v/max(base, 1e-9), v > 0 && base > 0))
	}
	for _, l := range scaleLoads {
		v := median(each(t.ofBase(l.name), tailRatio))
		out = append(out, scaleGoal(fmt.Sprintf("p99.9 of a 4 KiB %s at qd %d against its median", l.op, scaleDepth), "x", true, 10, v, v > 0))
	}
	for _, l := range scaleLoads {
		v, ok := t.Resync.share(l.name)
		out = append(out, scaleGoal(fmt.Sprintf("%ss during a resync, of those of the same run without", l.op), "x", false, 0.7, v, ok))
	}
	v, ok := t.ofDisk()
	return append(out, scaleGoal("resync without load, of the disk's 1 MiB writes", "x", false, 0.5, v, ok))
}

func tailRatio(r *bench.Result) float64 {
	if r.Latency.P50 <= 0 {
		return 0
	}
	return r.Latency.P999 / r.Latency.P50
}

// share returns the foreground's rate during a resync by the undisturbed one.
func (r *resyncResult) share(load string) (float64, bool) {
	a, b := median(r.During[load]), median(r.Undisturbed[load])
	return a / max(b, 1e-9), a > 0 && b > 0
}

// ofDisk returns the rate of a resync without load by what the disk takes.
func (t *scale) ofDisk() (float64, bool) {
	v := median(t.Resync.MBps[""])
	for i := range t.Limits {
		if t.Limits[i].Name == limitBigWrite && t.Limits[i].MBps > 0 {
			return v / t.Limits[i].MBps, v > 0
		}
	}
	return 0, false
}
