package sim

import (
	"slices"

	"clade/aoe"
	"clade/aoe/initiator"
)

// client is one initiator host: a port on each SAN path and a session with each volume. Its clock is the true time.
type client struct {
	w        *world
	index    int // 1..
	shape    initiatorShape
	mac      aoe.MAC
	rnd      random
	ports    []*etherPort
	sessions []*session
	writes   uint64 // write numbers given out
	sets     uint64
}

// session is a client's use of one volume.
type session struct {
	c         *client
	vol       volumeShape
	dev       *initiator.Device
	hot       []uint64        // sectors around which it works
	out       []*initiator.Op // in order of submission
	done      int
	stopped   bool
	wakeNs    int64
	scheduled bool
	identity  int // operations until the next IDENTIFY
}

func newClient(w *world, index int, s initiatorShape) *client {
	c := &client{w: w, index: index, shape: s, mac: aoe.MAC{0x02, 0x1A, 0, 0, 0, byte(index)}, rnd: newRandom(w.shape.seed, "client"+string(rune('0'+index)))}
	for p := range w.shape.paths {
		c.ports = append(c.ports, w.switches[p].plug("initiator", func(dst aoe.MAC) bool { return dst == c.mac || dst == broadcastMAC },
			func(frame []byte) { c.receive(p, frame) }))
	}
	for _, v := range w.shape.volumes {
		mtus := make([]int, w.shape.paths)
		for i := range mtus {
			mtus[i] = s.mtu
		}
		se := &session{c: c, vol: v, dev: initiator.NewDevice(initiator.Config{
			MAC: c.mac, Shelf: simShelf, Slot: v.slot, Mode: s.mode, MTUs: mtus, TagSeed: uint32(index)<<16 | uint32(v.slot)<<8,
			IgnoreErrors: s.mode == initiator.ModeLinux, DiscoverEachNs: 500 * ms,
		})}
		sectors := uint64(v.sizeMiB) << 20 / sectorBytes
		for range s.hot {
			// Places are shared between initiators, or no two would ever meet.
			se.hot = append(se.hot, newRandom(w.shape.seed, "hot").Uint64N(sectors)+uint64(c.rnd.IntN(4))*sectors/7)
		}
		c.sessions = append(c.sessions, se)
	}
	return c
}

// start begins the load.
func (c *client) start() {
	for _, s := range c.sessions {
		s.dev.Discover(c.w.sched.nowNs)
		s.pump()
		for range c.shape.depth {
			s.later(s.submit)
		}
	}
}

// stop submits nothing more; what is out goes on until it is answered.
func (c *client) stop() {
	for _, s := range c.sessions {
		s.stopped = true
	}
}

func (c *client) receive(path int, frame []byte) {
	if frameType(frame) != etherTypeAoE || len(frame) < 24 {
		return
	}
	for _, s := range c.sessions {
		if frame[offSlot] == s.vol.slot {
			s.dev.Receive(c.w.sched.nowNs, path, frame)
			s.pump()
		}
	}
}

// later runs f after a think time.
func (s *session) later(f func()) { s.c.w.sched.after(s.c.rnd.delay(s.c.shape.thinkNs), f) }

// pump carries out what the device wants.
func (s *session) pump() {
	fx := s.dev.Take()
	now := s.c.w.sched.nowNs
	for _, f := range fx.Frames {
		b := make([]byte, 0, len(f.Header)+len(f.Payload))
		b = append(append(b, f.Header...), f.Payload...)
		s.c.w.tl.mix(now, colClient, 'f', b)
		s.c.ports[f.Interface].send(b)
	}
	done := append([]*initiator.Op(nil), fx.Done...)
	s.wake(fx.NextTickNs)
	for _, op := range done {
		s.finished(op)
	}
}

// wake makes sure that the device is ticked in time.
func (s *session) wake(at int64) {
	now := s.c.w.sched.nowNs
	at = max(at, now+10*us)
	if at >= forever || s.scheduled && s.wakeNs <= at {
		return
	}
	s.wakeNs, s.scheduled = at, true
	s.c.w.sched.at(at, func() {
		if s.wakeNs != at {
			return
		}
		s.scheduled = false
		s.dev.Tick(s.c.w.sched.nowNs)
		s.pump()
	})
}

// submit starts one more operation.
func (s *session) submit() {
	if s.stopped {
		return
	}
	s.begin(s.choose())
}

func (s *session) begin(op *initiator.Op) {
	s.out = append(s.out, op)
	s.dev.Submit(s.c.w.sched.nowNs, op)
	s.pump()
}

func (s *session) choose() *initiator.Op {
	c, r := s.c, s.c.rnd
	if r.chance(c.shape.control) && c.sets < setsMax {
		return s.chooseControl()
	}
	s.identity--
	if s.identity < 0 && c.shape.mode != initiator.ModeLinux {
		s.identity = 200
		return &initiator.Op{Kind: initiator.OpIdentify, Data: make([]byte, sectorBytes)}
	}
	sectors := uint64(s.vol.sizeMiB) << 20 / sectorBytes
	n := uint64(1 + r.IntN(c.shape.sectorsMax))
	lba := s.hot[r.IntN(len(s.hot))] + uint64(r.IntN(16))
	if r.chance(0.5) { // like a file system: whole 4 KiB blocks
		lba, n = lba&^7, (n+7)&^7
	}
	lba %= sectors
	n = min(n, sectors-lba)
	op := &initiator.Op{Kind: initiator.OpRead, LBA: lba, Data: make([]byte, n*sectorBytes)}
	if !r.chance(c.shape.reads) {
		op.Kind = initiator.OpWrite
		c.writes++
		value := uint64(c.index)<<48 | c.writes
		for i := range n {
			fillSector(op.Data[i*sectorBytes:(i+1)*sectorBytes], value, uint64(s.vol.slot), lba+i)
		}
	}
	return op
}

// setsMax bounds the control requests of one initiator: a target remembers 64 of them for a minute and more, and is silent to
// further ones (B: C20).
const setsMax = 40

func (s *session) chooseControl() *initiator.Op {
	c, r := s.c, s.c.rnd
	c.sets++
	text := []byte{'i', byte('0' + c.index), '#', byte('0' + c.sets/100%10), byte('0' + c.sets/10%10), byte('0' + c.sets%10)}
	body := func(b []byte, err error) []byte {
		if err != nil {
			panic(err)
		}
		return b
	}
	// Requests time out, as tools do; the target may have carried them out all the same.
	deadline := c.w.sched.nowNs + r.between(1, 5)*second
	op := &initiator.Op{Kind: initiator.OpConfig, DeadlineNs: deadline}
	switch r.IntN(10) {
	case 8, 9:
		op.Kind = initiator.OpMask
		op.Request = body(initiator.MaskRequest(s.chooseMask()))
	case 0, 1:
		op.Request = body(initiator.ConfigRequest(initiator.ConfigRead, nil))
	case 2, 3:
		op.Request = body(initiator.ConfigRequest(initiator.ConfigSet, text))
	case 4:
		if r.chance(0.5) {
			text = nil
		}
		op.Request = body(initiator.ConfigRequest(initiator.ConfigForceSet, text))
	case 5:
		op.Kind = initiator.OpReserve
		op.Request = body(initiator.ReserveRequest(initiator.ReserveRead, nil))
	case 6:
		op.Kind = initiator.OpReserve
		list := []aoe.MAC{c.mac}
		op.Request = body(initiator.ReserveRequest(pick(r, initiator.ReserveSet, initiator.ReserveForceSet), list))
	case 7:
		op.Kind = initiator.OpReserve
		op.Request = body(initiator.ReserveRequest(pick(r, initiator.ReserveSet, initiator.ReserveForceSet), nil))
	}
	return op
}

// chooseMask edits the mask so that some are shut out for a while: somebody who is not then lets all in again.
func (s *session) chooseMask() []initiator.MaskDirective {
	c, r := s.c, s.c.rnd
	var list []initiator.MaskDirective
	kind := r.IntN(4)
	for _, o := range c.w.clients {
		switch {
		case kind == 0: // only reads
		case kind == 1 && o != c:
		case kind == 3 && r.chance(0.5):
		default:
			list = append(list, initiator.MaskDirective{MAC: o.mac, Delete: kind > 1 && r.chance(0.6)})
		}
	}
	if len(list) > 0 {
		c.w.count.hit("mask edit")
		c.w.sched.after(r.between(50, 600)*ms, func() { c.w.operator.clearMask(s.vol.slot) })
	}
	return list
}

// release asks for an empty reservation, so that everybody's load can finish.
func (s *session) release() {
	b, err := initiator.ReserveRequest(initiator.ReserveForceSet, nil)
	if err != nil {
		panic(err)
	}
	s.begin(&initiator.Op{Kind: initiator.OpReserve, Request: b})
}

func (s *session) finished(op *initiator.Op) {
	s.out = slices.DeleteFunc(s.out, func(o *initiator.Op) bool { return o == op })
	s.done++
	s.c.w.stats.ops++
	if op.Kind == initiator.OpRead && op.Err == nil {
		for i := range op.Sectors() {
			if readSector(op.Data[i*sectorBytes:(i+1)*sectorBytes], uint64(s.vol.slot), op.LBA+uint64(i)) == valueTorn {
				s.c.w.fail("initiator %d read a torn sector %d of slot %d", s.c.index, op.LBA+uint64(i), s.vol.slot)
				return
			}
		}
	}
	if !s.stopped {
		s.later(s.submit)
	}
}
