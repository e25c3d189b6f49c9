package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
	"clade/cluster"
	"clade/cluster/runtime"
	"clade/membership"
	"clade/raid"
)

// Memory is a cluster in this very process: nodes as goroutines, the SAN as a switch in memory, the cluster network as TCP on
// the loopback address. It needs no privileges. Its faults are weaker than a lab's: a killed node is one whose goroutines
// end at once, without a word and without proof; a stopped one is a node whose core stands still.
type Memory struct {
	spec   Spec
	fabric *link.Switch
	log    io.WriteCloser
	nodes  []*memoryNode
	mu     sync.Mutex // guards the nodes' fields
	macs   byte
}

type memoryNode struct {
	name, dir, addr string
	cfg             runtime.Config
	running         *runtime.Runtime
	gate            *gate
}

// gate lets a node's core through, or not.
type gate struct {
	mu   sync.Mutex
	open *sync.Cond
	shut bool
}

func newGate() *gate {
	g := &gate{}
	g.open = sync.NewCond(&g.mu)
	return g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.open.Broadcast()
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.open.Wait()
	}
}

// gatedPort is a port at which its owner can be held up: the core of a node asks its ports in every turn.
type gatedPort struct {
	link.Port
	gate *gate
}

func (p *gatedPort) Receive(frames []link.RxFrame) (int, error) {
	p.gate.pass()
	return p.Port.Receive(frames)
}

// NewMemory builds a cluster in this process and returns it when all its volumes are healthy. Spec.Dir is made; its files are
// removed by Down.
func NewMemory(ctx context.Context, spec Spec) (*Memory, error) {
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	m := &Memory{spec: spec, fabric: link.NewSwitch(link.SwitchConfig{MTU: spec.MTU})}
	err := m.make(ctx)
	if err == nil {
		return m, nil
	}
	return nil, errors.Join(err, m.Down())
}

func (m *Memory) make(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(m.spec.Dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	m.log = log
	for i, name := range m.spec.nodeNames() {
		if err := m.addNode(ctx, name, i >= m.spec.Nodes); err != nil {
			return err
		}
	}
	for slot := 1; slot <= m.spec.Slots; slot++ {
		if err := m.createVolume(ctx, slot); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, healthyMax)
	defer cancel()
	return AwaitHealthy(ctx, m)
}

// addNode founds the cluster or joins it, and starts the node.
func (m *Memory) addNode(ctx context.Context, name string, witness bool) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("lab: %s: %w", name, err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return fmt.Errorf("lab: %s: %w", name, err)
	}
	n := &memoryNode{name: name, addr: addr, dir: filepath.Join(m.spec.Dir, name), gate: newGate()}
	n.cfg = runtime.Config{Node: name, Listen: addr, Advertise: addr}
	var disks []string
	for d := 0; d < m.spec.Disks && !witness; d++ {
		path := filepath.Join(m.spec.Dir, fmt.Sprintf("%s-disk%d", name, d+1))
		if err := runtime.MakeDiskFile(path, m.spec.diskBytes()); err != nil {
			return fmt.Errorf("lab: %s: %w", name, err)
		}
		disks = append(disks, path)
	}
	mtus := slices.Repeat([]int{m.spec.MTU}, m.spec.SANPaths)
	ctx, cancel := context.WithTimeout(ctx, commandMax)
	defer cancel()
	if len(m.nodes) == 0 {
		_, err = runtime.Init(runtime.InitOptions{Dir: n.dir, Cluster: m.spec.Name, Shelf: m.spec.Shelf, Config: n.cfg, Disks: disks, MTUs: mtus})
	} else {
		_, err = runtime.Join(ctx, runtime.JoinOptions{Dir: n.dir, Addr: m.nodes[0].addr, Witness: witness, Config: n.cfg, Disks: disks, MTUs: mtus})
	}
	if err != nil {
		return fmt.Errorf("lab: %s: %w", name, err)
	}
	m.nodes = append(m.nodes, n)
	if err := m.start(n); err != nil {
		return err
	}
	return Await(ctx, m, "node "+name, func(s *NodeStatus) bool {
		return slices.ContainsFunc(s.Nodes, func(x cluster.NodeStatus) bool { return x.Name == name && x.State == "up" })
	})
}

// port adds a port of the switch with a MAC of its own.
func (m *Memory) port(name string, node bool) (*link.SwitchPort, error) {
	m.macs++
	cfg := link.SwitchPortConfig{Name: name, MAC: aoe.MAC{0x02, 0xc1, 0xad, 0xe0, 0, m.macs}, Beacons: node, QueueFrames: 4096}
	if node {
		cfg.Filter = &link.Filter{Shelf: m.spec.Shelf, Announcements: true}
	}
	return m.fabric.NewPort(cfg)
}

func (m *Memory) start(n *memoryNode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n.running != nil {
		return fmt.Errorf("lab: %s runs already", n.name)
	}
	opt := runtime.Options{Dir: n.dir, Config: n.cfg, Log: slog.New(slog.NewTextHandler(m.log, nil))}
	for p := range m.spec.SANPaths {
		port, err := m.port(fmt.Sprintf("%s-%s", n.name, sanNIC(p)), true)
		if err != nil {
			return fmt.Errorf("lab: %s: %w", n.name, err)
		}
		opt.Ports = append(opt.Ports, &gatedPort{port, n.gate})
	}
	r, err := runtime.Start(opt)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", n.name, err)
	}
	n.running = r
	return nil
}

// propose commits a command through any node that runs.
func (m *Memory) propose(ctx context.Context, b membership.Body) error {
	body, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", b.CommandType(), err)
	}
	for _, r := range m.runtimes() {
		var reply cluster.AdminReply
		reply, err = r.Admin(ctx, cluster.AdminRequest{Kind: "propose", Type: b.CommandType(), Body: body})
		if err == nil && reply.Err != "" {
			err = errors.New(reply.Err)
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("lab: %s: %w", b.CommandType(), err)
}

func (m *Memory) createVolume(ctx context.Context, slot int) error {
	k, parity, err := m.spec.shape()
	if err != nil {
		return err
	}
	return m.propose(ctx, &membership.Create{Slot: uint8(slot), Name: fmt.Sprintf("vol%d", slot), SizeBytes: m.spec.SizeBytes,
		Layout: raid.Layout{K: k, M: parity, UnitBytes: 64 << 10}})
}

// runtimes returns the nodes that run and do not stand still.
func (m *Memory) runtimes() []*runtime.Runtime {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*runtime.Runtime
	for _, n := range m.nodes {
		n.gate.mu.Lock()
		if n.running != nil && !n.gate.shut {
			out = append(out, n.running)
		}
		n.gate.mu.Unlock()
	}
	return out
}

// Shape returns what the cluster was made like.
func (m *Memory) Shape() Spec { return m.spec }

// AskCluster is Site's.
func (m *Memory) AskCluster(ctx context.Context) (*NodeStatus, error) {
	var best *NodeStatus
	var errs []error
	for _, r := range m.runtimes() {
		ctx, cancel := context.WithTimeout(ctx, adminTimeout)
		s, err := r.Status(ctx)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if x := (&NodeStatus{Status: *s.Status, Pid: s.Pid}); best == nil || rank(x) > rank(best) {
			best = x
		}
	}
	if best == nil {
		return nil, fmt.Errorf("lab %s: no node answers: %w", m.spec.Name, errors.Join(errs...))
	}
	return best, nil
}

func (m *Memory) find(name string) (*memoryNode, error) {
	for _, n := range m.nodes {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("lab %s has no node %q", m.spec.Name, name)
}

// Do is Site's; it knows kill, stop, cont and restart.
func (m *Memory) Do(f Fault, node string) error {
	n, err := m.find(node)
	if err != nil {
		return err
	}
	switch f {
	case FaultKill, FaultKillAll:
		m.kill(n)
	case FaultStop:
		n.gate.set(true)
	case FaultCont:
		n.gate.set(false)
	case FaultRestart:
		return m.start(n)
	default:
		return fmt.Errorf("lab %s: %s needs a lab of real processes, and so root", m.spec.Name, f)
	}
	return nil
}

func (m *Memory) kill(n *memoryNode) {
	m.mu.Lock()
	r := n.running
	n.running = nil
	m.mu.Unlock()
	n.gate.set(false)
	if r != nil {
		r.Stop()
	}
}

// Drain is Site's.
func (m *Memory) Drain(ctx context.Context, node string, undo bool) error {
	n, err := m.find(node)
	if err != nil {
		return err
	}
	return m.propose(ctx, &membership.SetDraining{Node: raid.NodeID(slices.Index(m.nodes, n) + 1), On: !undo})
}

// OpenHost is Site's.
func (m *Memory) OpenHost() (*Host, error) {
	h := &Host{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.spec.SANPaths {
		port, err := m.port("ini-"+sanNIC(p), false)
		if err != nil {
			return nil, errors.Join(err, h.closePorts())
		}
		h.ports = append(h.ports, port)
	}
	var err error
	if h.Host, err = initiator.NewHost(initiator.HostConfig{Ports: h.ports}); err != nil {
		return nil, errors.Join(err, h.closePorts())
	}
	return h, nil
}

// Down is Site's.
func (m *Memory) Down() error {
	var errs []error
	for _, n := range m.nodes {
		m.kill(n)
	}
	for _, name := range m.spec.nodeNames() {
		errs = append(errs, os.RemoveAll(filepath.Join(m.spec.Dir, name)))
		for d := range m.spec.Disks {
			errs = append(errs, os.RemoveAll(filepath.Join(m.spec.Dir, fmt.Sprintf("%s-disk%d", name, d+1))))
		}
	}
	if m.log != nil {
		errs = append(errs, m.log.Close(), os.Remove(filepath.Join(m.spec.Dir, "log")))
	}
	_ = os.Remove(m.spec.Dir) // whoever keeps something else in it keeps it
	return errors.Join(errs...)
}

// OpenPort adds a port of the SAN's first path to which no initiator is attached yet. The caller closes it.
func (m *Memory) OpenPort() (link.Port, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.port("port", false)
}
