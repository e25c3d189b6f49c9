//go:build unix

package bench

import "golang.org/x/sys/unix"

// ownNs returns the processor time of this process, in nanoseconds.
func ownNs() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0 // it cannot fail for oneself
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
