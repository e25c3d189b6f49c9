package cluster

import (
	"clade/aoe"
	"clade/raid"
)

// earlyFrame waits for Activate.
type earlyFrame struct {
	path uint8
	rxNs int64
	data []byte
}

// earlyMax bounds what is kept of one volume, bufcnt what is kept of one initiator.
const earlyMax = 256

// Frames takes what the SAN paths have received, merged by kernel receive time. Frames older than 100 ms have waited through
// a pause: the initiator has sent them again, and a late answer would ruin its estimate (A.4.1).
func (n *Node) Frames(nowNs int64, frames []SANFrame) {
	n.tick(nowNs)
	for i := range frames {
		f := &frames[i]
		n.stats.FramesIn++
		switch {
		case f.Path < 0 || f.Path >= len(n.san.paths):
			n.stats.DropOther++
		case len(f.Data) >= aoe.EthernetBytes && f.Data[12] == aoe.BeaconEtherType>>8 && f.Data[13] == aoe.BeaconEtherType&0xff && n.beaconFrame(f):
		case n.now-f.RxNs > IntakeAgeNs || f.RxNs < n.san.notBefore:
			n.stats.DropOld++
		default:
			n.frame(f)
		}
	}
}

func (n *Node) frame(f *SANFrame) {
	var r aoe.Request
	if err := aoe.ParseRequest(f.Data, &r); err != nil {
		n.ownMACSeen(f)
		n.stats.DropOther++
		return
	}
	n.san.paths[f.Path].initiatorNs = n.now
	if r.Slot != aoe.SlotWildcard {
		n.frameFor(n.slots[r.Slot], &r, f)
		return
	}
	for _, v := range n.vols {
		n.frameFor(v, &r, f)
	}
}

// frameFor gives a frame to a volume, if it is meant and owned here. v may be nil.
func (n *Node) frameFor(v *volume, r *aoe.Request, f *SANFrame) {
	if v == nil || v.owner == nil || !r.Matches(v.target.Identity.Shelf, v.target.Identity.Slot) {
		return
	}
	if v.spokeNs == 0 || n.now-v.spokeNs > second {
		v.calmNs = n.now
	}
	v.spokeNs = n.now
	n.handle(v, r, f)
}

// announceRepeatNs is how often at most an announcement answers the sight of our own MAC: a wire that reflects frames would
// turn each announcement into the next one.
const announceRepeatNs = 20 * ms

// ownMACSeen repeats the announcement at once when somebody else sends from a MAC that we serve: one late frame of a former
// owner has moved it in the switches (B: L3).
func (n *Node) ownMACSeen(f *SANFrame) {
	if len(f.Data) < aoe.EthernetBytes {
		return
	}
	src := aoe.MAC(f.Data[6:12])
	for _, v := range n.vols {
		if v.owner != nil && v.macs[f.Path] == src && v.serving() && n.now-v.repeatedNs >= announceRepeatNs {
			v.repeatedNs = n.now
			n.stageBeacons(v)
		}
	}
}

// handle gives a frame to a volume that is owned here. What was received before this node had applied the end of the former
// owner's term is nobody's any more: he may have executed it, and later ones after it (A.4.12, B: C31).
func (n *Node) handle(v *volume, r *aoe.Request, f *SANFrame) {
	switch {
	case f.RxNs < v.freeNs && !mutated("C31"):
		n.stats.DropOld++
		return
	case v.activeNs == 0:
		n.keepEarly(v, r, f)
		return
	case !v.serving() || !n.leaseValid():
		n.stats.DropClosed++
		return
	}
	n.openIntake(v)
	self := v.macs[f.Path]
	room := n.header(replyRoom(v))
	act := v.target.Handle(r, self, room)
	if act.Kind != aoe.ActionReply {
		n.giveBack(room)
	}
	switch act.Kind {
	case aoe.ActionReply:
		n.tx.answers = append(n.tx.answers, answer{v: v, frame: TxFrame{Path: f.Path, Header: act.Reply}})
	case aoe.ActionRead, aoe.ActionWrite, aoe.ActionVerify, aoe.ActionFlush, aoe.ActionControl:
		switch {
		case !v.opened:
			n.keepEarly(v, r, f)
		case act.Kind == aoe.ActionControl:
			n.control(v, r, f, act.Control)
		default:
			n.submit(v, r, f, &act)
		}
	default:
		n.stats.DropOther++
	}
}

// replyRoom is the longest answer that a target writes itself.
func replyRoom(v *volume) int {
	return aoe.ATAHeaderBytes + max(raid.SectorBytes, 32+len(v.target.Control.Config), 32+8*len(v.target.Control.Mask), 32+6*len(v.target.Control.Reserved))
}

// keepEarly keeps a frame until the volume opens. Its sender is told no more of it than by the answer: it need not wait for its
// time-out (A.4.12).
func (n *Node) keepEarly(v *volume, r *aoe.Request, f *SANFrame) {
	mine := 0
	for i := range v.early {
		if aoe.MAC(v.early[i].data[6:12]) == r.Src {
			mine++
		}
	}
	if len(v.early) >= earlyMax || mine >= int(v.target.Identity.BufCount) || r.Dst != v.macs[f.Path] && r.Dst != aoe.Broadcast {
		n.stats.DropClosed++
		return
	}
	v.early = append(v.early, earlyFrame{uint8(f.Path), f.RxNs, append([]byte(nil), f.Data...)})
}

// openIntake lets frames in as soon as the owner first admits, and before any newer one those that have been kept and are
// still young: their order is that of arrival.
func (n *Node) openIntake(v *volume) {
	if v.opened || !v.owner.Admitting() {
		return
	}
	v.opened = true
	early := v.early
	v.early = nil
	for _, e := range early {
		if n.now-e.rxNs > IntakeAgeNs {
			n.stats.DropOld++
			continue
		}
		var r aoe.Request
		if aoe.ParseRequest(e.data, &r) == nil {
			n.handle(v, &r, &SANFrame{Path: int(e.path), RxNs: e.rxNs, Data: e.data})
		}
	}
}
