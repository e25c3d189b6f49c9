package torture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clade/integration/lab"
)

// exitMax is how long a process may take to end that was killed, or whose child was.
const exitMax = 20 * time.Second

// nemesis hurts a lab as a plan says, and takes back what it has done. One goroutine uses it.
type nemesis struct {
	lab *lab.Lab
	log func(format string, args ...any)
	hit map[string]bool // nodes that are hurt now
}

// struck is an act with the node that it hit, "all" for all.
type struck struct {
	act
	node string
	slot uint8 // of a handoff
	path int   // of CutSANPath
}

// choose says which node an act hits: one that nothing else happens to.
func (n *nemesis) choose(ctx context.Context, a act) (struck, error) {
	s := struck{act: a, node: lab.AllNodes, slot: uint8(1 + a.number%n.lab.Spec.Slots), path: a.number % n.lab.Spec.SANPaths}
	if a.all {
		return s, nil
	}
	if a.kind == DiskFull {
		s.node = n.lab.SmallFSNode()
		if n.hit[s.node] {
			return s, errBusy
		}
		return s, nil
	}
	nodes := len(n.lab.Nodes)
	if a.kind == DiskReads || a.kind == DiskWrites || a.kind == Handoff {
		nodes = n.lab.Spec.Nodes // a witness has no disks and serves nothing
	}
	at := a.number % nodes
	if a.role != anyone && a.kind != Handoff {
		name, err := n.find(ctx, a, s.slot)
		if err != nil {
			return s, err
		}
		for i := range nodes {
			if n.lab.Nodes[i].Name == name {
				at = i
			}
		}
	}
	for range nodes {
		if s.node = n.lab.Nodes[at].Name; !n.hit[s.node] {
			return s, nil
		}
		at = (at + 1) % nodes
	}
	return s, errBusy
}

// errBusy says that every node that an act could hit is hurt already.
var errBusy = errors.New("nobody is left to hit")

// find returns the node in a role, nothing if there is none now.
func (n *nemesis) find(ctx context.Context, a act, slot uint8) (string, error) {
	st, err := n.lab.AskCluster(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return "", nil // in the middle of a fault: any node will do
	}
	if a.role == theLeader && a.kind != Handoff {
		return st.LeaderName, nil
	}
	for i := range st.Volumes {
		if st.Volumes[i].Slot == slot {
			return st.Volumes[i].OwnerName, nil
		}
	}
	return "", nil
}

// begin lets an act happen.
func (n *nemesis) begin(ctx context.Context, s struck) error {
	n.log("%s: %s, for %s", s.node, s.kind, s.hold)
	n.hit[s.node] = true
	l := n.lab
	switch s.kind {
	case CutSANPath:
		return l.CutSANPath(s.node, s.path)
	case Drain:
		return operator(ctx, func() error { return l.Drain(ctx, s.node, false) })
	case Handoff:
		return operator(ctx, func() error { return n.handoff(ctx, s) })
	case DiskWrites:
		return l.DiskFault(ctx, s.node, 0, false, true, true)
	case DiskReads:
		return l.DiskFault(ctx, s.node, 0, true, false, false)
	case DiskFull:
		return l.Fill(s.node)
	}
	return l.Do(faults[s.kind], s.node)
}

// handoffMax is how long the nemesis waits for a handoff.
const handoffMax = 3 * time.Second

// handoff moves a slot to a node, unless it is there already. The leader spreads volumes evenly and may move it, or another one,
// back at once: then the command waits in vain, which is no violation. What counts is what initiators notice.
func (n *nemesis) handoff(ctx context.Context, s struck) error {
	owner, err := n.find(ctx, s.act, s.slot)
	if err != nil || owner == s.node {
		return err
	}
	short, cancel := context.WithTimeout(ctx, handoffMax)
	defer cancel()
	if err := n.lab.Handoff(short, s.slot, s.node); err != nil && short.Err() == nil {
		return err
	}
	return nil
}

// faults are those that the lab knows as they are.
var faults = map[Kind]lab.Fault{
	KillWorker: lab.FaultKill, KillMachine: lab.FaultKillAll, Pause: lab.FaultStop, CutSAN: lab.FaultCutSAN, DeafSAN: lab.FaultCutSANOneway,
	MuteSAN: lab.FaultMuteSAN, CutCluster: lab.FaultCutCluster, DeafCluster: lab.FaultCutClusterOneway, MuteCluster: lab.FaultMuteCluster,
	PowerLoss: lab.FaultPowerLoss, PowerLossAll: lab.FaultPowerLoss, RestartAll: lab.FaultKill,
}

// end takes an act back.
func (n *nemesis) end(ctx context.Context, s struck) error {
	delete(n.hit, s.node)
	l := n.lab
	switch s.kind {
	case Pause:
		return l.Do(lab.FaultCont, s.node)
	case CutSAN, CutSANPath, DeafSAN, MuteSAN, CutCluster, DeafCluster, MuteCluster:
		return l.Do(lab.FaultHeal, s.node)
	case Drain:
		return operator(ctx, func() error { return l.Drain(ctx, s.node, true) })
	case Handoff:
		return nil
	case DiskFull:
		if err := l.Unfill(s.node); err != nil {
			return err
		}
		return n.again(s.node)
	case DiskWrites, DiskReads:
		return n.again(s.node) // the faults end with the process
	case KillWorker, KillMachine, PowerLoss:
		if err := l.AwaitExit(s.node, exitMax); err != nil {
			return err
		}
		return l.Do(lab.FaultRestart, s.node)
	case PowerLossAll, RestartAll:
		for i := range l.Nodes {
			if err := l.AwaitExit(l.Nodes[i].Name, exitMax); err != nil {
				return err
			}
		}
		return l.Do(lab.FaultRestart, lab.AllNodes)
	}
	return fmt.Errorf("torture: %q has no end", s.kind)
}

// again ends what is left of a node, which may be nothing, and starts it.
func (n *nemesis) again(node string) error {
	if err := n.lab.Do(lab.FaultPowerLoss, node); err != nil {
		if left, rerr := n.lab.Running(node); rerr != nil || left > 0 {
			return errors.Join(err, rerr)
		}
	}
	return n.lab.Do(lab.FaultRestart, node)
}

// operatorTries is how often an operator tries a command before giving up; each try waits longer.
const operatorTries = 6

// operator repeats a command that was refused: what moves volumes may have to wait for a volume that is on the move already.
func operator(ctx context.Context, do func() error) error {
	var err error
	for try := range operatorTries {
		if err = do(); err == nil {
			return nil
		}
		select {
		case <-time.After(time.Duration(try+1) * 200 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
	return err
}
