package lab

import (
	"testing"
	"time"
)

// TestPowerLossOfAll: all nodes lose their power at the same moment under load, and with it every byte that was not synced.
// Everything that was acknowledged is there when they are back, and the load goes on without an error.
func TestPowerLossOfAll(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3, VolatileCache: true})
	h := openHost(t, l)
	v := startLoad(t, h, l, 1, nil)
	for range rounds(3, 30) {
		v.progress(800) // of each node's life: every acknowledged write of it is at stake
		must(t, l.Do(FaultPowerLoss, AllNodes))
		must(t, l.Do(FaultRestart, AllNodes))
		v.progress(200)
		healthyAgain(t, l)
	}
	v.cancel()
	<-v.done
	must(t, readAll(within(t, 30*time.Second), clientOf(t, h, l, 1), v.rec, 4, 16384))
	v.stop()
}

// TestPowerLossOfPersistentDisks: also where the kernel keeps what was written, a power loss ends every process of all nodes at
// once, and a restart of all starts those that are dead.
func TestPowerLossOfPersistentDisks(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3})
	h := openHost(t, l)
	v := startLoad(t, h, l, 1, nil)
	v.progress(300)
	must(t, l.Do(FaultPowerLoss, AllNodes))
	for i := range l.Nodes {
		if ps, err := l.processesOf(l.Nodes[i].Name); err != nil || len(ps) > 0 {
			t.Fatalf("%s still runs: %v, %v", l.Nodes[i].Name, ps, err)
		}
	}
	must(t, l.Do(FaultRestart, l.Nodes[1].Name))
	must(t, l.Do(FaultRestart, AllNodes))
	v.progress(300)
	healthyAgain(t, l)
	v.stop()
}

// TestPowerLossOfOne: a node that lost what it had not synced, and only that, is brought up to date when it returns.
func TestPowerLossOfOne(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3, VolatileCache: true})
	h := openHost(t, l)
	v := startLoad(t, h, l, 1, nil)
	for range rounds(2, 20) {
		v.progress(300)
		name := owner(t, l, 1)
		must(t, l.Do(FaultPowerLoss, name))
		v.progress(200)
		must(t, l.Do(FaultRestart, name))
		healthyAgain(t, l)
	}
	v.stop()
}
