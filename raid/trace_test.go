package raid_test

import (
	"fmt"
	"slices"
	"testing"

	. "clade/raid"
	"clade/raid/raidtest"
)

// A trace is a scripted history: the story that docs/protocol.md, part B, tells for one rule, with the few messages, proposals
// and reads that matter held back or lost. It must end well; a build in which the rule is switched off must not survive it
// (TestMutations).
//
// The stories happen to a volume RS(2+1) with 4 KiB units on the disks A, B and C: in region 0, which is all they use, A holds
// the even blocks of the volume, B the odd ones, and C the parity.
type trace struct {
	t        testing.TB
	now      int64
	v        *Volume
	versions []*Volume
	disks    []*raidtest.Disk
	gone     DiskSet
	owners   []*tracedOwner
	tokens   uint64
	pace     *Pace        // of all owners; nil: each has its own
	want     map[int]byte // by block: what the last acknowledged write left there
}

const (
	diskA DiskID = iota + 1
	diskB
	diskC
)

// tracedOwner is one owner incarnation, its connections, and what the story keeps from it.
type tracedOwner struct {
	tr      *trace
	o       *Owner
	seen    int
	wires   map[DiskID]*wire
	held    func(*DiskRequest) bool // does not arrive for now, nor what its stream carries after it
	mute    func(*DiskReply) bool   // does not come back for now
	shelve  func(VolumeCommand) bool
	pending []VolumeCommand // proposed, not applied
	done    map[uint64]Completion
	forward []RolledForward
	events  []OwnerEvent
	over    bool // the process is gone
}

type wire struct {
	reqs    []*DiskRequest
	replies []*DiskReply
}

func newTrace(t testing.TB, l Layout) *trace {
	tr := &trace{t: t, now: second, want: map[int]byte{}}
	v := &Volume{ID: 7, Layout: l, Size: uint64(l.K) * 2 * RegionBytes}
	x := Extent{Regions: 2}
	for i := range l.Width() {
		d := DiskID(i + 1)
		tr.disks = append(tr.disks, raidtest.New(d))
		v.Members = append(v.Members, Member{Disk: d, InSync: true})
		x.Shards = append(x.Shards, Placement{Disk: d, Gen: 1})
	}
	v.Extents = []Extent{x}
	tr.v, tr.versions = v, []*Volume{v}
	return tr
}

// newTrace21 is the volume of the stories.
func newTrace21(t testing.TB) *trace { return newTrace(t, Layout{K: 2, M: 1, UnitBytes: 4096}) }

func (tr *trace) disk(d DiskID) *raidtest.Disk { return tr.disks[d-1] }

func (tr *trace) set(v *Volume) { tr.v, tr.versions = v, append(tr.versions, v) }

// takeover makes the next owner, which meets all disks that are not gone. It does not run yet.
func (tr *trace) takeover() *tracedOwner {
	v := tr.v.Clone()
	v.Epoch++
	v.Owner, v.OwnerTerm, v.Active = NodeID(v.Epoch), 1, false
	v.Ver++
	tr.set(v)
	w := &tracedOwner{tr: tr, seen: len(tr.versions), wires: map[DiskID]*wire{}, done: map[uint64]Completion{}}
	w.o = NewOwner(OwnerConfig{Node: v.Owner, Seed: uint64(v.Epoch), CacheBytes: 1 << 18, Pace: tr.pace}, v, tr.now)
	tr.owners = append(tr.owners, w)
	for _, m := range tr.disks {
		if !tr.gone.Has(m.ID()) {
			w.connect(m.ID())
		}
	}
	w.o.NodeAlive(tr.now, v.Disks().Minus(tr.gone))
	return w
}

// serve is a takeover that becomes active at once.
func (tr *trace) serve() *tracedOwner {
	w := tr.takeover()
	tr.run()
	if w.o.State() != OwnerActive {
		tr.t.Fatalf("epoch %d does not become active: %+v", tr.v.Epoch, w.o.Status())
	}
	return w
}

func (w *tracedOwner) connect(d DiskID) {
	w.wires[d] = &wire{}
	w.o.Connected(w.tr.now, d, true)
}

// cut breaks an owner's connection to a disk; what was on it is lost.
func (w *tracedOwner) cut(d DiskID) {
	if w.wires[d] != nil {
		delete(w.wires, d)
		w.o.Connected(w.tr.now, d, false)
	}
}

// kill ends an owner's process; what it had sent is lost, what it has proposed is not.
func (w *tracedOwner) kill() { w.over, w.wires = true, nil }

// lose takes a disk away from everybody, together with its node; restore brings it back.
func (tr *trace) lose(d DiskID) {
	tr.gone = tr.gone.With(d)
	for _, w := range tr.owners {
		if !w.over {
			w.cut(d)
			w.o.NodeDead(tr.now, DiskSet{d})
		}
	}
}

func (tr *trace) restore(d DiskID) {
	tr.gone = tr.gone.Without(d)
	for _, w := range tr.owners {
		if !w.over && w.wires[d] == nil {
			w.connect(d)
		}
	}
}

// turn lets an owner work, and takes its effects to where they go.
func (w *tracedOwner) turn() (moved bool) {
	w.o.Tick(w.tr.now)
	fx := w.o.Take()
	for _, r := range fx.Requests {
		if l := w.wires[r.Disk]; l != nil {
			l.reqs = append(l.reqs, r)
			moved = true
		}
	}
	w.pending = append(w.pending, fx.Proposals...)
	w.forward = append(w.forward, fx.Forward...)
	w.events = append(w.events, fx.Events...)
	for _, d := range fx.Done {
		d.Data = slices.Clone(d.Data) // the effects are used again
		if _, ok := w.done[d.Token]; ok {
			w.tr.t.Fatalf("token %d ended twice", d.Token)
		}
		w.done[d.Token] = d
	}
	return moved || len(fx.Proposals)+len(fx.Done) > 0
}

// ordered reports whether a request keeps its place in the stream: Prepare, Commit and Fill do, and what opens it (A.4.2).
func ordered(r *DiskRequest) bool {
	return r.Kind != ReqRead && r.Kind != ReqRegions && r.Kind != ReqVerify
}

func (w *tracedOwner) carry(d DiskID) (moved bool) {
	l := w.wires[d]
	if l == nil || w.tr.gone.Has(d) {
		return false
	}
	var rest []*DiskRequest
	stopped := false
	for _, r := range l.reqs {
		if stopped || w.held != nil && w.held(r) {
			rest = append(rest, r)
			stopped = stopped || ordered(r)
			continue
		}
		if rep := w.tr.disk(d).Handle(r); rep != nil {
			l.replies = append(l.replies, rep)
		}
		moved = true
	}
	l.reqs = rest
	replies := l.replies
	l.replies = nil
	for i, r := range replies {
		if w.mute != nil && w.mute(r) {
			l.replies = append(l.replies, replies[i])
			continue
		}
		w.o.Reply(w.tr.now, r)
		moved = true
	}
	return moved
}

// run lets everything happen that can without time passing.
func (tr *trace) run() {
	for moved, n := true, 0; moved; n++ {
		if n == 10000 {
			tr.t.Fatalf("the trace does not come to rest")
		}
		moved = false
		for _, w := range tr.owners {
			if !w.over {
				moved = w.turn() || moved
				for _, m := range tr.disks {
					moved = w.carry(m.ID()) || moved
				}
			}
			moved = w.apply() || moved
		}
		for _, w := range tr.owners {
			for ; !w.over && w.seen < len(tr.versions); w.seen++ {
				w.o.SetVolume(tr.now, tr.versions[w.seen])
				moved = true
			}
		}
	}
}

// apply commits an owner's proposals in Raft, in order, but for those that the story keeps.
func (w *tracedOwner) apply() (moved bool) {
	todo := w.pending
	w.pending = nil
	for _, c := range todo {
		if w.shelve != nil && w.shelve(c) {
			w.pending = append(w.pending, c)
			continue
		}
		moved = true
		if v, err := w.tr.v.Apply(c); err == nil {
			w.tr.set(v)
		}
	}
	return moved
}

// pass lets time pass, ten milliseconds at a time.
func (tr *trace) pass(ns int64) {
	for end := tr.now + ns; tr.now < end; {
		tr.now += 10 * ms
		tr.run()
	}
}

// until lets time pass until something is so; a second minute is too long for anything.
func (tr *trace) until(what string, ok func() bool) {
	for end := tr.now + 60*second; !ok(); {
		if tr.pass(10 * ms); tr.now > end {
			tr.t.Fatalf("not after a minute: %s", what)
		}
	}
}

// applyOn lets a disk write in place what it knows to be committed.
func (tr *trace) applyOn(d DiskID) {
	for range 100 {
		tr.disk(d).ApplyOne()
	}
}

func (tr *trace) inSync(disks ...DiskID) bool {
	return slices.Equal(tr.v.InSync(), NewDiskSet(disks...))
}

// begin admits a write of one whole block.
func (w *tracedOwner) begin(block int, val byte) uint64 {
	w.tr.tokens++
	w.o.Write(w.tr.now, &IO{Token: w.tr.tokens, Offset: uint64(block) * BlockBytes, Bytes: BlockBytes, Data: slices.Repeat([]byte{val}, BlockBytes),
		Req: ReqHeader{AgeUs: uint32(val)}})
	return w.tr.tokens
}

// acked reports whether a write has been answered.
func (w *tracedOwner) acked(token uint64) bool { return w.done[token].Kind == DoneWrite }

// write writes a block and lets everything happen but time: it must be answered.
func (w *tracedOwner) write(block int, val byte) {
	token := w.begin(block, val)
	w.tr.run()
	w.mustAck(token, block, val)
}

func (w *tracedOwner) mustAck(token uint64, block int, val byte) {
	if !w.acked(token) {
		w.tr.t.Fatalf("the write of %d to block %d is not answered: %+v", val, block, w.o.Status())
	}
	w.tr.want[block] = val
}

// read returns a block's value if the read is answered without time passing.
func (w *tracedOwner) read(block int) (val byte, answered bool) {
	w.tr.tokens++
	id := w.tr.tokens
	w.o.Read(w.tr.now, &IO{Token: id, Offset: uint64(block) * BlockBytes, Bytes: BlockBytes})
	w.tr.run()
	return w.answer(id)
}

// mustRead reads a block without time passing; what was seen there once has to stay.
func (w *tracedOwner) mustRead(block int, want byte) {
	if got, ok := w.read(block); !ok || got != want {
		w.tr.t.Fatalf("block %d reads as %d (answered: %v), not %d: %+v", block, got, ok, want, w.o.Status())
	}
	w.tr.want[block] = want
}

func (w *tracedOwner) answer(token uint64) (val byte, answered bool) {
	d := w.done[token]
	switch d.Kind {
	case DoneRead:
		b := slices.Concat(d.Data...)
		for _, c := range b {
			if c != b[0] {
				w.tr.t.Fatalf("a block reads as a mix of %d and %d", b[0], c)
			}
		}
		return b[0], true
	case DoneUnreadable:
		w.tr.t.Fatalf("unreadable")
	}
	return 0, false
}

// heal ends all faults. In a minute everything is in-sync; every acknowledged write is there, and parities fit.
func (tr *trace) heal() {
	for _, d := range tr.gone {
		tr.restore(d)
	}
	var w *tracedOwner
	for _, w = range tr.owners {
		w.held, w.mute, w.shelve = nil, nil, nil
	}
	for _, old := range tr.owners[:len(tr.owners)-1] {
		old.kill()
	}
	if w.over || w.o.State() == OwnerDead {
		w.kill()
		w = tr.takeover()
	}
	for _, m := range tr.disks {
		if w.wires[m.ID()] == nil {
			w.connect(m.ID())
		}
	}
	tr.until(fmt.Sprintf("all disks are in-sync and serve (%v)", tr.v.Disks()), func() bool {
		return w.o.State() == OwnerActive && tr.inSync(tr.v.Disks()...) && w.o.Admitting()
	})
	tr.check(w)
}

// check reads every acknowledged write back, and compares data and parity of every row on the disks.
func (tr *trace) check(w *tracedOwner) {
	for block := range 64 {
		want, ok := tr.want[block]
		if got, answered := w.read(block); ok && (!answered || got != want) {
			tr.t.Fatalf("block %d reads as %d (answered: %v), the last acknowledged write there was %d", block, got, answered, want)
		}
	}
	parityFits(tr.t, tr.v, tr.disks, w.o.Status().Commit)
}

// TestTraces tells every story with all rules in force.
func TestTraces(t *testing.T) {
	for _, s := range stories {
		t.Run(s.rule, func(t *testing.T) { s.tell(t) })
	}
}
