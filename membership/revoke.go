package membership

import (
	"slices"

	"clade/raid"
)

// revokeResendNs is how long the leader waits before it asks a voter again.
const revokeResendNs = 50e6

// Revocations is the leader's side of ending terms: it asks the voters and counts the binding answers. A Yes stays true for
// ever, so a new leader may start from nothing.
type Revocations struct {
	open []revocation
}

type revocation struct {
	NodeTerm
	yes   []raid.NodeID // sorted
	asked int64         // when it was last sent
	ready int64         // not before: what the voters that said no have left
}

// Start begins to revoke a term; it is repeatable.
func (r *Revocations) Start(n raid.NodeID, t raid.Term) {
	if !slices.ContainsFunc(r.open, func(o revocation) bool { return o.Node == n && o.Term == t }) && len(r.open) < maxLeaseNodes {
		r.open = append(r.open, revocation{NodeTerm: NodeTerm{n, t}, asked: -1})
	}
}

// Stop gives up those that keep reports false for: the term has ended or the node is heard again. What voters have revoked
// stays revoked: a node that lost its voters so boots anew.
func (r *Revocations) Stop(keep func(NodeTerm) bool) {
	r.open = slices.DeleteFunc(r.open, func(o revocation) bool { return !keep(o.NodeTerm) })
}

// Reply takes a voter's answer.
func (r *Revocations) Reply(nowNs int64, a RevokeReply) {
	for i := range r.open {
		o := &r.open[i]
		if o.Node != a.Node || o.Term != a.Term {
			continue
		}
		if !a.Yes {
			o.ready = max(o.ready, nowNs+min(max(a.RemainingNs, 0), MaxPromiseNs))
		} else if j, found := slices.BinarySearch(o.yes, a.From); !found && len(o.yes) < maxLeaseNodes {
			o.yes = slices.Insert(o.yes, j, a.From)
		}
	}
}

// Due returns the terms that have to be asked for now, of all voters that have not said yes, see Missing.
func (r *Revocations) Due(nowNs int64) []RevokeRequest {
	var out []RevokeRequest
	for i := range r.open {
		o := &r.open[i]
		again := o.asked < 0 || nowNs-o.asked >= revokeResendNs || o.ready > o.asked && nowNs >= o.ready
		if again {
			o.asked = nowNs
			out = append(out, RevokeRequest{o.Node, o.Term})
		}
	}
	return out
}

// NextNs returns when Due has something to say again, or 0.
func (r *Revocations) NextNs() int64 {
	next := int64(0)
	for i := range r.open {
		o := &r.open[i]
		at := o.asked + revokeResendNs
		if o.ready > o.asked {
			at = min(at, o.ready)
		}
		if next == 0 || at < next {
			next = at
		}
	}
	return next
}

// Missing returns the voters that have not yet revoked a term.
func (r *Revocations) Missing(q RevokeRequest, v Voters) []raid.NodeID {
	var out []raid.NodeID
	for i := range r.open {
		if o := &r.open[i]; o.Node == q.Node && o.Term == q.Term {
			for _, id := range append(slices.Clone(v.Cur), v.Prev...) {
				if _, found := slices.BinarySearch(o.yes, id); !found && !slices.Contains(out, id) {
					out = append(out, id)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// Done returns the NodeRevoke commands that the voters' answers allow; State judges them again when they apply.
func (r *Revocations) Done(v Voters) []*NodeRevoke {
	var out []*NodeRevoke
	for i := range r.open {
		o := &r.open[i]
		if v.Majority(func(id raid.NodeID) bool { return slices.Contains(o.yes, id) }) {
			out = append(out, &NodeRevoke{Node: o.Node, Term: o.Term, Yes: slices.Clone(o.yes)})
		}
	}
	return out
}
