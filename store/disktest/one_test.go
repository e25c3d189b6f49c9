package disktest

import (
	"flag"
	"testing"
)

var (
	oneSeed   = flag.Int64("seed", -1, "history to trace")
	manySeeds = flag.Uint64("seeds", 0, "how many histories TestHistories tries")
	oneSteps  = flag.Int("steps", 600, "its steps")
)

// TestOne traces one history: -run TestOne -seed 7.
func TestOne(t *testing.T) {
	if *oneSeed < 0 {
		t.Skip("no -seed")
	}
	h, _ := newHistory(uint64(*oneSeed))
	h.Trace = t.Logf
	if err := run(h, *oneSteps); err != nil {
		t.Fatal(err)
	}
}
