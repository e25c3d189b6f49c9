//go:build mutation

package raid_test

import (
	"fmt"
	"testing"

	. "clade/raid"
)

// catcher is a testing.TB that remembers a failure instead of reporting it.
type catcher struct {
	testing.TB
	why string
}

type caught struct{}

func (c *catcher) Fatalf(f string, a ...any) { c.why = fmt.Sprintf(f, a...); panic(caught{}) }
func (c *catcher) Logf(string, ...any)       {}
func (c *catcher) Failed() bool              { return false }

// fails reports how a history ends with the present mutation, empty if nothing was noticed.
func fails(t *testing.T, seed uint64) (why string) {
	c := &catcher{TB: t}
	defer func() {
		if p := recover(); p != nil {
			if why = c.why; why == "" {
				why = fmt.Sprint(p)
			}
		}
	}()
	h := newHistory(c, seed)
	h.takeover()
	for range 6000 {
		h.stepOnce()
	}
	h.heal()
	return ""
}

// TestMutations switches the owner's rules off one by one: the histories must notice each.
func TestMutations(t *testing.T) {
	names := []string{"KEEP_UNREACHED", "S_ACKED", "S_END", "ACK_EARLY", "ADMIT_EARLY", "FILL_UNLOCKED", "JOIN_INFLIGHT",
		"READ_UNCOMMITTED", "READ_MIX", "RECON_NOHIST", "STALE_NO_CAS", "INSYNC_NO_CAS", "C32"}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			Mutate(name)
			defer Mutate("")
			for seed := uint64(1); seed <= uint64(*seedsFlag); seed++ {
				if why := fails(t, seed); why != "" {
					t.Logf("caught by seed %d: %s", seed, why)
					return
				}
			}
			t.Errorf("not noticed in %d histories", *seedsFlag)
		})
	}
}
