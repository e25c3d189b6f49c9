package aoe

import (
	"encoding/binary"
	"errors"
)

// Sizes on the wire.
const (
	EtherType      = 0x88A2
	EthernetBytes  = 14
	HeaderBytes    = 24
	ATAHeaderBytes = 36
	FrameBytesMin  = 60 // without checksum; replies are padded to it (trap 7)
	SectorBytes    = 512
	StringBytesMax = 1024
)

// The commands of AoEr11.
const (
	CommandATA     = 0
	CommandConfig  = 1
	CommandMask    = 2
	CommandReserve = 3
)

// The AoE error codes.
const (
	ErrorNone           = 0
	ErrorCommand        = 1 // unrecognized command code
	ErrorArgument       = 2 // bad argument parameter
	ErrorUnavailable    = 3 // device unavailable; never sent for a failover: silence is safer
	ErrorStringPresent  = 4 // config string already present
	ErrorVersion        = 5
	ErrorReserved       = 6 // target is reserved
	flagResponse        = 0x8
	flagError           = 0x4
	version             = 1
	versionAndResponse  = version<<4 | flagResponse
	versionResponseFail = versionAndResponse | flagError
)

// Errors of ParseRequest and ParseResponse. A target answers none of them.
var (
	ErrShort     = errors.New("aoe: frame is too short")
	ErrEtherType = errors.New("aoe: not an AoE frame")
	ErrDirection = errors.New("aoe: response where a request was expected, or the reverse")
)

// Request is a parsed request: a view into the frame, valid as long as the frame's bytes are.
type Request struct {
	Dst, Src MAC
	Version  uint8
	Shelf    uint16
	Slot     uint8
	Command  uint8
	Tag      [4]byte
	Frame    []byte // the whole frame as received, with padding
}

// ParseRequest reads the header of b into r. It refuses frames with the R flag: on a shared segment those are other targets'
// answers, or our own (trap 8).
func ParseRequest(b []byte, r *Request) error {
	if len(b) < HeaderBytes {
		return ErrShort
	}
	if binary.BigEndian.Uint16(b[12:]) != EtherType {
		return ErrEtherType
	}
	if b[14]&flagResponse != 0 {
		return ErrDirection
	}
	r.Dst, r.Src = MAC(b[0:6]), MAC(b[6:12])
	r.Version = b[14] >> 4
	r.Shelf, r.Slot, r.Command = binary.BigEndian.Uint16(b[16:]), b[18], b[19]
	r.Tag = [4]byte(b[20:24])
	r.Frame = b
	return nil
}

// Matches reports whether the request is for a slot, by name or by wildcards, which are independent of each other.
func (r *Request) Matches(shelf uint16, slot uint8) bool {
	return (r.Shelf == shelf || r.Shelf == ShelfWildcard) && (r.Slot == slot || r.Slot == SlotWildcard)
}

// Wildcard reports whether the request names no single slot.
func (r *Request) Wildcard() bool { return r.Shelf == ShelfWildcard || r.Slot == SlotWildcard }

// Response is a parsed response: a view into the frame.
type Response struct {
	Dst, Src MAC
	Error    uint8 // AoE error code when the E flag is set, else 0
	Failed   bool  // E flag
	Shelf    uint16
	Slot     uint8
	Command  uint8
	Tag      [4]byte
	Frame    []byte
}

// ParseResponse reads the header of b into r. It refuses requests.
func ParseResponse(b []byte, r *Response) error {
	if len(b) < HeaderBytes {
		return ErrShort
	}
	if binary.BigEndian.Uint16(b[12:]) != EtherType {
		return ErrEtherType
	}
	if b[14]&flagResponse == 0 {
		return ErrDirection
	}
	r.Dst, r.Src = MAC(b[0:6]), MAC(b[6:12])
	r.Failed, r.Error = b[14]&flagError != 0, 0
	if r.Failed {
		r.Error = b[15]
	}
	r.Shelf, r.Slot, r.Command = binary.BigEndian.Uint16(b[16:]), b[18], b[19]
	r.Tag = [4]byte(b[20:24])
	r.Frame = b
	return nil
}

// Header names where a request goes, for the functions that build one.
type Header struct {
	Dst, Src MAC
	Shelf    uint16
	Slot     uint8
	Tag      [4]byte
}

// AppendRequestHeader appends the 24 bytes of a request.
func AppendRequestHeader(dst []byte, h Header, command uint8) []byte {
	dst = append(dst, h.Dst[:]...)
	dst = append(dst, h.Src[:]...)
	dst = append(dst, EtherType>>8, EtherType&0xff, version<<4, 0, byte(h.Shelf>>8), byte(h.Shelf), h.Slot, command)
	return append(dst, h.Tag[:]...)
}

// appendReplyHeader appends the 24 bytes of the answer to req, from self, with the slot's own address in place of wildcards.
func appendReplyHeader(dst, req []byte, self MAC, id *Identity, aoeError uint8) []byte {
	dst = append(dst, req[6:12]...)
	dst = append(dst, self[:]...)
	flags := byte(versionAndResponse)
	if aoeError != ErrorNone {
		flags = versionResponseFail
	}
	dst = append(dst, EtherType>>8, EtherType&0xff, flags, aoeError, byte(id.Shelf>>8), byte(id.Shelf), id.Slot, req[19])
	return append(dst, req[20:24]...)
}

var zeros [FrameBytesMin]byte

// pad appends zeros until the frame that began at from has the Ethernet minimum.
func pad(dst []byte, from int) []byte {
	if n := len(dst) - from; n < FrameBytesMin {
		dst = append(dst, zeros[:FrameBytesMin-n]...)
	}
	return dst
}
