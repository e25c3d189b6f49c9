package runtime

import (
	"github.com/prometheus/client_golang/prometheus"

	"clade/cluster"
)

var ioSecs = prometheus.NewDesc("clade_io_seconds",
	"From the receipt of a request's frame by the kernel to the answer's being handed to the port, by kind.", []string{"kind"}, nil)

// collectLatencies returns the histograms of the latencies of requests.
func collectLatencies(l *cluster.Latencies) []prometheus.Metric {
	return []prometheus.Metric{latency("read", &l.Read), latency("write", &l.Write), latency("flush", &l.Flush)}
}

func latency(kind string, l *cluster.Latency) prometheus.Metric {
	buckets := make(map[float64]uint64, cluster.LatencyBuckets-1)
	sum := uint64(0)
	for i, n := range l.Counts {
		sum += n
		if i < cluster.LatencyBuckets-1 {
			buckets[float64(cluster.LatencyLimitNs(i))/1e9] = sum
		}
	}
	return prometheus.MustNewConstHistogram(ioSecs, sum, float64(l.SumNs)/1e9, buckets, kind)
}
