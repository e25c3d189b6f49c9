package sim

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"clade/aoe"
)

// The history is taken at the boundary of the target, where the simulator sees everything: which copy of which frame reached
// which process when, and which answers the processes made, whether or not anybody received them.
//
// An answer promises that the command took effect between the delivery of the copy that it answers and the moment the answer
// was complete. A copy of a write that was delivered and not answered may have taken effect too, once (PROTOCOL part C), but
// not for ever: frames that touch a sector are executed in order of receipt, so it is over as soon as the same process has
// answered a later frame for that sector, or another owner has answered anything in a later epoch. A copy that reached a
// process which was neither the owner nor had applied the end of the former owner's term may not take effect at all (A.4.12).

// dataCopy is one delivered copy of a data command.
type dataCopy struct {
	n        uint64 // order of delivery
	at       int64
	proc     int    // the process's number, unique in a run
	epoch    uint64 // of the volume as that process knew it
	eligible bool
	initMAC  aoe.MAC
	tag      uint32
	command  byte
	lba      uint64
	sectors  int
	values   []uint64 // writes
	answered bool
	again    bool  // a write that another copy has had an answer for: this answer may be for that one's sake (A.4.12), the copy may never take effect
	closedNs int64 // forever, or when it could no longer take effect for a reason of its own
}

func (c *dataCopy) write() bool { return c.values != nil }

// sectorAnswer is one answered frame that touched a sector.
type sectorAnswer struct {
	proc int
	n    uint64 // of the copy
	at   int64  // of the answer
}

// place says who received or sent a frame: a process, by its number, and which volume and epoch it took the slot for.
type place struct {
	proc  int
	vol   uint64 // 0: none
	epoch uint64
}

// volumeHistory is everything that happened to one volume. A slot may have several, one after the other: a new volume is all zeros,
// and nothing that was meant for the former one may show in it.
type volumeHistory struct {
	slot    uint8
	vol     uint64
	ops     map[uint64][]linOp // per sector
	touched []uint64           // sectors in order of first use
	answers map[uint64][]sectorAnswer
	copies  []*dataCopy            // writes, in order of delivery
	byTag   map[tagKey][]*dataCopy // not answered
	said    map[tagKey]answered    // writes answered: the last of each tag
	epochs  []epochAnswer          // first answer of each epoch
	lastErr string
	control *controlHistory
}

// answered is the answer to a write, and the copy that it was taken for.
type answered struct {
	at   int64
	copy *dataCopy
}

// againNs is for how long a new owner may answer what a former one has answered.
const againNs = 10 * second

type tagKey struct {
	mac aoe.MAC
	tag uint32
}

type epochAnswer struct {
	epoch uint64
	proc  int
	at    int64
}

// history is that of all slots.
type history struct {
	slots    [][]*volumeHistory // by slot, in order of volume
	stood    bool               // whoever emits now may believe in a lease that it has lost: its clock stood still
	strict   bool               // reads are right whatever the clocks do, so an answer may come out late
	n        uint64
	answered uint64
	lastNs   int64             // of the newest answer
	identity map[string]string // what must not change, by slot and kind
	fail     func(format string, args ...any)
}

func newHistory(slots int, fail func(string, ...any)) *history {
	return &history{fail: fail, identity: map[string]string{}, slots: make([][]*volumeHistory, slots)}
}

// volume returns the history of a volume at a slot, a new one if need be.
func (h *history) volume(slot uint8, vol uint64) *volumeHistory {
	list := h.slots[slot]
	for _, v := range list {
		if v.vol == vol {
			return v
		}
	}
	v := &volumeHistory{
		slot: slot, vol: vol, ops: map[uint64][]linOp{}, answers: map[uint64][]sectorAnswer{},
		byTag: map[tagKey][]*dataCopy{}, said: map[tagKey]answered{}, control: newControlHistory(),
	}
	h.slots[slot] = append(list, v)
	slices.SortFunc(h.slots[slot], func(a, b *volumeHistory) int { return cmp.Compare(a.vol, b.vol) })
	return v
}

// The parts of a frame that the history looks at. It reads the bytes itself: it must not believe the code under test.
const (
	offFlags   = 14
	offError   = 15
	offShelf   = 16
	offSlot    = 18
	offCommand = 19
	offTag     = 20
	offATACmd  = 27
	offCount   = 26
	offLBA     = 28
	offATAData = 36

	flagResponse = 0x08
	flagError    = 0x04

	ataRead     = 0x24
	ataWrite    = 0x34
	ataRead28   = 0x20
	ataWrite28  = 0x30
	ataIdentify = 0xEC
	ataBad      = 0xA9 // BSY, DF, DRQ, ERR
)

func frameTag(b []byte) uint32 { return binary.BigEndian.Uint32(b[offTag:]) }

func frameLBA(b []byte) uint64 {
	var x uint64
	for i := 5; i >= 0; i-- {
		x = x<<8 | uint64(b[offLBA+i])
	}
	return x
}

// delivered records that a request has reached a process: its kernel has stamped it.
func (h *history) delivered(at int64, to place, eligible bool, b []byte) {
	if len(b) < 24 || frameType(b) != etherTypeAoE || b[offFlags]&flagResponse != 0 || int(b[offSlot]) >= len(h.slots) || to.vol == 0 {
		return
	}
	v := h.volume(b[offSlot], to.vol)
	h.n++
	if b[offCommand] != 0 {
		v.control.delivered(at, to.proc, b)
		return
	}
	if len(b) < offATAData {
		return
	}
	c := &dataCopy{n: h.n, at: at, proc: to.proc, epoch: to.epoch, eligible: eligible, initMAC: frameSrc(b), tag: frameTag(b),
		command: b[offATACmd], lba: frameLBA(b), sectors: int(b[offCount]), closedNs: forever}
	if c.command == ataWrite || c.command == ataWrite28 {
		for i := range c.sectors {
			p := b[offATAData+i*sectorBytes:]
			c.values = append(c.values, readSector(p[:sectorBytes], uint64(v.slot), c.lba+uint64(i)))
		}
		v.copies = append(v.copies, c)
	}
	k := tagKey{c.initMAC, c.tag}
	v.byTag[k] = append(v.byTag[k], c)
}

// emitted judges an answer that a process made. readyNs is when its content was complete.
func (h *history) emitted(readyNs int64, from place, b []byte) {
	if len(b) < 24 || frameType(b) != etherTypeAoE || int(b[offSlot]) >= len(h.slots) {
		h.fail("a process sent a frame for no slot of ours: % x", b[:min(len(b), 36)])
		return
	}
	v, proc := h.volume(b[offSlot], from.vol), from.proc
	h.answered++
	h.lastNs = readyNs
	v.sawEpoch(h, readyNs, proc, from.epoch)
	if b[offCommand] != 0 {
		v.control.emitted(h, v, readyNs, proc, b)
		return
	}
	c := v.match(h, proc, b)
	if c == nil {
		// A new owner answers a kept write that the former one had answered just before it died or released (A.4.12): no harm.
		if a, ok := v.said[tagKey{frameDst(b), frameTag(b)}]; ok && readyNs-a.at < againNs {
			return
		}
		h.fail("slot %d: an answer to nothing that was delivered: tag %08x", v.slot, frameTag(b))
		return
	}
	switch {
	case b[offFlags]&flagError != 0:
		v.control.refused(h, v, readyNs, c, b[offError])
	case b[offATACmd]&ataBad != 0:
		v.lastErr = fmt.Sprintf("ATA status %02x error %02x for command %02x lba %d", b[offATACmd], b[25], c.command, c.lba)
		h.fail("slot %d: %s", v.slot, v.lastErr)
	case c.command == ataIdentify:
		h.same(fmt.Sprintf("slot %d volume %d IDENTIFY", v.slot, v.vol), string(b[offATAData:]))
	default:
		v.record(h, readyNs, proc, c, b)
	}
}

// match finds the copy that an answer is for: the oldest unanswered one with its tag at this process, else at any (a
// rolled-forward write is answered by the new owner). Some initiators (iPXE) give all copies one tag: of these a refusal, which is
// made at admission, is for the newest, while an older one may still be on its way to the disks.
func (v *volumeHistory) match(h *history, proc int, b []byte) *dataCopy {
	k := tagKey{frameDst(b), frameTag(b)}
	list := v.byTag[k]
	found := -1
	refused := b[offFlags]&flagError != 0
	for i, c := range list {
		if c.proc == proc {
			found = i
			if !refused {
				break
			}
		}
	}
	if found < 0 {
		for i, c := range list {
			if c.write() {
				found = i
				break
			}
		}
	}
	if found < 0 {
		return nil
	}
	c := list[found]
	v.byTag[k] = append(list[:found:found], list[found+1:]...)
	c.answered = true
	if c.write() {
		a, ok := v.said[k]
		c.again = ok && h.lastNs-a.at < againNs && a.copy.lba == c.lba && slices.Equal(a.copy.values, c.values)
		v.said[k] = answered{h.lastNs, c}
	}
	return c
}

func (v *volumeHistory) sawEpoch(h *history, at int64, proc int, epoch uint64) {
	if h.strict {
		return
	}
	if list := h.slots[v.slot]; list[len(list)-1] != v && len(list[len(list)-1].epochs) > 0 {
		h.fail("slot %d: process %d answers for volume %d, which was deleted: volume %d has answered (B: C29)", v.slot, proc, v.vol, list[len(list)-1].vol)
	}
	if n := len(v.epochs); n > 0 {
		last := v.epochs[n-1]
		if last.epoch > epoch {
			h.fail("slot %d: answer in epoch %d after one in epoch %d (I8)", v.slot, epoch, last.epoch)
		}
		if last.epoch == epoch {
			if last.proc != proc {
				h.fail("slot %d: processes %d and %d both answer in epoch %d (I8)", v.slot, last.proc, proc, epoch)
			}
			return
		}
	}
	v.epochs = append(v.epochs, epochAnswer{epoch, proc, at})
}

// record turns an answered copy into operations on its sectors.
func (v *volumeHistory) record(h *history, at int64, proc int, c *dataCopy, b []byte) {
	read := c.command == ataRead || c.command == ataRead28
	if !read && !c.write() {
		return // flush, check power
	}
	if read && len(b) < offATAData+c.sectors*sectorBytes {
		h.fail("slot %d: a read of %d sectors answered with %d bytes", v.slot, c.sectors, len(b)-offATAData)
		return
	}
	end := at
	if v.control.excludedAt(c, at) {
		end = min(end, v.control.closedFor(c))
		if end < c.at {
			h.fail("slot %d: %x was excluded by a reservation, its %02x of lba %d delivered later was executed", v.slot, c.initMAC, c.command, c.lba)
			return
		}
	}
	for i := range c.sectors {
		lba := c.lba + uint64(i)
		op := linOp{start: c.at, end: end, write: c.write()}
		op.label = fmt.Sprintf("slot %d lba %d tag %08x process %d", v.slot, lba, c.tag, proc)
		if op.write {
			op.value = c.values[i]
		} else {
			p := b[offATAData+i*sectorBytes:]
			op.value = readSector(p[:sectorBytes], uint64(v.slot), lba)
		}
		if !c.again {
			v.add(lba, op)
		}
		v.answers[lba] = append(v.answers[lba], sectorAnswer{proc: c.proc, n: c.n, at: at})
	}
}

func (v *volumeHistory) add(lba uint64, op linOp) {
	if len(v.ops[lba]) == 0 {
		v.touched = append(v.touched, lba)
	}
	v.ops[lba] = append(v.ops[lba], op)
}

// closing returns when an unanswered copy could last take effect on a sector.
func (v *volumeHistory) closing(c *dataCopy, lba uint64) int64 {
	end := min(c.closedNs, v.control.closedFor(c))
	for _, a := range v.answers[lba] {
		if a.proc == c.proc && a.n > c.n {
			end = min(end, a.at)
		}
	}
	for _, e := range v.epochs {
		if e.epoch > c.epoch && e.proc != c.proc {
			end = min(end, e.at)
			break
		}
	}
	return end
}

// judge checks every sector and returns the number of operations checked.
func (h *history) judge() int {
	checked := 0
	for _, list := range h.slots {
		for _, v := range list {
			checked += v.judge(h)
		}
	}
	return checked
}

func (v *volumeHistory) judge(h *history) int {
	checked := 0
	for _, c := range v.copies {
		if c.answered && !c.again || !c.eligible {
			continue
		}
		for i, value := range c.values {
			lba := c.lba + uint64(i)
			end := v.closing(c, lba)
			if end < c.at {
				continue
			}
			v.add(lba, linOp{start: c.at, end: end, optional: true, write: true, value: value,
				label: fmt.Sprintf("slot %d lba %d tag %08x process %d", v.slot, lba, c.tag, c.proc)})
		}
	}
	for _, lba := range v.touched {
		checked += len(v.ops[lba])
		if why := linearize(0, v.ops[lba]); why != "" {
			h.fail("slot %d volume %d sector %d is not linearizable: %s", v.slot, v.vol, lba, why)
			return checked
		}
	}
	v.control.judge(h, v)
	return checked
}

// same reports a change of something that an initiator must always find as it was (DESIGN 4.7).
func (h *history) same(what, value string) {
	old, ok := h.identity[what]
	if !ok {
		h.identity[what] = value
		return
	}
	if old != value {
		h.fail("%s changed:\n  was % x\n  is  % x", what, old, value)
	}
}
