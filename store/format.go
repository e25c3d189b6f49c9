package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"clade/raid"
)

// FormatOptions says how a device is laid out; zero fields get the documented defaults.
type FormatOptions struct {
	JournalBytes int64 // default: size/32, at least 64 MiB and at most 1 GiB, at most a quarter of the device; at least 8 MiB
	Force        bool  // overwrite whatever is there
}

// Format makes a device an empty disk. It refuses a device that holds anything unless forced; the error says what.
func Format(dev Device, id Identity, opt FormatOptions) error {
	if what, err := Occupied(dev); err != nil {
		return fmt.Errorf("store: %w", err)
	} else if what != "" && !opt.Force {
		return fmt.Errorf("store: the device %w: %s; --force destroys it", ErrForeign, what)
	}
	size := dev.Size()
	j := opt.JournalBytes
	if j == 0 {
		j = min(max(size/32, 64<<20), 1<<30, size/4)
	}
	s := &super{Identity: id, seq: 1, deviceBytes: uint64(size), journalBytes: uint64(max(j, 8<<20) / pageBytes * pageBytes)}
	// Room for the volumes' shards, and for the identity of every record that the journal can hold back.
	s.imageBytes = max(1<<20, uint64(size)/(32<<20)*64+s.journalBytes/64) / pageBytes * pageBytes
	rest := size - s.pagesOffset() - raid.RegionBytes
	if rest < 2*raid.RegionBytes {
		return fmt.Errorf("store: the device has %d MiB, %w: at least %d MiB are needed", size>>20, ErrTooSmall, (s.pagesOffset()>>20)+4)
	}
	s.regions = uint64(rest) / (raid.RegionBytes + 2*pageBytes)
	if p, ok := dev.(prewriter); ok {
		if err := p.prewrite(s.journalOffset(), int64(s.journalBytes)); err != nil {
			return fmt.Errorf("store: format: journal: %w", err)
		}
	}
	img := encodeImage(nil)
	s.imageLen, s.imageCRC, s.tail.lsn = uint32(len(img)), crcOf(img), 1
	zero := make([]byte, pageBytes)
	for _, w := range []struct {
		b   []byte
		off int64
	}{{zero, 0}, {zero, pageBytes}, {img, s.imageAt(0)}, {zero, s.journalOffset()}} {
		if err := writeFull(dev, w.b, w.off); err != nil {
			return fmt.Errorf("store: format: %w", err)
		}
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("store: format: sync: %w", err)
	}
	if err := writeFull(dev, s.encode(), int64(s.seq%2)*pageBytes); err != nil {
		return fmt.Errorf("store: format: %w", err)
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("store: format: sync: %w", err)
	}
	return nil
}

// ReadIdentity returns which disk a device holds.
func ReadIdentity(dev Device) (Identity, error) {
	all, err := readSupers(dev)
	if err != nil {
		return Identity{}, fmt.Errorf("store: %w", err)
	}
	return all[0].Identity, nil
}

// SetIdentity gives a formatted disk that is not open another identity: what the cluster has assigned to it.
func SetIdentity(dev Device, id Identity) error {
	all, err := readSupers(dev)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s := all[0]
	s.Identity = id
	s.seq++
	if err := writeFull(dev, s.encode(), int64(s.seq%2)*pageBytes); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("store: sync: %w", err)
	}
	return nil
}

// Occupied says in words what a device holds, "" if it is blank: its first MiB is all zeros.
func Occupied(dev Device) (string, error) {
	if dev.Size() < 1<<20 {
		return "", nil
	}
	if all, err := readSupers(dev); err == nil {
		return fmt.Sprintf("disk %d of cluster %x with its volumes", all[0].Disk, all[0].Cluster), nil
	}
	b := make([]byte, 1<<20)
	if err := readFull(dev, b, 0); err != nil {
		return "", err
	}
	switch {
	case bytes.HasPrefix(b, []byte(superMagic)) || bytes.HasPrefix(b[pageBytes:], []byte(superMagic)):
		return "a Clade disk whose superblocks are damaged", nil
	case binary.LittleEndian.Uint16(b[1024+56:]) == 0xEF53:
		return "an ext2/3/4 file system", nil
	case bytes.HasPrefix(b, []byte("XFSB")):
		return "an XFS file system", nil
	case bytes.Contains(b[:2048], []byte("LABELONE")):
		return "an LVM physical volume", nil
	case bytes.HasPrefix(b[65536+64:], []byte("_BHRfS_M")):
		return "a btrfs file system", nil
	case bytes.HasPrefix(b[512:], []byte("EFI PART")), b[510] == 0x55 && b[511] == 0xAA:
		return "a partition table", nil
	case bytes.Count(b, []byte{0}) != len(b):
		return "unknown data", nil
	}
	return "", nil
}
