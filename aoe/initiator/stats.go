package initiator

import "math/bits"

// Stats are the counters of a Device since it was made.
type Stats struct {
	Ops, Failed       uint64 // operations that ended; of these with an error
	ReadBytes         uint64
	WrittenBytes      uint64
	FramesSent        uint64 // data and control frames, all copies
	Resent            uint64 // of these, retransmissions
	Answers           uint64 // matched
	Unexpected        uint64 // answers to a tag that is not in flight (any more)
	Ignored           uint64 // frames that are not for us or make no sense
	AoEErrors         uint64
	Timeouts          uint64 // retransmission timers that fired
	Discoveries       uint64
	Paths, PathsClear int   // known; and of these not avoided
	RTONs             int64 // for a first copy, now
	MinRTTNs          int64
	MaxRTTNs          int64
	// LongestStallNs is the longest time from submission to completion of any
	// operation, those that still wait included (up to the time of the call).
	LongestStallNs int64
	Latency        Histogram // from submission to completion
}

// Histogram counts durations in buckets whose width is at most 1/16 of their
// value. The zero value is empty and ready.
type Histogram struct {
	Count  uint64
	SumNs  int64
	MaxNs  int64
	bucket [histogramBuckets]uint32
}

const (
	histogramSub     = 4 // bits: 16 buckets per power of two
	histogramBuckets = (64 - histogramSub) << histogramSub
)

func bucketOf(ns int64) int {
	v := uint64(max(ns, 0))
	if v < 1<<histogramSub {
		return int(v)
	}
	e := bits.Len64(v) - histogramSub - 1
	return e<<histogramSub + int(v>>e)
}

func bucketTop(i int) int64 {
	if i < 1<<(histogramSub+1) {
		return int64(i)
	}
	e := i>>histogramSub - 1
	return int64(i-e<<histogramSub+1)<<e - 1
}

// Add counts one duration.
func (h *Histogram) Add(ns int64) {
	h.Count++
	h.SumNs += ns
	h.MaxNs = max(h.MaxNs, ns)
	h.bucket[bucketOf(ns)]++
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	h.Count += o.Count
	h.SumNs += o.SumNs
	h.MaxNs = max(h.MaxNs, o.MaxNs)
	for i := range o.bucket {
		h.bucket[i] += o.bucket[i]
	}
}

// QuantileNs returns a duration that the share q (0..1) of what was counted does
// not exceed, to within 1/16; 0 if nothing was counted.
func (h *Histogram) QuantileNs(q float64) int64 {
	if h.Count == 0 {
		return 0
	}
	want := uint64(q*float64(h.Count) + 0.5)
	want = min(max(want, 1), h.Count)
	var sum uint64
	for i := range h.bucket {
		if sum += uint64(h.bucket[i]); sum >= want {
			return min(bucketTop(i), h.MaxNs)
		}
	}
	return h.MaxNs
}

// MeanNs is the average; 0 if nothing was counted.
func (h *Histogram) MeanNs() int64 {
	if h.Count == 0 {
		return 0
	}
	return h.SumNs / int64(h.Count)
}
