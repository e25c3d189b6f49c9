package runtime

import (
	"bufio"
	"fmt"
	"io"
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

// readMessage reads one message and how many bytes it took.
func readMessage(r *bufio.Reader) (*cluster.PeerMessage, int, error) {
	var head [cluster.FrameHeaderBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	n, err := cluster.FrameLength(head[:])
	if err != nil {
		return nil, 0, err
	}
	body := make([]byte, n) // belongs to the message
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, 0, err
	}
	if err := cluster.CheckFrame(head[:], body); err != nil {
		return nil, 0, err
	}
	m, err := cluster.DecodeMessage(body)
	return m, n + len(head), err
}

// wholeMessageBuffered reports whether readMessage would return without waiting.
func wholeMessageBuffered(r *bufio.Reader) bool {
	if r.Buffered() < cluster.FrameHeaderBytes {
		return false
	}
	head, err := r.Peek(cluster.FrameHeaderBytes)
	if err != nil {
		return false
	}
	n, err := cluster.FrameLength(head)
	return err == nil && r.Buffered() >= cluster.FrameHeaderBytes+n
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
