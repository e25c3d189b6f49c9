package raid

import (
	"slices"
	"testing"
)

// A disk's second report replaces its first, for instance after its stream has broken; in whatever order it lists its records, none is
// overlooked: a batch that is overlooked would be cut though it may have been answered.
func TestSecondReportInAnyOrder(t *testing.T) {
	v, reports := longHistory(100, 2)
	v.Owner = 1
	o := NewOwner(OwnerConfig{Node: 1}, v, 0)
	for _, again := range []bool{false, true} {
		for _, r := range reports {
			rep := *r.rep
			rep.Records = slices.Clone(rep.Records)
			slices.Reverse(rep.Records)
			o.Reply(0, &DiskReply{Kind: RepReport, Vol: v.ID, Disk: r.disk, Epoch: v.Epoch, Report: &rep})
		}
		c := reconcile(v, o.fence.reports)
		if c == nil || c.end != 100 || len(c.liars) != 0 {
			t.Errorf("second reports %v: %+v", again, c)
		}
	}
}

// EndOf finds the range of an epoch wherever it lies, and none for the epochs that are open.
func TestEndOf(t *testing.T) {
	hist := []HistRange{{From: 2, To: 2, End: 5}, {From: 3, To: 7, End: 9}, {From: 8, To: 8, End: 9}}
	want := map[Epoch]Seq{2: 5, 3: 9, 4: 9, 5: 9, 6: 9, 7: 9, 8: 9}
	for e := Epoch(0); e < 11; e++ {
		end, closed := EndOf(hist, e)
		if w, ok := want[e]; end != w || closed != ok {
			t.Errorf("epoch %d: %d, %v; want %d, %v", e, end, closed, w, ok)
		}
	}
	if _, closed := EndOf(nil, 1); closed {
		t.Error("an epoch of no history is closed")
	}
}
