package membership

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"clade/raid"
)

const ms = int64(1e6)

func TestVoterKeepsItsPromisesAndItsRevocations(t *testing.T) {
	v := NewVoter(0, VoterOptions{Node: 1}, []Revoked{{2, 4}})
	if _, ok, w := v.Revoke(MaxPromiseNs-1, RevokeRequest{2, 5}); !ok || w != nil {
		t.Fatal("a voter that has just started does not know what its former self promised: it must say no")
	}
	if a, ok := v.Heartbeat(0, Heartbeat{Node: 2, Term: 4}); !ok || !a.Nack {
		t.Errorf("term 4 was revoked before the restart, got %+v %t", a, ok)
	}
	now := int64(MaxPromiseNs)
	if a, ok := v.Heartbeat(now, Heartbeat{Node: 2, Term: 5, ID: 7}); !ok || a.Nack || a.PromiseNs != DefaultPromiseNs || a.ID != 7 {
		t.Fatalf("living term: %+v %t", a, ok)
	}
	r, ok, w := v.Revoke(now+100*ms, RevokeRequest{2, 5})
	if !ok || w != nil || r.Yes || r.RemainingNs != 400*ms {
		t.Fatalf("with 400 ms of a promise left: %+v %t %v", r, ok, w)
	}
	r, ok, w = v.Revoke(now+500*ms, RevokeRequest{2, 5})
	if ok || w == nil || w.Revoked != (Revoked{2, 5}) {
		t.Fatalf("promise over: want a write and no answer before it is durable, got %+v %t %v", r, ok, w)
	}
	if _, ok := v.Heartbeat(now+501*ms, Heartbeat{Node: 2, Term: 5}); ok {
		t.Error("a promise while the revocation is being written")
	}
	if _, ok, w := v.Revoke(now+501*ms, RevokeRequest{2, 5}); ok || w != nil {
		t.Error("an answer or a second write while the first is under way")
	}
	if r, ok := v.Stored(w.ID); !ok || !r.Yes || r.Term != 5 {
		t.Errorf("durable: %+v %t", r, ok)
	}
	if r, ok, w := v.Revoke(now, RevokeRequest{2, 3}); !ok || !r.Yes || w != nil {
		t.Errorf("an older term: %+v %t %v, want Yes at once", r, ok, w)
	}
	if a, ok := v.Heartbeat(now+600*ms, Heartbeat{Node: 2, Term: 5}); !ok || !a.Nack {
		t.Errorf("revoked term: %+v %t", a, ok)
	}
	if a, ok := v.Heartbeat(now+600*ms, Heartbeat{Node: 2, Term: 6}); !ok || a.Nack {
		t.Errorf("the next term: %+v %t", a, ok)
	}
}

func ackOf(from raid.NodeID, hb Heartbeat, clock int64) HeartbeatAck {
	return HeartbeatAck{From: from, Node: hb.Node, Term: hb.Term, ID: hb.ID, PromiseNs: DefaultPromiseNs, ClockNs: clock}
}

func TestHolderIsValidFromTheSendingOfWhatAMajorityAcknowledged(t *testing.T) {
	v3 := Voters{Cur: []raid.NodeID{1, 2, 3}, LV: 1}
	l := leaseNs(DefaultPromiseNs)
	if l != 485*ms {
		t.Fatalf("L = %d ms", l/ms)
	}
	h := NewHolder(1, 3, v3)
	a := h.Send(1000)
	b := h.Send(50 * ms)
	h.Ack(300*ms, ackOf(1, a, 0))
	h.Ack(300*ms, ackOf(1, a, 0))
	h.Ack(300*ms, ackOf(9, a, 0))
	h.Ack(300*ms, ackOf(2, b, 0))
	if h.Valid(300 * ms) {
		t.Fatal("valid without a majority for any one heartbeat (twice the same voter, a stranger, another heartbeat)")
	}
	h.Ack(310*ms, ackOf(3, a, 0))
	if !h.Valid(310*ms) || !h.Valid(1000+l-1) || h.Valid(1000+l) {
		t.Errorf("lease ends at %d, want send time + L = %d", h.EndNs(), 1000+l)
	}
	short := ackOf(1, b, 0)
	short.PromiseNs = 100 * ms
	h.Ack(320*ms, short)
	if h.EndNs() != 1000+l {
		t.Errorf("a promise of 100 ms moved the end to %d", h.EndNs())
	}
	h.Ack(330*ms, HeartbeatAck{From: 2, Node: 1, Term: 2, Nack: true})
	if !h.Valid(330 * ms) {
		t.Error("a Nack of an older term ended this one")
	}
}

func TestHolderEndsForEver(t *testing.T) {
	for name, end := range map[string]func(*Holder){
		"Nack":       func(h *Holder) { h.Ack(3, HeartbeatAck{From: 2, Node: 1, Term: 3, Nack: true}) },
		"clock jump": func(h *Holder) { h.ClockJumped() },
		"own bump":   func(h *Holder) { h.TermBumped() },
		"clock stood still": func(h *Holder) { // voter 2 says 400 ms have passed, we say 100
			hb := h.Send(100 * ms)
			h.Ack(100*ms, ackOf(2, hb, 400*ms))
		},
	} {
		h := NewHolder(1, 3, Voters{Cur: []raid.NodeID{1, 2, 3}})
		hb := h.Send(0)
		h.Ack(1, ackOf(1, hb, 0))
		h.Ack(2, ackOf(2, hb, 0))
		if !h.Valid(3) {
			t.Fatal("no lease to begin with")
		}
		end(h)
		hb = h.Send(200 * ms)
		h.Ack(200*ms, ackOf(1, hb, 200*ms))
		h.Ack(200*ms, ackOf(3, hb, 200*ms))
		if h.Valid(200*ms) || h.Over() == "" {
			t.Errorf("%s: valid again in the same term", name)
		}
	}
}

func TestHolderForgetsWhatOnlyTheOldVotersAcknowledged(t *testing.T) {
	h := NewHolder(1, 1, Voters{Cur: []raid.NodeID{1, 2, 3}, LV: 1})
	hb := h.Send(0)
	h.Ack(1, ackOf(1, hb, 0))
	h.Ack(1, ackOf(2, hb, 0))
	joint := Voters{Prev: []raid.NodeID{1, 2, 3}, Cur: []raid.NodeID{1, 3, 4, 5}, LV: 2}
	h.SetVoters(joint)
	if h.Valid(2) {
		t.Fatal("lease of {1,2} survives the change to {1,2,3}+{1,3,4,5}")
	}
	h.Ack(3, ackOf(4, hb, 0))
	h.Ack(3, ackOf(5, hb, 0))
	if !h.Valid(3) {
		t.Error("majorities of both sets have acknowledged")
	}
	if lv := h.Send(4).LV; lv != 2 {
		t.Errorf("reports lv %d", lv)
	}
}

func TestRevocationsCountBindingAnswersOnly(t *testing.T) {
	v := Voters{Cur: []raid.NodeID{1, 2, 3, 4}, Prev: []raid.NodeID{1, 2, 9}, LV: 2}
	var r Revocations
	r.Start(7, 2)
	r.Start(7, 2)
	if d := r.Due(0); len(d) != 1 || d[0] != (RevokeRequest{7, 2}) {
		t.Fatalf("due: %v", d)
	}
	if d := r.Due(revokeResendNs - 1); d != nil {
		t.Errorf("asked again at once: %v", d)
	}
	yes := func(from raid.NodeID) { r.Reply(1, RevokeReply{From: from, Node: 7, Term: 2, Yes: true}) }
	yes(1)
	yes(3)
	yes(4)
	yes(4)
	r.Reply(1, RevokeReply{From: 2, Node: 7, Term: 2, RemainingNs: 30 * ms})
	r.Reply(1, RevokeReply{From: 9, Node: 7, Term: 1, Yes: true})
	if d := r.Done(v); d != nil {
		t.Errorf("done with one of three old voters: %v", d)
	}
	if m := r.Missing(RevokeRequest{7, 2}, v); !slices.Equal(m, []raid.NodeID{2, 9}) {
		t.Errorf("missing %v", m)
	}
	if d := r.Due(30*ms + 1); len(d) != 1 {
		t.Error("not asked again when the promise is over")
	}
	yes(2)
	if d := r.Done(v); len(d) != 1 || !slices.Equal(d[0].Yes, []raid.NodeID{1, 2, 3, 4}) {
		t.Errorf("done: %v", d)
	}
	r.Stop(func(NodeTerm) bool { return false })
	if r.Done(v) != nil || r.Due(1e12) != nil {
		t.Error("goes on after Stop")
	}
}

// leaseSim is the Go twin of model/lease.pml: one holder, several voters, a leader that revokes, messages of any age, restarts,
// a change of voters, and clocks that drift within ±1 %.
type leaseSim struct {
	r       *rand.Rand
	now     int64 // real time
	clocks  []simClock
	voters  map[raid.NodeID]*Voter
	durable map[raid.NodeID][]Revoked
	holder  *Holder
	state   Voters // Raft's value, as the leader has applied it
	rev     Revocations
	asking  bool
	net     []simMessage
	writes  []simWrite
	granted int
}

type simClock struct{ offset, ppm int64 }

type simMessage struct {
	at int64
	do func()
}

type simWrite struct {
	at   int64
	node raid.NodeID
	w    RevokeWrite
}

func (s *leaseSim) clock(n raid.NodeID) int64 {
	c := s.clocks[n]
	return c.offset + s.now + s.now/1e6*c.ppm
}

func (s *leaseSim) send(do func()) {
	if s.r.IntN(10) == 0 {
		return // lost
	}
	for range 1 + s.r.IntN(8)/7 { // sometimes twice
		delay := s.r.Int64N(20 * ms)
		if s.r.IntN(6) == 0 {
			delay = s.r.Int64N(900 * ms)
		}
		s.net = append(s.net, simMessage{s.now + delay, do})
	}
}

func newLeaseSim(seed uint64) *leaseSim {
	s := &leaseSim{r: rand.New(rand.NewPCG(seed, 7)), voters: map[raid.NodeID]*Voter{}, durable: map[raid.NodeID][]Revoked{}}
	s.state = Voters{Cur: []raid.NodeID{1, 2, 3}, LV: 1}
	for range 7 {
		s.clocks = append(s.clocks, simClock{s.r.Int64N(1e12), s.r.Int64N(19001) - 9500})
	}
	for n := raid.NodeID(1); n <= 5; n++ {
		s.boot(n)
	}
	s.holder = NewHolder(6, 1, s.state)
	return s
}

func (s *leaseSim) boot(n raid.NodeID) {
	s.voters[n] = NewVoter(s.clock(n), VoterOptions{Node: n, MaxPromiseNs: 600 * ms}, s.durable[n])
	s.writes = slices.DeleteFunc(s.writes, func(w simWrite) bool { return w.node == n })
}

// heartbeat sends one to every node; with islands, only to some: that is what makes wrong quorums matter.
func (s *leaseSim) heartbeat(reach func(raid.NodeID) bool) {
	hb := s.holder.Send(s.clock(6))
	for n := raid.NodeID(1); n <= 5; n++ {
		if !reach(n) {
			continue
		}
		s.send(func() {
			if a, ok := s.voters[n].Heartbeat(s.clock(n), hb); ok {
				s.send(func() { s.holder.Ack(s.clock(6), a) })
			}
		})
	}
}

func (s *leaseSim) askVoters() {
	for _, q := range s.rev.Due(s.now) {
		for _, n := range s.rev.Missing(q, s.state) {
			s.send(func() {
				reply, ok, w := s.voters[n].Revoke(s.clock(n), q)
				if w != nil {
					s.writes = append(s.writes, simWrite{s.now + s.r.Int64N(30*ms), n, *w})
				}
				if ok {
					s.send(func() { s.rev.Reply(s.now, reply) })
				}
			})
		}
	}
}

// deliver executes what is due, in random order.
func (s *leaseSim) deliver() {
	s.r.Shuffle(len(s.net), func(i, j int) { s.net[i], s.net[j] = s.net[j], s.net[i] })
	due := []simMessage{}
	s.net = slices.DeleteFunc(s.net, func(m simMessage) bool {
		if m.at <= s.now {
			due = append(due, m)
		}
		return m.at <= s.now
	})
	for _, m := range due {
		m.do()
	}
	s.writes = slices.DeleteFunc(s.writes, func(w simWrite) bool {
		if w.at > s.now {
			return false
		}
		s.durable[w.node] = append(s.durable[w.node], w.w.Revoked)
		if reply, ok := s.voters[w.node].Stored(w.w.ID); ok {
			s.send(func() { s.rev.Reply(s.now, reply) })
		}
		return true
	})
}

// run returns when the holder was valid although a majority had revoked its term.
func (s *leaseSim) run() error {
	changeAt, applyAfter := s.r.Int64N(5e9), s.r.Int64N(1200*ms)
	begun, known, ended := false, false, false
	third := raid.NodeID(1 + s.r.IntN(3)) // the old voter that stays
	var reach [6]bool                     // whom the holder reaches, for a while
	var reachUntil int64
	for s.now < 6e9 {
		s.now += 1 + s.r.Int64N(8*ms)
		s.deliver()
		if s.now >= reachUntil {
			reachUntil = s.now + 100*ms + s.r.Int64N(1500*ms)
			for n := range reach {
				reach[n] = s.r.IntN(2) == 0
			}
		}
		switch k := s.r.IntN(100); {
		case k < 20:
			s.heartbeat(func(n raid.NodeID) bool { return reach[n] })
		case k < 21:
			n := raid.NodeID(1 + s.r.IntN(5))
			s.boot(n)
		case k < 22:
			s.rev.Start(6, 1)
			s.asking = true
		}
		if !begun && s.now >= changeAt {
			begun = true
			s.state = Voters{Prev: []raid.NodeID{1, 2, 3}, Cur: []raid.NodeID{third, 4, 5}, LV: 2}
		}
		if begun && !known && s.now >= changeAt+applyAfter {
			known = true
			s.holder.SetVoters(s.state)
		}
		if known && !ended && s.r.IntN(20) == 0 { // it has reported lv 2
			ended = true
			s.state.Prev = nil
		}
		if s.holder.Valid(s.clock(6)) {
			s.granted++
		}
		if s.asking {
			s.askVoters()
			for _, done := range s.rev.Done(s.state) {
				if end := s.holder.EndNs(); s.holder.Valid(s.clock(6)) {
					return fmt.Errorf("at %d ms %v have revoked, the holder's lease lasts %d ms more", s.now/ms, done.Yes, (end-s.clock(6))/ms)
				}
				return s.neverAgain()
			}
		}
	}
	return nil
}

// neverAgain goes on for a second: no answer under way may revive the lease.
func (s *leaseSim) neverAgain() error {
	for end := s.now + 1e9; s.now < end; {
		s.now += 1 + s.r.Int64N(8*ms)
		s.heartbeat(func(raid.NodeID) bool { return true })
		s.deliver()
		if s.r.IntN(20) == 0 {
			s.boot(raid.NodeID(1 + s.r.IntN(5)))
		}
		if s.holder.Valid(s.clock(6)) {
			return fmt.Errorf("the lease is valid again %d ms after the revocation", (s.now-end+1e9)/ms)
		}
	}
	return nil
}

func runLeaseSims(seeds uint64) (granted int, err error) {
	for seed := range seeds {
		s := newLeaseSim(seed)
		if err := s.run(); err != nil {
			return granted, fmt.Errorf("seed %d: %w", seed, err)
		}
		granted += s.granted
	}
	return granted, nil
}
