package sim

import "encoding/binary"

// Every sector that the load writes says which write it came from, all over its 512 bytes, so that a torn or mixed sector
// shows. Values: initiator number in the top 16 bits, its write number below. A sector never written is zeros: value 0.

// valueTorn is what a sector reads as that no write made.
const valueTorn = ^uint64(0)

const sectorBytes = 512

// fillSector makes the 512 bytes of value at a sector of a volume.
func fillSector(p []byte, value, volume, lba uint64) {
	x := value*0x9E3779B97F4A7C15 ^ lba*0xC2B2AE3D27D4EB4F ^ volume<<56
	binary.LittleEndian.PutUint64(p, value)
	for i := 8; i < sectorBytes; i += 8 {
		x ^= x >> 29
		x *= 0xBF58476D1CE4E5B9
		binary.LittleEndian.PutUint64(p[i:], x)
	}
}

// readSector returns the value in 512 bytes read from a sector, or valueTorn.
func readSector(p []byte, volume, lba uint64) uint64 {
	value := binary.LittleEndian.Uint64(p)
	if value == 0 {
		for i := 0; i < sectorBytes; i += 8 {
			if binary.LittleEndian.Uint64(p[i:]) != 0 {
				return valueTorn
			}
		}
		return 0
	}
	x := value*0x9E3779B97F4A7C15 ^ lba*0xC2B2AE3D27D4EB4F ^ volume<<56
	for i := 8; i < sectorBytes; i += 8 {
		x ^= x >> 29
		x *= 0xBF58476D1CE4E5B9
		if binary.LittleEndian.Uint64(p[i:]) != x {
			return valueTorn
		}
	}
	return value
}

// simShelf is the shelf number of every simulated cluster.
const simShelf = 7
