package cluster

import (
	"slices"

	"clade/aoe"
	"clade/raid"
)

// sanHealth is what this node knows of its SAN paths (B: L1).
type sanHealth struct {
	paths     []pathState
	beaconNs  int64
	seq       uint64
	notBefore int64 // frames received before are dropped: the clock has jumped
	heard     []heardBeacon
}

// heardBeacon is when a node's beacon of one of its paths was heard last, on whichever of ours.
type heardBeacon struct {
	node raid.NodeID
	path uint8
	ns   int64
}

type pathState struct {
	carrier     bool
	mtuOK       bool
	beaconNs    int64 // last beacon of another node; 0: never
	initiatorNs int64 // last frame of an initiator; 0: never
}

const (
	beaconEveryNs  = 100 * ms
	maxBeaconPaths = 8 // of one node
	listenGapNs    = 1000 * ms
)

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
		p := &n.san.paths[f.Path]
		if n.now-p.beaconNs > listenGapNs { // a switch has come back: the others' first beacons need not come at once
			for i := range n.san.heard {
				n.san.heard[i].ns = n.now
			}
		}
		p.beaconNs = n.now
		if h := n.heardFrom(raid.NodeID(b.Node), b.Path); h != nil {
			h.ns = n.now
		}
	}
	return true
}

// heardFrom returns the row of a member's path, a new one if it has none yet; nil if there is no such member.
func (n *Node) heardFrom(id raid.NodeID, path uint8) *heardBeacon {
	for i := range n.san.heard {
		if h := &n.san.heard[i]; h.node == id && h.path == path {
			return h
		}
	}
	if n.group.State().Node(id) == nil || int(path) >= maxBeaconPaths {
		return nil
	}
	n.san.heard = append(n.san.heard, heardBeacon{id, path, n.now})
	return &n.san.heard[len(n.san.heard)-1]
}

// silenceReports says how long each other member has not been heard. Who has never been heard is silent from now on: its row
// begins with the first report.
func (n *Node) silenceReports() []SilenceReport {
	s := n.group.State()
	n.san.heard = slices.DeleteFunc(n.san.heard, func(h heardBeacon) bool { return s.Node(h.node) == nil })
	if !slices.ContainsFunc(n.san.paths, func(p pathState) bool { return p.carrier && p.mtuOK }) {
		n.san.heard = n.san.heard[:0] // a deaf node is no witness, and has just begun to listen when it hears again
		return nil
	}
	var out []SilenceReport
	for i := range s.Nodes {
		if id := s.Nodes[i].ID; id != n.opt.ID && !s.Nodes[i].Witness {
			n.heardFrom(id, 0)
		}
	}
	for _, h := range n.san.heard {
		out = append(out, SilenceReport{Node: h.node, Path: h.path, Ns: n.now - h.ns})
	}
	return out
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
