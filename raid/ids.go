package raid

import "slices"

// BlockBytes is the unit of checksums, after-images, rows and cache: 4 KiB.
const BlockBytes = 4096

// RegionBytes is the unit of resync, of locks and of parity rotation: 1 MiB of a shard.
const RegionBytes = 1 << 20

// BlocksPerRegion is RegionBytes / BlockBytes.
const BlocksPerRegion = RegionBytes / BlockBytes

// SectorBytes is the ATA sector.
const SectorBytes = 512

// VolumeID names a volume for ever; it is never used again after a delete (B: M6).
type VolumeID uint64

// NodeID names a node; it is also the node's Raft id. Zero is no node.
type NodeID uint64

// DiskID names a disk in the cluster; Raft assigns it and never reuses it. Zero is no disk.
type DiskID uint32

// Epoch counts takeovers of one volume: one epoch is one owner incarnation.
type Epoch uint64

// Term counts the lease terms (incarnations) of one node.
type Term uint64

// Seq numbers the batches of one volume densely from 1, through all epochs.
type Seq uint64

// Stream is σ of A.3: it grows with each new FIFO that an owner opens to a disk within its epoch.
type Stream uint64

// BootID is the kernel's boot_id of the host on which something happened.
type BootID [16]byte

// DiskSet is a sorted set of disks without duplicates. Treat it as immutable: every method returns a new set.
type DiskSet []DiskID

// NewDiskSet returns the set of the given disks; the argument is not kept.
func NewDiskSet(disks ...DiskID) DiskSet {
	s := slices.Clone(disks)
	slices.Sort(s)
	return DiskSet(slices.Compact(s))
}

// Has reports whether d is in s.
func (s DiskSet) Has(d DiskID) bool {
	_, ok := slices.BinarySearch(s, d)
	return ok
}

// With returns s ∪ {d}.
func (s DiskSet) With(d DiskID) DiskSet {
	i, ok := slices.BinarySearch(s, d)
	if ok {
		return s
	}
	return slices.Insert(slices.Clone(s), i, d)
}

// Without returns s ∖ {d}.
func (s DiskSet) Without(d DiskID) DiskSet {
	i, ok := slices.BinarySearch(s, d)
	if !ok {
		return s
	}
	return slices.Delete(slices.Clone(s), i, i+1)
}

// Minus returns s ∖ t.
func (s DiskSet) Minus(t DiskSet) DiskSet {
	out := make(DiskSet, 0, len(s))
	for _, d := range s {
		if !t.Has(d) {
			out = append(out, d)
		}
	}
	return out
}

// And returns s ∩ t.
func (s DiskSet) And(t DiskSet) DiskSet {
	out := make(DiskSet, 0, len(s))
	for _, d := range s {
		if t.Has(d) {
			out = append(out, d)
		}
	}
	return out
}

// Union returns s ∪ t.
func (s DiskSet) Union(t DiskSet) DiskSet {
	return NewDiskSet(append(slices.Clone(s), t...)...)
}

// SubsetOf reports s ⊆ t.
func (s DiskSet) SubsetOf(t DiskSet) bool {
	for _, d := range s {
		if !t.Has(d) {
			return false
		}
	}
	return true
}
