package bench

import (
	"encoding/binary"
	"fmt"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
)

const never = int64(1<<63 - 1)

// begin runs a phase to its end, or to the first failure. Operations in flight at the end stay there.
func (e *engine) begin(p phase) {
	if e.err != nil {
		return
	}
	now := e.clock()
	p.beganNs = now
	e.phase = p
	e.toldNs, e.toldOps = now, e.ops
	start := func(slots []slot) {
		for i := range slots {
			if op := &slots[i].op; op.SubmitNs == 0 || op.DoneNs != 0 { // else it is in flight from the phase before
				e.next(now, &slots[i])
			}
		}
	}
	for _, s := range e.sessions {
		switch {
		case p.fill:
			s.filledB = 0
			start(s.slots[:e.fillDepth()])
		case e.cfg.TotalDepth == 0:
			start(s.slots)
		}
	}
	if !p.fill {
		start(e.pool)
	}
	e.settle(now)
	for e.err == nil && e.clock() < p.endNs && !(p.fill && e.idle()) {
		e.step(p.endNs)
		if now = e.clock(); now-e.toldNs >= secondNs {
			e.tell(now)
			if e.stopped() {
				e.err = ErrStopped
			}
		}
	}
	e.phase.submit = false
}

// drain waits for the operations in flight and returns the error of the run.
func (e *engine) drain() error {
	e.phase.submit = false
	until := e.clock() + drainNs
	for !e.idle() && e.clock() < until {
		e.step(until)
	}
	if e.err == nil && !e.idle() {
		e.err = fmt.Errorf("bench: e%d.%d: operations were not answered within %d s after the end", e.cfg.Shelf, e.cfg.Slot, drainNs/secondNs)
	}
	return e.err
}

func (e *engine) idle() bool {
	for _, s := range e.sessions {
		if s.dev.Pending() > 0 {
			return false
		}
	}
	return true
}

// step takes what has arrived, lets timers fire, and sends what follows; with nothing to do it sleeps, at most until a time.
func (e *engine) step(untilNs int64) {
	got := e.receive()
	now := e.clock()
	if now >= e.wakeNs {
		e.tick(now)
	}
	e.settle(now)
	if got {
		return
	}
	if wait := min(e.wakeNs, untilNs) - e.clock(); wait > 0 {
		_, _ = e.poller.Wait(min(wait, secondNs)) // it looks again either way
	}
}

// receive hands one batch of every port to the sessions.
func (e *engine) receive() bool {
	got := false
	for i, p := range e.ports {
		n, err := p.Receive(e.rx)
		if err != nil && e.err == nil {
			e.err = fmt.Errorf("bench: %w", err)
		}
		if n == 0 {
			continue
		}
		got = true
		now := e.clock()
		for f := range e.rx[:n] {
			data := e.rx[f].Data
			if len(data) < aoe.HeaderBytes {
				continue
			}
			if s := e.sessionOf(data); s != nil {
				s.dev.Receive(now, i, data)
				e.mark(s)
			} else if data[0]&1 != 0 {
				for _, s := range e.sessions {
					s.dev.Receive(now, i, data)
					e.mark(s)
				}
			}
		}
	}
	return got
}

// sessionOf finds the session that a frame with a whole AoE header is for.
func (e *engine) sessionOf(frame []byte) *session {
	return e.byName[sessionName{aoe.MAC(frame[:6]), Volume{binary.BigEndian.Uint16(frame[16:]), frame[18]}}]
}

func (e *engine) mark(s *session) {
	if !s.dirty {
		s.dirty = true
		e.dirty = append(e.dirty, s)
	}
}

// tick lets the timers fire that are due.
func (e *engine) tick(now int64) {
	e.wakeNs = never
	for _, s := range e.sessions {
		if s.nextNs <= now {
			s.dev.Tick(now)
			e.mark(s)
		} else {
			e.wakeNs = min(e.wakeNs, s.nextNs)
		}
	}
}

// settle carries out what the sessions want, and begins a new operation for each that has ended, until nobody wants anything.
func (e *engine) settle(now int64) {
	for len(e.dirty) > 0 {
		for _, s := range e.dirty {
			s.dirty = false
			eff := s.dev.Take()
			for i := range eff.Frames {
				e.ports[eff.Frames[i].Interface].queue(&eff.Frames[i])
			}
			e.done = append(e.done, eff.Done...)
			s.nextNs = eff.NextTickNs
			e.wakeNs = min(e.wakeNs, s.nextNs)
		}
		e.dirty = e.dirty[:0]
		for _, p := range e.ports { // before any session is called again: the frames are views into them
			if err := p.flush(); err != nil && e.err == nil {
				e.err = fmt.Errorf("bench: %w", err)
			}
		}
		for _, op := range e.done {
			e.ended(now, op)
		}
		e.done = e.done[:0]
	}
}

// ended counts an operation and begins the next.
func (e *engine) ended(now int64, op *initiator.Op) {
	sl, ok := op.User.(*slot)
	if !ok {
		return // identify
	}
	if op.Err != nil {
		if e.err == nil {
			e.err = fmt.Errorf("bench: %v: %s of %d bytes at %d: %w", sl.session.volume, op.Kind, len(op.Data), op.LBA*initiator.SectorBytes, op.Err)
		}
		return
	}
	e.ops++
	if op.Kind == initiator.OpRead {
		e.reads++
	} else {
		e.writes++
	}
	e.latency.Add(op.DoneNs - op.SubmitNs)
	e.gapNs = max(e.gapNs, op.DoneNs-e.lastNs)
	e.lastNs = op.DoneNs
	if e.phase.submit && e.err == nil {
		e.next(now, sl)
	}
}

// next begins the next operation of a session in a free slot; none when a volume is filled.
func (e *engine) next(now int64, sl *slot) {
	if e.cfg.TotalDepth > 0 && !e.phase.fill {
		sl.session = e.sessions[e.turn]
		e.turn = (e.turn + 1) % len(e.sessions)
	}
	p, s, op := &e.phase, sl.session, &sl.op
	n := uint64(p.size)
	var at uint64
	switch {
	case p.fill:
		if s.filledB >= s.lengthB {
			return
		}
		n = min(n, s.lengthB-s.filledB)
		at = s.fromB + s.filledB
		s.filledB += n
	case p.random:
		at = below(s, e.spanBytes/n) * n
	default:
		if s.atB+n > s.lengthB {
			s.atB = 0
		}
		at = s.fromB + s.atB
		s.atB += n
	}
	op.Kind = initiator.OpWrite
	if p.op == Read || p.op == Mixed && int(below(s, 100)) < e.cfg.ReadPercent {
		op.Kind = initiator.OpRead
	}
	op.Data, op.LBA = sl.buf[:n], e.at(at)/initiator.SectorBytes
	if op.Kind == initiator.OpWrite {
		for i := 0; i < int(n); i += 4096 {
			s.stamp++
			binary.LittleEndian.PutUint64(op.Data[i:], s.stamp)
		}
	}
	op.DeadlineNs = now + e.cfg.TimeoutNs
	e.submit(s, now, op)
}

// at returns where something is in the volume that is at b in the span.
func (e *engine) at(b uint64) uint64 {
	if e.strideBytes == 0 {
		return e.cfg.StartBytes + b
	}
	size := uint64(e.cfg.SizeBytes)
	place := b / size
	return e.cfg.StartBytes + place*e.strideBytes + mix(place)%(e.strideBytes/size)*size + b%size
}

// mix makes a number that looks like chance of one that does not: the end of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (e *engine) submit(s *session, now int64, op *initiator.Op) {
	s.dev.Submit(now, op)
	e.mark(s)
}

func below(s *session, n uint64) uint64 { return s.rng.Uint64() % max(n, 1) }

// tell reports progress.
func (e *engine) tell(now int64) {
	p := &e.phase
	if e.cfg.Tell != nil {
		out := Progress{Phase: p.name, Seconds: float64(now-p.beganNs) / 1e9, Ops: e.ops - e.toldOps,
			IOPS: float64(e.ops-e.toldOps) / (float64(now-e.toldNs) / 1e9)}
		if p.fill {
			var filled uint64
			for _, s := range e.sessions {
				filled += s.filledB
			}
			out.Done = float64(filled) / float64(e.spanBytes*uint64(len(e.sessions)/len(e.cfg.MACs)))
		} else if p.endNs > p.beganNs {
			out.Done = min(1, float64(now-p.beganNs)/float64(p.endNs-p.beganNs))
		}
		e.cfg.Tell(out)
	}
	e.toldNs, e.toldOps = now, e.ops
}

// queue keeps a frame for the next flush.
func (p *port) queue(f *initiator.Frame) {
	p.tx = append(p.tx, link.TxFrame{Header: f.Header})
	p.payloads = append(p.payloads, f.Payload)
}

// flush sends what is queued. What the port does not take is lost like any frame on the way.
func (p *port) flush() error {
	if len(p.tx) == 0 {
		return nil
	}
	for i := range p.tx {
		if len(p.payloads[i]) > 0 {
			p.tx[i].Payload = p.payloads[i : i+1]
		}
	}
	_, err := p.Send(p.tx)
	p.tx, p.payloads = p.tx[:0], p.payloads[:0]
	return err
}
