package aoe

import "encoding/binary"

// BeaconEtherType carries the beacons between nodes on each SAN path: the IEEE's type for local experiments (B: L1).
const BeaconEtherType = 0x88B5

// NodeBeaconBytes is the length of a node beacon frame, the Ethernet minimum.
const NodeBeaconBytes = FrameBytesMin

var beaconMagic = [4]byte{'C', 'l', 'a', 'd'}

// NodeBeacon says that a node's SAN interface can send on a path.
type NodeBeacon struct {
	Cluster [16]byte
	Node    uint64
	Path    uint8
	Seq     uint64
}

// AppendNodeBeacon appends the broadcast frame of a beacon from the given source address.
func AppendNodeBeacon(dst []byte, src MAC, b NodeBeacon) []byte {
	from := len(dst)
	dst = append(dst, Broadcast[:]...)
	dst = append(dst, src[:]...)
	dst = append(dst, BeaconEtherType>>8, BeaconEtherType&0xff)
	dst = append(dst, beaconMagic[:]...)
	dst = append(dst, b.Cluster[:]...)
	dst = binary.BigEndian.AppendUint64(dst, b.Node)
	dst = append(dst, b.Path)
	dst = binary.BigEndian.AppendUint64(dst, b.Seq)
	return pad(dst, from)
}

// ParseNodeBeacon reads a beacon frame; ok is false for anything else.
func ParseNodeBeacon(f []byte) (b NodeBeacon, ok bool) {
	if len(f) < 51 || binary.BigEndian.Uint16(f[12:]) != BeaconEtherType || [4]byte(f[14:18]) != beaconMagic {
		return b, false
	}
	return NodeBeacon{Cluster: [16]byte(f[18:34]), Node: binary.BigEndian.Uint64(f[34:]), Path: f[42], Seq: binary.BigEndian.Uint64(f[43:])}, true
}
