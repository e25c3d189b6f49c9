package membership

import (
	"cmp"
	"slices"

	"clade/raid"
)

// clusterRoom is the disks by failure domain: a heap of domains, each a heap of its disks, the one with the most room on top.
// 100 TiB are 100,000 extents over up to thousands of disks, placed while the node waits: a sort for each would take seconds.
type clusterRoom []domainRoom

type domainRoom []*diskRoom

func newRoom(disks []*diskRoom, domain FailureDomain) clusterRoom {
	slices.SortFunc(disks, func(a, b *diskRoom) int { return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.disk, b.disk)) })
	var out clusterRoom
	last := raid.NodeID(0)
	for _, d := range disks {
		if len(out) == 0 || domain == DomainDisk || d.node != last {
			out = append(out, nil)
		}
		last = d.node
		out[len(out)-1] = append(out[len(out)-1], d)
	}
	for i := range out {
		slices.SortFunc(out[i], byRoom) // a sorted slice is a heap
	}
	slices.SortFunc(out, func(a, b domainRoom) int { return byRoom(a[0], b[0]) })
	return out
}

// byRoom orders by room, most first; the disk's id makes it a total order.
func byRoom(a, b *diskRoom) int {
	if a.freeMiB != b.freeMiB {
		return cmp.Compare(b.freeMiB, a.freeMiB)
	}
	return cmp.Compare(a.disk, b.disk)
}

// pick fills out with the roomiest disk of each of len(out) domains, the roomiest first. It moves these domains, in that order
// from the last place on, to the end of c; take puts them back.
func (c clusterRoom) pick(out []*diskRoom) {
	for i := range out {
		n := len(c) - 1 - i
		out[i] = c[0][0]
		c[0], c[n] = c[n], c[0]
		siftDown(c[:n], domainBefore)
	}
}

// take uses up room on the disks that pick has just returned.
func (c clusterRoom) take(picked []*diskRoom, mib uint64) {
	for i := len(picked) - 1; i >= 0; i-- {
		n := len(c) - 1 - i
		picked[i].freeMiB -= mib
		siftDown(c[n], diskBefore)
		siftUp(c[:n+1], domainBefore)
	}
}

func diskBefore(a, b *diskRoom) bool    { return byRoom(a, b) < 0 }
func domainBefore(a, b domainRoom) bool { return byRoom(a[0], b[0]) < 0 }

// siftDown restores a heap whose first element may be too far up.
func siftDown[T any](h []T, before func(a, b T) bool) {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && before(h[child+1], h[child]) {
			child++
		}
		if !before(h[child], h[i]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// siftUp restores a heap whose last element may be too far down.
func siftUp[T any](h []T, before func(a, b T) bool) {
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !before(h[i], h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}
