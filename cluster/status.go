package cluster

import (
	"cmp"
	"fmt"
	"slices"

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
	Health       string         `json:"health"` // healthy, degraded or down
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

// Problem says what is wrong and what to do. The driver that shows it remembers since when.
type Problem struct {
	Key  string `json:"key"` // the same problem has the same key
	What string `json:"what"`
	Do   string `json:"do"`
}

// NodeDownNs is how long a node may be silent before status calls it down.
const NodeDownNs = 500 * ms

// Status returns the cluster as this node sees it now.
func (n *Node) Status(nowNs int64) *Status {
	s := n.group.State()
	lead, _ := n.group.Leader()
	out := &Status{Name: s.Name, Cluster: uuidText(s.Cluster), Shelf: s.Shelf, FeatureLevel: s.FeatureLevel, SectorCount: s.SectorCount,
		Self: n.opt.ID, Leader: lead, LeaseValid: n.inc.holder != nil && n.inc.holder.Valid(nowNs), Stats: n.stats, Problems: []Problem{}}
	if row := s.Node(lead); row != nil {
		out.LeaderName = row.Name
	}
	n.nodeStatus(out, nowNs)
	for i := range s.Disks {
		d := &s.Disks[i]
		out.Disks = append(out.Disks, DiskStatus{ID: d.ID, UUID: uuidText(d.UUID), Node: d.Node, NodeName: nodeName(s, d.Node), Label: d.Label,
			State: n.diskState(d, nowNs), CapacityMiB: d.CapacityMiB, UsedMiB: s.UsedMiB(d.ID)})
	}
	for _, v := range n.vols {
		out.Volumes = append(out.Volumes, n.volumeStatus(v))
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
		if h := n.leader.node(row.ID); h != nil && h.hb != nil {
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
	h := n.leader.node(d.Node)
	if h == nil || h.hb == nil || nowNs-h.heard > NodeDownNs {
		return "unreachable"
	}
	if !h.hb.Reach.Has(d.ID) {
		return "missing"
	}
	return "ok"
}

func (n *Node) volumeStatus(v *volume) VolumeStatus {
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
	case out.Owner == 0 || !d.Active:
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

// reportOf returns what the owner of a volume said last.
func (n *Node) reportOf(id raid.VolumeID, owner raid.NodeID, epoch raid.Epoch) *VolumeReport {
	if owner == n.opt.ID {
		for _, r := range n.volumeReports() {
			if r.Vol == id {
				return &r
			}
		}
		return nil
	}
	if h := n.leader.node(owner); h != nil && h.hb != nil {
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

// problems lists what is wrong, worst first, with what to do.
func (n *Node) problems(out *Status) {
	add := func(key, do, f string, a ...any) {
		out.Problems = append(out.Problems, Problem{Key: key, What: fmt.Sprintf(f, a...), Do: do})
	}
	if out.Leader == 0 {
		add("quorum", "start more nodes: a majority of the voters must be up; until then volumes are silent and initiators keep retrying",
			"no quorum: %d of %d nodes can be heard", up(out.Nodes), len(out.Nodes))
	}
	for i := range out.Volumes {
		v := &out.Volumes[i]
		key := fmt.Sprintf("volume-%d", v.ID)
		switch v.Health {
		case "down":
			add(key, "bring back nodes that hold its in-sync disks; it resumes by itself", "volume %s (%s) is not served", v.Address, v.Name)
		case "suspended":
			add(key, "bring that disk's node back; it resumes by itself", "volume %s (%s) is suspended: %s", v.Address, v.Name, v.Suspended)
		case "degraded":
			do := "nothing: it resyncs by itself"
			if len(v.Resync) == 0 {
				do = "bring back the disk or its node; the resync then starts by itself"
			}
			add(key, do, "volume %s (%s) is degraded: stale disks %v%s", v.Address, v.Name, v.Stale, progress(v.Resync))
		}
	}
	for i := range out.Nodes {
		x := &out.Nodes[i]
		key := fmt.Sprintf("node-%d", x.ID)
		if x.State != "up" {
			add(key, "start it: clade serve", "node %s is %s", x.Name, x.State)
			continue
		}
		for p := range x.Paths {
			switch path := &x.Paths[p]; {
			case !path.Carrier:
				add(key+"-san", "check its cable or switch port", "node %s has no carrier on SAN path %d", x.Name, p)
			case !path.MTUOK:
				add(key+"-mtu", fmt.Sprintf("raise the MTU of the interface to %d", aoe.MTUFor(out.SectorCount)),
					"node %s: the MTU of SAN path %d is too small for %d sectors a frame; it cannot own volumes", x.Name, p, out.SectorCount)
			}
		}
		if x.Draining {
			add(key+"-drain", "clade drain --undo "+x.Name+" when the work is done", "node %s is draining", x.Name)
		}
	}
	for i := range out.Disks {
		if d := &out.Disks[i]; d.State == "missing" || d.State == "failed" {
			add(fmt.Sprintf("disk-%d", d.ID), "look at the node's log, replace the disk or bring it back", "disk %d (%s on node %s) is %s", d.ID, d.Label, d.NodeName, d.State)
		}
	}
	out.Health = "healthy"
	for _, v := range out.Volumes {
		if v.Health == "down" || v.Health == "suspended" {
			out.Health = "down"
		}
	}
	if out.Leader == 0 {
		out.Health = "down"
	}
	if out.Health == "healthy" && slices.ContainsFunc(out.Problems, func(p Problem) bool { return true }) {
		out.Health = "degraded"
	}
}

func up(nodes []NodeStatus) int {
	n := 0
	for _, x := range nodes {
		if x.State == "up" {
			n++
		}
	}
	return n
}

func progress(r []raid.ResyncStatus) string {
	text := ""
	slices.SortFunc(r, func(a, b raid.ResyncStatus) int { return cmp.Compare(a.Disk, b.Disk) })
	for _, x := range r {
		text += fmt.Sprintf("; disk %d: %d of %d MiB copied", x.Disk, x.Done, x.Total)
	}
	return text
}
