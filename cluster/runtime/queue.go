package runtime

import "sync"

// lanes is the queue of messages to one peer: control overtakes data, so that no heartbeat waits behind megabytes; within
// each lane order is kept. Any goroutine may put; one takes, or holds what another would take.
type lanes[M any] struct {
	mu      sync.Mutex
	control []M
	data    []M
	bytes   int
	max     int
	closed  bool
	taken   bool          // between a take that returned and the next one
	held    bool          // between hold and release
	behind  bool          // what was held is not all sent: take returns for it
	bell    chan struct{} // capacity 1
}

func newLanes[M any](maxBytes int) *lanes[M] {
	return &lanes[M]{max: maxBytes, bell: make(chan struct{}, 1)}
}

// put queues a message of about that size and rings; false when there is no room or the queue is closed. Whoever is told false
// must break the stream: a message is missing in it.
func (q *lanes[M]) put(m M, bytes int, control bool) bool {
	ok := q.add(m, bytes, control)
	q.ring()
	return ok
}

// add is put without the ring.
func (q *lanes[M]) add(m M, bytes int, control bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+bytes > q.max {
		return false
	}
	q.bytes += bytes
	if control {
		q.control = append(q.control, m)
	} else {
		q.data = append(q.data, m)
	}
	return true
}

// ring wakes whoever takes.
func (q *lanes[M]) ring() {
	select {
	case q.bell <- struct{}{}:
	default: // it rings already
	}
}

// hold moves all that is queued to dst, if that is so little and nobody is sending; whoever is told true must release.
func (q *lanes[M]) hold(dst []M, messagesMax, bytesMax int) ([]M, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.control) + len(q.data)
	if q.closed || q.taken || q.held || q.behind || n == 0 || n > messagesMax || q.bytes > bytesMax {
		return dst, false
	}
	dst = append(append(dst, q.control...), q.data...)
	clear(q.control)
	clear(q.data)
	q.control, q.data, q.bytes, q.held = q.control[:0], q.data[:0], 0, true
	return dst, true
}

// release ends hold; behind says that some of it is left for whoever takes to send first.
func (q *lanes[M]) release(behind bool) {
	q.mu.Lock()
	q.held, q.behind = false, behind
	more := behind || len(q.control)+len(q.data) > 0
	q.mu.Unlock()
	if more {
		q.ring()
	}
}

// take moves what is queued to dst, all of control and data up to about batchBytes by size; ok is false once the queue is
// closed. It waits for something to take, or to be sent that is left of what was held.
func (q *lanes[M]) take(dst []M, batchBytes int, size func(M) int) (out []M, ok bool) {
	for {
		q.mu.Lock()
		if q.taken = false; q.closed {
			q.mu.Unlock()
			return dst, false
		}
		if q.held {
			q.mu.Unlock()
			<-q.bell
			continue
		}
		for _, m := range q.control {
			q.bytes -= size(m)
		}
		dst = append(dst, q.control...)
		clear(q.control)
		q.control = q.control[:0]
		n, bytes := 0, 0
		for n < len(q.data) && bytes < batchBytes {
			bytes += size(q.data[n])
			n++
		}
		q.bytes -= bytes
		dst = append(dst, q.data[:n]...)
		rest := copy(q.data, q.data[n:])
		clear(q.data[rest:])
		q.data = q.data[:rest]
		q.taken = len(dst) > 0 || q.behind
		q.behind = false
		taken := q.taken
		q.mu.Unlock()
		if taken {
			return dst, true
		}
		<-q.bell
	}
}

// queued returns how many bytes wait.
func (q *lanes[M]) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// close drops what waits and ends take.
func (q *lanes[M]) close() {
	q.mu.Lock()
	q.closed = true
	q.control, q.data, q.bytes = nil, nil, 0
	q.mu.Unlock()
	q.ring()
}
