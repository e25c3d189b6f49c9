package membership

import (
	"cmp"
	"fmt"
	"slices"

	"clade/raid"
)

// Sizes of volumes.
const (
	DefaultExtentMiB = 1024
	MaxExtentMiB     = 1 << 20
	MaxSlot          = 254
	maxVolumeBytes   = 1 << 57 // 2^48 sectors
	defaultBufCount  = 64
)

// Create makes a volume. Its id is the next one, never used before. Where its shards go is computed by apply from State
// alone, so that every replica computes the same; the proposer may narrow the choice to Disks.
type Create struct {
	Slot      uint8         `json:"slot"`
	Name      string        `json:"name"`
	SizeBytes uint64        `json:"size_bytes"` // multiple of 4 KiB
	Layout    raid.Layout   `json:"layout"`
	ExtentMiB uint32        `json:"extent_mib"` // logical; 0: 1024; rounded up to k whole regions
	Domain    FailureDomain `json:"domain"`     // "": node
	Disks     raid.DiskSet  `json:"disks"`      // empty: all
	Strict    bool          `json:"strict"`
	Identity  Identity      `json:"identity"`   // empty fields get defaults
	CreatedMs int64         `json:"created_ms"` // Unix time; for people
}

// CommandType returns the tag on the wire.
func (*Create) CommandType() string { return "create" }

func (c *Create) apply(s *State, h Header) Result {
	if err := c.validate(s); err != nil {
		return Result{Err: err}
	}
	id := s.NextVolume
	extents, err := c.place(s)
	if err != nil {
		return Result{Err: fmt.Errorf("volume %q: %w", c.Name, err)}
	}
	d := &raid.Volume{ID: id, Layout: c.Layout, Size: c.SizeBytes, Extents: extents}
	seen := map[raid.DiskID]bool{}
	for i := range extents {
		for _, p := range extents[i].Shards {
			if !seen[p.Disk] {
				seen[p.Disk] = true
				d.Members = append(d.Members, raid.Member{Disk: p.Disk, InSync: true})
			}
		}
	}
	slices.SortFunc(d.Members, func(a, b raid.Member) int { return cmp.Compare(a.Disk, b.Disk) })
	v := &Volume{Data: d, Slot: c.Slot, Name: c.Name, Identity: c.identity(s, id), Domain: c.domain(), Strict: c.Strict, CreatedMs: c.CreatedMs}
	s.NextVolume++
	s.Volumes = append(s.Volumes, v)
	return Result{Volume: id}
}

func (c *Create) domain() FailureDomain {
	if c.Domain == "" {
		return DomainNode
	}
	return c.Domain
}

func (c *Create) validate(s *State) error {
	l := c.Layout
	switch {
	case c.Slot > MaxSlot:
		return fmt.Errorf("slot %d, at most %d: %w", c.Slot, MaxSlot, ErrInvalid)
	case !validName(c.Name):
		return fmt.Errorf("volume name %q: letters, digits, '-', '_' and '.', at most %d: %w", c.Name, MaxNameBytes, ErrInvalid)
	case l.K < 1 || l.K > 32 || l.M < 0 || l.M > 31 || l.Width() > 32:
		return fmt.Errorf("layout %d+%d: 1..32 data, 0..31 parity, at most 32 in all: %w", l.K, l.M, ErrInvalid)
	case l.UnitBytes < raid.BlockBytes || l.UnitBytes > raid.RegionBytes || l.UnitBytes&(l.UnitBytes-1) != 0:
		return fmt.Errorf("stripe unit of %d bytes: a power of two from 4 KiB to 1 MiB: %w", l.UnitBytes, ErrInvalid)
	case c.SizeBytes == 0 || c.SizeBytes%raid.BlockBytes != 0 || c.SizeBytes > maxVolumeBytes:
		return fmt.Errorf("size of %d bytes: a multiple of 4 KiB, not 0: %w", c.SizeBytes, ErrInvalid)
	case c.ExtentMiB > MaxExtentMiB:
		return fmt.Errorf("extents of %d MiB, at most %d: %w", c.ExtentMiB, MaxExtentMiB, ErrInvalid)
	case c.domain() != DomainNode && c.domain() != DomainDisk:
		return fmt.Errorf("failure domain %q, not node or disk: %w", c.Domain, ErrInvalid)
	case len(s.Volumes) >= MaxVolumes:
		return fmt.Errorf("%d volumes already: %w", len(s.Volumes), ErrNoSpace)
	}
	for _, v := range s.Volumes {
		if v.Slot == c.Slot {
			return fmt.Errorf("slot %d is %w by volume %q", c.Slot, ErrExists, v.Name)
		}
		if v.Name == c.Name {
			return fmt.Errorf("volume name %q is %w in slot %d", c.Name, ErrExists, v.Slot)
		}
	}
	for _, d := range c.Disks {
		if s.Disk(d) == nil {
			return fmt.Errorf("disk %d: %w", d, ErrNotFound)
		}
	}
	id := c.Identity
	if len(id.Serial) > 20 || len(id.Model) > 40 || len(id.Firmware) > 8 || !ataString(id.Serial) || !ataString(id.Model) || !ataString(id.Firmware) {
		return fmt.Errorf("serial %q, model %q or firmware %q: ASCII, at most 20, 40 and 8: %w", id.Serial, id.Model, id.Firmware, ErrInvalid)
	}
	return nil
}

func ataString(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// identity fills in defaults. The serial holds the volume's id, so no two volumes of a cluster ever share one.
func (c *Create) identity(s *State, id raid.VolumeID) Identity {
	out := c.Identity
	if out.Serial == "" {
		out.Serial = fmt.Sprintf("%x%012x", s.Cluster[:4], uint64(id)&(1<<48-1))
	}
	if out.Model == "" {
		out.Model = "Clade volume"
	}
	if out.Firmware == "" {
		out.Firmware = "1"
	}
	if out.BufCount == 0 {
		out.BufCount = defaultBufCount
	}
	return out
}

// place chooses k+m disks of as many domains for each extent: those with the most room, which fills every disk evenly and
// finds a placement whenever there is one for equal extents. The positions rotate from extent to extent, so that data and
// parity are spread.
func (c *Create) place(s *State) ([]raid.Extent, error) {
	k, w := uint64(c.Layout.K), c.Layout.Width()
	extentMiB := uint64(c.ExtentMiB)
	if extentMiB == 0 {
		extentMiB = DefaultExtentMiB
	}
	regions := (extentMiB + k - 1) / k
	extentBytes := regions * k << 20
	n := (c.SizeBytes + extentBytes - 1) / extentBytes
	if n > MaxExtents {
		return nil, fmt.Errorf("%d extents, at most %d; take larger extents: %w", n, MaxExtents, ErrInvalid)
	}
	room := newRoom(c.candidates(s), c.domain())
	if len(room) < w {
		return nil, fmt.Errorf("layout %d+%d needs disks on %d different %ss, there are %d: %w", c.Layout.K, c.Layout.M, w, c.domain(), len(room), ErrNoSpace)
	}
	extents := make([]raid.Extent, 0, n)
	pick := make([]*diskRoom, w)
	for i := range n {
		r := regions
		if left := c.SizeBytes - i*extentBytes; left < extentBytes {
			r = (left + k<<20 - 1) / (k << 20)
		}
		room.pick(pick)
		if short := pick[w-1]; short.freeMiB < r {
			return nil, fmt.Errorf("extent %d needs %d MiB on each of %d disks, disk %d has %d MiB left: %w", i, r, w, short.disk, short.freeMiB, ErrNoSpace)
		}
		room.take(pick, r)
		slices.SortFunc(pick, func(a, b *diskRoom) int { return cmp.Compare(a.disk, b.disk) })
		x := raid.Extent{Regions: uint32(r), Shards: make([]raid.Placement, w)}
		for j, p := range pick {
			x.Shards[(j+int(i))%w] = raid.Placement{Disk: p.disk}
		}
		extents = append(extents, x)
	}
	return extents, nil
}

type diskRoom struct {
	disk    raid.DiskID
	node    raid.NodeID
	freeMiB uint64
}

// candidates returns the disks that take new shards, with their free room.
func (c *Create) candidates(s *State) []*diskRoom {
	used := s.usedMiB()
	only := raid.NewDiskSet(c.Disks...)
	var out []*diskRoom
	for i := range s.Disks {
		d := &s.Disks[i]
		n := s.Node(d.Node)
		if d.State != DiskOK || n == nil || n.Draining || len(only) > 0 && !only.Has(d.ID) {
			continue
		}
		free := uint64(0)
		if u := used[d.ID]; u < d.CapacityMiB {
			free = d.CapacityMiB - u
		}
		out = append(out, &diskRoom{disk: d.ID, node: d.Node, freeMiB: free})
	}
	return out
}
