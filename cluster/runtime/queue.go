package runtime

import "sync"

// lanes is the queue of messages to one peer: control overtakes data, so that no heartbeat waits behind megabytes; within
// each lane order is kept. Any goroutine may put; one takes.
type lanes[M any] struct {
	mu      sync.Mutex
	control []M
	data    []M
	bytes   int
	max     int
	closed  bool
	bell    chan struct{} // capacity 1
}

func newLanes[M any](maxBytes int) *lanes[M] {
	return &lanes[M]{max: maxBytes, bell: make(chan struct{}, 1)}
}

// put queues a message of about that size; false when there is no room or the queue is closed. Whoever is told false must
// break the stream: a message is missing in it.
func (q *lanes[M]) put(m M, bytes int, control bool) bool {
	q.mu.Lock()
	if q.closed || q.bytes+bytes > q.max {
		q.mu.Unlock()
		return false
	}
	q.bytes += bytes
	if control {
		q.control = append(q.control, m)
	} else {
		q.data = append(q.data, m)
	}
	q.mu.Unlock()
	select {
	case q.bell <- struct{}{}:
	default: // it rings already
	}
	return true
}

// take moves what is queued to dst, all of control and data up to about batchBytes by size; ok is false once the queue is
// closed. It waits for something to take.
func (q *lanes[M]) take(dst []M, batchBytes int, size func(M) int) (out []M, ok bool) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return dst, false
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
		q.mu.Unlock()
		if len(dst) > 0 {
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
	select {
	case q.bell <- struct{}{}:
	default:
	}
}
