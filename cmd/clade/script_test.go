package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"clade/aoe"
	"clade/aoe/link"
	"clade/cluster"
	"clade/cluster/runtime"
	"clade/raid"
)

// script runs command lines as a shell would: against nodes in this process, whose SAN is a switch in memory.
//
//	run                 each line is a command line; $WORK is the script's directory
//	start dir=n1        starts the node of a data directory
//	stop dir=n1         stops it at once
//	wait dir=n1 for=TEXT  until clade status of that node contains the text
//	file name=x fill=y  makes a file of 16 MiB that begins with the text
type script struct {
	t     *testing.T
	work  string
	sw    *link.Switch
	nodes map[string]*runtime.Runtime
}

func TestScripts(t *testing.T) {
	columns := outputColumns
	outputColumns = 1 << 20
	t.Cleanup(func() { outputColumns = columns })
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		s := &script{t: t, work: t.TempDir(), sw: link.NewSwitch(link.SwitchConfig{MTU: 9000}), nodes: map[string]*runtime.Runtime{}}
		t.Cleanup(func() {
			for _, r := range s.nodes {
				r.Stop()
			}
		})
		datadriven.RunTest(t, path, s.step)
	})
}

func (s *script) step(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "run":
		var out strings.Builder
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			out.WriteString("$ " + line + "\n" + s.run(strings.Fields(line)[1:]))
		}
		return out.String()
	case "start":
		var dir string
		d.ScanArgs(t, "dir", &dir)
		s.start(dir)
	case "stop":
		var dir string
		d.ScanArgs(t, "dir", &dir)
		s.nodes[dir].Stop()
		delete(s.nodes, dir)
	case "wait":
		var dir, text string
		d.ScanArgs(t, "dir", &dir)
		d.ScanArgs(t, "for", &text)
		s.wait(dir, text)
	case "file":
		var name, fill string
		d.ScanArgs(t, "name", &name)
		d.ScanArgs(t, "fill", &fill)
		if err := os.WriteFile(filepath.Join(s.work, name), []byte(fill), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(s.work, name), 16<<20); err != nil {
			t.Fatal(err)
		}
	default:
		d.Fatalf(t, "unknown step %q", d.Cmd)
	}
	return "ok\n"
}

// varying is what differs from run to run, and what stands for it.
var varying = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{2}(:[0-9a-f]{2}){5}`), "MAC"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`[0-9a-f]{8}000000000001`), "SERIAL"},
	{regexp.MustCompile(` \(for [0-9a-z]+\)`), ""},
	{regexp.MustCompile(`looked: [0-9a-z.]+\)`), "looked: TIME)"},
	{regexp.MustCompile(`epoch [0-9]+`), "epoch N"},
}

// run executes one command line and returns what it prints, normalised, and its exit code unless that is 0.
func (s *script) run(args []string) string {
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "$WORK", s.work)
	}
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(""))
	root.SetArgs(args)
	code := run(root)
	text := strings.ReplaceAll(out.String(), s.work, "$WORK")
	for _, v := range varying {
		text = v.re.ReplaceAllString(text, v.with)
	}
	if code != 0 {
		text += fmt.Sprintf("[exit %d]\n", code)
	}
	return text
}

func (s *script) start(dir string) {
	s.t.Helper()
	path := filepath.Join(s.work, dir)
	cfg, err := runtime.LoadConfig(path)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	port, err := s.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 0, 0, 0, 0, byte(len(s.nodes) + 1)}, Beacons: true})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := runtime.Start(runtime.Options{Dir: path, Config: cfg, Listener: l, Ports: []link.Port{port}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes[dir] = r
}

func (s *script) wait(dir, text string) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := s.run([]string{"status", "--dir", filepath.Join(s.work, dir)})
		if strings.Contains(got, text) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no %q in the status after 20 s:\n%s", text, got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWrapKeepsLinesWithinTheColumns(t *testing.T) {
	text := "! " + strings.Repeat("words of several lengths ", 40)
	lines := strings.Split(wrap(text, "  ", 100), "\n")
	for i, line := range lines {
		if len(line) > 100 {
			t.Errorf("line %d has %d columns", i, len(line))
		}
	}
	if got := strings.Join(strings.Fields(strings.Join(lines, " ")), " "); got != strings.TrimSpace(text) {
		t.Errorf("wrapping changed the words: %q", got)
	}
}

// TestTablesFitTheScreen has the widest rows that a cluster can have.
func TestTablesFitTheScreen(t *testing.T) {
	long := strings.Repeat("n", 64)
	s := &runtime.Status{Status: &cluster.Status{Name: "lab"}}
	for i := range 40 {
		s.Nodes = append(s.Nodes, cluster.NodeStatus{ID: 1, Name: long, Addr: long, State: "unreachable", Draining: true, Witness: true})
		s.Volumes = append(s.Volumes, cluster.VolumeStatus{Address: "e65534.254", Name: long, SizeBytes: 1<<57 + 1, Layout: "16+16", Health: "suspended",
			OwnerName: long, InSync: make(raid.DiskSet, 999)})
		s.Disks = append(s.Disks, cluster.DiskStatus{ID: raid.DiskID(4000 + i), NodeName: long, State: "unreachable", CapacityMiB: 1023 << 40, Label: long})
		s.Problems = append(s.Problems, cluster.Problem{Key: fmt.Sprint(i), What: strings.Repeat("something is wrong ", 10), Do: strings.Repeat("do this ", 20)})
	}
	s.Self, s.Leader = 1, 1
	var b bytes.Buffer
	printStatus(&b, s, false)
	if n := strings.Count(b.String(), "\n"); n > 55 {
		t.Errorf("status has %d lines", n)
	}
	printNodes(&b, s, 0)
	printVolumes(&b, s, 0)
	printDisks(&b, s)
	for _, line := range strings.Split(b.String(), "\n") {
		if len(line) > 100 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}
