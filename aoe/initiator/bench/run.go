package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
)

// drainNs is how long the operations in flight have to end after the last measurement.
const drainNs = 5 * secondNs

// ErrStopped says that Config.Stop ended a run.
var ErrStopped = errors.New("stopped")

// engine is one run. One goroutine, locked to its thread, does everything.
type engine struct {
	cfg      Config
	clock    func() int64
	ports    []*port
	sessions []*session
	byName   map[sessionName]*session
	pool     []slot // with Config.TotalDepth: all operations but those that fill
	turn     int    // the session that gets the next of them
	poller   *link.Poller
	rx       []link.RxFrame
	dirty    []*session      // have effects to take
	done     []*initiator.Op // taken, and not looked at yet
	wakeNs   int64           // no session's timer fires before

	volumeBytes uint64
	spanBytes   uint64 // of each volume; with Config.Places, what the places have together
	strideBytes uint64 // the share of a place in the volume; 0: the span is whole
	phase       phase
	err         error // of the first operation that failed
	tally
	toldNs  int64
	toldOps uint64
}

// tally counts what ended since the last reset.
type tally struct {
	ops, reads, writes uint64
	latency            Histogram
	lastNs             int64 // the last answer
	gapNs              int64 // the longest time without one
}

// phase is what the engine submits now.
type phase struct {
	name    string
	op      Op
	size    int
	random  bool
	submit  bool  // begin a new operation for each that ends
	fill    bool  // ends when the span was written
	beganNs int64 // for progress
	endNs   int64
}

// port gathers frames for one sendmmsg.
type port struct {
	link.Port
	tx       []link.TxFrame
	payloads [][]byte
}

// sessionName is how frames find their session.
type sessionName struct {
	mac aoe.MAC
	Volume
}

// session is one initiator on one volume.
type session struct {
	dev    *initiator.Device
	volume Volume
	slots  []slot
	rng    *rand.PCG
	nextNs int64 // when its timers want to be looked at
	dirty  bool
	stamp  uint64 // no two writes are alike

	// Its own part of the span, for sequential operations and filling, in bytes.
	fromB, lengthB uint64
	atB            uint64 // the next sequential operation, from fromB
	filledB        uint64
}

// slot is one operation of the depth.
type slot struct {
	op      initiator.Op
	session *session // with Config.TotalDepth: of the last operation
	buf     []byte   // at least Config.SizeBytes; for filling, larger
}

// Run measures. It returns an error, and no result, if an operation fails: an error is not a speed.
func Run(cfg Config) (*Result, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e, err := newEngine(cfg)
	if err != nil {
		return nil, err
	}
	defer e.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := e.identify(); err != nil {
		return nil, err
	}
	if err := e.layOut(); err != nil {
		return nil, err
	}
	if cfg.Fill {
		e.begin(phase{name: "fill", op: Write, size: cap(e.sessions[0].slots[0].buf), submit: true, fill: true, endNs: 1<<63 - 1})
		if err := e.drain(); err != nil {
			return nil, err
		}
	}
	main := phase{name: "warm-up", op: cfg.Op, size: cfg.SizeBytes, random: !cfg.Sequential, submit: true}
	if cfg.WarmUpNs > 0 {
		main.endNs = e.clock() + cfg.WarmUpNs
		e.begin(main)
	}
	warm := e.stats()
	before, err := takeUsage(cfg.Pids)
	if err != nil {
		return nil, err
	}
	main.name, main.endNs = "measure", e.clock()+cfg.MeasureNs
	beganNs := e.reset()
	e.begin(main)
	tookNs := e.clock() - beganNs
	e.gapNs = max(e.gapNs, beganNs+tookNs-e.lastNs)
	measured, now := e.tally, e.stats()
	after, err := takeUsage(cfg.Pids)
	if err := errors.Join(err, e.drain()); err != nil {
		return nil, err
	}
	return e.result(&measured, tookNs, warm, now, before, after), nil
}

func newEngine(cfg Config) (*engine, error) {
	if len(cfg.Ports) == 0 {
		return nil, errors.New("bench: a run needs at least one port")
	}
	started := time.Now()
	e := &engine{cfg: cfg, clock: func() int64 { return int64(time.Since(started)) + 1 }, byName: make(map[sessionName]*session),
		rx: make([]link.RxFrame, 64)}
	var mtus []int
	for _, p := range cfg.Ports {
		e.ports = append(e.ports, &port{Port: p})
		mtus = append(mtus, p.MTU())
	}
	var err error
	if e.poller, err = link.NewPoller(cfg.Ports...); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	for _, mac := range cfg.MACs {
		for _, p := range e.ports {
			if err := p.Join(mac); err != nil {
				e.close()
				return nil, fmt.Errorf("bench: receive frames for %s: %w", mac, err)
			}
		}
	}
	for _, v := range cfg.volumes() {
		for _, mac := range cfg.MACs {
			e.addSession(v, mac, mtus)
		}
	}
	e.wakeNs = 1<<63 - 1
	return e, nil
}

func (e *engine) addSession(v Volume, mac aoe.MAC, mtus []int) {
	c := &e.cfg
	s := &session{volume: v, dev: initiator.NewDevice(initiator.Config{MAC: mac, Shelf: v.Shelf, Slot: v.Slot, MTUs: mtus, MaxOut: c.MaxOut,
		RTOMinNs: c.RTOMinNs, TagSeed: rand.Uint32()}), rng: rand.NewPCG(c.Seed, uint64(len(e.sessions))), nextNs: 1<<63 - 1}
	e.sessions = append(e.sessions, s)
	e.byName[sessionName{mac, v}] = s
}

func (e *engine) close() {
	for _, p := range e.ports {
		for _, mac := range e.cfg.MACs {
			_ = p.Leave(mac) // the port is about to be closed
		}
	}
	e.poller.Close()
}

// identify learns how large the volumes are: as large as the smallest.
func (e *engine) identify() error {
	for i := 0; i < len(e.sessions); i += len(e.cfg.MACs) {
		bytes, err := e.identifyOne(e.sessions[i])
		if err != nil {
			return err
		}
		if e.volumeBytes == 0 || bytes < e.volumeBytes {
			e.volumeBytes = bytes
		}
	}
	return nil
}

func (e *engine) identifyOne(s *session) (uint64, error) {
	op := initiator.Op{Kind: initiator.OpIdentify, Data: make([]byte, initiator.SectorBytes)}
	now := e.clock()
	op.DeadlineNs = now + e.cfg.TimeoutNs
	e.submit(s, now, &op)
	for op.DoneNs == 0 {
		e.step(1 << 62)
		if e.stopped() {
			return 0, ErrStopped
		}
	}
	if op.Err != nil {
		return 0, fmt.Errorf("bench: identify %v: %w", s.volume, op.Err)
	}
	id, ok := aoe.ParseIdentify(op.Data)
	if !ok || id.Sectors == 0 {
		return 0, fmt.Errorf("bench: %v says that it has no sectors", s.volume)
	}
	return id.Sectors * initiator.SectorBytes, nil
}

// fillMemory bounds the buffers of a fill by many initiators, in bytes.
const fillMemory = 256 << 20

// fillBytes is the size of an operation of the fill phase: large, and not more than what a session has of the span.
func (e *engine) fillBytes() int {
	if e.strideBytes > 0 {
		return e.cfg.SizeBytes
	}
	n := min(SizeBytesMax, fillMemory/len(e.sessions)&^4095)
	return int(min(uint64(max(n, e.cfg.SizeBytes)), e.sessions[0].lengthB))
}

// layOut divides the span among the sessions and makes their buffers.
func (e *engine) layOut() error {
	c := &e.cfg
	if c.StartBytes >= e.volumeBytes || c.SpanBytes > e.volumeBytes-c.StartBytes {
		return fmt.Errorf("bench: --start %d, --span %d: the volume has %d bytes", c.StartBytes, c.SpanBytes, e.volumeBytes)
	}
	e.spanBytes = c.SpanBytes
	if e.spanBytes == 0 {
		e.spanBytes = e.volumeBytes - c.StartBytes
	}
	e.spanBytes -= e.spanBytes % uint64(c.SizeBytes)
	n, size := uint64(len(c.MACs)), uint64(c.SizeBytes)
	if c.Places > 0 {
		places := min(c.Places, e.spanBytes/size)
		e.strideBytes = e.spanBytes / places / size * size
		e.spanBytes = places * size
	}
	share := e.spanBytes / n / size * size
	if share == 0 {
		return fmt.Errorf("bench: --span %d: less than one operation of %d bytes for each of %d initiators", c.SpanBytes, size, n)
	}
	for i, s := range e.sessions {
		mac := uint64(i) % n
		s.fromB, s.lengthB = mac*share, share
		if mac == n-1 {
			s.lengthB = e.spanBytes - mac*share // the rest, too
		}
	}
	bufBytes := c.SizeBytes
	if c.Fill {
		bufBytes = e.fillBytes()
	}
	e.makeSlots(bufBytes)
	return nil
}

// makeSlots makes the operations and their buffers; those that fill are larger.
func (e *engine) makeSlots(bufBytes int) {
	c := &e.cfg
	var slab []byte
	make1 := func(sl *slot, s *session, want int) {
		if len(slab) < want {
			slab = make([]byte, max(want, 8<<20))
			fillRandom(slab, s.rng)
		}
		sl.session, sl.buf = s, slab[:want:want]
		sl.op.User = sl
		slab = slab[want:]
	}
	for _, s := range e.sessions {
		s.slots = make([]slot, e.slotsEach())
		for d := range s.slots {
			want := c.SizeBytes
			if d < e.fillDepth() {
				want = bufBytes
			}
			make1(&s.slots[d], s, want)
		}
	}
	e.pool = make([]slot, c.TotalDepth)
	for i := range e.pool {
		make1(&e.pool[i], e.sessions[0], c.SizeBytes)
	}
}

// slotsEach is how many operations a session has of its own.
func (e *engine) slotsEach() int {
	switch {
	case e.cfg.TotalDepth == 0:
		return e.cfg.Depth
	case e.cfg.Fill:
		return e.fillDepth()
	}
	return 0
}

const (
	fillAtOnce   = 8  // operations, of all sessions together: enough of large ones to keep any target busy
	placesAtOnce = 64 // of small ones
)

// fillDepth is how many operations of a session fill at once.
func (e *engine) fillDepth() int {
	n := fillAtOnce
	if e.strideBytes > 0 {
		n = placesAtOnce
	}
	n = max(1, n/len(e.sessions))
	if e.cfg.TotalDepth == 0 {
		n = min(n, e.cfg.Depth)
	}
	return n
}

// fillRandom makes bytes that no target can compress.
func fillRandom(b []byte, rng *rand.PCG) {
	for i := 0; i+8 <= len(b); i += 8 {
		v := rng.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
}

// reset forgets what was counted and returns the time.
func (e *engine) reset() int64 {
	now := e.clock()
	e.ops, e.reads, e.writes, e.gapNs, e.lastNs = 0, 0, 0, 0, now
	e.latency.Reset()
	e.toldNs, e.toldOps = now, 0
	return now
}

// stats sums the counters of all sessions.
func (e *engine) stats() (sum initiator.Stats) {
	now := e.clock()
	for _, s := range e.sessions {
		st := s.dev.Stats(now)
		sum.FramesSent += st.FramesSent
		sum.Resent += st.Resent
		sum.Unexpected += st.Unexpected
		sum.AoEErrors += st.AoEErrors
	}
	return sum
}

func (e *engine) stopped() bool {
	select {
	case <-e.cfg.Stop: // nil: never
		return true
	default:
		return false
	}
}
