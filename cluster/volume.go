package cluster

import (
	"slices"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

// volume is what a node has of one volume: its target for everybody's questions, and its owner when it is this node's.
type volume struct {
	id     raid.VolumeID
	mv     *membership.Volume // applied
	fresh  bool               // not yet looked at
	target aoe.Target
	macs   []aoe.MAC // by path

	owner     *raid.Owner // nil: not ours
	cfgEpoch  raid.Epoch
	freeNs    int64 // when this node applied the end of freeEpoch's owner; 0: the volume has a living owner
	freeEpoch raid.Epoch

	joined       bool
	announced    int // announcements made since the volume is served
	activeNs     int64
	nextAnnounce int64
	repeatedNs   int64 // last announcement because somebody else was seen to send from our MAC

	opened   bool         // the owner has admitted: frames go straight to it
	early    []earlyFrame // received before that (A.4.12)
	queued   map[aoe.MAC]int
	controls []*pendingControl
	fence    raid.Epoch // highest fence that refused us (B: L7)
	calmNs   int64      // since when initiators have spoken without a gap
	spokeNs  int64
}

func (n *Node) newVolume(mv *membership.Volume) *volume {
	v := &volume{id: mv.Data.ID, mv: mv, fresh: true, queued: map[aoe.MAC]int{}}
	s := n.group.State()
	v.target.Identity = aoe.Identity{Shelf: s.Shelf, Slot: mv.Slot, Sectors: mv.Data.Size / raid.SectorBytes, Serial: mv.Identity.Serial,
		Model: mv.Identity.Model, Firmware: mv.Identity.Firmware, BufCount: mv.Identity.BufCount, FirmwareWord: mv.Identity.FirmwareWord,
		SectorCount: s.SectorCount}
	for p := range n.opt.Paths {
		v.macs = append(v.macs, aoe.ServingMAC([16]byte(s.Cluster), s.Shelf, mv.Slot, uint8(p)))
	}
	return v
}

func (n *Node) volume(id raid.VolumeID) *volume {
	i, ok := slices.BinarySearchFunc(n.vols, id, func(v *volume, id raid.VolumeID) int {
		switch {
		case v.id < id:
			return -1
		case v.id > id:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return n.vols[i]
}

// volumeChanged follows a volume's replicated state.
func (n *Node) volumeChanged(v *volume, mv *membership.Volume) {
	first := v.fresh
	v.mv, v.fresh = mv, false
	v.target.Control = controlOf(mv)
	if first {
		for _, d := range n.disks.open {
			n.sendShards(v, d)
		}
	}
	if v.owner != nil {
		v.owner.SetVolume(n.now, mv.Data)
		if mv.Handoff != 0 && mv.Handoff != n.opt.ID {
			v.owner.Release(n.now)
		}
	}
}

// checkOwners makes and ends owners as the applied state says, and notes when a volume became free.
func (n *Node) checkOwners() {
	s := n.group.State()
	for _, v := range n.vols {
		d := v.mv.Data
		if s.OwnerLives(d) {
			if d.Owner != n.opt.ID && v.owner == nil {
				v.freeNs = 0
			}
		} else if v.freeNs == 0 || v.freeEpoch != d.Epoch {
			v.freeNs, v.freeEpoch = max(n.now, 1), d.Epoch
		}
		mine := d.Owner == n.opt.ID && n.inc.term != 0 && d.OwnerTerm == n.inc.term && d.Released < d.Epoch && n.inc.holder != nil
		switch {
		case v.owner != nil && (!mine || v.cfgEpoch != d.Epoch):
			n.dropOwner(v)
		}
		if mine && v.owner == nil {
			n.takeOver(v)
		}
	}
}

// takeOver begins to own a volume. The MACs are joined at once, to hear what initiators send meanwhile; nothing is executed
// before Activate (B: L3).
func (n *Node) takeOver(v *volume) {
	d := v.mv.Data
	cfg := n.opt.Owner
	cfg.Node, cfg.Local, cfg.Strict = n.opt.ID, n.disks.open, v.mv.Strict
	cfg.Pace = &n.pace
	cfg.Seed = n.opt.Seed ^ n.newID()*0x9E3779B97F4A7C15
	if v.freeNs == 0 || v.freeEpoch+1 != d.Epoch {
		v.freeNs = max(n.now, 1) // we learn of the former owner's end only now, together with our takeover
	}
	v.owner, v.cfgEpoch = raid.NewOwner(cfg, d, n.now), d.Epoch
	n.shareCache()
	v.early, v.opened, v.announced, v.nextAnnounce, v.activeNs = nil, false, 0, 0, 0
	n.stats.Takeovers++
	n.event(Event{Kind: EventTakeover, Volume: v.id, Slot: v.mv.Slot, Epoch: d.Epoch})
	for _, x := range n.disks.open {
		v.owner.Connected(n.now, x, true)
	}
	s := n.group.State()
	for _, id := range n.peers.conn {
		for _, x := range s.DisksOf(id) {
			v.owner.Connected(n.now, x, true)
		}
	}
	v.owner.NodeAlive(n.now, n.alive())
	for i := range s.Nodes {
		if row := &s.Nodes[i]; !row.Held {
			v.owner.NodeDead(n.now, s.DisksOf(row.ID))
		}
	}
	n.joinMACs(v)
}

// shareCache gives each owned volume an equal part of the stripe cache.
func (n *Node) shareCache() {
	owned := 0
	for _, v := range n.vols {
		if v.owner != nil {
			owned++
		}
	}
	each := n.opt.CacheBytes / max(owned, 1)
	if most := n.opt.CacheVolumeBytes; most > 0 {
		each = min(each, most)
	}
	for _, v := range n.vols {
		if v.owner != nil {
			v.owner.SetCacheBytes(each)
		}
	}
}

// dropOwner ends an owner's life: another epoch, or our term is over.
func (n *Node) dropOwner(v *volume) {
	v.owner.SetVolume(n.now, v.mv.Data)
	v.owner.DropQueued(n.now)
	n.drainOwner(v)
	n.releaseTokens(v)
	v.owner, v.early, v.nextAnnounce = nil, nil, 0
	n.shareCache()
	v.controls = nil
	clear(v.queued)
	n.leaveMACs(v)
}

// drainOwner takes an owner's effects for the last time: only what ends requests counts.
func (n *Node) drainOwner(v *volume) {
	fx := v.owner.Take()
	for _, c := range fx.Done {
		n.finishIO(v, c)
	}
}

func (n *Node) volumeDeleted(v *volume) {
	n.disks.streams = slices.DeleteFunc(n.disks.streams, func(s remoteStream) bool { return s.vol == v.id })
	if v.owner != nil {
		n.releaseTokens(v)
		v.owner = nil
		n.shareCache()
	}
	n.leaveMACs(v)
	for _, d := range n.disks.open {
		if v.mv.Data.Member(d) != nil {
			n.dropShards(d, v.id)
		}
	}
}

// serving is the serving rule (A.2) but for the lease: the epoch is ours and active, and not released by us.
func (v *volume) serving() bool {
	return v.owner != nil && v.owner.State() == raid.OwnerActive && v.mv.Data.Active && v.mv.Data.Epoch == v.cfgEpoch &&
		v.mv.Data.Released < v.cfgEpoch
}

// runOwners executes what the owners want.
func (n *Node) runOwners() {
	for _, v := range n.vols {
		if v.owner == nil {
			continue
		}
		v.owner.Tick(n.now)
		n.runOwner(v)
		if v.activeNs != 0 && !v.opened && v.serving() && n.leaseValid() {
			if n.openIntake(v); v.opened {
				n.runOwner(v) // what has waited is sent to the disks now, not at the next tick
			}
		}
	}
	n.deliverGone()
	n.takeGroup()
}

// runOwner executes what one owner wants.
func (n *Node) runOwner(v *volume) {
	fx := v.owner.Take()
	for _, r := range fx.Requests {
		n.routeRequest(r)
	}
	for _, c := range fx.Proposals {
		_, _ = n.propose(&membership.VolumeCommand{VolumeCommand: c}) // lost: the owner proposes again
	}
	for _, e := range fx.Events {
		n.ownerEvent(v, e)
	}
	for _, c := range fx.Done {
		n.finishIO(v, c)
	}
	for _, f := range fx.Forward {
		n.answerForward(v, f)
	}
}

func (n *Node) ownerEvent(v *volume, e raid.OwnerEvent) {
	switch e.Kind {
	case raid.EventActive:
		v.activeNs = n.now
		v.startAnnouncing(n.now)
	case raid.EventFenced:
		v.fence = max(v.fence, e.Fence)
	}
	n.event(Event{Kind: EventVolume, Volume: v.id, Slot: v.mv.Slot, Epoch: v.cfgEpoch, Disk: e.Disk, Text: ownerEventText(e)})
}

// volumeApplied lets an owner that released, or lost its volume, be followed at once.
func (n *Node) volumeApplied(r *membership.Result) {
	if r.OK() && n.leader.planner != nil {
		if mv := n.group.State().Volume(r.Volume); mv != nil && !n.group.State().OwnerLives(mv.Data) {
			n.deletionStep(mv)
			n.plan()
		}
	}
}

// joinMACs makes every path receive the volume's serving MACs.
func (n *Node) joinMACs(v *volume) {
	if v.joined || !n.leaseValid() && v.activeNs != 0 {
		return
	}
	v.joined = true
	for p, m := range v.macs {
		n.ready.Link = append(n.ready.Link, LinkChange{Path: p, MAC: m, Join: true})
	}
}

func (n *Node) leaveMACs(v *volume) {
	if !v.joined {
		return
	}
	v.joined = false
	for p, m := range v.macs {
		n.ready.Link = append(n.ready.Link, LinkChange{Path: p, MAC: m})
	}
}

// announceAfter is when announcements go out after the volume is served; then every announceEveryNs (B: L3).
var announceAfter = [...]int64{0, 50 * ms, 200 * ms, second}

const announceEveryNs = 5 * second

func (v *volume) startAnnouncing(nowNs int64) {
	if v.activeNs == 0 {
		return
	}
	v.activeNs, v.announced, v.nextAnnounce = nowNs, 0, nowNs
}

// announce sends the broadcasts by which switches learn where the serving MACs are now. The serving rule holds for them too.
func (n *Node) announce() {
	for _, v := range n.vols {
		if v.owner == nil || v.nextAnnounce == 0 || n.now < v.nextAnnounce || !v.serving() {
			continue
		}
		n.stageBeacons(v)
		v.announced++
		if v.announced < len(announceAfter) {
			v.nextAnnounce = v.activeNs + announceAfter[v.announced]
		} else {
			v.nextAnnounce = n.now + announceEveryNs
		}
	}
}

func (n *Node) stageBeacons(v *volume) {
	to := []aoe.MAC{aoe.Broadcast}
	if len(v.target.Control.Mask) > 0 { // the others shall not even see it
		to = v.target.Control.Mask
	}
	for p, self := range v.macs {
		for _, dst := range to {
			f := aoe.AppendBeacon(nil, self, dst, &v.target.Identity, &v.target.Control)
			n.tx.answers = append(n.tx.answers, answer{v: v, frame: TxFrame{Path: p, Header: f}})
		}
	}
}

// volumeReports is what everybody may know of the volumes owned here.
func (n *Node) volumeReports() []VolumeReport {
	var out []VolumeReport
	for _, v := range n.vols {
		if v.owner != nil || v.fence != 0 {
			out = append(out, n.volumeReport(v))
		}
	}
	return out
}

func (n *Node) volumeReport(v *volume) VolumeReport {
	r := VolumeReport{Vol: v.id, Epoch: v.cfgEpoch, FenceSeen: v.fence}
	if v.owner != nil {
		s := v.owner.Status()
		r.State, r.Suspended, r.Resync, r.Commit = s.State, s.Suspended, s.Resync, s.Commit
		if v.spokeNs != 0 && n.now-v.spokeNs < 3*second {
			r.CalmNs = n.now - v.calmNs
		}
	}
	return r
}
