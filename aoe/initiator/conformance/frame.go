package conformance

import (
	"encoding/binary"

	"clade/aoe"
)

// Requests are built here by offset, answers are read likewise: see the package comment.

// frame is a request under construction. Its methods change and return it.
type frame []byte

// request starts a request from the first initiator to the volume, by unicast, with a fresh tag.
func (p *Probe) request(command uint8) frame {
	f := make(frame, 24)
	copy(f, p.target[:])
	copy(f[6:], p.macs[0][:])
	binary.BigEndian.PutUint16(f[12:], aoe.EtherType)
	f[14] = 1 << 4
	binary.BigEndian.PutUint16(f[16:], p.shelf)
	f[18] = p.slot
	f[19] = command
	binary.BigEndian.PutUint32(f[20:], p.wire.nextTag())
	return f
}

func (f frame) to(dst aoe.MAC) frame {
	copy(f, dst[:])
	return f
}

func (f frame) from(src aoe.MAC) frame {
	copy(f[6:], src[:])
	return f
}

func (f frame) at(shelf uint16, slot uint8) frame {
	binary.BigEndian.PutUint16(f[16:], shelf)
	f[18] = slot
	return f
}

// wild broadcasts the request to all volumes of all shelves.
func (f frame) wild() frame { return f.to(aoe.Broadcast).at(0xFFFF, 0xFF) }

func (f frame) tagged(tag uint32) frame {
	binary.BigEndian.PutUint32(f[20:], tag)
	return f
}

// set changes one byte.
func (f frame) set(at int, b byte) frame {
	f[at] = b
	return f
}

// padded fills with zeros, as Ethernet does.
func (f frame) padded(n int) frame {
	if len(f) < n {
		f = append(f, make([]byte, n-len(f))...)
	}
	return f
}

// garbage appends bytes that mean nothing.
func (f frame) garbage(n int) frame {
	for range n {
		f = append(f, 0xED)
	}
	return f
}

// config is a Query Config request; the length field says what text is.
func (p *Probe) config(ccmd uint8, text []byte) frame {
	f := append(p.request(1), 0, 0, 0, 0, 0, ccmd, byte(len(text)>>8), byte(len(text)))
	return append(f, text...)
}

// directive is one step of a mask edit.
type directive struct {
	command uint8
	mac     aoe.MAC
}

func (p *Probe) maskEdit(list ...directive) frame {
	f := append(p.request(2), 0, 1, 0, byte(len(list)))
	for _, d := range list {
		f = append(append(f, 0, d.command), d.mac[:]...)
	}
	return f
}

func (p *Probe) maskRead() frame { return append(p.request(2), 0, 0, 0, 0) }

func (p *Probe) reserve(rcmd uint8, macs ...aoe.MAC) frame {
	f := append(p.request(3), rcmd, byte(len(macs)))
	for _, m := range macs {
		f = append(f, m[:]...)
	}
	return f
}

// ata is a request with the flags that initiators send with the command.
func (p *Probe) ata(command uint8, lba uint64, count int, data ...byte) frame {
	flags, lba3 := byte(0), byte(lba>>24)
	switch command {
	case ataReadExt, ataWriteExt, ataVerifyExt, ataFlushExt:
		flags = 0x40
	case ataRead, ataWrite, ataVerify:
		lba3 = 0xE0 | lba3&0x0F
	case ataIdentify:
		lba3 = 0xA0
	}
	if command == ataWrite || command == ataWriteExt {
		flags |= 1
	}
	f := append(p.request(0), flags, 0, byte(count), command,
		byte(lba), byte(lba>>8), byte(lba>>16), lba3, byte(lba>>32), byte(lba>>40), 0, 0)
	return append(f, data...)
}

// smart is a SMART request: the signature stands in the middle of the LBA.
func (p *Probe) smart(feature, low, high byte) frame {
	return p.ata(ataSmart, 0, 1).set(25, feature).set(29, low).set(30, high)
}

// The ATA commands that initiators and tools send.
const (
	ataRead       = 0x20
	ataReadExt    = 0x24
	ataWrite      = 0x30
	ataWriteExt   = 0x34
	ataVerify     = 0x40
	ataVerifyExt  = 0x42
	ataSmart      = 0xB0
	ataCheckPower = 0xE5
	ataFlush      = 0xE7
	ataFlushExt   = 0xEA
	ataIdentify   = 0xEC
)

// statusBad are the bits that Linux takes for an error: BSY, DF, DRQ, ERR.
const statusBad = 0xA9

// The AoE error codes that checks look for (AoEr11, section 2).
const (
	codeCommand  = 1
	codeArgument = 2
	codePresent  = 4
	codeVersion  = 5
	codeReserved = 6
)

// The sub-commands of Query Config.
const (
	configRead = iota
	configTest
	configPrefix
	configSet
	configForce
)

// reply is an answer. Its methods tolerate frames of any length.
type reply []byte

func (r reply) u8(at int) uint8 {
	if at >= len(r) {
		return 0
	}
	return r[at]
}

// failed says whether the E flag is set.
func (r reply) failed() bool { return r[14]&4 != 0 }

// code is the AoE error, 0 without the E flag.
func (r reply) code() uint8 {
	if !r.failed() {
		return 0
	}
	return r[15]
}

func (r reply) shelf() uint16 { return binary.BigEndian.Uint16(r[16:]) }
func (r reply) slot() uint8   { return r[18] }

// status and errReg are the ATA registers.
func (r reply) status() uint8 { return r.u8(27) }
func (r reply) errReg() uint8 { return r.u8(25) }

// data is what follows the ATA registers.
func (r reply) data() []byte { return r[min(len(r), 36):] }

// text is the config string; ok is false if the frame is too short for it.
func (r reply) text() (s []byte, ok bool) {
	if len(r) < 32 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(r[30:]))
	if n > 1024 || 32+n > len(r) {
		return nil, false
	}
	return r[32 : 32+n], true
}

// mask is the mask list.
func (r reply) mask() (list []aoe.MAC, ok bool) {
	n := int(r.u8(27))
	if len(r) < 28+8*n {
		return nil, false
	}
	for i := range n {
		list = append(list, aoe.MAC(r[28+8*i+2:]))
	}
	return list, true
}

// reserved is the reservation.
func (r reply) reserved() (list []aoe.MAC, ok bool) {
	n := int(r.u8(25))
	if len(r) < 26+6*n {
		return nil, false
	}
	for i := range n {
		list = append(list, aoe.MAC(r[26+6*i:]))
	}
	return list, true
}
