package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/raw"
	"golang.org/x/net/bpf"

	"clade/aoe"
)

const (
	// rawPatience is how long a read of the portable port waits before it looks
	// around; rawStall is how much longer than that it may take before the
	// process must have been stopped meanwhile.
	rawPatience = 20 * time.Millisecond
	rawStall    = 50 * time.Millisecond
	// rawQueueBytes bounds the frames that wait for Receive, like a socket's
	// own queue does.
	rawQueueBytes = 8 << 20
)

// rawPort is the portable port: mdlayher/raw, with one goroutine a socket that
// reads frame by frame into a queue.
type rawPort struct {
	cfg Config
	counters
	queue     frameQueue
	inspector inspector
	facts     atomic.Pointer[linkFacts]

	mu      sync.Mutex // everything but Receive and Send
	joined  []aoe.MAC
	promisc bool
	readers sync.WaitGroup
	conns   atomic.Pointer[rawConns] // nil: closed
	closed  atomic.Bool
	ring    atomic.Pointer[func()]
	failed  atomic.Pointer[error] // what a reader died of, until Receive has reported it
	gather  []byte                // Send's
	tx      sync.Mutex
}

// rawConns is one opening of the interface.
type rawConns struct {
	ifi     *net.Interface
	aoe     *raw.Conn
	beacon  *raw.Conn // nil: none wanted
	closing atomic.Bool
	gone    atomic.Bool // an error showed that the interface was removed
}

// OpenRaw opens the portable port: the same methods over mdlayher/raw, one
// system call a frame, for systems without the fast port and to check that one
// against.
//
// It differs in what the library cannot do. Joined addresses are received in
// promiscuous mode. The size of the socket's queue is the system's default.
// The kernel's receive times are not to be had: TimeNs is when the frame was
// read, which happens at once, in a goroutine of its own. If that was held up
// for longer than 50 ms (the process was stopped), all that had queued up is
// dropped, so a frame is never more than 70 ms older than it says.
func OpenRaw(cfg Config) (Port, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	eye, err := newInspector()
	if err != nil {
		return nil, fmt.Errorf("link: %s: %w", cfg.Interface, err)
	}
	p := &rawPort{cfg: cfg, inspector: eye}
	p.queue.limitBytes = rawQueueBytes
	if err := p.Reopen(); err != nil {
		eye.close()
		return nil, err
	}
	return p, nil
}

func (p *rawPort) wrap(err error) error { return fmt.Errorf("link: %s: %w", p.cfg.Interface, err) }

func (p *rawPort) Reopen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return p.wrap(ErrClosed)
	}
	ifi, err := Resolve(p.cfg.Interface)
	if err != nil {
		return err
	}
	facts, err := p.inspector.lookUp(ifi.Index)
	if err != nil {
		return fmt.Errorf("link: %s: look up interface %d: %w", ifi.Name, ifi.Index, err)
	}
	copy(facts.mac[:], ifi.HardwareAddr)
	conns, err := p.listen(ifi)
	if err != nil {
		return fmt.Errorf("link: %s: %w", ifi.Name, err)
	}
	p.stopReaders()
	p.facts.Store(&facts)
	p.failed.Store(nil)
	p.promisc = false
	p.conns.Store(conns)
	if err := p.updatePromiscuous(conns); err != nil {
		return fmt.Errorf("link: %s: promiscuous mode: %w", ifi.Name, err)
	}
	p.startReader(conns, conns.aoe, EtherTypeAoE)
	if conns.beacon != nil {
		p.startReader(conns, conns.beacon, EtherTypeBeacon)
	}
	return nil
}

// listen opens the connections for the EtherTypes wanted.
func (p *rawPort) listen(ifi *net.Interface) (*rawConns, error) {
	var guard []bpf.Instruction
	if runtime.GOOS == "linux" {
		guard = ownVLAN()
	}
	prog, err := assemble(guard, p.cfg.Filter)
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	conns := &rawConns{ifi: ifi}
	if conns.aoe, err = raw.ListenPacket(ifi, EtherTypeAoE, &raw.Config{Filter: prog}); err != nil {
		return nil, err
	}
	if !p.cfg.Beacons {
		return conns, nil
	}
	if prog, err = assemble(guard, nil); err == nil {
		conns.beacon, err = raw.ListenPacket(ifi, EtherTypeBeacon, &raw.Config{Filter: prog})
	}
	if err != nil {
		_ = conns.aoe.Close()
		return nil, fmt.Errorf("beacons: %w", err)
	}
	return conns, nil
}

// stopReaders closes the present connections, if any, and waits until their
// readers are done. Under mu.
func (p *rawPort) stopReaders() {
	old := p.conns.Swap(nil)
	if old == nil {
		return
	}
	old.closing.Store(true)
	if s, err := old.aoe.Stats(); err == nil {
		p.rxDropped.Add(s.Drops)
	}
	_ = old.aoe.Close()
	if old.beacon != nil {
		_ = old.beacon.Close()
	}
	p.readers.Wait()
}

func (p *rawPort) startReader(conns *rawConns, conn *raw.Conn, etherType uint16) {
	p.readers.Add(1)
	go func() {
		defer p.readers.Done()
		p.read(conns, conn, etherType)
	}()
}

// read moves frames from conn to the queue until conn is closed or dead.
func (p *rawPort) read(conns *rawConns, conn *raw.Conn, etherType uint16) {
	buf := make([]byte, mtuMax+HeaderBytes)
	var deadline time.Time
	stalled := false
	for {
		began := time.Now()
		if deadline.Sub(began) < rawPatience/2 {
			deadline = began.Add(rawPatience)
			_ = conn.SetReadDeadline(deadline)
		}
		n, _, err := conn.ReadFrom(buf)
		now := time.Now()
		late := now.Sub(began) > rawPatience+rawStall
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The queue was empty when this read began. If that is long ago,
			// it says nothing about now.
			stalled = late
		case conns.closing.Load():
			return
		case err != nil:
			if p.readFailed(conns, etherType, err) {
				return
			}
		case stalled || late:
			stalled = true
			p.rxDropped.Add(1)
		case etherType == EtherTypeAoE && p.cfg.Filter != nil && !p.cfg.Filter.Accepts(buf[:n]):
		case n > p.MTU()+HeaderBytes+tagBytes:
			p.received(0, 0, 1)
		default:
			if !p.queue.put(buf[:n], now.UnixNano(), etherType) {
				p.rxDropped.Add(1)
			}
			p.signal()
		}
	}
}

// readFailed keeps an error for Receive and reports whether the connection is
// dead. A link that went down comes up again on the same connection. Beacons
// meet the same fate as AoE, whose reader reports it.
func (p *rawPort) readFailed(conns *rawConns, etherType uint16, err error) (dead bool) {
	report := ErrDown
	if _, e := p.inspector.lookUp(conns.ifi.Index); e != nil {
		report, dead = ErrGone, true
		conns.gone.Store(true)
	} else if !isLinkError(err) {
		report, dead = err, true
	}
	if etherType == EtherTypeAoE {
		p.failed.Store(&report)
		p.signal()
	}
	return dead
}

func (p *rawPort) signal() {
	if ring := p.ring.Load(); ring != nil {
		(*ring)()
	}
}

func (p *rawPort) Receive(frames []RxFrame) (int, error) {
	if p.closed.Load() {
		return 0, p.wrap(ErrClosed)
	}
	n, bytes := p.queue.take(frames[:min(len(frames), p.cfg.BatchFrames)])
	p.received(n, bytes, 0)
	if n == 0 {
		if err := p.failed.Swap(nil); err != nil {
			return 0, p.wrap(*err)
		}
	}
	return n, nil
}

func (p *rawPort) Send(frames []TxFrame) (int, error) {
	p.tx.Lock()
	defer p.tx.Unlock()
	if p.closed.Load() {
		return 0, p.wrap(ErrClosed)
	}
	conns := p.conns.Load()
	if conns == nil {
		p.sent(0, 0, len(frames), 0)
		return 0, p.wrap(ErrGone)
	}
	sent, bytes, bad, mtu := 0, 0, 0, p.MTU()
	var failure error
	for i := range frames {
		size := frames[i].Bytes()
		if size < HeaderBytes || size > mtu+HeaderBytes {
			bad++
			continue
		}
		p.gather = frames[i].appendTo(p.gather[:0])
		_, err := conns.aoe.WriteTo(p.gather, &raw.Addr{HardwareAddr: p.gather[:6]})
		if err != nil && isLinkError(err) { // perhaps of the past: ask again
			_, err = conns.aoe.WriteTo(p.gather, &raw.Addr{HardwareAddr: p.gather[:6]})
		}
		if err != nil {
			failure = p.sendError(conns, err)
			break
		}
		sent++
		bytes += size
	}
	p.sent(sent, bytes, len(frames)-sent-bad, bad)
	return sent, failure
}

// sendError says what a failed write means; lack of room is no error.
func (p *rawPort) sendError(conns *rawConns, err error) error {
	facts, e := p.inspector.lookUp(conns.ifi.Index)
	switch {
	case e != nil:
		conns.gone.Store(true)
		return p.wrap(ErrGone)
	case !facts.up:
		return p.wrap(ErrDown)
	case isLinkError(err):
		conns.gone.Store(true) // exists and is up, but this connection is dead
		return p.wrap(ErrGone)
	}
	return nil
}

// updatePromiscuous turns promiscuous mode on while an address is joined that
// is not the interface's own. Under mu.
func (p *rawPort) updatePromiscuous(conns *rawConns) error {
	want := slices.ContainsFunc(p.joined, func(mac aoe.MAC) bool { return mac != hardwareMAC(conns.ifi) })
	if want == p.promisc {
		return nil
	}
	if err := conns.aoe.SetPromiscuous(want); err != nil {
		return err
	}
	p.promisc = want
	return nil
}

func hardwareMAC(ifi *net.Interface) (mac aoe.MAC) {
	copy(mac[:], ifi.HardwareAddr)
	return mac
}

func (p *rawPort) Join(mac aoe.MAC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.conns.Load()
	if conns == nil {
		return p.wrap(ErrClosed)
	}
	if slices.Contains(p.joined, mac) {
		return nil
	}
	p.joined = append(p.joined, mac)
	if err := p.updatePromiscuous(conns); err != nil && !conns.gone.Load() {
		p.joined = p.joined[:len(p.joined)-1]
		return fmt.Errorf("link: %s: join %v: %w", p.cfg.Interface, mac, err)
	}
	return nil
}

func (p *rawPort) Leave(mac aoe.MAC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.conns.Load()
	if conns == nil {
		return p.wrap(ErrClosed)
	}
	if i := slices.Index(p.joined, mac); i >= 0 {
		p.joined = slices.Delete(p.joined, i, i+1)
		_ = p.updatePromiscuous(conns) // to receive too much is harmless
	}
	return nil
}

func (p *rawPort) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.conns.Load()
	if conns == nil || conns.gone.Load() {
		return StateGone
	}
	facts, err := p.inspector.lookUp(conns.ifi.Index)
	if err != nil {
		conns.gone.Store(true)
		return StateGone
	}
	facts.mac = p.facts.Load().mac
	p.facts.Store(&facts)
	if !facts.lower {
		return StateDown
	}
	return StateUp
}

func (p *rawPort) Name() string { return p.facts.Load().name }
func (p *rawPort) MAC() aoe.MAC { return p.facts.Load().mac }
func (p *rawPort) MTU() int     { return p.facts.Load().mtu }

func (p *rawPort) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats()
	s.JoinedMACs, s.Promiscuous = len(p.joined), p.promisc
	conns := p.conns.Load()
	if conns == nil {
		return s
	}
	if kernel, err := conns.aoe.Stats(); err == nil {
		s.RxDropped += kernel.Drops // since the connection was opened
	}
	s.InterfaceIndex = conns.ifi.Index
	s.RxQueueFrames = rawQueueBytes / (p.MTU() + HeaderBytes)
	return s
}

func (p *rawPort) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Swap(true) {
		return nil
	}
	p.stopReaders()
	p.tx.Lock() // a Send under way still looks the interface up
	p.inspector.close()
	p.tx.Unlock()
	p.signal()
	return nil
}

func (p *rawPort) readable(fds []int) ([]int, bool) {
	return fds, p.closed.Load() || p.failed.Load() != nil || !p.queue.empty()
}

func (p *rawPort) watch(ring func()) {
	if ring == nil {
		p.ring.Store(nil)
		return
	}
	p.ring.Store(&ring)
}
