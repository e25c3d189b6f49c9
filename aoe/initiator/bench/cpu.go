package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// tickNs is one unit of processor time in /proc/PID/stat: USER_HZ is 100 on every Linux.
const tickNs = secondNs / 100

// processor is what processes have used, in nanoseconds.
type processor struct {
	clientNs int64
	targets  []targetTime
}

type targetTime struct {
	pid  int
	name string
	ns   int64
}

// takeCPU reads the processor time of this process and of some others.
func takeCPU(pids []int) (processor, error) {
	out := processor{clientNs: ownNs()}
	for _, pid := range pids {
		name, ns, err := processTime(pid)
		if err != nil {
			return out, fmt.Errorf("bench: processor time of process %d: %w", pid, err)
		}
		out.targets = append(out.targets, targetTime{pid, name, ns})
	}
	return out, nil
}

// processTime returns the name of a process and the processor time of all its threads in user and kernel mode, in nanoseconds,
// to within 10 ms. Children are not in it, even if they were waited for.
func processTime(pid int) (name string, ns int64, err error) {
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
