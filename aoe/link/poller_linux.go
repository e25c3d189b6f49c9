package link

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper waits on descriptors, when ports have some, else on a channel. The descriptors are in an epoll set of its own, and that set is
// in the Go runtime's poller: who sleeps gives his processor away at once. In a system call of its own it would be taken from him, by
// a thread that looks for such every 20 microseconds (7 % of a busy node's time), and somebody would have to write to a descriptor to
// wake him.
type sleeper struct {
	channelSleeper
	fds     []int // of this Wait, filled by Poller
	watched []int // in the set
	set     *os.File
	raw     syscall.RawConn
	look    func(uintptr) bool // lookOnce
	peek    func(uintptr)      // lookOnce, whatever it returns
	events  [4]unix.EpollEvent
	ready   int
	err     error
	untilNs int64 // of the deadline that is set, against started; 0: none, or over
	started time.Time
}

func (s *sleeper) open(hasDescriptors bool) error {
	if !hasDescriptors {
		s.channelSleeper.open()
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // else os.NewFile takes it for one that blocks
	}
	if err != nil {
		return fmt.Errorf("link: epoll: %w", err)
	}
	s.set, s.started = os.NewFile(uintptr(fd), "epoll"), time.Now()
	if err := s.set.SetReadDeadline(time.Time{}); err != nil {
		_ = s.set.Close()
		return fmt.Errorf("link: epoll: the runtime cannot wait for it: %w", err)
	}
	if s.raw, err = s.set.SyscallConn(); err != nil {
		_ = s.set.Close()
		return fmt.Errorf("link: epoll: %w", err)
	}
	s.look, s.peek = s.lookOnce, func(set uintptr) { s.lookOnce(set) }
	return nil
}

func (s *sleeper) begin() { s.fds = s.fds[:0] }

// rebuild makes s.fds the set. A closed descriptor has left it by itself, and its number may be another's now.
func (s *sleeper) rebuild() error {
	if s.set == nil {
		return nil
	}
	var bad error
	err := s.raw.Control(func(set uintptr) {
		for _, fd := range s.watched {
			_ = unix.EpollCtl(int(set), unix.EPOLL_CTL_DEL, fd, nil) // mostly not there any more
		}
		s.watched = append(s.watched[:0], s.fds...)
		for _, fd := range s.fds {
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
func (s *sleeper) lookOnce(set uintptr) bool {
	s.ready, s.err = unix.EpollWait(int(set), s.events[:], 0)
	return s.ready != 0 || s.err != nil && s.err != unix.EINTR
}

// sleep returns true if one of the watched has something.
func (s *sleeper) sleep(timeoutNs int64) (bool, error) {
	if s.set == nil {
		s.channelSleeper.sleep(timeoutNs)
		return false, nil
	}
	s.ready, s.err = 0, nil
	var err error
	if timeoutNs == 0 {
		err = s.raw.Control(s.peek)
	} else {
		s.arm(timeoutNs)
		err = s.raw.Read(s.look)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // the time has passed, or a ring
		s.untilNs, err = 0, nil
	}
	if err == nil && s.err != nil && s.err != unix.EINTR {
		err = s.err
	}
	if err != nil {
		return false, fmt.Errorf("link: poll: %w", err)
	}
	return s.ready > 0, nil
}

// arm sees to it that the wait ends after timeoutNs, or somewhat earlier: a deadline that is set already may serve this wait, too.
func (s *sleeper) arm(timeoutNs int64) {
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
	_ = s.set.SetReadDeadline(at) // fails only when it is closed: so will the wait
}

// ring wakes the sleeper.
func (s *sleeper) ring() {
	if s.set == nil {
		s.channelSleeper.ring()
		return
	}
	_ = s.set.SetReadDeadline(longAgo) // fails only when it is closed: so has the wait
}

var longAgo = time.Unix(1, 0)

// hush takes the ring back. One that is still on its way costs an idle turn.
func (s *sleeper) hush() {
	if s.set == nil {
		s.channelSleeper.hush()
		return
	}
	s.untilNs = 0
}

func (s *sleeper) close() {
	if s.set != nil {
		_ = s.set.Close() // nothing can be lost with it
	}
}
