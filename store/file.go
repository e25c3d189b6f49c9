//go:build linux

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// fileDevice is a regular file or a block device that this process alone has open.
type fileDevice struct {
	f    *os.File
	size int64

	syncing sync.Mutex
	failed  error // of a Sync
}

// OpenFile opens a regular file or a block device as a Device and locks it against other processes (ErrLocked). A block device is
// opened exclusively as well: the kernel refuses it while it is mounted or part of another device. The caller closes it.
func OpenFile(path string) (Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	flags := os.O_RDWR
	block := info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	switch {
	case block:
		flags |= unix.O_EXCL
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("store: %s is neither a file nor a block device", path)
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	d, err := lockFile(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	return d, nil
}

func lockFile(f *os.File) (*fileDevice, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd) // Stat says 0 of a block device
	if err != nil {
		return nil, err
	}
	return &fileDevice{f: f, size: size}, nil
}

// CreateFile makes a file of sizeBytes for use as a disk; it fails if the path exists. The space is reserved, so that later writes
// cannot fail for want of it, if the file system can do that.
func CreateFile(path string, sizeBytes int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, sizeBytes)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = f.Truncate(sizeBytes)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("store: %s: %d bytes: %w", path, sizeBytes, err)
	}
	return nil
}

func (d *fileDevice) ReadAt(p []byte, off int64) (int, error) { return d.f.ReadAt(p, off) }

// WriteAt refuses to let a file grow: what lies beyond the size at opening is not this disk's.
func (d *fileDevice) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write beyond the device's %d bytes: %w", d.size, io.ErrShortWrite)
	}
	return d.f.WriteAt(p, off)
}

// Sync is fdatasync: size and contents, not the times. The kernel tells of a failed write-back once, to one of the calls that wait for
// it, and the next one finds nothing wrong: so calls go one after the other, and once one has failed, all do.
func (d *fileDevice) Sync() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	for d.failed == nil {
		err := unix.Fdatasync(int(d.f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			d.failed = err
		}
	}
	return d.failed
}

func (d *fileDevice) Size() int64  { return d.size }
func (d *fileDevice) Close() error { return d.f.Close() }
