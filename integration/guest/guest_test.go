package guest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clade/integration/lab"
)

var (
	keepCache = flag.String("guest.cache", "", "directory for packages and images (default: clade-guest in the user's cache)")
	long      = flag.Bool("guest.long", false, "every fault on every kind of SAN, both file systems, and booting: some minutes")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lacking skips, or fails where CI=true.
func lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var program struct {
	once sync.Once
	path string
	err  error
}

// built returns the clade program of this tree.
func built(t testing.TB) string {
	t.Helper()
	program.once.Do(func() {
		program.path = filepath.Join(cacheDir(t), "clade")
		if out, err := exec.Command("go", "build", "-o", program.path, "clade/cmd/clade").CombinedOutput(); err != nil {
			program.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	must(t, program.err)
	return program.path
}

func cacheDir(t testing.TB) string {
	t.Helper()
	dir := *keepCache
	if dir == "" {
		base, err := os.UserCacheDir()
		must(t, err)
		dir = filepath.Join(base, "clade-guest")
	}
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// site is a lab with guests on its SAN.
type site struct {
	t   testing.TB
	lab *lab.Lab
	dir string
}

func newSite(t testing.TB, spec lab.Spec) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "root, for network namespaces")
	}
	if need := Missing(); len(need) > 0 {
		lacking(t, "Debian packages "+strings.Join(need, " "))
	}
	dir, err := os.MkdirTemp("", "cg-") //nolint:usetesting // short, for the paths of sockets
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in the directory for temporary files
	spec.Name, spec.Dir, spec.Binary, spec.Held = strings.ToLower(filepath.Base(dir)), filepath.Join(dir, "lab"), built(t), true
	l, err := lab.Up(within(t, time.Minute), spec, nil)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				b, _ := os.ReadFile(l.LogPath(n.Name)) // for the reader of the failure only
				t.Logf("log of %s:\n%s", n.Name, b[max(0, len(b)-3000):])
			}
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return &site{t, l, dir}
}

// boot starts a guest with a NIC on each SAN path.
func (s *site) boot(name string, f Features) *Machine {
	s.t.Helper()
	img, err := BuildImage(within(s.t, 10*time.Minute), cacheDir(s.t), f)
	if err != nil {
		lacking(s.t, err.Error())
	}
	var nics []Nic
	for p := range s.lab.Spec.SANPaths {
		nics = append(nics, Nic{s.lab.SANBridge(p), s.lab.Spec.MTU})
	}
	drive := ""
	if f.GFS2 {
		drive = built(s.t) // for fencing
	}
	began := time.Now()
	m, err := Boot(within(s.t, 3*time.Minute), Spec{Image: img, Drive: drive, Dir: s.dir, Name: name, Space: s.lab.SANNamespace(), Nics: nics})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, m.Close()) })
	s.t.Logf("%s is up after %.1f s", name, time.Since(began).Seconds())
	for p := range nics {
		s.run(m, fmt.Sprintf("ip link set eth%d up mtu %d", p, s.lab.Spec.MTU))
	}
	return m
}

func (s *site) run(m *Machine, script string) string {
	s.t.Helper()
	out, err := m.Run(within(s.t, 3*time.Minute), script)
	must(s.t, err)
	return out
}
