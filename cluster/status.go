package cluster

import (
	"fmt"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

// Status is the cluster as one node sees it: what fits on a screen, and what scripts read.
type Status struct {
	Name         string         `json:"name"`
	Cluster      string         `json:"cluster"`
	Shelf        uint16         `json:"shelf"`
	FeatureLevel int            `json:"feature_level"`
	SectorCount  uint8          `json:"sector_count"`
	Self         raid.NodeID    `json:"self"`
	Leader       raid.NodeID    `json:"leader"` // 0: none
	LeaderName   string         `json:"leader_name"`
	LeaseValid   bool           `json:"lease_valid"`
	LeaseLeastNs int64          `json:"lease_least_ns"` // the least that was left of this node's lease whenever it was renewed; 0: never renewed
	Health       string         `json:"health"`         // healthy, degraded or down
	Nodes        []NodeStatus   `json:"nodes"`
	Disks        []DiskStatus   `json:"disks"`
	Volumes      []VolumeStatus `json:"volumes"`
	Problems     []Problem      `json:"problems"`
	Stats        Stats          `json:"stats"`
}

// NodeStatus is one member.
type NodeStatus struct {
	ID       raid.NodeID  `json:"id"`
	Name     string       `json:"name"`
	Addr     string       `json:"addr"`
	State    string       `json:"state"` // up, down, booting
	Witness  bool         `json:"witness"`
	Draining bool         `json:"draining"`
	Term     raid.Term    `json:"term"`
	HeardNs  int64        `json:"heard_ns"` // since its last heartbeat; -1: never
	Paths    []PathReport `json:"paths"`
	Owns     int          `json:"owns"`
}

// DiskStatus is one disk.
type DiskStatus struct {
	ID          raid.DiskID `json:"id"`
	UUID        string      `json:"uuid"`
	Node        raid.NodeID `json:"node"`
	NodeName    string      `json:"node_name"`
	Label       string      `json:"label"`
	State       string      `json:"state"`
	CapacityMiB uint64      `json:"capacity_mib"`
	UsedMiB     uint64      `json:"used_mib"`
}

// VolumeStatus is one volume.
type VolumeStatus struct {
	ID          raid.VolumeID       `json:"id"`
	Name        string              `json:"name"`
	Slot        uint8               `json:"slot"`
	Address     string              `json:"address"` // e7.1
	SizeBytes   uint64              `json:"size_bytes"`
	Layout      string              `json:"layout"`
	UnitBytes   int                 `json:"unit_bytes"`
	Owner       raid.NodeID         `json:"owner"`
	OwnerName   string              `json:"owner_name"`
	Epoch       raid.Epoch          `json:"epoch"`
	Active      bool                `json:"active"`
	ServingMACs []aoe.MAC           `json:"serving_macs"`
	InSync      raid.DiskSet        `json:"in_sync"`
	Stale       []raid.DiskID       `json:"stale"`
	Health      string              `json:"health"` // healthy, degraded, suspended or down
	Suspended   string              `json:"suspended,omitempty"`
	Resync      []raid.ResyncStatus `json:"resync,omitempty"`
	Commit      raid.Seq            `json:"commit"`
	Serial      string              `json:"serial"`
	Config      string              `json:"config"`
	Reserved    []aoe.MAC           `json:"reserved,omitempty"`
	Mask        []aoe.MAC           `json:"mask,omitempty"`
}

// NodeDownNs is how long a node may be silent before status calls it down.
const NodeDownNs = 500 * ms

// Status returns the cluster as this node sees it now.
func (n *Node) Status(nowNs int64) *Status {
	out := n.look(nowNs)
	used := n.group.State().UsedByDisk()
	for i := range out.Disks {
		out.Disks[i].UsedMiB = used[out.Disks[i].ID]
	}
	n.watch.ages(out.Problems, nowNs)
	return out
}

// look is Status without what takes long to sum up.
func (n *Node) look(nowNs int64) *Status {
	s := n.group.State()
	lead, _ := n.group.Leader()
	out := &Status{Name: s.Name, Cluster: uuidText(s.Cluster), Shelf: s.Shelf, FeatureLevel: s.FeatureLevel, SectorCount: s.SectorCount,
		Self: n.opt.ID, Leader: lead, LeaseValid: n.inc.holder != nil && n.inc.holder.Valid(nowNs), Stats: n.stats, Problems: []Problem{}}
	if n.inc.holder != nil {
		out.LeaseLeastNs = n.inc.holder.LeastNs()
	}
	if row := s.Node(lead); row != nil {
		out.LeaderName = row.Name
	}
	n.nodeStatus(out, nowNs)
	for i := range s.Disks {
		d := &s.Disks[i]
		out.Disks = append(out.Disks, DiskStatus{ID: d.ID, UUID: uuidText(d.UUID), Node: d.Node, NodeName: nodeName(s, d.Node), Label: d.Label,
			State: n.diskState(d, nowNs), CapacityMiB: d.CapacityMiB})
	}
	for _, v := range n.vols {
		out.Volumes = append(out.Volumes, n.volumeStatus(v, nowNs))
	}
	n.problems(out)
	return out
}

func uuidText(u membership.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func nodeName(s *membership.State, id raid.NodeID) string {
	if row := s.Node(id); row != nil {
		return row.Name
	}
	return ""
}

func (n *Node) nodeStatus(out *Status, nowNs int64) {
	s := n.group.State()
	for i := range s.Nodes {
		row := &s.Nodes[i]
		x := NodeStatus{ID: row.ID, Name: row.Name, Addr: row.Addr, Witness: row.Witness, Draining: row.Draining, Term: row.Term, HeardNs: -1, State: "down"}
		if h := n.leader.known(row.ID); h != nil && h.hb != nil {
			x.HeardNs, x.Paths = nowNs-h.heard, h.hb.Paths
			if row.Held && h.term == row.Term && x.HeardNs < NodeDownNs {
				x.State = "up"
			}
		}
		if row.ID == n.opt.ID && x.State == "down" {
			x.State = "booting"
		}
		for _, v := range s.Volumes {
			if v.Data.Owner == row.ID && s.OwnerLives(v.Data) {
				x.Owns++
			}
		}
		out.Nodes = append(out.Nodes, x)
	}
}

func (n *Node) diskState(d *membership.Disk, nowNs int64) string {
	switch {
	case d.State != membership.DiskOK:
		return string(d.State)
	case d.Node == n.opt.ID && !n.disks.open.Has(d.ID):
		return "missing"
	case d.Node == n.opt.ID:
		return "ok"
	}
	h := n.leader.known(d.Node)
	if h == nil || h.hb == nil || nowNs-h.heard > NodeDownNs {
		return "unreachable"
	}
	if !h.hb.Reach.Has(d.ID) {
		return "missing"
	}
	return "ok"
}

func (n *Node) volumeStatus(v *volume, nowNs int64) VolumeStatus {
	d := v.mv.Data
	s := n.group.State()
	out := VolumeStatus{ID: d.ID, Name: v.mv.Name, Slot: v.mv.Slot, Address: fmt.Sprintf("e%d.%d", s.Shelf, v.mv.Slot), SizeBytes: d.Size,
		Layout: fmt.Sprintf("%d+%d", d.Layout.K, d.Layout.M), UnitBytes: d.Layout.UnitBytes, Epoch: d.Epoch, Active: d.Active,
		ServingMACs: v.macs, InSync: d.InSync(), Serial: v.mv.Identity.Serial, Config: printable(v.mv.Control.Config),
		Reserved: v.mv.Control.Reserved, Mask: v.mv.Control.Mask}
	if s.OwnerLives(d) {
		out.Owner, out.OwnerName = d.Owner, nodeName(s, d.Owner)
	}
	for _, m := range d.Members {
		if !m.InSync {
			out.Stale = append(out.Stale, m.Disk)
		}
	}
	if r := n.reportOf(v.id, d.Owner, d.Epoch); r != nil {
		out.Suspended, out.Resync, out.Commit = r.Suspended, r.Resync, r.Commit
	}
	switch {
	case out.Owner == 0 || !d.Active || !n.ownerHeard(out.Owner, nowNs):
		out.Health = "down"
	case out.Suspended != "":
		out.Health = "suspended"
	case len(out.Stale) > 0:
		out.Health = "degraded"
	default:
		out.Health = "healthy"
	}
	return out
}

// ownerHeard reports whether a node can be serving as far as this one knows: it has a lease, or has been heard lately.
func (n *Node) ownerHeard(id raid.NodeID, nowNs int64) bool {
	if id == n.opt.ID {
		return n.inc.holder != nil && n.inc.holder.Valid(nowNs)
	}
	h := n.leader.known(id)
	return h != nil && h.hb != nil && nowNs-h.heard < NodeDownNs
}

// reportOf returns what the owner of a volume said last.
func (n *Node) reportOf(id raid.VolumeID, owner raid.NodeID, epoch raid.Epoch) *VolumeReport {
	if owner == n.opt.ID {
		if v := n.volume(id); v != nil && v.owner != nil {
			r := n.volumeReport(v)
			return &r
		}
		return nil
	}
	if h := n.leader.known(owner); h != nil && h.hb != nil {
		for i := range h.hb.Volumes {
			if r := &h.hb.Volumes[i]; r.Vol == id && r.Epoch == epoch {
				return r
			}
		}
	}
	return nil
}

func printable(b []byte) string {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c < ' ' || c > '~' {
			c = '.'
		}
		out = append(out, c)
	}
	return string(out)
}
