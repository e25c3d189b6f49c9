package sim

import (
	"clade/aoe"
)

// The virtual Ethernet: one learning switch per SAN path, with a port for each node and each initiator.

const (
	etherTypeAoE    = 0x88A2
	etherTypeBeacon = 0x88B5
	fdbAgeNs        = 300 * second
)

var broadcastMAC = aoe.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// etherFaults are the rates of one SAN path.
type etherFaults struct {
	loss, dup, late float64 // late: held in the fabric for lateNs, others overtake it
	delayNs         int64   // typical, one way
	lateNs          int64
}

// etherSwitch is one SAN path. It forwards a frame some time after it was sent and learns where addresses live.
type etherSwitch struct {
	sched  *scheduler
	rnd    random
	faults etherFaults
	ports  []*etherPort
	fdb    []fdbEntry
	count  *faultCount
}

type fdbEntry struct {
	mac  aoe.MAC
	port *etherPort
	seen int64
}

// etherPort is where a host is plugged in. Frames on one port are not reordered unless held up.
type etherPort struct {
	name    string
	up      bool
	accepts func(dst aoe.MAC) bool // the NIC's filter
	receive func(frame []byte)     // at the moment of the kernel's receive timestamp
	lastNs  int64                  // when the last frame in order was delivered
	sw      *etherSwitch
}

func (s *etherSwitch) plug(name string, accepts func(aoe.MAC) bool, receive func([]byte)) *etherPort {
	p := &etherPort{name: name, up: true, accepts: accepts, receive: receive, sw: s}
	s.ports = append(s.ports, p)
	return p
}

func frameDst(b []byte) aoe.MAC { return aoe.MAC(b[0:6]) }
func frameSrc(b []byte) aoe.MAC { return aoe.MAC(b[6:12]) }
func frameType(b []byte) uint16 { return uint16(b[12])<<8 | uint16(b[13]) }

// send puts a frame on the wire. The switch owns it from now on and gives the same bytes to every receiver.
func (p *etherPort) send(frame []byte) {
	if !p.up || len(frame) < 14 {
		return
	}
	s := p.sw
	s.learn(frameSrc(frame), p)
	dst := frameDst(frame)
	if dst != broadcastMAC {
		if to := s.lookup(dst); to != nil {
			if to != p {
				s.forward(to, frame)
			}
			return
		}
	}
	for _, to := range s.ports {
		if to != p {
			s.forward(to, frame)
		}
	}
}

func (s *etherSwitch) learn(mac aoe.MAC, p *etherPort) {
	for i := range s.fdb {
		if s.fdb[i].mac == mac {
			s.fdb[i].port, s.fdb[i].seen = p, s.sched.nowNs
			return
		}
	}
	s.fdb = append(s.fdb, fdbEntry{mac, p, s.sched.nowNs})
}

// lookup returns the port of an address, or nil: then the frame floods.
func (s *etherSwitch) lookup(mac aoe.MAC) *etherPort {
	for i := range s.fdb {
		if s.fdb[i].mac == mac && s.sched.nowNs-s.fdb[i].seen < fdbAgeNs && s.fdb[i].port != nil {
			return s.fdb[i].port
		}
	}
	return nil
}

// setUp changes a port's carrier. Losing it makes the switch forget what it learned there.
func (p *etherPort) setUp(up bool) {
	p.up = up
	if !up {
		for i := range p.sw.fdb {
			if p.sw.fdb[i].port == p {
				p.sw.fdb[i].port = nil
			}
		}
	}
}

func (s *etherSwitch) forward(to *etherPort, frame []byte) {
	f := &s.faults
	if s.rnd.chance(f.loss) {
		s.count.hit("frame lost")
		return
	}
	copies := 1
	if s.rnd.chance(f.dup) {
		copies = 2
		s.count.hit("frame duplicated")
	}
	for i := range copies {
		at := s.sched.nowNs + s.rnd.delay(f.delayNs)
		if late := s.rnd.chance(f.late) || i > 0 && s.rnd.chance(0.5); late {
			at += s.rnd.Int64N(f.lateNs + 1)
			s.count.hit("frame held up")
		} else {
			at = max(at, to.lastNs)
			to.lastNs = at
		}
		s.sched.at(at, func() {
			if to.up && to.accepts(frameDst(frame)) {
				to.receive(frame)
			}
		})
	}
}

// faultCount counts injected faults by kind, in order of first occurrence.
type faultCount struct {
	kinds  []string
	counts map[string]int
}

func (c *faultCount) hit(kind string) {
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	if c.counts[kind] == 0 {
		c.kinds = append(c.kinds, kind)
	}
	c.counts[kind]++
}
