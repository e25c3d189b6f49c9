package membership

import (
	"cmp"
	"fmt"
	"slices"

	"clade/raid"
)

// planTakeover gives each volume without a living owner to the best candidate. What was released goes to the target of the
// handoff first; who released without ever having been active waits, longer each time (B: L7).
func (p *Planner) planTakeover(s *State, h *Health, nowNs int64) []Decision {
	var out []Decision
	owned := ownedCounts(s)
	for _, v := range s.Volumes {
		if s.OwnerLives(v.Data) {
			if v.Data.Active {
				p.tries = slices.DeleteFunc(p.tries, func(t try) bool { return t.vol == v.Data.ID })
			}
			continue
		}
		p.noteFailure(v, nowNs)
		n := p.candidate(s, h, v, owned, nowNs)
		if n == nil || !p.once(nowNs, keyOf("takeover", v.Data.ID, v.Data.Epoch)) {
			continue
		}
		next := max(v.Data.Epoch, h.volume(v.Data.ID).FenceSeen) + 1
		owned[n.ID]++
		p.tried(v.Data.ID, n.ID, next)
		out = append(out, Decision{
			Propose: &Takeover{Vol: v.Data.ID, Epoch: v.Data.Epoch, Next: next, Node: n.ID, Term: n.Term},
			Why:     fmt.Sprintf("volume %s has no living owner: node %s", v.Name, n.Name)})
	}
	return out
}

func (p *Planner) tryOf(v raid.VolumeID, n raid.NodeID) *try {
	for i := range p.tries {
		if p.tries[i].vol == v && p.tries[i].node == n {
			return &p.tries[i]
		}
	}
	return nil
}

func (p *Planner) tried(v raid.VolumeID, n raid.NodeID, e raid.Epoch) {
	t := p.tryOf(v, n)
	if t == nil {
		p.tries = append(p.tries, try{vol: v, node: n})
		t = &p.tries[len(p.tries)-1]
	}
	t.epoch = e
}

// noteFailure counts a release of an epoch that was never active against the node that had it.
func (p *Planner) noteFailure(v *Volume, nowNs int64) {
	d := v.Data
	if d.Owner == 0 || d.Released != d.Epoch || d.LastActive == d.Epoch {
		return
	}
	t := p.tryOf(d.ID, d.Owner)
	if t == nil {
		p.tried(d.ID, d.Owner, d.Epoch)
		t = p.tryOf(d.ID, d.Owner)
	}
	if t.epoch != d.Epoch {
		return // counted, or proposed again and not yet applied
	}
	t.epoch = 0
	t.failed++
	t.until = nowNs + backoff(takeoverRetryNs, takeoverRetryMax, t.failed)
}

// backoff returns first·2^(n−1), at most limit.
func backoff(first, limit int64, n int) int64 {
	d := first
	for range n - 1 {
		if d >= limit/2 {
			return limit
		}
		d *= 2
	}
	return min(d, limit)
}

func ownedCounts(s *State) map[raid.NodeID]int {
	out := make(map[raid.NodeID]int, len(s.Nodes))
	for _, v := range s.Volumes {
		if s.OwnerLives(v.Data) {
			out[v.Data.Owner]++
		}
	}
	return out
}

// candidate returns the node that should own v, or nil when nobody can now. Draining nodes and those that have just failed
// come only when there is nobody else, the latter not before their wait is over.
func (p *Planner) candidate(s *State, h *Health, v *Volume, owned map[raid.NodeID]int, nowNs int64) *Node {
	var best *Node
	var bestRank [4]int
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !eligible(s, h, v, n, nowNs) {
			continue
		}
		t := p.tryOf(v.Data.ID, n.ID)
		if t != nil && nowNs < t.until {
			continue
		}
		rank := [4]int{boolRank(n.Draining), boolRank(n.ID != v.Handoff), 0, owned[n.ID]}
		if t != nil {
			rank[2] = t.failed
		}
		if best == nil || slices.Compare(rank[:], bestRank[:]) < 0 {
			best, bestRank = n, rank
		}
	}
	return best
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// eligible reports whether a node could serve v now: a held term, a recent heartbeat, a working SAN path, and enough in-sync
// disks of every extent within reach. A witness never is.
func eligible(s *State, h *Health, v *Volume, n *Node, nowNs int64) bool {
	nh := h.node(n.ID)
	if n.Witness || n.Leaving || !alive(n, nh, nowNs) || nh.Resets {
		return false
	}
	if !slices.ContainsFunc(nh.Paths, func(p PathHealth) bool { return p.Carrier && p.MTUOK }) {
		return false
	}
	if nh.ReachAll {
		return true
	}
	return v.Data.EveryExtentKeeps(v.Data.InSync().And(nh.Reach))
}

// handoffRule is one reason to move a volume. What may flap to and fro waits for the volume's hold-off and lengthens it (B: L14);
// an operator's drain neither waits nor counts.
type handoffRule struct {
	choose func(*State, *Health, *Volume, *Node, map[raid.NodeID]int, int64) (*Node, string)
	flaps  bool
}

// planHandoff moves at most one volume in the whole cluster at a time: from an owner whose SAN side shows less than
// another's, from a draining owner, or to even out the number of volumes; the most urgent reason first.
func (p *Planner) planHandoff(s *State, h *Health, nowNs int64) []Decision {
	p.holds = slices.DeleteFunc(p.holds, func(o hold) bool {
		return s.Volume(o.vol) == nil || h.volume(o.vol).CalmNs >= handoffCalmNs && nowNs-o.since >= o.forNs
	})
	for _, v := range s.Volumes {
		if v.Handoff != 0 || !s.OwnerLives(v.Data) || !v.Data.Active {
			return p.recall(s, h, nowNs) // wait until all is quiet
		}
	}
	owned := ownedCounts(s)
	for _, rule := range []handoffRule{{choose: p.betterSAN, flaps: true}, {choose: p.offDraining}, {choose: p.spread, flaps: true}} {
		var found *Volume
		var target *Node
		var why string
		for _, v := range s.Volumes {
			o := s.Node(v.Data.Owner)
			if o == nil || rule.flaps && p.held(v.Data.ID, nowNs) {
				continue
			}
			if n, w := rule.choose(s, h, v, o, owned, nowNs); n != nil {
				found, target, why = v, n, w
				break
			}
		}
		if found != nil && p.once(nowNs, keyOf("handoff", found.Data.ID, found.Data.Epoch)) {
			if rule.flaps {
				p.moved(found.Data.ID, target.ID, nowNs)
			}
			return []Decision{{Propose: &Handoff{Vol: found.Data.ID, Epoch: found.Data.Epoch, Target: target.ID, Auto: true},
				Why: fmt.Sprintf("volume %s to node %s: %s", found.Name, target.Name, why)}}
		}
		if found != nil {
			return nil
		}
	}
	return nil
}

// recall takes back a handoff whose target cannot take over any more while the owner still serves.
func (p *Planner) recall(s *State, h *Health, nowNs int64) []Decision {
	for _, v := range s.Volumes {
		if v.Handoff == 0 || !s.OwnerLives(v.Data) {
			continue
		}
		n := s.Node(v.Handoff)
		if (n == nil || !eligible(s, h, v, n, nowNs)) && p.once(nowNs, keyOf("recall", v.Data.ID, v.Data.Epoch)) {
			return []Decision{{Propose: &Handoff{Vol: v.Data.ID, Epoch: v.Data.Epoch, Auto: true}, Why: fmt.Sprintf("volume %s stays: node %d cannot take it", v.Name, v.Handoff)}}
		}
	}
	return nil
}

func (p *Planner) held(v raid.VolumeID, nowNs int64) bool {
	return slices.ContainsFunc(p.holds, func(o hold) bool { return o.vol == v && nowNs-o.since < o.forNs })
}

// moved starts the volume's hold-off, twice as long as the last one.
func (p *Planner) moved(v raid.VolumeID, target raid.NodeID, nowNs int64) {
	for i := range p.holds {
		if o := &p.holds[i]; o.vol == v {
			*o = hold{v, nowNs, min(2*o.forNs, handoffHoldMaxNs), target}
			return
		}
	}
	p.holds = append(p.holds, hold{v, nowNs, handoffHoldMinNs, target})
}

// sanView is what a node shows of its SAN side.
type sanView struct{ carriers, recent, notDead int }

func sanOf(all *Health, id raid.NodeID, nowNs int64) sanView {
	var v sanView
	h := all.node(id)
	if h == nil {
		return v
	}
	for i, p := range h.Paths {
		if !p.Carrier || !p.MTUOK {
			continue
		}
		v.carriers++
		if mute(all, id, i, p, nowNs) {
			continue
		}
		seen := max(p.BeaconNs, p.InitiatorNs)
		if seen != 0 && nowNs-seen <= seenRecentNs {
			v.recent++
		}
		if seen != 0 && nowNs-seen <= seenDeadNs {
			v.notDead++
		}
	}
	return v
}

// mute reports whether a node's path hears the other nodes and is heard by none of them: a transmitter that is dead behind a link
// that is up. Its initiators ask in vain, so such a path counts as a dead one (B: L1). A path that hears no node is not judged:
// it may be on the initiators' side of a SAN that has fallen in two.
func mute(h *Health, id raid.NodeID, path int, p PathHealth, nowNs int64) bool {
	if p.BeaconNs == 0 || nowNs-p.BeaconNs > seenRecentNs {
		return false
	}
	witnesses := 0
	for i := range h.Nodes {
		w := &h.Nodes[i]
		if w.Node == id || w.HeartbeatNs == 0 || nowNs-w.HeartbeatNs > seenRecentNs || !hears(w, nowNs) {
			continue
		}
		for _, b := range w.Heard {
			if b.Node != id || b.Path != path {
				continue
			}
			if nowNs-b.AtNs <= seenDeadNs {
				return false
			}
			witnesses++
		}
	}
	return witnesses > 0
}

// hears reports whether a node has heard anything at all on its SAN in the last second.
func hears(h *NodeHealth, nowNs int64) bool {
	return slices.ContainsFunc(h.Paths, func(p PathHealth) bool {
		seen := max(p.BeaconNs, p.InitiatorNs)
		return p.Carrier && seen != 0 && nowNs-seen <= seenRecentNs
	})
}

// more reports whether target shows strictly more than owner (B: L14): a frame in the last second against none in three, or
// carrier against none, and nothing less in the other. Equal is no reason: both sides of a dead switch look alike.
func more(target, owner sanView) bool {
	return target.recent > owner.notDead && target.carriers >= owner.carriers ||
		target.carriers > owner.carriers && target.recent >= owner.notDead
}

// betterSAN: the owner's SAN side is dead or has fewer working paths, another node's is better (B: L1, L14).
func (p *Planner) betterSAN(s *State, h *Health, v *Volume, o *Node, owned map[raid.NodeID]int, nowNs int64) (*Node, string) {
	own := sanOf(h, o.ID, nowNs)
	return best(s, h, v, o, owned, nowNs, func(n *Node) bool { return !n.Draining && more(sanOf(h, n.ID, nowNs), own) }), "its SAN side shows more"
}

// offDraining: the owner shall own nothing.
func (p *Planner) offDraining(s *State, h *Health, v *Volume, o *Node, owned map[raid.NodeID]int, nowNs int64) (*Node, string) {
	if !o.Draining {
		return nil, ""
	}
	return best(s, h, v, o, owned, nowNs, func(n *Node) bool { return !n.Draining }), "the owner is draining"
}

// spread: the owner has at least two volumes more than the target, and more than anybody else that could give. What an operator has
// put somewhere stays there.
func (p *Planner) spread(s *State, h *Health, v *Volume, o *Node, owned map[raid.NodeID]int, nowNs int64) (*Node, string) {
	if p.opt.NoSpread || v.Placed == o.ID || nowNs-h.LeadNs < handoffHoldMinNs {
		return nil, ""
	}
	for i := range s.Nodes {
		if owned[s.Nodes[i].ID] > owned[o.ID] {
			return nil, ""
		}
	}
	own := sanOf(h, o.ID, nowNs)
	return best(s, h, v, o, owned, nowNs, func(n *Node) bool {
		return !n.Draining && owned[o.ID]-owned[n.ID] >= 2 && !more(own, sanOf(h, n.ID, nowNs)) && settled(h.node(n.ID), nowNs)
	}), "it owns fewer volumes"
}

// settled reports whether a node has held its term for a while: who has just come back is left alone until its disks are filled, and
// may go again.
func settled(h *NodeHealth, nowNs int64) bool { return h != nil && nowNs-h.TermNs >= spreadSettleNs }

// best returns the eligible node other than o for which ok holds that owns the fewest volumes.
func best(s *State, h *Health, v *Volume, o *Node, owned map[raid.NodeID]int, nowNs int64, ok func(*Node) bool) *Node {
	var out *Node
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.ID == o.ID || !eligible(s, h, v, n, nowNs) || !ok(n) {
			continue
		}
		if out == nil || cmp.Compare(owned[n.ID], owned[out.ID]) < 0 {
			out = n
		}
	}
	return out
}
