package raid_test

import (
	"testing"

	. "clade/raid"
)

// What disks answer late, twice, wrongly or not at all must cost no more than it has to.

// A disk's time to answer Start begins with that Start, however long FENCING took.
func TestTimeToStartBeginsWithStart(t *testing.T) {
	tr := newTrace(t, Layout{K: 2, M: 2, UnitBytes: 4096})
	w := tr.takeover()
	w.held = func(r *DiskRequest) bool { return r.Disk == 4 }
	w.shelve = only(CmdActivate)
	tr.until("Activate is proposed", func() bool { return len(w.pending) > 0 })
	tr.pass(50 * ms) // Raft's round
	w.shelve = nil
	tr.run()
	if !tr.inSync(1, 2, 3) {
		t.Fatalf("in-sync %v: a disk was given up before it could answer", tr.v.InSync())
	}
	w.write(0, 1)
	tr.heal()
}
