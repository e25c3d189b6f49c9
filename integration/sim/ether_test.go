package sim

import (
	"testing"

	"clade/aoe"
)

func TestSwitchLearnsAndFloods(t *testing.T) {
	s := &scheduler{}
	sw := &etherSwitch{sched: s, rnd: newRandom(1, "ether"), faults: etherFaults{delayNs: 10 * us}, count: &faultCount{}}
	macs := []aoe.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 3}}
	got := make([]int, 3)
	var ports []*etherPort
	for i := range macs {
		ports = append(ports, sw.plug("p", func(aoe.MAC) bool { return true }, func([]byte) { got[i]++ }))
	}
	frame := func(from, to aoe.MAC) []byte {
		b := make([]byte, 60)
		copy(b, to[:])
		copy(b[6:], from[:])
		return b
	}
	run := func() {
		for s.step(forever) {
		}
	}
	ports[0].send(frame(macs[0], macs[1])) // unknown: floods
	run()
	if got[1] != 1 || got[2] != 1 {
		t.Fatalf("unknown address did not flood: %v", got)
	}
	ports[1].send(frame(macs[1], macs[0]))
	run()
	if got[0] != 1 || got[2] != 1 {
		t.Fatalf("known address flooded: %v", got)
	}
	ports[2].send(frame(macs[0], macs[1])) // macs[0] has moved to port 2
	ports[1].send(frame(macs[1], macs[0]))
	run()
	if got[2] != 2 || got[0] != 1 {
		t.Fatalf("moved address was not learned: %v", got)
	}
	ports[2].setUp(false)
	ports[1].send(frame(macs[1], macs[0]))
	run()
	if got[2] != 2 || got[0] != 2 {
		t.Fatalf("a port without carrier was not forgotten: %v", got)
	}
}
