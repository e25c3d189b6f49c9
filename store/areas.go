package store

import "fmt"

// Area is a part of a formatted device, in bytes.
type Area struct {
	Offset, Bytes int64
}

// DiskAreas says what lies where on a formatted device.
type DiskAreas struct {
	Image   Area // both copies of the state as of a checkpoint
	Journal Area
	Pages   Area // both slots of every region's checksums
	Data    Area
}

// Areas returns what lies where, for tests that damage a disk in a place of their choice.
func Areas(dev Device) (DiskAreas, error) {
	all, err := readSupers(dev)
	if err != nil {
		return DiskAreas{}, fmt.Errorf("store: %w", err)
	}
	s := all[0]
	return DiskAreas{
		Image:   Area{s.imageAt(0), 2 * int64(s.imageBytes)},
		Journal: Area{s.journalOffset(), int64(s.journalBytes)},
		Pages:   Area{s.pagesOffset(), 2 * pageBytes * int64(s.regions)},
		Data:    Area{s.dataOffset(0), s.dataOffset(s.regions) - s.dataOffset(0)},
	}, nil
}
