package link

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"clade/aoe"
)

const (
	beaconBatch = 16
	// A port whose AoE queue is never empty looks at its beacons in every 16th
	// batch all the same.
	beaconTurn = 16
)

// socketPort is the Linux port: one packet socket for AoE, a second small one
// for beacons, and a third that receives nothing and holds the memberships.
//
// Locks are taken in the order ctl, rx, tx. Both fast ones are taken once a
// batch and are contended only by Reopen and Close.
type socketPort struct {
	cfg Config
	counters

	ctl     sync.Mutex // control: everything but Receive and Send
	control int        // descriptor of the control socket
	joins   joins
	ifindex int
	ring    func()
	rcvBuf  int
	sndBuf  int
	facts   atomic.Pointer[linkFacts]

	rx       sync.Mutex // Receive
	closedRx bool
	aoeFD    int // changed under ctl, rx and tx together
	beaconFD int // -1: no beacons wanted
	aoeRing  *rxRing
	beacons  *rxRing
	turn     uint

	tx       sync.Mutex // Send
	closedTx bool
	gather   *txRing
}

// Open opens the fast port of this system: on Linux, packet sockets with one
// system call a batch. It needs CAP_NET_RAW, and CAP_NET_ADMIN only to exceed
// the system's limit of socket buffers. The port stays in the network namespace
// of the calling thread; Reopen must be called in the same one.
func Open(cfg Config) (Port, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	control, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("link: %s: packet socket: %w (needs CAP_NET_RAW)", cfg.Interface, err)
		}
		return nil, fmt.Errorf("link: %s: packet socket: %w", cfg.Interface, err)
	}
	// The kernel takes receive times while any socket wants them. This one wants
	// them for as long as the port lives, so Reopen has them at once.
	_ = unix.SetsockoptInt(control, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1)
	p := &socketPort{cfg: cfg, control: control, aoeFD: -1, beaconFD: -1, gather: newTxRing(cfg.BatchFrames)}
	if err := p.Reopen(); err != nil {
		_ = unix.Close(control)
		return nil, err
	}
	return p, nil
}

func (p *socketPort) Reopen() error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	if p.control < 0 {
		return p.wrap(ErrClosed)
	}
	ifi, err := Resolve(p.cfg.Interface)
	if err != nil {
		return err
	}
	facts, err := lookUp(p.control, ifi.Index)
	if err != nil {
		return fmt.Errorf("link: %s: look up interface %d: %w", p.cfg.Interface, ifi.Index, err)
	}
	copy(facts.mac[:], ifi.HardwareAddr)
	if facts.mtu < mtuMin || facts.mtu > mtuMax || len(ifi.HardwareAddr) != len(facts.mac) {
		if ifi.Flags&net.FlagLoopback == 0 {
			return fmt.Errorf("link: %s: not an Ethernet interface (MTU %d, address %q)", ifi.Name, facts.mtu, ifi.HardwareAddr)
		}
		facts.mtu = min(facts.mtu, mtuMax)
	}
	aoeFD, err := openSocket(&p.cfg, ifi.Index, EtherTypeAoE)
	if err != nil {
		return fmt.Errorf("link: %s: %w", ifi.Name, err)
	}
	beaconFD := -1
	if p.cfg.Beacons {
		if beaconFD, err = openSocket(&p.cfg, ifi.Index, EtherTypeBeacon); err != nil {
			_ = unix.Close(aoeFD)
			return fmt.Errorf("link: %s: beacons: %w", ifi.Name, err)
		}
	}
	if err := p.joins.move(p.control, p.ifindex, ifi.Index); err != nil {
		closeAll(aoeFD, beaconFD)
		return fmt.Errorf("link: %s: %w", ifi.Name, err)
	}
	p.ifindex = ifi.Index
	p.replace(aoeFD, beaconFD, &facts)
	return nil
}

// replace puts new sockets into service.
func (p *socketPort) replace(aoeFD, beaconFD int, facts *linkFacts) {
	p.countDrops()
	p.rx.Lock()
	p.tx.Lock()
	oldAoE, oldBeacon := p.aoeFD, p.beaconFD
	p.aoeFD, p.beaconFD = aoeFD, beaconFD
	p.facts.Store(facts)
	frameBytes := facts.mtu + HeaderBytes + tagBytes
	switch {
	case p.aoeRing == nil:
		p.aoeRing = newRxRing(EtherTypeAoE, p.cfg.BatchFrames, frameBytes)
		if beaconFD >= 0 {
			p.beacons = newRxRing(EtherTypeBeacon, beaconBatch, frameBytes)
		}
	case p.aoeRing.stride < frameBytes:
		p.resize(frameBytes)
	}
	p.tx.Unlock()
	p.rx.Unlock()
	closeAll(oldAoE, oldBeacon)
	p.rcvBuf, _ = unix.GetsockoptInt(aoeFD, unix.SOL_SOCKET, unix.SO_RCVBUF)
	p.sndBuf, _ = unix.GetsockoptInt(aoeFD, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if p.ring != nil {
		p.ring() // a sleeper still polls the old ones
	}
}

// resize makes the receive buffers larger. Under rx.
func (p *socketPort) resize(frameBytes int) {
	p.aoeRing.resize(frameBytes)
	if p.beacons != nil {
		p.beacons.resize(frameBytes)
	}
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (p *socketPort) wrap(err error) error {
	return fmt.Errorf("link: %s: %w", p.cfg.Interface, err)
}

func (p *socketPort) Receive(frames []RxFrame) (int, error) {
	p.rx.Lock()
	defer p.rx.Unlock()
	if p.closedRx {
		return 0, p.wrap(ErrClosed)
	}
	n := 0
	p.turn++
	if p.turn%beaconTurn == 0 {
		n = p.receiveBeacons(frames)
	}
	want := min(len(frames)-n, p.cfg.BatchFrames)
	res := p.receiveAoE(frames[n : n+want])
	n += res.frames
	if res.errno != 0 {
		return n, p.receiveError(res)
	}
	if res.taken < want && p.turn%beaconTurn != 0 && n < p.cfg.BatchFrames {
		n += p.receiveBeacons(frames[n:min(len(frames), p.cfg.BatchFrames)])
	}
	return n, nil
}

// receiveAoE takes AoE frames. That it finds none means that the queue was
// empty, so a batch of nothing but unusable frames does not count.
func (p *socketPort) receiveAoE(frames []RxFrame) rxResult {
	for {
		res := p.aoeRing.receive(p.aoeFD, frames)
		if res.tooLong {
			p.grow()
		}
		p.received(res.frames, res.bytes, res.bad)
		if res.frames > 0 || res.taken == 0 || res.taken < len(frames) {
			return res
		}
	}
}

// receiveBeacons takes beacons only. Its socket's errors are those of the other
// socket too, which reports them.
func (p *socketPort) receiveBeacons(frames []RxFrame) int {
	if p.beaconFD < 0 {
		return 0
	}
	res := p.beacons.receive(p.beaconFD, frames)
	p.received(res.frames, res.bytes, res.bad)
	return res.frames
}

// grow makes room for frames of the interface's present MTU, after one came
// that was longer than the buffers.
func (p *socketPort) grow() {
	old := p.facts.Load()
	facts, err := lookUp(p.aoeFD, boundIndex(p.aoeFD))
	if err != nil || facts.mtu > mtuMax {
		return
	}
	facts.mac = old.mac
	p.facts.Store(&facts)
	if frameBytes := facts.mtu + HeaderBytes + tagBytes; frameBytes > p.aoeRing.stride {
		p.resize(frameBytes)
	}
}

// receiveError says what a failed receive means.
func (p *socketPort) receiveError(res rxResult) error {
	if p.beaconFD >= 0 {
		pendingError(p.beaconFD) // the same, said twice
	}
	switch {
	case isGone(res.errno), res.errno == unix.ENETDOWN && boundIndex(p.aoeFD) < 0:
		return p.wrap(ErrGone)
	case res.errno == unix.ENETDOWN:
		return p.wrap(ErrDown)
	}
	return p.wrap(syscallError("recvmmsg", res.errno))
}

func (p *socketPort) Send(frames []TxFrame) (int, error) {
	p.tx.Lock()
	defer p.tx.Unlock()
	if p.closedTx {
		return 0, p.wrap(ErrClosed)
	}
	sent, bytes, bad := 0, 0, 0
	var err error
	for rest := frames; len(rest) > 0 && err == nil; {
		consumed, messages, refused := p.gather.fill(rest)
		bad += refused
		n, b, bd, more, e := p.sendBatch(messages)
		sent, bytes, bad, err = sent+n, bytes+b, bad+bd, e
		rest = rest[consumed:]
		if !more {
			break
		}
	}
	p.gather.release()
	p.sent(sent, bytes, len(frames)-sent-bad, bad)
	return sent, err
}

// sendBatch passes the messages of the ring on. more is false if the rest of
// the frames has to be dropped as well.
func (p *socketPort) sendBatch(messages int) (sent, bytes, bad int, more bool, err error) {
	retried := false
	for at := 0; at < messages; {
		n, b, errno := p.gather.send(p.aoeFD, at, messages)
		if errno == 0 {
			at, sent, bytes = at+n, sent+n, bytes+b
			continue
		}
		switch {
		case errno == unix.EAGAIN, errno == unix.ENOBUFS, errno == unix.ENOMEM:
			return sent, bytes, bad, false, nil
		case errno == unix.ENETDOWN && !retried:
			// Either the link is down now, or it was and nobody had asked yet:
			// the second answer is about now.
			retried = true
		case errno == unix.ENETDOWN && boundIndex(p.aoeFD) >= 0:
			return sent, bytes, bad, false, p.wrap(ErrDown)
		case isGone(errno), errno == unix.ENETDOWN:
			return sent, bytes, bad, false, p.wrap(ErrGone)
		default: // this frame: longer than the MTU, most likely
			at++
			bad++
		}
	}
	return sent, bytes, bad, true, nil
}

func (p *socketPort) Join(mac aoe.MAC) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	if p.control < 0 {
		return p.wrap(ErrClosed)
	}
	if slices.Contains(p.joins.macs, mac) {
		return nil
	}
	err := p.joins.add(p.control, p.ifindex, mac)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("link: %s: join %v: %w", p.cfg.Interface, mac, err)
	}
	p.joins.macs = append(p.joins.macs, mac) // of a gone interface: Reopen does it
	return nil
}

func (p *socketPort) Leave(mac aoe.MAC) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	if p.control < 0 {
		return p.wrap(ErrClosed)
	}
	if i := slices.Index(p.joins.macs, mac); i >= 0 {
		p.joins.macs = slices.Delete(p.joins.macs, i, i+1)
		p.joins.drop(p.control, p.ifindex, mac)
	}
	return nil
}

func (p *socketPort) State() State {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	if p.control < 0 {
		return StateGone
	}
	ifindex := boundIndex(p.aoeFD)
	if ifindex <= 0 {
		return StateGone
	}
	facts, err := lookUp(p.control, ifindex)
	if err != nil {
		return StateGone
	}
	facts.mac = p.facts.Load().mac
	p.facts.Store(&facts)
	if !facts.lower {
		return StateDown
	}
	return StateUp
}

func (p *socketPort) Name() string { return p.facts.Load().name }
func (p *socketPort) MAC() aoe.MAC { return p.facts.Load().mac }
func (p *socketPort) MTU() int     { return p.facts.Load().mtu }

// countDrops adds the frames the kernel dropped since the last time. Under ctl.
func (p *socketPort) countDrops() {
	for _, fd := range []int{p.aoeFD, p.beaconFD} {
		if fd < 0 {
			continue
		}
		if s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			p.rxDropped.Add(uint64(s.Drops))
		}
	}
}

func (p *socketPort) Stats() Stats {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.countDrops()
	s := p.stats()
	s.RcvBufBytes, s.SndBufBytes = p.rcvBuf, p.sndBuf
	s.RxQueueFrames = queueFrames(p.rcvBuf, p.MTU()+HeaderBytes)
	s.JoinedMACs, s.Promiscuous = len(p.joins.macs), p.joins.promiscuous
	s.InterfaceIndex = p.ifindex
	return s
}

func (p *socketPort) Close() error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	if p.control < 0 {
		return nil
	}
	p.countDrops()
	p.rx.Lock()
	p.tx.Lock()
	closeAll(p.aoeFD, p.beaconFD, p.control)
	p.aoeFD, p.beaconFD, p.control = -1, -1, -1
	p.closedRx, p.closedTx = true, true
	p.tx.Unlock()
	p.rx.Unlock()
	if p.ring != nil {
		p.ring()
	}
	return nil
}

func (p *socketPort) readable(fds []int) ([]int, bool) {
	p.rx.Lock()
	defer p.rx.Unlock()
	if p.closedRx {
		return fds, true // to hear of ErrClosed
	}
	fds = append(fds, p.aoeFD)
	if p.beaconFD >= 0 {
		fds = append(fds, p.beaconFD)
	}
	return fds, false
}

func (p *socketPort) watch(ring func()) {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.ring = ring
}
