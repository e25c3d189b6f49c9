package cluster

import (
	"math/bits"

	"clade/aoe"
)

// LatencyBuckets is the number of buckets of a Latency. Bucket i counts what took less than LatencyLimitNs(i); the last one
// counts everything, also what took longer than 8 s.
const LatencyBuckets = 20

// latencyUnitBits makes 16384 ns the limit of the first bucket.
const latencyUnitBits = 14

// Latency is how long requests took inside this node, from the kernel's time of receipt of the frame to the answer's being
// handed to the port. Requests without an answer are not in it.
type Latency struct {
	Counts [LatencyBuckets]uint64 // not cumulative
	SumNs  int64
}

// LatencyLimitNs returns the upper limit of bucket i, 0 <= i < LatencyBuckets-1.
func LatencyLimitNs(i int) int64 { return 1 << (latencyUnitBits + i) }

func (l *Latency) observe(ns int64) {
	ns = max(ns, 0)
	l.Counts[min(bits.Len64(uint64(ns)>>latencyUnitBits), LatencyBuckets-1)]++
	l.SumNs += ns
}

// Latencies are the latencies of answered requests by kind.
type Latencies struct{ Read, Write, Flush Latency }

// Latencies returns how long requests have taken since the process began.
func (n *Node) Latencies() *Latencies { return &n.latencies }

// of returns the latency of a kind of request.
func (l *Latencies) of(kind aoe.ActionKind) *Latency {
	switch kind {
	case aoe.ActionWrite:
		return &l.Write
	case aoe.ActionFlush:
		return &l.Flush
	}
	return &l.Read // and verify
}
