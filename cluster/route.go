package cluster

import (
	"slices"

	"clade/membership"
	"clade/raid"
)

// peerTable knows which peers there is a connection to.
type peerTable struct {
	conn  []raid.NodeID // sorted
	beats []peerBeat    // by node, in order of being heard first
}

// peerBeat says when a peer's heartbeats came, and when they came again after a gap: what comes right after may have waited as
// long, so no receipt is noted then (A.4.12).
type peerBeat struct {
	id         raid.NodeID
	heard, gap int64
}

// beat notes a heartbeat.
func (p *peerTable) beat(id raid.NodeID, nowNs int64) {
	for i := range p.beats {
		if b := &p.beats[i]; b.id == id {
			if nowNs-b.heard > IntakeAgeNs {
				b.gap = nowNs
			}
			b.heard = nowNs
			return
		}
	}
	if len(p.beats) < membership.MaxNodes {
		p.beats = append(p.beats, peerBeat{id, nowNs, nowNs})
	}
}

// prompt reports whether what a peer sends arrives without having waited.
func (p *peerTable) prompt(id raid.NodeID, nowNs int64) bool {
	for _, b := range p.beats {
		if b.id == id {
			return nowNs-b.heard <= IntakeAgeNs && nowNs-b.gap > IntakeAgeNs
		}
	}
	return false
}

func (p *peerTable) up(id raid.NodeID) bool {
	_, ok := slices.BinarySearch(p.conn, id)
	return ok
}

// diskTable is the local disks.
type diskTable struct {
	open    raid.DiskSet
	odd     []oddShards
	gone    []*raid.DiskReply // of disks that are not open, to owners of this node
	streams []remoteStream
}

// remoteStream is the newest stream to a local disk of one volume whose owner is another node.
type remoteStream struct {
	disk   raid.DiskID
	vol    raid.VolumeID
	epoch  raid.Epoch
	stream raid.Stream
	owner  raid.NodeID
}

// opened notes a remote owner's stream.
func (t *diskTable) opened(r *raid.DiskRequest) {
	s := remoteStream{r.Disk, r.Vol, r.Epoch, r.Stream, r.From}
	for i := range t.streams {
		if x := &t.streams[i]; x.disk == s.disk && x.vol == s.vol {
			if x.epoch <= s.epoch { // a former owner that wakes up counts no more
				*x = s
			}
			return
		}
	}
	t.streams = append(t.streams, s)
}

// oddShards is a volume of which a local disk holds something although the applied state, when it was looked at last, did not
// place it there: deleted meanwhile, or not yet known.
type oddShards struct {
	disk raid.DiskID
	vol  raid.VolumeID
}

// receiptsMax bounds the memory of Prepares received lately.
const receiptsMax = 1024

// receipt says when a Prepare came in: only who received it itself may answer its writes when they are rolled forward (A.4.12).
type receipt struct {
	vol   raid.VolumeID
	epoch raid.Epoch
	seq   raid.Seq
	bid   uint64
	atNs  int64
}

// PeerUp says that there is a connection to a peer.
func (n *Node) PeerUp(nowNs int64, id raid.NodeID) {
	n.tick(nowNs)
	i, ok := slices.BinarySearch(n.peers.conn, id)
	if !ok {
		n.peers.conn = slices.Insert(n.peers.conn, i, id)
	}
	n.disksReachable(id, true)
	n.tellAlive()
	n.inc.beatNs = 0
	n.heartbeatStep()
}

// PeerDown says that the connection to a peer has broken. reset says that its kernel closed it or refuses new ones: no proof
// of death, but a reason to ask the voters at once (B: C4).
func (n *Node) PeerDown(nowNs int64, id raid.NodeID, reset bool) {
	n.tick(nowNs)
	if i, ok := slices.BinarySearch(n.peers.conn, id); ok {
		n.peers.conn = slices.Delete(n.peers.conn, i, i+1)
	}
	n.disksReachable(id, false)
	n.tellAlive()
	n.group.Unreachable(id)
	if h := n.leader.node(id); h != nil && reset {
		h.resets = true
		n.leaderLost(id)
	}
	n.takeGroup()
	n.plan()
}

// disksReachable tells every owner whether the disks of a node can be reached.
func (n *Node) disksReachable(id raid.NodeID, up bool) {
	for _, d := range n.group.State().DisksOf(id) {
		for _, v := range n.vols {
			if v.owner != nil {
				v.owner.Connected(n.now, d, up)
			}
		}
	}
}

// diskMoved tells every owner that a disk has to be looked for anew: it may be another node's now.
func (n *Node) diskMoved(d raid.DiskID) {
	row := n.group.State().Disk(d)
	if row == nil {
		return
	}
	up := n.peers.up(row.Node)
	if row.Node == n.opt.ID {
		up = n.disks.open.Has(d)
	}
	for _, v := range n.vols {
		if v.owner != nil && v.mv.Data.Member(d) != nil {
			v.owner.Connected(n.now, d, up)
		}
	}
}

// tellAlive tells the owners which disks belong to nodes that answer: fencing waits for those only.
func (n *Node) tellAlive() {
	alive := n.alive()
	for _, v := range n.vols {
		if v.owner != nil {
			v.owner.NodeAlive(n.now, alive)
		}
	}
}

// reach returns the disks that this node can use now, as their nodes say: an owner is chosen by it.
func (n *Node) reach() raid.DiskSet {
	out := n.disks.open
	for _, id := range n.peers.conn {
		row, h := n.group.State().Node(id), n.leader.known(id)
		if row != nil && row.Held && h != nil && h.hb != nil && h.term == row.Term {
			out = out.Union(h.hb.Disks)
		}
	}
	return out
}

// alive returns the disks of all nodes that answer, open or not: those are waited for at a takeover (B: L6), and their nodes say
// at once which of them are gone.
func (n *Node) alive() raid.DiskSet {
	out := n.disks.open
	for _, id := range n.peers.conn {
		if row := n.group.State().Node(id); row != nil && row.Held {
			out = out.Union(n.group.State().DisksOf(id))
		}
	}
	return out
}

// DiskState says that a local disk can be used, or no longer; vols are the volumes of which it holds anything.
func (n *Node) DiskState(nowNs int64, d raid.DiskID, up bool, vols []raid.VolumeID, why string) {
	n.tick(nowNs)
	if up {
		n.disks.open = n.disks.open.With(d)
	} else {
		n.disks.open = n.disks.open.Without(d)
	}
	n.event(Event{Kind: EventDisk, Disk: d, Text: why})
	for _, v := range n.vols {
		if v.owner != nil && v.mv.Data.Member(d) != nil {
			v.owner.Connected(n.now, d, up)
		}
	}
	n.disks.odd = slices.DeleteFunc(n.disks.odd, func(o oddShards) bool { return o.disk == d })
	if !up {
		n.tellRemoteOwners(d)
		return
	}
	for _, v := range n.vols {
		n.sendShards(v, d)
	}
	for _, id := range vols {
		n.disks.odd = append(n.disks.odd, oddShards{d, id})
	}
	n.settleShards()
}

// tellRemoteOwners says of a local disk that it is gone: what they have asked of it is not answered any more, and their connection
// to this node goes on.
func (n *Node) tellRemoteOwners(d raid.DiskID) {
	n.disks.streams = slices.DeleteFunc(n.disks.streams, func(s remoteStream) bool {
		if s.disk != d {
			return false
		}
		n.routeReply(&raid.DiskReply{Kind: raid.RepNack, Nack: raid.NackGone, Vol: s.vol, Disk: d, Epoch: s.epoch, Stream: s.stream, To: s.owner,
			Err: "the disk is not open on this node any more"})
		return true
	})
}

// settleShards deletes what local disks hold of volumes that the applied state knows to be gone. What it does not know yet is
// looked at again when it has moved on (A.3 Shards).
func (n *Node) settleShards() {
	s := n.group.State()
	n.disks.odd = slices.DeleteFunc(n.disks.odd, func(o oddShards) bool {
		mv := s.Volume(o.vol)
		if mv == nil && o.vol < s.NextVolume {
			n.dropShards(o.disk, o.vol)
			return true
		}
		return mv != nil && mv.Data.Member(o.disk) != nil
	})
}

// dropShards has a local disk forget a volume that is deleted.
func (n *Node) dropShards(d raid.DiskID, id raid.VolumeID) {
	n.ready.Disk = append(n.ready.Disk, &raid.DiskRequest{Kind: raid.ReqShards, Vol: id, Disk: d, ID: n.newID(), From: n.opt.ID})
}

// sendShards tells a local disk which shards of a volume it has, from applied state (A.3 Shards).
func (n *Node) sendShards(v *volume, d raid.DiskID) {
	m := v.mv.Data.Member(d)
	if m == nil || !n.disks.open.Has(d) {
		return
	}
	n.ready.Disk = append(n.ready.Disk, &raid.DiskRequest{Kind: raid.ReqShards, Vol: v.id, Disk: d, ID: n.newID(), From: n.opt.ID,
		Epoch: v.mv.Data.Epoch, Since: m.Since, Shards: v.mv.Data.ShardsOn(d)})
}

// routeRequest sends an owner's request where the disk is.
func (n *Node) routeRequest(r *raid.DiskRequest) {
	row := n.group.State().Disk(r.Disk)
	switch {
	case row == nil:
	case row.Node == n.opt.ID:
		n.localRequest(n.opt.ID, r)
	default:
		n.send(row.Node, &PeerMessage{Request: r})
	}
}

// localRequest hands a request to a local disk, or says that it is gone.
func (n *Node) localRequest(from raid.NodeID, r *raid.DiskRequest) {
	r.From = from
	if r.Kind == raid.ReqPrepare && r.Rec != nil {
		if from == n.opt.ID || n.peers.prompt(from, n.now) {
			n.noteReceipt(r)
		}
	}
	if n.disks.open.Has(r.Disk) {
		if r.Kind == raid.ReqStart && from != n.opt.ID {
			n.disks.opened(r)
		}
		n.ready.Disk = append(n.ready.Disk, r)
		return
	}
	gone := &raid.DiskReply{Kind: raid.RepNack, Nack: raid.NackGone, Vol: r.Vol, Disk: r.Disk, Epoch: r.Epoch, Stream: r.Stream,
		ID: r.ID, To: from, Err: "the disk is not open on this node"}
	if from == n.opt.ID { // the owner that asks is being asked for its effects just now
		n.disks.gone = append(n.disks.gone, gone)
		return
	}
	n.routeReply(gone)
}

// deliverGone gives the owners here the answers that stand for missing local disks.
func (n *Node) deliverGone() {
	for _, r := range n.disks.gone {
		n.routeReply(r)
	}
	clear(n.disks.gone)
	n.disks.gone = n.disks.gone[:0]
}

func (n *Node) noteReceipt(r *raid.DiskRequest) {
	rec := receipt{r.Vol, r.Rec.Epoch, r.Rec.Seq, r.Rec.BID, n.now}
	if len(n.tokens.receipts) < receiptsMax {
		n.tokens.receipts = append(n.tokens.receipts, rec)
		return
	}
	n.tokens.receipts[n.tokens.receiptAt] = rec
	n.tokens.receiptAt = (n.tokens.receiptAt + 1) % receiptsMax
}

func (n *Node) received(vol raid.VolumeID, id raid.RecordID) (int64, bool) {
	for i := range n.tokens.receipts {
		if r := &n.tokens.receipts[i]; r.vol == vol && r.epoch == id.Epoch && r.seq == id.Seq && r.bid == id.BID {
			return r.atNs, true
		}
	}
	return 0, false
}

// DiskReplies takes the answers of local disks.
func (n *Node) DiskReplies(nowNs int64, replies []raid.DiskReply) {
	n.tick(nowNs)
	for i := range replies {
		r := &replies[i]
		if r.Kind == raid.RepShards {
			continue
		}
		if r.To != n.opt.ID { // it waits to be sent; an owner here keeps nothing but what it points to
			c := *r
			r = &c
		}
		n.routeReply(r)
	}
}

// routeReply brings a disk's answer to the owner that asked.
func (n *Node) routeReply(r *raid.DiskReply) {
	if r.To != n.opt.ID {
		n.send(r.To, &PeerMessage{Reply: r})
		return
	}
	if v := n.volume(r.Vol); v != nil && v.owner != nil {
		v.owner.Reply(n.now, r)
	}
}

// send queues a message for a connected peer; without a connection it is lost, as its FIFO is.
func (n *Node) send(to raid.NodeID, m *PeerMessage) {
	if n.peers.up(to) {
		n.ready.Peers = append(n.ready.Peers, PeerOut{To: to, Msg: m})
	}
}

// sendControl is send for all that is neither a disk's request nor its answer: without a connection it goes over a peer that says
// it has one, which passes it on (B: L2).
func (n *Node) sendControl(to raid.NodeID, m *PeerMessage) {
	if n.peers.up(to) {
		n.send(to, m)
		return
	}
	if row := n.group.State().Node(to); row == nil || !row.Held && m.Heartbeat != nil {
		return // nobody there to give a lease
	}
	if via := n.viaPeer(to); via != 0 && !mutated("L2") {
		c := *m
		c.Relay = &Relay{From: n.opt.ID, To: to}
		n.send(via, &c)
	}
}

// viaPeer returns the lowest connected peer that has a connection to a node, else the lowest of all, 0 for none.
func (n *Node) viaPeer(to raid.NodeID) raid.NodeID {
	for _, via := range n.peers.conn {
		if h := n.leader.known(via); h != nil && h.hb != nil && slices.Contains(h.hb.Peers, to) {
			return via
		}
	}
	if len(n.peers.conn) > 0 {
		return n.peers.conn[0]
	}
	return 0
}

// Peer takes a message from a connected peer.
func (n *Node) Peer(nowNs int64, from raid.NodeID, m *PeerMessage) {
	n.tick(nowNs)
	if m.Relay != nil {
		if m.Request != nil || m.Reply != nil { // a disk's stream is one connection
			n.bad("node %d relays a disk's message", from)
			return
		}
		if m.Relay.To != n.opt.ID {
			if m.Relay.From == from && n.peers.up(m.Relay.To) {
				n.send(m.Relay.To, m)
			}
			return
		}
		from = m.Relay.From
	}
	if n.group.State().Node(from) == nil && n.group.State().Initialised() && m.Raft == nil && m.Dead == nil && m.Admin == nil {
		n.bad("message from node %d, which is no member", from)
		return
	}
	n.dispatch(from, m)
}

func (n *Node) dispatch(from raid.NodeID, m *PeerMessage) {
	switch {
	case m.Raft != nil:
		if err := n.group.Step(from, m.Raft); err != nil {
			n.bad("%v", err)
		}
		n.takeGroup()
	case m.Request != nil:
		n.localRequest(from, m.Request)
	case m.Reply != nil:
		n.replyFrom(from, m.Reply)
	case m.Heartbeat != nil:
		n.peers.beat(from, n.now)
		n.heartbeatFrom(from, m.Heartbeat)
	case m.HeartbeatAck != nil:
		if n.inc.holder != nil && m.HeartbeatAck.From == from {
			n.inc.holder.Ack(n.now, *m.HeartbeatAck)
		}
	case m.Revoke != nil:
		n.revokeFrom(from, *m.Revoke)
	case m.RevokeReply != nil:
		if m.RevokeReply.From == from {
			n.leader.revoke.Reply(n.now, *m.RevokeReply)
			n.proposeRevokes()
		}
	case m.Dead != nil:
		if m.Dead.Node != from && !mutated("C30_HEARSAY") { // only a node's own guardian has seen its process end (A.2)
			n.bad("node %d speaks of the death of node %d", from, m.Dead.Node)
			return
		}
		n.deadFrom(*m.Dead)
	case m.Admin != nil:
		r := *m.Admin
		r.From = from
		n.adminFrom(r)
	case m.AdminReply != nil:
		n.adminReplyFrom(*m.AdminReply)
	case m.ReleaseVolume != nil:
		n.releaseFor(*m.ReleaseVolume)
	}
}

// replyFrom takes a disk's answer from the node that has the disk, and from no other.
func (n *Node) replyFrom(from raid.NodeID, r *raid.DiskReply) {
	if row := n.group.State().Disk(r.Disk); row == nil || row.Node != from {
		n.bad("answer of disk %d from node %d, which does not have it", r.Disk, from)
		return
	}
	if v := n.volume(r.Vol); v != nil && v.owner != nil {
		v.owner.Reply(n.now, r)
	}
}
