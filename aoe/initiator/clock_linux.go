package initiator

import "golang.org/x/sys/unix"

// BootNs returns the nanoseconds since the machine was started, sleep included:
// the clock that all processes of one machine share, for histories.
func BootNs() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("initiator: CLOCK_BOOTTIME: " + err.Error()) // every Linux has it
	}
	return ts.Nano()
}
