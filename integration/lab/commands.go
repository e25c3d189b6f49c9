package lab

import (
	"fmt"
	"strconv"
)

// All command lines of the program under test are made here.

// nodeDir and diskPath say where a node keeps what.
func (l *Lab) nodeDir(name string) string { return l.path(name, "data") }

func (l *Lab) diskPath(node string, disk int) string {
	return l.path(node, fmt.Sprintf("disk%d", disk+1))
}

func (l *Lab) adminSocket(name string) string { return l.path(name, "data", "admin.sock") }

// disksOf returns where the i-th node's disks are.
func (l *Lab) disksOf(i int) []string {
	var out []string
	for d := 0; d < l.Spec.Disks && !l.Nodes[i].Witness; d++ {
		out = append(out, l.diskPath(l.Nodes[i].Name, d))
	}
	return out
}

// memberFlags are what init and join have in common.
func (l *Lab) memberFlags(i int, disks []string) []string {
	n := &l.Nodes[i]
	args := []string{"--dir", l.nodeDir(n.Name), "--node", n.Name, "--advertise", l.clusterAddr(i)}
	for p := range l.Spec.SANPaths {
		args = append(args, "--san", sanNIC(p))
	}
	if n.Witness {
		return append(args, "--witness")
	}
	for _, d := range disks {
		args = append(args, "--disk", d)
	}
	return args
}

func (l *Lab) initArgs() []string {
	return append([]string{"init", "--cluster", l.Spec.Name, "--shelf", strconv.Itoa(int(l.Spec.Shelf))}, l.memberFlags(0, l.disksOf(0))...)
}

func (l *Lab) joinArgs(i int) []string {
	return append([]string{"join", l.clusterAddr(0)}, l.memberFlags(i, l.disksOf(i))...)
}

func (l *Lab) serveArgs(i int) []string {
	args := []string{"serve", "--dir", l.nodeDir(l.Nodes[i].Name)}
	if l.Spec.VolatileCache {
		args = append(args, "--volatile-cache")
	}
	if l.Spec.DiskFaults {
		args = append(args, "--fault-socket")
	}
	return args
}

// via are the flags that send an operator's command to a node.
func (l *Lab) via(node string) []string { return []string{"--dir", l.nodeDir(node)} }

func (l *Lab) volumeArgs(via string, slot int) []string {
	return append([]string{"volume", "create", "--slot", strconv.Itoa(slot), "--size", fmt.Sprintf("%dB", l.Spec.SizeBytes),
		"--layout", l.Spec.Layout, "--no-wait"}, l.via(via)...)
}

func (l *Lab) drainArgs(via, node string, undo bool) []string {
	args := append([]string{"drain", node}, l.via(via)...)
	if undo {
		args = append(args, "--undo")
	}
	return args
}
