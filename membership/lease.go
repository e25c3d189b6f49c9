package membership

import (
	"cmp"
	"slices"

	"clade/raid"
)

// Lease times (A.2).
const (
	DefaultPromiseNs   = 500e6 // D
	MaxPromiseNs       = 1e9   // Dmax: the largest D that may ever be configured
	DefaultHeartbeatNs = 50e6
	driftPercent       = 1   // ρ
	marginNs           = 5e6 // taken off each lease
	maxLeaseNodes      = 4 * MaxNodes
)

// leaseNs returns L for a voter's D: D·(1−2ρ) − 5 ms. A voter's clock may run fast and the holder's slow.
func leaseNs(promiseNs int64) int64 { return promiseNs/100*(100-2*driftPercent) - marginNs }

// Heartbeat asks every node for a promise (HB of A.2). It goes to all members, not only to voters: a new voter must know
// the holders before VotersBegin (B: C6).
type Heartbeat struct {
	Node raid.NodeID
	Term raid.Term
	ID   uint64
	LV   uint64 // the lease voters that the holder goes by: it has recomputed its lease under them
}

// HeartbeatAck is a voter's promise (HBAck), or with Nack its refusal for ever.
type HeartbeatAck struct {
	From      raid.NodeID // the voter
	Node      raid.NodeID
	Term      raid.Term
	ID        uint64
	Nack      bool
	PromiseNs int64 // D
	ClockNs   int64 // the voter's clock when it answered
}

// RevokeRequest asks a voter to end a term (Rev).
type RevokeRequest struct {
	Node raid.NodeID
	Term raid.Term
}

// RevokeReply is a voter's answer: Yes is binding for ever, No says how long its promise still lasts.
type RevokeReply struct {
	From        raid.NodeID // the voter
	Node        raid.NodeID
	Term        raid.Term
	Yes         bool
	RemainingNs int64
}

// Revoked is what a voter has durably revoked: no term <= Term of Node ever gets a promise again.
type Revoked struct {
	Node raid.NodeID
	Term raid.Term
}

// RevokeWrite must be durable before Voter.Stored(ID) is called. A write that fails ends the node.
type RevokeWrite struct {
	ID uint64
	Revoked
}

// VoterOptions configures a Voter; zero fields get the defaults.
type VoterOptions struct {
	Node         raid.NodeID
	PromiseNs    int64 // D
	MaxPromiseNs int64 // Dmax
}

// Voter is the lease voter of one process (A.2). It promises every living term a time D, and gives a promise to end a term
// only when every promise made to it, by this process or an earlier one, is over.
type Voter struct {
	opt     VoterOptions
	silence int64 // until then any node may hold a promise of this node's former process
	rows    []voterRow
	nextID  uint64
}

type voterRow struct {
	node    raid.NodeID
	revoked raid.Term // durable
	writing raid.Term // on its way to the disk: already no more promises for it
	writeID uint64
	until   int64
}

// NewVoter starts a voter at process start; revoked is what is durable from earlier processes.
func NewVoter(nowNs int64, opt VoterOptions, revoked []Revoked) *Voter {
	opt.PromiseNs = cmp.Or(opt.PromiseNs, DefaultPromiseNs)
	opt.MaxPromiseNs = max(cmp.Or(opt.MaxPromiseNs, MaxPromiseNs), opt.PromiseNs)
	v := &Voter{opt: opt, silence: nowNs + opt.MaxPromiseNs}
	if mutated("FORGET_PROMISE") {
		v.silence = nowNs
	}
	if mutated("FORGET_REVOKE") {
		revoked = nil
	}
	for _, r := range revoked {
		if row := v.row(r.Node); row != nil {
			row.revoked = max(row.revoked, r.Term)
		}
	}
	return v
}

// row returns the row of a node, a new one if need be; nil when the table is full.
func (v *Voter) row(n raid.NodeID) *voterRow {
	i, ok := slices.BinarySearchFunc(v.rows, n, func(r voterRow, n raid.NodeID) int { return cmp.Compare(r.node, n) })
	if !ok {
		if len(v.rows) >= maxLeaseNodes {
			return nil
		}
		v.rows = slices.Insert(v.rows, i, voterRow{node: n})
	}
	return &v.rows[i]
}

// Forget drops the row of a node that is no member any more. A node's id is never used again.
func (v *Voter) Forget(n raid.NodeID) {
	v.rows = slices.DeleteFunc(v.rows, func(r voterRow) bool { return r.node == n })
}

// Heartbeat answers a holder; false: no answer.
func (v *Voter) Heartbeat(nowNs int64, hb Heartbeat) (HeartbeatAck, bool) {
	ack := HeartbeatAck{From: v.opt.Node, Node: hb.Node, Term: hb.Term, ID: hb.ID, ClockNs: nowNs}
	r := v.row(hb.Node)
	switch {
	case r == nil:
		return ack, false
	case hb.Term <= r.revoked:
		ack.Nack = true
		return ack, true
	case hb.Term <= r.writing: // whether it is revoked is open until the write is done
		return ack, false
	}
	r.until = max(r.until, nowNs+v.opt.PromiseNs)
	ack.PromiseNs = v.opt.PromiseNs
	return ack, true
}

// Revoke answers the leader. With a write, the answer comes out of Stored when the write is durable; without, reply is the
// answer if ok.
func (v *Voter) Revoke(nowNs int64, q RevokeRequest) (reply RevokeReply, ok bool, write *RevokeWrite) {
	reply = RevokeReply{From: v.opt.Node, Node: q.Node, Term: q.Term}
	r := v.row(q.Node)
	switch {
	case r == nil || q.Term == 0:
		return reply, false, nil
	case r.revoked >= q.Term:
		reply.Yes = true
		return reply, true, nil
	case r.writing >= q.Term:
		return reply, false, nil // Stored answers
	}
	if until := max(r.until, v.silence); nowNs < until {
		reply.RemainingNs = until - nowNs
		return reply, true, nil
	}
	if mutated("NOT_BINDING") {
		reply.Yes = true
		return reply, true, nil
	}
	v.nextID++
	r.writing, r.writeID = q.Term, v.nextID
	return reply, false, &RevokeWrite{ID: v.nextID, Revoked: Revoked(q)}
}

// Stored says that the write of that id is durable; it returns the Yes that it allows.
func (v *Voter) Stored(id uint64) (reply RevokeReply, ok bool) {
	for i := range v.rows {
		r := &v.rows[i]
		if r.writing != 0 && r.writeID == id {
			r.revoked = max(r.revoked, r.writing)
			return RevokeReply{From: v.opt.Node, Node: r.node, Term: r.writing, Yes: true}, true
		}
	}
	return RevokeReply{}, false
}

// maxSent is how many heartbeats a holder remembers: those that can still carry a lease, at the usual pace.
const maxSent = 64

// Holder is the lease of one incarnation of a node (A.2). Whoever serves asks Valid after the content of an answer is
// complete, and nothing is checked after that.
type Holder struct {
	node     raid.NodeID
	term     raid.Term
	voters   Voters
	sent     []sentHeartbeat // by id
	nextID   uint64
	leaseEnd int64
	leastNs  int64  // the least that was left when it was renewed; 0: never renewed in time
	over     string // why this term will never be valid again
	clocks   []voterClock
}

type sentHeartbeat struct {
	id   uint64
	atNs int64 // taken before sending
	acks []heartbeatAck
}

type heartbeatAck struct {
	from      raid.NodeID
	promiseNs int64
}

type voterClock struct {
	node    raid.NodeID
	sentNs  int64 // when the acknowledged heartbeat was sent, by our clock
	clockNs int64 // the voter's clock when it answered
}

// NewHolder starts the lease of a term that the node has got by its own NodeBoot; it has no lease yet.
func NewHolder(node raid.NodeID, term raid.Term, voters Voters) *Holder {
	return &Holder{node: node, term: term, voters: voters.Clone()}
}

// Term returns the term whose lease this is.
func (h *Holder) Term() raid.Term { return h.term }

// Send returns the next heartbeat, to be sent to every member, the node itself included. Its send time is nowNs, so nowNs
// must have been read before.
func (h *Holder) Send(nowNs int64) Heartbeat {
	h.nextID++
	h.sent = slices.DeleteFunc(h.sent, func(s sentHeartbeat) bool { return nowNs-s.atNs > 2*MaxPromiseNs })
	if len(h.sent) >= maxSent {
		h.sent = slices.Delete(h.sent, 0, len(h.sent)-maxSent+1)
	}
	h.sent = append(h.sent, sentHeartbeat{id: h.nextID, atNs: nowNs})
	return Heartbeat{Node: h.node, Term: h.term, ID: h.nextID, LV: h.voters.LV}
}

// Ack takes a voter's answer. from is the node that the transport says it came from.
func (h *Holder) Ack(nowNs int64, a HeartbeatAck) {
	if a.Node != h.node || a.Term != h.term {
		return
	}
	if a.Nack {
		h.end("a voter has revoked the term")
		return
	}
	i, ok := slices.BinarySearchFunc(h.sent, a.ID, func(s sentHeartbeat, id uint64) int { return cmp.Compare(s.id, id) })
	if !ok || a.PromiseNs <= 0 || a.PromiseNs > MaxPromiseNs {
		return
	}
	s := &h.sent[i]
	if slices.ContainsFunc(s.acks, func(o heartbeatAck) bool { return o.from == a.From }) || len(s.acks) >= maxLeaseNodes {
		return
	}
	s.acks = append(s.acks, heartbeatAck{a.From, a.PromiseNs})
	if h.clockStopped(nowNs, s.atNs, a) {
		h.end("the clock has stood still")
		return
	}
	end := h.endOf(s)
	if left := h.leaseEnd - nowNs; end > h.leaseEnd && left > 0 && (h.leastNs == 0 || left < h.leastNs) {
		h.leastNs = left
	}
	h.leaseEnd = max(h.leaseEnd, end)
}

// LeastNs returns the least that was ever left of the lease when an answer renewed it, in ns: how close this term came to
// losing it. 0: it was not renewed in time yet.
func (h *Holder) LeastNs() int64 { return h.leastNs }

// clockStopped compares the time between two answers of one voter by its clock and by ours. From sending the first
// heartbeat to receiving the second answer at least as much time has passed as between the two answers (B: C18).
func (h *Holder) clockStopped(nowNs, sentNs int64, a HeartbeatAck) bool {
	for i := range h.clocks {
		c := &h.clocks[i]
		if c.node != a.From {
			continue
		}
		voter, own := a.ClockNs-c.clockNs, nowNs-c.sentNs
		if sentNs > c.sentNs {
			c.sentNs, c.clockNs = sentNs, a.ClockNs
		}
		return voter > 0 && own >= 0 && voter > own+own/100*2*driftPercent+marginNs
	}
	if len(h.clocks) < maxLeaseNodes {
		h.clocks = append(h.clocks, voterClock{a.From, sentNs, a.ClockNs})
	}
	return false
}

// endOf returns when the lease that a heartbeat carries ends, 0 without a majority.
func (h *Holder) endOf(s *sentHeartbeat) int64 {
	least := int64(MaxPromiseNs)
	counts := func(id raid.NodeID) bool {
		i := slices.IndexFunc(s.acks, func(a heartbeatAck) bool { return a.from == id })
		if i >= 0 {
			least = min(least, s.acks[i].promiseNs)
		}
		return i >= 0
	}
	if !h.voters.Majority(counts) {
		return 0
	}
	return s.atNs + leaseNs(least)
}

// SetVoters says that the node has applied a change of the lease voters. The lease is computed anew, possibly shortened,
// before any later heartbeat reports the new lv: what only the old majority has acknowledged counts no more (B: C6).
func (h *Holder) SetVoters(v Voters) {
	h.voters = v.Clone()
	if mutated("KEEP_OLD_LEASE") {
		return
	}
	h.leaseEnd = 0
	for i := range h.sent {
		h.leaseEnd = max(h.leaseEnd, h.endOf(&h.sent[i]))
	}
}

// ClockJumped says that the host's clock has been seen to jump: this term is over.
func (h *Holder) ClockJumped() { h.end("the clock has jumped") }

// TermBumped says that the node has applied the end of its term.
func (h *Holder) TermBumped() { h.end("the term has ended") }

func (h *Holder) end(why string) {
	if h.over == "" {
		h.over = why
	}
}

// Valid reports whether the node may emit an answer (A.2 Serving rule). nowNs must have been read after the answer's content
// was complete.
func (h *Holder) Valid(nowNs int64) bool { return h.over == "" && nowNs < h.leaseEnd }

// EndNs returns until when the lease lasts if nothing more is heard.
func (h *Holder) EndNs() int64 { return h.leaseEnd }

// Over returns why the term can never be valid again, or "".
func (h *Holder) Over() string { return h.over }
