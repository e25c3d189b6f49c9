package cluster

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
	"clade/raid/raidtest"
	"clade/store/raftlog"
)

// lab runs a few nodes in one goroutine and in virtual time: plain disks that sync at once, links that take 100 µs and keep
// their order, one SAN that floods every frame to whoever has joined its destination. Nothing in it is random.
type lab struct {
	t     testing.TB
	now   int64
	boxes []*box
	queue events
	order int
	cut   map[[2]raid.NodeID]bool
	air   []heard
	stas  []*station
	calls map[uint64]*AdminReply
	next  uint64
	group membership.GroupOptions
}

const (
	labShelf  = 7
	linkNs    = ms / 10
	diskNs    = ms / 5
	wireNs    = ms / 50
	labSpanNs = 20 * second
)

var labCluster = membership.UUID{'l', 'a', 'b'}

// heard is a frame that a node has sent.
type heard struct {
	atNs  int64
	from  raid.NodeID
	frame []byte
}

type event struct {
	atNs  int64
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].atNs < e[j].atNs || e[i].atNs == e[j].atNs && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// box is a machine: what is durable on it, and the process that runs there now.
type box struct {
	lab      *lab
	id       raid.NodeID
	witness  bool
	mac      aoe.MAC
	node     *Node // nil: no process runs
	life     int   // counts processes
	log      *raftlog.Memory
	fileTerm raid.Term
	revoked  []membership.Revoked
	disks    []raid.DiskID
	pulled   bool // its disks are gone
	volumes  map[volumeAt]*raidtest.Disk
	joined   []aoe.MAC
	carrier  bool
	mute     bool // its transmitter is dead, and nothing says so
	paused   bool
	stallNs  int64 // once: stop for so long between the next inputs and their Ready
	held     []func()
	tickNs   int64
	events   []Event
	conns    []raid.NodeID
}

type volumeAt struct {
	disk raid.DiskID
	vol  raid.VolumeID
}

// newLab makes boxes 1..n; those named are witnesses. No process runs yet.
func newLab(t testing.TB, n int, witnesses ...raid.NodeID) *lab {
	l := &lab{t: t, now: second, cut: map[[2]raid.NodeID]bool{}, calls: map[uint64]*AdminReply{}}
	for i := range n {
		id := raid.NodeID(i + 1)
		l.boxes = append(l.boxes, &box{lab: l, id: id, witness: slices.Contains(witnesses, id), mac: aoe.MAC{2, 0xEE, 0, 0, 0, byte(id)},
			log: raftlog.NewMemory(), volumes: map[volumeAt]*raidtest.Disk{}, carrier: true})
	}
	if err := l.boxes[0].log.Write(raftlog.Batch{Snapshot: membership.Bootstrap(1)}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) after(ns int64, do func()) {
	l.order++
	heap.Push(&l.queue, event{l.now + ns, l.order, do})
}

// run lets time pass until done says so; it reports whether it did.
func (l *lab) run(ns int64, done func() bool) bool {
	until := l.now + ns
	for len(l.queue) > 0 && l.queue[0].atNs <= until {
		if done != nil && done() {
			return true
		}
		e := heap.Pop(&l.queue).(event)
		l.now = e.atNs
		e.do()
	}
	if done != nil && done() {
		return true
	}
	l.now = until
	return false
}

func (l *lab) pass(ns int64) { l.run(ns, nil) }

func (l *lab) until(what string, done func() bool) {
	l.t.Helper()
	if !l.run(labSpanNs, done) {
		for _, b := range l.boxes {
			for _, e := range b.events[max(0, len(b.events)-12):] {
				l.t.Logf("node %d: %+v", b.id, e)
			}
		}
		l.t.Fatalf("waited %d s in vain: %s", labSpanNs/second, what)
	}
}

func (l *lab) box(id raid.NodeID) *box { return l.boxes[id-1] }

// start begins a process. proof says that it holds the lock of its state file, so that it can prove the end of the former one.
func (b *box) start(proof bool) {
	opt := Options{ID: b.id, Cluster: labCluster, Shelf: labShelf, Storage: b.log, Revoked: b.revoked, Paths: 1, PathMACs: []aoe.MAC{b.mac}, Group: b.lab.group,
		Seed: uint64(b.id)<<48 | uint64(b.life+1)<<40, CacheBytes: 1 << 20,
		Info: membership.NodeInfo{Addr: fmt.Sprintf("n%d:7", b.id), Host: "h", MaxFeature: membership.MaxFeatureLevel, SANPaths: 1}}
	if proof {
		opt.ProofTerm = b.fileTerm
	}
	n, err := New(b.lab.now, opt)
	if err != nil {
		b.lab.t.Fatal(err)
	}
	b.life++
	b.node, b.joined, b.tickNs, b.paused, b.held = n, nil, 0, false, nil
	b.input(func(now int64) {
		n.PathState(now, 0, b.carrier, true)
		b.openDisks(now)
	})
	for _, o := range b.lab.boxes {
		if o != b && o.node != nil {
			b.lab.connect(b, o)
		}
	}
}

func (b *box) openDisks(now int64) {
	for _, d := range b.disks {
		if b.pulled {
			break
		}
		var vols []raid.VolumeID
		for at := range b.volumes {
			if at.disk == d {
				vols = append(vols, at.vol)
			}
		}
		slices.Sort(vols)
		b.node.DiskState(now, d, true, vols, "there")
	}
}

func (l *lab) isCut(a, b raid.NodeID) bool { return l.cut[[2]raid.NodeID{min(a, b), max(a, b)}] }

// setCut breaks or mends the link of two boxes; both notice at once, without a reset.
func (l *lab) setCut(a, b raid.NodeID, cut bool) {
	l.cut[[2]raid.NodeID{min(a, b), max(a, b)}] = cut
	if x, y := l.box(a), l.box(b); cut {
		l.disconnect(x, y, false)
	} else if x.node != nil && y.node != nil {
		l.connect(x, y)
	}
}

// isolate cuts a box off from all others, or brings it back.
func (l *lab) isolate(b *box, cut bool) {
	for _, o := range l.boxes {
		if o != b {
			l.setCut(b.id, o.id, cut)
		}
	}
}

func (l *lab) connect(a, b *box) {
	if l.isCut(a.id, b.id) || slices.Contains(a.conns, b.id) {
		return
	}
	a.conns, b.conns = append(a.conns, b.id), append(b.conns, a.id)
	a.input(func(now int64) { a.node.PeerUp(now, b.id) })
	b.input(func(now int64) { b.node.PeerUp(now, a.id) })
}

func (l *lab) disconnect(a, b *box, reset bool) {
	if !slices.Contains(a.conns, b.id) {
		return
	}
	a.conns = slices.DeleteFunc(a.conns, func(id raid.NodeID) bool { return id == b.id })
	b.conns = slices.DeleteFunc(b.conns, func(id raid.NodeID) bool { return id == a.id })
	a.input(func(now int64) { a.node.PeerDown(now, b.id, reset) })
	b.input(func(now int64) { b.node.PeerDown(now, a.id, reset) })
}

// kill ends the process as kill -9 does; the others' connections are reset.
func (b *box) kill() {
	b.node = nil
	for _, id := range slices.Clone(b.conns) {
		b.lab.disconnect(b, b.lab.box(id), true)
	}
	b.conns, b.joined, b.held = nil, nil, nil
}

// proveDeath is the guardian's word to all others.
func (b *box) proveDeath() {
	for _, o := range b.lab.boxes {
		if o != b && o.node != nil {
			o.input(func(now int64) {
				o.node.Peer(now, b.id, &PeerMessage{Dead: &membership.NodeTerm{Node: b.id, Term: b.fileTerm}})
			})
		}
	}
}

// input gives the process something, then executes what it wants. A process that has ended meanwhile gets nothing, one that
// is stopped gets it when it goes on.
func (b *box) input(in func(now int64)) {
	life := b.life
	var do func()
	do = func() {
		switch {
		case b.node == nil || b.life != life:
			return
		case b.paused:
			b.held = append(b.held, do)
			return
		}
		in(b.lab.now)
		if b.stallNs > 0 {
			ns := b.stallNs
			b.stallNs = 0
			b.pause(ns)
			b.held = append(b.held, b.ready)
			return
		}
		b.ready()
	}
	b.lab.after(linkNs, do)
}

// pause stops the process, its kernel goes on.
func (b *box) pause(ns int64) {
	b.paused = true
	life := b.life
	b.lab.after(ns, func() {
		if b.life != life || b.node == nil {
			return
		}
		b.paused = false
		held := b.held
		b.held = nil
		for _, do := range held {
			do()
		}
		b.tick()
	})
}

func (b *box) tick() {
	if b.node != nil && !b.paused && b.lab.now >= b.tickNs {
		b.node.Tick(b.lab.now)
		b.ready()
	}
}

func (b *box) ready() {
	if b.node == nil {
		return
	}
	l, life := b.lab, b.life
	r := b.node.Ready(l.now)
	if r.Stop != nil {
		l.t.Fatalf("node %d stops: %v", b.id, r.Stop)
	}
	b.events = append(b.events, r.Events...)
	for _, f := range r.Frames {
		l.transmit(b, append(slices.Clone(f.Header), slices.Concat(f.Payload...)...))
	}
	for _, c := range r.Link {
		b.joined = slices.DeleteFunc(b.joined, func(m aoe.MAC) bool { return m == c.MAC })
		if c.Join {
			b.joined = append(b.joined, c.MAC)
		}
	}
	for _, p := range r.Peers {
		b.send(l.box(p.To), p.Msg)
	}
	b.store(r)
	for _, q := range r.Disk {
		b.serve(q)
	}
	for i := range r.Admin {
		l.calls[r.Admin[i].ID] = &r.Admin[i]
	}
	b.tickNs = r.NextNs
	l.after(max(r.NextNs-l.now, 1), func() {
		if b.life == life && b.tickNs == r.NextNs {
			b.tick()
		}
	})
}

// send takes a message over the wire, if the connection still stands when it arrives.
func (b *box) send(to *box, m *PeerMessage) {
	head, payload, err := EncodeMessage(nil, m)
	if err != nil {
		b.lab.t.Fatalf("node %d: %v", b.id, err)
	}
	wire := append(slices.Clone(head), slices.Concat(payload...)...)
	to.input(func(now int64) {
		if !slices.Contains(to.conns, b.id) {
			return
		}
		got, err := unwire(wire)
		if err != nil {
			b.lab.t.Fatalf("node %d to node %d: %v", b.id, to.id, err)
		}
		to.node.Peer(now, b.id, got)
	})
}

// store makes what Ready wants durable.
func (b *box) store(r *Ready) {
	for _, w := range r.Raft {
		batch := raftlog.Batch{Snapshot: w.Snapshot, Compact: w.CompactTo}
		if w.Append != nil {
			batch = raftlog.BatchOf(w.Append)
		}
		if err := b.log.Write(batch); err != nil {
			b.lab.t.Fatal(err)
		}
		b.input(func(now int64) { b.node.RaftStored(now, w.Seq) })
	}
	for _, m := range r.Meta {
		if m.Revoked != nil {
			b.revoked = append(b.revoked, *m.Revoked)
		} else {
			b.fileTerm = m.Term
		}
		b.input(func(now int64) { b.node.MetaStored(now, m.ID) })
	}
}

// serve has a local disk answer.
func (b *box) serve(q *raid.DiskRequest) {
	at := volumeAt{q.Disk, q.Vol}
	if b.pulled || !slices.Contains(b.disks, q.Disk) {
		return
	}
	d := b.volumes[at]
	switch {
	case q.Kind == raid.ReqShards && len(q.Shards) == 0:
		delete(b.volumes, at)
		return
	case q.Kind == raid.ReqShards && d == nil:
		b.volumes[at] = raidtest.New(q.Disk)
		return
	case q.Kind == raid.ReqShards || d == nil:
		return
	}
	if rep := d.Handle(q); rep != nil {
		b.lab.after(diskNs-linkNs, func() { b.input(func(now int64) { b.node.DiskReplies(now, []raid.DiskReply{*rep}) }) })
	}
}

// pull takes the box's disks away, or puts them back.
func (b *box) pull(out bool) {
	b.pulled = out
	b.input(func(now int64) {
		if !out {
			b.openDisks(now)
			return
		}
		for _, d := range b.disks {
			b.node.DiskState(now, d, false, nil, "pulled")
		}
	})
}

// plug puts the SAN cable in or out.
func (b *box) plug(in bool) {
	b.carrier = in
	b.input(func(now int64) { b.node.PathState(now, 0, in, true) })
}

// transmit floods a frame to every box that takes its destination, and to the initiators. from is nil for an initiator's.
func (l *lab) transmit(from *box, frame []byte) {
	dst := aoe.MAC(frame[0:6])
	if from != nil {
		if !from.carrier || from.mute {
			return
		}
		l.air = append(l.air, heard{l.now, from.id, frame})
		for _, s := range l.stas {
			if dst == s.mac || dst == aoe.Broadcast {
				l.after(wireNs, func() { s.receive(frame) })
			}
		}
	}
	for _, b := range l.boxes {
		if b == from || b.node == nil || !b.carrier || dst != aoe.Broadcast && !slices.Contains(b.joined, dst) {
			continue
		}
		f := SANFrame{RxNs: l.now + wireNs, Data: frame}
		b.input(func(now int64) { b.node.Frames(now, []SANFrame{f}) })
	}
}

// operate has an operator's request carried out by a node, and returns the answer.
func (l *lab) operate(id raid.NodeID, r AdminRequest) AdminReply {
	l.t.Helper()
	l.next++
	r.ID = l.next
	b := l.box(id)
	b.input(func(now int64) { b.node.Admin(now, r) })
	l.until("an answer to "+r.Kind+" "+r.Type, func() bool { return l.calls[r.ID] != nil })
	return *l.calls[r.ID]
}

func (l *lab) command(id raid.NodeID, c membership.Body) AdminReply {
	l.t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.operate(id, AdminRequest{Kind: "propose", Type: c.CommandType(), Body: body})
}

// must is command for what has to succeed.
func (l *lab) must(id raid.NodeID, c membership.Body) AdminReply {
	l.t.Helper()
	r := l.command(id, c)
	if r.Err != "" {
		l.t.Fatalf("%s: %s", c.CommandType(), r.Err)
	}
	return r
}

// found starts every box, makes them a cluster with one disk each, and waits until all are lease voters.
func (l *lab) found() {
	l.t.Helper()
	l.boxes[0].start(false)
	l.must(1, &membership.ClusterInit{Cluster: labCluster, Name: "lab", Shelf: labShelf, SectorCount: 8, Feature: membership.MaxFeatureLevel,
		NodeName: "n1", Node: membership.NodeInfo{Addr: "n1:7", Host: "h", MaxFeature: membership.MaxFeatureLevel, SANPaths: 1}})
	for _, b := range l.boxes[1:] {
		name := fmt.Sprintf("n%d", b.id)
		l.must(1, &membership.NodeJoin{Name: name, Key: membership.UUID{byte(b.id)}, Witness: b.witness,
			Node: membership.NodeInfo{Addr: name + ":7", Host: "h", MaxFeature: membership.MaxFeatureLevel, SANPaths: 1}})
		b.start(false)
	}
	l.until("every node votes and has a lease", func() bool {
		for _, b := range l.boxes {
			s := b.node.State()
			if !b.node.leaseValidAt(l.now) || s.Voters.Joint() || len(s.Voters.Cur) != min(len(l.boxes), membership.DefaultMaxVoters) {
				return false
			}
		}
		return true
	})
	for _, b := range l.boxes {
		if b.witness {
			continue
		}
		r := l.must(b.id, &membership.DiskAdd{Node: b.id, UUID: membership.UUID{0xD, byte(b.id)}, CapacityMiB: 1000, Label: "d"})
		b.disks = append(b.disks, r.Disk)
		b.input(b.openDisks)
	}
}

// create makes a volume of 8 MiB and waits until it is served.
func (l *lab) create(slot uint8, k, m int) raid.VolumeID {
	l.t.Helper()
	r := l.must(1, &membership.Create{Slot: slot, Name: fmt.Sprintf("v%d", slot), SizeBytes: 8 << 20,
		Layout: raid.Layout{K: k, M: m, UnitBytes: 4096}, ExtentMiB: 4})
	l.until("the volume is served", func() bool { return l.server(slot) != nil })
	return r.Volume
}

// server returns the box that would answer for a slot now, nil for none; two at once are a failure whatever the test is about.
func (l *lab) server(slot uint8) *box {
	l.t.Helper()
	var out *box
	for _, b := range l.boxes {
		if b.node == nil {
			continue
		}
		for _, o := range b.node.Owners(l.now) {
			if mv := b.node.State().Volume(o.Vol); mv == nil || mv.Slot != slot || !o.Serving || !b.node.volume(o.Vol).owner.Admitting() {
				continue
			}
			if out != nil {
				l.t.Fatalf("nodes %d and %d both serve slot %d", out.id, b.id, slot)
			}
			out = b
		}
	}
	return out
}

func (l *lab) servingMAC(slot uint8) aoe.MAC {
	return aoe.ServingMAC([16]byte(labCluster), labShelf, slot, 0)
}

// leaseValidAt looks at the lease without letting time pass.
func (n *Node) leaseValidAt(nowNs int64) bool {
	return n.inc.holder != nil && n.inc.holder.Valid(nowNs)
}

// answersSince returns which nodes have sent AoE frames for a slot since a time, in order, repetitions left out.
func (l *lab) answersSince(atNs int64, slot uint8) []raid.NodeID {
	var out []raid.NodeID
	for _, h := range l.air {
		if h.atNs >= atNs && h.frame[12] == aoe.EtherType>>8 && h.frame[13] == aoe.EtherType&0xff && h.frame[18] == slot &&
			(len(out) == 0 || out[len(out)-1] != h.from) {
			out = append(out, h.from)
		}
	}
	return out
}

// station is an initiator.
type station struct {
	lab  *lab
	mac  aoe.MAC
	tag  byte
	got  []aoe.Response
	when []int64
}

func (l *lab) station(last byte) *station {
	s := &station{lab: l, mac: aoe.MAC{2, 0x11, 0, 0, 0, last}}
	l.stas = append(l.stas, s)
	return s
}

func (s *station) receive(frame []byte) {
	var r aoe.Response
	if err := aoe.ParseResponse(frame, &r); err == nil {
		s.got, s.when = append(s.got, r), append(s.when, s.lab.now)
	}
}

// header names a request to a slot's serving MAC, with a new tag.
func (s *station) header(slot uint8) aoe.Header {
	s.tag++
	return aoe.Header{Dst: s.lab.servingMAC(slot), Src: s.mac, Shelf: labShelf, Slot: slot, Tag: [4]byte{0x80, 0, s.mac[5], s.tag}}
}

// answer returns the first answer to a request, nil for none yet.
func (s *station) answer(frame []byte) *aoe.Response {
	for i := range s.got {
		if s.got[i].Tag == [4]byte(frame[20:24]) && s.got[i].Command == frame[19] && s.got[i].Dst == s.mac {
			return &s.got[i]
		}
	}
	return nil
}

// ask sends a request every 100 ms until it is answered.
func (s *station) ask(frame []byte) *aoe.Response {
	s.lab.t.Helper()
	for range 100 {
		s.lab.transmit(nil, frame)
		if s.lab.run(100*ms, func() bool { return s.answer(frame) != nil }) {
			return s.answer(frame)
		}
	}
	s.lab.t.Fatalf("no answer to command %d from %s", frame[19], s.mac)
	return nil
}

// write fills 8 sectors from a sector on with one byte; the request is to be sent.
func (s *station) write(slot uint8, lba uint64, fill byte) []byte {
	f := aoe.AppendATARequest(nil, s.header(slot), aoe.ATA{AFlags: aoe.AFlagExtended | aoe.AFlagWrite, Sectors: 8, Command: aoe.ATAWriteExt, LBA: lba})
	return append(f, slices.Repeat([]byte{fill}, 8*aoe.SectorBytes)...)
}

func (s *station) readRequest(slot uint8, lba uint64) []byte {
	return aoe.AppendATARequest(nil, s.header(slot), aoe.ATA{AFlags: aoe.AFlagExtended, Sectors: 8, Command: aoe.ATAReadExt, LBA: lba})
}

// read returns the byte that 8 sectors are filled with; a mix is a failure.
func (s *station) read(slot uint8, lba uint64) byte {
	s.lab.t.Helper()
	r := s.ask(s.readRequest(slot, lba))
	data := r.Frame[aoe.ATAHeaderBytes:]
	if r.Failed || r.Frame[27] != aoe.StatusReady || len(data) != 8*aoe.SectorBytes {
		s.lab.t.Fatalf("read: failed %v, status %#x, %d bytes", r.Failed, r.Frame[27], len(data))
	}
	for _, b := range data {
		if b != data[0] {
			s.lab.t.Fatalf("read: a mix of %#x and %#x", data[0], b)
		}
	}
	return data[0]
}

// put is write and its answer.
func (s *station) put(slot uint8, lba uint64, fill byte) {
	s.lab.t.Helper()
	if r := s.ask(s.write(slot, lba, fill)); r.Failed || r.Frame[27] != aoe.StatusReady {
		s.lab.t.Fatalf("write: failed %v, status %#x", r.Failed, r.Frame[27])
	}
}
