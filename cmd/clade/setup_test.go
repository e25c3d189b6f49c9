package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clade/cluster/runtime"
)

// serving is a 'clade init --serve' or 'clade join --serve' under way, as a container runs it.
type serving struct {
	cmd *exec.Cmd
	out outputBuffer
}

// outputBuffer may be read while a process writes to it.
type outputBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *outputBuffer) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *outputBuffer) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// buildClade returns the binary under test: a guardian starts itself again as the worker, which a test binary cannot do.
func buildClade(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "clade")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func startServing(t *testing.T, bin string, args ...string) *serving {
	t.Helper()
	s := &serving{cmd: exec.Command(bin, args...)}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			_ = s.cmd.Wait()
		}
	})
	return s
}

// stop asks a node to stop and returns its exit code.
func (s *serving) stop(t *testing.T) int {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

// eventually looks again and again until it is so; what says what was waited for.
func eventually(t *testing.T, what string, so func() bool, all ...*serving) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !so() {
		if time.Now().After(deadline) {
			for _, s := range all {
				t.Logf("%v:\n%s", s.cmd.Args[1:], s.out.String())
			}
			t.Fatalf("no %s within a minute", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// membersUp returns how many nodes a node's status shows as up.
func membersUp(dir string) int {
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	root.SetArgs([]string{"node", "list", "--json", "--dir", dir})
	if run(root) != exitOK {
		return 0
	}
	var nodes []struct{ State string }
	if json.Unmarshal(out.Bytes(), &nodes) != nil {
		return 0
	}
	up := 0
	for _, n := range nodes {
		if n.State == "up" {
			up++
		}
	}
	return up
}

// TestInitAndJoinServe runs what containers run: the same command line the first time, in any order, and ever after.
func TestInitAndJoinServe(t *testing.T) {
	bin, work := buildClade(t), t.TempDir()
	a1, a2 := freeAddress(t), freeAddress(t)
	d1, d2 := filepath.Join(work, "n1"), filepath.Join(work, "n2")
	first := []string{"init", "--serve", "--dir", d1, "--node", "n1", "--advertise", a1, "--disk", filepath.Join(work, "disk1"), "--disk-size", "64MiB"}
	second := []string{"join", a1, "--serve", "--dir", d2, "--node", "n2", "--advertise", a2, "--disk", filepath.Join(work, "disk2"), "--disk-size", "64MiB"}

	n2 := startServing(t, bin, second...)
	eventually(t, "word that it waits", func() bool { return strings.Contains(n2.out.String(), "waiting: no answer from "+a1) }, n2)
	if ready, err := runtime.IsPrepared(d2); ready || err != nil {
		t.Fatalf("a node that waits for the cluster counts as prepared: %v, %v", ready, err)
	}
	n1 := startServing(t, bin, first...)
	eventually(t, "cluster of two", func() bool { return membersUp(d1) == 2 && membersUp(d2) == 2 }, n1, n2)
	before, err := os.ReadFile(filepath.Join(d2, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*serving{n2, n1} {
		if code := s.stop(t); code != 0 {
			t.Errorf("%v ended with code %d:\n%s", s.cmd.Args[1:], code, s.out.String())
		}
	}

	n1, n2 = startServing(t, bin, first...), startServing(t, bin, second...)
	eventually(t, "cluster of two again", func() bool { return membersUp(d1) == 2 && membersUp(d2) == 2 }, n1, n2)
	if after, err := os.ReadFile(filepath.Join(d2, "node.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the second start made another node: %v\n%s\n%s", err, before, after)
	}
}

// TestJoinServeEnds stops a node that waits for its cluster: as process 1 of a container nothing else would end it.
func TestJoinServeEnds(t *testing.T) {
	bin, work := buildClade(t), t.TempDir()
	addr := freeAddress(t)
	s := startServing(t, bin, "join", addr, "--serve", "--dir", work, "--node", "n2", "--advertise", freeAddress(t))
	eventually(t, "word that it waits", func() bool { return strings.Contains(s.out.String(), "waiting: ") }, s)
	if code := s.stop(t); code != exitUnreachable {
		t.Errorf("code %d, want %d:\n%s", code, exitUnreachable, s.out.String())
	}
}
