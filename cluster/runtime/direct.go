package runtime

// What the core does on a connection itself, without waking a goroutine for it: it reads all that comes, and sends what is little. Large
// amounts are the writer's, beside the core.
const (
	directBytesMax    = 64 << 10
	directMessagesMax = 16
)

// watchPeer begins to read a connection that is the core's to read.
func (r *Runtime) watchPeer(c *peerConn) {
	if c.sock != nil {
		r.poller.Load().Watch(&c.source)
		r.direct = append(r.direct, c)
	}
}

// dropPeer ends what watchPeer began, and lets go of the descriptor. It is called once for each connection.
func (r *Runtime) dropPeer(c *peerConn) {
	if c.sock == nil {
		return
	}
	c.over = true
	r.poller.Load().Unwatch(&c.source)
	for i, x := range r.direct {
		if x == c {
			r.direct = append(r.direct[:i], r.direct[i+1:]...)
			break
		}
	}
	close(c.dropped)
}

// readPeers takes what has come on the connections of which the poller has said that something has.
func (r *Runtime) readPeers() {
	for _, c := range r.direct {
		if c.source.Readable && !c.over {
			c.source.Readable = false
			if err := r.readPeer(c); err != nil {
				c.over = true
				c.end(err)
				r.poller.Load().Unwatch(&c.source) // it would be readable for ever
			}
		}
	}
}

// readPeer takes what has come on a connection: not much more than peerBatchBytes, lest the others wait.
func (r *Runtime) readPeer(c *peerConn) error {
	for taken := 0; taken < peerBatchBytes; {
		room := c.dec.room()
		n, err := c.sock.read(room)
		if err != nil || n == 0 {
			return err
		}
		c.dec.got(n)
		taken += n
		batch, err := c.decode(c.dec)
		r.peerFrames(batch)
		if err != nil || n < len(room) {
			return err // after a short read there is no more
		}
	}
	return nil
}

// end says why a connection that the core reads is over.
func (p *peerConn) end(err error) {
	select {
	case p.ended <- err:
	default: // that has been said
	}
}

// flush sends what is queued, if it is little and the connection takes it at once; else the writer gets it. In the core's goroutine.
func (p *peerConn) flush() {
	if p.sock == nil || p.over {
		p.out.ring()
		return
	}
	var ok bool
	if p.sending, ok = p.out.hold(p.sending[:0], directMessagesMax, directBytesMax); !ok {
		p.out.ring() // its writer is at work, or shall be
		return
	}
	bufs := p.enc.encode(p.sending)
	n, err := p.sock.tryWrite(bufs)
	if err != nil {
		n = 0
		p.end(err)
	}
	p.txBytes.Add(uint64(n))
	p.txMsgs.Add(uint64(len(p.sending)))
	clear(p.sending)
	p.rest = p.rest[:0]
	for _, b := range skip(bufs, n) {
		p.rest = append(p.rest, b...)
	}
	p.out.release(len(p.rest) > 0)
}
