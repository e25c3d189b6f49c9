package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/link"
	"clade/store"
)

// lab is a cluster whose nodes all run in this process: SAN frames go through a switch in memory, peers over loopback TCP.
type lab struct {
	t     *testing.T
	sw    *link.Switch
	nodes []*labNode
	wrap  func(node int, path string, dev store.Device) store.Device
}

type labNode struct {
	lab   *lab
	index int
	dir   string
	addr  string
	port  *link.SwitchPort
	r     *Runtime // nil while stopped
}

const labDiskBytes = 96 << 20

// newLab founds a cluster of n nodes with one disk each, or none for witnesses, and starts them all.
func newLab(t *testing.T, n, disks int) *lab {
	t.Helper()
	l := &lab{t: t, sw: link.NewSwitch(link.SwitchConfig{MTU: 9000})}
	l.stopsAtTheEnd()
	for i := range n {
		l.add(i < disks)
	}
	return l
}

// stopsAtTheEnd stops all nodes before their directories go: what is registered first is done last, and that is the directories.
func (l *lab) stopsAtTheEnd() {
	l.t.TempDir()
	l.t.Cleanup(l.stopAll)
}

// add founds the cluster or joins it, and starts the new node.
func (l *lab) add(disk bool) *labNode {
	l.t.Helper()
	n := &labNode{lab: l, index: len(l.nodes), dir: l.t.TempDir()}
	listener := l.listen("127.0.0.1:0")
	n.addr = listener.Addr().String()
	cfg := n.config()
	var paths []string
	if disk {
		path := filepath.Join(n.dir, "disk")
		if err := MakeDiskFile(path, labDiskBytes); err != nil {
			l.t.Fatal(err)
		}
		paths = append(paths, path)
	}
	var err error
	if len(l.nodes) == 0 {
		_, err = Init(InitOptions{Dir: n.dir, Cluster: "lab", Shelf: 7, SectorCount: 16, Witness: !disk, Config: cfg, Disks: paths, MTUs: []int{9000}})
	} else {
		ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
		defer cancel()
		_, err = Join(ctx, JoinOptions{Dir: n.dir, Addr: l.nodes[0].addr, Witness: !disk, Config: cfg, Disks: paths, MTUs: []int{9000}})
	}
	if err != nil {
		l.t.Fatalf("node %d: %v", n.index+1, err)
	}
	l.nodes = append(l.nodes, n)
	n.run(listener)
	return n
}

func (l *lab) listen(addr string) net.Listener {
	l.t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		l.t.Fatal(err)
	}
	return listener
}

func (n *labNode) config() Config {
	return Config{Node: fmt.Sprintf("n%d", n.index+1), Listen: n.addr, Advertise: n.addr,
		Admin: AdminConfig{Socket: filepath.Join(n.lab.t.TempDir(), "s")}}.withDefaults()
}

// start starts a stopped node again, on its former address.
func (n *labNode) start() {
	n.lab.t.Helper()
	n.run(n.lab.listen(n.addr))
}

func (n *labNode) run(listener net.Listener) {
	t := n.lab.t
	t.Helper()
	var err error
	n.port, err = n.lab.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 0, 0, 0, 0, byte(n.index + 1)}, Beacons: true,
		Filter: &link.Filter{Shelf: 7, Announcements: true}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Dir: n.dir, Config: cfg, Listener: listener, Ports: []link.Port{n.port}, Log: slog.New(slog.DiscardHandler), FaultSocket: true}
	if os.Getenv("CLADE_TEST_LOG") != "" {
		opt.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if n.lab.wrap != nil {
		opt.WrapDevice = func(path string, dev store.Device) store.Device { return n.lab.wrap(n.index, path, dev) }
	}
	if n.r, err = Start(opt); err != nil {
		t.Fatalf("node %d: %v", n.index+1, err)
	}
}

// kill ends a node at once, without a handoff.
func (n *labNode) kill() {
	if n.r != nil {
		n.r.Stop()
		n.r = nil
	}
}

func (l *lab) stopAll() {
	for _, n := range l.nodes {
		n.kill()
	}
}

// status returns what a node sees.
func (n *labNode) status() *Status {
	n.lab.t.Helper()
	ctx, cancel := context.WithTimeout(n.lab.t.Context(), 10*time.Second)
	defer cancel()
	s, err := n.r.Status(ctx)
	if err != nil {
		n.lab.t.Fatalf("status of node %d: %v", n.index+1, err)
	}
	return s
}

// until asks a node for its status until cond holds.
func (n *labNode) until(what string, cond func(*Status) bool) *Status {
	n.lab.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		s := n.status()
		if cond(s) {
			return s
		}
		if time.Now().After(deadline) {
			n.lab.t.Fatalf("node %d: %s: not in 30 s; leader %q, lease %t, problems %+v", n.index+1, what, s.LeaderName, s.LeaseValid, s.Problems)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// allUp waits until every node sees every node up and has a lease itself.
func (l *lab) allUp() {
	l.t.Helper()
	for _, n := range l.nodes {
		n.until("all nodes up", func(s *Status) bool {
			up := 0
			for _, x := range s.Nodes {
				if x.State == "up" {
					up++
				}
			}
			return up == len(l.nodes) && s.LeaseValid && s.Leader != 0 && n.voters() == len(l.nodes)
		})
	}
}

// voters returns how many nodes vote, in Raft and for leases alike, as a node has applied it; 0 while that changes.
func (n *labNode) voters() int {
	n.lab.t.Helper()
	count := 0
	err := n.r.inspect(n.lab.t.Context(), func(r *Runtime) {
		view := r.node.Group().View()
		for _, m := range view.Members {
			if !m.Learner {
				count++
			}
		}
		if v := r.node.State().Voters; v.Joint() || len(v.Cur) != count {
			count = 0
		}
	})
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return count
}

func TestThreeNodesFormAClusterAndSurviveTheLossOfOne(t *testing.T) {
	l := newLab(t, 3, 0)
	l.allUp()
	term := l.nodes[0].status().Nodes[2].Term
	l.nodes[2].kill()
	l.nodes[0].until("node 3 is down", func(s *Status) bool { return s.Nodes[2].State == "down" && s.LeaseValid && s.Health != "healthy" })
	l.nodes[2].start()
	l.allUp()
	if now := l.nodes[0].status().Nodes[2].Term; now <= term {
		t.Fatalf("node 3 has term %d after its restart, it had %d before", now, term)
	}
}

func TestAKilledLeaderIsReplacedAndItsSuccessorKeepsTheClusterGoing(t *testing.T) {
	l := newLab(t, 3, 0)
	l.allUp()
	lead := l.nodes[0].status().Leader
	l.nodes[lead-1].kill()
	rest := l.nodes[lead%3]
	rest.until("another leader", func(s *Status) bool { return s.Leader != 0 && s.Leader != lead && s.LeaseValid })
	l.nodes[lead-1].start()
	l.allUp()
}

func TestJoinSaysWhyItIsRefused(t *testing.T) {
	l := newLab(t, 1, 0)
	l.allUp()
	free := l.listen("127.0.0.1:0")
	defer free.Close()
	silent := l.listen("127.0.0.1:0")
	silentAddr := silent.Addr().String()
	_ = silent.Close()
	for _, test := range []struct {
		name string
		edit func(*JoinOptions)
		want any
	}{
		{"name in use", func(o *JoinOptions) { o.Config.Node = "n1" }, new(*RefusedError)},
		{"address in use", func(o *JoinOptions) { o.Config.Advertise = l.nodes[0].addr }, new(*RefusedError)},
		{"MTU too small", func(o *JoinOptions) { o.MTUs = []int{1500} }, new(*RefusedError)},
		{"no address", func(o *JoinOptions) { o.Addr = "nowhere" }, new(*RefusedError)},
		{"nobody there", func(o *JoinOptions) { o.Addr = silentAddr }, new(*UnreachableError)},
		{"witness with a disk", func(o *JoinOptions) { o.Disks = []string{"/dev/null"} }, new(*RefusedError)},
		{"directory of another node", func(o *JoinOptions) { o.Dir = l.nodes[0].dir }, new(*RefusedError)},
	} {
		opt := JoinOptions{Dir: t.TempDir(), Addr: l.nodes[0].addr, Witness: true, MTUs: []int{9000},
			Config: Config{Node: "n9", Listen: free.Addr().String()}}
		test.edit(&opt)
		_, err := Join(t.Context(), opt)
		if err == nil || !errors.As(err, test.want) {
			t.Errorf("%s: %v; want %T", test.name, err, test.want)
		}
	}
	if got := len(l.nodes[0].status().Nodes); got != 1 {
		t.Fatalf("%d nodes after joins that were all refused", got)
	}
}

func TestASecondProcessOnTheSameDirectoryIsRefused(t *testing.T) {
	l := newLab(t, 1, 0)
	cfg, err := LoadConfig(l.nodes[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Dir: l.nodes[0].dir, Config: cfg, Listener: l.listen("127.0.0.1:0")}); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second process: %v; want ErrLocked", err)
	}
}
