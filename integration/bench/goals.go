package main

import (
	"fmt"

	"clade/aoe/initiator/bench"
)

// The goals. The absolute rates are multiples of what Ceph (RBD over three OSDs with three copies) reached on a machine of the same
// make with the same three file-backed disks: 158, 343 and 520 writes a second at depths 1, 16 and 64. The shares of the wire alone are
// those that ggaoed, the fastest AoE target there is, reached of the null target on that machine.
var (
	cephWrites   = map[string]float64{"w1": 474, "w16": 6860, "w64": 20800} // 3, 20 and 40 times
	goalReads    = map[string]float64{"r1": 7770, "r16": 17230, "r64": 23800}
	ggaoedOfWire = map[string]float64{"r1": 23695.0 / 25136, "r16": 139622.0 / 232305, "r64": 208246.0 / 259369}
	goalOfGgaoed = 0.8
)

// goal is one line of the list: a measured value against a limit, both in the same unit.
type goal struct {
	text    string
	unit    string
	most    bool // the value may be at most the limit; otherwise at least
	measure func(t *table) (value, limit float64, ok bool)
}

// verdict is a goal that was looked at.
type verdict struct {
	Text     string  `json:"text"`
	Unit     string  `json:"unit"`
	Most     bool    `json:"most"`
	Value    float64 `json:"value"`
	Limit    float64 `json:"limit"`
	Measured bool    `json:"measured"`
	Met      bool    `json:"met"`
}

func (v *verdict) word() string {
	switch {
	case !v.Measured:
		return "not measured"
	case v.Met:
		return "met"
	}
	return "MISSED"
}

// judge looks at all goals, in order.
func judge(t *table) []verdict {
	var out []verdict
	for _, g := range goals() {
		v := verdict{Text: g.text, Unit: g.unit, Most: g.most}
		v.Value, v.Limit, v.Measured = g.measure(t)
		v.Met = v.Measured && (v.Value >= v.Limit && !g.most || v.Value <= v.Limit && g.most)
		out = append(out, v)
	}
	return out
}

// goals lists them in the order of the report.
func goals() []goal {
	var out []goal
	add := func(more ...goal) { out = append(out, more...) }
	for _, c := range []string{"w1", "w16", "w64"} {
		add(atLeast(row21, c, cephWrites[c]))
	}
	for _, c := range []string{"r1", "r16", "r64"} {
		add(atLeast(row21, c, goalReads[c]))
	}
	add(atLeast(row21, "sw", 286), atLeast(row21, "sr", 824))
	for _, c := range []string{"w1", "w16", "w64"} {
		add(share(row21Small, row21, c, 0.5))
	}
	add(goal{text: row21 + ": latency of a 4 KiB write at qd 1 against one fdatasync'd append with three in parallel", unit: "µs", most: true,
		measure: func(t *table) (float64, float64, bool) {
			r, l := t.best(row21, "w1"), t.limit(limitAppend3)
			if r == nil || l == nil {
				return 0, 0, false
			}
			return r.Latency.P50, 1.5 * l.P50Us, true
		}})
	for _, c := range []string{"r1", "r16", "r64"} {
		add(share(rowRAM, rowVblade, c, 1))
	}
	for _, c := range []string{"r1", "r16", "r64"} {
		add(share(rowRAM, rowNull, c, goalOfGgaoed*ggaoedOfWire[c]))
	}
	add(share(rowRAM, rowVblade, "w16", 1), share(rowRAM, rowVblade, "w64", 1))
	add(cpu(row21, "w64", 60), cpu(row21, "r64", 20), cpu(row21, "d64", 40))
	add(share(row42, row12, "w1", 0.7), share(row42, row12, "w64", 0.6))
	for _, row := range []string{rowRAM, row21} {
		add(tail(row, "w16"), tail(row, "r16"))
	}
	return out
}

// atLeast is a rate of its own.
func atLeast(row, col string, least float64) goal {
	l := findLoad(col)
	unit := "IOPS"
	if l.large {
		unit = "MB/s"
	}
	return goal{text: row + ": " + l.title, unit: unit, measure: func(t *table) (float64, float64, bool) {
		v, ok := t.rate(row, col)
		return v, least, ok
	}}
}

// share is a rate against that of another row, both of this run.
func share(row, of, col string, least float64) goal {
	return goal{text: fmt.Sprintf("%s: %s, of that of %s", row, findLoad(col).title, of), unit: "x", measure: func(t *table) (float64, float64, bool) {
		a, ok := t.rate(row, col)
		b, ok2 := t.rate(of, col)
		if !ok || !ok2 || b == 0 {
			return 0, least, false
		}
		return a / b, least, true
	}}
}

// cpu is the processor time of all processes of the target for one operation.
func cpu(row, col string, most float64) goal {
	return goal{text: fmt.Sprintf("%s: CPU of all processes for a %s", row, findLoad(col).title), unit: "µs", most: true, measure: func(t *table) (float64, float64, bool) {
		r := t.best(row, col)
		if r == nil || len(r.Targets) == 0 {
			return 0, most, false
		}
		return r.TargetUsPerIO, most, true
	}}
}

// tail is the slowest thousandth against the median.
func tail(row, col string) goal {
	return goal{text: fmt.Sprintf("%s: p99.9 of a %s against its median", row, findLoad(col).title), unit: "x", most: true, measure: func(t *table) (float64, float64, bool) {
		r := t.best(row, col)
		if r == nil || r.Latency.P50 == 0 {
			return 0, 10, false
		}
		return r.Latency.P999 / r.Latency.P50, 10, true
	}}
}

// rateText prints a rate of a column.
func rateText(l *load, r *bench.Result) string {
	if r == nil {
		return "-"
	}
	return number(l.rate(r))
}
