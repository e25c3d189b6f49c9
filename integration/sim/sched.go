package sim

import (
	"container/heap"
	"math/rand/v2"
)

// Nanoseconds.
const (
	us     = int64(1_000)
	ms     = int64(1_000_000)
	second = 1000 * ms
)

// scheduler is the one source of order: events run by (time, order of scheduling).
type scheduler struct {
	nowNs int64
	count uint64
	heap  eventHeap
}

type event struct {
	at  int64
	n   uint64
	run func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].n < h[j].n
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// at runs f at a true time, or now if that has passed.
func (s *scheduler) at(ns int64, f func()) {
	s.count++
	heap.Push(&s.heap, event{at: max(ns, s.nowNs), n: s.count, run: f})
}

// after runs f in d ns.
func (s *scheduler) after(d int64, f func()) { s.at(s.nowNs+d, f) }

// step runs the next event if it is due until the given time, and reports whether there was one. The true time never falls.
func (s *scheduler) step(until int64) bool {
	if len(s.heap) == 0 || s.heap[0].at > until {
		return false
	}
	e := heap.Pop(&s.heap).(event)
	s.nowNs = e.at
	e.run()
	return true
}

// random is a seeded source. Each concern has its own, so that one more draw in the network does not change the load.
type random struct{ *rand.Rand }

func newRandom(seed uint64, concern string) random {
	h := uint64(14695981039346656037)
	for i := range len(concern) {
		h = (h ^ uint64(concern[i])) * 1099511628211
	}
	return random{rand.New(rand.NewPCG(seed, h))}
}

// chance is true with probability p.
func (r random) chance(p float64) bool { return p > 0 && r.Float64() < p }

// between returns a value in [lo, hi].
func (r random) between(lo, hi int64) int64 {
	if hi <= lo {
		return lo
	}
	return lo + r.Int64N(hi-lo+1)
}

// delay returns a time around typical, with a long tail now and then.
func (r random) delay(typicalNs int64) int64 {
	d := typicalNs/2 + r.Int64N(typicalNs+1)
	if r.IntN(64) == 0 {
		d += r.Int64N(10*typicalNs + 1)
	}
	return d
}

// pick returns one of the values.
func pick[T any](r random, values ...T) T { return values[r.IntN(len(values))] }

// weighted returns an index drawn by weight; all weights zero gives -1.
func (r random) weighted(weights []float64) int {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	if sum <= 0 {
		return -1
	}
	x := r.Float64() * sum
	for i, w := range weights {
		if x -= w; x < 0 {
			return i
		}
	}
	return len(weights) - 1
}

// clock is one host's CLOCK_BOOTTIME: it runs at its own rate and may be made to jump (a hypervisor's pause that the guest
// does not count).
type clock struct {
	rate   float64 // 1 ± 0.01
	fromNs int64   // true time of the last change
	baseNs int64   // local time then
}

func (c *clock) at(trueNs int64) int64 { return c.baseNs + int64(float64(trueNs-c.fromNs)*c.rate) }

// trueAt returns the first true time at which the clock shows local ns or more.
func (c *clock) trueAt(localNs int64) int64 {
	t := c.fromNs + int64(float64(localNs-c.baseNs)/c.rate)
	for c.at(t) < localNs {
		t++
	}
	return t
}
