package sim

import (
	"fmt"
	"strings"

	"clade/aoe"
	"clade/cluster"
	"clade/membership"
)

// The mask is a register, too: a list of addresses that edits change. An answer to an edit carries the list; an answer to anything
// says that the mask let the initiator in. An operator may empty it, as whoever has shut himself out cannot.

const maskEdit = 1

// maskBody returns what the history needs of a mask command or answer: what identifies it, its sub-command and its list.
func maskBody(b []byte) (body string, sub byte, text string) {
	if len(b) < 28 {
		return string(b[24:]), 0xff, ""
	}
	n := min(int(b[27]), (len(b)-28)/8)
	var list strings.Builder
	for i := range n {
		list.Write(b[28+8*i+2 : 28+8*i+8])
	}
	return string(b[24 : 28+8*n]), b[25], list.String()
}

// edited returns the register after the directives of a request.
func (c *controlHistory) edited(state uint64, body string) uint64 {
	list := c.masks.names[state]
	for i := 4; i+8 <= len(body); i += 8 {
		mac := body[i+2 : i+8]
		at := -1
		for j := 0; j < len(list); j += 6 {
			if list[j:j+6] == mac {
				at = j
			}
		}
		switch {
		case body[i+1] == aoe.MaskAdd && at < 0:
			list += mac
		case body[i+1] == aoe.MaskDelete && at >= 0:
			list = list[:at] + list[at+6:]
		}
	}
	return c.masks.id(list)
}

// allows reports whether a mask lets an address in.
func (c *controlHistory) allows(mask uint64, mac aoe.MAC) bool {
	s := c.masks.names[mask]
	for i := 0; i+6 <= len(s); i += 6 {
		if s[i:i+6] == string(mac[:]) {
			return true
		}
	}
	return s == ""
}

func (c *controlHistory) maskOp(r *controlRequest, end int64, label string) linOp {
	body := r.body
	return linOp{start: r.startNs, end: end, write: true, label: label, edit: func(s uint64) uint64 { return c.edited(s, body) }}
}

func (c *controlHistory) maskAnswer(h *history, v *volumeHistory, r *controlRequest, copyAt, at int64, b []byte, text string) {
	label := fmt.Sprintf("mask %d by %x tag %08x -> %x", r.sub, r.mac[5], r.tag, text)
	if b[offFlags]&flagError != 0 || b[26] != 0 {
		h.fail("slot %d: %s: error %d, %d", v.slot, label, b[offError], b[26])
		return
	}
	c.mask = append(c.mask, linOp{start: copyAt, end: at, value: c.masks.id(text), label: label})
	if r.changes && !r.answered {
		c.mask = append(c.mask, c.maskOp(r, at, label))
		r.answered, r.firstNs, r.won = true, at, true
	}
}

// unmasked records that an operator takes addresses off the mask; it may happen until the returned operation's end is set.
func (c *controlHistory) unmasked(at int64, list []aoe.MAC) *linOp {
	body := "...."
	for _, m := range list {
		body += string([]byte{0, aoe.MaskDelete}) + string(m[:])
	}
	op := &linOp{start: at, end: forever, write: true, optional: true, label: fmt.Sprintf("operator takes %x off the mask", list),
		edit: func(s uint64) uint64 { return c.edited(s, body) }}
	c.operator = append(c.operator, op)
	return op
}

// masked notes that the mask let an initiator in at some time of an interval.
func (c *controlHistory) masked(mac aoe.MAC, from, to int64, what byte) {
	if len(c.mask) > 0 || c.maskAsked {
		c.mask = append(c.mask, linOp{start: from, end: to, pre: func(s uint64) bool { return c.allows(s, mac) },
			label: fmt.Sprintf("command %02x of %x answered", what, mac[5])})
	}
}

func (c *controlHistory) judgeMask(h *history, v *volumeHistory) {
	for _, r := range c.requests {
		if r.command == cmdMask && r.changes && !r.answered {
			op := c.maskOp(r, forever, "mask edit never answered")
			op.optional = true
			c.mask = append(c.mask, op)
		}
	}
	for _, op := range c.operator {
		c.mask = append(c.mask, *op)
	}
	if why := linearize(0, c.mask); why != "" {
		h.fail("slot %d: mask is not linearizable: %s\n    lists: %x", v.slot, why, c.masks.names)
	}
}

// clearMask lets everybody in again.
func (o *operator) clearMask(slot uint8) {
	if o.clearing[slot] {
		return
	}
	o.clearing[slot] = true
	var op *linOp
	empty := func(s *membership.State) bool {
		v := s.Slot(slot)
		return v == nil || len(v.Control.Mask) == 0
	}
	o.want(&task{
		what: fmt.Sprintf("mask of slot %d is to be empty", slot),
		done: func(s *membership.State) bool { return empty(s) && op == nil },
		next: func(s *membership.State) cluster.AdminRequest {
			v := s.Slot(slot)
			q := &aoe.ControlRequest{Kind: aoe.ControlMaskEdit}
			if v == nil {
				return cluster.AdminRequest{Kind: "control", Control: q}
			}
			for _, m := range v.Control.Mask {
				q.Directives = append(q.Directives, aoe.Directive{Command: aoe.MaskDelete, MAC: m})
			}
			op = o.w.history.volume(slot, uint64(v.ID())).control.unmasked(o.w.sched.nowNs, v.Control.Mask)
			return cluster.AdminRequest{Kind: "control", Vol: v.ID(), Control: q}
		},
		replied: func() {
			if op != nil {
				op.end, op = o.w.sched.nowNs, nil
			}
		},
		then: func() { o.clearing[slot] = false },
	})
}
