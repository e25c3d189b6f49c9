package link

import (
	"runtime"
	"testing"
)

// Sleepers that could hold every processor hold none: what they wait for may be a goroutine of this process.
func TestHoldersLeaveAProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	var open []*Poller
	for i, want := range []bool{true, true, false, false} {
		p, err := NewHoldingPoller()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		open = append(open, p)
		for _, p := range open {
			if p.mayHold() != want {
				t.Errorf("with %d pollers on 3 processors: holding is %v", i+1, !want)
			}
		}
	}
	open[0].Close()
	open[3].Close()
	if !open[1].mayHold() {
		t.Error("two pollers on 3 processors do not hold")
	}
	plain, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if plain.mayHold() {
		t.Error("a Poller holds that was not asked to")
	}
}
