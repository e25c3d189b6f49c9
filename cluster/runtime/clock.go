package runtime

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"clade/aoe/link"
	"clade/raid"
)

// bootNs returns CLOCK_BOOTTIME: it counts through suspend, and nobody can set it. It costs a system call.
func bootNs() int64 {
	before := monoNs()
	now := link.BoottimeNs()
	if monoNs()-before < pausedNs || bootBaseNs.Load() == 0 {
		bootBaseNs.Store(now - before)
	}
	return now
}

// nearBootNs returns CLOCK_BOOTTIME, or less if the machine was suspended since anybody called bootNs, or somewhat more. It costs no system
// call. It serves to measure, to wait and to find out how old something is, but the right to serve is judged by bootNs (docs/protocol.md, serving rule).
func nearBootNs() int64 {
	base := bootBaseNs.Load()
	if base == 0 {
		return bootNs()
	}
	return base + monoNs()
}

// pausedNs is how long reading two clocks takes when something came between: such a pair says little about their distance.
const pausedNs = 20_000

var (
	started    = time.Now()
	bootBaseNs atomic.Int64 // BOOTTIME minus monoNs
)

// monoNs is CLOCK_MONOTONIC since the process began.
func monoNs() int64 { return int64(time.Since(started)) }

// realNs returns CLOCK_REALTIME, for people.
func realNs() int64 { return link.RealtimeNs() }

// bootIDPath is where the kernel says which boot this is.
const bootIDPath = "/proc/sys/kernel/random/boot_id"

// readBootID returns the running kernel's boot id: the same for all processes until the next boot.
func readBootID() (raid.BootID, error) {
	raw, err := os.ReadFile(bootIDPath)
	if err != nil {
		return raid.BootID{}, fmt.Errorf("runtime: boot id: %w", err)
	}
	id, err := uuid.Parse(strings.TrimSpace(string(raw)))
	if err != nil {
		return raid.BootID{}, fmt.Errorf("runtime: boot id in %s: %w", bootIDPath, err)
	}
	return raid.BootID(id), nil
}

// jumpNs is the change of REALTIME-BOOTTIME between two looks that counts as a jump. NTP slews at 500 ppm at most, so a look
// every 100 ms sees 50 µs of it.
const jumpNs = 10e6

// clockWatch notices when CLOCK_REALTIME moves against CLOCK_BOOTTIME (B: C18).
type clockWatch struct {
	offsetNs int64 // REALTIME - BOOTTIME at the last look
	started  bool
}

// look returns by how much REALTIME has jumped since the last look, 0 if it has not.
func (w *clockWatch) look() int64 {
	// A pause between the two readings would look like a jump: read BOOTTIME on both sides and take the tightest of a few.
	best, offset := int64(1<<62), int64(0)
	for range 4 {
		before := bootNs()
		real := realNs()
		after := bootNs()
		if after-before < best {
			best, offset = after-before, real-before-(after-before)/2
		}
		if best < 50e3 {
			break
		}
	}
	return w.step(offset, best)
}

// step is look with the readings given: offset is known up to uncertainNs.
func (w *clockWatch) step(offsetNs, uncertainNs int64) int64 {
	if !w.started {
		w.offsetNs, w.started = offsetNs, true
		return 0
	}
	d := offsetNs - w.offsetNs
	w.offsetNs = offsetNs
	if d > jumpNs+uncertainNs || d < -jumpNs-uncertainNs {
		return d
	}
	return 0
}
