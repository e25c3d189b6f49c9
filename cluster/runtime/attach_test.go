package runtime

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clade/membership"
	"clade/store"
)

// localDisk returns what a node says of one of its paths.
func localDisk(s *Status, path string) LocalDisk {
	for _, d := range s.LocalDisks {
		if d.Path == path {
			return d
		}
	}
	return LocalDisk{}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestANodeStartsWithoutTheDisksThatItMustNotUseAndSaysWhy(t *testing.T) {
	l := newLab(t, 1, 1)
	l.withDisks(1)
	n := l.nodes[0]
	dir := n.lab.t.TempDir()
	paths := map[string]string{}
	for _, name := range []string{"clone", "foreign", "damaged", "blank", "absent"} {
		paths[name] = filepath.Join(dir, name)
	}
	n.kill()
	copyFile(t, paths["clone"], filepath.Join(n.dir, "disk"))
	for _, name := range []string{"foreign", "damaged", "blank"} {
		if err := MakeDiskFile(paths[name], 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	dev, err := store.OpenFile(paths["foreign"])
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Format(dev, store.Identity{Cluster: [16]byte{9}, UUID: newUUID()}, store.FormatOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, paths["damaged"], filepath.Join(n.dir, "disk"))
	f, err := os.OpenFile(paths["damaged"], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{100, 4096 + 100} { // both superblocks
		if _, err := f.WriteAt([]byte("rotten"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if err := rememberDisk(n.dir, p); err != nil {
			t.Fatal(err)
		}
	}
	n.start()
	s := n.until("all disks are judged", func(s *Status) bool {
		judged := 0
		for _, d := range s.LocalDisks {
			if d.State == "absent" || d.State == "refused" {
				judged++
			}
		}
		return judged == 6
	})
	for name, want := range map[string]string{"foreign": "another cluster", "damaged": "damaged", "blank": "not formatted", "absent": "no such file"} {
		if d := localDisk(s, paths[name]); !strings.Contains(d.Err, want) || d.Do == "" {
			t.Errorf("%s: %q, do %q; want something with %q, and what to do", name, d.Err, d.Do, want)
		}
	}
	// Nobody can tell which of two copies is the disk.
	for _, path := range []string{paths["clone"], filepath.Join(n.dir, "disk")} {
		if d := localDisk(s, path); d.State != "refused" || !strings.Contains(d.Err, "copy of") {
			t.Errorf("one of two copies of a disk: %+v", d)
		}
	}
	if len(s.Problems) < 5 {
		t.Errorf("problems: %+v", s.Problems)
	}
}

func TestACopyOfADiskThatIsInUseIsRefused(t *testing.T) {
	l := newLab(t, 1, 1)
	l.withDisks(1)
	n := l.nodes[0]
	clone := filepath.Join(n.dir, "clone")
	copyFile(t, clone, filepath.Join(n.dir, "disk"))
	if err := n.r.inspect(t.Context(), func(r *Runtime) { r.disks.add(clone) }); err != nil {
		t.Fatal(err)
	}
	s := n.until("the copy is judged", func(s *Status) bool { return localDisk(s, clone).State == "refused" })
	if d := localDisk(s, filepath.Join(n.dir, "disk")); d.State != "open" {
		t.Fatalf("the disk itself: %+v", d)
	}
}

func TestADiskThatComesBackIsUsedAgain(t *testing.T) {
	l := newLab(t, 1, 1)
	l.withDisks(1)
	n := l.nodes[0]
	path := filepath.Join(n.dir, "disk")
	n.kill()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.until("the disk is missed", func(s *Status) bool { return localDisk(s, path).State == "absent" && s.Health != "healthy" })
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	n.until("the disk is used", func(s *Status) bool { return localDisk(s, path).State == "open" && s.Health == "healthy" })
}

func TestADiskIsAddedToARunningNodeAndKnownAfterARestart(t *testing.T) {
	l := newLab(t, 1, 1)
	l.withDisks(1)
	n := l.nodes[0]
	path := filepath.Join(n.dir, "second")
	reply, err := n.r.AddDisk(t.Context(), DiskAddRequest{Path: path, SizeBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if d := localDisk(n.status(), path); d.State != "open" || uint32(d.Disk) != reply.Disk {
		t.Fatalf("after adding it as disk %d: %+v", reply.Disk, d)
	}
	n.kill()
	n.start()
	l.withDisks(2)
}

func TestADetachedDiskIsLetGoOfAndUsedAgainWhenAttached(t *testing.T) {
	l := newLab(t, 1, 1)
	l.withDisks(1)
	n := l.nodes[0]
	path := filepath.Join(n.dir, "disk")
	propose := func(b membership.Body) {
		t.Helper()
		if _, err := n.r.proposeCommand(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	propose(&membership.DiskSetState{Disk: 1, Gen: 1, State: membership.DiskDetached})
	n.until("the disk is let go of", func(s *Status) bool { return localDisk(s, path).State == "refused" })
	propose(&membership.DiskAttach{Disk: 1, Node: 1, Gen: 1})
	s := n.until("the disk is used again", func(s *Status) bool { return localDisk(s, path).State == "open" })
	if s.AttachGens[1] != 2 {
		t.Fatalf("attach generation %d, want 2", s.AttachGens[1])
	}
}
