package lab

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Fault is something that happens to a node.
type Fault string

// The faults, and their opposites.
const (
	FaultKill             Fault = "kill"               // SIGKILL of the worker: the guardian proves its death to the others and exits
	FaultKillAll          Fault = "kill-all"           // of worker and guardian: nobody proves anything, as when a machine dies
	FaultStop             Fault = "stop"               // SIGSTOP of all its processes: a machine that pauses
	FaultCont             Fault = "cont"               // SIGCONT
	FaultRestart          Fault = "restart"            // starts it if it does not run
	FaultPowerLoss        Fault = "powerloss"          // SIGKILL of everything; with Spec.VolatileCache, unsynced bytes are lost too
	FaultCutSAN           Fault = "cut-san"            // pulls its SAN cables: no carrier
	FaultCutCluster       Fault = "cut-cluster"        // pulls its cluster cable
	FaultCutSANOneway     Fault = "cut-san-oneway"     // it can send on the SAN, but hears nothing; the carrier stays
	FaultCutClusterOneway Fault = "cut-cluster-oneway" // the same on the cluster network
	FaultMuteSAN          Fault = "mute-san"           // it hears everything on the SAN, but cannot be heard; the carrier stays
	FaultMuteCluster      Fault = "mute-cluster"       // the same on the cluster network
	FaultHeal             Fault = "heal"               // takes all cuts back
)

// Faults lists all faults.
func Faults() []Fault {
	return []Fault{FaultKill, FaultKillAll, FaultStop, FaultCont, FaultRestart, FaultPowerLoss, FaultCutSAN, FaultCutCluster,
		FaultCutSANOneway, FaultCutClusterOneway, FaultMuteSAN, FaultMuteCluster, FaultHeal}
}

// AllNodes stands for every node of a lab.
const AllNodes = "all"

// Do lets a fault happen to a node, or to AllNodes at once. Any goroutine may call it.
func (l *Lab) Do(f Fault, node string) error {
	if !slices.Contains(Faults(), f) {
		return fmt.Errorf("lab: no fault %q: there are %v", f, Faults())
	}
	var hit []int
	if node == AllNodes {
		for i := range l.Nodes {
			hit = append(hit, i)
		}
	} else {
		i, err := l.index(node)
		if err != nil {
			return err
		}
		hit = []int{i}
	}
	switch f {
	case FaultKillAll, FaultPowerLoss:
		return l.endAtOnce(hit)
	}
	var errs []error
	for _, i := range hit {
		errs = append(errs, l.doOne(f, i, node))
	}
	return errors.Join(errs...)
}

// doOne lets a fault happen to node i, which was asked for as node: by its name, or as AllNodes.
func (l *Lab) doOne(f Fault, i int, node string) error {
	name := l.Nodes[i].Name
	switch f {
	case FaultKill:
		return l.killWorker(i)
	case FaultStop:
		return l.signalAll([]int{i}, unix.SIGSTOP)
	case FaultCont:
		return l.signalAll([]int{i}, unix.SIGCONT)
	case FaultRestart:
		ps, err := l.processesOf(name)
		if err != nil {
			return err
		}
		if len(ps) > 0 {
			if node == AllNodes {
				return nil
			}
			return fmt.Errorf("lab: %s runs already (process %d)", name, ps[0].Pid)
		}
		return l.Serve(i)
	case FaultCutSAN:
		return l.eachCable(i, true, false, cutCable)
	case FaultCutCluster:
		return l.eachCable(i, false, true, cutCable)
	case FaultCutSANOneway:
		return l.eachCable(i, true, false, deafenCable)
	case FaultCutClusterOneway:
		return l.eachCable(i, false, true, deafenCable)
	case FaultMuteSAN:
		return l.eachCable(i, true, false, muteCable)
	case FaultMuteCluster:
		return l.eachCable(i, false, true, muteCable)
	case FaultHeal:
		return l.eachCable(i, true, true, healCable)
	}
	panic(fmt.Sprintf("lab: fault %q is listed but not done", f))
}

// killWorker kills the worker of a node and waits until it and its guardian are gone: the guardian exits by itself.
func (l *Lab) killWorker(i int) error {
	n := &l.Nodes[i]
	guardian, worker, err := l.pair(n)
	if err != nil {
		return err
	}
	if worker.Pid == 0 {
		return fmt.Errorf("lab: %s has no worker to kill (guardian: process %d)", n.Name, guardian.Pid)
	}
	return l.signal(n.Name, worker, unix.SIGKILL)
}

func (l *Lab) endAtOnce(hit []int) error {
	// All are stopped first: a guardian must not tell of a death that it would not have survived, and no node may go on while
	// the next one is looked for.
	if err := l.signalAll(hit, unix.SIGSTOP); err != nil {
		return err
	}
	if err := l.signalAll(hit, unix.SIGKILL); err != nil {
		return err
	}
	for _, i := range hit {
		if err := l.endedWithin(l.Nodes[i].Name, killMax); err != nil {
			return err
		}
	}
	return nil
}

// signalAll sends a signal to all processes of some nodes. They are looked for first, so that they are hit close together.
func (l *Lab) signalAll(hit []int, sig unix.Signal) error {
	var errs []error
	found := make([][]Process, len(hit))
	for k, i := range hit {
		ps, err := l.processesOf(l.Nodes[i].Name)
		errs = append(errs, err)
		if err == nil && len(ps) == 0 && sig != unix.SIGKILL {
			errs = append(errs, fmt.Errorf("lab: %s does not run", l.Nodes[i].Name))
		}
		found[k] = ps
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for k, i := range hit {
		for _, p := range found[k] {
			errs = append(errs, l.signal(l.Nodes[i].Name, p, sig))
		}
	}
	return errors.Join(errs...)
}

// eachCable does something to the switches' ends of a node's cables.
func (l *Lab) eachCable(i int, san, cluster bool, do func(*space, netlink.Link) error) error {
	name := l.Nodes[i].Name
	for p := 0; san && p < l.Spec.SANPaths; p++ {
		if err := oneCable(l.SANNamespace(), switchPort(name, p), do); err != nil {
			return err
		}
	}
	if cluster {
		return oneCable(l.clusterNamespace(), switchPort(name, -1), do)
	}
	return nil
}

func oneCable(namespace, port string, do func(*space, netlink.Link) error) error {
	s, err := openSpace(namespace)
	if err != nil {
		return err
	}
	defer s.close()
	link, err := s.handle.LinkByName(port)
	if err == nil {
		err = do(s, link)
	}
	if err != nil {
		return fmt.Errorf("lab: port %s in %s: %w", port, s.name, err)
	}
	return nil
}

// CutSANPath pulls one of a node's SAN cables, from 0; FaultHeal puts it back.
func (l *Lab) CutSANPath(node string, path int) error {
	if _, err := l.index(node); err != nil {
		return err
	}
	if path < 0 || path >= l.Spec.SANPaths {
		return fmt.Errorf("lab: %s has no SAN path %d: it has %d", node, path, l.Spec.SANPaths)
	}
	return oneCable(l.SANNamespace(), switchPort(node, path), cutCable)
}

func cutCable(s *space, link netlink.Link) error { return s.handle.LinkSetDown(link) }

// deafBytes is the size of a frame that a deaf port still lets through: less than any Ethernet header.
const deafBytes = 8

// deafenCable lets the switch drop, silently, everything that it should send to the node: a token bucket whose burst is
// smaller than any frame.
func deafenCable(s *space, link netlink.Link) error {
	const rate = 1000 // bytes a second; it never comes to that
	return s.handle.QdiscReplace(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate, Limit: deafBytes, Buffer: netlink.Xmittime(rate, deafBytes),
	})
}

func healCable(s *space, link netlink.Link) error {
	list, err := s.handle.QdiscList(link)
	if err != nil {
		return err
	}
	for _, q := range list {
		_, deaf := q.(*netlink.Tbf)
		if deaf || q.Type() == "clsact" {
			if err := s.handle.QdiscDel(q); err != nil {
				return err
			}
		}
	}
	return s.handle.LinkSetUp(link)
}

// AwaitExit waits until no process of a node runs.
func (l *Lab) AwaitExit(node string, limit time.Duration) error { return l.endedWithin(node, limit) }
