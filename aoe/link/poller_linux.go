package link

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sleeper waits in ppoll when ports have descriptors, else on a channel.
type sleeper struct {
	channelSleeper
	fds     []int // of this Wait, filled by Poller
	eventFD int   // -1: no port has descriptors
	polled  []unix.PollFd
	timeout unix.Timespec
}

func (s *sleeper) open(hasDescriptors bool) error {
	s.eventFD = -1
	if !hasDescriptors {
		s.channelSleeper.open()
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("link: eventfd: %w", err)
	}
	s.eventFD = fd
	return nil
}

func (s *sleeper) begin() { s.fds = s.fds[:0] }

// sleep returns true if one of s.fds has something.
func (s *sleeper) sleep(timeoutNs int64) (bool, error) {
	if s.eventFD < 0 {
		s.channelSleeper.sleep(timeoutNs)
		return false, nil
	}
	s.polled = append(s.polled[:0], unix.PollFd{Fd: int32(s.eventFD), Events: unix.POLLIN})
	for _, fd := range s.fds {
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

// ring wakes the sleeper.
func (s *sleeper) ring() {
	if s.eventFD < 0 {
		s.channelSleeper.ring()
		return
	}
	one := uint64(1)
	// A full counter (EAGAIN) has woken the sleeper already.
	_, _ = unix.Write(s.eventFD, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// hush takes the ring back. One that is still on its way costs an idle turn.
func (s *sleeper) hush() {
	if s.eventFD < 0 {
		s.channelSleeper.hush()
		return
	}
	var count [8]byte
	_, _ = unix.Read(s.eventFD, count[:])
}

func (s *sleeper) close() {
	if s.eventFD >= 0 {
		_ = unix.Close(s.eventFD)
	}
}
