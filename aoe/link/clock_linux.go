package link

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// RealtimeNs returns CLOCK_REALTIME, the wall clock of receive times.
func RealtimeNs() int64 { return time.Now().UnixNano() } // without a system call

// BoottimeNs returns CLOCK_BOOTTIME: time since boot, suspended or not, that
// nobody can set.
func BoottimeNs() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("link: CLOCK_BOOTTIME: %v", err)) // it exists on every Linux
	}
	return t.Nano()
}
