package aoe

// ATA commands that a target knows or that an initiator sends.
const (
	ATARead        = 0x20
	ATAReadExt     = 0x24
	ATAWrite       = 0x30
	ATAWriteExt    = 0x34
	ATAVerify      = 0x40
	ATAVerifyExt   = 0x42
	ATASmart       = 0xB0
	ATACheckPower  = 0xE5
	ATAFlush       = 0xE7
	ATAFlushExt    = 0xEA
	ATAIdentify    = 0xEC
	AFlagWrite     = 0x01
	AFlagAsync     = 0x02
	AFlagExtended  = 0x40
	StatusReady    = 0x40 // DRDY
	StatusError    = 0x41 // DRDY | ERR
	ErrRegAbort    = 0x04
	ErrRegNotFound = 0x10 // IDNF
	ErrRegUNC      = 0x40 // uncorrectable data
)

// ATA is the argument of an ATA request or response.
type ATA struct {
	AFlags  uint8
	Feature uint8 // request: feature; response: error register
	Sectors uint8
	Command uint8 // request: command; response: status
	LBA     uint64
	Data    []byte // view of what follows the 36 bytes, with padding
}

// ParseATA reads the ATA argument of a frame of at least 36 bytes; ok is false for a shorter one. All six LBA bytes are
// taken: which of them count is the command's business.
func ParseATA(frame []byte) (a ATA, ok bool) {
	if len(frame) < ATAHeaderBytes {
		return a, false
	}
	return ATA{AFlags: frame[24], Feature: frame[25], Sectors: frame[26], Command: frame[27], LBA: lba48(frame), Data: frame[36:]}, true
}

// lba48 reads the LBA: little-endian in a protocol that is big-endian otherwise (trap 11).
func lba48(f []byte) uint64 {
	return uint64(f[28]) | uint64(f[29])<<8 | uint64(f[30])<<16 | uint64(f[31])<<24 | uint64(f[32])<<32 | uint64(f[33])<<40
}

// address returns the LBA as the command means it: 28 bits for the old commands, whose lba3 carries 0xE or 0xA above
// (trap 12), 48 for the extended ones.
func (a *ATA) address() uint64 {
	switch a.Command {
	case ATARead, ATAWrite, ATAVerify:
		return a.LBA & 0x0FFFFFFF
	}
	return a.LBA & 0xFFFFFFFFFFFF
}

// AppendATARequest appends a request's 36 bytes; the data of a write follows. The frame is not padded.
func AppendATARequest(dst []byte, h Header, a ATA) []byte {
	dst = AppendRequestHeader(dst, h, CommandATA)
	return append(dst, a.AFlags, a.Feature, a.Sectors, a.Command,
		byte(a.LBA), byte(a.LBA>>8), byte(a.LBA>>16), byte(a.LBA>>24), byte(a.LBA>>32), byte(a.LBA>>40), 0, 0)
}

// ATAHeader is the part of an ATA request that its answer is made from.
type ATAHeader = [ATAHeaderBytes]byte

// AppendATAReply appends the answer to an ATA request: status, error register and, on success, the registers as sent with
// the count of sectors not done, which is none. With dataFollows the frame ends after 36 bytes, for the data to be gathered
// behind it; otherwise it is padded to 60.
func AppendATAReply(dst []byte, req *ATAHeader, self MAC, id *Identity, status, errReg uint8, dataFollows bool) []byte {
	from := len(dst)
	dst = appendReplyHeader(dst, req[:], self, id, ErrorNone)
	count := byte(0)
	if status&1 != 0 {
		count = req[26]
	}
	dst = append(dst, req[24], errReg, count, status)
	dst = append(dst, req[28:36]...)
	if dataFollows {
		return dst
	}
	return pad(dst, from)
}

// appendError appends the AoE error answer to any request: the body as it came, up to the fixed part of its command.
func appendError(dst []byte, r *Request, self MAC, id *Identity, aoeError uint8) []byte {
	from := len(dst)
	dst = appendReplyHeader(dst, r.Frame, self, id, aoeError)
	dst = append(dst, r.Frame[HeaderBytes:min(len(r.Frame), FrameBytesMin)]...)
	return pad(dst, from)
}
