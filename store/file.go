//go:build linux

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fileDevice is a regular file or a block device that this process alone has open.
type fileDevice struct {
	f       *os.File
	through *os.File    // the same, with O_DSYNC and, where that is possible, O_DIRECT
	direct  atomic.Bool // through has O_DIRECT
	size    int64
	memory  bool        // the file system is in memory: no read waits
	waits   atomic.Bool // it cannot say whether a read would wait
	aio     aioWrite

	syncing sync.Mutex // held during Sync
	mu      sync.Mutex
	failed  error // of a Sync or a WriteThrough
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
	if err == nil {
		var direct bool
		if d.through, direct, err = openThrough(path, f); err == nil {
			d.direct.Store(direct)
			return d, nil
		}
	}
	_ = f.Close()
	return nil, fmt.Errorf("store: %s: %w", path, err)
}

// openThrough opens the file f once more, for writes that are durable when they return. They go past the page cache where the file
// system can do that (direct): one that goes through it costs a copy. Block devices are not asked for exclusively a second time.
func openThrough(path string, f *os.File) (t *os.File, direct bool, err error) {
	t, err = os.OpenFile(path, os.O_RDWR|unix.O_DSYNC, 0)
	if err != nil {
		return nil, false, err
	}
	mine, err := f.Stat()
	if err == nil {
		var other os.FileInfo
		if other, err = t.Stat(); err == nil && !os.SameFile(mine, other) {
			err = errors.New("was replaced while it was being opened")
		}
	}
	if err == nil {
		derr := setDirect(t, true)
		if direct = derr == nil; !direct && !errors.Is(derr, unix.EINVAL) {
			err = derr
		}
	}
	if err != nil {
		_ = t.Close()
		return nil, false, err
	}
	return t, direct, nil
}

// setDirect switches O_DIRECT; EINVAL: the file system has none.
func setDirect(f *os.File, on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("F_GETFL: %w", err)
	}
	if flags &^= unix.O_DIRECT; on {
		flags |= unix.O_DIRECT
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags); err != nil {
		return fmt.Errorf("O_DIRECT: %w", err)
	}
	return nil
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
	var fs unix.Statfs_t
	memory := unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.TMPFS_MAGIC
	return &fileDevice{f: f, size: size, memory: memory}, nil
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

// ReadCached reads what is in the page cache.
func (d *fileDevice) ReadCached(p []byte, off int64) bool {
	if d.memory {
		n, _ := d.f.ReadAt(p, off) // who is told false reads again, and meets the error
		return n == len(p)
	}
	if d.waits.Load() {
		return false
	}
	n, err := unix.Preadv2(int(d.f.Fd()), [][]byte{p}, off, unix.RWF_NOWAIT)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		d.waits.Store(true)
	}
	return err == nil && n == len(p)
}

// Prefetch has the kernel read into the page cache. That it does not costs whoever reads then a wait, nothing else.
func (d *fileDevice) Prefetch(off, n int64) {
	if !d.memory {
		_ = unix.Fadvise(int(d.f.Fd()), off, n, unix.FADV_WILLNEED)
	}
}

// WriteAt refuses to let a file grow: what lies beyond the size at opening is not this disk's.
func (d *fileDevice) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write beyond the device's %d bytes: %w", d.size, io.ErrShortWrite)
	}
	return writeSmall(d.f, p, off)
}

// smallBytesMax is the most that is written to the page cache at once: the kernel keeps what is written at once in pieces of that size, and
// goes through all blocks of a piece for each one that is written later. With 1 MiB a block at a random place takes four times as long.
const smallBytesMax = 32 << 10

// writeSmall writes p in pieces.
func writeSmall(f *os.File, p []byte, off int64) (int, error) {
	for n := 0; ; {
		k, err := f.WriteAt(p[n:min(n+smallBytesMax, len(p))], off+int64(n))
		if n += k; err != nil || n >= len(p) {
			return n, err
		}
	}
}

// WriteThrough is one write with O_DSYNC. Nothing is ever tried again after an error: what has become of the pages is unknown. But
// EINVAL says, before anything is written, that this file system or device does not take O_DIRECT, or not what we align to: then the
// page cache is used from now on.
func (d *fileDevice) WriteThrough(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write beyond the device's %d bytes: %w", d.size, io.ErrShortWrite)
	}
	if err := d.fault(); err != nil {
		return 0, err
	}
	n, err := d.through.WriteAt(p, off)
	if n == 0 && errors.Is(err, unix.EINVAL) && setDirect(d.through, false) == nil {
		d.direct.Store(false)
		n, err = d.through.WriteAt(p, off)
	}
	if err != nil {
		d.fail(err)
	}
	return n, err
}

// prewrite writes zeros to a stretch of a regular file. A block device has no blocks that are not written.
func (d *fileDevice) prewrite(off, n int64) error {
	if info, err := d.f.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	const chunk = 4 << 20
	zeros := alignedBytes(chunk)[:chunk]
	for ; n > 0; off, n = off+chunk, n-chunk {
		if _, err := d.WriteThrough(zeros[:min(chunk, n)], off); err != nil {
			return err
		}
	}
	return nil
}

// Sync is fdatasync: size and contents, not the times. The kernel tells of a failed write-back once, to one of the calls that wait for
// it, and the next one finds nothing wrong: so calls go one after the other, and once one has failed, all do.
func (d *fileDevice) Sync() error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	for d.fault() == nil {
		err := unix.Fdatasync(int(d.f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			d.fail(err)
		}
	}
	return d.fault()
}

func (d *fileDevice) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = err
	}
}

func (d *fileDevice) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

func (d *fileDevice) Size() int64 { return d.size }

// Close waits for a write that was started, and closes both descriptors, the one that holds the lock last.
func (d *fileDevice) Close() error {
	return errors.Join(d.aio.close(), d.through.Close(), d.f.Close())
}
