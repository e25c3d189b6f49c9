package link

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holdNs is how long a sleeper that may do so keeps its processor. Whoever is that long without work is idle. It is less than the 10 ms after
// which the scheduler interrupts any goroutine.
const holdNs = 8_000_000

// holders counts the open sleepers of this process that may hold. When there are as many as processors none of them does: together they
// would leave nothing for the goroutines that they wait for.
var holders atomic.Int32

// sleeper waits on descriptors, when ports have some, else on a channel.
type sleeper struct {
	channelSleeper
	fds     []int // of this Wait, filled by Poller
	eventFD int   // rings; -1: on a channel
	polled  []unix.PollFd
	holds   bool
	free    int32 // how many may hold at a time: one processor is for the others
	timeout unix.Timespec
}

func (s *sleeper) open(hasDescriptors, hold bool) error {
	s.eventFD = -1
	if !hasDescriptors {
		s.channelSleeper.open()
		return nil
	}
	var err error
	if s.eventFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("link: eventfd: %w", err)
	}
	if s.holds = hold; hold {
		s.free = int32(runtime.GOMAXPROCS(0)) - 1
		holders.Add(1)
	}
	return nil
}

func (s *sleeper) watches() bool { return s.eventFD >= 0 }

// sleep returns true if one of s.fds has something. What sources have is noted in them.
func (s *sleeper) sleep(timeoutNs int64, sources []*Source) (bool, error) {
	if s.eventFD < 0 {
		s.channelSleeper.sleep(timeoutNs)
		return false, nil
	}
	s.polled = append(s.polled[:0], unix.PollFd{Fd: int32(s.eventFD), Events: unix.POLLIN})
	for _, fd := range s.fds {
		s.polled = append(s.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for _, x := range sources {
		events := int16(unix.POLLIN)
		if x.Write {
			events |= unix.POLLOUT
		}
		s.polled = append(s.polled, unix.PollFd{Fd: int32(x.FD), Events: events})
	}
	n, errno := s.poll(timeoutNs)
	return s.ready(n, errno, sources)
}

// poll sleeps in the kernel.
func (s *sleeper) poll(timeoutNs int64) (int, syscall.Errno) {
	switch {
	case timeoutNs == 0:
		return s.hold(0)
	case !s.mayHold():
		return s.block(timeoutNs)
	case timeoutNs > 0 && timeoutNs <= holdNs:
		return s.hold(timeoutNs)
	}
	n, errno := s.hold(holdNs)
	if n == 0 && errno == 0 {
		if timeoutNs > 0 {
			timeoutNs -= holdNs
		}
		n, errno = s.block(timeoutNs)
	}
	return n, errno
}

func (s *sleeper) mayHold() bool { return s.holds && holders.Load() <= s.free }

// hold polls without a word to the Go scheduler, which believes that this goroutine runs on. Otherwise every sleep, however short, gives the
// processor away, and every frame wakes three threads: this one, one that looks for more work, and the one that watches over system calls.
// Where the scheduler wants all goroutines to stop it sends a signal, which ends the call.
func (s *sleeper) hold(timeoutNs int64) (int, syscall.Errno) {
	s.timeout = unix.NsecToTimespec(timeoutNs)
	n, _, err := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&s.polled[0])), uintptr(len(s.polled)), uintptr(unsafe.Pointer(&s.timeout)), 0, 0, 0)
	return int(n), err
}

// block polls as a system call that may take long; below zero it has no time-out.
func (s *sleeper) block(timeoutNs int64) (int, syscall.Errno) {
	var timeout unsafe.Pointer
	if timeoutNs >= 0 {
		s.timeout = unix.NsecToTimespec(timeoutNs)
		timeout = unsafe.Pointer(&s.timeout)
	}
	n, _, err := syscall.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&s.polled[0])), uintptr(len(s.polled)), uintptr(timeout), 0, 0, 0)
	return int(n), err
}

// ready judges what a poll has returned.
func (s *sleeper) ready(n int, err syscall.Errno, sources []*Source) (bool, error) {
	const failed = unix.POLLERR | unix.POLLHUP | unix.POLLNVAL
	first := 1 + len(s.fds)
	for i, x := range sources {
		got := int16(0)
		if n > 0 && err == 0 {
			got = s.polled[first+i].Revents
		}
		x.Readable, x.Writable = got&(unix.POLLIN|failed) != 0, got&(unix.POLLOUT|failed) != 0
	}
	switch {
	case err == unix.EINTR:
		return false, nil
	case err != 0:
		return false, fmt.Errorf("link: poll: %w", err)
	}
	for i := range s.polled[1:first] {
		if s.polled[1+i].Revents != 0 {
			return n > 0, nil
		}
	}
	return false, nil
}

// ring wakes the sleeper.
func (s *sleeper) ring() {
	if s.eventFD < 0 {
		s.channelSleeper.ring()
		return
	}
	one := uint64(1)
	// A full counter (EAGAIN) has woken the sleeper already.
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(s.eventFD), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}

// hush takes the ring back. One that is still on its way costs an idle turn.
func (s *sleeper) hush() {
	if s.eventFD < 0 {
		s.channelSleeper.hush()
		return
	}
	var count uint64
	_, _, _ = syscall.RawSyscall(unix.SYS_READ, uintptr(s.eventFD), uintptr(unsafe.Pointer(&count)), unsafe.Sizeof(count))
}

func (s *sleeper) close() {
	if s.holds {
		holders.Add(-1)
	}
	if s.eventFD >= 0 {
		_ = unix.Close(s.eventFD)
	}
}
