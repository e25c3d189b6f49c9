package disktest

import (
	"flag"
	"testing"
)

var oneCut = flag.Int("cut", 0, "operation at which the power fails in TestOneCut")

// TestOneCut traces one crash of TestCrashAtEveryOperation: -run TestOneCut -seed 0 -cut 36.
func TestOneCut(t *testing.T) {
	if *oneCut == 0 {
		t.Skip("no -cut")
	}
	if err := runCut(uint64(*oneSeed), *oneCut, t.Logf); err != nil {
		t.Fatal(err)
	}
}
