package initiator

import "clade/aoe"

// Device is the session of one initiator with one volume: a pure state machine.
// One goroutine at a time calls it; time enters as nanoseconds of any monotonic
// clock. Everything it does follows from its inputs alone.
type Device struct {
	cfg Config
	rtt estimator

	paths   []*path
	turn    int // round robin over paths
	sectors int // per frame: the minimum over all paths

	ops      opList     // submitted and not done, in order
	queue    []*Op      // not yet wholly cut, in order
	flight   flight     // data commands that were sent
	resend   []*command // data commands that timed out and wait for a window
	controls []*command // config, mask, reserve: sent outside the windows

	tagSeq      uint32
	controlTag  uint32
	free        []*command
	discoverNs  int64 // next discovery; 0 = at once
	lastHeardNs int64
	wakeNs      int64 // no timer fires before
	tickedNs    int64 // LinuxTiming: last look at the timers
	down        bool

	eff   Effects
	arena []byte // the headers of eff.Frames
	taken bool
	stats Stats
}

// Frame is one frame to send. Header and Payload together are the frame; the
// Payload of a write is a view into the operation's Data.
type Frame struct {
	Interface int
	Header    []byte
	Payload   []byte
}

// Effects are what a Device wants done. They stay valid until the next call of
// any of its methods but Stats.
type Effects struct {
	Frames []Frame
	Done   []*Op
	// NextTickNs is when Tick wants to be called at the latest. Calling it
	// earlier or more often is harmless.
	NextTickNs int64
}

// command is one data frame's worth of an operation, or a whole control
// operation.
type command struct {
	op       *Op
	kind     OpKind
	lba      uint64
	data     []byte // of op.Data: to send or to fill
	sectors  int
	tag      uint32
	path     *path
	sentNs   int64
	dueNs    int64 // when it times out
	waitedNs int64 // before sentNs, since the first copy
	copies   int
	probe    bool
	prev     *command
	next     *command
	hashNext *command
}

// NewDevice returns a Device that knows no path yet: it starts to look for one
// at the first Submit or Discover.
func NewDevice(cfg Config) *Device {
	cfg.fill()
	d := &Device{cfg: cfg, rtt: newEstimator(&cfg), wakeNs: never, discoverNs: never}
	d.controlTag = cfg.TagSeed
	d.sectors = 2
	return d
}

// MAC returns the source address of the session.
func (d *Device) MAC() aoe.MAC { return d.cfg.MAC }

// Address returns the shelf and slot of the volume.
func (d *Device) Address() (shelf uint16, slot uint8) { return d.cfg.Shelf, d.cfg.Slot }

// Ready says whether a path to the volume is known.
func (d *Device) Ready() bool { return len(d.paths) > 0 }

// FrameSectors is how many sectors a frame carries now; 2 before a path is known.
func (d *Device) FrameSectors() int { return d.sectors }

// Pending is the number of operations that are not done.
func (d *Device) Pending() int { return d.ops.count }

// PathInfo describes one way to the volume.
type PathInfo struct {
	MAC       aoe.MAC
	Interface int
	Window    int // frames that may be in flight now
	Limit     int // and at most
	Out       int
	Avoided   bool
}

// Paths lists the ways to the volume in the order they were learned.
func (d *Device) Paths() []PathInfo {
	infos := make([]PathInfo, len(d.paths))
	for i, p := range d.paths {
		infos[i] = PathInfo{MAC: p.mac, Interface: p.iface, Window: p.window, Limit: p.limit, Out: p.out, Avoided: p.taint > 0}
	}
	return infos
}

// Stats returns the counters; nowNs is for what still waits.
func (d *Device) Stats(nowNs int64) Stats {
	s := d.stats
	s.Paths, s.PathsClear = len(d.paths), d.untainted()
	s.RTONs, s.MinRTTNs, s.MaxRTTNs = d.rtt.rtoNs(1), d.rtt.minRTTNs, d.rtt.maxRTTNs
	if d.ops.head != nil { // the oldest
		s.LongestStallNs = max(s.LongestStallNs, nowNs-d.ops.head.SubmitNs)
	}
	return s
}

// Submit starts an operation. It comes back in Effects.Done, with an error at
// once if it makes no sense or the device is down.
func (d *Device) Submit(nowNs int64, op *Op) {
	d.begin()
	op.Err, op.Reply, op.done = nil, nil, false
	op.cut, op.left, op.FramesSent, op.Resent = 0, 0, 0, 0
	op.SubmitNs, op.FirstNs, op.DoneNs = nowNs, 0, 0
	d.ops.push(op)
	switch {
	case !op.valid():
		d.finish(nowNs, op, ErrRange)
		return
	case d.down:
		d.finish(nowNs, op, ErrDown)
		return
	}
	if op.DeadlineNs > 0 {
		d.wakeNs = min(d.wakeNs, op.DeadlineNs)
	}
	if op.control() {
		c := d.newCommand(op, op.Kind)
		c.tag = d.nextControlTag()
		op.cut, op.left = 1, 1
		d.controls = append(d.controls, c)
	} else {
		d.queue = append(d.queue, op)
	}
	if len(d.paths) == 0 && d.discoverNs == never {
		d.discoverNs = 0
	}
	d.pump(nowNs)
}

// Cancel ends an operation with ErrCanceled. A write that has left may still be
// executed.
func (d *Device) Cancel(nowNs int64, op *Op) {
	d.begin()
	if !op.done && d.ops.has(op) {
		d.finish(nowNs, op, ErrCanceled)
		d.pump(nowNs)
	}
}

// Discover broadcasts a Query Config for the volume now.
func (d *Device) Discover(nowNs int64) {
	d.begin()
	d.discoverNs = 0
	d.pump(nowNs)
}

// Down ends all operations with ErrDown, and so all later ones.
func (d *Device) Down(nowNs int64) {
	d.begin()
	d.goDown(nowNs)
}

// Revalidate brings a device back that went down for silence.
func (d *Device) Revalidate(nowNs int64) {
	d.down = false
	d.lastHeardNs = nowNs
	d.Discover(nowNs)
}

// Receive takes a frame that an interface received. Anything that is no answer
// for this session is ignored; the frame is not kept.
func (d *Device) Receive(nowNs int64, iface int, frame []byte) {
	d.begin()
	var r reply
	if iface < 0 || iface >= len(d.cfg.MTUs) || !parseReply(frame, d.cfg.MAC, &r) ||
		r.shelf != d.cfg.Shelf || r.slot != d.cfg.Slot {
		d.stats.Ignored++
		return
	}
	if p := d.findPath(r.src, iface); p != nil {
		d.heard(nowNs, p)
	}
	switch r.command {
	case commandATA:
		d.ataReply(nowNs, &r)
	case commandConfig:
		if !r.failed && len(r.body) >= configBytes-headerBytes {
			d.learnPath(nowNs, r.src, iface, int(r.body[0])<<8|int(r.body[1]), int(r.body[4]))
		}
		d.controlReply(nowNs, &r, OpConfig)
	case commandMask:
		d.controlReply(nowNs, &r, OpMask)
	case commandReserve:
		d.controlReply(nowNs, &r, OpReserve)
	default:
		d.stats.Ignored++
	}
	d.pump(nowNs)
}

// Tick lets the timers fire that are due.
func (d *Device) Tick(nowNs int64) {
	d.begin()
	if nowNs >= d.wakeNs {
		d.wakeNs = never
		d.expireOps(nowNs)
		d.expireCommands(nowNs)
		d.expireControls(nowNs)
	}
	d.pump(nowNs)
}

// Take hands out the effects of all calls since the last Take.
func (d *Device) Take() *Effects {
	d.begin()
	d.taken = true
	d.eff.NextTickNs = min(d.wakeNs, d.nextDiscoverNs())
	return &d.eff
}

// begin drops the effects that were taken.
func (d *Device) begin() {
	if !d.taken {
		return
	}
	d.taken = false
	d.eff.Frames, d.eff.Done = d.eff.Frames[:0], d.eff.Done[:0]
	d.arena = d.arena[:0]
}

// finish ends an operation and forgets its commands.
func (d *Device) finish(nowNs int64, op *Op, err error) {
	if op.left > 0 {
		d.forget(op)
	}
	if !op.wholeCut() {
		for i, q := range d.queue {
			if q == op {
				d.queue = append(d.queue[:i], d.queue[i+1:]...)
				break
			}
		}
	}
	d.ops.remove(op)
	op.done, op.Err, op.DoneNs = true, err, nowNs
	took := nowNs - op.SubmitNs
	d.stats.Ops++
	d.stats.LongestStallNs = max(d.stats.LongestStallNs, took)
	switch {
	case err != nil:
		d.stats.Failed++
	case op.Kind == OpRead:
		d.stats.ReadBytes += uint64(len(op.Data))
	case op.Kind == OpWrite:
		d.stats.WrittenBytes += uint64(len(op.Data))
	}
	d.stats.Latency.Add(took)
	d.eff.Done = append(d.eff.Done, op)
}

// forget takes the commands of an operation from all lists.
func (d *Device) forget(op *Op) {
	for c := d.flight.head; c != nil; {
		next := c.next
		if c.op == op {
			d.land(c)
			d.recycle(c)
		}
		c = next
	}
	d.resend = d.forgetIn(d.resend, op)
	d.controls = d.forgetIn(d.controls, op)
	op.left = 0
}

func (d *Device) forgetIn(list []*command, op *Op) []*command {
	kept := list[:0]
	for _, c := range list {
		if c.op == op {
			d.recycle(c)
		} else {
			kept = append(kept, c)
		}
	}
	return kept
}

func (d *Device) newCommand(op *Op, kind OpKind) *command {
	var c *command
	if n := len(d.free); n > 0 {
		c, d.free = d.free[n-1], d.free[:n-1]
		*c = command{}
	} else {
		c = new(command)
	}
	c.op, c.kind = op, kind
	return c
}

func (d *Device) recycle(c *command) {
	c.op, c.data, c.path = nil, nil, nil
	d.free = append(d.free, c)
}

// land takes a command out of flight.
func (d *Device) land(c *command) {
	d.flight.remove(c)
	c.path.out--
}
