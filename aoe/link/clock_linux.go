package link

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// RealtimeNs returns CLOCK_REALTIME, the wall clock of receive times.
func RealtimeNs() int64 { return readClock(unix.CLOCK_REALTIME) }

// BoottimeNs returns CLOCK_BOOTTIME: time since boot, suspended or not, that
// nobody can set.
func BoottimeNs() int64 { return readClock(unix.CLOCK_BOOTTIME) }

func readClock(id int32) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		panic(fmt.Sprintf("link: clock_gettime(%d): %v", id, err)) // both clocks exist on every Linux
	}
	return t.Nano()
}
