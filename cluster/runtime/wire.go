package runtime

import (
	"fmt"
	"net"

	"clade/cluster"
	"clade/raid"
)

// encoder turns messages into what one writev sends. Headers are written into buffers that it keeps; blocks are gathered.
type encoder struct {
	heads [][]byte
	bufs  net.Buffers
}

// encode returns the frames of msgs; they are valid until the next call. The message itself is our own: what cannot be
// encoded is a broken invariant.
func (e *encoder) encode(msgs []*cluster.PeerMessage) net.Buffers {
	bufs := e.bufs[:0]
	for len(e.heads) < len(msgs) {
		e.heads = append(e.heads, make([]byte, 0, 256))
	}
	for i, m := range msgs {
		head, payload, err := cluster.EncodeMessage(e.heads[i][:0], m)
		if err != nil {
			panic(fmt.Sprintf("runtime: own message: %v", err))
		}
		if cap(head) <= 16<<10 {
			e.heads[i] = head
		}
		bufs = append(append(bufs, head), payload...)
	}
	e.bufs = bufs
	return bufs
}

const (
	readBufferBytes = 256 << 10
	// longBytes is from which length on a message of which only a part has come is received where it will stay.
	longBytes = 32 << 10
)

// decoder cuts what a connection brings into messages: what has been read into room is told with got, and comes out of next.
type decoder struct {
	buf      []byte
	from, to int // of buf: what has come and is not taken
	head     [cluster.FrameHeaderBytes]byte
	body     []byte // of a long message of which a part has come, nil: none
	have     int    // how much of body
}

func newDecoder() *decoder { return &decoder{buf: make([]byte, readBufferBytes)} }

// room returns where to read to; it is never empty after next has returned nil.
func (d *decoder) room() []byte {
	if d.body != nil {
		return d.body[d.have:]
	}
	return d.buf[d.to:]
}

// got says that n bytes of room have been filled.
func (d *decoder) got(n int) {
	if d.body != nil {
		d.have += n
		return
	}
	d.to += n
}

// next returns a message that has come as a whole, and how many bytes it took; nil and no error if there is none.
func (d *decoder) next() (*cluster.PeerMessage, int, error) {
	if d.body == nil {
		whole, err := d.begin()
		if err != nil || !whole {
			return nil, 0, err
		}
	}
	if d.have < len(d.body) {
		return nil, 0, nil
	}
	body := d.body // belongs to the message
	d.body, d.have = nil, 0
	if err := cluster.CheckFrame(d.head[:], body); err != nil {
		return nil, 0, err
	}
	m, err := cluster.DecodeMessage(body)
	return m, len(body) + len(d.head), err
}

// begin makes body that of the next message, if that has come as a whole or is long.
func (d *decoder) begin() (bool, error) {
	in := d.buf[d.from:d.to]
	n := 0
	if len(in) >= len(d.head) {
		var err error
		if n, err = cluster.FrameLength(in); err != nil {
			return false, err
		}
	}
	need := n + len(d.head)
	if len(in) < len(d.head) || len(in) < need && n < longBytes {
		if d.from+need > len(d.buf) { // no place for the rest behind it
			d.from, d.to = 0, copy(d.buf, in)
		}
		return false, nil
	}
	d.head = [cluster.FrameHeaderBytes]byte(in)
	in = in[len(d.head):min(len(in), need)]
	if len(in) == n {
		d.body = append(make([]byte, 0, n), in...)
	} else {
		d.body = make([]byte, n)
		copy(d.body, in)
	}
	d.have = len(in)
	if d.from += len(d.head) + len(in); d.from == d.to {
		d.from, d.to = 0, 0
	}
	return true, nil
}

// messageBytes estimates a message's size for the queue's bound.
func messageBytes(m *cluster.PeerMessage) int {
	const small = 256
	switch {
	case m.Request != nil:
		n := small + len(m.Request.Blocks)*raid.BlockBytes
		if m.Request.Rec != nil {
			n += len(m.Request.Rec.Blocks)*raid.BlockBytes + len(m.Request.Rec.Reqs)*64
		}
		return n
	case m.Reply != nil:
		return small + len(m.Reply.Blocks)*raid.BlockBytes + len(m.Reply.Regions)*8
	case m.Raft != nil:
		n := small + len(m.Raft.GetSnapshot().GetData())
		for _, e := range m.Raft.GetEntries() {
			n += len(e.GetData()) + 32
		}
		return n
	}
	return small
}

// isControl reports whether a message may overtake data: the lease and Raft must not wait behind megabytes. None of them has
// an order against requests and replies, which take the way over other nodes as well.
func isControl(m *cluster.PeerMessage) bool { return m.Request == nil && m.Reply == nil }
