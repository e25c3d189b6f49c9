package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// What Config.Priority may be.
const (
	PriorityHigh      = "high"       // the node goes before what else runs on the host
	PriorityAsStarted = "as-started" // whoever starts it decides
)

// highNice is the nice value of a node with PriorityHigh: nine parts of ten of a contested processor are its own, and it is woken
// at once. Not a real-time policy: a node that is busy with its disks for long would then stop the kernel's own threads, which it
// waits for.
const highNice = -10

// goFirst raises the priority of this process and of those that it will start, and logs what the system does not allow: on a host
// that has too much to do, a process that waits for half a second has lost its lease. It changes no thread that has been started
// with more.
func goFirst(log *slog.Logger) {
	err := errors.Join(goFirstAmongAll(), goFirstAmongSessions())
	if err == nil {
		return
	}
	log.Warn("this node has no precedence on this host: where processors are busy it may lose its lease; "+
		"grant CAP_SYS_NICE or LimitNICE=-10, or write priority = \""+PriorityAsStarted+"\"", "err", err)
}

// goFirstAmongAll sets the nice value of every thread: it is a thread's in Linux, and inherited by what the thread starts. The
// second look finds those that have been started by others during the first.
func goFirstAmongAll() error {
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("runtime: the threads of this process: %w", err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("runtime: the threads of this process: %w", err)
			}
			inverse, err := unix.Getpriority(unix.PRIO_PROCESS, tid) // the system call's 20 - nice
			if err == nil && 20-inverse <= highNice {
				continue
			}
			if err = unix.Setpriority(unix.PRIO_PROCESS, tid, highNice); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("runtime: nice value %d: %w", highNice, err)
			}
		}
	}
	return nil
}

// goFirstAmongSessions does the same for the session: where the kernel groups processes by it (sched_autogroup), a nice value
// counts inside of it only. A session that this process has not been given for itself, such as a shell's, is left alone.
func goFirstAmongSessions() error {
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return nil
	}
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(highNice)), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) { // a kernel without
		return nil
	}
	return fmt.Errorf("runtime: nice value %d of the session: %w", highNice, err)
}
