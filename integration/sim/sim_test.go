package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"
)

var (
	seedFlag  = flag.Int64("seed", -1, "TestSeed: run this seed and print its timeline with -v")
	seedsFlag = flag.Int("seeds", 0, "TestManySeeds: run so many seeds")
	startFlag = flag.Uint64("start", 1, "TestManySeeds: the first seed")
	linesFlag = flag.Int("lines", 400, "lines of timeline to print for a failure")
)

// runSeed runs one seed with all randomness under its control.
func runSeed(t *testing.T, seed uint64, o options) *result {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	return run(seed, o)
}

// report fails the test with everything that is needed to look into it.
func report(t *testing.T, r *result) {
	t.Helper()
	if r.failure == "" {
		return
	}
	lines := strings.Split(r.timeline, "\n")
	if n := len(lines); n > *linesFlag {
		lines = append(lines[:1:1], lines[n-*linesFlag:]...)
	}
	t.Errorf("%s\n\nFAILED at %.6f s: %s\n\nreplay: go test ./integration/sim -run 'TestSeed$' -seed %d -v\n\n%s",
		r.shape, float64(r.failedNs)/1e9, r.failure, r.seed, strings.Join(lines, "\n"))
}

// TestSeed replays one seed: go test ./integration/sim -run 'TestSeed$' -seed N -v
func TestSeed(t *testing.T) {
	if *seedFlag < 0 {
		t.Skip("no -seed given")
	}
	o := options{}
	if testing.Verbose() {
		o.echo = func(line string) { fmt.Println(line) }
	}
	r := runSeed(t, uint64(*seedFlag), o)
	t.Log(r.summary())
	report(t, r)
}

// fixedSeeds is what every run of the tests checks; each was chosen for the faults it meets.
const fixedSeeds = 12

// TestFixedSeeds runs a small set of seeds, in well under a minute.
func TestFixedSeeds(t *testing.T) {
	for seed := uint64(1); seed <= fixedSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { report(t, runSeed(t, seed, options{})) })
	}
}

// TestSameSeedSameHistory runs seeds twice: every frame, message, disk request and time must be the same.
func TestSameSeedSameHistory(t *testing.T) {
	for _, seed := range []uint64{3, 5, 8} {
		o := options{safetyNs: 2 * second}
		a, b := runSeed(t, seed, o), runSeed(t, seed, o)
		if a.hash != b.hash || a.effects != b.effects {
			t.Errorf("seed %d: hash %016x of %d effects, then %016x of %d", seed, a.hash, a.effects, b.hash, b.effects)
		}
		if a.effects < 1000 {
			t.Errorf("seed %d: only %d effects", seed, a.effects)
		}
	}
}

// TestManySeeds is the long run: go test ./integration/sim -run TestManySeeds -seeds 1000 -start 1 -timeout 0
func TestManySeeds(t *testing.T) {
	if *seedsFlag == 0 {
		t.Skip("no -seeds given")
	}
	// A seed leaves little behind: to collect garbage seldom costs memory that is there, and saves a third of the time.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(2 << 30))
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	var total totals
	began := time.Now()
	for i := range *seedsFlag {
		seed := *startFlag + uint64(i)
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := runSeed(t, seed, options{})
			total.add(r)
			report(t, r)
		})
		if !ok || (i+1)%50 == 0 || i+1 == *seedsFlag {
			fmt.Fprintln(os.Stderr, total.line(time.Since(began)))
		}
	}
}

// totals sums up a long run.
type totals struct {
	seeds, failed  int
	virtualNs      int64
	ops, checked   uint64
	kinds          []string
	faults         map[string]int
	failedExamples []uint64
}

func (t *totals) add(r *result) {
	t.seeds++
	t.virtualNs += r.virtualNs
	t.ops += uint64(r.stats.ops)
	t.checked += uint64(r.checked)
	if r.failure != "" {
		t.failed++
		t.failedExamples = append(t.failedExamples, r.seed)
	}
	if t.faults == nil {
		t.faults = map[string]int{}
	}
	for _, k := range r.faults.kinds {
		if t.faults[k] == 0 {
			t.kinds = append(t.kinds, k)
		}
		t.faults[k] += r.faults.counts[k]
	}
}

func (t *totals) line(wall time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds, %d failed %v, %.1f seeds/min, %.2f virtual hours, %d operations, %d register operations checked; faults:",
		t.seeds, t.failed, t.failedExamples, float64(t.seeds)/wall.Minutes(), float64(t.virtualNs)/3600e9, t.ops, t.checked)
	for _, k := range t.kinds {
		fmt.Fprintf(&b, " %s %d,", k, t.faults[k])
	}
	return b.String()
}
