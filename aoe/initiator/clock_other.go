//go:build !linux

package initiator

import "time"

var started = time.Now()

// BootNs returns the nanoseconds since the process was started.
func BootNs() int64 { return int64(time.Since(started)) + 1 }
