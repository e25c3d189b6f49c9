package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"clade/raid"
)

const (
	pageBytes     = 4096
	superMagic    = "CLADEDSK"
	formatVersion = 2
	imageOffset   = 2 * pageBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Identity says which disk of which cluster a device holds.
type Identity struct {
	Cluster   [16]byte    `json:"cluster"`
	UUID      [16]byte    `json:"uuid"`
	Disk      raid.DiskID `json:"disk"`
	AttachGen uint64      `json:"attach_gen"` // grows with each attachment to a node: a clone has an old one (B: M7)
}

// super is a superblock.
type super struct {
	Identity
	seq          uint64
	deviceBytes  uint64
	imageBytes   uint64
	journalBytes uint64
	regions      uint64
	incarnation  uint64
	image        uint32 // which copy
	imageLen     uint32
	imageCRC     uint32
	tail         position
}

// position is a place in the journal: where the group lsn begins, and the checksum of the group before it.
type position struct {
	off   int64 // from the start of the journal
	lsn   uint64
	chain uint32
}

func (s *super) encode() []byte {
	b := make([]byte, 12, pageBytes)
	copy(b, superMagic)
	le := binary.LittleEndian
	b = le.AppendUint32(b, formatVersion)
	b = le.AppendUint64(b, s.seq)
	b = append(b, s.Cluster[:]...)
	b = append(b, s.UUID[:]...)
	b = le.AppendUint32(b, uint32(s.Disk))
	for _, v := range []uint64{s.AttachGen, s.deviceBytes, s.imageBytes, s.journalBytes, s.regions, s.incarnation} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, s.image)
	b = le.AppendUint32(b, s.imageLen)
	b = le.AppendUint32(b, s.imageCRC)
	b = le.AppendUint64(b, uint64(s.tail.off))
	b = le.AppendUint64(b, s.tail.lsn)
	b = le.AppendUint32(b, s.tail.chain)
	b = b[:pageBytes]
	le.PutUint32(b[8:], crcOf(b[12:]))
	return b
}

// decodeSuper reads a superblock; an error says what is wrong with it.
func decodeSuper(b []byte) (*super, error) {
	if len(b) < pageBytes || !bytes.Equal(b[:8], []byte(superMagic)) {
		return nil, ErrNotFormatted
	}
	le := binary.LittleEndian
	if crcOf(b[12:pageBytes]) != le.Uint32(b[8:]) {
		return nil, fmt.Errorf("superblock checksum: %w", ErrSuperblock)
	}
	if v := le.Uint32(b[12:]); v != formatVersion {
		return nil, fmt.Errorf("format version %d, this binary knows %d: use the binary that wrote it", v, formatVersion)
	}
	s := &super{seq: le.Uint64(b[16:])}
	copy(s.Cluster[:], b[24:])
	copy(s.UUID[:], b[40:])
	s.Disk = raid.DiskID(le.Uint32(b[56:]))
	s.AttachGen, s.deviceBytes, s.imageBytes = le.Uint64(b[60:]), le.Uint64(b[68:]), le.Uint64(b[76:])
	s.journalBytes, s.regions, s.incarnation = le.Uint64(b[84:]), le.Uint64(b[92:]), le.Uint64(b[100:])
	s.image, s.imageLen, s.imageCRC = le.Uint32(b[108:]), le.Uint32(b[112:]), le.Uint32(b[116:])
	s.tail = position{off: int64(le.Uint64(b[120:])), lsn: le.Uint64(b[128:]), chain: le.Uint32(b[136:])}
	return s, s.plausible()
}

// plausible refuses geometries that no Format makes: a checksum is no proof of sense.
func (s *super) plausible() error {
	const most = 1 << 56
	switch {
	case s.deviceBytes > most || s.imageBytes > most || s.journalBytes > most || s.regions > most>>20,
		s.imageBytes%pageBytes != 0 || s.journalBytes%pageBytes != 0 || s.journalBytes < 1<<20,
		s.image > 1 || uint64(s.imageLen) > s.imageBytes,
		s.tail.off < 0 || s.tail.off%pageBytes != 0 || uint64(s.tail.off) > s.journalBytes,
		s.dataOffset(s.regions) > int64(s.deviceBytes):
		return fmt.Errorf("superblock geometry: %w", ErrSuperblock)
	}
	return nil
}

func (s *super) imageAt(which uint32) int64 { return imageOffset + int64(which)*int64(s.imageBytes) }
func (s *super) journalOffset() int64       { return imageOffset + 2*int64(s.imageBytes) }
func (s *super) pagesOffset() int64         { return s.journalOffset() + int64(s.journalBytes) }
func (s *super) pageOffset(slot uint64, which int) int64 {
	return s.pagesOffset() + (2*int64(slot)+int64(which))*pageBytes
}
func (s *super) dataOffset(slot uint64) int64 {
	start := s.pagesOffset() + 2*pageBytes*int64(s.regions)
	start = (start + raid.RegionBytes - 1) / raid.RegionBytes * raid.RegionBytes
	return start + int64(slot)*raid.RegionBytes
}

// readSupers returns the valid superblocks, newest first. A copy that cannot be read is one that is not valid: the other is there for
// that. Only when neither can be read is it the device's error.
func readSupers(dev Device) ([]*super, error) {
	var out []*super
	var errs [2]error
	for i := range 2 {
		b := make([]byte, pageBytes)
		if errs[i] = readFull(dev, b, int64(i)*pageBytes); errs[i] != nil {
			continue
		}
		var s *super
		if s, errs[i] = decodeSuper(b); errs[i] == nil {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		if errors.Is(errs[0], ErrNotFormatted) && errors.Is(errs[1], ErrNotFormatted) {
			return nil, ErrNotFormatted
		}
		if !errors.Is(errs[0], ErrNotFormatted) {
			return nil, errs[0]
		}
		return nil, errs[1]
	}
	if len(out) == 2 && out[1].seq > out[0].seq {
		out[0], out[1] = out[1], out[0]
	}
	return out, nil
}
