package raid_test

import (
	"testing"

	. "clade/raid"
)

func init() {
	stories = append(stories, []story{
		{"STALE_NO_CAS", lateStaleIsVoid},
		{"INSYNC_NO_CAS", lateInSyncIsVoid},
		{"ACK_EARLY", commitWaitsForStale},
		{"ADMIT_EARLY", inSyncWaitsForTheLastFill},
		{"JOIN_INFLIGHT", joinWaitsForWhatIsInFlight},
		{"FILL_UNLOCKED", fillIsLocked},
		{"FILL_UNORDERED", fillKeepsItsPlace},
		{"FILL_UNLOCKED+READ_MIX", copyIsNoMix},
		{"C16b", rebuiltDiskRemembersChanges},
		{"L10", lastFillKeepsTheChain},
	}...)
}

// staleC brings C to be stale as of 2, and A and B to have changed region 0 since.
func staleC(t testing.TB) (*trace, *tracedOwner) {
	tr, o := leftC(t)
	o.write(0, 2)
	return tr, o
}

// leftC brings C to be stale as of 2, the last batch.
func leftC(t testing.TB) (*trace, *tracedOwner) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	o.write(1, 1)
	tr.pass(second)
	tr.lose(diskC)
	tr.until("C is stale", func() bool { return tr.inSync(diskA, diskB) })
	return tr, o
}

func only(k CommandKind) func(VolumeCommand) bool {
	return func(c VolumeCommand) bool { return c.Kind == k }
}

// lateStaleIsVoid (C7a): what a former owner proposed about a disk takes nothing from the present owner. In Clade an owner acts
// on the states that Raft applied, in their order, so the former one cannot acknowledge on the strength of it; what is lost
// without the guard is redundancy.
func lateStaleIsVoid(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	o.shelve = only(CmdStale)
	o.cut(diskB)
	tr.pass(second)
	n := tr.serve()
	if len(o.pending) == 0 {
		t.Fatal("the former owner has proposed nothing")
	}
	o.shelve = nil
	tr.run()
	if !tr.inSync(diskA, diskB, diskC) {
		t.Fatalf("the word of an owner of epoch 1 has put a disk out of epoch 2: in-sync %v", tr.v.InSync())
	}
	n.write(1, 2)
	tr.heal()
}

// lateInSyncIsVoid (C7b): InSync(C) is slow; C fails, is stale again and misses a write; then the old InSync arrives.
func lateInSyncIsVoid(t testing.TB) {
	tr, o := staleC(t)
	o.shelve = only(CmdInSync)
	tr.restore(diskC)
	tr.until("InSync is proposed", func() bool { return len(o.pending) > 0 })
	tr.lose(diskC)
	ver := tr.v.Ver
	tr.until("Stale is applied", func() bool { return tr.v.Ver > ver })
	o.write(0, 3)
	tr.pass(second)
	o.kill() // what it has proposed is still on its way
	o.shelve = nil
	tr.run()
	tr.restore(diskC)
	tr.serve()
	tr.heal()
}

// commitWaitsForStale (C8): C is silent and Raft has not said yet that it is stale: a takeover may still believe it.
func commitWaitsForStale(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	o.shelve = only(CmdStale)
	o.cut(diskC)
	token := o.begin(0, 2)
	tr.pass(second)
	acked := o.acked(token)
	o.pending = nil // lost
	o.kill()
	tr.lose(diskA)
	n := tr.serve()
	if got, ok := n.read(0); acked && ok && got != 2 {
		t.Fatalf("a write was answered that C, in-sync, never had: block 0 reads as %d", got)
	}
	tr.want[0] = 1
	tr.heal()
}

// inSyncWaitsForTheLastFill (C8): C has not taken all of what it lacks when the owner dies.
func inSyncWaitsForTheLastFill(t testing.TB) {
	tr, o := staleC(t)
	o.held = func(r *DiskRequest) bool {
		return r.Disk == diskC && (r.Kind == ReqFill && r.Last || r.Kind == ReqPrepare)
	}
	tr.restore(diskC)
	tr.pass(second)
	token := o.begin(0, 3)
	tr.run()
	acked := o.acked(token)
	o.kill()
	tr.lose(diskA)
	n := tr.takeover()
	tr.pass(second)
	if got, ok := n.read(0); acked && ok && got != 3 {
		t.Fatalf("a write was answered that C, in-sync, never had: block 0 reads as %d", got)
	}
	if acked {
		tr.want[0] = 3
	} else {
		delete(tr.want, 0)
	}
	tr.heal()
}

// joinWaitsForWhatIsInFlight (C23): 3 was formed without C and is not committed when B is asked what has changed.
func joinWaitsForWhatIsInFlight(t testing.TB) {
	tr, o := leftC(t)
	o.mute = func(r *DiskReply) bool { return r.Disk == diskB && r.Kind == RepAck }
	token := o.begin(1, 3)
	tr.run()
	tr.restore(diskC)
	tr.pass(second)
	o.mute = nil
	tr.run()
	o.mustAck(token, 1, 3)
	tr.heal()
}

// fillIsLocked (C13): while region 0 is read to be copied to C, a write of it must wait, or the copy would land on top. The disk
// would refuse such a copy, too; it trusts the owner here.
func fillIsLocked(t testing.TB) {
	tr, o := staleC(t)
	tr.disk(diskC).Trust()
	o.mute = func(r *DiskReply) bool {
		return r.Disk == diskB && r.Kind == RepRead && len(r.Blocks) == BlocksPerRegion
	}
	tr.restore(diskC)
	tr.pass(second)
	token := o.begin(0, 5)
	tr.pass(100 * ms)
	tr.applyOn(diskC)
	o.mute = nil
	tr.run()
	o.mustAck(token, 0, 5)
	tr.heal()
}

// fillKeepsItsPlace (C13): a copy leaves before the records that follow it in time, and arrives before them.
func fillKeepsItsPlace(t testing.TB) {
	tr, o := staleC(t)
	tr.disk(diskC).Trust()
	o.mute = func(r *DiskReply) bool {
		return r.Disk == diskB && r.Kind == RepRead && len(r.Blocks) == BlocksPerRegion
	}
	tr.restore(diskC)
	tr.pass(second)
	token := o.begin(0, 5) // waits for the lock
	tr.run()
	o.mute = nil
	tr.run()
	o.mustAck(token, 0, 5)
	tr.pass(50 * ms) // C hears that it is committed
	tr.applyOn(diskC)
	tr.heal()
}

// copyIsNoMix (C14): the copy for B is read from A as of 3 and from C as of 4. The lock forbids it; without it the seq in the
// reply still does, so it takes both to be missing.
func copyIsNoMix(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	o.write(1, 1)
	tr.pass(second)
	tr.lose(diskB)
	tr.until("B is stale", func() bool { return tr.inSync(diskA, diskC) })
	o.write(1, 2)
	o.held = func(r *DiskRequest) bool { return r.Disk == diskC && r.Kind == ReqRead && r.Count == BlocksPerRegion }
	tr.restore(diskB)
	tr.pass(second)
	token := o.begin(0, 5)
	tr.pass(100 * ms)
	tr.applyOn(diskC)
	o.held = nil
	tr.run()
	o.mustAck(token, 0, 5)
	tr.heal()
}

// rebuiltDiskRemembersChanges (C16b): three mirrors. C misses 2; A is rebuilt from B; B fails: only A can tell C that the region
// has changed.
func rebuiltDiskRemembersChanges(t testing.TB) {
	tr := newTrace(t, Layout{K: 1, M: 2, UnitBytes: 4096})
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	tr.lose(diskC)
	tr.until("C is stale", func() bool { return tr.inSync(diskA, diskB) })
	o.write(0, 2)
	tr.pass(second)
	tr.lose(diskA)
	tr.until("A is stale", func() bool { return tr.inSync(diskB) })
	v := tr.v.Clone() // what Damaged does: A is copied whole
	v.Member(diskA).Stale = 0
	v.Ver++
	tr.set(v)
	tr.restore(diskA)
	tr.until("A is rebuilt", func() bool { return tr.inSync(diskA, diskB) })
	tr.lose(diskB)
	tr.until("B is stale", func() bool { return tr.inSync(diskA) })
	tr.restore(diskC)
	tr.until("C is in-sync", func() bool { return tr.inSync(diskA, diskC) })
	tr.lose(diskA)
	o.kill()
	n := tr.takeover()
	tr.pass(5 * second)
	if got, ok := n.read(0); ok && got != 2 {
		t.Fatalf("C is in-sync and answers %d", got)
	}
	tr.heal()
}

// lastFillKeepsTheChain (L10): the records of the last batches are not C's; the last Fill carries it past them.
func lastFillKeepsTheChain(t testing.TB) {
	tr, o := staleC(t)
	tr.restore(diskC)
	tr.until("C is in-sync", func() bool { return tr.inSync(diskA, diskB, diskC) })
	ver := tr.v.Ver
	for val := byte(5); val < 9; val++ {
		token := o.begin(0, val)
		tr.pass(5 * second)
		o.mustAck(token, 0, val)
	}
	if tr.v.Ver != ver {
		t.Fatalf("C was thrown out by a gap of the owner's own making: %+v", o.events)
	}
	tr.heal()
}
