//go:build mutation

package raid_test

import (
	"flag"
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
func (c *catcher) Fatal(a ...any)            { c.Fatalf("%s", fmt.Sprint(a...)) }
func (c *catcher) Logf(string, ...any)       {}
func (c *catcher) Failed() bool              { return false }

// fails reports how a test ends with the present mutation, empty if nothing was noticed.
func fails(t testing.TB, test func(t testing.TB)) (why string) {
	c := &catcher{TB: t}
	defer func() {
		if p := recover(); p != nil {
			if why = c.why; why == "" {
				why = fmt.Sprint(p)
			}
		}
	}()
	test(c)
	return ""
}

// TestMutations switches the owner's rules off one by one: the story of each, told once more, must not end well.
func TestMutations(t *testing.T) {
	for _, s := range stories {
		t.Run(s.rule, func(t *testing.T) {
			Mutate(s.rule)
			defer Mutate("")
			why := fails(t, s.tell)
			Mutate("")
			if base := fails(t, s.tell); base != "" { // proves nothing about the rule
				t.Fatalf("it fails with all rules in force, too: %s", base)
			}
			if why == "" {
				t.Fatal("not noticed")
			}
			t.Log(why)
		})
	}
}

// TestMutationsKeptTwice: with one of the two off, what the other is for does not come to pass (docs/testing.md says why). Should
// that change, the rule has become one of its own and needs a story of its own.
func TestMutationsKeptTwice(t *testing.T) {
	defer Mutate("")
	for _, rule := range []string{"FILL_UNLOCKED", "READ_MIX"} {
		if Mutate(rule); fails(t, copyIsNoMix) != "" {
			t.Errorf("%s alone makes a copy a mix: %s", rule, fails(t, copyIsNoMix))
		}
	}
}

// seen are the rules whose absence histories meet by chance, too.
var seen = []string{"ACK_EARLY", "ADMIT_EARLY", "READ_UNCOMMITTED"}

var measure = flag.Bool("measure", false, "for every rule, count the histories that notice its absence")

// TestMutationHistories shows that histories find rules missing that nobody has told them about.
func TestMutationHistories(t *testing.T) {
	names := seen
	if *measure {
		names = []string{"READ_MIX"}
		for _, s := range stories {
			names = append(names, s.rule)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			defer Mutate("")
			n := 0
			for seed := uint64(1); seed <= uint64(*seedsFlag); seed++ {
				Mutate(name)
				why := fails(t, func(t testing.TB) { newHistory(t, seed).live() })
				if why == "" {
					continue
				}
				if n++; !*measure {
					t.Logf("seed %d: %s", seed, why)
					return
				}
			}
			t.Logf("%d of %d histories", n, *seedsFlag)
			if n == 0 && !*measure {
				t.Errorf("not noticed in %d histories", *seedsFlag)
			}
		})
	}
}
