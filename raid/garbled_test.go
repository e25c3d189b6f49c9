package raid_test

import (
	"slices"
	"testing"

	. "clade/raid"
)

// garble returns an answer, or, in histories with garbled answers, now and then one that does not fit what was asked for; it may come
// again later. Which batches are durable is told truly: nothing protects from a disk that lies about that alone.
func (h *history) garble(l *link, r *DiskReply) *DiskReply {
	if !h.garbling || h.healthy || l.zombie {
		return r
	}
	n := h.rng.IntN(60)
	if n < 4 {
		l.replies = append(l.replies, r)
	}
	g := *r
	switch {
	case n < 8 && (g.Kind == RepRead || g.Kind == RepRegions || g.Kind == RepVerified):
		g.ID += 1 << 50
	case n < 9 && g.Kind == RepRead:
		g.First += BlocksPerRegion
	case n < 10:
		g.R += Seq(h.rng.IntN(1 << 40))
	case n < 12 && len(g.Blocks) > 0:
		g.Blocks = g.Blocks[:h.rng.IntN(len(g.Blocks))]
	case n < 14 && len(g.Blocks) > 0:
		g.Blocks = append(slices.Clone(g.Blocks), g.Blocks[0])
	case n < 17 && len(g.Blocks) > 0:
		g.Blocks = slices.Clone(g.Blocks)
		g.Blocks[h.rng.IntN(len(g.Blocks))] = [][]byte{nil, {}, make([]byte, 512), make([]byte, 2*BlockBytes)}[h.rng.IntN(4)]
	case n < 20 && len(g.Regions) > 0:
		g.Regions = [][]Seq{nil, append(slices.Clone(g.Regions), 1), g.Regions[:len(g.Regions)-1]}[h.rng.IntN(3)]
	case n < 21:
		g.Kind, g.Nack, g.Err = RepNack, NackRefused, "garbled"
	case n < 22 && g.Kind == RepRead:
		g.Kind = RepFilled
	}
	return &g
}

// TestGarbledHistories: answers that come twice or do not fit cost time, never data, and no request ends twice.
func TestGarbledHistories(t *testing.T) {
	for seed := uint64(1); seed <= uint64(*seedsFlag) && !t.Failed(); seed++ {
		h := newHistory(t, 1000+seed)
		h.garbling = true
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Fatalf("seed %d: step %d: panic: %v", seed, h.step, p)
				}
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			h.live()
		}()
	}
}
