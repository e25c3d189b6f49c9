package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// markVariable is in the environment of all processes of a lab; its value is the lab's mark and the node's name.
const markVariable = "CLADE_LAB_MARK"

// Process is a process that cannot be taken for another one: pids are reused, pairs with the start time are not.
type Process struct {
	Pid int `json:"pid"`
	// Started is field 22 of /proc/PID/stat: clock ticks since boot.
	Started uint64 `json:"started"`
	Parent  int    `json:"-"`
	State   byte   `json:"-"` // as in /proc/PID/stat
}

func (l *Lab) markOf(node string) string { return markVariable + "=" + l.Mark + "/" + node }

// readProcess returns what the kernel says about a pid.
func readProcess(pid int) (Process, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	// The second field is the name in parentheses, with anything in it.
	end := bytes.LastIndexByte(raw, ')')
	fields := bytes.Fields(raw[max(end+1, 0):])
	if end < 0 || len(fields) < 20 {
		return Process{}, fmt.Errorf("lab: /proc/%d/stat: %q", pid, raw)
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return Process{}, fmt.Errorf("lab: /proc/%d/stat: %w", pid, err)
	}
	started, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("lab: /proc/%d/stat: %w", pid, err)
	}
	return Process{Pid: pid, Started: started, Parent: parent, State: fields[0][0]}, nil
}

// runs says whether the process has not ended.
func (p Process) runs() bool {
	now, err := readProcess(p.Pid)
	return err == nil && now.Started == p.Started && now.State != 'Z' && now.State != 'X'
}

// bears says whether a process has an entry in its environment. A process that has ended but was not waited for has none, and
// neither has one in the middle of an execve: look twice before believing that there is nobody.
func bears(pid int, entry string) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(bytes.Split(raw, []byte{0}), func(e []byte) bool { return string(e) == entry })
}

// processesOf returns the running processes of a node, parents before their children.
func (l *Lab) processesOf(node string) ([]Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var out []Process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !bears(pid, l.markOf(node)) {
			continue
		}
		p, err := readProcess(pid)
		if err != nil || p.State == 'Z' || p.State == 'X' {
			continue // it ended while we looked
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b Process) int {
		switch {
		case b.Parent == a.Pid:
			return -1
		case a.Parent == b.Pid:
			return 1
		}
		return a.Pid - b.Pid
	})
	return out, nil
}

// signal sends a signal to a process if it is still the one that was looked at; one that has ended is fine.
func (l *Lab) signal(node string, p Process, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lab: process %d of %s: %w", p.Pid, node, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only held
	now, err := readProcess(p.Pid)
	if err != nil || now.Started != p.Started || !bears(p.Pid, l.markOf(node)) {
		return nil // the pid has another process now
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("lab: %s to process %d of %s: %w", unix.SignalName(sig), p.Pid, node, err)
	}
	return nil
}

// command prepares a command of the program under test for a node; run it inside the node's namespace.
func (l *Lab) command(node string, args []string) *exec.Cmd {
	cmd := exec.Command(l.Spec.Binary, args...) //nolint:gosec // our own program
	cmd.Dir = "/"
	// The program's own variables would send its commands to other nodes than the lab's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "CLADE_") })
	cmd.Env = append(cmd.Env, l.markOf(node))
	// A session of its own: what happens at the terminal is for the maker, who takes everything down in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// lookEach is the time between two looks at a node's processes, much longer than an execve takes to set its environment.
const lookEach = 5 * time.Millisecond

// endedWithin waits until none of the node's processes runs.
func (l *Lab) endedWithin(node string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for nobody := 0; ; {
		ps, err := l.processesOf(node)
		if err != nil {
			return err
		}
		if len(ps) > 0 {
			nobody = 0
		} else if nobody++; nobody == 2 {
			return nil
		} else {
			time.Sleep(lookEach)
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: process %d of %s has not ended in %s", ps[0].Pid, node, limit)
		}
		time.Sleep(lookEach)
	}
}
