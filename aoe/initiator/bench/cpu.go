package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// tickNs is one unit of processor time in /proc/PID/stat: USER_HZ is 100 on every Linux.
const tickNs = secondNs / 100

// usage is what processes have used until some time.
type usage struct {
	clientNs int64
	busyNs   int64 // of all processors, whoever used them; 0 if unknown
	targets  []targetUsage
}

type targetUsage struct {
	pid                   int
	name                  string
	ns                    int64
	readBytes, writeBytes uint64 // that the disk was asked for; 0 if unknown
}

// takeUsage reads the processor time of this process, of some others and of the whole machine, and what the others have asked of
// disks.
func takeUsage(pids []int) (usage, error) {
	out := usage{clientNs: ownNs()}
	if raw, err := os.ReadFile("/proc/stat"); err == nil { // elsewhere than on Linux it stays unknown
		out.busyNs = parseBusy(raw)
	}
	for _, pid := range pids {
		name, ns, err := ProcessTime(pid)
		if err != nil {
			return out, fmt.Errorf("bench: processor time of process %d: %w", pid, err)
		}
		t := targetUsage{pid: pid, name: name, ns: ns}
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil { // readable by root and by the process's owner only
			t.readBytes, t.writeBytes = parseIO(raw)
		}
		out.targets = append(out.targets, t)
	}
	return out, nil
}

// parseBusy returns the time in which processors were not idle, from the first line of /proc/stat; what a hypervisor took away is in
// it. 0 for anything else.
func parseBusy(raw []byte) (ns int64) {
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0
	}
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal
		ticks, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil || ticks < 0 {
			return 0
		}
		if i != 3 && i != 4 {
			ns += ticks * tickNs
		}
	}
	return ns
}

// parseIO reads what a process made the disk read and write from /proc/PID/io: pages of the page cache are counted when they are
// read from the disk, and when they are made dirty.
func parseIO(raw []byte) (readBytes, writeBytes uint64) {
	for line := range bytes.Lines(raw) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		n, err := strconv.ParseUint(string(value), 10, 64)
		switch {
		case err != nil:
		case string(name) == "read_bytes":
			readBytes = n
		case string(name) == "write_bytes":
			writeBytes = n
		}
	}
	return readBytes, writeBytes
}

// ProcessTime returns the name of a process and the processor time of all its threads in user and kernel mode, in nanoseconds,
// to within 10 ms. Children are not in it, even if they were waited for.
func ProcessTime(pid int) (name string, ns int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	return parseStat(raw)
}

// parseStat reads a /proc/PID/stat. The name in parentheses may hold anything, parentheses too.
func parseStat(raw []byte) (name string, ns int64, err error) {
	from, to := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if from < 0 || to < from {
		return "", 0, fmt.Errorf("%q is no process's stat", raw)
	}
	fields := bytes.Fields(raw[to+1:])
	if len(fields) < 13 {
		return "", 0, fmt.Errorf("%q is no process's stat", raw)
	}
	for _, f := range fields[11:13] { // utime, stime: the 14th and 15th field of all
		ticks, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil || ticks < 0 {
			return "", 0, fmt.Errorf("%q is no process's stat", raw)
		}
		ns += ticks * tickNs
	}
	return string(raw[from+1 : to]), ns, nil
}
