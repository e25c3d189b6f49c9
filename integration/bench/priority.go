package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeNice is the nice value that a Clade node gives itself. Everything that is measured, and what measures, gets the same: or a node
// on a busy machine would beat even the target that stores nothing.
const nodeNice = -10

const autogroupFile = "/proc/self/autogroup"

// goFirst raises the priority of the calling thread and of what it will start, and of this session against others where the kernel
// shares processors among sessions. The function that it returns undoes the latter.
func goFirst() (undo func(), err error) {
	undo = func() {}
	if err := raiseThread(); err != nil {
		return undo, err
	}
	raw, err := os.ReadFile(autogroupFile)
	if err != nil {
		return undo, nil //nolint:nilerr // a kernel without
	}
	before, ok := parseAutogroup(string(raw))
	if !ok || before <= nodeNice {
		return undo, nil
	}
	if err := os.WriteFile(autogroupFile, []byte(strconv.Itoa(nodeNice)), 0o644); err != nil {
		return undo, fmt.Errorf("precedence of this session: %w", err)
	}
	return func() { _ = os.WriteFile(autogroupFile, []byte(strconv.Itoa(before)), 0o644) }, nil // the session is the user's: as it was
}

// raiseThread raises the priority of the calling thread.
func raiseThread() error {
	inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the system call's 20 - nice
	if err == nil && 20-inverse <= nodeNice {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nodeNice); err != nil {
		return fmt.Errorf("nice value %d: %w", nodeNice, err)
	}
	return nil
}

// parseAutogroup reads "/autogroup-12 nice 0".
func parseAutogroup(s string) (nice int, ok bool) {
	_, value, found := strings.Cut(strings.TrimSpace(s), " nice ")
	nice, err := strconv.Atoi(value)
	return nice, found && err == nil
}

// raiseProcess raises the priority of all threads of this process, and so of those that they will start.
func raiseProcess() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nodeNice); err != nil && !errors.Is(err, unix.ESRCH) { // one that has ended needs none
			return fmt.Errorf("nice value %d: %w", nodeNice, err)
		}
	}
	return nil
}
