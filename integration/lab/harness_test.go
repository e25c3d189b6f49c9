package lab

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"clade/aoe/initiator"
	"clade/aoe/initiator/load"
)

// long turns the repetitions up: for soak runs, not for every change.
var long = flag.Bool("lab.long", false, "many rounds of each lab test")

// rounds returns how often a test repeats what is left to chance.
func rounds(few, many int) int {
	if *long {
		return many
	}
	return few
}

// missing skips the test for lack of something; in CI that is a failure.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI lacks %s", what)
	}
	t.Skipf("needs %s", what)
}

// program is the clade binary, built once for all tests.
var program struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() == 0 {
		_, _ = Sweep() // what a killed test run has left; a real trouble shows in the tests
	}
	code := m.Run()
	if program.dir != "" {
		_ = os.RemoveAll(program.dir)
	}
	os.Exit(code)
}

func binary(t testing.TB) string {
	t.Helper()
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "clade-lab-"); program.err != nil { //nolint:usetesting // one for all tests
			return
		}
		program.path = filepath.Join(program.dir, "clade")
		out, err := exec.Command("go", "build", "-o", program.path, "clade/cmd/clade").CombinedOutput()
		if err != nil {
			program.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if program.err != nil {
		t.Fatal(program.err)
	}
	return program.path
}

// newLab makes a lab that the test's end takes away, and checks that nothing of it stays.
func newLab(t testing.TB, spec Spec) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, for network namespaces")
	}
	spec.Binary, spec.Held = binary(t), true
	dir, err := os.MkdirTemp("", "cl-") //nolint:usetesting // its name is the lab's, and short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	spec.Name = filepath.Base(dir)
	if !nameForm.MatchString(spec.Name) {
		t.Fatalf("%q is no name for a lab", spec.Name)
	}
	spec.Dir = filepath.Join(dir, "lab")
	if spec.SizeBytes == 0 {
		spec.SizeBytes = 64 * mib
	}
	l, err := Up(context.Background(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.withLogs(fmt.Errorf("test failed")))
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		if left := l.leftOvers(); len(left) > 0 {
			t.Errorf("the lab is down, but there are still %v", left)
		}
	})
	return l
}

func openHost(t testing.TB, l *Lab) *Host {
	t.Helper()
	h, err := l.OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// within is the context of one wait. A cluster that needs longer than this is not healthy in any sense, and slow test
// machines are far below it.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func healthyAgain(t testing.TB, l *Lab) {
	t.Helper()
	must(t, AwaitHealthy(within(t, time.Minute), l))
}

func owner(t testing.TB, l *Lab, slot uint8) string {
	t.Helper()
	name, err := OwnerOf(within(t, 30*time.Second), l, slot)
	must(t, err)
	return name
}

// verifyingLoad runs until stop, which checks all that it has seen.
type verifyingLoad struct {
	t      testing.TB
	rec    *load.Recorder
	cancel context.CancelFunc
	done   chan struct{}
	sum    *load.Summary
	err    error
}

// startLoad lets several initiators, each with a MAC of its own, read and write the same small range of a slot, so that they
// meet all the time.
func startLoad(t testing.TB, h *Host, l *Lab, slot uint8, edit func(*load.RunConfig)) *verifyingLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &verifyingLoad{t: t, rec: load.NewRecorder(false), cancel: cancel, done: make(chan struct{})}
	cfg := load.RunConfig{Host: h.Host, Shelf: l.Spec.Shelf, Slot: slot, Clients: 4, Depth: 2, Seed: uint64(time.Now().UnixNano()), Recorder: v.rec,
		OpTimeout: 60 * time.Second, Workload: load.WorkloadConfig{Sectors: 16384, MaxSectors: 48, HotSectors: 512, HotPercent: 20}}
	if edit != nil {
		edit(&cfg)
	}
	t.Logf("load: seed %d", cfg.Seed)
	go func() {
		defer close(v.done)
		v.sum, v.err = load.Run(ctx, cfg)
	}()
	t.Cleanup(func() { cancel(); <-v.done })
	return v
}

// progress waits until n more operations have been answered: the cluster serves.
func (v *verifyingLoad) progress(n int) {
	v.t.Helper()
	until := v.rec.Answered() + n
	ctx := within(v.t, 30*time.Second)
	for v.rec.Answered() < until {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-v.done:
			v.t.Fatalf("the load ended: %v", v.err)
		case <-ctx.Done():
			v.t.Fatalf("the load stands still: %d more operations of %d", v.rec.Answered()-until+n, n)
		}
	}
}

// stop ends the load and checks its history.
func (v *verifyingLoad) stop() *load.Summary {
	v.t.Helper()
	v.cancel()
	<-v.done
	must(v.t, v.err)
	v.t.Logf("load: %d reads, %d writes, %d open, %d retransmissions, longest stall %d ms", v.sum.Reads, v.sum.Writes, v.sum.Open, v.sum.Resent, v.sum.LongestNs/1e6)
	if v.sum.Failed > 0 {
		v.t.Errorf("%d operations failed; the first: %v", v.sum.Failed, v.sum.FirstError)
	}
	if v.sum.DamagedRead > 0 {
		v.t.Errorf("%d sectors were read that nobody wrote", v.sum.DamagedRead)
	}
	began := time.Now()
	if err := load.Check(v.rec.Records(), load.Options{}).Err(); err != nil {
		v.t.Error(err)
	}
	v.t.Logf("history checked in %s", time.Since(began).Round(time.Millisecond))
	return v.sum
}

// clientOf starts one initiator.
func clientOf(t testing.TB, h *Host, l *Lab, slot uint8) *initiator.Client {
	t.Helper()
	c, err := h.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: l.Spec.Shelf, Slot: slot})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // closed twice: fine
	return c
}
