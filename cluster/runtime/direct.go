package runtime

import (
	"net"

	"golang.org/x/sys/unix"
)

// What the core sends itself, without waking a connection's writer: that would take longer than a small message takes to send.
const (
	directBytesMax    = 64 << 10
	directMessagesMax = 16
)

// flush sends what is queued, if it is little and the connection takes it at once; else the writer gets it. In the core's goroutine.
func (p *peerConn) flush() {
	if p.raw == nil {
		p.out.ring()
		return
	}
	var ok bool
	if p.sending, ok = p.out.hold(p.sending[:0], directMessagesMax, directBytesMax); !ok {
		p.out.ring() // its writer is at work, or shall be
		return
	}
	p.bufs = p.enc.encode(p.sending)
	p.sent = 0
	if err := p.raw.Write(p.writeOnce); err != nil {
		p.sent = 0 // the writer meets the error, and ends the connection
	}
	p.txBytes.Add(uint64(p.sent))
	p.txMsgs.Add(uint64(len(p.sending)))
	clear(p.sending)
	p.rest = unsent(p.rest[:0], p.bufs, p.sent)
	p.out.release(len(p.rest) > 0)
}

// tryWrite is one attempt to write p.bufs.
func (p *peerConn) tryWrite(fd uintptr) bool {
	n, err := unix.Writev(int(fd), p.bufs)
	if err == nil {
		p.sent = n
	}
	return true // what did not go is the writer's
}

// unsent appends what follows the first n bytes of bufs to dst.
func unsent(dst []byte, bufs net.Buffers, n int) []byte {
	for _, b := range bufs {
		skip := min(n, len(b))
		n -= skip
		dst = append(dst, b[skip:]...)
	}
	return dst
}
