package aoe

import "encoding/binary"

// Identity is what an initiator sees of a volume besides its bytes. It is fixed when the volume is made and the same on every
// node for ever: a change would look like another disk (M3).
type Identity struct {
	Shelf        uint16 `json:"shelf"`
	Slot         uint8  `json:"slot"`
	Sectors      uint64 `json:"sectors"`
	Serial       string `json:"serial"`   // at most 20 characters
	Model        string `json:"model"`    // at most 40
	Firmware     string `json:"firmware"` // at most 8
	BufCount     uint16 `json:"buf_count"`
	FirmwareWord uint16 `json:"firmware_word"`
	SectorCount  uint8  `json:"sector_count"`
}

// AppendIdentify appends the 512 bytes of IDENTIFY DEVICE: little-endian words, strings byte-swapped and space padded.
func (id *Identity) AppendIdentify(dst []byte) []byte {
	from := len(dst)
	for range SectorBytes / FrameBytesMin {
		dst = append(dst, zeros[:]...)
	}
	dst = append(dst, zeros[:SectorBytes-(len(dst)-from)]...)
	b := dst[from:]
	word := func(n int, v uint16) { binary.LittleEndian.PutUint16(b[2*n:], v) }
	identifyString(b[20:40], id.Serial)
	identifyString(b[46:54], id.Firmware)
	identifyString(b[54:94], id.Model)
	word(47, 0x8000)
	word(49, 0x0200) // LBA
	word(50, 0x4000)
	word(53, 0x0002)
	lba28 := min(id.Sectors, 0x0FFFFFFF)
	word(60, uint16(lba28))
	word(61, uint16(lba28>>16))
	word(80, 0x00F0) // ATA-4..7
	word(82, 0x0001) // SMART feature set: aoeping -S asks only if it is there
	word(83, 0x7400) // valid, FLUSH CACHE EXT, FLUSH CACHE, LBA48
	word(84, 0x4000)
	word(85, 0x0001)
	word(86, 0x3400)
	word(87, 0x4000)
	word(93, 0x400B)
	for i := range 4 {
		word(100+i, uint16(id.Sectors>>(16*i)))
	}
	return dst
}

func identifyString(dst []byte, s string) {
	for i := range dst {
		c := byte(' ')
		if i < len(s) {
			c = s[i]
		}
		dst[i^1] = c
	}
}

// Identified is what an initiator learns from IDENTIFY DEVICE.
type Identified struct {
	Sectors  uint64 `json:"sectors"`
	LBA48    bool   `json:"lba48"`
	Serial   string `json:"serial"`
	Model    string `json:"model"`
	Firmware string `json:"firmware"`
}

// ParseIdentify reads an IDENTIFY block of at least 512 bytes; ok is false for a shorter one.
func ParseIdentify(b []byte) (out Identified, ok bool) {
	if len(b) < SectorBytes {
		return out, false
	}
	word := func(n int) uint64 { return uint64(binary.LittleEndian.Uint16(b[2*n:])) }
	out.LBA48 = (word(83)|word(86))&0x0400 != 0
	if out.LBA48 {
		out.Sectors = word(100) | word(101)<<16 | word(102)<<32 | word(103)<<48
	} else {
		out.Sectors = word(60) | word(61)<<16
	}
	out.Serial, out.Firmware, out.Model = readString(b[20:40]), readString(b[46:54]), readString(b[54:94])
	return out, true
}

func readString(b []byte) string {
	s := make([]byte, len(b))
	for i := range b {
		s[i] = b[i^1]
	}
	n := len(s)
	for n > 0 && (s[n-1] == ' ' || s[n-1] == 0) {
		n--
	}
	return string(s[:n])
}
