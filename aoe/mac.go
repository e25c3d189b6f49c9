package aoe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MAC is an Ethernet address. It is our own type so that pure code needs no package net.
type MAC [6]byte

// Broadcast is ff:ff:ff:ff:ff:ff.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns the address as lower-case hex with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// ParseMAC reads an address written as six hex bytes with colons or hyphens, or as twelve hex digits.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
	if len(parts) == 1 && len(s) == 12 {
		parts = []string{s[0:2], s[2:4], s[4:6], s[6:8], s[8:10], s[10:12]}
	}
	if len(parts) != 6 {
		return m, fmt.Errorf("%q is no MAC address: write it as 02:00:00:00:00:01", s)
	}
	for i, p := range parts {
		b, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) > 2 {
			return m, fmt.Errorf("%q is no MAC address: write it as 02:00:00:00:00:01", s)
		}
		m[i] = byte(b)
	}
	return m, nil
}

// MarshalText writes the address for JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	*m = v
	return err
}

// IsGroup reports whether the address is broadcast or multicast: nobody sends from one.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// ServingMAC returns the MAC that serves a slot on one SAN path: locally administered, the same on every node, so that it can
// move. Slot and path stand in it as they are, so two slots or paths of one shelf never share one; the rest is a hash of
// cluster and shelf.
func ServingMAC(cluster [16]byte, shelf uint16, slot, path uint8) MAC {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range cluster {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ uint64(shelf>>8)) * 1099511628211
	h = (h ^ uint64(shelf&0xff)) * 1099511628211
	h ^= h >> 32
	return MAC{byte(h)&0xFC | 0x02, byte(h >> 8), byte(h >> 16), byte(h >> 24), path, slot}
}

// The addresses that no target may have: initiators take 4095 and 65535 for "no shelf" and 255 for "all slots" (trap 22).
const (
	ShelfWildcard = 0xFFFF
	SlotWildcard  = 0xFF
)

// ValidateAddress reports why a shelf and slot cannot be served, or nil.
func ValidateAddress(shelf uint16, slot uint8) error {
	switch {
	case shelf == 4095 || shelf == ShelfWildcard:
		return fmt.Errorf("shelf %d: Linux refuses 4095 and 65535 is the wildcard; choose another from 0 to 65534", shelf)
	case slot == SlotWildcard:
		return errors.New("slot 255 is the wildcard; choose one from 0 to 254")
	}
	return nil
}

// MaxSectors returns the sector count to advertise for an MTU: whole 4 KiB blocks where they fit, so 16 for 9000, not 17. The
// header is counted whole, as the Linux driver does.
func MaxSectors(mtu int) uint8 {
	switch n := (mtu - ATAHeaderBytes) / SectorBytes; {
	case n >= 16:
		return 16
	case n >= 8:
		return 8
	case n >= 1:
		return uint8(n)
	}
	return 0
}

// MTUFor returns the smallest interface MTU that carries n sectors by the Linux driver's formula, (mtu-36)/512.
func MTUFor(sectors uint8) int { return int(sectors)*SectorBytes + ATAHeaderBytes }
