package raid

import "fmt"

// dropReason says why a disk of W has to leave.
type dropReason uint8

const (
	dropNone dropReason = iota
	dropDisconnected
	dropSlow
	dropGap
	dropGone
	dropDamaged
)

const (
	backoffSlowMaxNs  = 300 * second
	backoffOtherMaxNs = 5 * second
	steadyNs          = 60 * second // in-sync this long, a disk's past is forgiven
)

// giveUp begins to drop a disk. Until Raft has marked it stale every commit goes on waiting for it (A.4.4, B: C8).
func (o *Owner) giveUp(x *disk, why dropReason, text string) {
	switch {
	case x.inW:
		if x.drop == dropNone || why == dropDamaged {
			x.drop, x.dropText = why, text
			o.readsLost(x)
		}
		if mutated("ACK_EARLY") {
			x.inW = false
		}
	case x.inJ || o.joinOf(x) != nil:
		o.abortJoin(x, text)
	}
}

// watchMembers finds the disks that hold up the volume and asks Raft to mark them stale, one at a time.
func (o *Owner) watchMembers() {
	var slowest *disk
	for _, x := range o.disks {
		if !x.inW && !x.inJ {
			continue
		}
		overdue := o.overdueNs(x)
		switch {
		case !x.inW:
			if overdue > o.cfg.AckTimeoutNs/2 {
				o.abortJoin(x, "it falls behind")
			}
		case x.drop == dropSlow && overdue == 0, x.drop == dropDisconnected && x.up && x.started && overdue < o.cfg.DisconnectNs:
			x.drop = dropNone
		case x.drop != dropNone:
		case !x.up && (x.nodeDead || o.now-x.downNs >= o.cfg.DisconnectNs):
			o.giveUp(x, dropDisconnected, "its node cannot be reached")
		case x.up && x.nodeDead && overdue >= o.cfg.DisconnectNs:
			o.giveUp(x, dropDisconnected, "its node has lost its lease and does not answer")
		case overdue > o.cfg.AckTimeoutNs && (slowest == nil || overdue > o.overdueNs(slowest)):
			slowest = x
		}
	}
	if slowest != nil { // never two at once: who is slow may be us (B: L5)
		o.giveUp(slowest, dropSlow, fmt.Sprintf("it owes an acknowledgement for %d ms", o.overdueNs(slowest)/ms))
	}
	o.proposeDrop()
}

// overdueNs returns for how long a connected disk has owed an answer.
func (o *Owner) overdueNs(x *disk) int64 {
	switch {
	case !x.up:
		return 0
	case !x.started:
		return o.now - x.downNs // since it came up
	case len(x.sent) > 0:
		return o.now - x.sent[0].sentNs
	}
	return 0
}

// proposeDrop asks Raft for the first disk that has to go, and suspends the volume while one must not: it would leave an
// extent with fewer than k (B: C17).
func (o *Owner) proposeDrop() {
	why := ""
	for _, x := range o.disks {
		if !x.inW || x.drop == dropNone {
			continue
		}
		if in := o.v.InSync(); in.Has(x.id) && !o.v.EveryExtentKeeps(in.Without(x.id)) {
			if why == "" {
				why = fmt.Sprintf("needs disk %d: %s, and too few in-sync disks are left without it", x.id, x.dropText)
			}
			o.tryAgain(x)
			continue
		}
		if !o.mayPropose() {
			continue
		}
		s := o.commit
		if mutated("S_ACKED") {
			s = x.acked
		}
		kind := CmdStale
		if x.drop == dropDamaged {
			kind = CmdDamaged
		}
		o.propose(VolumeCommand{Kind: kind, Disk: x.id, S: s})
	}
	o.suspend(why)
}

// tryAgain opens a new stream to a disk that has refused something and may not leave: its Started takes the reason back.
func (o *Owner) tryAgain(x *disk) {
	if x.started && (x.drop == dropGap || x.drop == dropGone) && o.now-x.askedNs >= second {
		o.streamBroken(x)
		o.openStream(x)
	}
}

// suspend stops admission while why is not empty, and resumes.
func (o *Owner) suspend(why string) {
	switch {
	case why != "" && o.suspendedNs == 0:
		o.suspendedNs = max(o.now, 1)
		o.suspendedFor = why
		o.dropQueuedWrites()
		o.event(OwnerEvent{Kind: EventSuspended, Text: why})
	case why == "" && o.suspendedNs != 0:
		if o.now-o.suspendedNs > second {
			o.muteInFlight()
		}
		o.suspendedNs, o.suspendedFor = 0, ""
		o.queue.dirty = true
		o.event(OwnerEvent{Kind: EventResumed})
	case why != "":
		if o.now-o.suspendedNs > second { // what commits meanwhile, because not all of it needs that disk
			o.muteInFlight()
		}
		o.suspendedFor = why
	}
}

// membersChanged follows the in-sync set after an applied command: only now does a disk leave W or J.
func (o *Owner) membersChanged(old *Volume) {
	for _, x := range o.disks {
		m, was := o.v.Member(x.id), old.Member(x.id)
		if m == nil || was == nil {
			continue
		}
		switch {
		case x.inW && !m.InSync && (was.InSync || x.drop != dropNone && o.v.Ver > x.inSyncVer):
			// A later version voids an InSync that may still be under way (B: C8).
			o.leave(x)
		case x.inJ && m.InSync:
			x.inJ, x.inSyncNs = false, o.now
			o.endJoin(x)
			o.event(OwnerEvent{Kind: EventInSync, Disk: x.id})
		case !x.inW && m.InSync:
			panic(fmt.Sprintf("raid: volume %d: disk %d is in-sync and not in W (I1)", o.v.ID, x.id))
		}
	}
	o.queue.dirty = true
}

// leave takes a disk out of W and J: batches formed with it keep their seq and parts, nothing waits for it any more.
func (o *Owner) leave(x *disk) {
	limit := backoffOtherMaxNs
	if x.drop == dropSlow {
		limit = backoffSlowMaxNs
	}
	o.event(OwnerEvent{Kind: EventDropped, Disk: x.id, Text: x.dropText})
	x.inW = false
	o.backOff(x, limit)
	o.closeJoin(x)
}

// backOff sets when a disk may try again: later each time, so that a flapping disk does not cost redundancy over and over
// (B: L5).
func (o *Owner) backOff(x *disk, limit int64) {
	if x.backoffNs == 0 || x.inSyncNs != 0 && o.now-x.inSyncNs > steadyNs {
		x.backoffNs = o.cfg.RejoinBaseNs
	} else {
		x.backoffNs = min(2*x.backoffNs, limit)
	}
	x.inSyncNs = 0
	x.rejoinNs = o.now + x.backoffNs
}

// closeJoin forgets all that was under way with a disk outside W and gives it a fresh stream.
func (o *Owner) closeJoin(x *disk) {
	x.inJ, x.drop, x.dropText = false, dropNone, ""
	x.sent, x.credit, x.used, x.acked, x.touch, x.chained = nil, nil, 0, 0, 0, false
	o.endJoin(x)
	o.queue.dirty = true
	o.readsLost(x)
	o.copiesLost(x)
	if x.up {
		o.openStream(x)
	}
}
