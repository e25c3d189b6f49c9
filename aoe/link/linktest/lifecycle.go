package linktest

import (
	"errors"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/link"
)

func testOverrun(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{}, link.Config{RcvBufBytes: 64 << 10})
	const count = 20000
	tx := make([]link.TxFrame, 50)
	sent := 0
	for i := 0; i < count; i += len(tx) {
		for j := range tx {
			tx[j].Header = p.frame(0, uint32(i+j), 1000)
		}
		n, err := p.ports[0].Send(tx)
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	// Room again: what is sent now arrives, behind what was kept, in order.
	next, got := uint32(0), 0
	batch := make([]link.RxFrame, 64)
	poller, err := link.NewPoller(p.ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	for limit := time.Now().Add(patience); next <= count && time.Now().Before(limit); {
		n, err := p.ports[1].Receive(batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range batch[:n] {
			if number(f.Data) < next && number(f.Data) != count { // the last one is sent until it comes
				t.Fatalf("frame %d behind %d", number(f.Data), next-1)
			}
			next = number(f.Data) + 1
			got++
		}
		if n == 0 {
			p.send(0, p.frame(0, count, 60))
			sent++
			if _, err := poller.Wait(int64(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for { // a last one more than once
		n, err := p.ports[1].Receive(batch)
		if err != nil {
			t.Fatal(err)
		}
		if got += n; n == 0 {
			break
		}
	}
	s := p.ports[1].Stats()
	if s.RxDropped == 0 || s.RxFrames != uint64(got) {
		t.Errorf("%d dropped, %d received and %d counted", s.RxDropped, got, s.RxFrames)
	}
	if seg.KernelTime && s.RxFrames+s.RxDropped != uint64(sent) {
		t.Errorf("%d sent, but %d received and %d dropped", sent, s.RxFrames, s.RxDropped)
	}
}

func testLinkDown(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{}, link.Config{Beacons: true})
	seg.SetUp(t, 1, false)
	if err := p.errorOf(1); !errors.Is(err, link.ErrDown) {
		t.Fatalf("receive while down: %v", err)
	}
	batch := make([]link.RxFrame, 4)
	if n, err := p.ports[1].Receive(batch); n != 0 || err != nil {
		t.Errorf("receive again while down: %d, %v", n, err)
	}
	if state := p.ports[1].State(); state != link.StateDown {
		t.Errorf("state while down: %v", state)
	}
	if n, err := p.ports[1].Send([]link.TxFrame{{Header: p.frame(1, 1, 60)}}); n != 0 || !errors.Is(err, link.ErrDown) {
		t.Errorf("send while down: %d, %v", n, err)
	}
	if s := p.ports[1].Stats(); s.TxDropped != 1 {
		t.Errorf("%d frames counted as dropped", s.TxDropped)
	}
	seg.SetUp(t, 1, true)
	p.waitState(1, link.StateUp)
	p.waitState(0, link.StateUp)
	p.send(1, p.frame(1, 2, 60))
	if r := p.receive(0, 1)[0]; number(r.data) != 2 {
		t.Errorf("frame %d", number(r.data))
	}
	p.send(0, p.frame(0, 3, 60))
	if r := p.receive(1, 1)[0]; number(r.data) != 3 {
		t.Errorf("frame %d", number(r.data))
	}
}

// waitState asks for the state until it is the wanted one.
func (p *pair) waitState(end int, want link.State) {
	p.t.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if p.ports[end].State() == want {
			return
		}
	}
	p.t.Fatalf("state %v never came", want)
}

func testReplaced(t *testing.T, seg *Segment) {
	p := open(t, seg)
	serving := aoe.MAC{0x02, 0xae, 0, 0, 1, 0}
	if err := p.ports[1].Join(serving); err != nil {
		t.Fatal(err)
	}
	seg.Remove(t, 1)
	if err := p.errorOf(1); !errors.Is(err, link.ErrGone) && !errors.Is(err, link.ErrDown) {
		t.Fatalf("receive from a removed interface: %v", err)
	}
	p.waitState(1, link.StateGone)
	if n, err := p.ports[1].Send([]link.TxFrame{{Header: p.frame(1, 1, 60)}}); n != 0 || !errors.Is(err, link.ErrGone) {
		t.Errorf("send to a removed interface: %d, %v", n, err)
	}
	seg.At(1, func() {
		if err := p.ports[1].Reopen(); !errors.Is(err, link.ErrGone) {
			t.Errorf("reopen while gone: %v", err)
		}
	})
	other := aoe.MAC{0x02, 0xae, 0, 0, 2, 0}
	if err := p.ports[1].Join(other); err != nil {
		t.Errorf("join while gone: %v", err)
	}
	seg.Restore(t, 1)
	if state := p.ports[1].State(); state != link.StateGone {
		t.Errorf("state before Reopen: %v", state)
	}
	for end := range p.ports {
		seg.At(end, func() {
			if err := p.ports[end].Reopen(); err != nil {
				t.Fatalf("reopen: %v", err)
			}
		})
		p.waitState(end, link.StateUp)
	}
	src := p.ports[0].MAC()
	p.expect([][]byte{Frame(serving, src, 0, shelf, 1, 60), Frame(other, src, 0, shelf, 2, 60)}, 1, 2)
	if s := p.ports[1].Stats(); s.JoinedMACs != 2 || s.RxFrames != 2 {
		t.Errorf("after reopen: %+v", s)
	}
}

func testReopenIdle(t *testing.T, seg *Segment) {
	p := open(t, seg)
	p.send(0, p.frame(0, 1, 60))
	p.receive(1, 1)
	seg.At(1, func() {
		if err := p.ports[1].Reopen(); err != nil {
			t.Fatal(err)
		}
	})
	p.send(0, p.frame(0, 2, 60))
	p.receive(1, 1)
	if s := p.ports[1].Stats(); s.RxFrames != 2 {
		t.Errorf("%d frames counted over Reopen", s.RxFrames)
	}
}

func testClosed(t *testing.T, seg *Segment) {
	p := open(t, seg)
	poller, err := link.NewPoller(p.ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	done := make(chan error)
	go func() {
		for {
			if _, err := poller.Wait(-1); err != nil {
				done <- err
				return
			}
			if _, err := p.ports[1].Receive(make([]link.RxFrame, 1)); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := p.ports[1].Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, link.ErrClosed) {
		t.Errorf("receive: %v", err)
	}
	if _, err := p.ports[1].Send([]link.TxFrame{{Header: make([]byte, 60)}}); !errors.Is(err, link.ErrClosed) {
		t.Errorf("send: %v", err)
	}
	for name, err := range map[string]error{
		"join": p.ports[1].Join(aoe.MAC{2}), "leave": p.ports[1].Leave(aoe.MAC{2}), "reopen": p.ports[1].Reopen(),
	} {
		if !errors.Is(err, link.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if state := p.ports[1].State(); state != link.StateGone {
		t.Errorf("state %v", state)
	}
	p.ports[1].Stats()
}
