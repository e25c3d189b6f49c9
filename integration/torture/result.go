package torture

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"clade/aoe/initiator/load"
)

// violationsMax bounds what is kept: the first one ends the run.
const violationsMax = 16

// Result is what a run has seen.
type Result struct {
	Shape          string      `json:"shape"`
	Nodes          int         `json:"nodes"`
	Witnesses      int         `json:"witnesses"`
	Layout         string      `json:"layout"`
	SANPaths       int         `json:"san_paths"`
	Seed           uint64      `json:"seed"`
	DurationMs     int64       `json:"duration_ms"`
	Counts         Counts      `json:"operations"`
	Faults         []Row       `json:"faults"`
	Overlaps       int         `json:"overlaps"` // rounds with two faults at a time
	LongestMs      int         `json:"longest_stall_ms"`
	LongestLinuxMs int         `json:"longest_stall_linux_timing_ms"`
	Violations     []Violation `json:"violations"`
	Evidence       string      `json:"evidence,omitempty"` // where logs and histories are, if they were kept
	Events         []Event     `json:"events"`
	BinMs          int64       `json:"bin_ms"`
	Bins           []Bin       `json:"bins"` // what was done over time
}

// Event is one fault.
type Event struct {
	Kind         Kind   `json:"kind"`
	Node         string `json:"node"`
	BeginMs      int64  `json:"begin_ms"` // since the run began
	EndMs        int64  `json:"end_ms"`   // when it was taken back
	HealthyMs    int    `json:"healthy_ms"`
	StallMs      int    `json:"stall_ms"` // the longest wait of an initiator with this library's timing, until all was answered
	LinuxStallMs int    `json:"stall_linux_timing_ms"`
	Overlapped   bool   `json:"overlapped"` // with another fault: the stall is of both
}

// Row is what one kind of fault did. Stalls are of rounds with no other fault.
type Row struct {
	Kind           Kind `json:"kind"`
	Times          int  `json:"times"`
	LongestMs      int  `json:"longest_stall_ms"`
	MedianMs       int  `json:"median_stall_ms"`
	LongestLinuxMs int  `json:"longest_stall_linux_timing_ms"`
	Alone          int  `json:"alone"` // times without another fault
}

// Violation is something that must not be.
type Violation struct {
	AtMs int64  `json:"at_ms"`
	What string `json:"what"`
	Text string `json:"text"`

	history []*load.Record
}

// twoAtOnce is the row of stalls with two faults at a time.
const twoAtOnce Kind = "two of them at a time"

// sum makes the rows from the events.
func (r *Result) sum() {
	r.Faults, r.Overlaps = nil, 0
	if r.Violations == nil {
		r.Violations = []Violation{}
	}
	row := func(kind Kind, times int, seen []Event) {
		x := Row{Kind: kind, Times: times, Alone: len(seen)}
		var ms []int
		for i := range seen {
			ms = append(ms, seen[i].StallMs)
			x.LongestLinuxMs = max(x.LongestLinuxMs, seen[i].LinuxStallMs)
		}
		if slices.Sort(ms); len(ms) > 0 {
			x.LongestMs, x.MedianMs = ms[len(ms)-1], ms[len(ms)/2]
		}
		r.Faults = append(r.Faults, x)
	}
	var both []Event
	for _, kind := range Kinds() {
		var seen []Event
		times := 0
		for i := range r.Events {
			switch e := &r.Events[i]; {
			case e.Kind != kind:
			case e.Overlapped:
				times++
				both = append(both, *e)
			default:
				times++
				seen = append(seen, *e)
			}
		}
		if times > 0 {
			row(kind, times, seen)
		}
	}
	if r.Overlaps = len(both) / 2; r.Overlaps > 0 {
		row(twoAtOnce, r.Overlaps, both)
	}
}

// Operations is how many there were in all.
func (c *Counts) Operations() int64 { return c.Reads + c.Writes + c.Flushes + c.Controls }

// save writes the logs of all nodes, the history of each violation and the result so far into a directory.
func (r *run) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	var errs []error
	for i := range r.lab.Nodes {
		name := r.lab.Nodes[i].Name
		errs = append(errs, copyFile(filepath.Join(dir, name+".log"), r.lab.LogPath(name)))
	}
	for i := range r.result.Violations {
		if h := r.result.Violations[i].history; h != nil {
			errs = append(errs, saveJSON(filepath.Join(dir, fmt.Sprintf("history-%d.json", i+1)), h))
		}
	}
	return errors.Join(append(errs, saveJSON(filepath.Join(dir, "result.json"), r.result))...)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func saveJSON(file string, v any) error {
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("torture: %s: %w", file, err)
	}
	return os.WriteFile(file, append(raw, '\n'), 0o600)
}
