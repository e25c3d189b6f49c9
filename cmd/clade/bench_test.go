package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"clade/aoe"
	"clade/aoe/initiator/bench"
	"clade/aoe/link"
)

// runBench runs `clade bench` on the switch of a bench, as a process would.
func (b *initiatorBench) runBench(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	o := &benchOptions{initiatorOptions: initiatorOptions{shelf: -1, slot: -1, isTerminal: func(io.Writer) bool { return false },
		openPort: func(name string) (link.Port, error) {
			if name != "san" {
				return nil, fmt.Errorf("no interface %s", name)
			}
			return b.sw.NewPort(link.SwitchPortConfig{Name: name, MAC: aoe.MAC{2, 1, 0, 0, 0, 251}})
		}}}
	cmd := newBenchCommandWith(o)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out, complaints bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&complaints)
	cmd.SetArgs(args)
	cmd.SetContext(b.t.Context())
	if err := cmd.Execute(); err != nil {
		code = exitFailed
		var e interface{ ExitCode() int }
		if errors.As(err, &e) {
			code = e.ExitCode()
		}
		complaints.WriteString(err.Error())
	}
	return out.String(), complaints.String(), code
}

func TestBenchArguments(t *testing.T) {
	b := newInitiatorBench(t)
	for _, tc := range []struct {
		code int
		args string
	}{
		{2, "-i san"},
		{2, "e7.1"},
		{2, "-i san 7.1"},
		{2, "-i san e7.1 --op erase"},
		{2, "-i san e7.1 --size 700B"},
		{2, "-i san e7.1 --size 2MiB"},
		{2, "-i san e7.1 --size 16EiB"},
		{2, "-i san e7.1 --size many"},
		{2, "-i san e7.1 --depth 0"},
		{2, "-i san e7.1 --depth -3"},
		{2, "-i san e7.1 --depth 100000"},
		{2, "-i san e7.1 --macs 0"},
		{2, "-i san e7.1 --macs 100000"},
		{2, "-i san e7.1 --macs 2 --source-mac 02:00:00:00:00:01"},
		{2, "-i san e7.1 --seconds 0"},
		{2, "-i san e7.1 --seconds -1"},
		{2, "-i san e7.1 --seconds NaN"},
		{2, "-i san e7.1 --seconds Inf"},
		{2, "-i san e7.1 --warm-up -1"},
		{2, "-i san e7.1 --timeout 0s"},
		{2, "-i san e7.1 --random --sequential"},
		{2, "-i san e7.1 --read-percent 100"},
		{2, "-i san e7.1 --start 5B"},
		{2, "-i san e7.1 --nonsense"},
		{1, "-i san e7.1 --span 1GiB"},
		{1, "-i san e7.1 --pid 999999999"},
		{1, "-i other e7.1"},
		{3, "-i san e7.2 --timeout 50ms"},
		{4, "-i san e7.1 --op write"},
		{4, "-i san e7.1 --op mixed"},
		{4, "-i san e7.1 --fill"},
		{2, "null-target -i san"},
		{2, "null-target -i san e9.255"},
		{2, "null-target e9.1"},
		{2, "null-target -i san -i san e9.1"},
		{2, "null-target -i san e9.1 --size 100B"},
	} {
		out, complaint, code := b.runBench(strings.Fields(tc.args)...)
		if code != tc.code || out != "" {
			t.Errorf("%s: exit code %d, want %d\n%s%s", tc.args, code, tc.code, out, complaint)
		}
		if tc.code == 2 && !strings.Contains(complaint, "clade bench --help") {
			t.Errorf("%s: no way on: %s", tc.args, complaint)
		}
	}
	if disk := b.target.Disk(); !bytes.Equal(disk, make([]byte, len(disk))) {
		t.Error("something was written")
	}
}

func TestBenchSaysWhatItDestroys(t *testing.T) {
	b := newInitiatorBench(t)
	_, complaint, code := b.runBench("-i", "san", "e7.1", "--op", "write")
	if code != exitRefused || !strings.Contains(complaint, "DESTROYS") || !strings.Contains(complaint, "e7.1") || !strings.Contains(complaint, "--destroy") {
		t.Fatalf("refused with code %d: %s", code, complaint)
	}
	out, complaint, code := b.runBench("-i", "san", "e7.1", "--op", "write", "--destroy", "--span", "512KiB", "--seconds", "0.2", "--warm-up", "0", "--depth", "4", "--progress")
	if code != 0 || !strings.Contains(complaint, "e7.1: WHAT IT HOLDS IS DESTROYED") {
		t.Fatalf("code %d: %s", code, complaint)
	}
	for _, want := range []string{"4.0 KiB random write, depth 4, over 512 KiB", "IOPS", "p99.9", "longest gap", "CPU per I/O"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	disk := b.target.Disk()
	if bytes.Equal(disk[:512<<10], make([]byte, 512<<10)) || !bytes.Equal(disk[512<<10:], make([]byte, len(disk)-512<<10)) {
		t.Error("the span is not what was written")
	}
}

// TestBenchOnAWire runs both commands as processes, with the null target for a target, as `make bench` does.
func TestBenchOnAWire(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI lacks root, for network namespaces, or ip, of the package iproute2")
		}
		t.Skip("needs root, for network namespaces, and ip, of the package iproute2")
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	program := filepath.Join(t.TempDir(), "clade")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ends := [2]string{fmt.Sprintf("clade-t%d-a", os.Getpid()), fmt.Sprintf("clade-t%d-b", os.Getpid())}
	for _, ns := range ends {
		ip("netns", "add", ns)
		t.Cleanup(func() { ip("netns", "del", ns) })
	}
	ip("link", "add", "san", "mtu", "9000", "netns", ends[0], "type", "veth", "peer", "name", "san", "mtu", "9000", "netns", ends[1])
	for _, ns := range ends {
		ip("-n", ns, "link", "set", "san", "up")
	}
	target := exec.Command("ip", "netns", "exec", ends[0], program, "bench", "null-target", "-i", "san", "e9.1", "--size", "64MiB")
	var said bytes.Buffer
	target.Stdout = &said
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(target.Process.Pid)
	out, err := exec.Command("ip", "netns", "exec", ends[1], program, "bench", "-i", "san", "e9.1", "--op", "mixed", "--destroy", "--macs", "3", "--depth", "8",
		"--seconds", "0.5", "--warm-up", "0.1", "--pid", pid, "--json").Output()
	_ = target.Process.Signal(syscall.SIGTERM)
	if werr := target.Wait(); werr != nil || !strings.Contains(said.String(), "requests answered") {
		t.Errorf("the null target: %v: %s", werr, said.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Result
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r.Ops == 0 || r.Reads == 0 || r.Writes == 0 || r.Initiators != 3 || r.SpanBytes != 64<<20 || r.ClientUsPerIO <= 0 || len(r.Targets) != 1 || strconv.Itoa(r.Targets[0].Pid) != pid {
		t.Errorf("%s", out)
	}
}
