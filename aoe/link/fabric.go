package link

import (
	"fmt"

	"clade/aoe"
)

const (
	ageNsDefault      = 300e9 // as the Linux bridge does
	entriesMaxDefault = 1 << 16
)

// FabricPort names a port of a Fabric: 0 for the first one added, and so on.
type FabricPort int

// Fate is what happens to one frame on its way to one port. The zero value
// delivers it at once.
type Fate struct {
	Drop        bool
	DelayNs     int64
	Copy        bool // deliver it a second time
	CopyDelayNs int64
}

// FabricConfig describes a Fabric; the zero value of each field is its default.
type FabricConfig struct {
	// AgeNs is how long an address stays known after its last frame. Default
	// 300 s. A negative age forgets at once: a hub.
	AgeNs int64
	// EntriesMax is how many addresses are remembered; further ones are not
	// learnt. Default 65536.
	EntriesMax int
	// Fate, if set, decides about every frame and destination port. frame must
	// not be changed or kept. It is called in a fixed order, so a seeded source
	// of randomness gives the same history again.
	Fate func(nowNs int64, from, to FabricPort, frame []byte) Fate
}

// Delivery is one frame that reaches a port at a time.
type Delivery struct {
	Port FabricPort
	AtNs int64
	Data []byte // the slice that was given to Transmit
}

// fdbEntry is where an address was last seen.
type fdbEntry struct {
	port   FabricPort
	seenNs int64
}

// Fabric is an Ethernet switch as a pure state machine: it learns addresses,
// forgets them with age, floods what it does not know, and can be cut between
// any two ports, in one direction as well. It has no queue, lock or clock, and
// the same calls give the same deliveries. One goroutine at a time.
type Fabric struct {
	cfg FabricConfig
	up  []bool
	cut [][]bool // [from][to]
	fdb map[aoe.MAC]fdbEntry
}

// NewFabric returns a switch without ports.
func NewFabric(cfg FabricConfig) *Fabric {
	if cfg.AgeNs == 0 {
		cfg.AgeNs = ageNsDefault
	}
	if cfg.EntriesMax <= 0 {
		cfg.EntriesMax = entriesMaxDefault
	}
	return &Fabric{cfg: cfg, fdb: make(map[aoe.MAC]fdbEntry)}
}

// AddPort adds a port, which is up, and returns its name.
func (f *Fabric) AddPort() FabricPort {
	f.up = append(f.up, true)
	for i := range f.cut {
		f.cut[i] = append(f.cut[i], false)
	}
	f.cut = append(f.cut, make([]bool, len(f.up)))
	return FabricPort(len(f.up) - 1)
}

// Ports returns how many ports there are.
func (f *Fabric) Ports() int { return len(f.up) }

// SetUp gives a port a carrier or takes it away. Without one nothing passes,
// and the addresses learnt on it are forgotten.
func (f *Fabric) SetUp(port FabricPort, up bool) {
	f.check(port)
	f.up[port] = up
	if up {
		return
	}
	for mac, e := range f.fdb { // only deletes: the order does not matter
		if e.port == port {
			delete(f.fdb, mac)
		}
	}
}

// Up reports whether a port has a carrier.
func (f *Fabric) Up(port FabricPort) bool {
	f.check(port)
	return f.up[port]
}

// SetCut loses, or no longer loses, everything on the way from one port to
// another; the way back is another cut. Nobody notices but by silence: the
// carrier stays and the switch goes on learning, as if the fault were between
// two switches.
func (f *Fabric) SetCut(from, to FabricPort, cut bool) {
	f.check(from)
	f.check(to)
	f.cut[from][to] = cut
}

// Lookup returns the port on which an address was last seen, unless that is too
// long ago.
func (f *Fabric) Lookup(nowNs int64, mac aoe.MAC) (FabricPort, bool) {
	e, ok := f.fdb[mac]
	if !ok || nowNs-e.seenNs >= f.cfg.AgeNs {
		return 0, false
	}
	return e.port, true
}

// Transmit takes a frame in at a port and appends to dst what comes out
// elsewhere, in the order of ports, copies behind their originals. All
// deliveries share frame, which must not change while any of them is under way.
// A delivery whose AtNs is later than nowNs is the caller's to keep until then;
// a port that is down at that time (see Up) does not get it.
func (f *Fabric) Transmit(dst []Delivery, nowNs int64, from FabricPort, frame []byte) []Delivery {
	f.check(from)
	if !f.up[from] || len(frame) < HeaderBytes {
		return dst
	}
	to, src := aoe.MAC(frame[0:6]), aoe.MAC(frame[6:12])
	f.learn(nowNs, from, src)
	if to[0]&groupBit == 0 {
		if port, known := f.Lookup(nowNs, to); known {
			if port == from {
				return dst // it is on that side already
			}
			return f.deliver(dst, nowNs, from, port, frame)
		}
	}
	for port := range f.up {
		if FabricPort(port) != from {
			dst = f.deliver(dst, nowNs, from, FabricPort(port), frame)
		}
	}
	return dst
}

func (f *Fabric) learn(nowNs int64, from FabricPort, src aoe.MAC) {
	if src[0]&groupBit != 0 {
		return
	}
	if _, known := f.fdb[src]; !known && len(f.fdb) >= f.cfg.EntriesMax {
		f.forgetOld(nowNs)
		if len(f.fdb) >= f.cfg.EntriesMax {
			return
		}
	}
	f.fdb[src] = fdbEntry{port: from, seenNs: nowNs}
}

// forgetOld makes room by dropping the addresses that are too old to count.
func (f *Fabric) forgetOld(nowNs int64) {
	for mac, e := range f.fdb { // only deletes: the order does not matter
		if nowNs-e.seenNs >= f.cfg.AgeNs {
			delete(f.fdb, mac)
		}
	}
}

func (f *Fabric) deliver(dst []Delivery, nowNs int64, from, to FabricPort, frame []byte) []Delivery {
	if !f.up[to] || f.cut[from][to] {
		return dst
	}
	var fate Fate
	if f.cfg.Fate != nil {
		fate = f.cfg.Fate(nowNs, from, to, frame)
	}
	if !fate.Drop {
		dst = append(dst, Delivery{Port: to, AtNs: nowNs + max(0, fate.DelayNs), Data: frame})
	}
	if fate.Copy {
		dst = append(dst, Delivery{Port: to, AtNs: nowNs + max(0, fate.CopyDelayNs), Data: frame})
	}
	return dst
}

func (f *Fabric) check(port FabricPort) {
	if port < 0 || int(port) >= len(f.up) {
		panic(fmt.Sprintf("link: fabric port %d of %d", port, len(f.up)))
	}
}
