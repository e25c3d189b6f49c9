package load

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// SectorBytes is the size of a self-describing block.
const SectorBytes = 512

// Value names what a sector holds: who wrote it, and with which write.
type Value uint64

// Values that no client writes.
const (
	Zeros   Value = 0         // a sector of zeros
	Damaged Value = 1<<64 - 1 // neither zeros nor a whole block
	Foreign Value = 1<<64 - 2 // a whole block that belongs to another LBA
	seqBits       = 40
)

// MakeValue returns the value of a client's write; seq is below 2^40.
func MakeValue(client int, seq uint64) Value {
	return Value(uint64(client+1)<<seqBits | seq&(1<<seqBits-1))
}

// Client returns who wrote the value, -1 for none.
func (v Value) Client() int {
	if v == Zeros || v >= Foreign {
		return -1
	}
	return int(v>>seqBits) - 1
}

// Seq returns the number of the client's write.
func (v Value) Seq() uint64 { return uint64(v) & (1<<seqBits - 1) }

func (v Value) String() string {
	switch v {
	case Zeros:
		return "zeros"
	case Damaged:
		return "DAMAGED"
	case Foreign:
		return "FOREIGN"
	}
	return fmt.Sprintf("c%d#%d", v.Client(), v.Seq())
}

// A block: magic 8, value 8, LBA 8, filling that follows from the two, CRC32C 4.
const (
	blockMagic = 0x434c_4144_4562_6c6b
	offValue   = 8
	offLBA     = 16
	offFill    = 24
	offCRC     = SectorBytes - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Fill writes the blocks of a value into p, a whole number of sectors from lba on.
func Fill(p []byte, v Value, lba uint64) {
	for ; len(p) >= SectorBytes; p, lba = p[SectorBytes:], lba+1 {
		b := p[:SectorBytes]
		binary.LittleEndian.PutUint64(b, blockMagic)
		binary.LittleEndian.PutUint64(b[offValue:], uint64(v))
		binary.LittleEndian.PutUint64(b[offLBA:], lba)
		x := uint64(v) ^ lba<<20
		for i := offFill; i < offCRC-4; i += 8 {
			x = mix(x)
			binary.LittleEndian.PutUint64(b[i:], x)
		}
		binary.LittleEndian.PutUint32(b[offCRC-4:], uint32(mix(x)))
		binary.LittleEndian.PutUint32(b[offCRC:], crc32.Checksum(b[:offCRC], castagnoli))
	}
}

// Parse says what a sector read from lba holds.
func Parse(b []byte, lba uint64) Value {
	b = b[:SectorBytes]
	if binary.LittleEndian.Uint64(b) != blockMagic {
		for _, c := range b {
			if c != 0 {
				return Damaged
			}
		}
		return Zeros
	}
	if binary.LittleEndian.Uint32(b[offCRC:]) != crc32.Checksum(b[:offCRC], castagnoli) {
		return Damaged
	}
	if binary.LittleEndian.Uint64(b[offLBA:]) != lba {
		return Foreign
	}
	return Value(binary.LittleEndian.Uint64(b[offValue:]))
}

// mix is one step of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
