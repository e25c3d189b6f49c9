//go:build !linux

package link

import "time"

var processStart = time.Now()

// RealtimeNs returns the wall clock.
func RealtimeNs() int64 { return time.Now().UnixNano() }

// BoottimeNs returns the time since this process started: the nearest thing to
// a clock since boot that every system has.
func BoottimeNs() int64 { return int64(time.Since(processStart)) + 1 }
