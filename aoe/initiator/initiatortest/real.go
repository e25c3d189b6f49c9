package initiatortest

import (
	"bytes"
	"fmt"
	"slices"

	"clade/aoe"
)

// handleReal executes a request with the decisions of aoe.Target, so that the
// initiator meets the target it is made for.
func (t *Target) handleReal(req []byte) []byte {
	var r aoe.Request
	if aoe.ParseRequest(req, &r) != nil {
		return nil
	}
	key := string(req[6:12]) + string(req[19:])
	if known, ok := t.answers[key]; ok && t.isEdit(req) {
		if t.truth[key] != t.state() {
			return nil // what it says is true no more
		}
		return slices.Clone(known)
	}
	act := t.real.Handle(&r, t.MAC, nil)
	ok := func(data bool) []byte {
		return aoe.AppendATAReply(nil, (*aoe.ATAHeader)(req), t.MAC, &t.real.Identity, 0x40, 0, data)
	}
	switch act.Kind {
	case aoe.ActionReply:
		return bytes.Clone(act.Reply)
	case aoe.ActionRead:
		return append(ok(true), t.disk[act.LBA*512:][:act.Sectors*512]...)
	case aoe.ActionWrite:
		copy(t.disk[act.LBA*512:], act.Data)
		return ok(false)
	case aoe.ActionFlush, aoe.ActionVerify:
		return ok(false)
	case aoe.ActionControl:
		control, res := t.real.Control.Apply(act.Control)
		t.real.Control = control
		answer := aoe.AppendControlReply(nil, req, t.MAC, &t.real.Identity, &control, res)
		t.answers[key] = slices.Clone(answer)
		t.truth[key] = t.state()
		return answer
	}
	return nil
}

// state is what control requests change, to be compared.
func (t *Target) state() string {
	c := &t.real.Control
	return fmt.Sprintf("%q %v %v", c.Config, c.Mask, c.Reserved)
}

// isEdit says whether a request is one whose answer is remembered.
func (t *Target) isEdit(req []byte) bool {
	switch req[19] {
	case aoe.CommandConfig:
		return len(req) > 29 && req[29]&15 >= 3
	case aoe.CommandMask, aoe.CommandReserve:
		return len(req) > 25 && (req[24] != 0 || req[25] != 0)
	}
	return false
}
