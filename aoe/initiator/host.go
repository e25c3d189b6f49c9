package initiator

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"clade/aoe"
	"clade/aoe/link"
)

// Host runs any number of initiators, each with its own MAC, over the ports of
// this process. One goroutine receives; frames are sent by whoever caused them. All methods may be called by any goroutine.
type Host struct {
	ports []*hostPort
	clock func() int64

	mu       sync.Mutex // guards what follows; never taken while a client is locked
	joined   map[aoe.MAC]int
	closed   bool
	routes   atomic.Pointer[routeTable] // replaced, never changed
	poller   *link.Poller
	lookedNs int64 // the receiving goroutine's: last look at the interfaces
	stopping atomic.Bool
	running  sync.WaitGroup
}

// routeTable says who gets a frame for a MAC; everybody gets broadcasts.
type routeTable struct {
	byMAC map[aoe.MAC][]*Client
	all   []*Client
	taps  []*tap
}

// tap sees all frames for one MAC and all broadcasts.
type tap struct {
	mac  aoe.MAC
	take func(iface int, frame []byte) // called by the receiving goroutines
}

type hostPort struct {
	port link.Port
	mu   sync.Mutex // one sender at a time
	tx   []link.TxFrame
	// payloads backs the one-element payload lists of tx.
	payloads [][]byte
	lost     atomic.Uint64
	gone     bool // the receiving goroutine's
}

// HostConfig describes a Host.
type HostConfig struct {
	// Ports are the interfaces, in the order that Config.MTUs and Copy.Interface
	// count them. The Host does not close them.
	Ports []link.Port
	// Clock returns monotonic nanoseconds; default: since boot.
	Clock func() int64
}

// NewHost starts to receive on the ports.
func NewHost(cfg HostConfig) (*Host, error) {
	if len(cfg.Ports) == 0 {
		return nil, errors.New("initiator: a host needs at least one port")
	}
	if cfg.Clock == nil {
		cfg.Clock = BootNs
	}
	poller, err := link.NewPoller(cfg.Ports...)
	if err != nil {
		return nil, fmt.Errorf("initiator: %w", err)
	}
	h := &Host{clock: cfg.Clock, joined: make(map[aoe.MAC]int), poller: poller}
	h.routes.Store(&routeTable{})
	for _, p := range cfg.Ports {
		h.ports = append(h.ports, &hostPort{port: p})
	}
	h.running.Add(1)
	go h.receive()
	return h, nil
}

// Close ends all clients' operations with ErrDown and waits until nothing is
// received any more.
func (h *Host) Close() {
	for _, c := range h.routes.Load().all {
		_ = c.Close()
	}
	h.mu.Lock()
	wasClosed := h.closed
	h.closed = true
	h.mu.Unlock()
	h.stopping.Store(true)
	if wasClosed {
		return
	}
	h.poller.Wake()
	h.running.Wait()
	h.poller.Close()
}

// SendDropped is how many frames the ports did not take; they count as lost on the way.
func (h *Host) SendDropped() uint64 {
	var n uint64
	for _, p := range h.ports {
		n += p.lost.Load()
	}
	return n
}

// receiveBatch is how many frames are taken from a port at once; pollEachNs is
// how often the receiving goroutine looks at what no event tells it.
const (
	receiveBatch = 64
	pollEachNs   = second
)

// receive is the goroutine that empties the ports.
func (h *Host) receive() {
	defer h.running.Done()
	frames := make([]link.RxFrame, receiveBatch)
	var dirty []*Client
	for !h.stopping.Load() {
		quiet := true
		for i, p := range h.ports {
			n, err := p.port.Receive(frames)
			if n > 0 {
				quiet = false
				dirty = h.dispatch(i, frames[:n], dirty[:0])
			}
			if errors.Is(err, link.ErrGone) {
				p.gone = true // an interface that is down comes back by itself
			}
		}
		if quiet {
			h.wait()
		}
	}
}

// wait sleeps until something arrives. An interface that was removed comes back
// under its name, but not by itself.
func (h *Host) wait() {
	now := h.clock()
	if now-h.lookedNs >= pollEachNs {
		h.lookedNs = now
		for _, p := range h.ports {
			if p.gone = p.gone || p.port.State() == link.StateGone; p.gone && p.port.Reopen() == nil {
				p.gone = false
			}
		}
	}
	if _, err := h.poller.Wait(pollEachNs); err != nil {
		time.Sleep(10 * time.Millisecond) // not a reason to spin
	}
}

// dispatch hands frames to the sessions they are for, and lets each of these
// send what follows once.
func (h *Host) dispatch(iface int, frames []link.RxFrame, dirty []*Client) []*Client {
	routes := h.routes.Load()
	for i := range frames {
		data := frames[i].Data
		if len(data) < headerBytes {
			continue
		}
		dst := aoe.MAC(data[:offSrc])
		to := routes.byMAC[dst]
		if dst == broadcast {
			to = routes.all
		}
		for _, c := range to {
			if c.receive(iface, data) {
				dirty = append(dirty, c)
			}
		}
		for _, t := range routes.taps {
			if dst == t.mac || dst == broadcast {
				t.take(iface, data)
			}
		}
	}
	for _, c := range dirty {
		c.flush()
	}
	return dirty
}

// send sends frames on one port; what it refuses is lost, and will be sent again
// by whoever misses the answer.
func (h *Host) send(frames []Frame) {
	for from := 0; from < len(frames); {
		to := from + 1
		for to < len(frames) && frames[to].Interface == frames[from].Interface {
			to++
		}
		h.ports[frames[from].Interface].send(frames[from:to])
		from = to
	}
}

func (p *hostPort) send(frames []Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tx, p.payloads = p.tx[:0], p.payloads[:0]
	for i := range frames {
		p.payloads = append(p.payloads, frames[i].Payload)
	}
	for i := range frames {
		tx := link.TxFrame{Header: frames[i].Header}
		if len(frames[i].Payload) > 0 {
			tx.Payload = p.payloads[i : i+1]
		}
		p.tx = append(p.tx, tx)
	}
	// What the port does not take is lost like any frame on the way.
	if n, _ := p.port.Send(p.tx); n < len(p.tx) {
		p.lost.Add(uint64(len(p.tx) - n))
	}
}

// change replaces the route table by what edit makes of a copy of it.
func (h *Host) change(edit func(t *routeTable)) {
	old := h.routes.Load()
	t := &routeTable{byMAC: make(map[aoe.MAC][]*Client, len(old.byMAC)), all: append([]*Client(nil), old.all...), taps: append([]*tap(nil), old.taps...)}
	for mac, list := range old.byMAC {
		t.byMAC[mac] = append([]*Client(nil), list...)
	}
	edit(t)
	h.routes.Store(t)
}

// join makes all ports take frames for a MAC; leave undoes one join.
func (h *Host) join(mac aoe.MAC) error {
	if h.closed {
		return ErrDown
	}
	if h.joined[mac]++; h.joined[mac] > 1 {
		return nil
	}
	for i, p := range h.ports {
		if err := p.port.Join(mac); err != nil {
			for _, q := range h.ports[:i] {
				err = errors.Join(err, q.port.Leave(mac))
			}
			delete(h.joined, mac)
			return fmt.Errorf("initiator: receive frames for %s: %w", mac, err)
		}
	}
	return nil
}

func (h *Host) leave(mac aoe.MAC) error {
	if h.joined[mac]--; h.joined[mac] > 0 {
		return nil
	}
	delete(h.joined, mac)
	var err error
	for _, p := range h.ports {
		err = errors.Join(err, p.port.Leave(mac))
	}
	return err
}

// mtus lists the MTUs of the ports.
func (h *Host) mtus() []int {
	m := make([]int, len(h.ports))
	for i, p := range h.ports {
		m[i] = p.port.MTU()
	}
	return m
}

// NewMAC returns a random locally administered address, for one more initiator.
func NewMAC() aoe.MAC {
	m := aoe.MAC{}
	mustRandom(m[:])
	m[0] = m[0]&^1 | 2
	return m
}

func randomSeed() uint32 {
	var b [4]byte
	mustRandom(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func mustRandom(b []byte) {
	if _, err := rand.Read(b); err != nil { // never, says its documentation
		panic(fmt.Sprintf("initiator: no random bytes: %v", err))
	}
}
