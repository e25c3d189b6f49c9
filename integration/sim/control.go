package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"clade/aoe"
)

// Control requests (config string, reservation) are operations on two more registers of a volume. A request and its
// retransmissions, which carry its tag, are ONE operation: whatever is said about it first is what is said for ever.
// Data commands are operations on the reservation as well: an answer says that it let the initiator in.

const (
	cmdConfig  = 1
	cmdMask    = 2
	cmdReserve = 3

	errConfigPresent = 4
	errReserved      = 6
)

// interned turns strings into register values; the empty string is 0.
type interned struct {
	ids   map[string]uint64
	names []string
}

func newInterned() *interned { return &interned{ids: map[string]uint64{"": 0}, names: []string{""}} }

func (n *interned) id(s string) uint64 {
	id, ok := n.ids[s]
	if !ok {
		id = uint64(len(n.names))
		n.ids[s] = id
		n.names = append(n.names, s)
	}
	return id
}

// controlRequest is one logical request.
type controlRequest struct {
	mac      aoe.MAC
	tag      uint32
	body     string
	command  byte
	sub      byte // CCmd, RCmd
	text     string
	startNs  int64
	waiting  []controlCopy
	copies   int // delivered
	answered bool
	firstNs  int64
	won      bool
	changes  bool // may change the state
}

type controlCopy struct {
	at   int64
	proc int
}

type controlHistory struct {
	requests  []*controlRequest
	byKey     map[string]*controlRequest
	strings   *interned
	lists     *interned
	config    []linOp
	reserve   []linOp
	reserved  bool // any reservation was ever asked for
	data      []linOp
	masks     *interned
	mask      []linOp
	maskAsked bool // any edit was ever asked for
	operator  []*linOp
}

func newControlHistory() *controlHistory {
	return &controlHistory{byKey: map[string]*controlRequest{}, strings: newInterned(), lists: newInterned(), masks: newInterned()}
}

// requestBody returns what identifies a request besides MAC and tag, its sub-command and its argument.
func requestBody(b []byte) (body string, sub byte, text string) {
	switch b[offCommand] {
	case cmdConfig:
		if len(b) < 32 {
			return string(b[24:]), 0xff, ""
		}
		n := min(int(binary.BigEndian.Uint16(b[30:])), len(b)-32)
		return string(b[29 : 32+n]), b[29] & 0x0f, string(b[32 : 32+n])
	case cmdMask:
		return maskBody(b)
	case cmdReserve:
		if len(b) < 26 {
			return string(b[24:]), 0xff, ""
		}
		n := min(int(b[25])*6, len(b)-26)
		return string(b[24 : 26+n]), b[24], string(b[26 : 26+n])
	}
	return string(b[24:]), 0xff, ""
}

func (c *controlHistory) delivered(at int64, proc int, b []byte) {
	body, sub, text := requestBody(b)
	mac, tag := frameSrc(b), frameTag(b)
	key := fmt.Sprintf("%x %08x %d %x", mac, tag, b[offCommand], body)
	if b[offCommand] == cmdConfig && sub <= 2 || b[offCommand] == cmdReserve && sub == 0 || b[offCommand] == cmdMask && sub == 0 {
		key = fmt.Sprintf("%x %08x %d", mac, tag, b[offCommand]) // a read is known by its tag alone; it changes nothing
	}
	r := c.byKey[key]
	if r == nil || !r.changes && len(r.waiting) == 0 {
		r = &controlRequest{mac: mac, tag: tag, body: body, command: b[offCommand], sub: sub, text: text, startNs: at}
		r.changes = r.command == cmdMask && sub == maskEdit || r.command == cmdConfig && (sub == 3 || sub == 4) || r.command == cmdReserve && (sub == 1 || sub == 2)
		c.byKey[key] = r
		c.requests = append(c.requests, r)
	}
	c.maskAsked = c.maskAsked || r.command == cmdMask && r.changes
	c.reserved = c.reserved || r.command == cmdReserve && r.changes
	r.copies++
	r.waiting = append(r.waiting, controlCopy{at, proc})
}

// emitted judges an answer to a control request, or an announcement.
func (c *controlHistory) emitted(h *history, v *volumeHistory, at int64, proc int, b []byte) {
	body, _, text := requestBody(b)
	switch b[offCommand] {
	case cmdConfig:
		if len(b) < 32 {
			h.fail("slot %d: config answer of %d bytes", v.slot, len(b))
			return
		}
		h.same(fmt.Sprintf("slot %d volume %d buffer count, firmware word, sector count", v.slot, v.vol), string(b[24:29]))
		if frameDst(b) == broadcastMAC {
			c.readConfig(h, linOp{start: at, end: at, value: c.strings.id(text), label: "announcement"})
			return
		}
	}
	r, copyAt, ok := c.match(proc, b, body)
	if !ok {
		if b[offCommand] == cmdConfig { // an announcement to one initiator
			c.readConfig(h, linOp{start: at, end: at, value: c.strings.id(text), label: "announcement"})
			return
		}
		h.fail("slot %d: answer to a control request that was not delivered: tag %08x", v.slot, frameTag(b))
		return
	}
	switch b[offCommand] {
	case cmdConfig:
		c.configAnswer(h, v, r, copyAt, at, b, text)
	case cmdMask:
		c.maskAnswer(h, v, r, copyAt, at, b, text)
	default:
		c.reserveAnswer(h, v, r, copyAt, at, b, text)
	}
}

// match finds the request that an answer is for, and takes away its oldest waiting copy at this process.
func (c *controlHistory) match(proc int, b []byte, body string) (*controlRequest, int64, bool) {
	mac, tag := frameDst(b), frameTag(b)
	for i := len(c.requests) - 1; i >= 0; i-- {
		r := c.requests[i]
		if r.mac != mac || r.tag != tag || r.command != b[offCommand] || len(r.waiting) == 0 {
			continue
		}
		if len(r.body) > 0 && r.command == cmdConfig && r.body[0]&0x0f != body[0]&0x0f {
			continue
		}
		for j, w := range r.waiting {
			if w.proc == proc {
				r.waiting = slices.Delete(r.waiting, j, j+1)
				return r, w.at, true
			}
		}
	}
	return nil, 0, false
}

// readConfig notes what a config string was said to be. A machine whose clock stood still believes in its lease for a while: strict
// volumes ask the disks before they answer reads of data, not of this.
func (c *controlHistory) readConfig(h *history, op linOp) {
	if !h.stood {
		c.config = append(c.config, op)
	}
}

func (c *controlHistory) configAnswer(h *history, v *volumeHistory, r *controlRequest, copyAt, at int64, b []byte, text string) {
	failed := b[offFlags]&flagError != 0
	label := fmt.Sprintf("config ccmd %d by %x tag %08x %q -> error %v %q", r.sub, r.mac[5], r.tag, r.text, failed, text)
	now := c.strings.id(text)
	if failed && b[offError] != errConfigPresent {
		h.fail("slot %d: %s: error %d", v.slot, label, b[offError])
		return
	}
	if !r.changes {
		c.readConfig(h, linOp{start: copyAt, end: at, value: now, label: label})
		return
	}
	mine := c.strings.id(r.text)
	switch {
	case !r.answered && !failed:
		op := linOp{start: r.startNs, end: at, write: true, value: mine, label: label}
		if r.sub == 3 {
			op.pre = func(s uint64) bool { return s == 0 || s == mine }
		}
		c.config = append(c.config, op)
	case !failed && !r.won:
		h.fail("slot %d: %s: told that it won after it was told that it lost", v.slot, label)
	case !failed:
		c.config = append(c.config, linOp{start: copyAt, end: at, value: mine, label: label + " (again)"})
	default:
		c.config = append(c.config, linOp{start: r.startNs, end: at, value: now, label: label})
		if !r.answered && r.copies > 1 && now != mine {
			c.config = append(c.config, c.earlier(r, mine, at, label))
		}
	}
	if !r.answered {
		r.answered, r.firstNs, r.won = true, at, !failed
	}
}

// earlier is what a former copy of a request may have done whose answer got lost: it won, another has changed the state since, and
// so a later copy is told what holds now (B: C20).
func (c *controlHistory) earlier(r *controlRequest, mine uint64, at int64, label string) linOp {
	op := linOp{start: r.startNs, end: at, write: true, optional: true, value: mine, label: label + " (a former copy)"}
	mac := r.mac
	switch {
	case r.command == cmdConfig && r.sub == 3:
		op.pre = func(s uint64) bool { return s == 0 || s == mine }
	case r.command == cmdReserve && r.sub == 1:
		op.pre = func(s uint64) bool { return c.admits(s, mac) }
	}
	return op
}

// admits reports whether a list of MACs lets one in.
func (c *controlHistory) admits(list uint64, mac aoe.MAC) bool {
	s := c.lists.names[list]
	for i := 0; i+6 <= len(s); i += 6 {
		if bytes.Equal([]byte(s[i:i+6]), mac[:]) {
			return true
		}
	}
	return len(s) == 0
}

func (c *controlHistory) reserveAnswer(h *history, v *volumeHistory, r *controlRequest, copyAt, at int64, b []byte, text string) {
	failed := b[offFlags]&flagError != 0
	label := fmt.Sprintf("reserve rcmd %d by %x tag %08x %x -> error %v %x", r.sub, r.mac[5], r.tag, r.text, failed, text)
	now, mac := c.lists.id(text), r.mac
	if failed && b[offError] != errReserved {
		h.fail("slot %d: %s: error %d", v.slot, label, b[offError])
		return
	}
	if !r.changes {
		c.reserve = append(c.reserve, linOp{start: copyAt, end: at, value: now, label: label})
		return
	}
	mine := c.lists.id(r.text)
	switch {
	case !r.answered && !failed:
		op := linOp{start: r.startNs, end: at, write: true, value: mine, label: label}
		if r.sub == 1 {
			op.pre = func(s uint64) bool { return c.admits(s, mac) }
		}
		c.reserve = append(c.reserve, op)
	case !failed && !r.won:
		h.fail("slot %d: %s: told that it won after it was told that it lost", v.slot, label)
	case !failed:
		c.reserve = append(c.reserve, linOp{start: copyAt, end: at, value: mine, label: label + " (again)"})
	default:
		c.reserve = append(c.reserve, linOp{start: r.startNs, end: at, value: now, label: label})
		if !r.answered && r.copies > 1 && now != mine {
			c.reserve = append(c.reserve, c.earlier(r, mine, at, label))
		}
	}
	if !r.answered {
		r.answered, r.firstNs, r.won = true, at, !failed
	}
}

// refused judges an AoE error to a data command: only a reservation makes one.
func (c *controlHistory) refused(h *history, v *volumeHistory, at int64, d *dataCopy, code byte) {
	if code != errReserved {
		h.fail("slot %d: AoE error %d to command %02x", v.slot, code, d.command)
		return
	}
	mac := d.initMAC
	d.closedNs = d.at - 1
	c.reserve = append(c.reserve, linOp{start: d.at, end: at, pre: func(s uint64) bool { return !c.admits(s, mac) },
		label: fmt.Sprintf("command %02x of %x refused", d.command, mac[5])})
}

// excludedAt reports whether a reservation that was answered before at shuts the copy's initiator out.
func (c *controlHistory) excludedAt(d *dataCopy, at int64) bool {
	c.masked(d.initMAC, d.at, at, d.command)
	if c.reserved {
		mac := d.initMAC
		c.data = append(c.data, linOp{start: d.at, end: at, pre: func(s uint64) bool { return c.admits(s, mac) },
			label: fmt.Sprintf("command %02x of %x executed", d.command, mac[5])})
	}
	return c.closedFor(d) < at
}

// closedFor returns when the first answer to a reservation that shuts a copy's initiator out ended its chance, or forever.
// Should a later request let it in again, the copy may have waited for that: then nothing is concluded.
func (c *controlHistory) closedFor(d *dataCopy) int64 {
	if !c.reserved || !d.write() {
		return forever
	}
	end := forever
	for _, r := range c.requests {
		if r.command != cmdReserve || !r.changes || !r.won || r.firstNs < d.at || c.admits(c.lists.id(r.text), d.initMAC) {
			continue
		}
		reopened := false
		for _, o := range c.requests {
			if o != r && o.command == cmdReserve && o.changes && (!o.answered || o.firstNs > r.startNs) && c.admits(c.lists.id(o.text), d.initMAC) {
				reopened = true
			}
		}
		if !reopened {
			end = min(end, r.firstNs)
		}
	}
	return end
}

func (c *controlHistory) judge(h *history, v *volumeHistory) {
	for _, r := range c.requests {
		if !r.changes || r.answered || r.command == cmdMask {
			continue
		}
		op := linOp{start: r.startNs, end: forever, optional: true, write: true,
			label: fmt.Sprintf("command %d sub %d by %x tag %08x %q never answered", r.command, r.sub, r.mac[5], r.tag, r.text)}
		mac := r.mac
		if r.command == cmdConfig {
			mine := c.strings.id(r.text)
			op.value = mine
			if r.sub == 3 {
				op.pre = func(s uint64) bool { return s == 0 || s == mine }
			}
			c.config = append(c.config, op)
			continue
		}
		op.value = c.lists.id(r.text)
		if r.sub == 1 {
			op.pre = func(s uint64) bool { return c.admits(s, mac) }
		}
		c.reserve = append(c.reserve, op)
	}
	c.judgeMask(h, v)
	if why := linearize(0, c.config); why != "" {
		h.fail("slot %d: config string is not linearizable: %s\n    strings: %q", v.slot, why, c.strings.names)
	}
	if why := linearize(0, append(slices.Clone(c.reserve), c.data...)); why != "" {
		h.fail("slot %d: reservation is not linearizable: %s\n    lists: %x", v.slot, why, c.lists.names)
	}
}
