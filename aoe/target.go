package aoe

import "encoding/binary"

// Target is what a slot presents: its identity, fixed for ever, and the control state in force. It is used by one goroutine;
// the node replaces Control when an agreed change applies.
type Target struct {
	Identity Identity
	Control  Control
}

// ActionKind says what is to be done about a frame.
type ActionKind uint8

// The actions. Drop means silence; zero is no action and never returned.
const (
	ActionDrop ActionKind = iota + 1
	ActionReply
	ActionRead
	ActionWrite
	ActionFlush
	ActionVerify
	ActionControl
)

// Action is a target's verdict on a frame.
type Action struct {
	Kind    ActionKind
	Reply   []byte // ActionReply: the frame to send, in the caller's buffer
	LBA     uint64 // Read, Write, Verify: first sector
	Sectors int
	Data    []byte         // Write: view of the frame, Sectors*512 long
	Control ControlRequest // Control: copied, the frame may go
}

var drop = Action{Kind: ActionDrop}

// Handle decides what to do about a request that came in on the path whose serving MAC is self. An answer is appended to dst.
// Nothing is allocated but for control requests. Destination, shelf and slot are checked here, so a frame for anybody else is
// dropped. (facts: who answers what; trap numbers are those of docs/wire.md.)
func (t *Target) Handle(r *Request, self MAC, dst []byte) Action {
	if r.Dst != self && r.Dst != Broadcast || r.Src.IsGroup() || r.Src == (MAC{}) || !r.Matches(t.Identity.Shelf, t.Identity.Slot) {
		return drop
	}
	if !t.Control.Allows(r.Src) { // the excluded get no answer at all, to any command (trap 20)
		return drop
	}
	switch r.Command {
	case CommandATA:
		return t.handleATA(r, self, dst)
	case CommandConfig:
		return t.handleConfig(r, self, dst)
	case CommandMask:
		return t.handleMask(r, self, dst)
	case CommandReserve:
		return t.handleReserve(r, self, dst)
	}
	if r.Wildcard() || r.Command >= 0xF0 {
		return drop
	}
	return t.fail(r, self, dst, ErrorCommand)
}

func (t *Target) fail(r *Request, self MAC, dst []byte, aoeError uint8) Action {
	return Action{Kind: ActionReply, Reply: appendError(dst, r, self, &t.Identity, aoeError)}
}

// ataReply answers an ATA command without data.
func (t *Target) ataReply(r *Request, self MAC, dst []byte, status, errReg uint8) Action {
	return Action{Kind: ActionReply, Reply: AppendATAReply(dst, (*ATAHeader)(r.Frame), self, &t.Identity, status, errReg, false)}
}

func (t *Target) handleATA(r *Request, self MAC, dst []byte) Action {
	a, ok := ParseATA(r.Frame)
	if !ok {
		return drop
	}
	if a.Command == ATAIdentify { // also by wildcard (trap 4), oversized (trap 2), and whoever has the reservation
		return t.identify(r, &a, self, dst)
	}
	if r.Wildcard() {
		return drop // a write to every slot at once was never meant
	}
	switch a.Command {
	case ATARead, ATAReadExt, ATAWrite, ATAWriteExt, ATAVerify, ATAVerifyExt, ATAFlush, ATAFlushExt:
		if !t.Control.MayUse(r.Src) {
			return t.fail(r, self, dst, ErrorReserved)
		}
	}
	switch a.Command {
	case ATARead, ATAReadExt, ATAWrite, ATAWriteExt, ATAVerify, ATAVerifyExt:
		return t.transfer(r, &a, self, dst)
	case ATAFlush, ATAFlushExt:
		return Action{Kind: ActionFlush}
	case ATACheckPower: // count register 0xFF: active or idle
		act := t.ataReply(r, self, dst, StatusReady, 0)
		act.Reply[len(dst)+26] = 0xFF
		return act
	case ATASmart:
		return t.smart(r, &a, self, dst)
	}
	return t.ataReply(r, self, dst, StatusError, ErrRegAbort)
}

func (t *Target) identify(r *Request, a *ATA, self MAC, dst []byte) Action {
	if a.Sectors != 1 {
		if r.Wildcard() {
			return drop
		}
		return t.fail(r, self, dst, ErrorArgument)
	}
	out := AppendATAReply(dst, (*ATAHeader)(r.Frame), self, &t.Identity, StatusReady, 0, true)
	return Action{Kind: ActionReply, Reply: t.Identity.AppendIdentify(out)}
}

// transfer checks a read, write or verify. The command byte alone says which it is: Linux probes paths with reads that carry
// a payload (trap 1).
func (t *Target) transfer(r *Request, a *ATA, self MAC, dst []byte) Action {
	n := int(a.Sectors)
	act := Action{LBA: a.address(), Sectors: n}
	switch a.Command {
	case ATARead, ATAReadExt:
		act.Kind = ActionRead
	case ATAWrite, ATAWriteExt:
		act.Kind = ActionWrite
	default:
		act.Kind = ActionVerify
	}
	switch {
	case n == 0 || n > int(t.Identity.SectorCount) && act.Kind != ActionVerify:
		return t.fail(r, self, dst, ErrorArgument)
	case act.LBA >= t.Identity.Sectors || uint64(n) > t.Identity.Sectors-act.LBA:
		return t.ataReply(r, self, dst, StatusError, ErrRegNotFound)
	}
	if act.Kind == ActionWrite {
		if len(a.Data) < n*SectorBytes {
			return t.fail(r, self, dst, ErrorArgument)
		}
		act.Data = a.Data[:n*SectorBytes]
	}
	return act
}

// SMART subcommands, and the signature in LBA mid and high that every one of them needs.
const (
	smartReadData       = 0xD0
	smartReadThresholds = 0xD1
	smartEnable         = 0xD8
	smartDisable        = 0xD9
	smartReturnStatus   = 0xDA
	smartLow, smartHigh = 0x4F, 0xC2
)

// smart answers what aoeping -S asks: the disk is well. Whether the volume is, is the cluster's to say. Answers carry a sector also
// where the command has no data: aoeping takes a shorter one for a failure.
func (t *Target) smart(r *Request, a *ATA, self MAC, dst []byte) Action {
	if r.Frame[29] != smartLow || r.Frame[30] != smartHigh {
		return t.ataReply(r, self, dst, StatusError, ErrRegAbort)
	}
	switch a.Feature {
	case smartEnable, smartDisable, smartReturnStatus: // the signature stays as it is: no threshold exceeded
		return Action{Kind: ActionReply, Reply: t.smartReply(r, self, dst)}
	case smartReadData, smartReadThresholds:
		out := t.smartReply(r, self, dst)
		data := out[len(out)-SectorBytes:]
		data[0] = 0x10 // structure revision
		sum := byte(0)
		for _, b := range data {
			sum += b
		}
		data[SectorBytes-1] = -sum
		return Action{Kind: ActionReply, Reply: out}
	}
	return t.ataReply(r, self, dst, StatusError, ErrRegAbort)
}

// smartReply appends a good answer with a sector of zeros.
func (t *Target) smartReply(r *Request, self MAC, dst []byte) []byte {
	out := AppendATAReply(dst, (*ATAHeader)(r.Frame), self, &t.Identity, StatusReady, 0, true)
	from := len(out)
	for len(out)-from < SectorBytes {
		out = append(out, zeros[:min(len(zeros), SectorBytes-(len(out)-from))]...)
	}
	return out
}

// handleConfig answers Query Config. A frame that is only a header is nmap's discovery and taken as a read (trap 5); a read
// ignores the string and its length (trap 3); a test that fails is silence (trap 19).
func (t *Target) handleConfig(r *Request, self MAC, dst []byte) Action {
	f := r.Frame
	if len(f) < 32 {
		if len(f) > HeaderBytes {
			return drop
		}
		return t.configReply(r, self, dst, ConfigRead)
	}
	ccmd := f[29] & 0xF
	if ccmd == ConfigRead {
		return t.configReply(r, self, dst, ccmd)
	}
	n := int(binary.BigEndian.Uint16(f[30:]))
	if n > StringBytesMax || 32+n > len(f) {
		return drop
	}
	s := f[32 : 32+n]
	switch ccmd {
	case ConfigTest:
		if string(s) != string(t.Control.Config) {
			return drop
		}
		return t.configReply(r, self, dst, ccmd)
	case ConfigPrefix:
		if n > len(t.Control.Config) || string(s) != string(t.Control.Config[:n]) {
			return drop
		}
		return t.configReply(r, self, dst, ccmd)
	case ConfigSet, ConfigForceSet:
		if r.Wildcard() {
			return drop
		}
		kind := ControlConfigSet
		if ccmd == ConfigForceSet {
			kind = ControlConfigForce
		}
		return Action{Kind: ActionControl, Control: ControlRequest{Kind: kind, Src: r.Src, Tag: r.Tag,
			Digest: digest(CommandConfig, f[29:32+n]), Config: append([]byte(nil), s...)}}
	}
	if r.Wildcard() {
		return drop
	}
	from := len(dst)
	dst = appendReplyHeader(dst, f, self, &t.Identity, ErrorArgument)
	return Action{Kind: ActionReply, Reply: pad(appendConfig(dst, &t.Identity, &t.Control, ccmd), from)}
}

func (t *Target) configReply(r *Request, self MAC, dst []byte, ccmd uint8) Action {
	from := len(dst)
	dst = appendReplyHeader(dst, r.Frame, self, &t.Identity, ErrorNone)
	return Action{Kind: ActionReply, Reply: pad(appendConfig(dst, &t.Identity, &t.Control, ccmd), from)}
}

func (t *Target) handleMask(r *Request, self MAC, dst []byte) Action {
	f := r.Frame
	if len(f) < 28 {
		return drop
	}
	switch f[25] {
	case MaskRead:
		from := len(dst)
		dst = appendReplyHeader(dst, f, self, &t.Identity, ErrorNone)
		return Action{Kind: ActionReply, Reply: pad(appendMask(dst, &t.Control, MaskRead), from)}
	case MaskEdit:
		n := int(f[27])
		if r.Wildcard() {
			return drop
		}
		if 28+8*n > len(f) {
			return t.fail(r, self, dst, ErrorArgument)
		}
		req := ControlRequest{Kind: ControlMaskEdit, Src: r.Src, Tag: r.Tag, Digest: digest(CommandMask, f[24:28+8*n])}
		for i := range n {
			d := f[28+8*i:]
			req.Directives = append(req.Directives, Directive{Command: d[1], MAC: MAC(d[2:8])})
		}
		return Action{Kind: ActionControl, Control: req}
	}
	if r.Wildcard() {
		return drop
	}
	return t.fail(r, self, dst, ErrorArgument)
}

func (t *Target) handleReserve(r *Request, self MAC, dst []byte) Action {
	f := r.Frame
	if len(f) < 26 {
		return drop
	}
	switch f[24] {
	case ReserveRead:
		return Action{Kind: ActionReply, Reply: AppendControlReply(dst, f, self, &t.Identity, &t.Control, ControlResult{})}
	case ReserveSet, ReserveForce:
		n := int(f[25])
		if r.Wildcard() {
			return drop
		}
		if 26+6*n > len(f) || n > ReserveMax {
			return t.fail(r, self, dst, ErrorArgument)
		}
		kind := ControlReserveSet
		if f[24] == ReserveForce {
			kind = ControlReserveForce
		}
		req := ControlRequest{Kind: kind, Src: r.Src, Tag: r.Tag, Digest: digest(CommandReserve, f[24:26+6*n])}
		for i := range n {
			req.MACs = append(req.MACs, MAC(f[26+6*i:]))
		}
		return Action{Kind: ActionControl, Control: req}
	}
	if r.Wildcard() {
		return drop
	}
	return t.fail(r, self, dst, ErrorArgument)
}
