package cluster

import (
	"clade/aoe"
	"clade/raid"
)

// sanHealth is what this node knows of its SAN paths (B: L1).
type sanHealth struct {
	paths     []pathState
	beaconNs  int64
	seq       uint64
	notBefore int64 // frames received before are dropped: the clock has jumped
}

type pathState struct {
	carrier     bool
	mtuOK       bool
	beaconNs    int64 // last beacon of another node; 0: never
	initiatorNs int64 // last frame of an initiator; 0: never
}

const beaconEveryNs = 100 * ms

// PathState says whether a SAN path has carrier and an MTU that carries the cluster's sector count.
func (n *Node) PathState(nowNs int64, path int, carrier, mtuOK bool) {
	n.tick(nowNs)
	if path < 0 || path >= len(n.san.paths) {
		return
	}
	p := &n.san.paths[path]
	p.carrier, p.mtuOK = carrier, mtuOK
}

// sanStep beacons to the other nodes on every path.
func (n *Node) sanStep() {
	if n.now-n.san.beaconNs < beaconEveryNs || !n.group.State().Initialised() {
		return
	}
	n.san.beaconNs = n.now
	n.san.seq++
	for i := range n.san.paths {
		if i < len(n.opt.PathMACs) && n.san.paths[i].carrier {
			b := aoe.NodeBeacon{Cluster: n.opt.Cluster, Node: uint64(n.opt.ID), Path: uint8(i), Seq: n.san.seq}
			n.ready.Frames = append(n.ready.Frames, TxFrame{Path: i, Header: aoe.AppendNodeBeacon(nil, n.opt.PathMACs[i], b)})
		}
	}
}

// beaconFrame notes another node's beacon; it reports whether the frame was one.
func (n *Node) beaconFrame(f *SANFrame) bool {
	b, ok := aoe.ParseNodeBeacon(f.Data)
	if !ok {
		return false
	}
	if b.Cluster == [16]byte(n.opt.Cluster) && raid.NodeID(b.Node) != n.opt.ID {
		n.san.paths[f.Path].beaconNs = n.now
	}
	return true
}

func (n *Node) pathReports() []PathReport {
	age := func(at int64) int64 {
		if at == 0 {
			return -1
		}
		return n.now - at
	}
	var out []PathReport
	for _, p := range n.san.paths {
		out = append(out, PathReport{Carrier: p.carrier, MTUOK: p.mtuOK, BeaconAge: age(p.beaconNs), InitiatorAge: age(p.initiatorNs)})
	}
	return out
}
