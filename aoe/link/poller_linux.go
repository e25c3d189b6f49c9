package link

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sleeper waits on descriptors, when ports have some, else on a channel.
type sleeper struct {
	channelSleeper
	fds    []int // of this Wait, filled by Poller
	set    *setSleeper
	thread *threadSleeper
}

// setSleeper waits on descriptors in an epoll set of its own, which is in the Go runtime's poller: who sleeps gives his processor away
// at once. In a system call of its own it would be taken from him, by a thread that looks for such every 20 microseconds (7 % of a busy
// node's time), and somebody would have to write to a descriptor to wake him.
type setSleeper struct {
	watched []int // in the set
	file    *os.File
	raw     syscall.RawConn
	look    func(uintptr) bool // lookOnce
	peek    func(uintptr)      // lookOnce, whatever it returns
	events  [4]unix.EpollEvent
	ready   int
	err     error
	untilNs int64 // of the deadline that is set, against started; 0: none, or over
	started time.Time
}

func (s *sleeper) open(hasDescriptors, thread bool) (err error) {
	switch {
	case !hasDescriptors:
		s.channelSleeper.open()
	case thread:
		s.thread, err = newThreadSleeper()
	default:
		s.set, err = newSetSleeper()
	}
	return err
}

func (s *sleeper) begin() { s.fds = s.fds[:0] }

// rebuild is told that s.fds are not what they were.
func (s *sleeper) rebuild() error {
	if s.set == nil {
		return nil
	}
	return s.set.rebuild(s.fds)
}

// sleep returns true if one of s.fds has something. rung says whether ring has been called, or is about to be.
func (s *sleeper) sleep(timeoutNs int64, rung func() bool) (bool, error) {
	switch {
	case s.set != nil:
		return s.set.sleep(timeoutNs, rung)
	case s.thread != nil:
		return s.thread.sleep(s.fds, timeoutNs)
	}
	s.channelSleeper.sleep(timeoutNs)
	return false, nil
}

// ring wakes the sleeper.
func (s *sleeper) ring() {
	switch {
	case s.set != nil:
		s.set.ring()
	case s.thread != nil:
		s.thread.ring()
	default:
		s.channelSleeper.ring()
	}
}

// hush takes the ring back. One that is still on its way costs an idle turn.
func (s *sleeper) hush() {
	switch {
	case s.set != nil:
		s.set.untilNs = 0
	case s.thread != nil:
		s.thread.hush()
	default:
		s.channelSleeper.hush()
	}
}

func (s *sleeper) close() {
	switch {
	case s.set != nil:
		_ = s.set.file.Close() // nothing can be lost with it
	case s.thread != nil:
		_ = unix.Close(s.thread.eventFD)
	}
}

func newSetSleeper() (*setSleeper, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // else os.NewFile takes it for one that blocks
	}
	if err != nil {
		return nil, fmt.Errorf("link: epoll: %w", err)
	}
	s := &setSleeper{file: os.NewFile(uintptr(fd), "epoll"), started: time.Now()}
	if err = s.file.SetReadDeadline(time.Time{}); err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("link: epoll: the runtime cannot wait for it: %w", err)
	}
	s.look, s.peek = s.lookOnce, func(set uintptr) { s.lookOnce(set) }
	return s, nil
}

// rebuild makes fds the set. A closed descriptor has left it by itself, and its number may be another's now.
func (s *setSleeper) rebuild(fds []int) error {
	var bad error
	err := s.raw.Control(func(set uintptr) {
		for _, fd := range s.watched {
			_ = unix.EpollCtl(int(set), unix.EPOLL_CTL_DEL, fd, nil) // mostly not there any more
		}
		s.watched = append(s.watched[:0], fds...)
		for _, fd := range fds {
			e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
			if err := unix.EpollCtl(int(set), unix.EPOLL_CTL_ADD, fd, &e); err != nil && err != unix.EBADF && bad == nil {
				bad = err // EBADF: it was closed since, which is followed by a ring
			}
		}
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("link: epoll: %w", err)
	}
	return nil
}

// lookOnce asks the set, and returns true if the wait is over.
func (s *setSleeper) lookOnce(set uintptr) bool {
	if s.ready, s.err = unix.EpollWait(int(set), s.events[:], 0); errors.Is(s.err, unix.EINTR) {
		s.err = nil
	}
	return s.ready != 0 || s.err != nil
}

func (s *setSleeper) sleep(timeoutNs int64, rung func() bool) (bool, error) {
	s.ready, s.err = 0, nil
	if timeoutNs != 0 {
		s.arm(timeoutNs)
		if rung() { // just now: the ring's deadline may have been the one before ours
			timeoutNs = 0
		}
	}
	var err error
	if timeoutNs == 0 {
		err = s.raw.Control(s.peek)
	} else {
		err = s.raw.Read(s.look)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // the time has passed, or a ring
		s.untilNs, err = 0, nil
	}
	if err == nil {
		err = s.err
	}
	if err != nil {
		return false, fmt.Errorf("link: poll: %w", err)
	}
	return s.ready > 0, nil
}

// arm sees to it that the wait ends after timeoutNs, or somewhat earlier: a deadline that is set already may serve this wait, too.
func (s *setSleeper) arm(timeoutNs int64) {
	var until int64 = 1 << 62
	now := int64(time.Since(s.started))
	if timeoutNs > 0 && timeoutNs < 1<<61 {
		until = now + timeoutNs
	}
	if s.untilNs > now && s.untilNs <= until {
		return
	}
	var at time.Time
	if s.untilNs = until; until != 1<<62 {
		at = s.started.Add(time.Duration(until))
	}
	_ = s.file.SetReadDeadline(at) // fails only when it is closed: so will the wait
}

var longAgo = time.Unix(1, 0)

func (s *setSleeper) ring() {
	_ = s.file.SetReadDeadline(longAgo) // fails only when it is closed: so has the wait
}

// threadSleeper waits in ppoll.
type threadSleeper struct {
	eventFD int
	polled  []unix.PollFd
	timeout unix.Timespec
}

func newThreadSleeper() (*threadSleeper, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("link: eventfd: %w", err)
	}
	return &threadSleeper{eventFD: fd}, nil
}

func (s *threadSleeper) sleep(fds []int, timeoutNs int64) (bool, error) {
	s.polled = append(s.polled[:0], unix.PollFd{Fd: int32(s.eventFD), Events: unix.POLLIN})
	for _, fd := range fds {
		s.polled = append(s.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	var timeout *unix.Timespec
	if timeoutNs >= 0 {
		s.timeout = unix.NsecToTimespec(timeoutNs)
		timeout = &s.timeout
	}
	n, err := unix.Ppoll(s.polled, timeout, nil)
	if err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("link: poll: %w", err)
	}
	if n > 0 && s.polled[0].Revents != 0 {
		n--
	}
	return n > 0, nil
}

func (s *threadSleeper) ring() {
	one := uint64(1)
	// A full counter (EAGAIN) has woken the sleeper already.
	_, _ = unix.Write(s.eventFD, (*[8]byte)(unsafe.Pointer(&one))[:])
}

func (s *threadSleeper) hush() {
	var count [8]byte
	_, _ = unix.Read(s.eventFD, count[:])
}
