package guest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clade/integration/lab"
)

// work is a guest with a mounted file system and two loads in it.
type work struct {
	*site
	m      *Machine
	kernel string
}

// mountAndLoad makes a file system, warms the driver's estimate of the round trip up (a cold one waits 16 s for its first lost
// frame), and starts a probe and a load of hashed files.
func (s *site) mountAndLoad(m *Machine) *work {
	s.t.Helper()
	s.run(m, `echo > /dev/etherd/discover
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/etherd/e7.1 ] && break; sleep 0.3; done
mkfs.ext4 -q /dev/etherd/e7.1 && mount /dev/etherd/e7.1 /mnt && dd if=/dev/zero of=/mnt/probe bs=64k count=16 conv=fsync 2>/dev/null`)
	w := &work{s, m, s.run(m, "uname -r; cat /sys/module/aoe/version | sed 's/^/aoe /'")}
	w.kernel = strings.Join(strings.Fields(w.kernel), " ")
	ctx := within(s.t, time.Minute)
	must(s.t, m.Start(ctx, Load{Name: "probe", Kind: "probe", Path: "/mnt/probe", Bytes: 1 << 20}))
	for w.take().Operations < 400 {
		time.Sleep(100 * time.Millisecond)
	}
	must(s.t, m.Start(ctx, Load{Name: "files", Kind: "files", Path: "/mnt/files", Bytes: 48 << 20, Seed: 7}))
	w.progress(50)
	return w
}

// row is a line of the table of docs/initiators.md.
func (w *work) row(what string, longestMs float64) {
	w.t.Logf("| Linux %s | MTU %d, %d paths | %s | %.0f ms |", w.kernel, w.lab.Spec.MTU, w.lab.Spec.SANPaths, what, longestMs)
}

// take returns what the probe has seen since the last call.
func (w *work) take() *Measure {
	w.t.Helper()
	m, err := w.m.Take(within(w.t, time.Minute), "probe")
	must(w.t, err)
	for _, e := range m.Errors {
		w.t.Errorf("the probe: %s", e)
	}
	return m
}

// progress waits until the probe has done n operations more, and returns the longest in ms.
func (w *work) progress(n int) float64 {
	w.t.Helper()
	longest := 0.0
	first := w.take()
	for limit := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		m := w.take()
		longest = max(longest, m.LongestMs)
		if m.Operations >= first.Operations+n {
			return max(longest, first.LongestMs)
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%d operations in 90 s, %d are wanted", m.Operations-first.Operations, n)
		}
	}
}

func (w *work) owner() string {
	w.t.Helper()
	name, err := lab.OwnerOf(within(w.t, 20*time.Second), w.lab, 1)
	must(w.t, err)
	return name
}

func (w *work) healthy() {
	w.t.Helper()
	must(w.t, lab.AwaitHealthy(within(w.t, time.Minute), w.lab))
}

// end stops the loads, verifies all they wrote, and looks for anything that an administrator would call trouble.
func (w *work) end() {
	w.t.Helper()
	for limit, files := time.Now().Add(2*time.Minute), 0; files < 50; time.Sleep(200 * time.Millisecond) {
		m, err := w.m.Take(within(w.t, time.Minute), "files")
		must(w.t, err)
		for _, e := range m.Errors {
			w.t.Errorf("load files: %s", e)
		}
		if files = m.Operations; files < 50 && time.Now().After(limit) {
			w.t.Fatalf("load files has done only %d operations", files)
		}
	}
	for _, name := range []string{"probe", "files"} {
		m, err := w.m.Stop(within(w.t, 3*time.Minute), name)
		must(w.t, err)
		for _, e := range m.Errors {
			w.t.Errorf("load %s: %s", name, e)
		}
		w.t.Logf("load %s: %d operations, %d MiB written, all as expected", name, m.Operations, m.Bytes>>20)
	}
	w.run(w.m, "umount /mnt")
	w.t.Log(w.run(w.m, "e2fsck -fn /dev/etherd/e7.1"))
	log := w.run(w.m, "dmesg")
	for line := range strings.Lines(log) {
		if strings.Contains(line, "I/O error") || strings.Contains(line, "EXT4-fs error") || strings.Contains(line, "device no longer") || strings.Contains(line, "hung") {
			w.t.Errorf("the guest's log: %s", line)
		}
	}
}

// fault is something that a guest has to live through.
type fault struct {
	name string
	do   func(w *work)
}

// faults each leave a healthy cluster.
var faults = []fault{
	{"kill -9 of the owner", func(w *work) {
		n := w.owner()
		must(w.t, w.lab.Do(lab.FaultKill, n))
		w.progress(30)
		must(w.t, w.lab.Do(lab.FaultRestart, n))
	}},
	{"the owner's host dies", func(w *work) {
		n := w.owner()
		must(w.t, w.lab.Do(lab.FaultKillAll, n))
		w.progress(30)
		must(w.t, w.lab.Do(lab.FaultRestart, n))
	}},
	{"SIGSTOP of the owner for 3 s", func(w *work) {
		n := w.owner()
		must(w.t, w.lab.Do(lab.FaultStop, n))
		time.Sleep(3 * time.Second)
		must(w.t, w.lab.Do(lab.FaultCont, n))
	}},
	{"the owner's SAN cables are pulled", func(w *work) {
		n := w.owner()
		must(w.t, w.lab.Do(lab.FaultCutSAN, n))
		w.progress(30)
		must(w.t, w.lab.Do(lab.FaultHeal, n))
	}},
	{"the owner's cluster cable is pulled", func(w *work) {
		n := w.owner()
		must(w.t, w.lab.Do(lab.FaultCutCluster, n))
		w.progress(30)
		must(w.t, w.lab.Do(lab.FaultHeal, n))
	}},
	{"drain of the owner", func(w *work) {
		n := w.owner()
		must(w.t, w.lab.Drain(within(w.t, 20*time.Second), n, false))
		w.progress(30)
		must(w.t, w.lab.Drain(within(w.t, 20*time.Second), n, true))
	}},
}

// otherBuild returns a program of another build.
func (w *work) otherBuild() string {
	w.t.Helper()
	path := filepath.Join(w.dir, "clade-next")
	out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "clade/cmd/clade").CombinedOutput()
	if err != nil {
		w.t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// rollingUpgrade replaces the program of every node, one after the other, as docs/operations.md says: drain, stop, install,
// serve, undo.
func (w *work) rollingUpgrade() (longestMs float64) {
	w.t.Helper()
	w.lab.Spec.Binary = w.otherBuild()
	for i := range w.lab.Nodes {
		n := w.lab.Nodes[i].Name
		w.take()
		must(w.t, w.lab.Drain(within(w.t, 20*time.Second), n, false))
		must(w.t, w.lab.Do(lab.FaultKill, n))
		must(w.t, w.lab.AwaitExit(n, 10*time.Second))
		must(w.t, w.lab.Do(lab.FaultRestart, n))
		must(w.t, lab.Await(within(w.t, time.Minute), w.lab, "the volume in sync again", func(s *lab.NodeStatus) bool {
			return len(s.Volumes) == 1 && s.Volumes[0].Health == "healthy" && len(s.Volumes[0].InSync) == 3
		}))
		must(w.t, w.lab.Drain(within(w.t, 20*time.Second), n, true))
		longestMs = max(longestMs, w.progress(30))
		w.healthy()
	}
	return longestMs
}

// replaceNode loses the owner's machine with its disks; a new one takes its place.
func (w *work) replaceNode() (longestMs float64) {
	w.t.Helper()
	w.take()
	_, err := w.lab.Replace(within(w.t, time.Minute), w.owner())
	must(w.t, err)
	must(w.t, lab.Await(within(w.t, time.Minute), w.lab, "the new node's disk in sync", func(s *lab.NodeStatus) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Health == "healthy" && len(s.Volumes[0].InSync) == 3
	}))
	longestMs = w.progress(60)
	w.healthy()
	return longestMs
}

// TestAGuestLivesThroughFaults: with a file system mounted and two loads in it, whatever happens to the cluster is a slow disk
// and nothing else.
func TestAGuestLivesThroughFaults(t *testing.T) {
	specs, happens := []lab.Spec{{MTU: 9000, SANPaths: 1}, {MTU: 1500, SANPaths: 2}}, faults
	if !*long {
		specs, happens = specs[1:], faults[:2]
	}
	for _, spec := range specs {
		t.Run(fmt.Sprintf("MTU %d, %d paths", spec.MTU, spec.SANPaths), func(t *testing.T) {
			spec.Nodes, spec.SizeBytes = 3, 256<<20
			s := newSite(t, spec)
			w := s.mountAndLoad(s.boot("g", Features{}))
			for _, f := range happens {
				w.take()
				f.do(w)
				longest := w.progress(60)
				w.healthy()
				w.row(f.name, longest)
			}
			if *long {
				w.row("a node is replaced", w.replaceNode())
				w.row("rolling upgrade of three nodes", w.rollingUpgrade())
			}
			w.end()
		})
	}
}
