package sim

import (
	"slices"
	"testing"
)

// Scenarios are written histories on the same simulator: each is a trace of PROTOCOL part B, titled as a sentence. What is
// checked is what every run checks; a scenario adds only what is special about it.

// calm is a small cluster without random faults: nodes, layout, busy initiators.
func calm(nodes, k, m int) func(*shape) {
	return func(s *shape) {
		s.nodes, s.witness, s.disksPerNode, s.paths, s.damage, s.guardian = nodes, false, 1, 1, false, true
		s.drift = []float64{1, 1.005, 0.995, 1, 1, 1, 1}
		s.volumes = []volumeShape{{k: k, m: m, unitBytes: 4096, sizeMiB: 2 * k, extentMiB: uint32(2 * k)}}
		i := initiatorShape{mtu: 9000, depth: 2, reads: 0.5, sectorsMax: 16, hot: 3, thinkNs: 2 * ms}
		s.initiators = []initiatorShape{i, i}
		s.cacheBytes, s.diskSyncNs, s.peerDelayNs = 256<<10, 300*us, 100*us
	}
}

func scenario(t *testing.T, tweak func(*shape), script func(*world)) {
	t.Helper()
	for seed := uint64(1); seed <= 3; seed++ {
		report(t, runSeed(t, seed, options{quiet: true, nodes: 3, tweak: tweak, script: script}))
		if t.Failed() {
			return
		}
	}
}

// owner returns the host that owns slot 0.
func (w *world) owner() *host { return w.hosts[w.newestState().Slot(0).Data.Owner-1] }

// others returns the hosts that are not h, in order.
func (w *world) others(h *host) []*host {
	var out []*host
	for _, o := range w.hosts {
		if o != h {
			out = append(out, o)
		}
	}
	return out
}

func (w *world) sleep(ns int64) { w.runUntil(w.sched.nowNs+ns, nil) }

func (w *world) served(within int64) {
	w.await("the volume is served again", within, func() bool { return w.unserved() == "" })
}

func TestAnUnreachableDiskIsStaleAfterATakeover_C1(t *testing.T) {
	scenario(t, calm(5, 2, 1), func(w *world) {
		w.sleep(200 * ms)
		o := w.owner()
		b := w.others(o)[0]
		w.cutAll(b.index, true)
		w.sleep(3 * ms)
		o.crash(true, 3*second)
		w.sleep(second)
		w.cutAll(b.index, false)
		w.sleep(second)
		w.served(5 * second)
		w.owner().crash(true, second)
		w.sleep(2 * second)
	})
}

func TestAnOwnerThatRestartsAtOnceIsAnotherOwner_C3(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		for range 6 {
			w.sleep(300 * ms)
			w.served(5 * second)
			w.owner().crash(false, 50*ms)
		}
		w.served(10 * second)
	})
}

func TestAResetIsNoProofOfDeath_C4(t *testing.T) {
	scenario(t, calm(3, 1, 2), func(w *world) {
		for range 20 {
			w.sleep(40 * ms)
			o := w.owner()
			for _, x := range w.others(o) {
				w.peers.reset(o.index, x.index)
			}
		}
		w.sleep(second)
	})
}

func TestAVoterThatRestartsKeepsItsPromise_C5(t *testing.T) {
	scenario(t, calm(3, 1, 2), func(w *world) {
		for range 4 {
			w.sleep(500 * ms)
			o := w.owner()
			v, l := w.others(o)[0], w.others(o)[1]
			w.peers.setCut(o.index, l.index, true)
			w.peers.setCut(l.index, o.index, true)
			v.crash(false, 30*ms)
			w.sleep(700 * ms)
			w.cutAll(o.index, false)
			w.served(10 * second)
		}
	})
}

func TestAStoppedOwnerServesNothingFromBeforeItsSleep_C18(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		for _, ns := range []int64{90 * ms, 300 * ms, 480 * ms, 520 * ms, 2 * second} {
			w.sleep(400 * ms)
			w.served(5 * second)
			w.owner().pause(ns)
			w.sleep(ns + 300*ms)
		}
		w.served(5 * second)
	})
}

func TestConnectionsThatBreakDuringAResyncLeaveNoOldFillBehind_C22(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		w.sleep(300 * ms)
		o := w.owner()
		x := w.others(o)[0]
		for i := range 15 {
			w.cutAll(x.index, true)
			w.sleep(250 * ms)
			w.cutAll(x.index, false)
			w.sleep(int64(i) * 10 * ms)
			w.peers.reset(o.index, x.index)
		}
		w.sleep(second)
	})
}

func TestAllPowerReturnsOneNodeAfterTheOther_L6(t *testing.T) {
	scenario(t, calm(5, 3, 2), func(w *world) {
		w.sleep(500 * ms)
		for i, h := range w.hosts {
			h.powerLoss(int64(i+1) * 700 * ms)
		}
		w.sleep(5 * second)
		w.served(10 * second)
	})
}

func TestAnOwnerWithoutCarrierHandsOff_L1(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		w.sleep(3 * second)
		o := w.owner()
		o.carrier(0, false)
		w.await("another node owns the volume", 2*second, func() bool { return w.unserved() == "" && w.owner() != o })
		w.sleep(second)
		o.carrier(0, true)
	})
}

func TestTheAgeRuleStarvesNobodyWhenCommitsAreSlow_L11(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		usual := w.shape.diskSyncNs
		w.shape.diskSyncNs = 150 * ms
		w.sleep(second)
		before := w.stats.ops
		w.sleep(5 * second)
		w.shape.diskSyncNs = usual
		if n := w.stats.ops - before; n < 40 {
			w.fail("only %d operations in 5 s with commits of 150 ms", n)
		}
	})
}

func TestWhatIsAloneInSyncIsWaitedFor_C17(t *testing.T) {
	witness := func(s *shape) {
		calm(3, 1, 1)(s)
		s.witness = true
	}
	scenario(t, witness, func(w *world) {
		w.sleep(300 * ms)
		a, b := w.hosts[0], w.hosts[1]
		b.crash(true, 3*second)
		w.sleep(2 * second)
		a.powerLoss(6 * second)
		w.sleep(4 * second) // b is back, the witness lives: the only in-sync disk is missing
		if v := w.newestState().Slot(0); v.Data.Active && v.Data.Owner == b.id() {
			w.fail("the volume is served without its only in-sync disk")
		}
		w.sleep(3 * second)
		w.served(15 * second)
	})
}

// TestStrictVolumesNeedNoClock_C18: machines stop for as long as they like and are not told of it, so every lease is worthless. Who asks
// his disks before he believes himself serves nothing stale all the same.
func TestStrictVolumesNeedNoClock_C18(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		report(t, runSeed(t, seed, options{safetyNs: 5 * second, tweak: func(s *shape) {
			stressed(s)
			for i := range s.volumes {
				s.volumes[i].strict = true
			}
			for i := range s.initiators {
				s.initiators[i].control = 0.1
			}
			s.rates = [faultKinds]float64{}
			s.rates[faultClockStands], s.rates[faultPartition], s.rates[faultHandoff] = 1, 0.3, 0.2
		}}))
	}
}

// disk opens and shuts a host's only disk, as if it had been pulled out.
func (h *host) replug() {
	h.disks[0].gone(true)
	h.disks[0].gone(false)
}

func TestADiskThatIsOpenedAgainDuringItsWipeSaysSo(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		w.sleep(300 * ms)
		o := w.owner()
		x := w.others(o)[0]
		x.disks[0].replace(blank(x.disks[0]))
		w.checks.forgetDisk(x.disks[0].id)
		x.powerLoss(100 * ms)
		for range 40 { // behind connections that stand
			w.sleep(50 * ms)
			if x.proc != nil {
				x.replug()
			}
		}
		w.sleep(second)
	})
}

func TestADiskThatComesBackBlankIsFilledAgain(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		w.sleep(500 * ms)
		x := w.others(w.owner())[0]
		x.disks[0].replace(blank(x.disks[0]))
		w.checks.forgetDisk(x.disks[0].id)
		x.powerLoss(300 * ms)
		w.sleep(3 * second)
		w.served(5 * second)
	})
}

func TestADiskThatLosesItsTailWhileItIsAwayIsFoundOut_C15(t *testing.T) {
	scenario(t, calm(3, 2, 1), func(w *world) {
		w.sleep(300 * ms)
		x := w.others(w.owner())[0]
		d := x.disks[0]
		past := d.dev.Clone(1)
		w.sleep(100 * ms)
		d.replace(past)
		w.checks.forgetDisk(d.id)
		x.powerLoss(1500 * ms) // long enough to be stale, as of what it has lost
		w.sleep(4 * second)
	})
}

func TestAVolumeMadeAnewIsZeros_C29(t *testing.T) {
	scenario(t, calm(3, 1, 2), func(w *world) {
		for range 4 {
			w.sleep(400 * ms)
			o := w.owner()
			o.pause(600 * ms)
			w.operator.recreate(0)
			w.sleep(1500 * ms)
			w.served(10 * second)
		}
	})
}

func TestVotersComeAndGo_C6(t *testing.T) {
	spares := func(s *shape) {
		calm(3, 1, 2)(s)
		s.spares = 2
	}
	scenario(t, spares, func(w *world) {
		for _, h := range w.hosts[3:] {
			w.sleep(300 * ms)
			w.operator.join(h)
			w.await("it has joined and votes", 10*second, func() bool {
				s := w.newestState()
				return s != nil && s.Node(h.id()) != nil && !s.Voters.Joint() && slices.Contains(s.Voters.Cur, h.id())
			})
			w.owner().pause(700 * ms)
			w.operator.leave(h)
			w.await("it is no member any more", 20*second, func() bool { return w.newestState().Node(h.id()) == nil })
		}
	})
}
