package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHistogramBucketsHoldWhatTheySay(t *testing.T) {
	for _, ns := range []int64{0, 1, 127, 128, 129, 255, 256, 1000, 123_456, 5_000_000, 1 << 40, 1<<62 + 12345, 1<<63 - 1} {
		i := bucketOf(ns)
		if i < 0 || i >= histogramBuckets {
			t.Fatalf("%d ns is in bucket %d of %d", ns, i, histogramBuckets)
		}
		if top := bucketTop(i); top < ns || float64(top-ns) > float64(ns)/128 {
			t.Errorf("%d ns is in bucket %d, which ends at %d", ns, i, top)
		}
		if i > 0 && bucketTop(i-1) >= ns {
			t.Errorf("%d ns is in bucket %d, but the one before ends at %d", ns, i, bucketTop(i-1))
		}
	}
}

func TestHistogramQuantilesAreThoseOfTheSortedList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	all := make([]int64, 20_000)
	var sum int64
	for i := range all {
		all[i] = 1 + rng.Int64N(1<<(10+uint(rng.IntN(20))))
		sum += all[i]
		h.Add(all[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		want := all[int(q*float64(len(all))+0.5)-1]
		if got := h.QuantileNs(q); got < want || float64(got) > float64(want)*(1+1.0/128)+1 {
			t.Errorf("quantile %g is %d, want %d to within 1/128", q, got, want)
		}
	}
	if h.MaxNs() != all[len(all)-1] || h.MeanNs() != sum/int64(len(all)) || h.Count() != uint64(len(all)) {
		t.Errorf("max %d mean %d count %d", h.MaxNs(), h.MeanNs(), h.Count())
	}
	var two Histogram
	two.Add(1 << 50)
	two.Merge(&h)
	if two.Count() != h.Count()+1 || two.MaxNs() != 1<<50 || two.QuantileNs(0.5) != h.QuantileNs(0.5) {
		t.Errorf("merged: %d, max %d, median %d", two.Count(), two.MaxNs(), two.QuantileNs(0.5))
	}
	h.Reset()
	if h.QuantileNs(0.5) != 0 || h.MeanNs() != 0 || h.Count() != 0 {
		t.Error("a histogram that was reset is not empty")
	}
}

func TestHistogramAllocatesNothing(t *testing.T) {
	var h Histogram
	ns := int64(1)
	if n := testing.AllocsPerRun(1000, func() { h.Add(ns); ns += 977 }); n != 0 {
		t.Errorf("%g allocations a sample", n)
	}
}

func TestHistogramTakesNonsense(t *testing.T) {
	var h Histogram
	h.Add(-5)
	if h.QuantileNs(1) != 0 || h.MeanNs() != 0 || h.MaxNs() != 0 {
		t.Errorf("a negative duration: p100 %d, mean %d, max %d", h.QuantileNs(1), h.MeanNs(), h.MaxNs())
	}
}
