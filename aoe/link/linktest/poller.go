package linktest

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/link"
)

// ringsAtOnce is how often a ring and the beginning of a wait are brought together.
const ringsAtOnce = 20_000

func testPoller(t *testing.T, seg *Segment) { pollerOf(t, seg, link.NewPoller) }

func testHoldingPoller(t *testing.T, seg *Segment) { pollerOf(t, seg, link.NewHoldingPoller) }

func pollerOf(t *testing.T, seg *Segment, newPoller func(...link.Port) (*link.Poller, error)) {
	p := open(t, seg)
	poller, err := newPoller(p.ports[0], p.ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	wait := func(timeoutNs int64, want bool) {
		t.Helper()
		if got, err := poller.Wait(timeoutNs); got != want || err != nil {
			t.Fatalf("wait %d: %v, %v; want %v", timeoutNs, got, err, want)
		}
	}
	wait(0, false)
	wait(1e6, false)

	poller.Wake() // before the wait: it ends at once
	poller.Wake()
	wait(-1, false)
	wait(0, false) // and only that one

	for range 20 { // during the wait, or before it
		go poller.Wake()
		wait(-1, false)
	}
	var begun atomic.Int64
	rung := make(chan struct{})
	go func() { // while it begins to wait
		defer close(rung)
		for i := range int64(ringsAtOnce) {
			for begun.Load() <= i {
				runtime.Gosched()
			}
			for range i % 512 { // up to some microseconds
				begun.Load()
			}
			poller.Wake()
		}
	}()
	for i := range int64(ringsAtOnce) {
		begun.Store(i + 1)
		wait(-1, false)
	}
	<-rung
	wait(1e6, false)
	batch := make([]link.RxFrame, 4)
	for round := range 6 { // either port wakes, and stays ready until it was read
		from := round % 2
		go p.send(from, p.frame(from, uint32(round), 60))
		for ready := false; !ready; {
			if ready, err = poller.Wait(int64(patience)); err != nil {
				t.Fatal(err)
			}
		}
		wait(-1, true)
		if n, err := p.ports[1-from].Receive(batch); n != 1 || err != nil || number(batch[0].Data) != uint32(round) {
			t.Fatalf("round %d: %d frames, %v", round, n, err)
		}
		wait(0, false)
	}
}

// testConcurrent uses every method from its own goroutine: for the race
// detector, and to see that the stream survives.
func testConcurrent(t *testing.T, seg *Segment) {
	p := open(t, seg)
	const count = 3000
	stop := make(chan struct{})
	var others sync.WaitGroup
	defer others.Wait() // also when the test fails: they must not speak after its end
	defer close(stop)
	background := func(do func(i int)) {
		others.Add(1)
		go func() {
			defer others.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					do(i)
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	for end := range p.ports {
		port := p.ports[end]
		background(func(int) { port.Stats(); port.State(); port.MTU(); port.MAC(); port.Name() })
		background(func(i int) {
			mac := aoe.MAC{2, 0xae, 9, 9, 9, byte(i % 5)}
			if err := port.Join(mac); err != nil {
				t.Error(err)
			}
			if err := port.Leave(mac); err != nil {
				t.Error(err)
			}
		})
	}
	const window = 64 // unanswered frames: no queue overruns
	credits := make(chan struct{}, window)
	others.Go(func() {
		for i := range count {
			select {
			case credits <- struct{}{}:
				p.send(0, p.frame(0, uint32(i), 60+i%1000))
			case <-stop:
				return
			}
		}
	})
	next := uint32(0)
	p.receiveUntil(1, func(r received) bool {
		if number(r.data) != next {
			t.Errorf("frame %d instead of %d", number(r.data), next)
		}
		next++
		<-credits
		return next == count
	})
}

func testAllocations(t *testing.T, seg *Segment) {
	if !seg.NoAllocations {
		t.Skip("this port allocates")
	}
	p := open(t, seg)
	poller, err := link.NewPoller(p.ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	whole := p.frame(0, 1, 1400)
	tx := make([]link.TxFrame, 40)
	for i := range tx {
		tx[i] = link.TxFrame{Header: whole[:36], Payload: [][]byte{whole[36:700], whole[700:]}}
	}
	batch := make([]link.RxFrame, 64)
	turn := func() {
		if n, err := p.ports[0].Send(tx); n != len(tx) || err != nil {
			t.Fatal(n, err)
		}
		for got := 0; got < len(tx); {
			if _, err := poller.Wait(int64(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := p.ports[1].Receive(batch)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
	for range 20 {
		turn()
	}
	if allocs := testing.AllocsPerRun(50, turn); allocs > 0 {
		t.Errorf("%v allocations for %d frames", allocs, len(tx))
	}
}
