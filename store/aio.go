//go:build linux

package store

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iocb is the kernel's struct iocb as little-endian machines have it. On others key and flags change places: then the kernel takes no
// notice of the flags, and what they are for is not had.
type iocb struct {
	_       uint64 // data
	_       uint32 // key
	rwFlags uint32
	opcode  uint16
	_       int16 // priority
	fd      uint32
	buf     uint64
	bytes   uint64
	offset  int64
	_       uint64
	flags   uint32
	eventfd uint32
}

// ioEvent is the kernel's struct io_event.
type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

const (
	iocbPwrite  = 1 // IOCB_CMD_PWRITE
	iocbEventfd = 1 // IOCB_FLAG_RESFD
)

// aioWrite is the one write at a time that the kernel goes on with by itself, Linux' native AIO. Whoever holds the disk uses it.
type aioWrite struct {
	ctx   uintptr // the kernel's io_context, 0: not made yet
	never bool    // this machine, file system or device has no use for it
	p     []byte  // under way: the kernel reads it until the outcome is taken; nil: none is
	cb    iocb
	event ioEvent
}

// open makes the io_context, the first time. A machine that has none to give, or whose sandbox forbids it, is not asked again.
func (a *aioWrite) open() bool {
	if a.ctx == 0 && !a.never {
		_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&a.ctx)), 0)
		a.never = errno != 0
	}
	return !a.never
}

// submit begins to write p. With RWF_NOWAIT the kernel gives up rather than sleep on an inode's lock or a full queue: at once, or by way
// of the event.
func (a *aioWrite) submit(fd uintptr, p []byte, off int64, bell int) error {
	a.cb = iocb{
		rwFlags: unix.RWF_NOWAIT, opcode: iocbPwrite, fd: uint32(fd),
		buf: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), bytes: uint64(len(p)), offset: off,
		flags: iocbEventfd, eventfd: uint32(bell),
	}
	a.p = p
	list := &a.cb
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, a.ctx, 1, uintptr(unsafe.Pointer(&list))); errno != 0 {
		a.p = nil
		return errno
	}
	return nil
}

// take takes the event of the write under way, and reports whether there is one yet. An error of its own leaves p with the kernel.
func (a *aioWrite) take(wait bool) (bool, error) {
	least, timeout := uintptr(1), (*unix.Timespec)(nil)
	if !wait {
		least, timeout = 0, &unix.Timespec{}
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, a.ctx, least, 1, uintptr(unsafe.Pointer(&a.event)), uintptr(unsafe.Pointer(timeout)), 0)
		switch {
		case errno == 0 && (n > 0 || !wait):
			return n > 0, nil
		case errno != 0 && errno != unix.EINTR:
			return false, errno
		}
	}
}

// close ends the io_context, which waits for a write under way: its memory may go then.
func (a *aioWrite) close() error {
	ctx := a.ctx
	a.ctx, a.never = 0, true
	if ctx != 0 {
		if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0); errno != 0 {
			return fmt.Errorf("io_destroy: %w", errno) // p stays with the kernel
		}
	}
	a.p = nil
	return nil
}

// StartThrough lets the kernel write p, if it can do that past the page cache and without keeping its caller: a write that goes through
// the cache is made in the call that should only begin it.
func (d *fileDevice) StartThrough(p []byte, off int64, bell int) bool {
	whole := (uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))|uint64(len(p))|uint64(off))%pageBytes == 0
	if !whole || len(p) == 0 || off < 0 || off+int64(len(p)) > d.size {
		return false
	}
	if d.memory || !d.direct.Load() || d.aio.p != nil || d.fault() != nil || !d.aio.open() {
		return false
	}
	err := d.aio.submit(d.through.Fd(), p, off, bell)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOMEM) {
		d.aio.never = true
	}
	return err == nil
}

// EndThrough takes the outcome. What the kernel has not done because it would have had to wait, or has done in part, is WriteThrough's,
// as are the errors that say, before anything is written, that this cannot be done here at all; every other error is final.
func (d *fileDevice) EndThrough(wait bool) (int, error) {
	a := &d.aio
	if a.p == nil {
		return 0, os.ErrClosed // Close has waited for it, and nobody knows how it ended
	}
	ended, err := a.take(wait)
	switch {
	case err != nil:
		err = fmt.Errorf("io_getevents: %w", err)
		d.fail(err)
		return 0, err
	case !ended:
		return 0, errUnderWay
	}
	n, whole := a.event.res, int64(len(a.p))
	a.p = nil
	if n == whole {
		return int(n), nil
	}
	if n >= 0 {
		return 0, errAgain
	}
	switch errno := unix.Errno(-n); errno {
	case unix.EOPNOTSUPP, unix.EINVAL:
		a.never = true
		return 0, errAgain
	case unix.EAGAIN, unix.EINTR:
		return 0, errAgain
	default:
		err := &os.PathError{Op: "write", Path: d.through.Name(), Err: errno}
		d.fail(err)
		return 0, err
	}
}

// uncache drops pages from the page cache. That it does not succeed costs writes that have to be done again, nothing else.
func (d *fileDevice) uncache(off, n int64) {
	_ = unix.Fadvise(int(d.f.Fd()), off, n, unix.FADV_DONTNEED)
}

// InMemory reports whether the file system is in memory.
func (d *fileDevice) InMemory() bool { return d.memory }
