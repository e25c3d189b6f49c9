package store

import (
	"errors"
	"fmt"
	"unsafe"
)

// Device is what a disk is kept on. WriteAt may be volatile until Sync returns; a write of 512 aligned bytes is not torn. Sync
// may run while ReadAt and WriteAt go on; what they write meanwhile need not be durable. Errors are final.
//
// WriteThrough writes p, and it alone is durable when it returns, as with O_DSYNC; until then any part of it may be there. It may run
// while all the others go on, but not with a write of the same place. It wants whole pages at multiples of a page, in memory from
// alignedBytes: others it may have to copy.
type Device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	WriteThrough(p []byte, off int64) (int, error)
	Sync() error
	Size() int64
	Close() error
}

// prewriter is a Device on which the first write of a place costs more than those that follow: a file, in which a reserved block has to
// be marked as written, durably. prewrite writes zeros to n bytes at off beforehand; they are durable with the next Sync.
type prewriter interface {
	prewrite(off, n int64) error
}

// cachedReader is a Device that knows whether it can read without waiting for hardware. ReadCached is ReadAt if it can, and then returns
// true; else it returns false, and p is anything.
type cachedReader interface {
	ReadCached(p []byte, off int64) bool
}

// readCached reads len(p) bytes at off, if nobody has to wait for that.
func readCached(dev Device, p []byte, off int64) bool {
	c, ok := dev.(cachedReader)
	return ok && c.ReadCached(p, off)
}

// The ways in which a device is not the disk that was asked for.
var (
	ErrNotFormatted = errors.New("not formatted as a Clade disk")
	ErrForeign      = errors.New("holds something else")
	ErrSuperblock   = errors.New("both superblocks are damaged")
	ErrTooSmall     = errors.New("too small")
	ErrFailed       = errors.New("has failed and is not used until it is opened again")
	ErrLocked       = errors.New("in use by another process")
	ErrGeneration   = errors.New("a copy of a disk that is attached elsewhere")
)

// readFull reads len(p) bytes at off.
func readFull(dev Device, p []byte, off int64) error {
	if n, err := dev.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// writeFull writes p at off.
func writeFull(dev Device, p []byte, off int64) error {
	if n, err := dev.WriteAt(p, off); err != nil || n < len(p) {
		return fmt.Errorf("write %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// writeDurable writes p at off through all caches.
func writeDurable(dev Device, p []byte, off int64) error {
	if n, err := dev.WriteThrough(p, off); err != nil || n < len(p) {
		return fmt.Errorf("write %d bytes through at %d: %w", len(p), off, err)
	}
	return nil
}

// alignedBytes returns a slice of length 0 and capacity n at an address that every device takes without a copy.
func alignedBytes(n int) []byte {
	b := make([]byte, n+pageBytes)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (pageBytes - 1)
	return b[skip : skip : skip+n]
}
