package raid_test

import (
	"testing"

	. "clade/raid"
)

// An operator's force lets a volume go on with disks that know of their damage, once.

// force is the operator's word that the volume goes on with these disks as they are (A.1 Force).
func (tr *trace) force(disks ...DiskID) {
	v := tr.v.Clone()
	for i := range v.Members {
		m := &v.Members[i]
		m.InSync, m.Stale = NewDiskSet(disks...).Has(m.Disk), 0
	}
	v.Forced = true
	v.Ver++
	tr.set(v)
}

// damagedA is a volume of which only A and B are left, and A is damaged: nobody serves it without force.
func damagedA(t *testing.T) *trace {
	tr, w := leftC(t)
	w.kill()
	tr.disk(diskA).Damage()
	w = tr.takeover()
	tr.pass(6 * second)
	if w.o.State() != OwnerDead {
		t.Fatalf("a damaged disk was trusted: %+v", w.o.Status())
	}
	w.kill()
	return tr
}

// Activate ends the flag in Raft before the first Start is sent; the disks must hear of it all the same, or the volume would be
// suspended for ever on a disk that goes on calling itself damaged.
func TestAForcedVolumeServes(t *testing.T) {
	tr := damagedA(t)
	tr.force(diskA, diskB)
	w := tr.takeover()
	tr.until("the volume serves", func() bool { return w.o.State() == OwnerActive && w.o.Admitting() })
	if tr.v.Forced || !w.o.Status().Forced {
		t.Fatalf("forced in Raft: %v, status: %+v", tr.v.Forced, w.o.Status())
	}
	w.write(0, 5)
	w.kill()
	w = tr.serve() // A is as good as any other now
	if w.o.Status().Forced {
		t.Fatal("a takeover that nobody has forced says that it was")
	}
	w.mustRead(0, 5)
	tr.heal()
}

// The force is for one takeover and for the damage of before. What happens to a disk afterwards counts again, in the same epoch and
// at the next takeover: were the flag to outlive Activate, a disk that has lost acknowledged writes since would be believed.
func TestForceIsForOneTakeover(t *testing.T) {
	tr := damagedA(t)
	tr.force(diskA, diskB)
	w := tr.takeover()
	tr.until("the volume serves", func() bool { return w.o.State() == OwnerActive && w.o.Admitting() })
	w.write(0, 5)
	tr.disk(diskA).Damage()
	w.cut(diskA)
	w.connect(diskA)
	tr.pass(second)
	if w.o.Admitting() {
		t.Fatal("damage that came after the force was forgiven")
	}
	w.kill()
	w = tr.takeover()
	tr.pass(6 * second)
	if w.o.State() != OwnerDead {
		t.Fatalf("a damaged disk was trusted again: %+v", w.o.Status())
	}
}
