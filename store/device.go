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

// prefetcher is a Device that has a cache. Prefetch begins to read n bytes at off into it, or does nothing; it waits for neither.
type prefetcher interface {
	Prefetch(off, n int64)
}

// starter is a Device that may be able to do a WriteThrough by itself, while its caller goes on. StartThrough begins one if it can, and
// then returns true; bell is an eventfd that is rung when it has ended. p stays as it is, and no other is begun, until EndThrough has taken
// the outcome: WriteThrough's, or errUnderWay, or errAgain if it has to be done by WriteThrough after all; where it waits, never
// errUnderWay. Both are called by whoever holds the disk, as is Close, which waits for a write that was begun.
type starter interface {
	StartThrough(p []byte, off int64, bell int) bool
	EndThrough(wait bool) (int, error)
}

// How a write that was started may not have ended.
var (
	errUnderWay = errors.New("under way")
	errAgain    = errors.New("to be written by somebody who may wait")
)

// uncacher is a Device that keeps what was read, and a starter that cannot begin to write over what is kept: somebody would have to wait
// until it is dropped. uncache drops n bytes at off of it, none of which may be on their way to the device.
type uncacher interface {
	uncache(off, n int64)
}

// uncache drops what the device has kept of n bytes at off, if it keeps any.
func uncache(dev Device, off, n int64) {
	if u, ok := dev.(uncacher); ok {
		u.uncache(off, n)
	}
}

// memoryDevice is a Device that knows whether it is kept in memory: a WriteThrough is a copy, and waits for nothing.
type memoryDevice interface {
	InMemory() bool
}

// inMemory reports whether a WriteThrough waits for nothing.
func inMemory(dev Device) bool {
	m, ok := dev.(memoryDevice)
	return ok && m.InMemory()
}

// readCached reads len(p) bytes at off, if nobody has to wait for that.
func readCached(dev Device, p []byte, off int64) bool {
	c, ok := dev.(cachedReader)
	return ok && c.ReadCached(p, off)
}

// prefetch lets the device begin to read n bytes at off, if it can.
func prefetch(dev Device, off, n int64) {
	if p, ok := dev.(prefetcher); ok {
		p.Prefetch(off, n)
	}
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
	n, err := dev.WriteThrough(p, off)
	return throughError(n, err, p, off)
}

// throughError is what the outcome of a WriteThrough says.
func throughError(n int, err error, p []byte, off int64) error {
	if err != nil || n < len(p) {
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
