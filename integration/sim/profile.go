package sim

import "clade/aoe/initiator"

// A profile bends the shape that a seed has chosen towards what wears one part of the protocol down. Every seed has one.
type profile func(*shape)

// general changes nothing: anything may happen.
func general(*shape) {}

// profileOf returns the profile of a seed: every third one is general.
func profileOf(seed uint64) profile {
	return [...]profile{general, stressed, damaged, leased, general, controlled}[seed%6]
}

// stressed wears the data plane down: one small volume with redundancy, few places, members that come and go all the time.
func stressed(s *shape) {
	r := newRandom(s.seed, "stressed")
	s.nodes, s.witness, s.disksPerNode, s.damage = 3+r.IntN(2), false, 1, false
	s.spares = pick(r, 0, 0, 1)
	s.drift = []float64{1, 1, 1, 1}
	s.paths, s.guardian, s.cacheBytes, s.safetyNs = 1, true, 64<<10, 8*second
	l := pick(r, [2]int{2, 1}, [2]int{2, 1}, [2]int{1, 1}, [2]int{1, 2})
	s.volumes = []volumeShape{{k: l[0], m: l[1], unitBytes: 4096, sizeMiB: 2 * l[0], extentMiB: uint32(2 * l[0])}}
	s.initiators = nil
	for range 3 {
		s.initiators = append(s.initiators, initiatorShape{mode: initiator.ModeLibrary, mtu: 9000, depth: 3, reads: 0.4, sectorsMax: 8, hot: 2, thinkNs: 3 * ms})
	}
	s.peerDelayNs, s.diskSyncNs = pick(r, 100*us, 2*ms), pick(r, 300*us, 4*ms)
	s.faultEachNs = r.between(80, 250) * ms
	s.rates = [faultKinds]float64{}
	for _, f := range []struct {
		kind faultKind
		rate float64
	}{{faultCrash, 0.4}, {faultPower, 0.4}, {faultPartition, 0.6}, {faultReset, 0.5}, {faultCutOneWay, 0.4}, {faultPause, 0.3}, {faultHandoff, 0.2}, {faultSlowDisk, 0.3}, {faultPowerAll, 0.15},
		{faultFreeze, 0.2}, {faultClockStands, 0.1}, {faultClockSet, 0.1}, {faultDrain, 0.1}, {faultJoin, 0.1}, {faultLeave, 0.1}, {faultRecreate, 0.05}} {
		s.rates[f.kind] = f.rate * 2 * r.Float64()
	}
}

// damaged loses data: on the disks of m nodes, which also fail in all other ways.
func damaged(s *shape) {
	stressed(s)
	r := newRandom(s.seed, "damaged")
	s.damage, s.disksPerNode = true, 1+r.IntN(2)
	s.rates = [faultKinds]float64{}
	for _, f := range []struct {
		kind faultKind
		rate float64
	}{{faultRot, 0.5}, {faultDiskGone, 0.5}, {faultLie, 1}, {faultPower, 0.3}, {faultCrash, 0.3}, {faultPartition, 0.2}, {faultReset, 0.2},
		{faultSlowDisk, 0.2}, {faultFreeze, 0.2}, {faultRecreate, 0.03}} {
		s.rates[f.kind] = f.rate * 2 * r.Float64()
	}
}

// leased wears the leases down: short crashes, cuts and pauses, clocks that drift.
func leased(s *shape) {
	stressed(s)
	r := newRandom(s.seed, "leased")
	s.nodes, s.guardian, s.spares = 3, r.chance(0.5), pick(r, 0, 1, 2)
	s.drift = []float64{0.991, 1.009, 1, 1}
	s.volumes = []volumeShape{{k: 1, m: 2, unitBytes: 4096, sizeMiB: 2, extentMiB: 2}}
	s.faultEachNs = r.between(50, 150) * ms
	s.rates = [faultKinds]float64{}
	for _, f := range []struct {
		kind faultKind
		rate float64
	}{{faultCrash, 0.6}, {faultCrashNoProof, 0.4}, {faultPartition, 0.6}, {faultCutOneWay, 1}, {faultPause, 0.4}, {faultReset, 0.2},
		{faultFreeze, 0.5}, {faultClockStands, 0.2}, {faultClockSet, 0.2}, {faultJoin, 0.3}, {faultLeave, 0.3}, {faultDrain, 0.1}} {
		s.rates[f.kind] = f.rate
	}
}

// controlled fights over the config string and the reservation.
func controlled(s *shape) {
	stressed(s)
	for i := range s.initiators {
		s.initiators[i].control, s.initiators[i].thinkNs = 0.3, 20*ms
	}
}
