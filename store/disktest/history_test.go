package disktest

import (
	"errors"
	"fmt"
	"testing"

	"clade/store"
)

const testBytes = 40 << 20

func newHistory(seed uint64) (*History, *Device) {
	dev := New(testBytes, seed)
	return &History{Dev: dev, Seed: seed, Volumes: 2, Crashes: true}, dev
}

var smallJournal = store.FormatOptions{JournalBytes: 4 << 20}

// A disk does in a random life with power cuts what the model of A.3 does.
func TestHistories(t *testing.T) {
	seeds, steps := uint64(20), 600
	if testing.Short() {
		seeds = 8
	}
	if *manySeeds > 0 {
		seeds = *manySeeds
	}
	total := map[string]int{}
	for seed := range seeds {
		h, _ := newHistory(seed)
		if err := run(h, steps+int(seed%4)*steps); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for k, n := range h.Counts {
			total[k] += n
		}
	}
	t.Log(total)
	for _, k := range []string{"prepare", "read", "fill", "wipe", "resync", "crash"} {
		if total[k] == 0 {
			t.Errorf("no %s in any history", k)
		}
	}
}

func run(h *History, steps int) error {
	if err := h.Start(smallJournal); err != nil {
		return err
	}
	for i := range steps {
		if err := h.Step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return h.Verify()
}

// The power may fail at any write or sync, in recovery too: what was acknowledged is there, and what was not is there or is not.
func TestCrashAtEveryOperation(t *testing.T) {
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		whole, dev := newHistory(seed)
		whole.Crashes = false
		if err := run(whole, 250); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		last := dev.Ops()
		for n := formatOps + 1; n < last; n++ {
			if err := runCut(seed, n, nil); err != nil {
				t.Fatalf("seed %d, crash at operation %d of %d: %v", seed, n, last, err)
			}
		}
	}
}

// formatOps is how many writes and syncs Format does; before they are done there is no disk.
const formatOps = 7

func runCut(seed uint64, n int, trace func(string, ...any)) error {
	h, dev := newHistory(seed)
	h.Crashes, h.Trace = false, trace
	dev.CrashAt(n)
	err := run(h, 250)
	if !dev.Crashed() || !errors.Is(err, ErrCrashed) && !errors.Is(err, store.ErrFailed) {
		if err == nil {
			return fmt.Errorf("no crash")
		}
		return err
	}
	dev.PowerOn()
	if n%3 == 0 { // again, during recovery
		dev.CrashAt(1 + n%7)
		if err := h.Reopen(); err != nil && !dev.Crashed() {
			return err
		}
		dev.PowerOn()
	}
	if err := h.Reopen(); err != nil {
		return err
	}
	if err := h.Close(); err != nil {
		return err
	}
	rep, err := store.Check(dev, nil)
	if err == nil && len(rep.Damage) > 0 {
		err = fmt.Errorf("check: %+v", rep.Damage)
	}
	return err
}
