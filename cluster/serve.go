package cluster

import (
	"fmt"

	"clade/aoe"
	"clade/raid"
)

// token is one initiator request that an owner works on.
type token struct {
	v      *volume // nil: free
	epoch  raid.Epoch
	kind   aoe.ActionKind
	path   uint8
	header aoe.ATAHeader
	ctl    *pendingControl // ActionControl
	next   int             // free list
}

// tokenTable holds the requests under way. It grows to the high-water mark and is used again.
type tokenTable struct {
	rows      []token
	free      int // index+1 of the first free row, 0: none
	receipts  []receipt
	receiptAt int
}

func (t *tokenTable) take() int {
	if t.free == 0 {
		t.rows = append(t.rows, token{})
		return len(t.rows) - 1
	}
	i := t.free - 1
	t.free = t.rows[i].next
	return i
}

func (t *tokenTable) give(i int) {
	t.rows[i] = token{next: t.free}
	t.free = i + 1
}

// releaseTokens forgets what an owner that is gone still held.
func (n *Node) releaseTokens(v *volume) {
	for i := range n.tokens.rows {
		if n.tokens.rows[i].v == v {
			n.tokens.give(i)
		}
	}
}

// earlyFrame waits for Activate.
type earlyFrame struct {
	path uint8
	rxNs int64
	data []byte
}

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
	case f.RxNs < v.freeNs:
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
		n.tx.answers = append(n.tx.answers, answer{v, TxFrame{Path: f.Path, Header: act.Reply}})
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
	if len(v.early) >= earlyMax || r.Dst != v.macs[f.Path] && r.Dst != aoe.Broadcast {
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

// submit gives a read, write, verify or flush to the owner.
func (n *Node) submit(v *volume, r *aoe.Request, f *SANFrame, act *aoe.Action) {
	open := v.owner.Admitting()
	if act.Kind == aoe.ActionRead || act.Kind == aoe.ActionVerify {
		open = v.owner.AdmittingReads()
	}
	if !open {
		n.stats.DropClosed++
		return
	}
	if v.queued[r.Src] >= int(v.target.Identity.BufCount) {
		n.stats.DropInitiator++
		return
	}
	v.queued[r.Src]++
	i := n.tokens.take()
	t := &n.tokens.rows[i]
	t.v, t.epoch, t.kind, t.path = v, v.cfgEpoch, act.Kind, uint8(f.Path)
	t.header = aoe.ATAHeader(f.Data)
	io := raid.IO{Token: uint64(i), Offset: act.LBA * raid.SectorBytes, Bytes: act.Sectors * raid.SectorBytes}
	switch act.Kind {
	case aoe.ActionFlush:
		n.stats.Flushes++
		v.owner.Barrier(n.now, uint64(i))
	case aoe.ActionWrite:
		n.stats.Writes++
		n.stats.WriteBytes += uint64(io.Bytes)
		io.Data = act.Data
		io.Req = raid.ReqHeader{Path: t.path, AgeUs: uint32((n.now - f.RxNs) / 1000), Header: t.header}
		v.owner.Write(n.now, &io)
	default:
		n.stats.Reads++
		n.stats.ReadBytes += uint64(io.Bytes)
		v.owner.Read(n.now, &io)
	}
}

// finishIO turns an owner's completion into an answer, or into silence.
func (n *Node) finishIO(v *volume, c raid.Completion) {
	i := int(c.Token)
	if i >= len(n.tokens.rows) || n.tokens.rows[i].v != v {
		panic(fmt.Sprintf("cluster: volume %d ended token %d, which it does not have", v.id, i))
	}
	t := n.tokens.rows[i]
	n.tokens.give(i)
	if t.ctl != nil {
		n.controlSettled(v, t.ctl, c.Kind == raid.DoneBarrier)
		return
	}
	src := aoe.MAC(t.header[6:12])
	if v.queued[src]--; v.queued[src] <= 0 {
		delete(v.queued, src)
	}
	self := v.macs[t.path]
	status, errReg := uint8(aoe.StatusReady), uint8(0)
	var payload [][]byte
	switch c.Kind {
	case raid.DoneDropped, raid.DoneMuted:
		return
	case raid.DoneUnreadable:
		status, errReg = aoe.StatusError, aoe.ErrRegUNC
	case raid.DoneRead:
		if t.kind == aoe.ActionRead {
			payload = c.Data
		}
	}
	h := aoe.AppendATAReply(n.header(aoe.FrameBytesMin), &t.header, self, &v.target.Identity, status, errReg, payload != nil)
	n.tx.answers = append(n.tx.answers, answer{v, TxFrame{Path: int(t.path), Header: h, Payload: payload}})
}

// answerForward answers a write of the former epoch that this owner kept, if this node received its Prepare itself and lately:
// the initiator need not wait for its time-out (A.4.12).
func (n *Node) answerForward(v *volume, f raid.RolledForward) {
	at, ok := n.received(v.id, f.ID)
	if !ok || int64(f.Req.AgeUs)*1000+n.now-at > IntakeAgeNs || int(f.Req.Path) >= len(v.macs) {
		return
	}
	n.stats.RolledForward++
	h := aoe.AppendATAReply(nil, &f.Req.Header, v.macs[f.Req.Path], &v.target.Identity, aoe.StatusReady, 0, false)
	n.tx.answers = append(n.tx.answers, answer{v, TxFrame{Path: int(f.Req.Path), Header: h}})
}

// ownerEventText is what an operator reads of an owner's event.
func ownerEventText(e raid.OwnerEvent) string {
	switch e.Kind {
	case raid.EventActive:
		return fmt.Sprintf("active on disks %v", e.Disks)
	case raid.EventDead:
		return "no longer served here: " + e.Text
	case raid.EventDropped:
		return fmt.Sprintf("disk %d is out: %s", e.Disk, e.Text)
	case raid.EventRejoin:
		return fmt.Sprintf("disk %d is back, resync begins", e.Disk)
	case raid.EventInSync:
		return fmt.Sprintf("disk %d is in-sync", e.Disk)
	case raid.EventSuspended:
		return "suspended: " + e.Text
	case raid.EventResumed:
		return "resumed"
	case raid.EventRepaired:
		return fmt.Sprintf("disk %d: rebuilt %s", e.Disk, e.Text)
	case raid.EventUnreadable:
		return "unreadable: " + e.Text
	case raid.EventReleased:
		return "released"
	case raid.EventFenced:
		return fmt.Sprintf("disk %d is fenced for epoch %d", e.Disk, e.Fence)
	}
	return e.Text
}
