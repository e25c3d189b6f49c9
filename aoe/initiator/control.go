package initiator

import (
	"encoding/binary"
	"errors"
	"fmt"

	"clade/aoe"
)

// Limits of the control commands, those of the format and of a frame.
const (
	MaxConfigBytes = 1024
	maxListMACs    = 255
)

// errMalformed is an answer whose lengths make no sense.
var errMalformed = errors.New("malformed answer")

// ConfigCommand is the sub-command of Query Config (AoEr11, section 3.2).
type ConfigCommand uint8

// The sub-commands. Test and Prefix are answered with silence if the string
// does not match.
const (
	ConfigRead ConfigCommand = iota
	ConfigTest
	ConfigPrefix
	ConfigSet
	ConfigForceSet
)

// ConfigRequest returns the body (Op.Request) of a Query Config command.
func ConfigRequest(command ConfigCommand, text []byte) ([]byte, error) {
	if len(text) > MaxConfigBytes {
		return nil, fmt.Errorf("initiator: config string of %d bytes: at most %d fit", len(text), MaxConfigBytes)
	}
	b := []byte{0, 0, 0, 0, 0, versionNibble | byte(command)}
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...), nil
}

// ConfigReply is what a target answers to Query Config.
type ConfigReply struct {
	BufferCount uint16
	Firmware    uint16
	SectorCount uint8
	Text        []byte // the string in force
}

// ParseConfigReply reads the body (Op.Reply) of a Query Config answer; Text is a
// view into it.
func ParseConfigReply(body []byte) (ConfigReply, error) {
	if len(body) < configBytes-headerBytes {
		return ConfigReply{}, errMalformed
	}
	n := int(binary.BigEndian.Uint16(body[6:]))
	if n > MaxConfigBytes || 8+n > len(body) {
		return ConfigReply{}, errMalformed
	}
	return ConfigReply{
		BufferCount: binary.BigEndian.Uint16(body), Firmware: binary.BigEndian.Uint16(body[2:]),
		SectorCount: body[4], Text: body[8 : 8+n],
	}, nil
}

// MaskDirective adds a MAC to the list of those that may talk to the volume, or
// takes it away.
type MaskDirective struct {
	Delete bool
	MAC    aoe.MAC
}

// MaskRequest returns the body of a MAC Mask List command: an edit, or a read if
// there are no directives (AoEr11, section 3.3).
func MaskRequest(directives []MaskDirective) ([]byte, error) {
	if len(directives) > maxListMACs {
		return nil, fmt.Errorf("initiator: %d mask directives: at most %d fit", len(directives), maxListMACs)
	}
	edit := byte(0)
	if len(directives) > 0 {
		edit = 1
	}
	b := []byte{0, edit, 0, byte(len(directives))}
	for _, m := range directives {
		verb := byte(1)
		if m.Delete {
			verb = 2
		}
		b = append(b, 0, verb)
		b = append(b, m.MAC[:]...)
	}
	return b, nil
}

// MaskError is a refused edit: nothing of it was done.
type MaskError struct {
	Code uint8 // 1 unspecified, 2 bad directive, 3 list full
}

func (e *MaskError) Error() string {
	switch e.Code {
	case 2:
		return "the target refused a directive of the mask edit"
	case 3:
		return "the mask list is full"
	}
	return fmt.Sprintf("the target refused the mask edit (error %d)", e.Code)
}

// ParseMaskReply returns the list in an answer to a mask command.
func ParseMaskReply(body []byte) ([]aoe.MAC, error) {
	if len(body) < 4 {
		return nil, errMalformed
	}
	if body[2] != 0 {
		return nil, &MaskError{Code: body[2]}
	}
	n := int(body[3])
	if 4+8*n > len(body) {
		return nil, errMalformed
	}
	macs := make([]aoe.MAC, n)
	for i := range macs {
		macs[i] = aoe.MAC(body[4+8*i+2:][:6])
	}
	return macs, nil
}

// ReserveCommand is the sub-command of Reserve/Release (AoEr11, section 3.4).
type ReserveCommand uint8

// The sub-commands. Setting an empty list releases.
const (
	ReserveRead ReserveCommand = iota
	ReserveSet
	ReserveForceSet
)

// ReserveRequest returns the body of a Reserve/Release command.
func ReserveRequest(command ReserveCommand, macs []aoe.MAC) ([]byte, error) {
	if len(macs) > maxListMACs {
		return nil, fmt.Errorf("initiator: %d MACs in a reservation: at most %d fit", len(macs), maxListMACs)
	}
	b := []byte{byte(command), byte(len(macs))}
	for _, m := range macs {
		b = append(b, m[:]...)
	}
	return b, nil
}

// ParseReserveReply returns the list in force.
func ParseReserveReply(body []byte) ([]aoe.MAC, error) {
	if len(body) < 2 || 2+6*int(body[1]) > len(body) {
		return nil, errMalformed
	}
	macs := make([]aoe.MAC, body[1])
	for i := range macs {
		macs[i] = aoe.MAC(body[2+6*i:][:6])
	}
	return macs, nil
}

// Identity is what IDENTIFY DEVICE tells about the volume.
type Identity struct {
	Sectors  uint64
	Serial   string
	Model    string
	Firmware string
	LBA48    bool
}

// Bytes is the size of the volume.
func (i Identity) Bytes() int64 { return int64(i.Sectors) * SectorBytes }

// ParseIdentity reads the 512 bytes of IDENTIFY DEVICE the way the Linux driver
// does.
func ParseIdentity(p []byte) (Identity, error) {
	if len(p) < SectorBytes {
		return Identity{}, errMalformed
	}
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint16(p[2*i:])) }
	id := Identity{Serial: ataString(p[20:40]), Firmware: ataString(p[46:54]), Model: ataString(p[54:94])}
	if (word(83)|word(86))&(1<<10) != 0 {
		id.LBA48 = true
		id.Sectors = binary.LittleEndian.Uint64(p[200:]) & (maxLBA - 1)
	} else {
		id.Sectors = word(60) | word(61)<<16
	}
	return id, nil
}

// ataString undoes the byte order and the padding of an ATA string.
func ataString(p []byte) string {
	b := make([]byte, len(p))
	for i := 0; i+1 < len(p); i += 2 {
		b[i], b[i+1] = p[i+1], p[i]
	}
	from, to := 0, len(b)
	for to > from && (b[to-1] == ' ' || b[to-1] == 0) {
		to--
	}
	for from < to && b[from] == ' ' {
		from++
	}
	return string(b[from:to])
}
