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
		{FaultMuteCluster, FaultHeal, rounds(2, 20)},
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

// TestMuteOnTheSAN: an owner that hears all and cannot be heard answers nobody; the others notice, and take the volume. When it can
// be heard again all is well without a command.
func TestMuteOnTheSAN(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3})
	h := openHost(t, l)
	v := startLoad(t, h, l, 1, nil)
	// A volume is handed off for its SAN side the less willingly the more often that was done (docs/protocol.md, L14).
	for range 2 {
		v.progress(300)
		name := owner(t, l, 1)
		must(t, l.Do(FaultMuteSAN, name))
		must(t, movedAway(t, l, name))
		v.progress(300)
		must(t, l.Do(FaultHeal, name))
		v.progress(300)
		healthyAgain(t, l)
	}
	v.stop()
}

// TestLostFrames: one frame of 25 is lost in each direction. Initiators ask again, and are answered; when no frame
// is lost any more, all is well.
func TestLostFrames(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3})
	h := openHost(t, l)
	c := clientOf(t, h, l, 1)
	must(t, l.Lose(0.04))
	block := make([]byte, 4096)
	ctx := within(t, time.Minute)
	for n := 0; n < 60 || c.Stats().Resent < 10; n++ {
		must(t, c.WriteAt(ctx, block, 0))
	}
	must(t, l.Do(FaultHeal, AllNodes))
	healthyAgain(t, l)
	sent := c.Stats().Resent
	for range 60 {
		must(t, c.WriteAt(ctx, block, 0))
	}
	if again := c.Stats().Resent - sent; again > 6 {
		t.Errorf("%d of 60 writes were sent again although no frame is lost", again)
	}
}
