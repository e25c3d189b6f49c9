package membership

import (
	"fmt"
	"slices"

	"clade/raid"
)

// MaxDiskMiB bounds a disk's capacity so that sums cannot overflow: 1 EiB.
const MaxDiskMiB = 1 << 40

// DiskAdd makes a formatted disk known and attaches it to a node. It can be repeated by that node.
type DiskAdd struct {
	Node        raid.NodeID `json:"node"`
	UUID        UUID        `json:"uuid"`
	CapacityMiB uint64      `json:"capacity_mib"` // room for shards
	Label       string      `json:"label"`
}

// CommandType returns the tag on the wire.
func (*DiskAdd) CommandType() string { return "disk_add" }

func (c *DiskAdd) apply(s *State, h Header) Result {
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return void("node %d: %w", c.Node, ErrNotFound)
	case n.Witness:
		return void("node %q is a witness and has no disks: %w", n.Name, ErrInvalid)
	case n.Leaving:
		return void("node %q is leaving: %w", n.Name, ErrInUse)
	case c.UUID == UUID{} || c.CapacityMiB == 0 || c.CapacityMiB > MaxDiskMiB:
		return void("disk with uuid %x and %d MiB: %w", c.UUID, c.CapacityMiB, ErrInvalid)
	case len(c.Label) > MaxAddrBytes || !printable(c.Label):
		return void("disk label %q: %w", c.Label, ErrInvalid)
	}
	if d := s.DiskUUID(c.UUID); d != nil {
		if d.Node == c.Node && d.CapacityMiB == c.CapacityMiB && d.Label == c.Label {
			return Result{Disk: d.ID, Node: d.Node}
		}
		return void("disk %x is known as disk %d of node %d: %w (a copy of its contents, or attach it to move it)", c.UUID, d.ID, d.Node, ErrExists)
	}
	if len(s.Disks) >= MaxDisks {
		return void("%d disks already: %w", len(s.Disks), ErrNoSpace)
	}
	id := s.NextDisk
	s.NextDisk++
	s.Disks = append(s.Disks, Disk{ID: id, UUID: c.UUID, Node: c.Node, AttachGen: 1, CapacityMiB: c.CapacityMiB, State: DiskOK, Label: c.Label})
	return Result{Disk: id, Node: c.Node}
}

// DiskAttach moves a disk to another node (B: M7): the generation grows, and the disk is opened only with the current one.
// The former node must have let go of it: detached, or its term is over.
type DiskAttach struct {
	Disk raid.DiskID `json:"disk"`
	Node raid.NodeID `json:"node"`
	Gen  uint64      `json:"gen"` // the generation it was planned at
}

// CommandType returns the tag on the wire.
func (*DiskAttach) CommandType() string { return "disk_attach" }

func (c *DiskAttach) apply(s *State, h Header) Result {
	d, n := s.Disk(c.Disk), s.Node(c.Node)
	switch {
	case d == nil:
		return void("disk %d: %w", c.Disk, ErrNotFound)
	case n == nil:
		return void("node %d: %w", c.Node, ErrNotFound)
	case n.Witness || n.Leaving:
		return void("node %q takes no disks: %w", n.Name, ErrInvalid)
	case d.AttachGen != c.Gen:
		return void("disk %d is at attach generation %d, not %d: %w", d.ID, d.AttachGen, c.Gen, ErrTerm)
	}
	former := s.Node(d.Node)
	if former != nil && former.Held && d.State != DiskDetached {
		return void("disk %d is open on node %q, which lives; detach it first: %w", d.ID, former.Name, ErrInUse)
	}
	if d.Node != c.Node {
		if err := s.domainsHold(d.ID, c.Node); err != nil {
			return Result{Err: err}
		}
	}
	d.Node, d.State = c.Node, DiskOK
	d.AttachGen++
	return Result{Disk: d.ID, Node: d.Node}
}

// domainsHold reports whether no extent of failure domain node gets two shards on a node when disk d moves to n.
func (s *State) domainsHold(d raid.DiskID, n raid.NodeID) error {
	for _, v := range s.Volumes {
		if v.Domain != DomainNode || v.Data.Member(d) == nil {
			continue
		}
		for i := range v.Data.Extents {
			has, other := false, false
			for _, p := range v.Data.Extents[i].Shards {
				has = has || p.Disk == d
				o := s.Disk(p.Disk)
				other = other || p.Disk != d && o != nil && o.Node == n
			}
			if has && other {
				return fmt.Errorf("node %d already holds another shard of extent %d of volume %q: %w", n, i, v.Name, ErrInUse)
			}
		}
	}
	return nil
}

// DiskReplace puts a formatted, empty disk in the place of one that is lost: it takes over its number and its shards. To every owner it
// is the same disk, come back blank: its volumes are damaged there until they are wiped and copied whole (A.3 Shards, B: C27). The
// lost one is refused from then on. No volume may still count on it.
type DiskReplace struct {
	Disk        raid.DiskID `json:"disk"`
	Gen         uint64      `json:"gen"` // the generation it was planned at
	Node        raid.NodeID `json:"node"`
	UUID        UUID        `json:"uuid"`
	CapacityMiB uint64      `json:"capacity_mib"`
	Label       string      `json:"label"`
}

// CommandType returns the tag on the wire.
func (*DiskReplace) CommandType() string { return "disk_replace" }

func (c *DiskReplace) apply(s *State, h Header) Result {
	d, n := s.Disk(c.Disk), s.Node(c.Node)
	switch {
	case d == nil:
		return void("disk %d: %w", c.Disk, ErrNotFound)
	case n == nil:
		return void("node %d: %w", c.Node, ErrNotFound)
	case n.Witness || n.Leaving:
		return void("node %q takes no disks: %w", n.Name, ErrInvalid)
	case d.UUID == c.UUID && d.Node == c.Node:
		return Result{Disk: d.ID, Node: d.Node}
	case d.AttachGen != c.Gen:
		return void("disk %d is at attach generation %d, not %d: %w", d.ID, d.AttachGen, c.Gen, ErrTerm)
	case c.UUID == UUID{} || s.DiskUUID(c.UUID) != nil || c.CapacityMiB > MaxDiskMiB || len(c.Label) > MaxAddrBytes || !printable(c.Label):
		return void("disk with uuid %x, %d MiB and label %q: %w", c.UUID, c.CapacityMiB, c.Label, ErrInvalid)
	case c.CapacityMiB < s.UsedMiB(d.ID) || c.CapacityMiB == 0:
		return void("disk %d has shards of %d MiB, the new disk has room for %d MiB: %w", d.ID, s.UsedMiB(d.ID), c.CapacityMiB, ErrNoSpace)
	}
	if former := s.Node(d.Node); former != nil && former.ID != c.Node && former.Held && d.State == DiskOK {
		return void("disk %d is node %q's, which lives; replace it there, or detach it first: %w", d.ID, former.Name, ErrInUse)
	}
	for _, v := range s.Volumes {
		if m := v.Data.Member(d.ID); m != nil && m.InSync {
			return void("volume %q counts disk %d as in sync, the new one would be empty; wait until the volume is degraded by its loss: %w", v.Name, d.ID, ErrInUse)
		}
	}
	if d.Node != c.Node {
		if err := s.domainsHold(d.ID, c.Node); err != nil {
			return Result{Err: err}
		}
	}
	d.Node, d.UUID, d.State, d.CapacityMiB, d.Label = c.Node, c.UUID, DiskOK, c.CapacityMiB, c.Label
	d.AttachGen++
	return Result{Disk: d.ID, Node: d.Node}
}

// DiskSetState records that a disk is in order, has failed or was detached.
type DiskSetState struct {
	Disk  raid.DiskID `json:"disk"`
	Gen   uint64      `json:"gen"`
	State DiskState   `json:"state"`
}

// CommandType returns the tag on the wire.
func (*DiskSetState) CommandType() string { return "disk_state" }

func (c *DiskSetState) apply(s *State, h Header) Result {
	d := s.Disk(c.Disk)
	switch {
	case d == nil:
		return void("disk %d: %w", c.Disk, ErrNotFound)
	case d.AttachGen != c.Gen:
		return void("disk %d is at attach generation %d, not %d: %w", d.ID, d.AttachGen, c.Gen, ErrTerm)
	case c.State != DiskOK && c.State != DiskFailed && c.State != DiskDetached:
		return void("disk state %q: %w", c.State, ErrInvalid)
	}
	d.State = c.State
	return Result{Disk: d.ID, Node: d.Node}
}

// DiskRemove forgets a disk that no volume uses.
type DiskRemove struct {
	Disk raid.DiskID `json:"disk"`
}

// CommandType returns the tag on the wire.
func (*DiskRemove) CommandType() string { return "disk_remove" }

func (c *DiskRemove) apply(s *State, h Header) Result {
	d := s.Disk(c.Disk)
	if d == nil {
		return void("disk %d: %w", c.Disk, ErrNotFound)
	}
	for _, v := range s.Volumes {
		if v.Data.Member(c.Disk) != nil {
			return void("disk %d holds shards of volume %q: %w", d.ID, v.Name, ErrInUse)
		}
	}
	node := d.Node
	s.Disks = slices.DeleteFunc(s.Disks, func(d Disk) bool { return d.ID == c.Disk })
	return Result{Disk: c.Disk, Node: node}
}
