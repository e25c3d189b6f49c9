package raid_test

import (
	"testing"

	. "clade/raid"
)

func init() {
	stories = append(stories, []story{
		{"READ_UNCOMMITTED", readsSeeWhatIsCommitted},
		{"C19", barrierWaitsForThePipeline},
		{"C24b", parityThatStaysTakesPart},
		{"L4", commitTravelsAlone},
		{"L9", theDeadLetGo},
	}...)
}

// readsSeeWhatIsCommitted (C14): a read must not show what a takeover may still cut.
func readsSeeWhatIsCommitted(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	o.held = func(*DiskRequest) bool { return true }
	o.begin(0, 2)
	tr.run()
	seen, answered := o.read(0)
	o.kill()
	n := tr.serve()
	n.mustRead(0, 1) // nobody has 2
	if answered && seen != 1 {
		t.Fatalf("a read saw %d, which never happened", seen)
	}
	tr.heal()
}

// barrierWaitsForThePipeline (C19): a reservation is answered when what was admitted before it can no longer happen after it.
func barrierWaitsForThePipeline(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.held = func(*DiskRequest) bool { return true }
	write := o.begin(0, 1)
	tr.tokens++
	barrier := tr.tokens
	o.o.Barrier(tr.now, barrier)
	tr.pass(100 * ms)
	if _, done := o.done[barrier]; done && !o.acked(write) {
		t.Fatal("the barrier is answered while a write from before it is under way")
	}
	o.held = nil
	tr.run()
	o.mustAck(write, 0, 1)
	if o.done[barrier].Kind != DoneBarrier {
		t.Fatal("the barrier is not answered")
	}
	tr.heal()
}

// parityThatStaysTakesPart (C24): a batch that changes no byte of the parity is known to C all the same, so that it survives A.
func parityThatStaysTakesPart(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	o.write(0, 1)
	tr.pass(second)
	o.mute = func(r *DiskReply) bool { return r.Disk == diskA }
	token := o.begin(0, 1)
	tr.run()
	tr.lose(diskA)
	tr.pass(second)
	o.mustAck(token, 0, 1)
	tr.heal()
}

// commitTravelsAlone (L4): the disks' room for records that are not known to be committed is used up, and nobody writes, since
// nobody is answered.
func commitTravelsAlone(t testing.TB) {
	tr := newTrace21(t)
	o := tr.serve()
	for val := byte(1); val < 5; val++ {
		var burst []uint64
		for block := range 512 {
			burst = append(burst, o.begin(block, val))
		}
		tr.pass(second)
		for block, token := range burst {
			o.mustAck(token, block, val)
		}
	}
	tr.heal()
}

// theDeadLetGo (L9): an owner whose Activate was refused says so, or nobody could take over while its node lives.
func theDeadLetGo(t testing.TB) {
	tr := newTrace21(t)
	tr.serve().kill()
	later := &DiskRequest{Kind: ReqFence, Vol: tr.v.ID, Disk: diskB, Epoch: tr.v.Epoch + 5}
	tr.disk(diskB).Handle(later) // as after Raft was restored from a backup: a fence that it does not know of
	n := tr.takeover()
	tr.pass(second)
	if n.o.State() != OwnerDead {
		t.Fatalf("%+v", n.o.Status())
	}
	if tr.v.Released != tr.v.Epoch {
		t.Fatalf("the owner of epoch %d is dead and has not released it", tr.v.Epoch)
	}
}
