package linktest

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/link"
)

// Segment is a wire with two ends, 0 and 1, each an interface of its own.
type Segment struct {
	// Open opens a port at one end; it sets Config.Interface itself. The suite
	// closes the port.
	Open func(t *testing.T, end int, cfg link.Config) link.Port
	// SetUp takes the interface at one end down, or up again.
	SetUp func(t *testing.T, end int, up bool)
	// Remove removes the interface at one end, Restore puts another one of the
	// same name in its place. The other end may be replaced as well.
	Remove, Restore func(t *testing.T, end int)
	// At runs do where the port at one end has to be reopened.
	At func(end int, do func())
	// KernelTime: receive times are those of arrival, not of reading.
	KernelTime bool
	// NoAllocations: Receive and Send allocate nothing once warmed up.
	NoAllocations bool
}

// patience is how long a test waits for what must come. Reaching it is a
// failure, so it is only long.
const patience = 20 * time.Second

// shelf is the shelf of all requests in the suite.
const shelf = 7

// Frame returns an AoE frame of size bytes (at least 24) with a number in its
// tag, the rest filled by a pattern that depends on it.
func Frame(dst, src aoe.MAC, flags byte, shelf uint16, number uint32, size int) []byte {
	b := make([]byte, size)
	copy(b, dst[:])
	copy(b[6:], src[:])
	binary.BigEndian.PutUint16(b[12:], link.EtherTypeAoE)
	b[14] = 0x10 | flags
	binary.BigEndian.PutUint16(b[16:], shelf)
	binary.BigEndian.PutUint32(b[20:], number)
	for i := 24; i < size; i++ {
		b[i] = byte(uint32(i)*7 + number*13)
	}
	return b
}

// number returns the number of a frame of Frame.
func number(b []byte) uint32 { return binary.BigEndian.Uint32(b[20:]) }

// pair is what most tests want: a port at each end.
type pair struct {
	t     *testing.T
	seg   *Segment
	ports [2]link.Port
}

func open(t *testing.T, seg *Segment, cfgs ...link.Config) *pair {
	t.Helper()
	p := &pair{t: t, seg: seg}
	for end := range p.ports {
		var cfg link.Config
		if end < len(cfgs) {
			cfg = cfgs[end]
		}
		port := seg.Open(t, end, cfg)
		p.ports[end] = port
		t.Cleanup(func() {
			if err := port.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	return p
}

// frame returns a request from one end to the other.
func (p *pair) frame(from int, number uint32, size int) []byte {
	return Frame(p.ports[1-from].MAC(), p.ports[from].MAC(), 0, shelf, number, size)
}

// send sends whole frames and fails the test unless all were accepted.
func (p *pair) send(from int, frames ...[]byte) {
	p.t.Helper()
	tx := make([]link.TxFrame, len(frames))
	for i := range frames {
		tx[i].Header = frames[i]
	}
	if n, err := p.ports[from].Send(tx); n != len(tx) || err != nil {
		p.t.Errorf("sent %d of %d frames: %v", n, len(tx), err)
	}
}

// received is a frame of which the test keeps a copy.
type received struct {
	data []byte
	time int64
	kind uint16
}

// receive waits for count frames at an end. More than that is a failure only if
// they come in the same batch.
func (p *pair) receive(end, count int) []received {
	p.t.Helper()
	var all []received
	p.receiveUntil(end, func(r received) bool {
		all = append(all, r)
		return len(all) == count
	})
	return all
}

// receiveUntil hands each frame to done until that says true.
func (p *pair) receiveUntil(end int, done func(received) bool) {
	p.t.Helper()
	port := p.ports[end]
	poller, err := link.NewPoller(port)
	if err != nil {
		p.t.Fatal(err)
	}
	defer poller.Close()
	batch := make([]link.RxFrame, 32)
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		if _, err := poller.Wait(int64(time.Second)); err != nil {
			p.t.Fatal(err)
		}
		n, err := port.Receive(batch)
		if err != nil {
			p.t.Fatalf("receive: %v", err)
		}
		finished := false
		if n > 0 { // slow is not missing
			limit = time.Now().Add(patience)
		}
		for _, f := range batch[:n] {
			if finished {
				p.t.Fatalf("a frame too many: % x", f.Data[:min(len(f.Data), 24)])
			}
			finished = done(received{append([]byte(nil), f.Data...), f.TimeNs, f.Type})
		}
		if finished {
			return
		}
	}
	p.t.Fatalf("frames missing; counters of sender %+v, of receiver %+v", p.ports[1-end].Stats(), port.Stats())
}

// errorOf calls receive until it reports something other than frames.
func (p *pair) errorOf(end int) error {
	p.t.Helper()
	poller, err := link.NewPoller(p.ports[end])
	if err != nil {
		p.t.Fatal(err)
	}
	defer poller.Close()
	batch := make([]link.RxFrame, 8)
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		if _, err := p.ports[end].Receive(batch); err != nil {
			return err
		}
		if _, err := poller.Wait(int64(time.Second)); err != nil {
			p.t.Fatal(err)
		}
	}
	p.t.Fatal("no error came")
	return nil
}

// Run runs the suite, with a fresh segment for each test.
func Run(t *testing.T, newSegment func(t *testing.T) *Segment) {
	tests := []struct {
		name string
		run  func(*testing.T, *Segment)
	}{
		{"every size arrives unchanged", testSizes},
		{"slices are gathered", testGather},
		{"order is kept over many batches", testOrder},
		{"sent buffers are free at once", testSendCopies},
		{"received data lasts until the next receive", testReceiveOwnership},
		{"impossible sizes are refused and counted", testImpossible},
		{"an empty port says so", testEmpty},
		{"the filter lets requests for the shelf through", testFilter},
		{"the filter can let announcements through", testAnnouncements},
		{"without filter responses arrive", testNoFilter},
		{"beacons arrive only where wanted", testBeacons},
		{"beacons are not starved", testBeaconsNotStarved},
		{"joined addresses are received", testJoin},
		{"many addresses can be joined", testManyJoins},
		{"receive times", testTimes},
		{"a queue that is full drops and counts", testOverrun},
		{"link down is said once and forgotten", testLinkDown},
		{"a replaced interface needs reopen", testReplaced},
		{"reopen without need", testReopenIdle},
		{"closed", testClosed},
		{"poller", testPoller},
		{"holding poller", testHoldingPoller},
		{"all methods at once", testConcurrent},
		{"allocations", testAllocations},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, newSegment(t)) })
	}
}

func testSizes(t *testing.T, seg *Segment) {
	p := open(t, seg)
	sizes := []int{24, 32, 36, 59, 60, 61, 548, 1060, 1513, 1514}
	for _, mtu := range []int{4096, 9000} {
		if p.ports[0].MTU() >= mtu {
			sizes = append(sizes, mtu-1+link.HeaderBytes, mtu+link.HeaderBytes)
		}
	}
	var frames [][]byte
	for i, size := range sizes {
		frames = append(frames, p.frame(0, uint32(i), size))
	}
	p.send(0, frames...)
	for i, r := range p.receive(1, len(frames)) {
		if string(r.data) != string(frames[i]) {
			t.Errorf("frame of %d bytes came as %d bytes or changed", len(frames[i]), len(r.data))
		}
		if r.kind != link.EtherTypeAoE {
			t.Errorf("frame of type %#x", r.kind)
		}
	}
}

func testGather(t *testing.T, seg *Segment) {
	p := open(t, seg)
	whole := p.frame(0, 1, 1514)
	cuts := [][]int{{36}, {14, 24}, {24, 24, 36}, {36, 548, 548, 1060}, {1514}, {13}, {0, 36}}
	var tx []link.TxFrame
	for _, cut := range cuts {
		f := link.TxFrame{Header: whole[:cut[0]]}
		for i, at := range cut {
			end := len(whole)
			if i+1 < len(cut) {
				end = cut[i+1]
			}
			f.Payload = append(f.Payload, whole[at:end])
		}
		tx = append(tx, f)
	}
	many := link.TxFrame{Header: whole[:36]}
	for i := 36; i < len(whole); i++ {
		if len(many.Payload) < 900 {
			many.Payload = append(many.Payload, whole[i:i+1])
			continue
		}
		many.Payload = append(many.Payload, whole[i:])
		break
	}
	for range 3 { // more slices than the first allocation holds
		tx = append(tx, many)
	}
	if n, err := p.ports[0].Send(tx); n != len(tx) || err != nil {
		t.Fatalf("sent %d of %d: %v", n, len(tx), err)
	}
	for i, r := range p.receive(1, len(tx)) {
		if string(r.data) != string(whole) {
			t.Errorf("frame %d of %d slices changed", i, len(tx[i].Payload)+1)
		}
	}
}

func testOrder(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{BatchFrames: 7}, link.Config{BatchFrames: 5})
	const count = 200
	var frames [][]byte
	for i := range count {
		frames = append(frames, p.frame(0, uint32(i), 60+i))
	}
	p.send(0, frames...)
	for i, r := range p.receive(1, count) {
		if number(r.data) != uint32(i) || len(r.data) != 60+i {
			t.Fatalf("frame %d at place %d, %d bytes", number(r.data), i, len(r.data))
		}
	}
	tx, rx := p.ports[0].Stats(), p.ports[1].Stats()
	bytes := uint64(count*60 + count*(count-1)/2)
	if tx.TxFrames != count || tx.TxBytes != bytes || rx.RxFrames != count || rx.RxBytes != bytes {
		t.Errorf("counted %d frames %d bytes sent and %d, %d received, want %d, %d",
			tx.TxFrames, tx.TxBytes, rx.RxFrames, rx.RxBytes, count, bytes)
	}
	if rx.RxBatches < count/5 {
		t.Errorf("%d batches of at most 5", rx.RxBatches)
	}
}

func testSendCopies(t *testing.T, seg *Segment) {
	p := open(t, seg)
	want := p.frame(0, 3, 1000)
	b := append([]byte(nil), want...)
	tx := []link.TxFrame{{Header: b[:36], Payload: [][]byte{b[36:]}}}
	if n, err := p.ports[0].Send(tx); n != 1 || err != nil {
		t.Fatalf("sent %d: %v", n, err)
	}
	clear(b)
	tx[0].Payload[0] = nil
	if r := p.receive(1, 1)[0]; string(r.data) != string(want) {
		t.Error("the frame changed after Send had returned")
	}
}

func testReceiveOwnership(t *testing.T, seg *Segment) {
	p := open(t, seg)
	first := [][]byte{p.frame(0, 1, 100), p.frame(0, 2, 200)}
	p.send(0, first...)
	poller, err := link.NewPoller(p.ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	batch := make([]link.RxFrame, 8)
	got := 0
	for limit := time.Now().Add(patience); got == 0 && time.Now().Before(limit); {
		if _, err := poller.Wait(int64(time.Second)); err != nil {
			t.Fatal(err)
		}
		if got, err = p.ports[1].Receive(batch); err != nil {
			t.Fatal(err)
		}
	}
	p.send(0, p.frame(0, 3, 300), p.frame(0, 4, 400)) // must not land in what was handed out
	for i, f := range batch[:got] {
		if string(f.Data) != string(first[i]) {
			t.Errorf("frame %d changed before the next Receive", i+1)
		}
	}
	if got == 0 {
		t.Error("nothing came")
	}
}

func testImpossible(t *testing.T, seg *Segment) {
	p := open(t, seg)
	limit := p.ports[0].MTU() + link.HeaderBytes
	good := func(i uint32) link.TxFrame { return link.TxFrame{Header: p.frame(0, i, 60)} }
	tx := []link.TxFrame{
		good(0), {}, good(1), {Header: make([]byte, 13)}, {Header: p.frame(0, 9, limit+8)},
		good(2), {Header: p.frame(0, 9, limit+1), Payload: [][]byte{make([]byte, 3000)}}, good(3),
	}
	if n, err := p.ports[0].Send(tx); n != 4 || err != nil {
		t.Fatalf("sent %d: %v, want 4", n, err)
	}
	for i, r := range p.receive(1, 4) {
		if number(r.data) != uint32(i) {
			t.Errorf("frame %d at place %d", number(r.data), i)
		}
	}
	if s := p.ports[0].Stats(); s.TxBad != 4 || s.TxFrames != 4 || s.TxDropped != 0 {
		t.Errorf("counted %d bad, %d sent, %d dropped; want 4, 4, 0", s.TxBad, s.TxFrames, s.TxDropped)
	}
}

func testEmpty(t *testing.T, seg *Segment) {
	p := open(t, seg)
	for _, frames := range [][]link.RxFrame{nil, make([]link.RxFrame, 4)} {
		if n, err := p.ports[0].Receive(frames); n != 0 || err != nil {
			t.Errorf("receive into %d: %d, %v", len(frames), n, err)
		}
	}
	if n, err := p.ports[0].Send(nil); n != 0 || err != nil {
		t.Errorf("send nothing: %d, %v", n, err)
	}
	if state := p.ports[0].State(); state != link.StateUp {
		t.Errorf("state %v", state)
	}
	if p.ports[0].Name() == "" || p.ports[0].MAC() == (aoe.MAC{}) || p.ports[0].MAC() == p.ports[1].MAC() {
		t.Errorf("names %q %q, addresses %x %x", p.ports[0].Name(), p.ports[1].Name(), p.ports[0].MAC(), p.ports[1].MAC())
	}
	if s := p.ports[0].Stats(); s.RxQueueFrames < 64 {
		t.Errorf("the receive queue holds %d frames", s.RxQueueFrames)
	}
}

// expect sends frames from end 0 and checks that exactly the wanted numbers
// arrive at end 1. The last frame sent must be a wanted one.
func (p *pair) expect(frames [][]byte, want ...uint32) {
	p.t.Helper()
	p.send(0, frames...)
	var got []uint32
	p.receiveUntil(1, func(r received) bool {
		got = append(got, number(r.data))
		return number(r.data) == want[len(want)-1]
	})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Errorf("received %v, want %v", got, want)
	}
}

func testFilter(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{}, link.Config{Filter: &link.Filter{Shelf: shelf}})
	src, dst := p.ports[0].MAC(), p.ports[1].MAC()
	p.expect([][]byte{
		Frame(dst, src, 0x0, shelf, 1, 60),
		Frame(dst, src, 0x8, shelf, 2, 60), // a response
		Frame(dst, src, 0x0, shelf+1, 3, 60),
		Frame(dst, src, 0x0, 0xffff, 4, 24),
		Frame(dst, src, 0x4, shelf, 5, 60), // E without R: nonsense, but a request
		Frame(aoe.Broadcast, src, 0x8, shelf, 6, 60),
		Frame(aoe.Broadcast, src, 0x0, shelf<<8, 7, 60),
		Frame(aoe.Broadcast, src, 0x0, 0xffff, 8, 60),
	}, 1, 4, 5, 8)
}

func testAnnouncements(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{}, link.Config{Filter: &link.Filter{Shelf: shelf, Announcements: true}})
	src, dst := p.ports[0].MAC(), p.ports[1].MAC()
	p.expect([][]byte{
		Frame(dst, src, 0x8, shelf, 1, 60),
		Frame(aoe.Broadcast, src, 0x8, shelf, 2, 60),
		Frame(aoe.Broadcast, src, 0x8, shelf+1, 3, 60),
		Frame(dst, src, 0x0, shelf, 4, 60),
	}, 2, 4)
}

func testNoFilter(t *testing.T, seg *Segment) {
	p := open(t, seg)
	src, dst := p.ports[0].MAC(), p.ports[1].MAC()
	p.expect([][]byte{
		Frame(dst, src, 0x8, shelf, 1, 60), Frame(dst, src, 0x0, 99, 2, 60), Frame(aoe.Broadcast, src, 0xc, 0, 3, 60),
	}, 1, 2, 3)
}

// beacon returns a frame of the beacon type.
func beacon(src aoe.MAC, number uint32, size int) []byte {
	b := Frame(aoe.Broadcast, src, 0, shelf, number, size)
	binary.BigEndian.PutUint16(b[12:], link.EtherTypeBeacon)
	return b
}

func testBeacons(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{}, link.Config{Beacons: true, Filter: &link.Filter{Shelf: shelf}})
	b := beacon(p.ports[0].MAC(), 5, 200)
	p.send(0, b)
	r := p.receive(1, 1)[0]
	if r.kind != link.EtherTypeBeacon || string(r.data) != string(b) {
		t.Errorf("beacon came as type %#x, %d bytes", r.kind, len(r.data))
	}
	// The other end wants none.
	p.send(1, beacon(p.ports[1].MAC(), 6, 200), p.frame(1, 7, 60))
	if r := p.receive(0, 1)[0]; number(r.data) != 7 {
		t.Errorf("frame %d instead of the one behind the beacon", number(r.data))
	}
}

func testBeaconsNotStarved(t *testing.T, seg *Segment) {
	p := open(t, seg, link.Config{}, link.Config{Beacons: true, BatchFrames: 2})
	frames := [][]byte{beacon(p.ports[0].MAC(), 1000, 60)}
	for i := range 120 {
		frames = append(frames, p.frame(0, uint32(i), 60))
	}
	p.send(0, frames...)
	at, seen := -1, 0
	p.receiveUntil(1, func(r received) bool {
		if r.kind == link.EtherTypeBeacon {
			at = seen
		}
		seen++
		return seen == len(frames)
	})
	// Where frames go through goroutines of the port, nothing promises an order.
	if at < 0 || seg.KernelTime && at > 80 {
		t.Errorf("the beacon came at place %d of %d", at, len(frames))
	}
}

func testJoin(t *testing.T, seg *Segment) {
	p := open(t, seg)
	serving := aoe.MAC{0x02, 0xae, 0, 0, 1, 0}
	for range 2 { // joining twice is joining once
		if err := p.ports[1].Join(serving); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.ports[1].Stats().JoinedMACs; n != 1 {
		t.Errorf("%d addresses joined", n)
	}
	src := p.ports[0].MAC()
	p.expect([][]byte{Frame(serving, src, 0, shelf, 1, 60), Frame(p.ports[1].MAC(), src, 0, shelf, 2, 60)}, 1, 2)

	// The joined address may also send, and gets its answers.
	p.send(1, Frame(src, serving, 0x8, shelf, 3, 60))
	if r := p.receive(0, 1)[0]; aoe.MAC(r.data[6:12]) != serving {
		t.Errorf("source %x", r.data[6:12])
	}
	for range 2 {
		if err := p.ports[1].Leave(serving); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.ports[1].Stats(); s.JoinedMACs != 0 {
		t.Errorf("%d addresses joined after leaving", s.JoinedMACs)
	}
	p.send(0, p.frame(0, 4, 60))
	if r := p.receive(1, 1)[0]; number(r.data) != 4 {
		t.Errorf("frame %d after leaving", number(r.data))
	}
}

func testManyJoins(t *testing.T, seg *Segment) {
	p := open(t, seg)
	var frames [][]byte
	var want []uint32
	for i := range 256 { // one for each slot of a shelf
		mac := aoe.MAC{0x02, 0xae, 1, 2, byte(i), 0}
		if err := p.ports[1].Join(mac); err != nil {
			t.Fatalf("address %d: %v", i, err)
		}
		frames = append(frames, Frame(mac, p.ports[0].MAC(), 0, shelf, uint32(i), 60))
		want = append(want, uint32(i))
	}
	p.expect(frames, want...)
}

func testTimes(t *testing.T, seg *Segment) {
	p := open(t, seg)
	late := int64(-1)
	// The kernel begins to take times a moment after a socket has asked for
	// them; until then it makes them up when a frame is read.
	for limit := time.Now().Add(patience); late != 0 && time.Now().Before(limit); {
		before := link.RealtimeNs()
		p.send(0, p.frame(0, 1, 60), p.frame(0, 2, 60))
		p.send(0, p.frame(0, 3, 60))
		afterSend := link.RealtimeNs()
		frames := p.receive(1, 3)
		after := link.RealtimeNs()
		last := before
		late = 0
		for _, r := range frames {
			if r.time < before || r.time > after {
				t.Fatalf("frame %d received at %d, sent after %d, read before %d", number(r.data), r.time, before, after)
			}
			late = max(late, last-r.time)
			last = r.time
		}
		if seg.KernelTime {
			late = max(late, last-afterSend)
		}
	}
	if late != 0 {
		t.Errorf("a frame's time is %d ns after it had arrived, or after that of the next frame", late)
	}
}
