package sim

import (
	"encoding/binary"
	"fmt"

	"clade/aoe"
	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store/raftlog"
)

// process is one life of a node: the production state machine, and around it what the runtime does with goroutines and
// sockets, as events. It takes steps: all inputs that wait, then, a little later, Ready and its effects.
type process struct {
	h       *host
	w       *world
	index   int
	number  int
	node    *cluster.Node
	rnd     random
	dead    bool
	paused  bool
	pauseIn int64 // pause for so long between the next inputs and their Ready
	held    []func()

	inbox   []func(nowNs int64)
	sockets [][]cluster.SANFrame
	joined  [][]aoe.MAC
	stampNs int64 // last kernel receive timestamp
	queued  bool  // a step is planned
	between bool  // inputs are in, Ready is to come
	nextNs  int64 // local time of the next Tick

	drivers        []*driver
	bootedTerm     raid.Term // term that this process holds
	crashInEffects bool
	onDeath        func()
	rafts          []membership.StorageWrite // being written
	raftBusy       bool
	linkNs         int64
	admin          map[uint64]func(cluster.AdminReply)
	nextAdmin      uint64
}

const socketFramesMax = 4096

func newProcess(h *host, number int, proof raid.Term) (*process, error) {
	w := h.w
	p := &process{h: h, w: w, index: h.index, number: number, rnd: newRandom(w.shape.seed, fmt.Sprint("process", number)),
		admin: map[uint64]func(cluster.AdminReply){}}
	p.sockets = make([][]cluster.SANFrame, w.shape.paths)
	p.joined = make([][]aoe.MAC, w.shape.paths)
	var err error
	p.node, err = cluster.New(p.now(), cluster.Options{
		ID: h.id(), Cluster: clusterID, Shelf: simShelf, Info: w.nodeInfo(h.index), Storage: h.log, Revoked: h.revoked(),
		ProofTerm: proof, Paths: w.shape.paths, PathMACs: h.macs, Seed: p.rnd.Uint64(), CacheBytes: w.shape.cacheBytes,
		Planner: membership.PlannerOptions{NoSpread: w.shape.rates[faultLie] > 0},
	})
	return p, err
}

// now is the host's CLOCK_BOOTTIME.
func (p *process) now() int64 { return p.h.clock.at(p.w.sched.nowNs) }

func (p *process) note(format string, args ...any) {
	p.w.tl.add(p.w.sched.nowNs, column(p.index), format, args...)
}

// after runs f later if the process still lives then; while it is stopped, f waits.
func (p *process) after(ns int64, f func()) {
	p.w.sched.after(ns, func() { p.do(f) })
}

func (p *process) do(f func()) {
	switch {
	case p.dead:
	case p.paused:
		p.held = append(p.held, f)
	default:
		f()
	}
}

// pauseFor stops the process, half of the time between the inputs of a step and its Ready: there a lease must be looked at again.
func (p *process) pauseFor(ns int64) {
	if p.rnd.chance(0.5) && !p.between {
		p.pauseIn = ns
		return
	}
	p.stop(ns)
}

func (p *process) stop(ns int64) {
	p.paused = true
	p.note("stopped")
	p.w.sched.after(ns, func() {
		if p.paused && !p.dead && !p.h.frozen {
			p.resume()
		}
	})
}

func (p *process) resume() {
	p.paused = false
	p.note("goes on")
	held := p.held
	p.held = nil
	for _, f := range held {
		p.do(f)
	}
}

// input queues one input for the next step.
func (p *process) input(f func(nowNs int64)) {
	p.inbox = append(p.inbox, f)
	p.wake()
}

func (p *process) wake() {
	if p.queued || p.dead {
		return
	}
	p.queued = true
	p.after(p.rnd.delay(8*us), p.step)
}

// step gives the node everything that waits.
func (p *process) step() {
	if p.between { // the former step's Ready comes first
		p.after(2*us, p.step)
		return
	}
	p.queued = false
	p.w.stats.steps++
	now := p.now()
	if p.rnd.chance(0.5) {
		p.takeFrames(now)
	}
	inbox := p.inbox
	p.inbox = nil
	for _, f := range inbox {
		f(now)
	}
	p.takeFrames(now)
	if now >= p.nextNs {
		p.node.Tick(now)
	}
	p.between = true
	p.after(1+p.rnd.Int64N(4*us), p.ready)
	if p.pauseIn > 0 {
		ns := p.pauseIn
		p.pauseIn = 0
		p.stop(ns)
	}
}

// takeFrames drains every socket.
func (p *process) takeFrames(now int64) {
	var all []cluster.SANFrame
	for i := range p.sockets {
		all = append(all, p.sockets[i]...)
		p.sockets[i] = nil
	}
	if len(all) > 0 {
		p.node.Frames(now, all)
	}
}

// accepts is the NIC's filter: broadcast, its own address and what was joined.
func (p *process) accepts(path int, dst aoe.MAC) bool {
	if dst == broadcastMAC || dst == p.h.macs[path] {
		return true
	}
	for _, m := range p.joined[path] {
		if m == dst {
			return true
		}
	}
	return false
}

// frame is the kernel receiving a frame: it is stamped now, whether or not the process takes steps.
func (p *process) frame(path int, b []byte) {
	if len(p.sockets[path]) >= socketFramesMax {
		return
	}
	p.stampNs = max(p.stampNs+1, p.now())
	p.sockets[path] = append(p.sockets[path], cluster.SANFrame{Path: path, RxNs: p.stampNs, Data: b})
	if frameType(b) == etherTypeAoE && len(b) >= 24 {
		to, eligible := p.mayExecute(b[offSlot])
		p.w.history.delivered(p.w.sched.nowNs, to, eligible, b)
	}
	p.wake()
}

// mayExecute says whether a frame for a slot that this process receives now may ever be executed by it: it is the owner, or
// it has applied the end of the former owner's term (A.4.12).
func (p *process) mayExecute(slot uint8) (to place, eligible bool) {
	s := p.node.State()
	v := s.Slot(slot)
	if v == nil {
		return place{}, false
	}
	own := v.Data.Owner == p.h.id() && v.Data.OwnerTerm == p.bootedTerm
	return p.place(v), own || !s.OwnerLives(v.Data)
}

func (p *process) place(v *membership.Volume) place {
	return place{p.number, uint64(v.ID()), uint64(v.Data.Epoch)}
}

func (p *process) peerUp(peer int) {
	p.input(func(now int64) { p.node.PeerUp(now, raid.NodeID(peer+1)) })
}

func (p *process) peerDown(peer int, reset bool) {
	p.input(func(now int64) { p.node.PeerDown(now, raid.NodeID(peer+1), reset) })
}

// peerData takes the bytes of one message, as the transport does: length, checksum, then the codec.
func (p *process) peerData(peer int, data []byte) {
	n, err := cluster.FrameLength(data)
	if err == nil {
		err = cluster.CheckFrame(data, data[cluster.FrameHeaderBytes:])
	}
	var m *cluster.PeerMessage
	if err == nil && n == len(data)-cluster.FrameHeaderBytes {
		m, err = cluster.DecodeMessage(data[cluster.FrameHeaderBytes:])
	}
	if err != nil || m == nil {
		p.w.fail("node %d cannot read a message of node %d: %v", p.index+1, peer+1, err)
	}
	p.input(func(now int64) { p.node.Peer(now, raid.NodeID(peer+1), m) })
}

func (p *process) pathState(path int, up bool) {
	p.input(func(now int64) { p.node.PathState(now, path, up, true) })
}

func (p *process) diskReplies(r []raid.DiskReply) {
	if len(r) > 0 {
		p.input(func(now int64) { p.node.DiskReplies(now, r) })
	}
}

func (p *process) diskDown(d *hostDisk, err error) {
	p.input(func(now int64) { p.node.DiskState(now, d.id, false, nil, err.Error()) })
}

// ready carries out the effects of a step, in any order.
func (p *process) ready() {
	p.between = false
	r := p.node.Ready(p.now())
	p.w.checks.afterStep(p)
	for _, e := range r.Events {
		p.event(e)
	}
	if r.Stop != nil {
		p.w.fail("node %d stops: %v", p.index+1, r.Stop)
	}
	effects := []func(){
		func() { p.sendFrames(r.Frames) },
		func() { p.sendPeers(r.Peers) },
		func() { p.disk(r.Disk) },
		func() { p.raft(r.Raft) },
		func() { p.meta(r.Meta) },
		func() { p.link(r.Link) },
	}
	p.rnd.Shuffle(len(effects), func(i, j int) { effects[i], effects[j] = effects[j], effects[i] })
	n := len(effects)
	if p.crashInEffects {
		n = p.rnd.IntN(n + 1)
	}
	p.judgeFrames(r.Frames)
	for _, f := range effects[:n] {
		f()
	}
	if p.crashInEffects {
		p.h.crashNow()
		return
	}
	for _, a := range r.Admin {
		if f := p.admin[a.ID]; f != nil {
			delete(p.admin, a.ID)
			f(a)
		}
	}
	p.nextNs = r.NextNs
	at := max(p.h.clock.trueAt(r.NextNs), p.w.sched.nowNs+us)
	p.w.sched.at(at, func() {
		if !p.dead && p.nextNs == r.NextNs {
			p.do(p.wake)
		}
	})
	if p.inboxWaits() {
		p.wake()
	}
}

func (p *process) inboxWaits() bool {
	for _, s := range p.sockets {
		if len(s) > 0 {
			return true
		}
	}
	return len(p.inbox) > 0
}

// judgeFrames hands every answer to the history at the moment when its content was complete.
func (p *process) judgeFrames(frames []cluster.TxFrame) {
	p.w.history.stood = p.w.sched.nowNs < p.h.staleNs
	for _, f := range frames {
		if b := gather(f); frameType(b) == etherTypeAoE {
			v := p.node.State().Slot(b[offSlot])
			if v == nil {
				p.w.fail("node %d answers for slot %d, which is empty", p.index+1, b[offSlot])
			}
			p.w.history.same(fmt.Sprintf("MAC of slot %d on path %d", b[offSlot], f.Path), string(b[6:12]))
			p.w.history.emitted(p.w.sched.nowNs, p.place(v), b)
		}
	}
}

func gather(f cluster.TxFrame) []byte {
	n := len(f.Header)
	for _, s := range f.Payload {
		n += len(s)
	}
	b := append(make([]byte, 0, n), f.Header...)
	for _, s := range f.Payload {
		b = append(b, s...)
	}
	return b
}

func (p *process) sendFrames(frames []cluster.TxFrame) {
	for _, f := range frames {
		b := gather(f)
		p.w.tl.mix(p.w.sched.nowNs, column(p.index), 'f', b)
		path := f.Path
		p.after(2*us, func() { p.h.ports[path].send(b) })
	}
}

func (p *process) sendPeers(out []cluster.PeerOut) {
	for _, m := range out {
		if m.Msg.Request != nil {
			p.w.checks.request(m.Msg.Request)
		}
		head, payload, err := cluster.EncodeMessage(nil, m.Msg)
		if err != nil {
			p.w.fail("node %d cannot encode a message: %v", p.index+1, err)
		}
		for _, b := range payload {
			head = append(head, b...)
		}
		p.w.tl.mix(p.w.sched.nowNs, column(p.index), 'p', head)
		p.w.peers.send(p, int(m.To)-1, head)
	}
}

func (p *process) disk(reqs []*raid.DiskRequest) {
	for _, r := range reqs {
		p.w.checks.request(r)
		var k [33]byte
		k[0] = byte(r.Kind)
		binary.BigEndian.PutUint64(k[1:], uint64(r.Vol)<<32|uint64(r.Disk))
		binary.BigEndian.PutUint64(k[9:], uint64(r.Epoch))
		binary.BigEndian.PutUint64(k[17:], r.ID)
		binary.BigEndian.PutUint64(k[25:], uint64(r.Stream))
		p.w.tl.mix(p.w.sched.nowNs, column(p.index), 'd', k[:])
		for _, d := range p.drivers {
			if d.hd.id == r.Disk {
				d.push(r)
			}
		}
	}
}

// raft writes to the log, one group after the other; several writes share one sync.
func (p *process) raft(ws []membership.StorageWrite) {
	p.rafts = append(p.rafts, ws...)
	p.raftStart()
}

func (p *process) raftStart() {
	if p.raftBusy || len(p.rafts) == 0 {
		return
	}
	p.raftBusy = true
	ws := p.rafts
	p.rafts = nil
	batches := make([]raftlog.Batch, 0, len(ws))
	for _, w := range ws {
		if w.Append != nil {
			batches = append(batches, raftlog.BatchOf(w.Append))
		} else {
			batches = append(batches, raftlog.Batch{Snapshot: w.Snapshot, Compact: w.CompactTo})
		}
	}
	last := ws[len(ws)-1].Seq
	p.h.log.Begin(batches...)
	p.after(p.rnd.delay(p.w.shape.diskSyncNs), func() {
		p.complete()
		p.raftBusy = false
		p.input(func(now int64) { p.node.RaftStored(now, last) })
		p.raftStart()
	})
}

// complete makes everything durable that has been begun: writes complete in order.
func (p *process) complete() {
	if err := p.h.log.Complete(p.h.log.Pending()); err != nil {
		p.w.fail("node %d: raft log: %v", p.index+1, err)
	}
}

func (p *process) meta(ws []cluster.MetaWrite) {
	for _, m := range ws {
		if m.Term != 0 {
			p.after(p.rnd.delay(p.w.shape.diskSyncNs), func() {
				p.h.fileTerm, p.h.fileBoot = m.Term, p.h.boot
				p.input(func(now int64) { p.node.MetaStored(now, m.ID) })
			})
			continue
		}
		v := binary.BigEndian.AppendUint64(nil, uint64(m.Revoked.Term))
		p.h.log.Begin(raftlog.Batch{Meta: []raftlog.KV{{Key: revokedKey(m.Revoked.Node), Value: v}}})
		p.after(p.rnd.delay(p.w.shape.diskSyncNs), func() {
			p.complete()
			p.input(func(now int64) { p.node.MetaStored(now, m.ID) })
		})
	}
}

func (p *process) link(changes []cluster.LinkChange) {
	for _, c := range changes {
		p.linkNs = max(p.linkNs, p.w.sched.nowNs+p.rnd.delay(10*us)) // in order
		p.w.sched.at(p.linkNs, func() {
			p.do(func() {
				j := p.joined[c.Path]
				for i, m := range j {
					if m == c.MAC {
						j = append(j[:i:i], j[i+1:]...)
						break
					}
				}
				if c.Join {
					j = append(j, c.MAC)
				}
				p.joined[c.Path] = j
			})
		})
	}
}

func (p *process) event(e cluster.Event) {
	switch e.Kind {
	case cluster.EventBooted:
		row := p.node.State().Node(p.h.id())
		if row == nil { // booted and removed in what was applied at once
			return
		}
		p.bootedTerm = row.Term
		p.note("booted: term %d", p.bootedTerm)
	case cluster.EventTermEnded:
		p.bootedTerm = 0
		p.note("term ended")
	case cluster.EventRaft, cluster.EventDropped:
		if p.w.tl.echo != nil {
			p.note("%s", e.Text)
		}
	default:
		text := e.Text
		if e.Volume != 0 {
			text = fmt.Sprintf("v%d e%d %s", e.Volume, e.Epoch, text)
		}
		p.note("%s", text)
	}
}

// ask sends an operator's request to the node.
func (p *process) ask(r cluster.AdminRequest, done func(cluster.AdminReply)) {
	p.nextAdmin++
	r.ID = p.nextAdmin
	p.admin[r.ID] = done
	p.input(func(now int64) { p.node.Admin(now, r) })
}
