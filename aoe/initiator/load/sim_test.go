package load

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"clade/aoe"
	"clade/aoe/initiator"
)

// fabric is a target with one register per sector behind a network that loses,
// duplicates, delays and reorders, in one goroutine and simulated time.
type fabric struct {
	x          uint64
	now        int64
	disk       []byte
	wire       []packet
	loss, dup  uint64 // percent
	silentFrom int64  // the target answers nothing and executes nothing in between
	silentTo   int64

	// Faults that the checker has to find.
	loseWrites bool // some answered writes are not executed
	undoLate   bool // writes are executed again long after
	staleReads bool // some reads return what was there before the last write
	previous   []byte
	later      []packet
}

type packet struct {
	at    int64
	seq   uint64 // order of equal times
	to    int    // device; -1 = the target
	frame []byte
}

const millisecond = int64(1e6)

var serving = aoe.MAC{2, 0xae, 0, 0, 0, 1}

func (f *fabric) below(n uint64) uint64 { f.x++; return mix(f.x*0x9e37) % n }

func (f *fabric) send(to int, frame []byte) {
	copies := 1
	if f.below(100) < f.dup {
		copies = 2
	}
	for range copies {
		if f.below(100) < f.loss {
			continue
		}
		delay := 50_000 + int64(f.below(400_000))
		if f.below(50) == 0 {
			delay += int64(f.below(300)) * millisecond // stuck in a queue
		}
		f.x++
		f.wire = append(f.wire, packet{f.now + delay, f.x, to, slices.Clone(frame)})
	}
}

// next takes the first packet that is due by a time.
func (f *fabric) next(until int64) (packet, bool) {
	best := -1
	for i := range f.wire {
		if f.wire[i].at <= until && (best < 0 || f.wire[i].at < f.wire[best].at || f.wire[i].at == f.wire[best].at && f.wire[i].seq < f.wire[best].seq) {
			best = i
		}
	}
	if best < 0 {
		return packet{}, false
	}
	p := f.wire[best]
	f.wire = slices.Delete(f.wire, best, best+1)
	return p, true
}

// serve executes a request at its arrival and returns the answer.
func (f *fabric) serve(req []byte) []byte {
	if f.now >= f.silentFrom && f.now < f.silentTo {
		return nil
	}
	r := slices.Clone(req[:min(len(req), 36)])
	copy(r, req[6:12])
	copy(r[6:], serving[:])
	r[14] |= 8
	if req[19] == 1 {
		binary.BigEndian.PutUint16(r[16:], 7)
		r[18] = 1
		return append(r[:24], 0, 16, 0, 1, 2, 0x10, 0, 0)
	}
	var l [8]byte
	copy(l[:6], req[28:34])
	at := binary.LittleEndian.Uint64(l[:]) * SectorBytes
	n := uint64(req[26]) * SectorBytes
	r[27] = 0x40
	switch req[27] {
	case 0x24:
		if f.staleReads && f.below(40) == 0 {
			return append(r, f.previous[at:at+n]...)
		}
		return append(r, f.disk[at:at+n]...)
	case 0x34:
		if f.undoLate && f.below(40) == 0 {
			f.x++
			f.later = append(f.later, packet{at: f.now + 700*millisecond, seq: f.x, frame: slices.Clone(req)})
		}
		if f.loseWrites && f.below(60) == 0 {
			return r
		}
		copy(f.previous[at:at+n], f.disk[at:at+n])
		copy(f.disk[at:at+n], req[36:36+n])
	}
	return r
}

// execute does again what a faulty target kept.
func (f *fabric) executeLate() {
	kept := f.later[:0]
	for _, p := range f.later {
		if p.at > f.now {
			kept = append(kept, p)
			continue
		}
		var l [8]byte
		copy(l[:6], p.frame[28:34])
		copy(f.disk[binary.LittleEndian.Uint64(l[:])*SectorBytes:], p.frame[36:])
	}
	f.later = kept
}

// clients are the initiators before a fabric: each keeps two operations going
// until endNs.
type clients struct {
	f        *fabric
	rec      *Recorder
	devs     []*initiator.Device
	loads    []*Workload
	nexts    []int64 // when each wants its tick
	endNs    int64
	answered int
}

func (c *clients) submit(i int) {
	o := c.loads[i].Next()
	op := &initiator.Op{Kind: initiator.OpRead, LBA: o.LBA, Data: make([]byte, o.Sectors*SectorBytes), DeadlineNs: c.f.now + 20_000*millisecond}
	if o.Write {
		op.Kind = initiator.OpWrite
		Fill(op.Data, o.Value, o.LBA)
	}
	op.User = c.rec.Begin(c.f.now, i, o.Write, o.LBA, o.Sectors, o.Value)
	c.devs[i].Submit(c.f.now, op)
}

// take carries out what a device wants, and starts anew what is done.
func (c *clients) take(i int) {
	e := c.devs[i].Take()
	for _, fr := range e.Frames {
		c.f.send(-1, slices.Concat(fr.Header, fr.Payload))
	}
	c.nexts[i] = e.NextTickNs
	done := slices.Clone(e.Done)
	for _, op := range done {
		status := StatusOf(op.Err)
		c.rec.End(c.f.now, op.User.(*Record), status, op.Data)
		if status == OK {
			c.answered++
		}
		if c.f.now < c.endNs {
			c.submit(i)
		}
	}
	if len(done) > 0 {
		c.take(i)
	}
}

// deliver hands over one packet.
func (c *clients) deliver(p packet) {
	f := c.f
	if p.to >= 0 {
		c.devs[p.to].Receive(f.now, 0, p.frame)
		c.take(p.to)
		return
	}
	if f.now < f.silentFrom || f.now >= f.silentTo {
		c.rec.Delivered(f.now, aoe.MAC(p.frame[6:12]), binary.BigEndian.Uint32(p.frame[20:]))
	}
	if r := f.serve(p.frame); r != nil {
		f.send(int(r[5])-1, r)
	}
}

// simulate runs devices against the fabric for a simulated time, and then until
// all is done. It returns the history, the devices' counters and how many
// operations were answered.
func simulate(seed uint64, f *fabric, mode initiator.Mode, forNs int64) (*Recorder, []initiator.Stats, int) {
	const sectors = 24
	f.x = seed
	f.disk, f.previous = make([]byte, sectors*SectorBytes), make([]byte, sectors*SectorBytes)
	f.now = 1000 * millisecond
	c := &clients{f: f, rec: NewRecorder(true), nexts: make([]int64, 4), endNs: f.now + forNs}
	for i := range c.nexts {
		mac := aoe.MAC{2, 0, 0, 0, 0, byte(i + 1)}
		c.devs = append(c.devs, initiator.NewDevice(initiator.Config{MAC: mac, Shelf: 7, Slot: 1, Mode: mode,
			OnSend: func(sent initiator.Copy) { c.rec.Sent(mac, sent) }}))
		c.loads = append(c.loads, NewWorkload(WorkloadConfig{Sectors: sectors, MaxSectors: 6, HotSectors: 4}, i, seed))
		c.submit(i)
		c.submit(i)
		c.take(i)
	}
	for last := c.endNs + 30_000*millisecond; f.now < last; {
		wake := slices.Min(c.nexts)
		for _, p := range f.wire {
			wake = min(wake, p.at)
		}
		if wake > last {
			break
		}
		f.now = max(f.now, wake)
		f.executeLate()
		for p, ok := f.next(f.now); ok; p, ok = f.next(f.now) {
			c.deliver(p)
		}
		for i := range c.devs {
			if c.nexts[i] <= f.now {
				c.devs[i].Tick(f.now)
				c.take(i)
			}
		}
	}
	var stats []initiator.Stats
	for _, d := range c.devs {
		stats = append(stats, d.Stats(f.now))
	}
	return c.rec, stats, c.answered
}

func TestInitiatorsAgainstAFaultyNetwork(t *testing.T) {
	for _, mode := range []initiator.Mode{initiator.ModeLibrary, initiator.ModeLinux} {
		for seed := uint64(1); seed <= 3; seed++ {
			t.Run(fmt.Sprintf("mode %d seed %d", mode, seed), func(t *testing.T) {
				f := &fabric{loss: 3, dup: 3, silentFrom: 1800 * millisecond, silentTo: 2300 * millisecond}
				rec, stats, answered := simulate(seed, f, mode, 2000*millisecond)
				if answered < 100 {
					t.Fatalf("only %d operations were answered", answered)
				}
				res := Check(rec.Records(), Options{DeliveriesKnown: true})
				if err := res.Err(); err != nil {
					t.Fatalf("%v: %v", res.Verdict, err)
				}
				for i, s := range stats {
					if s.Resent == 0 || s.Failed > 0 {
						t.Errorf("device %d: %d retransmissions and %d failures with 3 %% loss", i, s.Resent, s.Failed)
					}
					if mode == initiator.ModeLibrary && s.LongestStallNs > 3000*millisecond {
						t.Errorf("device %d stalled for %d ms after 500 ms of silence", i, s.LongestStallNs/millisecond)
					}
				}
			})
		}
	}
}

func TestCheckerFindsFaultyTargets(t *testing.T) {
	for name, fault := range map[string]func(f *fabric){
		"loses answered writes":       func(f *fabric) { f.loseWrites = true },
		"executes a write again late": func(f *fabric) { f.undoLate = true },
		"returns stale data":          func(f *fabric) { f.staleReads = true },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fabric{loss: 1, dup: 1}
			fault(f)
			rec, _, _ := simulate(5, f, initiator.ModeLibrary, 2000*millisecond)
			if res := Check(rec.Records(), Options{DeliveriesKnown: true}); res.Verdict != Violated {
				t.Fatalf("a target that %s is found %v", name, res.Verdict)
			}
		})
	}
}

func TestSimulationIsDeterministic(t *testing.T) {
	run := func() string {
		rec, stats, n := simulate(11, &fabric{loss: 5, dup: 5}, initiator.ModeLibrary, 300*millisecond)
		out := fmt.Sprint(n)
		for _, s := range stats {
			out += fmt.Sprintf(" %d %d %d", s.FramesSent, s.Resent, s.LongestStallNs)
		}
		for _, r := range rec.Records() {
			out += fmt.Sprint(*r)
		}
		return out
	}
	first, second := run(), run()
	if first != second {
		t.Fatal("two runs of one seed differ")
	}
}
