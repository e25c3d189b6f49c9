package aoe

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// Bounds of lists, so that every list that can be set can be reported in a frame at MTU 1500.
const (
	MaskMax    = 185
	ReserveMax = 248
)

// Query Config commands (AoEr11 section 3.2).
const (
	ConfigRead     = 0
	ConfigTest     = 1
	ConfigPrefix   = 2
	ConfigSet      = 3
	ConfigForceSet = 4
)

// Mask commands, directives and errors (section 3.3).
const (
	MaskRead         = 0
	MaskEdit         = 1
	MaskNone         = 0
	MaskAdd          = 1
	MaskDelete       = 2
	MaskErrNone      = 0
	MaskErrUnspec    = 1
	MaskErrDirective = 2
	MaskErrFull      = 3
)

// Reserve commands (section 3.4).
const (
	ReserveRead  = 0
	ReserveSet   = 1
	ReserveForce = 2
)

// Control is what initiators may change of a volume besides its bytes. The control plane agrees on it; a value handed out is
// never changed in place.
type Control struct {
	Config   []byte `json:"config,omitempty"`
	Setter   MAC    `json:"setter"`   // who set Config last
	Mutation uint64 `json:"mutation"` // counts changes of Config
	Mask     []MAC  `json:"mask,omitempty"`
	Reserved []MAC  `json:"reserved,omitempty"`
}

// ControlKind says what a ControlRequest changes.
type ControlKind uint8

// The changes; zero is none.
const (
	ControlConfigSet ControlKind = iota + 1
	ControlConfigForce
	ControlMaskEdit
	ControlReserveSet
	ControlReserveForce
)

// Directive is one step of a mask edit.
type Directive struct {
	Command uint8 `json:"command"`
	MAC     MAC   `json:"mac"`
}

// ControlRequest is a change of Control that only one may win. Src, Tag and Digest name the request: a retransmission has the
// same three (B: C20).
type ControlRequest struct {
	Kind       ControlKind `json:"kind"`
	Src        MAC         `json:"src"`
	Tag        [4]byte     `json:"tag"`
	Digest     [16]byte    `json:"digest"`
	Config     []byte      `json:"config,omitempty"`
	Directives []Directive `json:"directives,omitempty"`
	MACs       []MAC       `json:"macs,omitempty"`
}

// ControlResult is how a change ended.
type ControlResult struct {
	AoEError  uint8 `json:"aoe_error,omitempty"`
	MaskError uint8 `json:"mask_error,omitempty"`
	Failed    int   `json:"failed,omitempty"` // mask: index of the directive that failed
}

// OK reports whether the change was made, or was so already.
func (r ControlResult) OK() bool { return r.AoEError == ErrorNone && r.MaskError == MaskErrNone }

// Apply returns Control after req, and how it ended. It is pure and total: any request, however malformed, gets a result, and
// neither argument is changed or kept.
func (c Control) Apply(req ControlRequest) (Control, ControlResult) {
	switch req.Kind {
	case ControlConfigSet, ControlConfigForce:
		return c.setConfig(req)
	case ControlMaskEdit:
		return c.editMask(req)
	case ControlReserveSet, ControlReserveForce:
		return c.reserve(req)
	}
	return c, ControlResult{AoEError: ErrorArgument}
}

// setConfig stores the string if there is none, or by force. Setting what is there already succeeds, as with every other
// target: so a winner whose answer was lost is told again that it won.
func (c Control) setConfig(req ControlRequest) (Control, ControlResult) {
	if len(req.Config) > StringBytesMax {
		return c, ControlResult{AoEError: ErrorArgument}
	}
	if bytes.Equal(c.Config, req.Config) {
		return c, ControlResult{}
	}
	if req.Kind == ControlConfigSet && len(c.Config) > 0 {
		return c, ControlResult{AoEError: ErrorStringPresent}
	}
	c.Config, c.Setter = bytes.Clone(req.Config), req.Src
	c.Mutation++
	return c, ControlResult{}
}

// editMask runs the directives in order, all or none.
func (c Control) editMask(req ControlRequest) (Control, ControlResult) {
	mask := slices.Clone(c.Mask)
	for i, d := range req.Directives {
		at := slices.Index(mask, d.MAC)
		switch {
		case d.Command == MaskNone:
		case d.Command == MaskAdd && at >= 0:
		case d.Command == MaskAdd && len(mask) >= MaskMax:
			return c, ControlResult{MaskError: MaskErrFull, Failed: i}
		case d.Command == MaskAdd:
			mask = append(mask, d.MAC)
		case d.Command == MaskDelete && at >= 0:
			mask = slices.Delete(mask, at, at+1)
		case d.Command == MaskDelete:
		default:
			return c, ControlResult{MaskError: MaskErrDirective, Failed: i}
		}
	}
	c.Mask = mask
	return c, ControlResult{}
}

// reserve replaces the list: by one of its members, by anybody while it is empty, or by force.
func (c Control) reserve(req ControlRequest) (Control, ControlResult) {
	if len(req.MACs) > ReserveMax {
		return c, ControlResult{AoEError: ErrorArgument}
	}
	if req.Kind == ControlReserveSet && len(c.Reserved) > 0 && !slices.Contains(c.Reserved, req.Src) {
		return c, ControlResult{AoEError: ErrorReserved}
	}
	c.Reserved = slices.Clone(req.MACs)
	return c, ControlResult{}
}

// Allows reports whether a MAC may talk to the volume at all: an empty mask lets everyone.
func (c *Control) Allows(m MAC) bool { return len(c.Mask) == 0 || slices.Contains(c.Mask, m) }

// MayUse reports whether a MAC may read and write: an empty reservation lets everyone.
func (c *Control) MayUse(m MAC) bool { return len(c.Reserved) == 0 || slices.Contains(c.Reserved, m) }

// digest names a control request by its slot-independent content, without padding.
func digest(command uint8, arg []byte) [16]byte {
	h := sha256.New()
	h.Write([]byte{command})
	h.Write(arg)
	return [16]byte(h.Sum(nil)[:16])
}
