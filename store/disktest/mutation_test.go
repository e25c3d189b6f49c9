//go:build mutation

package disktest

import (
	"fmt"
	"testing"

	"clade/store"
)

// catcher is a testing.TB that remembers a failure instead of reporting it.
type catcher struct {
	testing.TB
	why string
}

type caught struct{}

func (c *catcher) Fatalf(f string, a ...any) { c.why = fmt.Sprintf(f, a...); panic(caught{}) }
func (c *catcher) Errorf(f string, a ...any) { c.Fatalf(f, a...) }
func (c *catcher) Fatal(a ...any)            { c.Fatalf("%s", fmt.Sprint(a...)) }

// notices runs f with the present mutation and reports how it fails, empty if it does not.
func notices(t *testing.T, f func(t testing.TB)) (why string) {
	c := &catcher{TB: t}
	defer func() {
		if p := recover(); p != nil {
			if why = c.why; why == "" {
				why = fmt.Sprint(p)
			}
		}
	}()
	f(c)
	return ""
}

func histories(t testing.TB) {
	for seed := range uint64(60) {
		h, _ := newHistory(seed)
		if err := run(h, 900); err != nil {
			t.Fatalf("history %d: %v", seed, err)
		}
	}
}

// TestMutations switches the disk's rules off one by one: the tests must notice each.
func TestMutations(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(t testing.TB)
	}{
		{"NO_FENCE", func(t testing.TB) { fence(t, false) }},
		{"FENCE_VOLATILE", func(t testing.TB) { fence(t, true) }},
		{"NO_TRUNC", histories},
		{"TRUNC_BY_SEQ", lateReturner},
		{"FILL_NO_BASE", lastFillCommits},
		{"REPAIR_DROPS", repairKeeps},
		{"REPAIR_DROPS", histories},
		{"APPLY_EARLY", histories},
		{"SUPERSEDED_EARLY", histories},
		{"READ_UNCOMMITTED", histories},
		{"C11", histories},
		{"C15c", holeBeforeLast},
		{"C16a", histories},
		{"C22", formerStream},
		{"C25", applyWaits},
		{"C26", fenceFell},
		{"C27", shardMissing},
		{"GROUP_COVERS", histories},
		{"L12", pinnedRecords},
		{"WIPE_TORN", largeShard},
		{"TRUST_ONE_PAGE", lostPage},
	} {
		t.Run(c.name, func(t *testing.T) {
			store.Mutate(c.name)
			defer store.Mutate("")
			why := notices(t, c.test)
			if why == "" {
				t.Fatal("not noticed")
			}
			t.Log(why)
		})
	}
}
