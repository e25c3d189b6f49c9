package main

import (
	"clade/aoe/initiator/bench"
)

// The rows: what is measured. Their names are what the report shows.
const (
	rowNull    = "null (wire alone)"
	rowVblade  = "vblade on tmpfs"
	rowRAM     = "Clade 1+0 on tmpfs"
	row10      = "Clade 1+0"
	row11      = "Clade 1+1"
	row21      = "Clade 2+1"
	row21Small = "Clade 2+1 at MTU 1500"
	row12      = "Clade 1+2"
	row42      = "Clade 4+2"
)

var allRows = []string{rowNull, rowVblade, rowRAM, row10, row11, row21, row21Small, row12, row42}

// load is one column: a way to use a volume.
type load struct {
	name  string // short, for flags, JSON and the goals
	title string
	args  []string // of clade bench
	write bool
	cold  bool // the target's caches and the page cache are emptied before
	large bool // its rate is given in MB/s
	depth int
}

// The columns, in the order in which they are measured: the sequential write fills the span that all others use.
var loads = []load{
	{name: "sw", title: "1 MiB sequential write", args: []string{"--op", "write", "--size", "1MiB", "--sequential", "--depth", "4"}, write: true, large: true, depth: 4},
	{name: "sr", title: "1 MiB sequential read", args: []string{"--op", "read", "--size", "1MiB", "--sequential", "--depth", "4"}, large: true, depth: 4},
	{name: "w1", title: "4 KiB write, qd 1", args: []string{"--op", "write", "--depth", "1"}, write: true, depth: 1},
	{name: "w16", title: "4 KiB write, qd 16", args: []string{"--op", "write", "--depth", "16"}, write: true, depth: 16},
	{name: "w64", title: "4 KiB write, qd 64", args: []string{"--op", "write", "--depth", "64"}, write: true, depth: 64},
	{name: "r1", title: "4 KiB read, qd 1", args: []string{"--op", "read", "--depth", "1"}, depth: 1},
	{name: "r16", title: "4 KiB read, qd 16", args: []string{"--op", "read", "--depth", "16"}, depth: 16},
	{name: "r64", title: "4 KiB read, qd 64", args: []string{"--op", "read", "--depth", "64"}, depth: 64},
	{name: "d1", title: "4 KiB read from disk, qd 1", args: []string{"--op", "read", "--depth", "1"}, cold: true, depth: 1},
	{name: "d16", title: "4 KiB read from disk, qd 16", args: []string{"--op", "read", "--depth", "16"}, cold: true, depth: 16},
	{name: "d64", title: "4 KiB read from disk, qd 64", args: []string{"--op", "read", "--depth", "64"}, cold: true, depth: 64},
}

// rate is what a column compares: MB/s of large operations, IOPS of small ones.
func (l *load) rate(r *bench.Result) float64 {
	if l.large {
		return r.MBps
	}
	return r.IOPS
}

func findLoad(name string) *load {
	for i := range loads {
		if loads[i].name == name {
			return &loads[i]
		}
	}
	return nil
}

// limit is what the disk itself can do in one way.
type limit struct {
	Name      string  `json:"name"`
	Title     string  `json:"title"`
	PerSecond float64 `json:"per_second"`
	MBps      float64 `json:"mb_per_s"`
	MeanUs    float64 `json:"mean_us"`
	P50Us     float64 `json:"p50_us"`
	P99Us     float64 `json:"p99_us"`
}

// table is all that a run has measured.
type table struct {
	Machine machine `json:"machine"`
	// Cells has the results of all rounds, by row and column.
	Cells  map[string]map[string][]*bench.Result `json:"cells"`
	Limits []limit                               `json:"limits"`
	Failed []string                              `json:"failed,omitempty"` // what could not be measured, and why
}

// machine is where it was measured.
type machine struct {
	Kernel     string  `json:"kernel"`
	CPU        string  `json:"cpu"`
	Processors int     `json:"processors"`
	FileSystem string  `json:"file_system"` // of the disk-backed rows
	Revision   string  `json:"revision"`
	When       string  `json:"when"`
	LoadBefore string  `json:"load_before"` // load average: others disturb
	Minutes    float64 `json:"minutes"`
}

func (t *table) add(row, col string, r *bench.Result) {
	if t.Cells == nil {
		t.Cells = map[string]map[string][]*bench.Result{}
	}
	if t.Cells[row] == nil {
		t.Cells[row] = map[string][]*bench.Result{}
	}
	t.Cells[row][col] = append(t.Cells[row][col], r)
}

// best returns the fastest of the rounds, nil if there was none: whatever else runs on the machine only ever takes away.
func (t *table) best(row, col string) *bench.Result {
	var out *bench.Result
	for _, r := range t.Cells[row][col] {
		if out == nil || r.IOPS > out.IOPS {
			out = r
		}
	}
	return out
}

// rate returns the rate of the best round.
func (t *table) rate(row, col string) (float64, bool) {
	r, l := t.best(row, col), findLoad(col)
	if r == nil || l == nil {
		return 0, false
	}
	return l.rate(r), true
}

// limit returns a limit of the disk by name: the faster of the measurements.
func (t *table) limit(name string) *limit {
	var out *limit
	for i := range t.Limits {
		if l := &t.Limits[i]; l.Name == name && (out == nil || l.PerSecond > out.PerSecond) {
			out = l
		}
	}
	return out
}
