package conformance_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"clade/aoe/initiator/conformance"
	"clade/integration/lab"
)

// TestNodePasses makes all checks of a real node, with its replicated control state and its disks, over a switch in memory.
func TestNodePasses(t *testing.T) {
	for _, c := range []struct {
		mtu    int
		layout string
		nodes  int
	}{{1500, "1+0", 1}, {9000, "2+1", 3}} {
		t.Run(c.layout, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			m, err := lab.NewMemory(ctx, lab.Spec{Name: "conform", Dir: filepath.Join(t.TempDir(), "lab"), Nodes: c.nodes, Layout: c.layout, Slots: 1, MTU: c.mtu,
				SizeBytes: 16 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := m.Down(); err != nil {
					t.Error(err)
				}
			}()
			port, err := m.OpenPort()
			if err != nil {
				t.Fatal(err)
			}
			report, err := conformance.Run(ctx, conformance.Options{Port: port, Shelf: m.Shape().Shelf, Slot: 1, Destructive: true, Timeout: 30 * time.Second,
				Silence: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range report.Results {
				if r.Verdict != conformance.Pass {
					t.Errorf("%s %s: %s", r.Verdict, r.Name, r.Found)
				}
			}
			t.Logf("%d checks", len(report.Results))
		})
	}
}
