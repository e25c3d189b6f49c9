package lab

import (
	"testing"
	"time"
)

// TestOwnerPausedAndCut: the owner stands still, loses a network, or can be heard but hears nothing. Each time the load goes on
// while that lasts, the former owner's return disturbs nobody, and all is well afterwards without a command.
func TestOwnerPausedAndCut(t *testing.T) {
	for _, c := range []struct {
		hurt, heal Fault
		rounds     int
	}{
		{FaultStop, FaultCont, rounds(2, 20)},
		{FaultCutCluster, FaultHeal, rounds(2, 20)},
		{FaultCutClusterOneway, FaultHeal, rounds(2, 20)},
		// A volume is handed off for its SAN side the less willingly the more often that was done (docs/protocol.md, L14).
		{FaultCutSAN, FaultHeal, 2},
		{FaultCutSANOneway, FaultHeal, 2},
	} {
		t.Run(string(c.hurt), func(t *testing.T) {
			l := newLab(t, Spec{Nodes: 3})
			h := openHost(t, l)
			v := startLoad(t, h, l, 1, nil)
			for range c.rounds {
				v.progress(300)
				name := owner(t, l, 1)
				must(t, l.Do(c.hurt, name))
				v.progress(300)
				must(t, movedAway(t, l, name))
				must(t, l.Do(c.heal, name))
				v.progress(300)
				healthyAgain(t, l)
			}
			v.stop()
		})
	}
}

// movedAway waits until another node serves slot 1.
func movedAway(t *testing.T, l *Lab, node string) error {
	t.Helper()
	return Await(within(t, time.Minute), l, "another owner than "+node, func(s *NodeStatus) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Active && s.Volumes[0].OwnerName != "" && s.Volumes[0].OwnerName != node
	})
}
