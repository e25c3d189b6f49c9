package sim

// The virtual cluster network: one connection per pair of processes, two FIFO byte streams each. A stream delivers in order
// or not at all. A cut direction holds its bytes; they arrive when it heals, or the connection dies at each end in its own time.

// peerLink is the state of the wire from one host to another.
type peerLink struct {
	cut     bool
	delayNs int64
}

// peerNet joins the processes of all nodes.
type peerNet struct {
	sched *scheduler
	rnd   random
	count *faultCount
	links [][]peerLink // [from][to], by node index
	conns [][]*peerConn
	hooks func(node int) *process // the living process of a node, or nil

	userTimeoutNs int64 // unacknowledged data kills a connection after about this
	redialNs      int64
}

// peerConn is one connection. ends[0] belongs to the lower node index.
type peerConn struct {
	ends   [2]*peerEnd
	broken bool // no new byte enters either stream
}

// peerEnd is what one process sees of a connection.
type peerEnd struct {
	proc     *process
	node     int
	peer     int
	conn     *peerConn
	up       bool // the process was told PeerUp and not yet PeerDown
	dead     bool
	lastNs   int64    // when the last byte sent to this end arrives
	held     [][]byte // sent to this end while the wire to it was cut
	cutSince int64
}

func newPeerNet(s *scheduler, rnd random, count *faultCount, nodes int, delayNs int64) *peerNet {
	n := &peerNet{sched: s, rnd: rnd, count: count, userTimeoutNs: 2 * second, redialNs: 50 * ms}
	n.links = make([][]peerLink, nodes)
	n.conns = make([][]*peerConn, nodes)
	for i := range nodes {
		n.links[i] = make([]peerLink, nodes)
		n.conns[i] = make([]*peerConn, nodes)
		for j := range nodes {
			n.links[i][j].delayNs = delayNs
		}
	}
	return n
}

// start dials every pair again and again.
func (n *peerNet) start() {
	for a := range n.links {
		for b := a + 1; b < len(n.links); b++ {
			n.redial(a, b)
		}
	}
}

func (n *peerNet) redial(a, b int) {
	n.sched.after(n.rnd.delay(n.redialNs), func() {
		n.dial(a, b)
		n.redial(a, b)
	})
}

// dial opens a connection when both processes live and neither thinks that it has one. Should one of them still hold
// the former one, the new one replaces it there.
func (n *peerNet) dial(a, b int) {
	pa, pb := n.hooks(a), n.hooks(b)
	if pa == nil || pb == nil || n.links[a][b].cut || n.links[b][a].cut {
		return
	}
	old := n.conns[a][b]
	if old != nil && old.alive(pa, pb) {
		return
	}
	c := &peerConn{}
	for i, x := range []struct {
		p    *process
		node int
		peer int
	}{{pa, a, b}, {pb, b, a}} {
		c.ends[i] = &peerEnd{proc: x.p, node: x.node, peer: x.peer, conn: c}
	}
	n.conns[a][b] = c
	for i, e := range c.ends {
		at := n.sched.nowNs + n.rnd.delay(n.links[a][b].delayNs)
		var former *peerEnd
		if old != nil && old.ends[i].proc == e.proc {
			former = old.ends[i]
		}
		e.lastNs = at
		n.sched.at(at, func() { n.open(e, former) })
	}
}

func (n *peerNet) open(e, former *peerEnd) {
	if former != nil {
		n.endDown(former, false)
	}
	if e.dead || e.proc.dead {
		n.breakConn(e.conn, true)
		return
	}
	e.up = true
	e.proc.peerUp(e.peer)
}

func (c *peerConn) alive(pa, pb *process) bool {
	return !c.broken && c.ends[0].proc == pa && c.ends[1].proc == pb && !c.ends[0].dead && !c.ends[1].dead
}

// send puts bytes into the stream of from's connection to a node; without one they are lost.
func (n *peerNet) send(from *process, to int, data []byte) {
	c := n.conns[min(from.index, to)][max(from.index, to)]
	if c == nil || c.broken {
		return
	}
	self, other := c.ends[0], c.ends[1]
	if self.node != from.index {
		self, other = other, self
	}
	if self.proc != from || self.dead || !self.up {
		return
	}
	if n.links[from.index][to].cut {
		other.held = append(other.held, data)
		return
	}
	n.deliver(other, data)
}

func (n *peerNet) deliver(e *peerEnd, data []byte) {
	at := max(e.lastNs, n.sched.nowNs+n.rnd.delay(n.links[e.peer][e.node].delayNs))
	e.lastNs = at
	n.sched.at(at, func() {
		if e.dead || e.proc.dead {
			return
		}
		e.proc.peerData(e.peer, data)
	})
}

// breakConn ends a connection: each end learns of it in its own time; bytes under way may or may not still be read.
func (n *peerNet) breakConn(c *peerConn, reset bool) {
	if c == nil || c.broken {
		return
	}
	c.broken = true
	for _, e := range c.ends {
		e.held = nil
		at := n.sched.nowNs + n.rnd.delay(200*us)
		if n.rnd.chance(0.5) {
			at = max(at, e.lastNs) // everything under way is read first
		}
		n.sched.at(at, func() { n.endDown(e, reset) })
	}
}

// endDown tells a process that its connection is over; nothing more of it is delivered.
func (n *peerNet) endDown(e *peerEnd, reset bool) {
	if e.dead {
		return
	}
	e.dead = true
	e.conn.broken = true
	if e.up && !e.proc.dead {
		e.up = false
		e.proc.peerDown(e.peer, reset)
	}
}

// reset breaks the connection between two nodes, as a firewall's reset would.
func (n *peerNet) reset(a, b int) { n.breakConn(n.conns[min(a, b)][max(a, b)], true) }

// processGone handles the end of a process. With a living kernel the peers get a reset at once; without one they find out
// when they have waited for an acknowledgement for too long.
func (n *peerNet) processGone(p *process, kernelAlive bool) {
	for other := range n.links {
		c := n.conns[min(p.index, other)][max(p.index, other)]
		if c == nil || c.broken {
			continue
		}
		self, far := c.ends[0], c.ends[1]
		if self.node != p.index {
			self, far = far, self
		}
		if self.proc != p {
			continue
		}
		self.dead = true
		c.broken = true
		far.held = nil
		wait, reset := n.rnd.delay(200*us), true
		if !kernelAlive || n.links[p.index][other].cut {
			wait, reset = n.rnd.delay(n.userTimeoutNs), false
		}
		n.sched.after(wait, func() { n.endDown(far, reset) })
	}
}

// setCut cuts or heals the wire from one node to another.
func (n *peerNet) setCut(from, to int, cut bool) {
	l := &n.links[from][to]
	if l.cut == cut {
		return
	}
	l.cut = cut
	c := n.conns[min(from, to)][max(from, to)]
	if c == nil || c.broken {
		return
	}
	far := c.ends[1]
	if far.node != to {
		far = c.ends[0]
	}
	if !cut {
		held := far.held
		far.held = nil
		far.lastNs = max(far.lastNs, n.sched.nowNs+n.rnd.delay(l.delayNs))
		for _, data := range held {
			n.deliver(far, data)
		}
		return
	}
	since := n.sched.nowNs
	far.cutSince = since
	n.sched.after(n.rnd.delay(n.userTimeoutNs), func() {
		if l.cut && !c.broken && far.cutSince == since {
			n.count.hit("connection timed out")
			n.breakConn(c, false)
		}
	})
}
