package runtime

import (
	"errors"
	"fmt"
	"slices"

	"clade/aoe"
	"clade/aoe/link"
	"clade/cluster"
)

const (
	// intakeFramesMax bounds the frames of one turn, so that no flood keeps the core from its other inputs. Frames left over
	// keep their place and their time.
	intakeFramesMax = 1024
	receiveFrames   = 64
)

// sanPort is one path to the SAN. The core's goroutine uses it, but for what is said to be the watch's.
type sanPort struct {
	path   int
	spec   string // the interface as configured
	port   link.Port
	clock  link.Clock
	frames []link.RxFrame
	next   int // frames[next:have] are received but not yet handed to the node
	have   int
	empty  bool // the kernel's queue was seen empty in this turn
	joined []aoe.MAC
	tx     []link.TxFrame
	why    string // what the watch said last
	known  bool
	late   bool // it was opened after the node was made

	sectorCount uint8

	dropJump uint64 // frames dropped because the wall clock had jumped
	rxErrors uint64
}

// sanState is what the watch reports about a path.
type sanState struct {
	path    int
	up      bool
	carrier bool
	mtuOK   bool
	why     string // empty when up
	mtu     int
}

// look asks the interface for its state and reopens it when it has come back under the same specification. For the watch's
// goroutine.
func (p *sanPort) look(port link.Port) sanState {
	s := sanState{path: p.path}
	if port == nil {
		s.why = "the interface could not be opened"
		return s
	}
	switch port.State() {
	case link.StateGone:
		if err := port.Reopen(); err != nil {
			s.why = err.Error()
			return s
		}
		if port.State() != link.StateUp {
			s.why = "no carrier"
			return s
		}
	case link.StateDown:
		s.why = "no carrier"
		return s
	case link.StateUp:
	}
	s.mtu, s.carrier = port.MTU(), true
	if need := aoe.MTUFor(p.sectorCount); s.mtu < need {
		s.why = fmt.Sprintf("MTU %d is too small: the cluster's requests of %d sectors need %d; set the MTU of %s and of its switch", s.mtu, p.sectorCount, need, port.Name())
		return s
	}
	s.up, s.mtuOK = true, true
	return s
}

// refill receives the next batch of a port whose frames have all been handed out.
func (p *sanPort) refill() error {
	p.next, p.have = 0, 0
	n, err := p.port.Receive(p.frames)
	if err != nil {
		p.empty = true
		return err
	}
	p.empty = n < len(p.frames) // what comes now is of the next turn
	if _, ok := p.clock.Convert(p.frames[:n]); !ok {
		p.dropJump += uint64(n)
		return nil // the next refill sees the rest of the queue
	}
	p.have = n
	return nil
}

// intake hands the node what the kernel has received by untilNs on all ports, in order of receive time (A.4.1). hand gets
// frames whose data is valid during the call only. It returns whether something may be left for another turn, and the errors
// of ports.
func intake(ports []*sanPort, untilNs int64, buf []cluster.SANFrame, hand func([]cluster.SANFrame)) (more bool, errs []error) {
	for _, p := range ports {
		p.empty = p.port == nil
	}
	buf = buf[:0]
	total := 0
	for {
		var first *sanPort
		for _, p := range ports {
			for p.next == p.have && !p.empty {
				if len(buf) > 0 { // refill overwrites what they point to
					hand(buf)
					buf = buf[:0]
				}
				if err := p.refill(); err != nil && !errors.Is(err, link.ErrClosed) {
					p.rxErrors++
					errs = append(errs, err)
				}
			}
			if p.next < p.have && p.frames[p.next].TimeNs <= untilNs && (first == nil || p.frames[p.next].TimeNs < first.frames[first.next].TimeNs) {
				first = p
			}
		}
		if first == nil || total == intakeFramesMax {
			if len(buf) > 0 {
				hand(buf)
			}
			return first != nil || slices.ContainsFunc(ports, func(p *sanPort) bool { return p.next < p.have }), errs
		}
		f := &first.frames[first.next]
		first.next++
		total++
		buf = append(buf, cluster.SANFrame{Path: first.path, RxNs: f.TimeNs, Data: f.Data})
	}
}

// forget drops the frames that wait to be handed out.
func (p *sanPort) forget() { p.next, p.have = 0, 0 }

// change joins or leaves a serving MAC; a port that is not open does so when it is.
func (p *sanPort) change(mac aoe.MAC, join bool) error {
	at := slices.Index(p.joined, mac)
	switch {
	case join && at < 0:
		p.joined = append(p.joined, mac)
	case !join && at >= 0:
		p.joined = slices.Delete(p.joined, at, at+1)
	}
	if p.port == nil {
		return nil
	}
	if join {
		return p.port.Join(mac)
	}
	return p.port.Leave(mac)
}

// open takes a port that has been opened for this path.
func (p *sanPort) open(port link.Port) error {
	p.port = port
	p.clock.Boottime = nearBootNs
	if p.frames == nil {
		p.frames = make([]link.RxFrame, receiveFrames)
	}
	p.forget()
	for _, mac := range p.joined {
		if err := port.Join(mac); err != nil {
			return err
		}
	}
	return nil
}

// send passes the frames collected in tx on.
func (p *sanPort) send() error {
	if len(p.tx) == 0 {
		return nil
	}
	var err error
	if p.port != nil {
		_, err = p.port.Send(p.tx)
	}
	clear(p.tx) // lets go of the payloads
	p.tx = p.tx[:0]
	if errors.Is(err, link.ErrClosed) {
		return nil
	}
	return err
}
