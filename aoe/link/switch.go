package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"clade/aoe"
)

const (
	switchMTUDefault   = 1500
	queueFramesDefault = 1024
	// delayedFramesMax bounds what a Switch holds back for later delivery.
	delayedFramesMax = 1 << 16
)

// SwitchConfig describes a Switch; the zero value of each field is its default.
type SwitchConfig struct {
	Fabric FabricConfig
	// MTU of all ports. Default 1500.
	MTU int
	// Clock gives the receive times, in nanoseconds. Default RealtimeNs. With a
	// clock of one's own, call Settle after moving it if frames are delayed.
	Clock func() int64
}

// Switch is an Ethernet switch in memory with ports that are used like those
// of Open, from any goroutines: for tests and for clusters in one process.
type Switch struct {
	cfg SwitchConfig

	mu         sync.Mutex
	fabric     *Fabric
	ports      []*SwitchPort
	deliveries []Delivery // reused by every Send
	delayed    []Delivery // sorted by time; equal times in order of sending
}

// NewSwitch returns a switch without ports.
func NewSwitch(cfg SwitchConfig) *Switch {
	if cfg.MTU == 0 {
		cfg.MTU = switchMTUDefault
	}
	return &Switch{cfg: cfg, fabric: NewFabric(cfg.Fabric)}
}

// SwitchPortConfig describes one port. Its MAC is needed, the rest has defaults.
type SwitchPortConfig struct {
	Name string // default "port<number>"
	MAC  aoe.MAC
	// Filter, Beacons and BatchFrames are as in Config.
	Filter      *Filter
	Beacons     bool
	BatchFrames int
	// QueueFrames is how many received frames wait at most. Default 1024.
	QueueFrames int
	// Promiscuous delivers frames for any address, as virtual Ethernet devices
	// do. Otherwise the port receives what a network card would: its own
	// address, joined ones, and groups.
	Promiscuous bool
}

// SwitchPort is a Port of a Switch.
type SwitchPort struct {
	counters
	sw    *Switch
	id    FabricPort
	cfg   SwitchPortConfig
	queue frameQueue

	// Under sw.mu:
	state    State
	attached bool // false: the interface went, and Reopen was not called since
	report   error
	joined   []aoe.MAC
	closed   bool
	ring     func()
	gather   []byte
}

// NewPort adds a port, which is up.
func (s *Switch) NewPort(cfg SwitchPortConfig) (*SwitchPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("port%d", s.fabric.Ports())
	}
	if cfg.MAC[0]&groupBit != 0 || cfg.MAC == (aoe.MAC{}) {
		return nil, fmt.Errorf("link: %s: MAC %x is no station's", cfg.Name, cfg.MAC)
	}
	whole, err := Config{Interface: cfg.Name, BatchFrames: cfg.BatchFrames}.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.BatchFrames = whole.BatchFrames
	if cfg.QueueFrames <= 0 {
		cfg.QueueFrames = queueFramesDefault
	}
	p := &SwitchPort{sw: s, id: s.fabric.AddPort(), cfg: cfg, state: StateUp, attached: true}
	p.queue.limitFrames = cfg.QueueFrames
	s.ports = append(s.ports, p)
	return p, nil
}

// SetState does to a port's interface what may happen to a real one: it goes
// down, comes up, vanishes, comes back. After StateGone the port stays silent
// until Reopen.
func (s *Switch) SetState(p *SwitchPort, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.state == state || p.closed {
		return
	}
	switch state {
	case StateDown:
		if p.attached && p.state == StateUp {
			p.report = ErrDown
		}
	case StateGone:
		if p.attached {
			p.report = ErrGone
		}
		p.attached = false
	}
	p.state = state
	s.fabric.SetUp(p.id, state == StateUp)
	p.signal()
}

// SetCut loses, or no longer loses, every frame on the way from one port to
// another.
func (s *Switch) SetCut(from, to *SwitchPort, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fabric.SetCut(from.id, to.id, cut)
}

// Settle delivers the delayed frames whose time has come.
func (s *Switch) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	nowNs, n := s.now(), 0
	for n < len(s.delayed) && s.delayed[n].AtNs <= nowNs {
		s.arrive(&s.delayed[n])
		n++
	}
	s.delayed = slices.Delete(s.delayed, 0, n)
}

func (s *Switch) now() int64 {
	if s.cfg.Clock == nil {
		return RealtimeNs()
	}
	return s.cfg.Clock()
}

// arrive puts a frame into the queue of its port. Under mu.
func (s *Switch) arrive(d *Delivery) {
	p := s.ports[d.Port]
	if p.closed || !p.attached || p.state != StateUp || !p.wants(d.Data) {
		return
	}
	if !p.queue.put(d.Data, d.AtNs, binary.BigEndian.Uint16(d.Data[offsetType:])) {
		p.rxDropped.Add(1)
	}
	p.signal()
}

// hold keeps a frame for later, and with the system's clock sees to it that
// Settle comes. Under mu.
func (s *Switch) hold(d Delivery, nowNs int64) {
	if len(s.delayed) >= delayedFramesMax {
		s.ports[d.Port].rxDropped.Add(1)
		return
	}
	d.Data = slices.Clone(d.Data)
	at, _ := slices.BinarySearchFunc(s.delayed, d.AtNs+1, func(d Delivery, atNs int64) int {
		if d.AtNs < atNs {
			return -1
		}
		return 1
	})
	s.delayed = slices.Insert(s.delayed, at, d)
	if s.cfg.Clock == nil {
		time.AfterFunc(time.Duration(d.AtNs-nowNs), s.Settle)
	}
}

// wants reports whether the port's card and sockets would take a frame.
func (p *SwitchPort) wants(frame []byte) bool {
	if to := aoe.MAC(frame[:6]); !p.cfg.Promiscuous && to[0]&groupBit == 0 && to != p.cfg.MAC && !slices.Contains(p.joined, to) {
		return false
	}
	switch binary.BigEndian.Uint16(frame[offsetType:]) {
	case EtherTypeAoE:
		return p.cfg.Filter == nil || p.cfg.Filter.Accepts(frame)
	case EtherTypeBeacon:
		return p.cfg.Beacons
	}
	return false
}

func (p *SwitchPort) signal() {
	if p.ring != nil {
		p.ring()
	}
}

func (p *SwitchPort) wrap(err error) error { return fmt.Errorf("link: %s: %w", p.cfg.Name, err) }

// Receive implements Port.
func (p *SwitchPort) Receive(frames []RxFrame) (int, error) {
	p.sw.mu.Lock()
	closed, report := p.closed, p.report
	p.report = nil
	p.sw.mu.Unlock()
	if closed {
		return 0, p.wrap(ErrClosed)
	}
	if report != nil {
		return 0, p.wrap(report)
	}
	n, bytes := p.queue.take(frames[:min(len(frames), p.cfg.BatchFrames)])
	p.received(n, bytes, 0)
	return n, nil
}

// Send implements Port.
func (p *SwitchPort) Send(frames []TxFrame) (int, error) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := p.sendable(); err != nil {
		if !errors.Is(err, ErrClosed) {
			p.sent(0, 0, len(frames), 0)
		}
		return 0, p.wrap(err)
	}
	nowNs := s.now()
	sent, bytes := 0, 0
	for i := range frames {
		size := frames[i].Bytes()
		if size < HeaderBytes || size > s.cfg.MTU+HeaderBytes {
			continue
		}
		p.gather = frames[i].appendTo(p.gather[:0])
		s.deliveries = s.fabric.Transmit(s.deliveries[:0], nowNs, p.id, p.gather)
		for d := range s.deliveries {
			if s.deliveries[d].AtNs > nowNs {
				s.hold(s.deliveries[d], nowNs)
			} else {
				s.arrive(&s.deliveries[d])
			}
		}
		sent++
		bytes += size
	}
	p.sent(sent, bytes, 0, len(frames)-sent)
	return sent, nil
}

// sendable returns why nothing can be sent, or nil. Under sw.mu.
func (p *SwitchPort) sendable() error {
	switch {
	case p.closed:
		return ErrClosed
	case !p.attached:
		return ErrGone
	case p.state != StateUp:
		return ErrDown
	}
	return nil
}

// Join implements Port.
func (p *SwitchPort) Join(mac aoe.MAC) error {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed {
		return p.wrap(ErrClosed)
	}
	if !slices.Contains(p.joined, mac) {
		p.joined = append(p.joined, mac)
	}
	return nil
}

// Leave implements Port.
func (p *SwitchPort) Leave(mac aoe.MAC) error {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed {
		return p.wrap(ErrClosed)
	}
	p.joined = slices.DeleteFunc(p.joined, func(m aoe.MAC) bool { return m == mac })
	return nil
}

// State implements Port.
func (p *SwitchPort) State() State {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed || !p.attached {
		return StateGone
	}
	return p.state
}

// Reopen implements Port.
func (p *SwitchPort) Reopen() error {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed {
		return p.wrap(ErrClosed)
	}
	if p.state == StateGone {
		return p.wrap(ErrGone)
	}
	p.attached, p.report = true, nil
	p.queue.discard()
	return nil
}

// Name implements Port.
func (p *SwitchPort) Name() string { return p.cfg.Name }

// MAC implements Port.
func (p *SwitchPort) MAC() aoe.MAC { return p.cfg.MAC }

// MTU implements Port.
func (p *SwitchPort) MTU() int { return p.sw.cfg.MTU }

// Stats implements Port.
func (p *SwitchPort) Stats() Stats {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	s := p.stats()
	s.RxQueueFrames = p.cfg.QueueFrames
	s.JoinedMACs, s.Promiscuous = len(p.joined), p.cfg.Promiscuous
	s.InterfaceIndex = int(p.id) + 1
	return s
}

// Close implements Port. The port's place in the switch stays empty.
func (p *SwitchPort) Close() error {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.sw.fabric.SetUp(p.id, false)
		p.signal()
	}
	return nil
}

func (p *SwitchPort) readable(fds []int) ([]int, bool) {
	p.sw.mu.Lock()
	has := p.closed || p.report != nil
	p.sw.mu.Unlock()
	return fds, has || !p.queue.empty()
}

func (p *SwitchPort) watch(ring func()) {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	p.ring = ring
}

var _ Port = (*SwitchPort)(nil)
