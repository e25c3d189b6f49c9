package raid

import (
	"fmt"
	"math/bits"
)

// ShardsMax bounds k+m.
const ShardsMax = 32

// Validate reports why l cannot be a layout, or nil.
func (l Layout) Validate() error {
	switch {
	case l.K < 1 || l.M < 0 || l.Width() > ShardsMax:
		return fmt.Errorf("layout %d+%d: need 1 or more data shards and at most %d shards in all", l.K, l.M, ShardsMax)
	case l.UnitBytes < BlockBytes || l.UnitBytes > RegionBytes || bits.OnesCount(uint(l.UnitBytes)) != 1:
		return fmt.Errorf("stripe unit %d: need a power of two from %d to %d bytes", l.UnitBytes, BlockBytes, RegionBytes)
	}
	return nil
}

// rowKey names a row: the k+m blocks with one block number in an extent's shards.
type rowKey struct {
	ext uint32
	no  uint32
}

// regionKey names the region in which a row lies, over all shards of the extent.
type regionKey struct {
	ext    uint32
	region uint32
}

func (k rowKey) region() regionKey { return regionKey{k.ext, k.no / BlocksPerRegion} }

// span is the part of a request that lies in one block of one row.
type span struct {
	key  rowKey
	role int // data role, 0..k-1
	off  int // byte offset in the block
	n    int // bytes
	at   int // byte offset in the request's data
}

// Geometry does the arithmetic between a volume's addresses and its shards. No other file does. It is immutable.
type Geometry struct {
	layout  Layout
	starts  []uint64 // first byte of each extent, and the end of the last
	extents []Extent
}

// NewGeometry returns the geometry of v. It keeps v.Extents, which is immutable.
func NewGeometry(v *Volume) *Geometry {
	g := &Geometry{layout: v.Layout, extents: v.Extents, starts: make([]uint64, len(v.Extents)+1)}
	for i, x := range v.Extents {
		g.starts[i+1] = g.starts[i] + uint64(x.Regions)*RegionBytes*uint64(v.Layout.K)
	}
	return g
}

// extentAt returns the index of the extent that holds byte off.
func (g *Geometry) extentAt(off uint64) int {
	lo, hi := 0, len(g.extents)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if g.starts[mid] <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// spans appends the parts of [off, off+n) to dst, in order of address, each within one block.
func (g *Geometry) spans(dst []span, off uint64, n int) []span {
	unit, k := uint64(g.layout.UnitBytes), uint64(g.layout.K)
	for at := 0; at < n; {
		x := g.extentAt(off)
		in := off - g.starts[x]
		u := in / unit
		shardOff := u/k*unit + in%unit
		s := span{
			key:  rowKey{uint32(x), uint32(shardOff / BlockBytes)},
			role: int(u % k),
			off:  int(shardOff % BlockBytes),
			at:   at,
		}
		s.n = min(BlockBytes-s.off, n-at)
		dst = append(dst, s)
		at += s.n
		off += uint64(s.n)
	}
	return dst
}

// address returns the first byte of the volume that the block of a data role in a row holds: the inverse of spans.
func (g *Geometry) address(key rowKey, role int) uint64 {
	unit, k := uint64(g.layout.UnitBytes), uint64(g.layout.K)
	shardOff := uint64(key.no) * BlockBytes
	return g.starts[key.ext] + (shardOff/unit*k+uint64(role))*unit + shardOff%unit
}

// Address returns the first byte of the volume that data role `role` holds in block no of an extent's shards.
func (g *Geometry) Address(ext, no uint32, role int) uint64 { return g.address(rowKey{ext, no}, role) }

// position returns where in Extent.Shards a role's block lies in region r: parity rotates by region.
func (g *Geometry) position(region uint32, role int) int {
	return int((uint32(role) + region) % uint32(g.layout.Width()))
}

// roleOf is the inverse of position.
func (g *Geometry) roleOf(region uint32, pos int) int {
	w := uint32(g.layout.Width())
	return int((uint32(pos) + w - region%w) % w)
}

// placement returns where the block of a role in a row lies.
func (g *Geometry) placement(key rowKey, role int) Placement {
	return g.extents[key.ext].Shards[g.position(key.no/BlocksPerRegion, role)]
}

// RoleOn returns the role that disk d plays in a region of an extent, or -1.
func (g *Geometry) RoleOn(d DiskID, ext, region uint32) int {
	for pos, p := range g.extents[ext].Shards {
		if p.Disk == d {
			return g.roleOf(region, pos)
		}
	}
	return -1
}

// ExtentRegions returns the number of 1 MiB regions of each shard of extents for a volume of sizeBytes when an extent holds
// at most extentBytes: all extents are alike but the last, which is as short as whole regions allow.
func ExtentRegions(l Layout, sizeBytes, extentBytes uint64) []uint32 {
	per := uint64(l.K) * RegionBytes
	full := max(extentBytes/per, 1)
	total := (sizeBytes + per - 1) / per
	var out []uint32
	for total > 0 {
		n := min(full, total)
		out = append(out, uint32(n))
		total -= n
	}
	return out
}

// BlockPlacement returns where the block of a role in a row lies: roles below k carry data.
func (g *Geometry) BlockPlacement(extent, block uint32, role int) Placement {
	return g.placement(rowKey{extent, block}, role)
}
