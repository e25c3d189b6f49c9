package raid_test

import (
	"fmt"
	"testing"
)

// BenchmarkTakeover is a new owner's way from the first report to being active, when each disk's journal holds so many records: it
// must grow with their number, not with its square.
func BenchmarkTakeover(b *testing.B) {
	for _, n := range []int{1000, 4000, 16000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tr := newTrace21(b)
			w := tr.serve()
			for i := range n {
				w.begin(i%64, byte(i))
				tr.run()
			}
			for b.Loop() {
				w.kill()
				w = tr.serve()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
		})
	}
}
