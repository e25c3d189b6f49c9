package membership

import (
	"math/rand/v2"
	"slices"
	"testing"

	"clade/raid"
)

// The heaps pick what a sort of all disks would.
func TestRoomPicksTheDisksWithTheMostRoom(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 8))
		domain := []FailureDomain{DomainNode, DomainDisk}[seed%2]
		var disks []*diskRoom
		for i := range 3 + r.IntN(40) {
			disks = append(disks, &diskRoom{disk: raid.DiskID(i + 1), node: raid.NodeID(1 + r.IntN(8)), freeMiB: r.Uint64N(5000)})
		}
		all := slices.Clone(disks)
		room := newRoom(disks, domain)
		w := 1 + r.IntN(len(room))
		pick := make([]*diskRoom, w)
		for i := range 50 {
			var want []*diskRoom
			slices.SortFunc(all, byRoom)
			for _, d := range all {
				if len(want) < w && (domain == DomainDisk || !slices.ContainsFunc(want, func(o *diskRoom) bool { return o.node == d.node })) {
					want = append(want, d)
				}
			}
			room.pick(pick)
			if !slices.Equal(pick, want) {
				t.Fatalf("seed %d, extent %d: other disks than a sort picks", seed, i)
			}
			room.take(pick, min(r.Uint64N(100), pick[w-1].freeMiB))
		}
	}
}
