package link

import "sync"

// frameQueue is a bounded queue of frames between goroutines, for the ports
// that have no socket to do it. Buffers go round: nothing is allocated once a
// queue has been as full as it gets.
type frameQueue struct {
	limitBytes  int // 0: none
	limitFrames int // 0: none

	mu     sync.Mutex
	frames []RxFrame // waiting, oldest first from head
	head   int
	bytes  int
	lent   [][]byte // handed out by the last take
	free   [][]byte
}

// put copies a frame into the queue. False: it is full.
func (q *frameQueue) put(data []byte, timeNs int64, etherType uint16) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := len(q.frames) - q.head
	if q.limitFrames > 0 && waiting >= q.limitFrames || q.limitBytes > 0 && q.bytes+len(data) > q.limitBytes {
		return false
	}
	var buf []byte
	if n := len(q.free); n > 0 {
		buf, q.free = q.free[n-1], q.free[:n-1]
	}
	q.frames = append(q.frames, RxFrame{Data: append(buf[:0], data...), TimeNs: timeNs, Type: etherType})
	q.bytes += len(data)
	return true
}

// take moves frames out, oldest first, and takes those of the last call back.
func (q *frameQueue) take(frames []RxFrame) (n, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = append(q.free, q.lent...)
	q.lent = q.lent[:0]
	n = copy(frames, q.frames[q.head:])
	for i := range frames[:n] {
		q.lent = append(q.lent, frames[i].Data)
		bytes += len(frames[i].Data)
	}
	q.bytes -= bytes
	if q.head += n; q.head == len(q.frames) {
		q.frames, q.head = q.frames[:0], 0
	} else if q.head > len(q.frames)/2 {
		q.frames = append(q.frames[:0], q.frames[q.head:]...)
		q.head = 0
	}
	return n, bytes
}

func (q *frameQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.frames)
}

// discard forgets what waits. Frames handed out stay valid.
func (q *frameQueue) discard() (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.frames[q.head:] {
		q.free = append(q.free, f.Data)
	}
	dropped = len(q.frames) - q.head
	q.frames, q.head, q.bytes = q.frames[:0], 0, 0
	return dropped
}
