package initiator

import (
	"encoding/binary"

	"clade/aoe"
)

// Where things lie in a frame, from its first byte (AoEr11, sections 2 and 3).
const (
	etherType    = 0x88A2
	offSrc       = 6
	offType      = 12
	offFlags     = 14
	offError     = 15
	offShelf     = 16
	offSlot      = 18
	offCommand   = 19
	offTag       = 20
	headerBytes  = 24
	ataBytes     = 36
	configBytes  = 32
	offATAFlags  = 24
	offATAErr    = 25
	offATACount  = 26
	offATAStatus = 27 // the command register in a request
	offATALBA    = 28
)

// Header flags, commands and registers.
const (
	versionNibble = 0x10
	flagResponse  = 0x08
	flagError     = 0x04

	commandATA     = 0
	commandConfig  = 1
	commandMask    = 2
	commandReserve = 3

	ataReadExt  = 0x24
	ataWriteExt = 0x34
	ataFlushExt = 0xEA
	ataIdentify = 0xEC

	ataFlagExt   = 0x40
	ataFlagWrite = 0x01

	// ataStatusBad is what the Linux driver takes for a failure: BSY, DF, DRQ, ERR.
	ataStatusBad = 0xA9

	userTag = 0x80000000
	ipxeTag = 0x18AE0000

	shelfAll = 0xFFFF
	slotAll  = 0xFF

	// maxControlBytes bounds the body of a control command: a config string of
	// 1024 bytes or a list of 255 MACs.
	maxControlBytes = 4 + 8*255
)

var broadcast = aoe.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// appendHeader appends the 24 bytes that all commands share.
func appendHeader(b []byte, dst, src aoe.MAC, shelf uint16, slot, command uint8, tag uint32) []byte {
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	b = append(b, versionNibble, 0)
	b = binary.BigEndian.AppendUint16(b, shelf)
	b = append(b, slot, command)
	return binary.BigEndian.AppendUint32(b, tag)
}

// appendATA appends the 12 bytes of the ATA section.
func appendATA(b []byte, kind OpKind, lba uint64, sectors int) []byte {
	switch kind {
	case OpRead:
		b = append(b, ataFlagExt, 0, byte(sectors), ataReadExt)
	case OpWrite:
		b = append(b, ataFlagExt|ataFlagWrite, 0, byte(sectors), ataWriteExt)
	case OpFlush:
		b = append(b, ataFlagExt, 0, 0, ataFlushExt)
	case OpIdentify: // as the Linux driver: count 1, device bits 0xA0 in lba3
		return append(b, 0, 0, 1, ataIdentify, 0, 0, 0, 0xA0, 0, 0, 0, 0)
	}
	return append(b, byte(lba), byte(lba>>8), byte(lba>>16), byte(lba>>24), byte(lba>>32), byte(lba>>40), 0, 0)
}

// appendDiscover appends a Query Config read of 32 bytes, which is also what
// the Linux driver broadcasts.
func appendDiscover(b []byte, dst, src aoe.MAC, shelf uint16, slot uint8, tag uint32) []byte {
	b = appendHeader(b, dst, src, shelf, slot, commandConfig, tag)
	return append(b, 0, 0, 0, 0, 0, versionNibble, 0, 0)
}

// reply is a received response, as views into the frame.
type reply struct {
	src     aoe.MAC
	shelf   uint16
	slot    uint8
	command uint8
	tag     uint32
	failed  bool // the error flag
	code    uint8
	body    []byte // behind the header
}

// parseReply reads the header of a response for self. The version is not
// checked, as no initiator but iPXE does (vblade's beacons carry version 0).
func parseReply(frame []byte, self aoe.MAC, r *reply) bool {
	if len(frame) < headerBytes || binary.BigEndian.Uint16(frame[offType:]) != etherType {
		return false
	}
	flags := frame[offFlags]
	dst := aoe.MAC(frame[:offSrc])
	if flags&flagResponse == 0 || (dst != self && dst != broadcast) {
		return false
	}
	r.src = aoe.MAC(frame[offSrc:offType])
	r.shelf = binary.BigEndian.Uint16(frame[offShelf:])
	r.slot, r.command = frame[offSlot], frame[offCommand]
	r.tag = binary.BigEndian.Uint32(frame[offTag:])
	r.failed, r.code = flags&flagError != 0, frame[offError]
	r.body = frame[headerBytes:]
	return true
}
