package bench

import "math/bits"

// Histogram counts durations in buckets whose width is at most 1/128 of their value, so that a percentile is known to within one
// per cent. It is of fixed size: Add allocates nothing. The zero value is empty and ready; one goroutine at a time may use it.
// (initiator.Histogram is the coarse one that each of a thousand sessions can afford.)
type Histogram struct {
	count  uint64
	sumNs  int64
	maxNs  int64
	bucket [histogramBuckets]uint32
}

const (
	histogramSub     = 7 // bits: 128 buckets per power of two
	histogramBuckets = (64 - histogramSub) << histogramSub
)

// bucketOf returns the bucket of a duration: below 2^7 each has its own, above the leading 8 bits name it.
func bucketOf(ns int64) int {
	v := uint64(max(ns, 0))
	if v < 1<<histogramSub {
		return int(v)
	}
	e := bits.Len64(v) - histogramSub - 1
	return e<<histogramSub + int(v>>e)
}

// bucketTop returns the longest duration of a bucket, in nanoseconds.
func bucketTop(i int) int64 {
	if i < 1<<(histogramSub+1) {
		return int64(i)
	}
	e := i>>histogramSub - 1
	return int64(i-e<<histogramSub+1)<<e - 1
}

// Add counts one duration in nanoseconds; a negative one counts as 0.
func (h *Histogram) Add(ns int64) {
	h.count++
	h.sumNs += max(ns, 0)
	h.maxNs = max(h.maxNs, ns)
	h.bucket[bucketOf(ns)]++
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(o *Histogram) {
	h.count += o.count
	h.sumNs += o.sumNs
	h.maxNs = max(h.maxNs, o.maxNs)
	for i := range o.bucket {
		h.bucket[i] += o.bucket[i]
	}
}

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 { return h.count }

// MaxNs returns the longest duration, exactly.
func (h *Histogram) MaxNs() int64 { return h.maxNs }

// MeanNs returns the average; 0 if nothing was counted.
func (h *Histogram) MeanNs() int64 {
	if h.count == 0 {
		return 0
	}
	return h.sumNs / int64(h.count)
}

// QuantileNs returns a duration that the share q (0..1) of what was counted does not exceed, at most 1/128 too long; 0 if
// nothing was counted.
func (h *Histogram) QuantileNs(q float64) int64 {
	if h.count == 0 {
		return 0
	}
	want := min(max(uint64(q*float64(h.count)+0.5), 1), h.count)
	var sum uint64
	for i := range h.bucket {
		if sum += uint64(h.bucket[i]); sum >= want {
			return min(bucketTop(i), h.maxNs)
		}
	}
	return h.maxNs
}
