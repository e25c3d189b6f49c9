package cluster

import "clade/raid"

// txQueue is the frames staged since the last Ready. There are two sets of buffers: one is being filled while the other is in
// the caller's hands.
type txQueue struct {
	answers []answer // emitted only under the serving rule
	buf     []byte   // headers
	parts   [][]byte // payloads
	spare   handed
}

// handed is the buffers of the last Ready, to be used again after the next one.
type handed struct {
	frames []TxFrame
	peers  []PeerOut
	disk   []*raid.DiskRequest
	buf    []byte
	parts  [][]byte
}

// answer is a staged frame of a volume.
type answer struct {
	v       *volume
	latency *Latency // nil: not counted
	rxNs    int64    // when the request came
	frame   TxFrame
}

// Ready returns the effects since the last call. nowNs must have been read after the last input returned: for every answer
// and announcement the serving rule of A.2 is evaluated here, when its content is complete; nothing is checked after that.
func (n *Node) Ready(nowNs int64) *Ready {
	n.tick(nowNs)
	n.runOwners()
	n.announce()
	valid := n.leaseValid() || mutated("READ_ANY_OWNER")
	for i := range n.tx.answers {
		a := &n.tx.answers[i]
		if !valid || !a.v.serving() {
			n.stats.DropLease++
			continue
		}
		n.stats.FramesOut++
		if a.latency != nil {
			a.latency.observe(nowNs - a.rxNs)
		}
		n.ready.Frames = append(n.ready.Frames, a.frame)
	}
	clear(n.tx.answers)
	n.tx.answers = n.tx.answers[:0]
	n.followLease(valid)
	out := n.ready
	out.Stop = n.group.Stopped()
	out.NextNs = n.nextNs()
	last := n.tx.spare
	n.tx.spare = handed{out.Frames, out.Peers, out.Disk, n.tx.buf, n.tx.parts}
	clear(last.frames) // lets go of the payloads
	clear(last.peers)
	clear(last.disk)
	clear(last.parts)
	n.ready = Ready{Frames: last.frames[:0], Peers: last.peers[:0], Disk: last.disk[:0]}
	n.tx.buf, n.tx.parts = last.buf[:0], last.parts[:0]
	return &out
}

// payload keeps a list of slices for a frame that is staged now. What they point to is immutable.
func (n *Node) payload(parts [][]byte) [][]byte {
	at := len(n.tx.parts)
	n.tx.parts = append(n.tx.parts, parts...)
	return n.tx.parts[at:len(n.tx.parts):len(n.tx.parts)]
}

// header returns an empty buffer of capacity c for a frame that is staged now. A block that is full stays with the frames in it.
func (n *Node) header(c int) []byte {
	if cap(n.tx.buf)-len(n.tx.buf) < c {
		n.tx.buf = make([]byte, 0, min(max(headerBlockMin, 2*cap(n.tx.buf), c), headerBlockMax+c))
	}
	at := len(n.tx.buf)
	n.tx.buf = n.tx.buf[:at+c]
	return n.tx.buf[at : at : at+c]
}

// Sizes of the blocks that headers are made in: they grow with the load, to what a burst of 1000 answers needs.
const (
	headerBlockMin = 4 << 10
	headerBlockMax = 64 << 10
)

// giveBack returns the newest buffer of header unused.
func (n *Node) giveBack(h []byte) { n.tx.buf = n.tx.buf[:len(n.tx.buf)-cap(h)] }

// nextNs returns when Tick has something to do. It is put off by the last Tick only, never by Ready itself: else a node that
// is busy all the time would never be ticked.
func (n *Node) nextNs() int64 {
	t := min(n.group.NextTickNs(), n.inc.nextBeat(n.opt.HeartbeatNs))
	for _, v := range n.vols {
		if v.owner != nil {
			t = min(t, v.owner.NextTickNs())
		}
		if v.nextAnnounce != 0 {
			t = min(t, v.nextAnnounce)
		}
	}
	if r := n.leader.revoke.NextNs(); r != 0 {
		t = min(t, r)
	}
	return max(t, n.tickedNs+ms/2)
}

// leaseValid evaluates the lease with the time of Ready.
func (n *Node) leaseValid() bool { return n.inc.holder != nil && n.inc.holder.Valid(n.now) }

// longSilenceNs is how long the lease may be lost for what was admitted before to be answered afterwards (A.4.1).
const longSilenceNs = second

// followLease drops and leaves everything when the lease is lost, and comes back when the same term is valid again (A.4.10).
func (n *Node) followLease(valid bool) {
	if valid == n.wasValid {
		if !valid && n.now-n.leaseNs > longSilenceNs {
			for _, v := range n.vols {
				if v.owner != nil {
					v.owner.Mute(n.now)
				}
			}
		}
		return
	}
	n.wasValid, n.leaseNs = valid, n.now
	text := "the lease is valid"
	if !valid {
		text = "the lease is not valid: silent"
	}
	n.event(Event{Kind: EventLease, Text: text})
	for _, v := range n.vols {
		if v.owner == nil {
			continue
		}
		if !valid {
			v.owner.DropQueued(n.now)
			v.early = nil // an invalid lease empties the queue (A.4.1)
			n.leaveMACs(v)
			n.runOwner(v) // it may go on: its requests and proposals count, too
			continue
		}
		n.joinMACs(v)
		v.startAnnouncing(n.now)
	}
}
