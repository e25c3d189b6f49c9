package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"clade/aoe/link"
	"clade/cluster"
	"clade/raid"
)

const (
	// peerQueueBytesMax bounds what waits to be sent to one peer; beyond it the connection is broken, which the node learns as
	// PeerDown: nothing is ever missing in the middle of a stream.
	peerQueueBytesMax = 128 << 20
	// peerBatchBytes is about how much data one writev carries, and so how long a heartbeat can wait behind data.
	peerBatchBytes = 512 << 10
	// peerInboxBytesMax bounds what one peer has waiting in the core's inbox; its reader then stops reading.
	peerInboxBytesMax = 32 << 20
	handshakesMax     = 64

	redialMin = 20 * time.Millisecond
	redialMax = 500 * time.Millisecond
	// lowerWaits is how long the node with the smaller id leaves dialling to the other one, so that the two do not cross.
	lowerWaits = 300 * time.Millisecond
	// crossedWithin is how close two connections of one pair must be to count as crossed.
	crossedWithin = int64(time.Second)
)

// connUp, connDown and peerFrames are what connections put into the core's inbox. Of one connection they arrive in this
// order: up, frames, down.
type connUp struct{ conn *peerConn }
type connDown struct {
	conn *peerConn
	err  error
}
type peerFrames struct {
	conn  *peerConn
	msgs  []*cluster.PeerMessage
	bytes int
}

// peerConn is one connection to a peer. Where the core can sleep on it, it reads and mostly writes itself (direct.go); else two goroutines do.
type peerConn struct {
	id       raid.NodeID
	dialled  raid.NodeID // who made it
	remote   string
	c        net.Conn // nil: sock is it
	sock     *socket
	out      *lanes[*cluster.PeerMessage]
	since    int64
	realDiff time.Duration // the peer's CLOCK_REALTIME minus ours at the handshake
	done     chan struct{} // closed when the reader has ended
	once     sync.Once

	enc     encoder // of whoever sends: the writer's goroutine, or the core's in flush
	sending []*cluster.PeerMessage
	rest    []byte // what flush has left for the writer

	dec     *decoder    // of the core, as are:
	source  link.Source // of sock
	over    bool        // the core reads and writes nothing more
	ended   chan error  // capacity 1: why
	dropped chan struct{}

	inbox atomic.Int64  // bytes in the core's inbox
	drain chan struct{} // capacity 1: the core has taken some

	beatNs int64               // the last heartbeat; the core's goroutine only, as:
	gaps   prometheus.Observer // between heartbeats; nil until the core has the connection

	rxBytes, txBytes, rxMsgs, txMsgs atomic.Uint64
}

// newPeerConn returns a connection after its handshake; direct: the core is to read it, if it is one of TCP's own.
func newPeerConn(id, dialled raid.NodeID, c net.Conn, peerRealNs int64, direct bool) (*peerConn, error) {
	p := &peerConn{id: id, dialled: dialled, remote: c.RemoteAddr().String(), c: c, out: newLanes[*cluster.PeerMessage](peerQueueBytesMax),
		since: bootNs(), realDiff: time.Duration(peerRealNs - realNs()), done: make(chan struct{}), drain: make(chan struct{}, 1)}
	if tcp, ok := c.(*net.TCPConn); ok && direct { // of others nobody knows what a read or a write does
		sock, err := takeSocket(tcp)
		if err != nil {
			return nil, fmt.Errorf("runtime: a peer's connection: %w", err)
		}
		p.c, p.sock, p.dec = nil, sock, newDecoder()
		p.source.FD = sock.fd
		p.ended, p.dropped = make(chan error, 1), make(chan struct{})
	}
	return p, nil
}

// kill breaks the connection, from any goroutine; its connDown follows.
func (p *peerConn) kill() {
	p.once.Do(func() {
		p.out.close()
		if p.sock == nil {
			_ = p.c.Close() // nothing follows on it
			return
		}
		p.sock.shutdown()
		p.end(net.ErrClosed)
	})
}

// beat notes a heartbeat. In the core's goroutine.
func (p *peerConn) beat(nowNs int64) {
	if p.beatNs != 0 {
		p.gaps.Observe(float64(nowNs-p.beatNs) / 1e9)
	}
	p.beatNs = nowNs
}

// consumed says that the core is through with so many bytes.
func (p *peerConn) consumed(bytes int) {
	p.inbox.Add(-int64(bytes))
	select {
	case p.drain <- struct{}{}:
	default: // the reader has a bell already
	}
}

// write is the writer's goroutine: it sends what is queued until the connection ends.
func (p *peerConn) write() {
	defer p.kill()
	var msgs []*cluster.PeerMessage
	for {
		var ok bool
		if msgs, ok = p.out.take(msgs[:0], peerBatchBytes, messageBytes); !ok {
			return
		}
		if len(p.rest) > 0 {
			n, err := p.writeAll(net.Buffers{p.rest})
			p.txBytes.Add(uint64(n))
			p.rest = p.rest[:0]
			if err != nil {
				return // the reader reports the end
			}
		}
		n, err := p.writeAll(p.enc.encode(msgs))
		p.txBytes.Add(uint64(n))
		p.txMsgs.Add(uint64(len(msgs)))
		clear(msgs)
		if err != nil {
			return // the reader reports the end
		}
	}
}

// writeAll writes all of bufs, and waits where it must.
func (p *peerConn) writeAll(bufs net.Buffers) (int, error) {
	if p.sock != nil {
		return p.sock.write(bufs)
	}
	n, err := bufs.WriteTo(p.c)
	return int(n), err
}

// read is the reader's goroutine: it returns why the connection ended. Messages that have arrived together go to the core
// together.
func (p *peerConn) read(put func(any) bool) error {
	d := newDecoder()
	for {
		n, err := p.c.Read(d.room())
		d.got(n)
		batch, derr := p.decode(d)
		if len(batch.msgs) > 0 {
			full := p.inbox.Add(int64(batch.bytes)) > peerInboxBytesMax
			if !put(batch) {
				return net.ErrClosed
			}
			for full {
				<-p.drain // the core empties its inbox also while it stops
				full = p.inbox.Load() > peerInboxBytesMax
			}
		}
		if err == nil {
			err = derr
		}
		if err != nil {
			return err
		}
	}
}

// decode takes all messages that have come as a whole.
func (p *peerConn) decode(d *decoder) (batch peerFrames, err error) {
	batch.conn = p
	for {
		m, n, err := d.next()
		if err != nil || m == nil {
			p.rxBytes.Add(uint64(batch.bytes))
			p.rxMsgs.Add(uint64(len(batch.msgs)))
			return batch, err
		}
		batch.msgs = append(batch.msgs, m)
		batch.bytes += n
	}
}

// mesh keeps one connection to every peer. The core owns which connection is current; the mesh makes and accepts them.
type mesh struct {
	id        Identity
	transport Transport
	listener  net.Listener
	log       *slog.Logger
	put       func(any) bool
	join      func(context.Context, *hello, *welcome) error // answers a hello of purpose join
	direct    bool                                          // the core reads connections itself

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	peers map[raid.NodeID]*meshPeer
	conns map[*peerConn]bool
}

// meshPeer is one peer that is dialled.
type meshPeer struct {
	id     raid.NodeID
	addr   string
	live   int           // connections
	change chan struct{} // closed and replaced when addr or live changes
	cancel context.CancelFunc
}

// setPeers says who the other members are and where; new ones are dialled, others are given up.
func (m *mesh) setPeers(peers []Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	known := map[raid.NodeID]bool{}
	for _, p := range peers {
		if p.Node == m.id.Node || p.Addr == "" {
			continue
		}
		known[p.Node] = true
		if have := m.peers[p.Node]; have != nil {
			if have.addr != p.Addr {
				have.addr = p.Addr
				have.signal()
			}
			continue
		}
		ctx, cancel := context.WithCancel(m.ctx)
		mp := &meshPeer{id: p.Node, addr: p.Addr, change: make(chan struct{}), cancel: cancel}
		for c := range m.conns {
			if c.id == p.Node {
				mp.live++
			}
		}
		m.peers[p.Node] = mp
		m.wg.Go(func() { m.dialer(ctx, mp) })
	}
	for id, p := range m.peers {
		if !known[id] {
			p.cancel()
			delete(m.peers, id)
		}
	}
}

// signal wakes the dialer. Under mesh.mu.
func (p *meshPeer) signal() {
	close(p.change)
	p.change = make(chan struct{})
}

// dialer is one peer's goroutine: it keeps a connection, with growing pauses while that fails.
func (m *mesh) dialer(ctx context.Context, p *meshPeer) {
	pause := redialMin
	for ctx.Err() == nil {
		m.mu.Lock()
		addr, live, change := p.addr, p.live, p.change
		m.mu.Unlock()
		if live > 0 {
			select {
			case <-change:
				pause = redialMin
			case <-ctx.Done():
			}
			continue
		}
		if m.id.Node < p.id && !m.stillAlone(ctx, p, lowerWaits) {
			continue
		}
		err := m.connect(ctx, p.id, addr)
		if err == nil {
			pause = redialMin
			continue
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			m.log.Warn("a peer refuses this node", "node", p.id, "addr", addr, "err", err)
			pause = redialMax
		}
		m.stillAlone(ctx, p, pause)
		pause = min(2*pause, redialMax)
	}
}

// stillAlone waits and returns true if in that time no connection to the peer came up and its address stayed.
func (m *mesh) stillAlone(ctx context.Context, p *meshPeer, wait time.Duration) bool {
	m.mu.Lock()
	live, change := p.live, p.change
	m.mu.Unlock()
	if live > 0 {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-change:
	case <-ctx.Done():
	}
	return false
}

// connect dials a peer and serves the connection until it ends; an error means that none came about.
func (m *mesh) connect(ctx context.Context, id raid.NodeID, addr string) error {
	c, err := m.transport.dial(ctx, addr)
	if err != nil {
		return err
	}
	w, err := greet(c, hello{Hello: newHello(purposePeer, m.id), To: id})
	if err != nil {
		_ = c.Close() // the first error says more
		return err
	}
	p, err := newPeerConn(id, m.id.Node, c, w.RealNs, m.direct)
	if err != nil {
		return err
	}
	m.serve(p)
	return nil
}

// serve runs a connection from its handshake to its end.
func (m *mesh) serve(p *peerConn) {
	m.mu.Lock()
	if m.ctx.Err() != nil {
		m.mu.Unlock()
		p.kill()
		if p.sock != nil {
			p.sock.close() // nobody else has it
		}
		return
	}
	m.conns[p] = true
	m.count(p.id, 1)
	m.mu.Unlock()
	m.put(connUp{p})
	written := make(chan struct{})
	m.wg.Go(func() {
		defer close(written)
		p.write()
	})
	var err error
	if p.sock != nil {
		err = <-p.ended
	} else {
		err = p.read(m.put)
	}
	p.kill()
	m.put(connDown{p, err})
	close(p.done)
	if p.sock != nil { // nobody may use the number of a descriptor that is closed
		<-written
		select {
		case <-p.dropped:
		case <-m.ctx.Done(): // the core has ended
		}
		p.sock.close()
	}
	m.mu.Lock()
	delete(m.conns, p)
	m.count(p.id, -1)
	m.mu.Unlock()
}

// count changes the number of live connections of a peer. Under mesh.mu.
func (m *mesh) count(id raid.NodeID, by int) {
	if mp := m.peers[id]; mp != nil {
		mp.live += by
		mp.signal()
	}
}

// accept is the listener's goroutine.
func (m *mesh) accept() {
	slots := make(chan struct{}, handshakesMax)
	for {
		c, err := m.listener.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			m.log.Warn("cannot accept a peer's connection", "err", err)
			time.Sleep(10 * time.Millisecond) // out of descriptors, for instance
			continue
		}
		select {
		case slots <- struct{}{}:
		default: // so many at once are no peers
			_ = c.Close()
			continue
		}
		m.wg.Go(func() {
			p, err := m.welcome(c)
			<-slots
			if p == nil {
				_ = c.Close() // all has been said
				if err != nil {
					m.log.Debug("a connection to the cluster address was refused", "addr", c.RemoteAddr().String(), "err", err)
				}
				return
			}
			m.serve(p)
		})
	}
}

// welcome is the listening side's handshake; nil when the connection is over.
func (m *mesh) welcome(c net.Conn) (*peerConn, error) {
	tune(c)
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	stop := context.AfterFunc(m.ctx, func() { _ = c.Close() })
	defer stop()
	var h hello
	if err := readHello(c, &h, &h.Hello); err != nil {
		return nil, err
	}
	w := welcome{Hello: newHello(h.Purpose, m.id)}
	err := m.judge(&h)
	if err == nil && h.Purpose == purposeJoin {
		_ = c.SetDeadline(time.Now().Add(joinTimeout + helloTimeout))
		ctx, cancel := context.WithTimeout(m.ctx, joinTimeout)
		err = m.join(ctx, &h, &w)
		cancel()
	}
	if err != nil {
		w.Err = err.Error()
	}
	if werr := writeHello(c, w); werr != nil || err != nil {
		return nil, errors.Join(err, werr)
	}
	_ = c.SetDeadline(time.Time{})
	switch h.Purpose {
	case purposePeer:
		return newPeerConn(h.Node, h.Node, c, h.RealNs, m.direct)
	case purposeDeath:
		m.put(deathNotice{h.Node, h.Term})
	}
	return nil, nil
}

// deathNotice is a guardian's word, for the core.
type deathNotice struct {
	node raid.NodeID
	term raid.Term
}

// judge says what is wrong with a hello.
func (m *mesh) judge(h *hello) error {
	switch {
	case h.Purpose == purposeJoin:
		return nil
	case h.Cluster != m.id.Cluster:
		return fmt.Errorf("this node belongs to cluster %x, not %x", m.id.Cluster[:4], h.Cluster[:4])
	case h.To != 0 && h.To != m.id.Node:
		return fmt.Errorf("this is node %d, not %d", m.id.Node, h.To)
	case h.Node == 0 || h.Node == m.id.Node:
		return fmt.Errorf("node %d cannot be the peer of node %d: is a data directory copied?", h.Node, m.id.Node)
	case h.Purpose != purposePeer && h.Purpose != purposeDeath:
		return fmt.Errorf("unknown purpose %q: is the other side newer?", h.Purpose)
	}
	return nil
}

// close ends all connections and waits for their goroutines.
func (m *mesh) close() {
	m.mu.Lock()
	m.cancel()
	conns := make([]*peerConn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()
	_ = m.listener.Close() // it accepts nothing more either way
	for _, c := range conns {
		c.kill()
		c.consumed(peerInboxBytesMax << 8) // the core is gone: lets a waiting reader end
	}
	m.wg.Wait()
}

// replaces decides when a connection comes up while there is one already: the newer one counts, unless the two have crossed;
// then both sides keep the one that the node with the larger id made.
func (p *peerConn) replaces(old *peerConn) bool {
	crossed := p.dialled != old.dialled && p.since-old.since < crossedWithin
	return !crossed || p.dialled > old.dialled
}
