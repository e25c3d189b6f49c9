package raid

import (
	"math/rand/v2"
	"testing"
)

// The list of Reads under way finds what a map would, whatever order the answers come in, and does not grow with what has ended.
func TestOuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	disks := []*disk{{id: 1}, {id: 2}}
	var l outs
	under := map[uint64]*readOut{}
	id := uint64(0)
	for range 100_000 {
		if len(under) < 100 && rng.IntN(2) == 0 {
			id += 1 + rng.Uint64N(3)
			out := &readOut{id: id, x: disks[rng.IntN(2)]}
			under[id] = out
			l.add(out)
			continue
		}
		x, n := disks[rng.IntN(2)], id-min(id, rng.Uint64N(200))
		want := under[n]
		if want != nil && want.x != x {
			want = nil
		}
		if got := l.take(x, n); got != want {
			t.Fatalf("read %d of disk %d: %v, want %v", n, x.id, got, want)
		}
		if want != nil {
			delete(under, n)
		}
		if oldest := l.oldest(); (oldest == nil) != (len(under) == 0) || len(l.all()) != len(under) {
			t.Fatalf("%d of %d, oldest %v", len(l.all()), len(under), oldest)
		}
	}
	if cap(l.list) > 1000 {
		t.Fatalf("room for %d", cap(l.list))
	}
}
