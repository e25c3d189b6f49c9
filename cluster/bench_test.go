package cluster

import (
	"testing"

	"clade/aoe"
)

// BenchmarkReadFromCache is one node's whole walk of a burst of reads whose blocks are cached: intake, target, owner, answer.
func BenchmarkReadFromCache(b *testing.B) {
	l := newLab(b, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 7)
	s.read(1, 0)
	owner := l.server(1)
	const burst = 32
	frames := make([]SANFrame, burst)
	for i := range frames {
		frames[i].Data = s.readRequest(1, 0)
	}
	answers := 0
	b.SetBytes(burst * 8 * aoe.SectorBytes)
	b.ReportAllocs()
	for b.Loop() {
		for i := range frames {
			frames[i].RxNs = l.now
		}
		owner.node.Frames(l.now, frames)
		answers += len(owner.node.Ready(l.now).Frames)
	}
	if answers < burst {
		b.Fatalf("%d answers", answers)
	}
	b.ReportMetric(float64(answers)/float64(b.N)/burst, "answers/frame")
}

// BenchmarkReadyOfIdleOwners is what a turn costs a node that owns many volumes of which nobody wants anything.
func BenchmarkReadyOfIdleOwners(b *testing.B) {
	l := newLab(b, 3)
	l.found()
	for slot := range uint8(60) {
		l.create(slot, 1, 1)
	}
	l.pass(second)
	n := l.box(1).node
	b.ReportAllocs()
	for b.Loop() {
		n.Ready(l.now)
	}
	b.ReportMetric(float64(len(n.Owners(l.now))), "owners")
}
