//go:build mutation

package raid

import (
	"slices"
	"strings"
)

var mutation []string

// Mutate switches rules of the protocol off, by their names in docs/protocol.md joined by +, so that the suite can show that it
// notices.
func Mutate(names string) { mutation, late = strings.Split(names, "+"), nil }

func mutated(name string) bool { return slices.Contains(mutation, name) }

type lateFill struct {
	r  *DiskRequest
	ns int64
}

var late []lateFill

// disorder lets a Fill leave a moment after what followed it (FILL_UNORDERED).
func disorder(o *Owner) {
	if !mutated("FILL_UNORDERED") {
		return
	}
	var now []*DiskRequest
	for _, r := range o.fx.Requests {
		if r.Kind == ReqFill && !r.Last {
			late = append(late, lateFill{r, o.now})
			continue
		}
		now = append(now, r)
	}
	for len(late) > 0 && o.now-late[0].ns > 100*ms {
		now = append(now, late[0].r)
		late = late[1:]
	}
	o.fx.Requests = now
}
