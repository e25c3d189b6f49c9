package runtime

import (
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a peer's TCP connection outside of the Go runtime's poller: the core sleeps on it itself, together with the SAN. Otherwise each
// message would wake a thread that waits for all descriptors, a goroutine that reads, and then the core.
//
// One goroutine reads; whoever has the right to send writes (lanes). shutdown may be called by anybody at any time before close.
type socket struct {
	fd   int
	iovs []unix.Iovec // of write
}

// takeSocket takes a connection over, which is closed in any case.
func takeSocket(c *net.TCPConn) (*socket, error) {
	defer c.Close() //nolint:errcheck // its descriptor lives on in the copy
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{fd: -1}
	var derr error
	if err := raw.Control(func(fd uintptr) { s.fd, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	return s, derr
}

// read is one attempt to read into p, which is not empty; 0 and no error: there is nothing. It keeps its processor, as all that never waits.
func (s *socket) read(p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, nil
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return int(n), nil
}

// iovsMax is IOV_MAX: what the kernel takes at once.
const iovsMax = 1024

// tryWrite is one attempt to write bufs; what of it went, as far as the kernel took it at once.
func (s *socket) tryWrite(bufs net.Buffers) (int, error) {
	s.iovs = s.iovs[:0]
	for _, b := range bufs[:min(len(bufs), iovsMax)] {
		if len(b) == 0 {
			continue
		}
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		s.iovs = append(s.iovs, v)
	}
	if len(s.iovs) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(s.fd), uintptr(unsafe.Pointer(&s.iovs[0])), uintptr(len(s.iovs)))
	clear(s.iovs) // it keeps no blocks alive
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, nil
	case errno != 0:
		return 0, errno
	}
	return int(n), nil
}

// write writes all of bufs, and waits where it must. It returns how much went.
func (s *socket) write(bufs net.Buffers) (int, error) {
	all := 0
	for len(bufs) > 0 {
		n, err := s.tryWrite(bufs)
		if err != nil {
			return all, err
		}
		if all += n; n == 0 && !s.awaitRoom() {
			return all, io.ErrClosedPipe
		}
		bufs = skip(bufs, n)
	}
	return all, nil
}

// awaitRoom waits until something can be written, or the connection is over.
func (s *socket) awaitRoom() bool {
	p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	for {
		if _, err := unix.Poll(p, -1); err != unix.EINTR {
			return err == nil
		}
	}
}

// skip returns what follows the first n bytes of bufs, whose elements it may change.
func skip(bufs net.Buffers, n int) net.Buffers {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// shutdown ends the connection for everybody who reads or writes.
func (s *socket) shutdown() { _ = unix.Shutdown(s.fd, unix.SHUT_RDWR) } // it may be over

func (s *socket) close() { _ = unix.Close(s.fd) } // nothing follows on it
