package store

import (
	"errors"
	"fmt"
)

// Device is what a disk is kept on. WriteAt may be volatile until Sync returns; a write of 512 aligned bytes is not torn. Sync
// may run while ReadAt and WriteAt go on; what they write meanwhile need not be durable. Errors are final.
type Device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error
	Size() int64
	Close() error
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
