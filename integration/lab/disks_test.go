package lab

import (
	"context"
	"slices"
	"testing"
	"time"

	"clade/cluster"
)

// TestDisksThatFail: the owner's disk fails every write, or every read, or the file system that holds all of the owner's files
// is full. The load goes on without an error while that lasts, and after a restart of the node all is complete again.
func TestDisksThatFail(t *testing.T) {
	ctx := context.Background()
	l := newLab(t, Spec{Nodes: 3, DiskFaults: true, SmallFS: 512 * mib, VolatileCache: true})
	h := openHost(t, l)
	v := startLoad(t, h, l, 1, nil)
	for _, c := range []struct {
		what       string
		hurt, heal func(node string) error
	}{
		{"writes fail", func(n string) error { return l.DiskFault(ctx, n, 0, false, true, true) }, nil},
		{"reads fail", func(n string) error { return l.DiskFault(ctx, n, 0, true, false, false) },
			func(n string) error { return l.DiskFault(ctx, n, 0, false, false, false) }},
		{"full", l.Fill, l.Unfill},
	} {
		v.progress(500)
		name := owner(t, l, 1)
		if c.what == "full" {
			name = l.SmallFSNode()
			must(t, l.Handoff(ctx, 1, name)) // it shall be the one that serves
		}
		t.Logf("%s: %s", name, c.what)
		must(t, c.hurt(name))
		v.progress(500)
		if c.heal != nil {
			must(t, c.heal(name))
		}
		must(t, l.Do(FaultPowerLoss, name)) // whatever the node made of it
		must(t, l.Do(FaultRestart, name))
		healthyAgain(t, l)
	}
	v.progress(200)
	v.stop()
}

// TestANodeIsReplaced: a machine is lost with its disks, under load. Another one takes its place, its disks are filled, and then the
// cluster stands the loss of a further node.
func TestANodeIsReplaced(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3, Disks: 2, SizeBytes: 64 << 20})
	h := openHost(t, l)
	v := startLoad(t, h, l, 1, nil)
	for range rounds(2, 6) { // the owner each time
		v.progress(300)
		lost := owner(t, l, 1)
		name, err := l.Replace(within(t, time.Minute), lost)
		must(t, err)
		must(t, Await(within(t, time.Minute), l, name+" in the place of "+lost, func(s *NodeStatus) bool {
			return IsHealthy(l.Spec, s) && len(s.Volumes[0].InSync) == 3 &&
				!slices.ContainsFunc(s.Nodes, func(n cluster.NodeStatus) bool { return n.Name == lost })
		}))
		v.progress(300)
		must(t, l.Do(FaultKillAll, owner(t, l, 1)))
		v.progress(300)
		must(t, l.Do(FaultRestart, AllNodes))
		healthyAgain(t, l)
	}
	v.stop()
}
