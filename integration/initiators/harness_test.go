package initiators

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// program is the clade binary, built once for all tests.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "clade-initiators-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		program = filepath.Join(dir, "clade")
		if out, err := exec.Command("go", "build", "-o", program, "clade/cmd/clade").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// missing skips the test for lack of something; in CI that is a failure.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI lacks %s", what)
	}
	t.Skipf("needs %s", what)
}

// needs skips without root or any of some programs, given with the packages that hold them.
func needs(t testing.TB, programs map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, for network namespaces")
	}
	for name, pkg := range programs {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, fmt.Sprintf("%s, of the package %s", name, pkg))
		}
	}
}

// output runs a program that has to end well, and returns what it printed.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), complaints.String())
	}
	return out.String()
}

// wire is two namespaces, joined by a cable.
type wire struct {
	target, initiator string // namespaces; the interface in both is "san"
}

var wires atomic.Int32

func newWire(t testing.TB) *wire {
	t.Helper()
	name := fmt.Sprintf("clade-i%d-%d", os.Getpid(), wires.Add(1))
	w := &wire{target: name + "t", initiator: name + "i"}
	for _, ns := range []string{w.target, w.initiator} {
		output(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { output(t, "ip", "netns", "del", ns) })
	}
	output(t, "ip", "link", "add", "san", "netns", w.target, "type", "veth", "peer", "name", "san", "netns", w.initiator)
	for _, ns := range []string{w.target, w.initiator} {
		output(t, "ip", "-n", ns, "link", "set", "san", "up")
	}
	return w
}

// result is one line of the conformance suite's report.
type result struct {
	Name, Verdict, Found string
}

// conformance runs the suite in a namespace. The run may end early; what it found until then is returned with the error.
func conformance(t testing.TB, netns, nic, volume string, args ...string) ([]result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args = append([]string{"netns", "exec", netns, program, "initiator", "conformance", volume, "--interface", nic, "--destructive", "--json"}, args...)
	cmd := exec.CommandContext(ctx, "ip", args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, complaints.String())
	}
	var report struct{ Results []result }
	if jerr := json.Unmarshal(out.Bytes(), &report); jerr != nil {
		t.Fatalf("%v: %v\n%s\n%s", err, jerr, out.String(), complaints.String())
	}
	if err != nil {
		err = errors.New(strings.TrimSpace(complaints.String()))
	}
	return report.Results, err
}

// checkNames lists the suite.
func checkNames(t testing.TB) []string {
	t.Helper()
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(output(t, program, "initiator", "conformance", "--list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}
