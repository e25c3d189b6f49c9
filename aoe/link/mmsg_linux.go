package link

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// golang.org/x/sys has no wrapper for recvmmsg and sendmmsg: this file is one,
// with all arrays made once.

// mmsghdr is struct mmsghdr of recvmmsg(2): the kernel stores in n the bytes
// received or sent. Go pads it like C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// controlBytes is room for one SCM_TIMESTAMPNS control message.
const controlBytes = 64

// slicesMax is UIO_MAXIOV: what the kernel takes for one frame.
const slicesMax = 1024

// rxRing is where one socket's frames are received: one buffer a message.
type rxRing struct {
	etherType uint16
	msgs      []mmsghdr
	iovs      []unix.Iovec
	controls  []byte
	buf       []byte
	stride    int
}

func newRxRing(etherType uint16, batch, frameBytes int) *rxRing {
	r := &rxRing{
		etherType: etherType,
		msgs:      make([]mmsghdr, batch),
		iovs:      make([]unix.Iovec, batch),
		controls:  make([]byte, batch*controlBytes),
	}
	r.resize(frameBytes)
	return r
}

// resize replaces the buffers by ones for frames of up to frameBytes.
func (r *rxRing) resize(frameBytes int) {
	const cacheLine = 64
	r.stride = (frameBytes + cacheLine - 1) &^ (cacheLine - 1)
	r.buf = make([]byte, len(r.msgs)*r.stride)
	for i := range r.msgs {
		r.iovs[i].Base = &r.buf[i*r.stride]
		r.iovs[i].SetLen(r.stride)
		h := &r.msgs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i*controlBytes]
	}
}

// rxResult is what one call of receive did besides filling frames.
type rxResult struct {
	taken   int // messages taken from the socket
	frames  int // of these, handed out
	bytes   int
	bad     int  // of these, dropped
	tooLong bool // some were cut off: the MTU has grown
	errno   syscall.Errno
}

// receive takes up to len(frames) frames from fd without waiting. An empty
// queue is no error.
func (r *rxRing) receive(fd int, frames []RxFrame) (res rxResult) {
	want := min(len(frames), len(r.msgs))
	if want == 0 {
		return res
	}
	for i := range r.msgs[:want] { // the kernel overwrites these
		r.msgs[i].hdr.SetControllen(controlBytes)
		r.msgs[i].hdr.Flags = 0
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.msgs[0])),
			uintptr(want), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			res.taken = int(n)
			break
		}
		if errno == unix.EINTR {
			continue
		}
		if errno != unix.EAGAIN {
			res.errno = errno
		}
		return res
	}
	for i := range r.msgs[:res.taken] {
		m := &r.msgs[i]
		timeNs := r.timeNs(i)
		if m.hdr.Flags&unix.MSG_TRUNC != 0 {
			res.tooLong = true
		}
		if m.hdr.Flags&unix.MSG_TRUNC != 0 || timeNs == 0 {
			res.bad++
			continue
		}
		data := r.buf[i*r.stride : i*r.stride+int(m.n) : (i+1)*r.stride]
		frames[res.frames] = RxFrame{Data: data, TimeNs: timeNs, Type: r.etherType}
		res.frames++
		res.bytes += int(m.n)
	}
	return res
}

// timeNs returns the kernel's receive time of message i, 0 if there is none.
func (r *rxRing) timeNs(i int) int64 {
	if int(r.msgs[i].hdr.Controllen) < unix.CmsgSpace(16) {
		return 0
	}
	control := unsafe.Pointer(&r.controls[i*controlBytes])
	c := (*unix.Cmsghdr)(control)
	if c.Level != unix.SOL_SOCKET || c.Type != unix.SO_TIMESTAMPNS_NEW {
		return 0
	}
	t := (*[2]int64)(unsafe.Add(control, unix.CmsgLen(0))) // seconds, nanoseconds: 64 bits each on every architecture
	return t[0]*1e9 + t[1]
}

// txRing is where frames are gathered for sendmmsg.
type txRing struct {
	msgs  []mmsghdr
	iovs  []unix.Iovec
	index []int // which message uses which frame's first slice: iovs[index[i]:]
}

func newTxRing(batch int) *txRing {
	return &txRing{
		msgs:  make([]mmsghdr, batch),
		iovs:  make([]unix.Iovec, 0, 4*batch),
		index: make([]int, batch),
	}
}

// fill takes as many frames as fit the ring and returns how many it consumed,
// how many messages these made, and how many it refused because no interface
// could send them.
func (t *txRing) fill(frames []TxFrame) (consumed, messages, bad int) {
	t.iovs = t.iovs[:0]
	for i := range frames {
		if messages == len(t.msgs) {
			break
		}
		f := &frames[i]
		consumed++
		if f.Bytes() < HeaderBytes || len(f.Payload)+1 > slicesMax {
			bad++
			continue
		}
		t.index[messages] = len(t.iovs)
		t.add(f.Header)
		for _, p := range f.Payload {
			t.add(p)
		}
		messages++
	}
	// The slice does not move any more: now it can be pointed into.
	for m := range t.msgs[:messages] {
		end := len(t.iovs)
		if m+1 < messages {
			end = t.index[m+1]
		}
		h := &t.msgs[m].hdr
		h.Iov = &t.iovs[t.index[m]]
		h.SetIovlen(end - t.index[m])
	}
	return consumed, messages, bad
}

func (t *txRing) add(p []byte) {
	if len(p) == 0 {
		return
	}
	t.iovs = append(t.iovs, unix.Iovec{Base: &p[0]})
	t.iovs[len(t.iovs)-1].SetLen(len(p))
}

// send passes messages from..to to the kernel without waiting and returns how
// many it took and how many bytes these were. An error concerns message from+n.
func (t *txRing) send(fd, from, to int) (n, bytes int, errno syscall.Errno) {
	for {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&t.msgs[from])),
			uintptr(to-from), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, 0, errno
		}
		for i := range t.msgs[from : from+int(sent)] {
			bytes += int(t.msgs[from+i].n)
		}
		return int(sent), bytes, 0
	}
}

// release forgets the frames of the last fill.
func (t *txRing) release() {
	clear(t.iovs)
	t.iovs = t.iovs[:0]
}
