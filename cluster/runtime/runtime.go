package runtime

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"clade/aoe"
	"clade/aoe/link"
	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store"
	"clade/store/raftlog"
)

// Options says how to run a node. Dir and Config are needed; the rest is for tests, for clusters in one process, and for
// labs.
type Options struct {
	Dir    string // made by Init or Join
	Config Config // with defaults; see LoadConfig
	Log    *slog.Logger
	// Ports replaces the interfaces of Config.SAN, one per path. The runtime closes them.
	Ports []link.Port
	// Listener replaces Config.Listen. The runtime closes it.
	Listener  net.Listener
	Transport Transport
	// WrapDevice stands between every disk and its file, when set.
	WrapDevice func(path string, dev store.Device) store.Device
	// VolatileCache keeps what has not been synced in memory, so that a killed process loses it as a power cut would.
	VolatileCache bool
	// FaultSocket lets the admin API inject faults into disks.
	FaultSocket bool
}

// Runtime is a running node.
type Runtime struct {
	opt     Options
	cfg     Config
	id      Identity
	log     *slog.Logger
	node    *cluster.Node // the core's goroutine only
	mesh    *mesh
	state   *stateFile
	raft    *raftlog.Log
	store   *storage
	disks   *diskManager
	admin   *adminServer
	inbox   inbox
	stats   metrics
	history history

	poller  atomic.Pointer[link.Poller]
	ports   []*sanPort
	sanBuf  []cluster.SANFrame
	hand    func([]cluster.SANFrame)  // gives them to the node
	conns   map[raid.NodeID]*peerConn // current connection of each peer
	direct  []*peerConn               // that the core reads
	flushes []*peerConn               // that have something new to send
	calls   map[uint64]*adminCall
	callID  uint64
	nextNs  int64
	arrived bool   // SAN ports have, or may have, frames
	again   bool   // the node was fed while effects were executed: no sleep before the next turn
	woke    bool   // other goroutines have been made ready to run since the core slept last
	busy    bool   // more has come while this turn went on: other goroutines shall help
	seen    uint64 // applied index that the members were last looked up at
	leader  raid.NodeID

	faultMu sync.Mutex
	faults  map[string]*store.FaultDevice // by path

	members atomic.Pointer[[]Peer]
	stop    atomic.Bool
	failed  atomic.Pointer[error]
	done    chan struct{} // closed when everything has ended
	quit    chan struct{} // closed when stopping begins
	once    sync.Once
	wg      sync.WaitGroup
}

// Start starts a node from its data directory. It returns once the node runs; that it has booted and serves shows in Status.
func Start(opt Options) (*Runtime, error) {
	r := &Runtime{opt: opt, cfg: opt.Config.withDefaults(), log: opt.Log, conns: map[raid.NodeID]*peerConn{},
		calls: map[uint64]*adminCall{}, done: make(chan struct{}), quit: make(chan struct{})}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.inbox.wake = r.wake
	r.hand = func(frames []cluster.SANFrame) { r.node.Frames(nearBootNs(), frames) }
	r.stats = newMetrics(r)
	if err := r.open(); err != nil {
		r.closeAll()
		return nil, err
	}
	r.start()
	return r, nil
}

// open takes everything that can fail, before any goroutine runs.
func (r *Runtime) open() error {
	if err := r.cfg.Validate(); err != nil && r.opt.Listener == nil {
		return fmt.Errorf("%s: %w", r.opt.Dir, err)
	}
	var err error
	if r.id, err = loadIdentity(r.opt.Dir); err != nil {
		return err
	}
	r.log = r.log.With("node", r.id.Name)
	bootID, err := readBootID()
	if err != nil {
		return err
	}
	if r.state, err = awaitState(r.opt.Dir, bootID, lockWaitNs); err != nil { // before the first message
		return err
	}
	if r.raft, err = raftlog.Open(filepath.Join(r.opt.Dir, raftFileName)); err != nil {
		return err
	}
	listener := r.opt.Listener
	if listener == nil {
		if listener, err = r.opt.Transport.listen(r.cfg.Listen); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.mesh = &mesh{id: r.id, transport: r.opt.Transport, listener: listener, log: r.log, put: r.inbox.put,
		join: r.admit, ctx: ctx, cancel: cancel, peers: map[raid.NodeID]*meshPeer{}, conns: map[*peerConn]bool{}}
	if r.cfg.Advertise == "" {
		r.cfg.Advertise = listener.Addr().String()
	}
	if err := r.openPorts(); err != nil {
		return err
	}
	r.mesh.direct = r.poller.Load().Watches()
	if err := r.newNode(); err != nil {
		return err
	}
	r.store = newStorage(r.raft, r.state, r.id, r.inbox.put)
	r.disks = newDiskManager(r, bootID)
	r.admin, err = newAdminServer(r)
	return err
}

// openPorts opens the SAN paths. One that cannot be opened is tried again by the watch; the node starts without it.
func (r *Runtime) openPorts() error {
	for i, port := range r.opt.Ports {
		p := &sanPort{path: i, spec: port.Name(), sectorCount: r.id.SectorCount}
		if err := p.open(port); err != nil {
			return fmt.Errorf("runtime: SAN path %d: %w", i, err)
		}
		r.ports = append(r.ports, p)
	}
	for i, spec := range r.cfg.SAN {
		if len(r.opt.Ports) > 0 {
			break
		}
		p := &sanPort{path: i, spec: spec, sectorCount: r.id.SectorCount}
		r.ports = append(r.ports, p)
		port, err := r.openPort(spec)
		if err == nil {
			err = p.open(port)
		}
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("SAN interface %s: %w: raw Ethernet needs root or CAP_NET_RAW (setcap cap_net_raw+ep, or AmbientCapabilities=CAP_NET_RAW in the unit)", spec, err)
		}
		if err != nil {
			r.log.Error("a SAN interface cannot be opened; trying again while the node runs", "path", i, "interface", spec, "err", err)
		}
	}
	return r.newPoller()
}

// openPort opens an interface of the configuration.
func (r *Runtime) openPort(spec string) (link.Port, error) {
	return link.Open(link.Config{Interface: spec, Beacons: true, Filter: &link.Filter{Shelf: r.id.Shelf, Announcements: true}})
}

// newPoller makes the poller over all open ports. Who wakes the core loads the pointer after putting something into the
// inbox, and the core looks into the inbox after storing it, so no ring is lost to the former one.
func (r *Runtime) newPoller() error {
	var open []link.Port
	for _, p := range r.ports {
		if p.port != nil {
			open = append(open, p.port)
		}
	}
	poller, err := link.NewHoldingPoller(open...)
	if err != nil {
		return fmt.Errorf("runtime: %w", err)
	}
	if old := r.poller.Swap(poller); old != nil {
		for _, s := range old.Sources() {
			poller.Watch(s)
		}
		old.Close()
	}
	return nil
}

func (r *Runtime) wake() {
	if p := r.poller.Load(); p != nil {
		p.Wake()
	}
}

// newNode makes the pure node from what is stored.
func (r *Runtime) newNode() error {
	revoked, err := loadRevoked(r.raft)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // it is for people
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return fmt.Errorf("runtime: random seed: %w", err)
	}
	t := r.cfg.Timing
	opt := cluster.Options{
		ID: r.id.Node, Cluster: r.id.Cluster, Shelf: r.id.Shelf, Storage: r.raft, Revoked: revoked,
		Info:      membership.NodeInfo{Addr: r.cfg.Advertise, Host: host, MaxFeature: membership.MaxFeatureLevel, SANPaths: len(r.ports)},
		ProofTerm: r.state.proof(r.id.Cluster, r.id.Node),
		Paths:     len(r.ports), Seed: binary.LittleEndian.Uint64(seed[:]),
		HeartbeatNs: int64(t.Heartbeat), CacheBytes: int(r.cfg.Cache.Total), CacheVolumeBytes: int(r.cfg.Cache.Volume),
		Group: membership.GroupOptions{TickNs: int64(t.RaftTick), ElectionTicks: int(t.Election / t.RaftTick),
			HeartbeatTicks: int(t.RaftHeartbeat / t.RaftTick)},
		Lease: membership.VoterOptions{PromiseNs: int64(t.Lease)},
	}
	for _, p := range r.ports {
		mac := aoe.MAC{}
		if p.port != nil {
			mac = p.port.MAC()
		}
		opt.PathMACs = append(opt.PathMACs, mac)
	}
	r.node, err = cluster.New(bootNs(), opt)
	return err
}

// start starts all goroutines; see the package comment.
func (r *Runtime) start() {
	r.wg.Go(r.store.run)
	r.mesh.wg.Go(r.mesh.accept)
	r.mesh.setPeers(r.id.Seeds)
	r.disks.start()
	r.wg.Go(r.watch)
	r.admin.start()
	go func() {
		defer close(r.done)
		r.core()
		r.shutdown()
	}()
}

// Done is closed when the node has stopped, by itself or by Stop.
func (r *Runtime) Done() <-chan struct{} { return r.done }

// Err returns why the node stopped by itself, or nil.
func (r *Runtime) Err() error {
	if p := r.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Addr returns the address that the node listens on for its peers.
func (r *Runtime) Addr() string { return r.mesh.listener.Addr().String() }

// Identity returns which node this is.
func (r *Runtime) Identity() Identity { return r.id }

// Stop ends the node at once, without a handoff: its volumes are taken over as after a crash. It returns when all goroutines
// have ended and all files are closed.
func (r *Runtime) Stop() {
	r.begin()
	<-r.done
}

func (r *Runtime) begin() {
	r.once.Do(func() { close(r.quit) })
	r.stop.Store(true)
	r.wake()
}

// fail ends the node because it cannot go on.
func (r *Runtime) fail(err error) {
	if r.failed.CompareAndSwap(nil, &err) {
		r.log.Error("this node must stop", "err", err)
	}
	r.begin()
}

// shutdown ends everything but the core, which has ended.
func (r *Runtime) shutdown() {
	r.admin.close()
	for _, c := range r.calls {
		c.end(cluster.AdminReply{Err: "this node is stopping"}, errStopped)
	}
	r.inbox.close()
	r.mesh.close()
	r.disks.close()
	r.store.stop()
	r.wg.Wait()
	r.closeAll()
}

// closeAll closes what open has opened.
func (r *Runtime) closeAll() {
	if r.mesh != nil {
		r.mesh.cancel()
		_ = r.mesh.listener.Close() // closed before, or never used
	} else if r.opt.Listener != nil {
		_ = r.opt.Listener.Close()
	}
	if p := r.poller.Swap(nil); p != nil {
		p.Close()
	}
	for _, p := range r.ports {
		if p.port != nil {
			if err := p.port.Close(); err != nil {
				r.log.Warn("a SAN interface does not close", "path", p.path, "err", err)
			}
		}
	}
	if r.disks != nil {
		r.disks.closeBell()
	}
	if r.raft != nil {
		if err := r.raft.Close(); err != nil {
			r.log.Error("the raft log does not close", "err", err)
		}
	}
	if r.state != nil { // last: the lock says that this process may still act
		if err := r.state.Close(); err != nil {
			r.log.Error("the state file does not close", "err", err)
		}
	}
}

const (
	watchEvery = 200 * time.Millisecond
	sleepMaxNs = int64(20 * time.Millisecond)
	jumpLookNs = int64(50 * time.Millisecond)
)

// watch looks a few times a second at what the kernel reports to nobody by itself.
func (r *Runtime) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	opened := make([]link.Port, len(r.ports))
	for i, p := range r.ports {
		opened[i] = p.port
	}
	var saved *[]Peer
	for {
		for i, p := range r.ports {
			if opened[i] == nil {
				if port, err := r.openPort(p.spec); err == nil {
					opened[i] = port
					if !r.inbox.put(sanOpened{p, port}) {
						_ = port.Close() // the node has stopped
						return
					}
				}
			}
			r.inbox.put(p.look(opened[i]))
		}
		if m := r.members.Load(); m != nil && m != saved {
			saved = m
			if err := saveJSON(filepath.Join(r.opt.Dir, peersFileName), *m); err != nil {
				r.log.Warn("the peers' addresses cannot be kept for the guardian", "err", err)
			}
		}
		select {
		case <-ticker.C:
		case <-r.quit:
			return
		}
	}
}

// sanOpened says that a SAN interface that was missing at the start is there.
type sanOpened struct {
	p    *sanPort
	port link.Port
}
