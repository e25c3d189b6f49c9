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
			if why == "" {
				t.Fatal("not noticed")
			}
			t.Log(why)
		})
	}
}
