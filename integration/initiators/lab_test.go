package initiators

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clade/integration/lab"
)

// newLab starts a cluster of one node, with the volume e7.1, that the test's end takes away.
func newLab(t testing.TB, mtu int) *lab.Lab {
	t.Helper()
	needs(t, map[string]string{"ip": "iproute2"})
	dir, err := os.MkdirTemp("", "cl-") //nolint:usetesting // its name is the lab's, and short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, lab.Spec{Name: filepath.Base(dir), Dir: filepath.Join(dir, "lab"), Binary: program, Held: true, Nodes: 1, Layout: "1+0", Slots: 1,
		Shelf: 7, MTU: mtu, SizeBytes: 64 << 20}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// nic is the initiators' interface in a lab.
const nic = "san0"

// TestCladeConforms runs the suite, as the command, on a cluster in namespaces: real sockets, frames without padding, and other
// initiators' MACs in promiscuous mode.
func TestCladeConforms(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{1500, 9000} {
		l := newLab(t, mtu)
		results, err := conformance(t, l.InitiatorNamespace(), nic, "e7.1")
		if err != nil {
			t.Error(err)
		}
		if len(results) != len(checkNames(t)) {
			t.Errorf("MTU %d: %d checks made", mtu, len(results))
		}
		for _, r := range results {
			if r.Verdict != "PASS" {
				t.Errorf("MTU %d: %s %s: %s", mtu, r.Verdict, r.Name, r.Found)
			}
		}
	}
}
