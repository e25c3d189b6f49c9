package link_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"clade/aoe/link"
	"clade/aoe/link/linktest"
)

// cpuNs is the processor time of this process, with the kernel's on its behalf.
func cpuNs(b *testing.B) int64 {
	var t unix.Timespec
	must(b, unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t))
	return t.Nano()
}

// BenchmarkPorts sends frames over a veth pair and receives them, in bursts,
// by each port in turn, and reports what both cost and their ratio: one run
// gives both numbers, so the machine's mood is the same for both.
func BenchmarkPorts(b *testing.B) {
	for _, size := range []int{60, 1060, 8228} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			w := newWire(b, 9000)
			fast := newBurst(b, w, link.Open, size)
			defer fast.close()
			raw := newBurst(b, w, link.OpenRaw, size)
			defer raw.close()
			var ns [2]int64
			b.ResetTimer()
			for range b.N {
				for i, burst := range []*burst{fast, raw} {
					before := cpuNs(b)
					burst.turn(b)
					ns[i] += cpuNs(b) - before
				}
			}
			frames := float64(b.N) * float64(len(fast.tx))
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(frames*1e9/float64(ns[0]), "mmsg-frames/cpu-s")
			b.ReportMetric(frames*1e9/float64(ns[1]), "raw-frames/cpu-s")
			b.ReportMetric(float64(ns[1])/float64(ns[0]), "ratio")
		})
	}
}

// burstBytes bounds a burst: the portable port's socket has the system's default
// queue, which holds 16 frames of 8 KiB.
const (
	burstFrames = 32
	burstBytes  = 64 << 10
)

// burst is a pair of ports that passes a burst of frames.
type burst struct {
	from, to link.Port
	poller   *link.Poller
	tx       []link.TxFrame
	rx       []link.RxFrame
}

func newBurst(b *testing.B, w *wire, open openFunc, size int) *burst {
	r := &burst{tx: make([]link.TxFrame, min(burstFrames, burstBytes/size)), rx: make([]link.RxFrame, 64)}
	// The other burst's sockets would get copies: tell them apart by shelf.
	shelf := uint16(1)
	r.from = w.open(b, 0, open, link.Config{Filter: &link.Filter{Shelf: 99}})
	mac := r.from.MAC()
	if r.from.Stats().RcvBufBytes == 0 {
		shelf = 2
	}
	r.to = w.open(b, 1, open, link.Config{Filter: &link.Filter{Shelf: shelf}})
	frame := linktest.Frame(r.to.MAC(), mac, 0, shelf, 1, size)
	for i := range r.tx {
		r.tx[i] = link.TxFrame{Header: frame[:36], Payload: [][]byte{frame[36:]}}
	}
	var err error
	r.poller, err = link.NewPoller(r.to)
	must(b, err)
	return r
}

func (r *burst) turn(b *testing.B) {
	if n, err := r.from.Send(r.tx); n != len(r.tx) || err != nil {
		b.Fatalf("sent %d: %v", n, err)
	}
	for got := 0; got < len(r.tx); {
		if _, err := r.poller.Wait(5e9); err != nil {
			b.Fatal(err)
		}
		n, err := r.to.Receive(r.rx)
		must(b, err)
		got += n
	}
}

func (r *burst) close() {
	r.poller.Close()
	r.from.Close()
	r.to.Close()
}
