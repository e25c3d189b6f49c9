package lab

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUpDownLeavesNothing: two labs side by side, what status says of them, and what is left afterwards (newLab checks that).
func TestUpDownLeavesNothing(t *testing.T) {
	before, err := net.Interfaces()
	must(t, err)
	a := newLab(t, Spec{Nodes: 3, Slots: 2, SANPaths: 2})
	b := newLab(t, Spec{Nodes: 1, Layout: "1+0", MTU: 1500})
	after, err := net.Interfaces()
	must(t, err)
	if len(before) != len(after) {
		t.Errorf("the machine has %d interfaces of its own now, it had %d", len(after), len(before))
	}
	r, err := a.Status(context.Background())
	must(t, err)
	if len(r.Volumes) != 2 || r.Volumes[0].Owner == "" || r.Volumes[0].Health != "healthy" || len(r.Volumes[0].ServingMACs) != 2 {
		t.Errorf("volumes of the first lab: %+v", r.Volumes)
	}
	for _, n := range r.Nodes {
		if n.Pid == 0 || n.GuardianPid == 0 || n.Pid == n.GuardianPid || n.State != "up" || len(n.Interfaces) != 3 {
			t.Errorf("node of the first lab: %+v", n)
		}
		s, err := a.AskNode(within(t, 5*time.Second), n.Name)
		must(t, err)
		if s.Pid != n.Pid {
			t.Errorf("%s says that it is process %d; status says %d", n.Name, s.Pid, n.Pid)
		}
	}
	reopened, err := Open(b.Spec.Name)
	must(t, err)
	if r, err := reopened.Status(context.Background()); err != nil || len(r.Volumes) != 1 || r.Volumes[0].Owner != "n1" {
		t.Errorf("second lab, opened by name: %+v, %v", r, err)
	}
}

// TestReportFields: scripts read these names.
func TestReportFields(t *testing.T) {
	raw, err := json.Marshal(Report{Nodes: []NodeReport{{}}, Volumes: []VolumeReport{{}}})
	must(t, err)
	var top map[string]json.RawMessage
	must(t, json.Unmarshal(raw, &top))
	check := func(what string, m map[string]json.RawMessage, want ...string) {
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) {
			t.Errorf("%s has fields %v, want %v", what, got, want)
		}
	}
	check("a lab", top, "name", "dir", "shelf", "nodes", "initiator", "san", "volumes")
	var list []map[string]json.RawMessage
	must(t, json.Unmarshal(top["nodes"], &list))
	check("a node", list[0], "name", "pid", "guardian_pid", "netns", "interfaces", "admin", "log", "state")
	list = nil // else the fields of before stay
	must(t, json.Unmarshal(top["volumes"], &list))
	check("a volume", list[0], "slot", "address", "size", "layout", "owner", "epoch", "serving_macs", "health")
	var one map[string]json.RawMessage
	must(t, json.Unmarshal(top["initiator"], &one))
	check("the initiator", one, "netns", "interface")
	one = nil
	must(t, json.Unmarshal(top["san"], &one))
	check("the SAN", one, "netns", "bridge")
}

// TestSweep: a lab whose maker is gone is swept away, one whose maker lives is not.
func TestSweep(t *testing.T) {
	l := newLab(t, Spec{Nodes: 1, Layout: "1+0"})
	if swept, err := Sweep(); err != nil || slices.Contains(swept, l.Spec.Name) {
		t.Fatalf("swept %v, %v, although its maker lives", swept, err)
	}
	// A killed maker's lock is free, and its lab.json says that it was not done.
	l.Phase = phaseMaking
	must(t, l.save())
	l.release()
	if swept, err := Sweep(); err != nil || !slices.Contains(swept, l.Spec.Name) {
		t.Fatalf("swept %v, %v", swept, err)
	}
	if left := l.leftOvers(); len(left) > 0 {
		t.Errorf("swept, but there are still %v", left)
	}
	if _, err := Open(l.Spec.Name); !errors.Is(err, ErrNoLab) {
		t.Errorf("open a lab that was swept: %v", err)
	}
}

// TestForeignProcessIsSafe: a lab signals nobody whose mark or start time is not its own.
func TestForeignProcessIsSafe(t *testing.T) {
	l := &Lab{Mark: "0123", Spec: Spec{Name: "x"}, Nodes: []Member{{Name: "n1"}}}
	self, err := readProcess(os.Getpid())
	must(t, err)
	must(t, l.signal("n1", self, unix.SIGKILL)) // this process has no such mark: it lives on
	ps, err := l.processesOf("n1")
	must(t, err)
	if len(ps) > 0 {
		t.Errorf("processes of a lab that has none: %v", ps)
	}
}

func TestSpecRefuses(t *testing.T) {
	for name, s := range map[string]Spec{
		"layout wider than the cluster": {Nodes: 3, Layout: "4+2"},
		"no layout":                     {Layout: "three"},
		"name with a slash":             {Name: "a/b"},
		"too many nodes":                {Nodes: 99},
		"directory too long":            {Dir: filepath.Join("/tmp", string(make([]byte, 120)))},
	} {
		if err := s.WithDefaults().Validate(); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	if err := (Spec{}).WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

// TestMakeDirKeepsForeignFiles: a directory with anything else in it is not taken.
func TestMakeDirKeepsForeignFiles(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	must(t, os.WriteFile(precious, nil, 0o600))
	if err := (&Lab{Spec: Spec{Dir: dir}}).makeDir(); err == nil {
		t.Error("a directory in use was taken")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
