package link

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
)

const (
	offsetType   = 12 // EtherType
	offsetFlags  = 14 // version and flags; 0x08 = response (AoEr11 section 2.1)
	offsetShelf  = 16 // major
	aoeBytesMin  = 24 // AoE header's end; some scanners send no more
	flagResponse = 0x08
	shelfAll     = 0xFFFF
	groupBit     = 0x01 // of the first octet: broadcast and multicast addresses

	snapBytes = 1 << 18 // "the whole frame", as a filter's verdict
)

// Filter selects the AoE frames that a target of one shelf wants: requests (R
// flag clear) to the shelf or to all shelves. It runs in the kernel, so a
// node that gets flooded frames or shares its wire pays nothing for the others.
type Filter struct {
	Shelf uint16
	// Announcements also lets responses through that were sent to a group
	// address, as servers do when they announce themselves: so an owner sees
	// another node use its serving MAC.
	Announcements bool
}

// Accepts reports whether the filter lets frame through. It decides exactly as
// the program from Instructions does.
func (f *Filter) Accepts(frame []byte) bool {
	if len(frame) < aoeBytesMin || binary.BigEndian.Uint16(frame[offsetType:]) != EtherTypeAoE {
		return false
	}
	if frame[offsetFlags]&flagResponse != 0 && (!f.Announcements || frame[0]&groupBit == 0) {
		return false
	}
	shelf := binary.BigEndian.Uint16(frame[offsetShelf:])
	return shelf == f.Shelf || shelf == shelfAll
}

// Instructions returns the filter as a BPF program. A load behind the frame's
// end ends the program with verdict 0, so short frames need no test of their
// own.
func (f *Filter) Instructions() []bpf.Instruction {
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: aoeBytesMin - 1, Size: 1}, // all of the header is there
		bpf.LoadAbsolute{Off: offsetType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: EtherTypeAoE, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: offsetFlags, Size: 1},
	}
	if f.Announcements {
		prog = append(prog,
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: flagResponse, SkipFalse: 3},
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: groupBit, SkipTrue: 1},
			bpf.RetConstant{Val: 0},
		)
	} else {
		prog = append(prog,
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: flagResponse, SkipFalse: 1},
			bpf.RetConstant{Val: 0},
		)
	}
	return append(prog,
		bpf.LoadAbsolute{Off: offsetShelf, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(f.Shelf), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: shelfAll, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: snapBytes},
	)
}

// packetOtherHost is PACKET_OTHERHOST of packet(7): "for some other machine".
const packetOtherHost = 3

// ownVLAN is the beginning of a Linux program that drops broadcasts of foreign
// VLANs. A frame whose VLAN has no device of its own goes to the sockets of the
// parent device, with the tag gone and no trace but that the kernel calls it
// somebody else's. For a group address that is never so otherwise, so there it
// tells: discovery does not leak from one network into another. For a serving
// MAC it says nothing, as the kernel knows of one address a device only; what
// keeps such frames away is that nobody there can discover that MAC.
func ownVLAN() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: groupBit, SkipFalse: 3},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packetOtherHost, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
	}
}

// assemble returns the machine form of the program for one socket: guard (may
// be empty) and then the filter, or everything if there is none.
func assemble(guard []bpf.Instruction, f *Filter) ([]bpf.RawInstruction, error) {
	prog := guard
	if f != nil {
		prog = append(prog, f.Instructions()...)
	} else {
		prog = append(prog, bpf.RetConstant{Val: snapBytes})
	}
	return bpf.Assemble(prog)
}
