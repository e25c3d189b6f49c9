package torture

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"clade/integration/lab"
)

// missing skips the test for lack of something; in CI that is a failure.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI lacks %s", what)
	}
	t.Skipf("needs %s", what)
}

// spec returns a lab's shape with a program that was built for this test.
func spec(t testing.TB, s lab.Spec) lab.Spec {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, for network namespaces")
	}
	dir, err := os.MkdirTemp("", "tt-") //nolint:usetesting // its name is the lab's, and short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.Name, s.Dir, s.Binary = filepath.Base(dir), filepath.Join(dir, "lab"), filepath.Join(dir, "clade")
	if out, err := exec.Command("go", "build", "-o", s.Binary, "clade/cmd/clade").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return s
}

// TestTorture: the nemesis for some seconds, two SAN paths; nothing is lost, nobody is told of an error, health returns.
func TestTorture(t *testing.T) {
	cfg := Config{Spec: spec(t, lab.Spec{Nodes: 3, SANPaths: 2}), Seed: uint64(time.Now().UnixNano()) % 1e6, Duration: 20 * time.Second,
		Slice: 4 * time.Second, KeepDir: filepath.Join(t.TempDir(), "evidence")}
	t.Logf("seed %d", cfg.Seed)
	res, err := Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range res.Violations {
		t.Errorf("after %d ms: %s: %s", v.AtMs, v.What, v.Text)
	}
	for i := range res.Events {
		t.Logf("%+v", res.Events[i])
	}
	t.Logf("%d faults; %+v", len(res.Events), res.Counts)
	if c := &res.Counts; len(res.Events) == 0 || c.Writes == 0 || c.Reads == 0 || c.Controls == 0 || c.Checked == 0 || c.Slices < 2 {
		t.Errorf("nothing happened: %d faults, %+v", len(res.Events), c)
	}
	if t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(cfg.KeepDir, "*.log"))
		for _, f := range logs {
			raw, _ := os.ReadFile(f)
			t.Logf("--- %s\n%s", f, raw[max(0, len(raw)-8000):])
		}
	}
}
