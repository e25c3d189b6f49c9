package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"clade/raid"
)

// workerEnv makes the test binary a worker: "die <dir>" gets a term and is killed, "term <dir>" gets a term and waits for
// SIGTERM, "none <dir>" dies before it has a term.
const workerEnv = "CLADE_TEST_WORKER"

func TestMain(m *testing.M) {
	if how := os.Getenv(workerEnv); how != "" {
		os.Exit(fakeWorker(how))
	}
	if how := os.Getenv(priorityEnv); how != "" {
		os.Exit(fakePriority(how))
	}
	os.Exit(m.Run())
}

func fakeWorker(how string) int {
	var what, dir string
	if _, err := fmt.Sscan(how, &what, &dir); err != nil {
		return 3
	}
	boot, err := readBootID()
	if err != nil {
		return 3
	}
	id, err := loadIdentity(dir)
	if err != nil {
		return 3
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	s, err := openState(dir, boot)
	if err != nil {
		return 3
	}
	if what == "none" {
		return 9
	}
	if err := s.write(id.Cluster, id.Node, 7); err != nil {
		return 3
	}
	if what == "term" {
		if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
			return 3
		}
		<-stop
		return 0
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// newDir prepares a data directory with an identity whose peers are given.
func newDir(t *testing.T, peers ...Peer) (string, Identity) {
	t.Helper()
	dir := t.TempDir()
	id := Identity{Cluster: newUUID(), ClusterName: "lab", Shelf: 7, SectorCount: 2, Node: 1, Name: "n1", Seeds: peers}
	if err := saveJSON(filepath.Join(dir, identityFileName), id); err != nil {
		t.Fatal(err)
	}
	return dir, id
}

// listenAs starts the listening half of a node's mesh and returns its address and what it puts into the core's inbox.
func listenAs(t *testing.T, id Identity) (string, <-chan any) {
	t.Helper()
	items := make(chan any, 64)
	m := newTestMesh(t, id, func(x any) bool { items <- x; return true })
	return m.listener.Addr().String(), items
}

func newTestMesh(t *testing.T, id Identity, put func(any) bool) *mesh {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &mesh{id: id, listener: l, log: slog.New(slog.DiscardHandler), put: put, ctx: ctx, cancel: cancel,
		peers: map[raid.NodeID]*meshPeer{}, conns: map[*peerConn]bool{}}
	m.wg.Go(m.accept)
	t.Cleanup(m.close)
	return m
}

func TestGuardianProvesTheDeathOfAKilledWorkerToItsPeers(t *testing.T) {
	peerID := Identity{Node: 2, Name: "n2"}
	dir, id := newDir(t)
	peerID.Cluster = id.Cluster
	addr, items := listenAs(t, peerID)
	if err := saveJSON(filepath.Join(dir, peersFileName), []Peer{{1, "127.0.0.1:1"}, {2, addr}}); err != nil {
		t.Fatal(err)
	}
	t.Setenv(workerEnv, "die "+dir)
	code, err := Guard(GuardianOptions{Dir: dir, Command: []string{os.Args[0]}, Log: slog.New(slog.DiscardHandler)})
	if err != nil || code != ExitWorkerDied {
		t.Fatalf("guardian: code %d, %v; want %d", code, err, ExitWorkerDied)
	}
	if got := <-items; got != any(deathNotice{1, 7}) {
		t.Fatalf("the peer heard %#v, want the death of node 1, term 7", got)
	}
}

func TestGuardianWithoutATermProvesNothing(t *testing.T) {
	dir, id := newDir(t)
	addr, items := listenAs(t, Identity{Node: 2, Name: "n2", Cluster: id.Cluster})
	if err := saveJSON(filepath.Join(dir, peersFileName), []Peer{{2, addr}}); err != nil {
		t.Fatal(err)
	}
	t.Setenv(workerEnv, "none "+dir)
	code, err := Guard(GuardianOptions{Dir: dir, Command: []string{os.Args[0]}, Log: slog.New(slog.DiscardHandler)})
	if err != nil || code != ExitWorkerDied {
		t.Fatalf("guardian: code %d, %v; want %d", code, err, ExitWorkerDied)
	}
	select {
	case got := <-items:
		t.Fatalf("the peer heard %#v although nothing is proved", got)
	default:
	}
}

func TestGuardianPassesTheFirstSignalOnAndProvesAnAskedEndAsWell(t *testing.T) {
	dir, id := newDir(t)
	addr, items := listenAs(t, Identity{Node: 2, Name: "n2", Cluster: id.Cluster})
	if err := saveJSON(filepath.Join(dir, peersFileName), []Peer{{2, addr}}); err != nil {
		t.Fatal(err)
	}
	t.Setenv(workerEnv, "term "+dir)
	signals := make(chan os.Signal)
	go func() {
		for { // until the worker can be told
			if _, err := os.Stat(filepath.Join(dir, "ready")); !errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		signals <- syscall.SIGTERM
	}()
	code, err := Guard(GuardianOptions{Dir: dir, Command: []string{os.Args[0]}, Log: slog.New(slog.DiscardHandler), Signals: signals})
	if err != nil || code != 0 {
		t.Fatalf("guardian: code %d, %v; want 0", code, err)
	}
	if got := <-items; got != any(deathNotice{1, 7}) {
		t.Fatalf("the peer heard %#v, want the death of node 1, term 7", got)
	}
}

func TestStateFileProvesOnlyItsOwnTermFileAndKernel(t *testing.T) {
	boot := raid.BootID{1}
	cluster := newUUID()
	dir := t.TempDir()
	s, err := openState(dir, boot)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.proof(cluster, 1); got != 0 {
		t.Fatalf("a new file proves term %d", got)
	}
	if _, err := openState(dir, boot); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second process got the lock: %v", err)
	}
	if err := s.write(cluster, 1, 5); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	reopen := func(dir string, boot raid.BootID, node raid.NodeID) raid.Term {
		t.Helper()
		s, err := openState(dir, boot)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.proof(cluster, node)
	}
	if got := reopen(dir, boot, 1); got != 5 {
		t.Errorf("the next process has proof of term %d, want 5", got)
	}
	if got := reopen(dir, raid.BootID{2}, 1); got != 0 {
		t.Errorf("after a reboot it proves term %d", got)
	}
	if got := reopen(dir, boot, 2); got != 0 {
		t.Errorf("it proves term %d of another node", got)
	}
	raw, err := os.ReadFile(filepath.Join(dir, stateFileName))
	if err != nil {
		t.Fatal(err)
	}
	restored := t.TempDir()
	if err := os.WriteFile(filepath.Join(restored, stateFileName), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := reopen(restored, boot, 1); got != 0 {
		t.Errorf("a copy of the directory proves term %d", got)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFileName), raw[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := reopen(dir, boot, 1); got != 0 {
		t.Errorf("a torn file proves term %d", got)
	}
}

func TestClockWatchReportsJumpsAndNotSlewing(t *testing.T) {
	var w clockWatch
	offset := int64(1_700_000_000e9)
	if d := w.step(offset, 0); d != 0 {
		t.Fatalf("the first look reports a jump of %d", d)
	}
	for range 1000 { // 500 ppm for 100 s
		offset += 50e3
		if d := w.step(offset, 1000); d != 0 {
			t.Fatalf("slewing is reported as a jump of %d", d)
		}
	}
	for _, jump := range []int64{3600e9, -3600e9, 20e6, -20e6} {
		offset += jump
		if d := w.step(offset, 1000); d != jump {
			t.Errorf("a jump of %d is reported as %d", jump, d)
		}
	}
	if d := w.step(offset+20e6, 30e6); d != 0 {
		t.Errorf("a look that took 30 ms reports a jump of %d", d)
	}
}

// collected is a put that remembers.
type collected struct {
	mu    sync.Mutex
	items []any
	more  chan struct{}
}

func newCollected() *collected { return &collected{more: make(chan struct{}, 1024)} }

func (c *collected) put(x any) bool {
	c.mu.Lock()
	c.items = append(c.items, x)
	c.mu.Unlock()
	c.more <- struct{}{}
	return true
}

// until waits until cond holds for the items so far.
func (c *collected) until(t *testing.T, what string, cond func([]any) bool) []any {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		items := slices.Clone(c.items)
		c.mu.Unlock()
		if cond(items) {
			return items
		}
		select {
		case <-c.more:
		case <-timeout:
			t.Fatalf("%s: not in 20 s; items: %#v", what, items)
		}
	}
}
