package raid

import (
	"fmt"
	"testing"
)

// BenchmarkReconcile is the decision of a takeover over three reports of so many records, with as long a history of closed epochs as
// HistTrim leaves (1000 ranges): its time per record must not grow with either.
func BenchmarkReconcile(b *testing.B) {
	for _, records := range []int{1000, 10_000, 100_000} {
		for _, ranges := range []int{1, 1000} {
			b.Run(fmt.Sprintf("records=%d/ranges=%d", records, ranges), func(b *testing.B) {
				v, reports := longHistory(records, ranges)
				o := &Owner{v: v, end: Seq(records)}
				o.fence.reports = reports
				for b.Loop() {
					c := reconcile(v, reports)
					if c == nil || int(c.end) != records || len(c.liars) != 0 {
						b.Fatalf("%+v", c)
					}
					o.fx.Forward = o.fx.Forward[:0]
					o.rollForward(c.f)
					if len(o.fx.Forward) != records {
						b.Fatalf("%d rolled forward", len(o.fx.Forward))
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(records), "ns/record")
			})
		}
	}
}

// longHistory is a volume RS(2+1) all of whose disks report the same records, in equal shares of as many epochs as there are ranges.
// The first half is below the commit point: lying about it is looked for; the second is rolled forward.
func longHistory(records, ranges int) (*Volume, []diskReport) {
	v := &Volume{ID: 7, Layout: Layout{K: 2, M: 1, UnitBytes: 4096}, Epoch: Epoch(ranges + 1)}
	x := Extent{Regions: 1}
	parts := NewDiskSet(1, 2, 3)
	for _, d := range parts {
		v.Members = append(v.Members, Member{Disk: d, InSync: true})
		x.Shards = append(x.Shards, Placement{Disk: d, Gen: 1})
	}
	v.Extents = []Extent{x}
	share := records / ranges
	var list []RecordID
	for e := 1; e <= ranges; e++ {
		for range share {
			n := len(list) + 1
			list = append(list, RecordID{Epoch: Epoch(e), Seq: Seq(n), BID: uint64(n), Parts: parts, Reqs: make([]ReqHeader, 1)})
		}
		v.Hist = append(v.Hist, HistRange{From: Epoch(e), To: Epoch(e), End: Seq(len(list))})
	}
	var reports []diskReport
	for _, d := range parts {
		reports = append(reports, diskReport{disk: d, rep: &Report{Commit: Seq(records / 2), EndSeq: Seq(records), Records: list}})
	}
	return v, reports
}
