package lab

import (
	"context"
	"slices"
	"testing"
	"time"

	"clade/aoe/initiator"
)

// TestStalls measures how long a disk stands still, with -lab.long. It asserts that the disk goes on, not how soon: that
// depends on the machine.
func TestStalls(t *testing.T) {
	if !*long {
		t.Skip("measures, with -lab.long")
	}
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		times int
		hurt  func(l *Lab, node string) error
		heal  func(l *Lab, node string) error
	}{
		{"kill -9 of the worker", 8, func(l *Lab, n string) error { return l.Do(FaultKill, n) }, (*Lab).back},
		{"death of the machine", 8, func(l *Lab, n string) error { return l.Do(FaultKillAll, n) }, (*Lab).back},
		{"pause", 8, func(l *Lab, n string) error { return l.Do(FaultStop, n) }, func(l *Lab, n string) error { return l.Do(FaultCont, n) }},
		{"drain", 4, func(l *Lab, n string) error { return l.Drain(ctx, n, false) }, func(l *Lab, n string) error { return l.Drain(ctx, n, true) }},
		{"SAN cable pulled", 2, func(l *Lab, n string) error { return l.Do(FaultCutSAN, n) }, func(l *Lab, n string) error { return l.Do(FaultHeal, n) }},
		{"deaf on the SAN", 2, func(l *Lab, n string) error { return l.Do(FaultCutSANOneway, n) }, func(l *Lab, n string) error { return l.Do(FaultHeal, n) }},
	} {
		t.Run(c.name, func(t *testing.T) { measureStalls(ctx, t, c.times, c.hurt, c.heal) })
	}
}

// measureStalls hurts the owner a few times. The lab is new: each planned handoff makes the next one of the volume wait longer.
func measureStalls(ctx context.Context, t *testing.T, times int, hurt, heal func(*Lab, string) error) {
	l := newLab(t, Spec{Nodes: 3})
	h := openHost(t, l)
	modes := []initiator.Mode{initiator.ModeLibrary, initiator.ModeLinux}
	var probers []*Prober
	for i, mode := range modes {
		p, err := StartProber(ctx, h, l.Spec.Shelf, 1, int64(i)<<20, mode)
		must(t, err)
		t.Cleanup(func() { _ = p.Close() })
		must(t, p.Await(within(t, time.Minute), WarmUpWrites))
		probers = append(probers, p)
	}
	var seen [2][]time.Duration
	for range times {
		name := owner(t, l, 1)
		for _, p := range probers {
			p.Reset()
		}
		must(t, hurt(l, name))
		must(t, movedAway(t, l, name))
		for i, p := range probers {
			must(t, p.Await(within(t, time.Minute), 50))
			seen[i] = append(seen[i], p.Longest().Round(time.Millisecond))
		}
		must(t, heal(l, name))
		healthyAgain(t, l)
	}
	for i := range seen {
		slices.Sort(seen[i])
		t.Logf("%-14s median %s, longest %s; %v", []string{"library timing", "Linux timing"}[i], seen[i][len(seen[i])/2], seen[i][len(seen[i])-1], seen[i])
	}
}

// back starts a dead node again.
func (l *Lab) back(node string) error {
	if err := l.AwaitExit(node, 10*time.Second); err != nil {
		return err
	}
	return l.Do(FaultRestart, node)
}
