package aoe

import "encoding/binary"

// appendConfig appends the Query Config argument of an answer: counts, version, command, string.
func appendConfig(dst []byte, id *Identity, c *Control, ccmd uint8) []byte {
	dst = append(dst, byte(id.BufCount>>8), byte(id.BufCount), byte(id.FirmwareWord>>8), byte(id.FirmwareWord),
		id.SectorCount, version<<4|ccmd&0xF, byte(len(c.Config)>>8), byte(len(c.Config)))
	return append(dst, c.Config...)
}

func appendMACs(dst []byte, macs []MAC) []byte {
	for _, m := range macs {
		dst = append(dst, m[:]...)
	}
	return dst
}

// AppendControlReply appends the answer to a control request, given the frame as it came (its first 60 bytes suffice), the
// state in force afterwards and the result. Refusals carry the string or list in force, as all targets do.
func AppendControlReply(dst, req []byte, self MAC, id *Identity, c *Control, res ControlResult) []byte {
	from := len(dst)
	dst = appendReplyHeader(dst, req, self, id, res.AoEError)
	switch req[19] {
	case CommandConfig:
		dst = appendConfig(dst, id, c, req[29])
	case CommandMask:
		if res.MaskError != MaskErrNone {
			dst = append(dst, 0, req[25], res.MaskError, byte(res.Failed))
			dst = append(dst, req[28:min(len(req), FrameBytesMin)]...)
			break
		}
		dst = appendMask(dst, c, req[25])
	case CommandReserve:
		dst = append(dst, req[24], byte(len(c.Reserved)))
		dst = appendMACs(dst, c.Reserved)
	}
	return pad(dst, from)
}

func appendMask(dst []byte, c *Control, mcmd uint8) []byte {
	dst = append(dst, 0, mcmd, MaskErrNone, byte(len(c.Mask)))
	for _, m := range c.Mask {
		dst = append(dst, 0, MaskNone)
		dst = append(dst, m[:]...)
	}
	return dst
}

// AppendBeacon appends an unsolicited Query Config response: what a target says when it comes up or has moved. Tag 0 keeps it
// out of the half of the tags that Linux leaves to user programs, and version 1 is in it (traps 9 and 10). With a mask it goes to
// each allowed MAC instead of broadcast: the caller says which.
func AppendBeacon(dst []byte, self, to MAC, id *Identity, c *Control) []byte {
	from := len(dst)
	dst = append(dst, to[:]...)
	dst = append(dst, self[:]...)
	dst = append(dst, EtherType>>8, EtherType&0xff, versionAndResponse, 0, byte(id.Shelf>>8), byte(id.Shelf), id.Slot, CommandConfig, 0, 0, 0, 0)
	return pad(appendConfig(dst, id, c, ConfigRead), from)
}

// AppendConfigRequest appends a Query Config request, padded.
func AppendConfigRequest(dst []byte, h Header, ccmd uint8, config []byte) []byte {
	from := len(dst)
	dst = AppendRequestHeader(dst, h, CommandConfig)
	dst = append(dst, 0, 0, 0, 0, 0, ccmd&0xF, byte(len(config)>>8), byte(len(config)))
	return pad(append(dst, config...), from)
}

// AppendMaskRequest appends a MAC Mask List request, padded.
func AppendMaskRequest(dst []byte, h Header, mcmd uint8, directives []Directive) []byte {
	from := len(dst)
	dst = AppendRequestHeader(dst, h, CommandMask)
	dst = append(dst, 0, mcmd, 0, byte(len(directives)))
	for _, d := range directives {
		dst = append(dst, 0, d.Command)
		dst = append(dst, d.MAC[:]...)
	}
	return pad(dst, from)
}

// AppendReserveRequest appends a Reserve/Release request, padded.
func AppendReserveRequest(dst []byte, h Header, rcmd uint8, macs []MAC) []byte {
	from := len(dst)
	dst = AppendRequestHeader(dst, h, CommandReserve)
	dst = append(dst, rcmd, byte(len(macs)))
	return pad(appendMACs(dst, macs), from)
}

// Config is the Query Config argument of a response; String is a view.
type Config struct {
	BufCount     uint16
	FirmwareWord uint16
	SectorCount  uint8
	Version      uint8
	Command      uint8
	String       []byte
}

// ParseConfig reads the Query Config argument of a frame; ok is false when it is too short for what it says.
func ParseConfig(frame []byte) (c Config, ok bool) {
	if len(frame) < 32 {
		return c, false
	}
	n := int(binary.BigEndian.Uint16(frame[30:]))
	if n > StringBytesMax || 32+n > len(frame) {
		return c, false
	}
	return Config{BufCount: binary.BigEndian.Uint16(frame[24:]), FirmwareWord: binary.BigEndian.Uint16(frame[26:]),
		SectorCount: frame[28], Version: frame[29] >> 4, Command: frame[29] & 0xF, String: frame[32 : 32+n]}, true
}

// MaskList is the MAC Mask List argument of a response.
type MaskList struct {
	Command uint8
	Error   uint8
	Count   uint8 // entries, or the index of the directive that failed
	MACs    []MAC
}

// ParseMask reads the MAC Mask List argument of a response; ok is false when it is too short for what it says.
func ParseMask(frame []byte) (m MaskList, ok bool) {
	if len(frame) < 28 {
		return m, false
	}
	m.Command, m.Error, m.Count = frame[25], frame[26], frame[27]
	if m.Error != MaskErrNone {
		return m, true
	}
	if 28+8*int(m.Count) > len(frame) {
		return m, false
	}
	for i := range int(m.Count) {
		m.MACs = append(m.MACs, MAC(frame[28+8*i+2:]))
	}
	return m, true
}

// ParseReserve reads the Reserve/Release argument of a response; ok is false when it is too short for what it says.
func ParseReserve(frame []byte) (rcmd uint8, macs []MAC, ok bool) {
	if len(frame) < 26 || 26+6*int(frame[25]) > len(frame) {
		return 0, nil, false
	}
	for i := range int(frame[25]) {
		macs = append(macs, MAC(frame[26+6*i:]))
	}
	return frame[24], macs, true
}
