package lab

import (
	"context"
	"os"
	"path/filepath"

	"clade/aoe"
)

// Report is a lab as `up` and `status` print it.
type Report struct {
	Name      string          `json:"name"`
	Dir       string          `json:"dir"`
	Shelf     uint16          `json:"shelf"`
	Nodes     []NodeReport    `json:"nodes"`
	Initiator InitiatorReport `json:"initiator"`
	SAN       SANReport       `json:"san"`
	Volumes   []VolumeReport  `json:"volumes"`
}

// NodeReport is one node.
type NodeReport struct {
	Name        string   `json:"name"`
	Pid         int      `json:"pid"`          // of the worker that serves; 0 if none runs
	GuardianPid int      `json:"guardian_pid"` // 0 if none runs
	Netns       string   `json:"netns"`
	Interfaces  []string `json:"interfaces"` // SAN paths in order, then the cluster network's
	Admin       string   `json:"admin"`      // unix socket
	Log         string   `json:"log"`
	State       string   `json:"state"` // as the cluster sees it: up, booting, down; or stopped (SIGSTOP); or dead: no process
}

// InitiatorReport is where initiators run.
type InitiatorReport struct {
	Netns     string `json:"netns"`
	Interface string `json:"interface"` // of the first path
}

// SANReport is where further machines can be attached.
type SANReport struct {
	Netns  string `json:"netns"`
	Bridge string `json:"bridge"` // of the first path
}

// VolumeReport is one volume.
type VolumeReport struct {
	Slot        uint8     `json:"slot"`
	Address     string    `json:"address"`
	Size        uint64    `json:"size"` // bytes
	Layout      string    `json:"layout"`
	Owner       string    `json:"owner"` // node name; empty: none
	Epoch       uint64    `json:"epoch"`
	ServingMACs []aoe.MAC `json:"serving_macs"`
	Health      string    `json:"health"`
}

// Status returns what runs and who owns what. That no node answers is no error: it shows.
func (l *Lab) Status(ctx context.Context) (*Report, error) {
	out := &Report{Name: l.Spec.Name, Dir: l.Spec.Dir, Shelf: l.Spec.Shelf, Volumes: []VolumeReport{},
		Initiator: InitiatorReport{Netns: l.InitiatorNamespace(), Interface: sanNIC(0)},
		SAN:       SANReport{Netns: l.SANNamespace(), Bridge: sanBridge(0)}}
	s, _ := l.AskCluster(ctx) // nil: no node answers
	for i := range l.Nodes {
		n, err := l.nodeReport(i, s)
		if err != nil {
			return nil, err
		}
		out.Nodes = append(out.Nodes, n)
	}
	if s == nil {
		return out, nil
	}
	for i := range s.Volumes {
		v := &s.Volumes[i]
		out.Volumes = append(out.Volumes, VolumeReport{Slot: v.Slot, Address: v.Address, Size: v.SizeBytes, Layout: v.Layout,
			Owner: v.OwnerName, Epoch: uint64(v.Epoch), ServingMACs: v.ServingMACs, Health: v.Health})
	}
	return out, nil
}

func (l *Lab) nodeReport(i int, s *NodeStatus) (NodeReport, error) {
	n := &l.Nodes[i]
	out := NodeReport{Name: n.Name, Netns: l.nodeNamespace(i), Admin: l.adminSocket(n.Name), Log: l.LogPath(n.Name), State: "dead"}
	for p := range l.Spec.SANPaths {
		out.Interfaces = append(out.Interfaces, sanNIC(p))
	}
	out.Interfaces = append(out.Interfaces, clusterNIC)
	guardian, worker, err := l.pair(n)
	if err != nil {
		return out, err
	}
	out.Pid, out.GuardianPid = worker.Pid, guardian.Pid
	if worker.Pid == 0 {
		return out, nil
	}
	out.State = "booting"
	if s != nil {
		for _, x := range s.Nodes {
			if x.Name == n.Name {
				out.State = x.State
			}
		}
	}
	if worker.State == 'T' {
		out.State = "stopped"
	}
	return out, nil
}

// pair tells a node's guardian from its worker; a zero Process does not run. The worker outlives a guardian that was killed.
func (l *Lab) pair(n *Member) (guardian, worker Process, err error) {
	ps, err := l.processesOf(n.Name)
	if err != nil {
		return guardian, worker, err
	}
	for _, p := range ps {
		if p.Pid == n.Process.Pid && p.Started == n.Process.Started {
			guardian = p
		}
	}
	for _, p := range ps {
		if p.Pid != guardian.Pid && (guardian.Pid == 0 || p.Parent == guardian.Pid) {
			worker = p
		}
	}
	return guardian, worker, nil
}

// Owner returns the node that serves a slot, or nothing.
func (r *Report) Owner(slot uint8) string {
	for i := range r.Volumes {
		if r.Volumes[i].Slot == slot {
			return r.Volumes[i].Owner
		}
	}
	return ""
}

// SystemBytes returns how much room the lab's files take.
func (l *Lab) SystemBytes() int64 {
	var n int64
	_ = filepath.WalkDir(l.Spec.Dir, func(_ string, e os.DirEntry, err error) error { // what vanishes meanwhile counts nothing
		if err == nil {
			n += allocated(e)
		}
		return nil
	})
	return n
}
