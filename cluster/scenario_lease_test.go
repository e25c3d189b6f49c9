package cluster

import (
	"slices"
	"testing"

	"clade/aoe"
	"clade/membership"
)

// TestAnOwnerThatIsCutOffFallsSilent: its lease runs out, it answers nothing and leaves the serving MAC; the others revoke its
// term and take over; when it is back it has a new term and what it did not commit is not seen.
func TestAnOwnerThatIsCutOffFallsSilent(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 1)
	old := l.server(1)
	cutNs := l.now
	l.isolate(old, true)
	l.transmit(nil, s.write(1, 8, 2))
	l.until("its lease is over", func() bool { return !old.node.leaseValidAt(l.now) })
	overNs := l.now
	if overNs-cutNs > membership.DefaultPromiseNs+50*ms {
		t.Errorf("the lease lasted for %d ms", (overNs-cutNs)/ms)
	}
	l.pass(20 * ms)
	if slices.Contains(old.joined, l.servingMAC(1)) {
		t.Error("it still listens on the serving MAC")
	}
	l.until("another node serves", func() bool { b := l.server(1); return b != nil && b != old })
	if took := l.now - cutNs; took > 1200*ms {
		t.Errorf("the takeover took %d ms", took/ms)
	}
	if got := s.read(1, 0); got != 1 {
		t.Errorf("read %#x", got)
	}
	s.put(1, 8, 3)
	l.isolate(old, false)
	l.until("it has a lease again", func() bool { return old.node.leaseValidAt(l.now) })
	if ids := l.answersSince(overNs, 1); slices.Contains(ids, old.id) {
		t.Errorf("answers from %v after node %d had lost its lease", ids, old.id)
	}
	if got := s.read(1, 8); got != 3 {
		t.Errorf("read %#x where the last acknowledged write put 3", got)
	}
}

// TestAStoppedOwnerAnswersNothingAfterItsLease stops the owner between a frame's arrival and Ready, where a read from its cache
// would be complete: what it then finds to be over its lease must not leave.
func TestAStoppedOwnerAnswersNothingAfterItsLease(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 1)
	if s.read(1, 0) != 1 {
		t.Fatal("the write is not there")
	}
	old := l.server(1)
	old.stallNs = 3 * second
	l.transmit(nil, s.readRequest(1, 0))
	stopNs := l.now
	l.until("another node serves", func() bool { b := l.server2(1, old); return b != nil })
	s.put(1, 0, 2)
	l.pass(3 * second)
	if old.paused {
		t.Fatal("the owner has not been woken")
	}
	if ids := l.answersSince(stopNs, 1); slices.Contains(ids, old.id) {
		t.Errorf("answers from %v, node %d was stopped beyond its lease", ids, old.id)
	}
	if got := s.read(1, 0); got != 2 {
		t.Errorf("read %#x", got)
	}
	l.until("the woken node has a new lease", func() bool { return old.node.leaseValidAt(l.now) })
}

// server2 is server, but for a box that is stopped and so believes what it likes.
func (l *lab) server2(slot uint8, stopped *box) *box {
	for _, b := range l.boxes {
		if b == stopped || b.node == nil {
			continue
		}
		for _, o := range b.node.Owners(l.now) {
			if mv := b.node.State().Volume(o.Vol); mv != nil && mv.Slot == slot && o.Serving && b.node.volume(o.Vol).owner.Admitting() {
				return b
			}
		}
	}
	return nil
}

func TestWithoutQuorumThereIsSilenceAndStatusSaysWhy(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	owner := l.server(1)
	for _, b := range l.boxes {
		if b != owner {
			b.kill()
		}
	}
	l.pass(second)
	at := l.now
	for range 5 {
		l.transmit(nil, s.readRequest(1, 0))
		l.pass(100 * ms)
	}
	if ids := l.answersSince(at, 1); len(ids) != 0 {
		t.Errorf("answers from %v without a quorum", ids)
	}
	l.pass(10 * second)
	st := owner.node.Status(l.now)
	i := slices.IndexFunc(st.Problems, func(p Problem) bool { return p.Key == "quorum" })
	if st.Health != "down" || st.Volumes[0].Health != "down" || i < 0 {
		t.Fatalf("health %q, volume %q, problems %+v", st.Health, st.Volumes[0].Health, st.Problems)
	}
	if p := st.Problems[i]; p.Do == "" || p.AgeNs < 9*second || p.AgeNs > 12*second {
		t.Errorf("after 11 s without a quorum: %+v", p)
	}
	for _, b := range l.boxes {
		if b != owner {
			b.start(true)
		}
	}
	l.until("it serves again", func() bool { return l.server(1) != nil })
}

// TestTheEndOfATermIsNoticedInASnapshot: the node that was cut off gets the end of its term not as a command but in a snapshot.
// It must give up the old term and boot into a new one all the same.
func TestTheEndOfATermIsNoticedInASnapshot(t *testing.T) {
	l := newLab(t, 3)
	l.group = membership.GroupOptions{SnapshotEntries: 10, KeepEntries: 1}
	l.found()
	l.create(1, 2, 1)
	old := l.server(1)
	before := old.node.inc.term
	l.isolate(old, true)
	l.until("another node serves", func() bool { b := l.server(1); return b != nil && b != old })
	s := l.station(1)
	for i := range 30 { // so many commands that the log is cut
		s.ask(aoe.AppendConfigRequest(nil, s.header(1), aoe.ConfigForceSet, []byte{byte(i + 1)}))
	}
	l.isolate(old, false)
	l.until("it has a new term and a lease", func() bool { return old.node.inc.term > before && old.node.leaseValidAt(l.now) })
}

// TestAProofOfDeathComesFromItsOwnGuardian: nobody else's word ends a term.
func TestAProofOfDeathComesFromItsOwnGuardian(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	victim := l.box(2)
	at := victim.node.inc.term
	for _, to := range l.boxes {
		to.input(func(now int64) {
			to.node.Peer(now, 3, &PeerMessage{Dead: &membership.NodeTerm{Node: 2, Term: at}})
		})
	}
	l.pass(second)
	if got := victim.node.State().Node(2).Term; got != at {
		t.Errorf("term %d became %d on the word of node 3", at, got)
	}
}

// TestARestartedNodeUsesItsProof: with the lock of its state file in hand it needs not wait for a revocation.
func TestARestartedNodeUsesItsProof(t *testing.T) {
	for _, proof := range []bool{true, false} {
		l := newLab(t, 3)
		l.found()
		l.create(1, 2, 1)
		b := l.box(2)
		before := b.node.inc.term
		b.kill()
		l.pass(5 * ms)
		at := l.now
		b.start(proof)
		l.until("it has a lease", func() bool { return b.node.leaseValidAt(l.now) })
		took := l.now - at
		if proof && took > 400*ms || !proof && took < 100*ms {
			t.Errorf("proof %v: the new term took %d ms", proof, took/ms)
		}
		if b.node.inc.term <= before {
			t.Errorf("term %d after %d", b.node.inc.term, before)
		}
	}
}

// TestASingleNodeComesBackWithoutProof: it revokes its former term itself, which takes the longest promise there may be.
func TestASingleNodeComesBackWithoutProof(t *testing.T) {
	l := newLab(t, 1)
	l.found()
	l.create(1, 1, 0)
	s := l.station(1)
	s.put(1, 0, 3)
	b := l.box(1)
	b.kill()
	b.start(false)
	at := l.now
	l.until("it serves again", func() bool { return l.server(1) == b })
	if took := l.now - at; took < membership.MaxPromiseNs || took > membership.MaxPromiseNs+second {
		t.Errorf("it took %d ms", took/ms)
	}
	if got := s.read(1, 0); got != 3 {
		t.Errorf("read %#x", got)
	}
}

// TestAVolumeThatLacksDisksIsServedAsSoonAsOneIsBack: nobody is made its owner in vain meanwhile, to be waited for then.
func TestAVolumeThatLacksDisksIsServedAsSoonAsOneIsBack(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	vol := l.create(1, 2, 1)
	owner := l.server(1)
	other, third := l.box(owner.id%3+1), l.box((owner.id+1)%3+1)
	other.pull(true)
	owner.kill()
	owner.proveDeath()
	l.pass(15 * second)
	if l.server(1) != nil {
		t.Fatal("it is served with one of two disks")
	}
	if e := third.node.State().Volume(vol).Data.Epoch; e > 4 {
		t.Errorf("epoch %d: takeovers in vain", e)
	}
	other.pull(false)
	at := l.now
	l.until("it is served", func() bool { return l.server(1) != nil })
	if took := l.now - at; took > 300*ms {
		t.Errorf("it took %d ms", took/ms)
	}
}

// TestALinkThatIsDownToTheLeaderIsGoneRound: nodes 2 and 3 have lost the leader but reach node 4, which reaches it and passes Raft
// and lease messages on (B: L2). Nobody loses a lease, and a disk that fails meanwhile is marked stale.
func TestALinkThatIsDownToTheLeaderIsGoneRound(t *testing.T) {
	l := newLab(t, 4, 1)
	l.found()
	vol := l.create(1, 2, 1)
	l.moveTo(vol, 1, 2)
	if lead, _ := l.box(2).node.group.Leader(); lead != 1 {
		t.Fatalf("node %d leads: the scenario tests nothing", lead)
	}
	before := l.box(2).node.State().Volume(vol).Data.Epoch
	l.setCut(1, 2, true)
	l.setCut(1, 3, true)
	l.pass(3 * second)
	if v := l.box(2).node.State().Volume(vol).Data; v.Epoch != before || l.server(1) != l.box(2) {
		t.Fatalf("epoch %d became %d", before, v.Epoch)
	}
	if lead, _ := l.box(2).node.group.Leader(); lead != 1 {
		t.Errorf("node %d leads now", lead)
	}
	l.box(3).pull(true)
	s := l.station(1)
	s.put(1, 0, 9)
	if got := s.read(1, 0); got != 9 {
		t.Errorf("read %#x", got)
	}
	if r := l.operate(2, AdminRequest{Kind: "delete", Vol: vol}); r.Err != "" {
		t.Errorf("a request at a node without a link to the leader: %s", r.Err)
	}
}

// TestAWriteThatOutlivesALongLossOfTheLeaseIsNotAnswered: a write is on its way to the disks when everybody is cut off from everybody.
// The same term is valid again afterwards and the write is committed: answered if that took a moment, and not answered after more
// than a second, when the initiator has long repeated it and its tag may name another request (A.4.1).
func TestAWriteThatOutlivesALongLossOfTheLeaseIsNotAnswered(t *testing.T) {
	for _, c := range []struct {
		ns       int64
		answered bool
	}{{600 * ms, true}, {2500 * ms, false}} {
		l := newLab(t, 3)
		l.found()
		l.create(1, 2, 1)
		s := l.station(1)
		s.put(1, 0, 1)
		owner := l.server(1)
		epoch := owner.node.Owners(l.now)[0].Epoch
		cut := func(yes bool) {
			for _, b := range l.boxes {
				l.isolate(b, yes)
			}
		}
		w := s.write(1, 0, 2)
		l.transmit(nil, w)
		cut(true)
		l.until("its lease is over", func() bool { return !owner.node.leaseValidAt(l.now) })
		l.pass(c.ns)
		cut(false)
		l.until("it serves again", func() bool { return l.server(1) == owner })
		l.pass(second)
		if got := owner.node.Owners(l.now)[0].Epoch; got != epoch {
			t.Fatalf("epoch %d after %d: the scenario tests nothing", got, epoch)
		}
		if got := s.read(1, 0); got != 2 {
			t.Errorf("read %#x: the write was lost, it tests nothing", got)
		}
		if yes := s.answer(w) != nil; yes != c.answered {
			t.Errorf("without a lease for %d ms: the write was answered: %v", c.ns/ms, yes)
		}
	}
}
