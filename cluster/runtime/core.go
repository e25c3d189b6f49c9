package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"clade/aoe/link"
	"clade/cluster"
	"clade/membership"
)

// errStopped ends calls of a node that is stopping.
var errStopped = errors.New("the node is stopping")

// core is the goroutine that owns the node. A turn: note the time, hand over the frames that the kernel had received by then,
// feed what other goroutines have queued, let time pass, ask Ready with a fresh clock, execute.
func (r *Runtime) core() {
	var clock clockWatch
	clock.look()
	lookedNs := nearBootNs()
	for !r.stop.Load() {
		began := bootNs()
		if began-lookedNs >= jumpLookNs {
			lookedNs = began
			if d := clock.look(); d != 0 {
				r.log.Warn("CLOCK_REALTIME has jumped against CLOCK_BOOTTIME: the lease term is given up", "by", time.Duration(d))
				r.node.ClockJumped(bootNs())
				for _, p := range r.ports {
					p.forget()
				}
			}
			r.disks.tick(began)
		}
		more := r.turn(began)
		r.stats.turn(nearBootNs() - began)
		if err := r.sleep(more); err != nil {
			r.fail(err)
		}
	}
}

// turn does everything once; it returns whether there is more to do at once.
func (r *Runtime) turn(began int64) bool {
	if r.arrived {
		r.arrived = r.takeFrames(began)
	}
	more := r.arrived
	r.readPeers()
	r.disks.collect()
	for _, item := range r.inbox.take() {
		r.feed(item)
	}
	if now := nearBootNs(); now >= r.nextNs {
		r.node.Tick(now)
	}
	r.busy = more || r.inbox.waiting()
	r.execute(r.node.Ready(bootNs())) // the serving rule is evaluated in there: nothing may come between it and the sends
	r.followMembers()
	more = r.busy || r.again || r.inbox.waiting()
	r.again = false
	r.flush()
	return more
}

// takeFrames hands over what the SAN ports have received before the turn began, and returns whether something may be left.
func (r *Runtime) takeFrames(began int64) bool {
	more, errs := intake(r.ports, began, r.sanBuf[:0], r.hand)
	for _, err := range errs {
		if !errors.Is(err, link.ErrDown) && !errors.Is(err, link.ErrGone) {
			r.stats.sanErrors.Inc()
		}
		r.log.Warn("a SAN interface reports", "err", err) // once for each time it goes down
	}
	return more
}

// post puts what a disk has answered at once into the core's own inbox, behind what it has answered before.
func (r *Runtime) post(e diskEvent) { r.inbox.add(e) }

// flush sees to it that what was queued for peers is sent: now, if nothing has come meanwhile; else by the writers, which then find more to
// send at once.
func (r *Runtime) flush() {
	for _, c := range r.flushes {
		if r.busy {
			c.out.ring()
			r.woke = true
		} else {
			c.flush()
		}
	}
	clear(r.flushes)
	r.flushes = r.flushes[:0]
}

// sleep waits for frames, for peers, for the inbox, or for the node's next tick; if there is more to do at once it only looks what has come.
func (r *Runtime) sleep(more bool) error {
	now := nearBootNs()
	wait := min(r.nextNs-now, sleepMaxNs)
	if more || wait < 0 {
		wait = 0
	}
	until := now + wait
	if r.woke && wait > 0 {
		r.woke = false
		goruntime.Gosched() // they run first: see link.NewHoldingPoller
	}
	arrived, err := r.poller.Load().Wait(wait)
	if err != nil {
		return fmt.Errorf("runtime: wait for frames: %w", err)
	}
	r.arrived = r.arrived || arrived
	if now = nearBootNs(); wait > 0 && now > until {
		r.stats.late(now - until)
	}
	return nil
}

// feed hands one item of the inbox to the node.
func (r *Runtime) feed(item any) {
	now := nearBootNs()
	switch x := item.(type) {
	case peerFrames:
		r.peerFrames(x)
		x.conn.consumed(x.bytes)
	case diskEvent:
		r.disks.event(now, x)
	case storageDone:
		r.stored(now, x)
	case connUp:
		r.connUp(now, x.conn)
	case connDown:
		r.connDown(now, x)
	case deathNotice:
		r.log.Info("a guardian proves the death of its node's process", "peer", x.node, "term", x.term)
		r.node.Peer(now, x.node, &cluster.PeerMessage{Dead: &membership.NodeTerm{Node: x.node, Term: x.term}})
	case sanState:
		r.pathState(now, x)
	case sanOpened:
		r.sanOpened(x)
	case slotProbed:
		r.disks.probed(x)
	case slotOpened:
		r.disks.opened(now, x)
	case *adminCall:
		r.callID++
		x.req.ID = r.callID
		r.calls[r.callID] = x
		r.node.Admin(now, x.req)
	case inspection:
		x.look(r)
		close(x.done)
	default:
		panic(fmt.Sprintf("runtime: %T in the inbox", item))
	}
}

// peerFrames hands a connection's messages to the node.
func (r *Runtime) peerFrames(x peerFrames) {
	if r.conns[x.conn.id] != x.conn {
		return // its PeerDown has been said
	}
	now := nearBootNs()
	for _, m := range x.msgs {
		if m.Heartbeat != nil && m.Relay == nil {
			x.conn.beat(now)
		}
		r.node.Peer(now, x.conn.id, m)
	}
}

func (r *Runtime) stored(now int64, d storageDone) {
	if d.err != nil {
		r.fail(fmt.Errorf("this node's own state cannot be written, so it must not go on; is the file system of %s full or read-only? %w", r.opt.Dir, d.err))
		return
	}
	r.stats.commit(d.tookN)
	if d.seq != 0 {
		r.node.RaftStored(now, d.seq)
	}
	for _, id := range d.meta {
		r.node.MetaStored(now, id)
	}
}

// connUp makes a connection the current one of its peer, unless it has crossed with a better one.
func (r *Runtime) connUp(now int64, c *peerConn) {
	if old := r.conns[c.id]; old != nil {
		if !c.replaces(old) {
			c.kill()
			return
		}
		old.kill()
		r.node.PeerDown(now, c.id, false)
	}
	r.conns[c.id] = c
	r.watchPeer(c)
	c.gaps = r.stats.beatSecs.WithLabelValues(strconv.FormatUint(uint64(c.id), 10))
	if d := c.realDiff; d > time.Second || d < -time.Second {
		r.log.Warn("a peer's wall clock differs; set both by NTP", "peer", c.id, "by", d.Round(time.Millisecond))
	}
	r.log.Info("connected to a peer", "peer", c.id, "addr", c.remote)
	r.node.PeerUp(now, c.id)
}

func (r *Runtime) connDown(now int64, x connDown) {
	r.dropPeer(x.conn)
	if r.conns[x.conn.id] != x.conn {
		return // it was replaced, or never current
	}
	delete(r.conns, x.conn.id)
	reset := errors.Is(x.err, io.EOF) || errors.Is(x.err, syscall.ECONNRESET) || errors.Is(x.err, syscall.EPIPE)
	r.log.Warn("the connection to a peer broke", "peer", x.conn.id, "err", x.err)
	r.node.PeerDown(now, x.conn.id, reset)
}

func (r *Runtime) pathState(now int64, s sanState) {
	if p := r.ports[s.path]; p.why != s.why || !p.known {
		p.why, p.known = s.why, true
		if s.up {
			r.log.Info("a SAN path works", "path", s.path, "interface", p.spec, "mtu", s.mtu)
		} else {
			r.log.Error("a SAN path does not work", "path", s.path, "interface", p.spec, "err", s.why)
		}
	}
	r.node.PathState(now, s.path, s.carrier, s.mtuOK)
}

func (r *Runtime) sanOpened(x sanOpened) {
	x.p.late = true
	if err := x.p.open(x.port); err != nil {
		r.log.Error("a SAN interface does not take a serving MAC", "path", x.p.path, "err", err)
	}
	if err := r.newPoller(); err != nil {
		r.fail(err)
	}
}

// execute carries out the effects of one Ready.
func (r *Runtime) execute(rd *cluster.Ready) {
	r.sendFrames(rd.Frames)
	for _, c := range rd.Link {
		if c.Path >= len(r.ports) {
			continue
		}
		if err := r.ports[c.Path].change(c.MAC, c.Join); err != nil && !errors.Is(err, link.ErrGone) {
			r.log.Error("a SAN interface does not take a serving MAC", "path", c.Path, "join", c.Join, "err", err)
		}
	}
	for i := range rd.Peers {
		o := &rd.Peers[i]
		c := r.conns[o.To]
		if c == nil {
			continue
		}
		if !c.out.add(o.Msg, messageBytes(o.Msg), isControl(o.Msg)) {
			c.kill() // a message is missing in the stream: broken, and PeerDown follows
		} else if !slices.Contains(r.flushes, c) {
			r.flushes = append(r.flushes, c)
		}
	}
	if len(rd.Disk) > 0 {
		r.disks.enqueue(rd.Disk)
	}
	if len(rd.Raft) > 0 || len(rd.Meta) > 0 {
		r.woke = true
		r.store.enqueue(rd.Raft, rd.Meta)
	}
	for _, a := range rd.Admin {
		if c := r.calls[a.ID]; c != nil {
			delete(r.calls, a.ID)
			c.end(a, nil)
			r.woke = true
		}
	}
	for i := range rd.Events {
		r.logEvent(&rd.Events[i])
	}
	if rd.Stop != nil {
		r.fail(rd.Stop)
	}
	r.nextNs = rd.NextNs
}

// sendFrames sends the frames of one Ready, one batch a path.
func (r *Runtime) sendFrames(frames []cluster.TxFrame) {
	if len(frames) == 0 {
		return
	}
	for i := range frames {
		f := &frames[i]
		if f.Path < len(r.ports) {
			p := r.ports[f.Path]
			if p.late && [6]byte(f.Header[6:12]) == [6]byte{} {
				mac := p.port.MAC() // the node did not know it when it was made
				copy(f.Header[6:12], mac[:])
			}
			p.tx = append(p.tx, link.TxFrame{Header: f.Header, Payload: f.Payload})
		}
	}
	for _, p := range r.ports {
		if err := p.send(); err != nil && !errors.Is(err, link.ErrDown) && !errors.Is(err, link.ErrGone) {
			r.stats.sanErrors.Inc()
		}
	}
}

// followMembers keeps the mesh and the guardian's list in line with the applied state.
func (r *Runtime) followMembers() {
	s := r.node.State()
	if s.Applied == r.seen || !s.Initialised() {
		return
	}
	r.seen = s.Applied
	peers := make([]Peer, 0, len(s.Nodes))
	for i := range s.Nodes {
		peers = append(peers, Peer{s.Nodes[i].ID, s.Nodes[i].Addr})
	}
	if old := r.members.Load(); old == nil || !slices.Equal(*old, peers) {
		r.members.Store(&peers)
		r.mesh.setPeers(peers)
	}
	r.disks.follow(s)
}

// adminCall is a request that waits for its reply.
type adminCall struct {
	req   cluster.AdminRequest
	reply chan adminResult // capacity 1
}

type adminResult struct {
	reply cluster.AdminReply
	err   error
}

func (c *adminCall) end(reply cluster.AdminReply, err error) { c.reply <- adminResult{reply, err} }

// Admin puts a request to the cluster through this node and waits for what became of it. An error says that nobody knows; a
// refusal is in the reply's Err.
func (r *Runtime) Admin(ctx context.Context, req cluster.AdminRequest) (cluster.AdminReply, error) {
	c := &adminCall{req: req, reply: make(chan adminResult, 1)}
	if !r.inbox.put(c) {
		return cluster.AdminReply{}, errStopped
	}
	select {
	case res := <-c.reply:
		return res.reply, res.err
	case <-ctx.Done():
		return cluster.AdminReply{}, ctx.Err()
	case <-r.quit:
		return cluster.AdminReply{}, errStopped
	}
}

// inspection is a look at the node by the core's goroutine.
type inspection struct {
	look func(*Runtime)
	done chan struct{}
}

// inspect runs look in the core's goroutine, between two turns. It must be quick, and keep nothing that belongs to the node.
// After an error look may still run: what it writes to must not be read then.
func (r *Runtime) inspect(ctx context.Context, look func(*Runtime)) error {
	x := inspection{look, make(chan struct{})}
	if !r.inbox.put(x) {
		return errStopped
	}
	select {
	case <-x.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.quit:
		return errStopped
	}
}

// logEvent writes an event of the node to the log, with the project's fixed keys.
func (r *Runtime) logEvent(e *cluster.Event) {
	args := make([]any, 0, 12)
	if e.Volume != 0 {
		args = append(args, "volume", uint64(e.Volume), "slot", e.Slot)
	}
	if e.Epoch != 0 {
		args = append(args, "epoch", uint64(e.Epoch))
	}
	if e.Disk != 0 {
		args = append(args, "disk", uint32(e.Disk))
	}
	if e.Node != 0 {
		args = append(args, "peer", uint64(e.Node))
	}
	r.stats.event(e)
	r.history.add(e)
	text := e.Text
	switch e.Kind {
	case cluster.EventBooted:
		r.log.Info("this node has a lease term", args...)
		r.undrain()
	case cluster.EventTermEnded:
		r.log.Warn("this node's lease term was taken away", args...)
	case cluster.EventLease:
		r.log.Info(text, args...)
	case cluster.EventLeader:
		r.leader = e.Node
		if e.Node == 0 {
			r.log.Warn("the cluster has no leader", args...)
		} else {
			r.log.Info("the cluster has a leader", args...)
		}
	case cluster.EventTakeover:
		r.log.Info("taking a volume over", args...)
	case cluster.EventVolume, cluster.EventDecision, cluster.EventDisk:
		r.log.Info(text, args...)
	case cluster.EventRaft, cluster.EventDropped:
		r.log.Debug(text, args...)
	default:
		r.log.Info(text, args...)
	}
}
