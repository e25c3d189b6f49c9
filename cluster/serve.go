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
	rxNs   int64
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
	t.rxNs, t.header = f.RxNs, aoe.ATAHeader(f.Data)
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
	case raid.DoneWrite:
		if mutated("L11") && n.now-t.rxNs > IntakeAgeNs {
			return
		}
	case raid.DoneUnreadable:
		status, errReg = aoe.StatusError, aoe.ErrRegUNC
	case raid.DoneRead:
		if t.kind == aoe.ActionRead {
			payload = n.payload(c.Data)
		}
	}
	h := aoe.AppendATAReply(n.header(aoe.FrameBytesMin), &t.header, self, &v.target.Identity, status, errReg, payload != nil)
	n.tx.answers = append(n.tx.answers, answer{v: v, latency: n.latencies.of(t.kind), rxNs: t.rxNs, frame: TxFrame{Path: int(t.path), Header: h, Payload: payload}})
}

// answerForward answers a write of the former epoch that this owner kept, if this node received its Prepare itself and lately:
// the initiator need not wait for its time-out (A.4.12).
func (n *Node) answerForward(v *volume, f raid.RolledForward) {
	at, ok := n.received(v.id, f.ID)
	if !ok || int64(f.Req.AgeUs)*1000+n.now-at > IntakeAgeNs && !mutated("C31_LATE") || int(f.Req.Path) >= len(v.macs) {
		return
	}
	n.stats.RolledForward++
	h := aoe.AppendATAReply(nil, &f.Req.Header, v.macs[f.Req.Path], &v.target.Identity, aoe.StatusReady, 0, false)
	n.tx.answers = append(n.tx.answers, answer{v: v, frame: TxFrame{Path: int(f.Req.Path), Header: h}})
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
