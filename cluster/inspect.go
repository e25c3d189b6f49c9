package cluster

import "clade/raid"

// OwnerView is what an inspector may see of a volume that a node owns: for the simulator's invariants (A.4).
type OwnerView struct {
	Vol     raid.VolumeID
	Epoch   raid.Epoch
	Term    raid.Term // of the node, under which it owns the volume
	Status  raid.OwnerStatus
	Serving bool // the serving rule of A.2 holds now: an answer would be emitted
}

// Owners returns the volumes that this node owns, in order of id. It changes nothing.
func (n *Node) Owners(nowNs int64) []OwnerView {
	var out []OwnerView
	valid := n.inc.holder != nil && n.inc.holder.Valid(nowNs)
	for _, v := range n.vols {
		if v.owner != nil {
			out = append(out, OwnerView{Vol: v.id, Epoch: v.cfgEpoch, Term: n.inc.term, Status: v.owner.Status(), Serving: valid && v.serving()})
		}
	}
	return out
}
