package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clade/integration/lab"
)

// runLab runs a lab command and returns what it printed.
func runLab(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs(append([]string{"lab"}, args...))
	err := root.Execute()
	return out.String(), err
}

func TestLabRefuses(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI lacks root")
		}
		t.Skip("needs root: without it, everything is refused for that")
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"up", "--layout", "4+2"}, "needs 6 storage nodes"},
		{[]string{"up", "--size", "much"}, "--size"},
		{[]string{"up", "--name", "Not/This"}, "name"},
		{[]string{"status", "--name", "no-such-lab"}, "no such lab"},
		{[]string{"down", "--name", "no-such-lab"}, "no such lab"},
		{[]string{"fault", "kill", "n1", "--name", "no-such-lab"}, "no such lab"},
		{[]string{"fault", "stop", "n1", "--all-processes"}, "kill only"},
		{[]string{"fault", "kill"}, "accepts 2 arg"},
		{[]string{"torture", "--layout", "2x1"}, "k+m"},
		{[]string{"torture", "--layout", "2+1", "--nodes", "2"}, "needs 3 storage nodes"},
		{[]string{"torture", "--nodes", "4"}, "go with --layout"},
		{[]string{"torture", "--minutes", "0"}, "--minutes"},
		{[]string{"calm", "--minutes", "-1"}, "--minutes"},
		{[]string{"calm", "--loss", "100"}, "loss"},
	} {
		if _, err := runLab(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("clade lab %v: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestDemoWithoutRoot runs the whole demo in this process: everything that it checks is as it should be.
func TestDemoWithoutRoot(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, tool := range []string{"mkfs.ext4", "e2fsck"} {
		if _, err := lookTool(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("CI lacks %s", tool)
			}
			t.Skipf("needs %s", tool)
		}
	}
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("KEEP", "")
	out, err := runLab(t, "demo", "--memory")
	// The stalls depend on what else the machine does; what came back does not.
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "FAIL") && !strings.Contains(line, "stall") {
			t.Errorf("%s", line)
		}
	}
	if !strings.Contains(out, "e2fsck") || !strings.Contains(out, "1 winner") {
		t.Errorf("the demo did not come to its end: %v\n%s", err, out)
	}
	left, gerr := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if gerr != nil || len(left) > 0 {
		t.Errorf("the demo left %v", left)
	}
}

func TestLabReportIsJSON(t *testing.T) {
	var out bytes.Buffer
	r := &lab.Report{Name: "x", Nodes: []lab.NodeReport{{Name: "n1", State: "up"}}, Volumes: []lab.VolumeReport{{Address: "e7.1", Owner: "n1"}}}
	if err := printJSON(&out, r); err != nil {
		t.Fatal(err)
	}
	var back lab.Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Volumes[0].Owner != "n1" {
		t.Errorf("%+v, %v", back, err)
	}
	out.Reset()
	printLab(&out, r)
	for _, want := range []string{"n1", "e7.1", "up"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}
