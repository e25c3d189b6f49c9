package sim

import (
	"fmt"
	"strings"

	"clade/aoe/initiator"
)

// volumeShape is one volume of a run.
type volumeShape struct {
	slot      uint8
	k, m      int
	unitBytes int
	sizeMiB   int
	extentMiB uint32
	perDisk   bool // failure domain disk instead of node
	strict    bool
}

// initiatorShape is one initiator and its habits.
type initiatorShape struct {
	mode       initiator.Mode
	mtu        int
	depth      int     // operations outstanding per volume
	reads      float64 // fraction
	sectorsMax int     // per operation
	hot        int     // it works on so many places of the volume
	thinkNs    int64
	control    float64 // fraction of operations that are config or reservation requests
}

// faultKind names a fault that the simulator injects by itself, at random times.
type faultKind int

const (
	faultCrash        faultKind = iota // kill -9, the guardian proves the death
	faultCrashNoProof                  // kill -9 of guardian and child
	faultPower                         // one host loses power: unsynced sectors kept, dropped or torn
	faultPowerAll                      // all hosts lose power
	faultPause                         // SIGSTOP
	faultFreeze                        // the whole machine stops, as a guest that is moved; its clock counts on
	faultClockStands                   // the same, and its clock does not count it: within the margin, or all volumes strict
	faultClockSet                      // the wall clock is set, which looks as if the machine had been frozen
	faultPartition                     // one node cut from all others, both ways
	faultCutOneWay                     // one direction of one pair
	faultReset                         // connections reset
	faultPort                          // a SAN port without carrier
	faultPath                          // a whole SAN path down
	faultStorm                         // a SAN path with much loss, duplication and delay
	faultSlowDisk                      // a disk a hundred times slower
	faultRot                           // sectors of a victim's data area go bad
	faultDiskGone                      // a victim's disk stops answering for a while
	faultLie                           // power loss of a victim whose disk has lied about its last syncs
	faultWitness                       // the witness dies for long
	faultHandoff                       // an operator moves a volume
	faultDrain                         // an operator drains a node for a while
	faultJoin                          // a spare node joins, and becomes a voter
	faultLeave                         // a former spare leaves
	faultRecreate                      // an operator deletes a volume and makes a new one in its slot
	faultKinds
)

var faultNames = [faultKinds]string{"crash", "crash without proof", "power loss of one host", "power loss of all hosts", "pause",
	"machine frozen", "machine frozen, clock stands", "wall clock set",
	"partition of one node", "one-way cut", "connection reset", "SAN port down", "SAN path down", "SAN storm", "slow disk",
	"bad sectors", "disk gone", "disk that lied", "witness lost", "handoff", "drain", "node joins", "node leaves", "volume made anew"}

// shape is what a seed chooses before anything runs.
type shape struct {
	seed         uint64
	nodes        int
	witness      bool // the last node has no disks
	spares       int  // hosts that may join and leave, without disks; every other one as a witness
	disksPerNode int
	diskMiB      int
	paths        int
	volumes      []volumeShape
	initiators   []initiatorShape
	drift        []float64 // clock rate per node
	guardian     bool
	safetyNs     int64
	livenessNs   int64
	afterNs      int64 // load after the last fault
	faultEachNs  int64 // mean time between faults
	rates        [faultKinds]float64
	damage       bool // data of the victims may be damaged; then only their nodes fail
	ether        etherFaults
	peerDelayNs  int64
	diskOpNs     int64
	cacheBytes   int // of each owner: small, so that reads and old bytes come from disks
	diskSyncNs   int64
}

// options change what a seed would choose, for scenario tests and small runs.
type options struct {
	quiet    bool // no faults at all
	nodes    int
	safetyNs int64
	tweak    func(*shape)
	profile  profile      // nil: the seed's own
	script   func(*world) // scripted faults instead of random ones
	echo     func(string) // every line of the timeline as it happens
}

func newShape(seed uint64, o options) shape {
	r := newRandom(seed, "shape")
	s := shape{seed: seed, diskMiB: 64, livenessNs: 10 * second, safetyNs: r.between(4, 12) * second}
	s.nodes = pick(r, 1, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7)
	if o.nodes > 0 {
		s.nodes = o.nodes
	}
	s.witness = s.nodes >= 3 && r.chance(0.3)
	s.spares = pick(r, 0, 0, 1, 2)
	s.disksPerNode = pick(r, 1, 1, 1, 2, 3)
	if s.nodes == 1 {
		s.disksPerNode = pick(r, 1, 2, 3, 4)
	}
	s.paths = pick(r, 1, 1, 2)
	s.chooseVolumes(r)
	s.chooseInitiators(r)
	for range s.nodes {
		rate := 1.0
		if r.chance(0.7) {
			rate += (r.Float64()*2 - 1) * 0.0099
		}
		s.drift = append(s.drift, rate)
	}
	s.guardian = r.chance(0.7)
	s.ether = etherFaults{delayNs: r.between(5, 60) * us, lateNs: r.between(1, 40) * ms}
	if r.chance(0.6) {
		s.ether.loss, s.ether.dup, s.ether.late = r.Float64()*0.01, r.Float64()*0.01, r.Float64()*0.01
	}
	s.peerDelayNs = pick(r, 30*us, 100*us, 300*us, 2*ms)
	s.diskOpNs = pick(r, 5*us, 20*us, 100*us)
	s.diskSyncNs = pick(r, 50*us, 300*us, 2*ms, 8*ms)
	s.cacheBytes = pick(r, 64<<10, 512<<10, 8<<20)
	s.faultEachNs = r.between(60, 1200) * ms
	s.damage = r.chance(0.3)
	for i := range s.rates {
		if r.chance(0.5) {
			s.rates[i] = r.Float64()
		}
	}
	s.rates[faultPowerAll] *= 0.3
	s.rates[faultRecreate] *= 0.3
	bend := o.profile
	if bend == nil {
		bend = profileOf(seed)
	}
	if o.nodes == 0 {
		bend(&s)
	}
	s.afterNs = pick(r, second, second, second, 2*second, 5*second)
	if o.safetyNs > 0 {
		s.safetyNs = o.safetyNs
	}
	if o.quiet {
		s.rates = [faultKinds]float64{}
		s.ether.loss, s.ether.dup, s.ether.late = 0, 0, 0
	}
	if o.tweak != nil {
		o.tweak(&s)
	}
	if !s.damage {
		s.rates[faultRot], s.rates[faultDiskGone], s.rates[faultLie] = 0, 0, 0
	}
	if s.rates[faultLie] > 0 { // what would move a volume away from who can find the liar out
		for _, f := range []faultKind{faultPort, faultPath, faultStorm, faultHandoff, faultDrain} {
			s.rates[f] = 0
		}
	}
	if !s.witness {
		s.rates[faultWitness] = 0
	}
	if s.spares == 0 {
		s.rates[faultJoin], s.rates[faultLeave] = 0, 0
	}
	return s
}

// driftOf returns the rate of a host's clock.
func (s *shape) driftOf(host int) float64 {
	if host < len(s.drift) {
		return s.drift[host]
	}
	return 1
}

// allStrict says that every volume asks its disks before it believes its lease.
func (s *shape) allStrict() bool {
	for _, v := range s.volumes {
		if !v.strict {
			return false
		}
	}
	return true
}

func (s *shape) storageNodes() int {
	if s.witness {
		return s.nodes - 1
	}
	return s.nodes
}

func (s *shape) chooseVolumes(r random) {
	layouts := [][2]int{{1, 0}, {1, 1}, {1, 2}, {2, 1}, {3, 2}, {4, 2}}
	for slot := range 1 + r.IntN(3) {
		var fit []volumeShape
		for _, l := range layouts {
			width := l[0] + l[1]
			switch {
			case width <= s.storageNodes():
				weight := 1 + 2*l[1]
				for range weight {
					fit = append(fit, volumeShape{k: l[0], m: l[1]})
				}
			case width <= s.storageNodes()*s.disksPerNode:
				fit = append(fit, volumeShape{k: l[0], m: l[1], perDisk: true})
			}
		}
		v := fit[r.IntN(len(fit))]
		v.slot = uint8(slot)
		v.unitBytes = pick(r, 4096, 8192, 65536, 1<<20)
		v.extentMiB = uint32(v.k * int(r.between(1, 3)))
		v.sizeMiB = int(v.extentMiB) * int(r.between(1, 2))
		v.strict = r.chance(0.1)
		s.volumes = append(s.volumes, v)
	}
}

func (s *shape) chooseInitiators(r random) {
	for range 1 + r.IntN(3) {
		i := initiatorShape{
			mode:       pick(r, initiator.ModeLibrary, initiator.ModeLibrary, initiator.ModeLinux, initiator.ModeIPXE),
			mtu:        pick(r, 1500, 4200, 9000),
			depth:      pick(r, 1, 2, 4),
			reads:      pick(r, 0.1, 0.5, 0.8),
			sectorsMax: pick(r, 1, 8, 8, 16, 40),
			hot:        pick(r, 1, 3, 10, 50),
			thinkNs:    pick(r, 3*ms, 10*ms, 30*ms),
		}
		if r.chance(0.4) {
			i.control = 0.02 + r.Float64()*0.1
		}
		s.initiators = append(s.initiators, i)
	}
}

// String describes the shape in a few lines.
func (s *shape) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nodes", s.seed, s.nodes)
	if s.witness {
		b.WriteString(" (one a witness)")
	}
	if s.spares > 0 {
		fmt.Fprintf(&b, " and %d spares", s.spares)
	}
	fmt.Fprintf(&b, ", %d disks each, %d SAN paths, guardian %v, safety %.1f s;", s.disksPerNode, s.paths, s.guardian, float64(s.safetyNs)/1e9)
	for _, v := range s.volumes {
		domain := "node"
		if v.perDisk {
			domain = "disk"
		}
		fmt.Fprintf(&b, " slot %d %d+%d unit %d KiB %d MiB per %s;", v.slot, v.k, v.m, v.unitBytes>>10, v.sizeMiB, domain)
	}
	for i, n := range s.initiators {
		fmt.Fprintf(&b, " i%d mode %d mtu %d depth %d;", i+1, n.mode, n.mtu, n.depth)
	}
	b.WriteString(" faults:")
	for i, f := range s.rates {
		if f > 0 {
			fmt.Fprintf(&b, " %s %.2f,", faultNames[i], f)
		}
	}
	fmt.Fprintf(&b, " each %.2f s, damage %v", float64(s.faultEachNs)/1e9, s.damage)
	return b.String()
}
