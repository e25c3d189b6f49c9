package raid

import "slices"

// Layout is RS(k+m) with a stripe unit.
type Layout struct {
	K         int `json:"k"`          // data shards, 1..32
	M         int `json:"m"`          // parity shards, 0..31; K+M <= 32
	UnitBytes int `json:"unit_bytes"` // power of two, 4 KiB..1 MiB
}

// Width returns k+m.
func (l Layout) Width() int { return l.K + l.M }

// Placement is where one shard of an extent lives. The generation tells the leftovers of an earlier stay on the same disk
// from the shard that counts (B: M4).
type Placement struct {
	Disk DiskID `json:"disk"`
	Gen  uint64 `json:"gen"`
}

// Extent is one slice of a volume. Its index is its place in Volume.Extents.
type Extent struct {
	Regions uint32      `json:"regions"` // 1 MiB regions per shard; the extent holds K*Regions MiB of the volume
	Shards  []Placement `json:"shards"`  // k+m placements on as many different disks; index = position
}

// HistRange says that the epochs From..To ended at seq End: records x:n of them with n > End never existed (A.1 hist).
type HistRange struct {
	From Epoch `json:"from"`
	To   Epoch `json:"to"`
	End  Seq   `json:"end"`
}

// Member is what Raft knows of one disk of a volume.
type Member struct {
	Disk   DiskID `json:"disk"`
	InSync bool   `json:"in_sync"`
	Since  Epoch  `json:"since"` // epoch of the last Activate or InSync that listed the disk (A.1 since)
	Stale  Seq    `json:"stale"` // S[d]: the disk holds everything up to here; meaningful when not InSync
}

// Volume is the part of a volume's replicated state that the data plane obeys (A.1). A *Volume handed to the data plane is
// immutable: the control plane replaces it, it never changes it in place.
type Volume struct {
	ID         VolumeID    `json:"id"`
	Layout     Layout      `json:"layout"`
	Size       uint64      `json:"size_bytes"` // multiple of 4 KiB
	Extents    []Extent    `json:"extents"`
	Members    []Member    `json:"members"` // sorted by disk
	Epoch      Epoch       `json:"epoch"`
	Ver        uint64      `json:"ver"`
	Owner      NodeID      `json:"owner"`      // 0: none
	OwnerTerm  Term        `json:"owner_term"` // oterm
	Released   Epoch       `json:"released"`
	Active     bool        `json:"active"`
	LastActive Epoch       `json:"last_active"`
	Forced     bool        `json:"forced"`
	Hist       []HistRange `json:"hist"` // sorted, disjoint, all closed epochs >= 1
}

// Clone returns a deep copy, for the control plane to change.
func (v *Volume) Clone() *Volume {
	c := *v
	c.Extents = make([]Extent, len(v.Extents))
	for i, x := range v.Extents {
		c.Extents[i] = Extent{Regions: x.Regions, Shards: slices.Clone(x.Shards)}
	}
	c.Members = slices.Clone(v.Members)
	c.Hist = slices.Clone(v.Hist)
	return &c
}

// Member returns what is known of disk d, or nil when d is no disk of the volume. The result points into v.
func (v *Volume) Member(d DiskID) *Member {
	i, ok := slices.BinarySearchFunc(v.Members, d, func(m Member, d DiskID) int { return int(m.Disk) - int(d) })
	if !ok {
		return nil
	}
	return &v.Members[i]
}

// InSync returns the disks that hold every acknowledged write, as Raft says.
func (v *Volume) InSync() DiskSet {
	s := make(DiskSet, 0, len(v.Members))
	for _, m := range v.Members {
		if m.InSync {
			s = append(s, m.Disk)
		}
	}
	return s
}

// Disks returns all disks of the volume.
func (v *Volume) Disks() DiskSet {
	s := make(DiskSet, 0, len(v.Members))
	for _, m := range v.Members {
		s = append(s, m.Disk)
	}
	return s
}

// EveryExtentKeeps reports whether every extent has at least k of its shards on disks of s: the guard of Activate, Stale
// and Damaged (B: C17).
func (v *Volume) EveryExtentKeeps(s DiskSet) bool {
	for i := range v.Extents {
		n := 0
		for _, p := range v.Extents[i].Shards {
			if s.Has(p.Disk) {
				n++
			}
		}
		if n < v.Layout.K {
			return false
		}
	}
	return true
}

// EndOf returns the recorded end of epoch e and whether e is closed. hist is sorted and disjoint, as in Volume.Hist.
func EndOf(hist []HistRange, e Epoch) (Seq, bool) {
	i, ok := slices.BinarySearchFunc(hist, e, func(h HistRange, e Epoch) int {
		switch {
		case h.To < e:
			return -1
		case h.From > e:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	return hist[i].End, true
}

// ShardRef names a shard of a volume on one disk, for that disk.
type ShardRef struct {
	Extent  uint32 `json:"extent"`
	Gen     uint64 `json:"gen"`
	Regions uint32 `json:"regions"`
}

// ShardsOn returns the live shards that v places on disk d, in order of extent.
func (v *Volume) ShardsOn(d DiskID) []ShardRef {
	var out []ShardRef
	for i, x := range v.Extents {
		for _, p := range x.Shards {
			if p.Disk == d {
				out = append(out, ShardRef{Extent: uint32(i), Gen: p.Gen, Regions: x.Regions})
			}
		}
	}
	return out
}
