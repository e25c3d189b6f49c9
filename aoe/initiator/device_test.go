package initiator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"clade/aoe"
)

var (
	testMAC   = aoe.MAC{2, 0, 0, 0, 0, 1}
	testServ  = aoe.MAC{2, 0xae, 0, 0, 0, 1}
	testServ2 = aoe.MAC{2, 0xae, 0, 0, 0, 2}
)

// bench drives a Device by hand: a clock, and the frames it sent and no one took.
type bench struct {
	t    *testing.T
	d    *Device
	now  int64
	out  [][]byte
	via  []int
	done []*Op
}

func newBench(t *testing.T, cfg Config) *bench {
	cfg.MAC, cfg.Shelf, cfg.Slot = testMAC, 7, 1
	return &bench{t: t, d: NewDevice(cfg), now: 1_000 * millisecond}
}

func (b *bench) take() *bench {
	e := b.d.Take()
	for _, f := range e.Frames {
		b.out = append(b.out, append(append([]byte(nil), f.Header...), f.Payload...))
		b.via = append(b.via, f.Interface)
	}
	b.done = append(b.done, e.Done...)
	return b
}

func (b *bench) submit(op *Op) *bench { b.d.Submit(b.now, op); return b.take() }

// run advances the clock to a time, ticking whenever the Device asks.
func (b *bench) run(toNs int64) *bench {
	for i := 0; ; i++ {
		next := b.take().d.Take().NextTickNs
		if next > toNs {
			break
		}
		if i > 100_000 {
			b.t.Fatalf("the timers do not advance: at %d, next %d", b.now, next)
		}
		b.now = max(b.now, next)
		b.d.Tick(b.now)
	}
	b.now = toNs
	b.d.Tick(b.now)
	return b.take()
}

// sent returns the frames since the last call.
func (b *bench) sent() [][]byte {
	out := b.out
	b.out, b.via = nil, nil
	return out
}

// sentATA is sent without the queries that look for other paths.
func (b *bench) sentATA() [][]byte {
	var out [][]byte
	for _, f := range b.sent() {
		if f[offCommand] == commandATA {
			out = append(out, f)
		}
	}
	return out
}

func (b *bench) receive(iface int, frame []byte) *bench {
	b.d.Receive(b.now, iface, frame)
	return b.take()
}

// answer makes the response to a frame the Device sent.
func answer(req []byte, from aoe.MAC, body ...byte) []byte {
	r := append([]byte(nil), req[:headerBytes]...)
	copy(r, req[offSrc:offType])
	copy(r[offSrc:], from[:])
	r[offFlags] |= flagResponse
	return append(r, body...)
}

func ataAnswer(req []byte, from aoe.MAC, status, errReg byte, data []byte) []byte {
	body := append([]byte(nil), req[headerBytes:ataBytes]...)
	body[offATAStatus-headerBytes], body[offATAErr-headerBytes] = status, errReg
	return append(answer(req, from, body...), data...)
}

func beacon(from aoe.MAC, bufCount uint16, sectors byte) []byte {
	b := appendDiscover(nil, broadcast, from, 7, 1, 0)
	b[offFlags] |= flagResponse
	binary.BigEndian.PutUint16(b[24:], bufCount)
	b[28] = sectors
	return b
}

func (b *bench) online() *bench {
	b.receive(0, beacon(testServ, 64, 16))
	b.sent()
	return b
}

func tagOf(f []byte) uint32 { return binary.BigEndian.Uint32(f[offTag:]) }

func TestDeviceDiscoversThenReads(t *testing.T) {
	b := newBench(t, Config{})
	op := &Op{Kind: OpRead, LBA: 0x123456789A, Data: make([]byte, 5*SectorBytes)}
	sent := b.submit(op).sent()
	if len(sent) != 1 || sent[0][offCommand] != commandConfig || !bytes.Equal(sent[0][:6], broadcast[:]) || len(sent[0]) != 32 {
		t.Fatalf("first frame is no broadcast Query Config of 32 bytes: %x", sent)
	}
	if sent = b.receive(0, beacon(testServ, 64, 2)).sent(); len(sent) != 3 {
		t.Fatalf("5 sectors in frames of 2 made %d frames, want 3", len(sent))
	}
	want := []byte{ataFlagExt, 0, 2, ataReadExt, 0x9A, 0x78, 0x56, 0x34, 0x12, 0, 0, 0}
	if !bytes.Equal(sent[0][24:], want) {
		t.Errorf("ATA section %x, want %x", sent[0][24:], want)
	}
	for i := 2; i >= 0; i-- { // out of order
		n := int(sent[i][offATACount])
		b.receive(0, ataAnswer(sent[i], testServ, 0x40, 0, bytes.Repeat([]byte{byte(i + 1)}, n*SectorBytes)))
	}
	if len(b.done) != 1 || op.Err != nil {
		t.Fatalf("done %v, error %v", b.done, op.Err)
	}
	for i, want := range []byte{1, 1, 2, 2, 3} {
		if op.Data[i*SectorBytes] != want || op.Data[(i+1)*SectorBytes-1] != want {
			t.Errorf("sector %d holds %d, want %d", i, op.Data[i*SectorBytes], want)
		}
	}
}

func TestDeviceKeepsWindow(t *testing.T) {
	b := newBench(t, Config{})
	b.receive(0, beacon(testServ, 16, 2))
	op := &Op{Kind: OpWrite, Data: make([]byte, 100*SectorBytes)}
	sent := b.submit(op).sent()
	if len(sent) != 16 {
		t.Fatalf("%d frames in flight, the target buffers 16", len(sent))
	}
	if b.receive(0, ataAnswer(sent[3], testServ, 0x40, 0, nil)); len(b.sent()) != 1 {
		t.Error("an answer does not let exactly one more frame go")
	}
	b = newBench(t, Config{MaxOut: 4})
	b.receive(0, beacon(testServ, 16, 2))
	if sent = b.submit(&Op{Kind: OpWrite, Data: make([]byte, 100*SectorBytes)}).sent(); len(sent) != 4 {
		t.Errorf("%d frames in flight, MaxOut is 4", len(sent))
	}
}

func TestDeviceRetransmitsWithNewTags(t *testing.T) {
	var copies []Copy
	b := newBench(t, Config{OnSend: func(c Copy) { copies = append(copies, c) }}).online()
	data := bytes.Repeat([]byte{7}, SectorBytes)
	op := &Op{Kind: OpWrite, LBA: 9, Data: data}
	b.submit(op)
	b.run(b.now + 2*second)
	sent := b.sentATA()
	seen := map[uint32]bool{}
	writes := len(sent)
	for _, f := range sent {
		if seen[tagOf(f)] {
			t.Errorf("tag %08x used twice", tagOf(f))
		}
		if seen[tagOf(f)] = true; tagOf(f)&userTag == 0 {
			t.Errorf("tag %08x is in the driver's half", tagOf(f))
		}
		if !bytes.Equal(f[ataBytes:], data) {
			t.Error("a copy carries other data")
		}
	}
	// 250 ms, then the back-off's limit of 500 ms: at 0, 250, 750, 1250, 1750.
	if writes != 5 || len(copies) != 5 || op.FramesSent != 5 || op.Resent != 4 {
		t.Fatalf("%d copies sent, %d told, op says %d/%d; want 5", writes, len(copies), op.FramesSent, op.Resent)
	}
	for i, c := range copies {
		if c.Number != i+1 || c.Op != op || c.LBA != 9 || c.Sectors != 1 || !seen[c.Tag] {
			t.Errorf("copy %d told as %+v", i, c)
		}
	}
	b.receive(0, ataAnswer(sent[0], testServ, 0x40, 0, nil))
	if len(b.done) != 0 || b.d.Stats(b.now).Unexpected != 1 {
		t.Fatal("the answer to a superseded tag ended the operation")
	}
	last := ataAnswer(sent[len(sent)-1], testServ2, 0x40, 0, nil) // any MAC may answer
	if b.receive(0, last); len(b.done) != 1 || op.Err != nil {
		t.Fatalf("the answer to the last tag did not end it: %v", op.Err)
	}
	if b.receive(0, last); b.d.Stats(b.now).Unexpected != 2 {
		t.Error("a duplicated answer is not counted as unexpected")
	}
}

func TestLinuxModeSendsOneFramePerRTODuringOutage(t *testing.T) {
	b := newBench(t, Config{Mode: ModeLinux}).online()
	// Settle the estimate at 1 ms so that the RTO is below one tick.
	for i := 0; i < 3000; i++ {
		b.submit(&Op{Kind: OpWrite, Data: make([]byte, SectorBytes)})
		b.now += millisecond
		b.receive(0, ataAnswer(b.sent()[0], testServ, 0x40, 0, nil))
	}
	if rto := b.d.Stats(b.now).RTONs; rto > 10*millisecond {
		t.Fatalf("settled RTO %d ns, the driver's is about 3 ms", rto)
	}
	for i := 0; i < 32; i++ {
		b.submit(&Op{Kind: OpWrite, LBA: uint64(i), Data: make([]byte, SectorBytes)})
	}
	if n := len(b.sent()); n != 32 {
		t.Fatalf("%d frames in flight before the outage, want 32", n)
	}
	b.now -= b.now % linuxTickNs
	b.run(b.now + linuxTickNs)
	b.sent()
	b.run(b.now + 10*linuxTickNs)
	resent := b.sentATA()
	if len(resent) < 9 || len(resent) > 11 {
		t.Fatalf("%d frames in ten ticks of silence, the driver sends one per tick", len(resent))
	}
	for _, f := range resent {
		if tagOf(f)&userTag != 0 {
			t.Fatalf("tag %08x is not in the driver's half", tagOf(f))
		}
	}
	// The first answer opens the window again, one more with each answer.
	if b.receive(0, ataAnswer(resent[len(resent)-1], testServ, 0x40, 0, nil)); len(b.sent()) != 2 {
		t.Error("the window does not grow with the first answer")
	}
}

func TestLinuxRTOAgainstNumberOfAnswers(t *testing.T) {
	// The table of a simulation of the driver's arithmetic at RTT 1 ms.
	want := map[int]float64{0: 16.5, 1: 14.7, 4: 10.7, 8: 7.3, 16: 4.0, 32: 2.45, 64: 2.0, 128: 1.55, 256: 0.94, 512: 0.35, 1024: 0.05}
	cfg := Config{LinuxTiming: true}
	cfg.fill()
	e := newEstimator(&cfg)
	for n := 0; n <= 1024; n++ {
		if w, ok := want[n]; ok {
			if got := float64(e.rtoNs(1)) / 1e9; got < w*0.9-0.01 || got > w*1.1+0.01 {
				t.Errorf("RTO after %d answers: %.3f s, want %.3f", n, got, w)
			}
		}
		e.sample(millisecond)
	}
}

func TestIPXEModeKeepsTagAndDoubles(t *testing.T) {
	b := newBench(t, Config{Mode: ModeIPXE})
	b.receive(0, beacon(testServ, 64, 16))
	start := b.now
	op := &Op{Kind: OpRead, Data: make([]byte, 8*SectorBytes)}
	b.submit(op)
	b.run(start + 3750*millisecond) // 0, 250, 750, 1750, 3750
	sent := b.sent()
	if len(sent) != 5 {
		t.Fatalf("%d copies, want 5: one command at a time, doubling from 250 ms", len(sent))
	}
	for _, f := range sent {
		if !bytes.Equal(f, sent[0]) || f[offATACount] != 2 || tagOf(f)>>16 != ipxeTag>>16 {
			t.Errorf("copy differs or is not two sectors: %x", f)
		}
	}
	b.run(start + 40*second)
	if len(b.done) != 1 || !errors.Is(op.Err, ErrTimeout) {
		t.Errorf("iPXE does not give up: %v", op.Err)
	}
}

func TestDeviceErrors(t *testing.T) {
	refuse := func(f []byte, code byte) []byte {
		r := ataAnswer(f, testServ, 0, 0, nil)
		r[offFlags] |= flagError
		r[offError] = code
		return r
	}
	write := func() *Op { return &Op{Kind: OpWrite, LBA: 100, Data: make([]byte, 4*SectorBytes)} }

	b := newBench(t, Config{}).online()
	op := write()
	f := b.submit(op).sent()[0]
	b.receive(0, refuse(f, codeUnavailable))
	if len(b.done) != 0 {
		t.Fatal("error 3 ended an operation: it means try again")
	}
	b.receive(0, refuse(f, codeReserved))
	if !errors.Is(op.Err, ErrReserved) || !op.MaybeExecuted() {
		t.Fatalf("error 6 gives %v", op.Err)
	}

	op = write()
	f = b.submit(op).sent()[0]
	b.receive(0, ataAnswer(f, testServ, 0x41, 0x10, nil))
	var ata *ATAError
	if !errors.As(op.Err, &ata) || ata.LBA != 100 || !ata.Write || ata.Sectors != 2 {
		t.Fatalf("ATA error gives %v", op.Err)
	}

	op = &Op{Kind: OpRead, Data: make([]byte, 2*SectorBytes)}
	f = b.submit(op).sent()[0]
	b.receive(0, ataAnswer(f, testServ, 0x40, 0, make([]byte, SectorBytes)))
	if !errors.Is(op.Err, ErrRunt) {
		t.Fatalf("short read gives %v", op.Err)
	}

	b = newBench(t, Config{Mode: ModeLinux}).online()
	op = write()
	f = b.submit(op).sent()[0]
	if b.receive(0, refuse(f, codeReserved)); len(b.done) != 0 {
		t.Fatal("the driver ignores AoE errors")
	}

	for _, bad := range []*Op{{Kind: OpRead}, {Kind: OpRead, Data: make([]byte, 100)}, {}, {Kind: OpIdentify},
		{Kind: OpWrite, LBA: maxLBA - 1, Data: make([]byte, 1024)}, {Kind: OpConfig}} {
		b.submit(bad)
		if !errors.Is(bad.Err, ErrRange) {
			t.Errorf("%+v gives %v", bad, bad.Err)
		}
	}
}

func TestDeviceDeadlineCancelAndDown(t *testing.T) {
	b := newBench(t, Config{}).online()
	op := &Op{Kind: OpWrite, Data: make([]byte, 200*SectorBytes), DeadlineNs: b.now + 700*millisecond}
	b.submit(op)
	start := b.now
	b.run(b.now + 2*second)
	if !errors.Is(op.Err, ErrTimeout) || op.DoneNs != start+700*millisecond {
		t.Fatalf("ended at +%d ms with %v", (op.DoneNs-start)/millisecond, op.Err)
	}
	if st := b.d.Stats(b.now); b.d.Pending() != 0 || st.LongestStallNs != 700*millisecond || b.d.Paths()[0].Out != 0 {
		t.Errorf("leftovers: %d pending, %+v", b.d.Pending(), b.d.Paths())
	}
	other := &Op{Kind: OpRead, Data: make([]byte, 512)}
	b.submit(other)
	b.d.Cancel(b.now, other)
	b.d.Cancel(b.now, other)
	if b.take(); !errors.Is(other.Err, ErrCanceled) || len(b.done) != 2 {
		t.Errorf("cancel gives %v, %d done", other.Err, len(b.done))
	}

	b = newBench(t, Config{Mode: ModeLinux, DeadNs: 30 * second}).online()
	op = &Op{Kind: OpRead, Data: make([]byte, 512)}
	b.submit(op)
	b.run(b.now + 60*second)
	if !errors.Is(op.Err, ErrDown) {
		t.Fatalf("silence beyond DeadNs gives %v", op.Err)
	}
	if late := (&Op{Kind: OpRead, Data: make([]byte, 512)}); b.submit(late) == nil || !errors.Is(late.Err, ErrDown) {
		t.Error("a device that is down takes operations")
	}
	b.d.Revalidate(b.now)
	b.take().sent()
	if op = (&Op{Kind: OpRead, Data: make([]byte, 512)}); len(b.submit(op).sent()) != 1 {
		t.Error("a revalidated device sends nothing")
	}
}

func TestDeviceUsesAllPathsAndLeavesDeadOnes(t *testing.T) {
	b := newBench(t, Config{MTUs: []int{9000, 9000}})
	b.receive(0, beacon(testServ, 16, 16)).receive(1, beacon(testServ2, 16, 16)).sent()
	reads := func(n int) {
		for i := 0; i < n; i++ {
			b.submit(&Op{Kind: OpRead, LBA: uint64(i), Data: make([]byte, 512)})
		}
	}
	reads(8)
	count := [2]int{}
	for _, i := range b.via {
		count[i]++
	}
	if count != [2]int{4, 4} {
		t.Fatalf("frames per path %v, want round robin", count)
	}
	// Path 1 is silent from now on; path 0 answers at once.
	for step := 0; step < 400; step++ {
		via := b.via
		for i, f := range b.sent() {
			if via[i] == 0 && f[offCommand] == commandATA {
				b.receive(0, ataAnswer(f, testServ, 0x40, 0, make([]byte, 512)))
			}
		}
		b.run(b.now + 5*millisecond)
	}
	if len(b.done) != 8 || b.d.Stats(b.now).PathsClear != 1 {
		t.Fatalf("%d of 8 done, %d clear paths", len(b.done), b.d.Stats(b.now).PathsClear)
	}
	b.receive(1, beacon(testServ2, 16, 16))
	if b.d.Stats(b.now).PathsClear != 2 {
		t.Error("a path that is back is still avoided")
	}
}

func TestDeviceTakesSmallestFrameOfAllPaths(t *testing.T) {
	b := newBench(t, Config{MTUs: []int{9000, 1500}})
	b.receive(0, beacon(testServ, 16, 17))
	if b.d.FrameSectors() != 17 {
		t.Errorf("%d sectors at MTU 9000 and 17 advertised", b.d.FrameSectors())
	}
	b.receive(1, beacon(testServ, 16, 17))
	if b.d.FrameSectors() != 2 {
		t.Errorf("%d sectors although one interface has MTU 1500", b.d.FrameSectors())
	}
}

func TestControlKeepsItsTag(t *testing.T) {
	b := newBench(t, Config{TagSeed: 41}).online()
	req, err := ConfigRequest(ConfigSet, []byte("mine"))
	if err != nil {
		t.Fatal(err)
	}
	op := &Op{Kind: OpConfig, Request: req}
	b.submit(op)
	b.run(b.now + second)
	var sent [][]byte
	for _, f := range b.sent() { // without the queries that look for other paths
		if !bytes.Equal(f[:6], broadcast[:]) {
			sent = append(sent, f)
		}
	}
	if len(sent) < 3 {
		t.Fatalf("%d copies in a second", len(sent))
	}
	for _, f := range sent {
		if !bytes.Equal(f, sent[0]) {
			t.Fatalf("a copy differs: %x, %x", sent[0], f)
		}
	}
	reply := answer(sent[0], testServ, 0, 64, 0, 1, 16, 0x13, 0, 5, 't', 'h', 'e', 'i', 'r')
	reply[offFlags] |= flagError
	reply[offError] = codeConfigPresent
	b.receive(0, reply)
	if !errors.Is(op.Err, ErrConfigPresent) {
		t.Fatalf("error 4 gives %v", op.Err)
	}
	if got, err := ParseConfigReply(op.Reply); err != nil || string(got.Text) != "their" || got.SectorCount != 16 {
		t.Errorf("the answer says %+v, %v", got, err)
	}
	op2 := &Op{Kind: OpConfig, Request: req}
	if b.submit(op2); tagOf(b.sent()[0]) == tagOf(sent[0]) {
		t.Error("the next command has the tag of the last")
	}
}

func TestDeviceIgnoresForeignFrames(t *testing.T) {
	b := newBench(t, Config{}).online()
	op := &Op{Kind: OpRead, Data: make([]byte, 512)}
	f := b.submit(op).sent()[0]
	good := ataAnswer(f, testServ, 0x40, 0, make([]byte, 512))
	for name, change := range map[string]func(r []byte){
		"shelf":   func(r []byte) { r[offShelf+1]++ },
		"slot":    func(r []byte) { r[offSlot]++ },
		"MAC":     func(r []byte) { r[5]++ },
		"request": func(r []byte) { r[offFlags] &^= flagResponse },
		"type":    func(r []byte) { r[offType]++ },
		"tag":     func(r []byte) { r[offTag+3]++ },
		"command": func(r []byte) { r[offCommand] = 9 },
	} {
		r := append([]byte(nil), good...)
		change(r)
		if b.receive(0, r); len(b.done) != 0 {
			t.Fatalf("an answer with another %s is taken", name)
		}
	}
	for n := 0; n < ataBytes; n++ {
		b.receive(0, good[:n])
	}
	b.receive(7, good)
	if b.receive(0, good); len(b.done) != 1 || op.Err != nil {
		t.Fatalf("the right answer is not taken: %v", op.Err)
	}
}

func FuzzDeviceReceive(f *testing.F) {
	f.Add(beacon(testServ, 64, 16))
	f.Add(append(answer(appendHeader(nil, testServ, testMAC, 7, 1, commandConfig, userTag|1), testServ), 0, 0, 0, 0, 0, 0x10, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, frame []byte) {
		b := newBench(t, Config{}).online()
		b.submit(&Op{Kind: OpRead, Data: make([]byte, 1024)})
		b.submit(&Op{Kind: OpConfig, Request: []byte{0, 0, 0, 0, 0, 0x10, 0, 0}})
		if len(frame) >= headerBytes { // make it reach the deeper parts
			copy(frame, testMAC[:])
			copy(frame[offType:], []byte{0x88, 0xA2, 0x18})
			copy(frame[offShelf:], []byte{0, 7, 1})
		}
		b.receive(0, frame)
		for _, op := range b.done {
			ParseConfigReply(op.Reply)
			ParseMaskReply(op.Reply)
			ParseReserveReply(op.Reply)
		}
	})
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	b := newBench(t, Config{}).online()
	op := &Op{Kind: OpWrite, Data: make([]byte, 64*SectorBytes)}
	reply := make([]byte, 60)
	round := func() {
		op.Kind = OpWrite
		b.d.Submit(b.now, op)
		for !op.done {
			e := b.d.Take()
			var reqs [40][ataBytes]byte
			n := 0
			for _, f := range e.Frames {
				n += copy(reqs[n:n+1], [][ataBytes]byte{[ataBytes]byte(f.Header)})
			}
			for i := 0; i < n; i++ {
				copy(reply, reqs[i][:])
				copy(reply, reqs[i][6:12])
				copy(reply[6:], testServ[:])
				reply[offFlags] = 0x18
				reply[offATAStatus] = 0x40
				b.d.Receive(b.now, 0, reply)
			}
		}
		b.d.Take()
	}
	round()
	if n := testing.AllocsPerRun(100, round); n > 0 {
		t.Errorf("%.1f allocations per 64-sector write", n)
	}
}
