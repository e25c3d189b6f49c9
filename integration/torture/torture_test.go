package torture

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clade/aoe/initiator"
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

// shown ends a test with what a run's evidence says.
func shown(t testing.TB, r *Result, dir string) {
	t.Helper()
	for _, v := range r.Violations {
		t.Errorf("after %d ms: %s: %s", v.AtMs, v.What, v.Text)
	}
	if t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		for _, f := range logs {
			raw, _ := os.ReadFile(f)
			t.Logf("--- %s\n%s", f, raw[max(0, len(raw)-8000):])
		}
	}
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
	for i := range res.Events {
		t.Logf("%+v", res.Events[i])
	}
	t.Logf("%d faults; %+v", len(res.Events), res.Counts)
	if c := &res.Counts; len(res.Events) == 0 || c.Writes == 0 || c.Reads == 0 || c.Controls == 0 || c.Checked == 0 || c.Slices < 2 {
		t.Errorf("nothing happened: %d faults, %+v", len(res.Events), c)
	}
	shown(t, res, cfg.KeepDir)
}

// TestCalm: busy processors and lost frames for some seconds; all is answered, and every node says how close its lease came. That
// no volume moves is for make calm to judge, on a machine that does nothing else: here it is only told.
func TestCalm(t *testing.T) {
	cfg := CalmConfig{Config: Config{Spec: spec(t, lab.Spec{Nodes: 3}), Seed: 1, Duration: 5 * time.Second, Slice: 2 * time.Second,
		KeepDir: filepath.Join(t.TempDir(), "evidence")}, Loss: 0.01, Busy: 1}
	res, err := Calm(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("owner changes %v, leases %+v, longest stall %d ms, %+v", res.Changes, res.Leases, res.LongestMs, res.Counts)
	if len(res.Leases) != 3 || res.Counts.Checked == 0 {
		t.Errorf("leases %+v, %+v", res.Leases, res.Counts)
	}
	res.Violations = slices.DeleteFunc(res.Violations, func(v Violation) bool { return v.What == ownerChanged })
	shown(t, res.Result, cfg.KeepDir)
}

// TestForeignWritesAreNoticed: somebody who is not of the load writes to its volume; the run ends with a violation, and with the
// history and the logs where it says.
func TestForeignWritesAreNoticed(t *testing.T) {
	cfg := Config{Spec: spec(t, lab.Spec{Nodes: 3}), Seed: 3, Duration: time.Minute, Slice: time.Second, KeepDir: filepath.Join(t.TempDir(), "evidence")}
	stop := make(chan struct{})
	spoiled := make(chan error, 1)
	var began sync.Once
	cfg.Tell = func(p Progress) {
		if p.Operations > 0 {
			began.Do(func() { go func() { spoiled <- spoil(cfg.Spec.Name, stop) }() })
		}
	}
	res, err := Run(context.Background(), cfg)
	close(stop)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-spoiled; err != nil {
		t.Fatal(err)
	}
	if len(res.Violations) == 0 || !strings.Contains(res.Violations[0].Text, "nobody wrote") {
		t.Fatalf("foreign writes are not noticed: %+v", res.Violations)
	}
	for _, file := range []string{"n1.log", "n3.log", "history-1.json", "result.json"} {
		if st, err := os.Stat(filepath.Join(res.Evidence, file)); err != nil || st.Size() == 0 {
			t.Errorf("evidence: %v", err)
		}
	}
}

// spoil writes here and there until stop, in an initiator of its own.
func spoil(name string, stop chan struct{}) error {
	l, err := lab.Open(name)
	if err != nil {
		return err
	}
	h, err := l.OpenHost()
	if err != nil {
		return err
	}
	defer h.Close()
	c, err := h.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: l.Spec.Shelf, Slot: 1})
	if err != nil {
		return err
	}
	for n := int64(0); ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := c.WriteAt(ctx, bytes.Repeat([]byte{0xEE}, 4096), n%regionsOfSlot*regionSectors*512)
		cancel()
		if err != nil && n == 0 {
			return err // later the lab goes away
		}
	}
}
