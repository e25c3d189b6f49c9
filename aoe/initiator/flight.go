package initiator

// flight holds the data commands that were sent and not answered: in order of
// sending, and by tag.
type flight struct {
	head, tail *command
	count      int
	byTag      [flightBuckets]*command
}

const flightBuckets = 512

func bucketOfTag(tag uint32) int { return int(tag^tag>>16) & (flightBuckets - 1) }

func (f *flight) add(c *command) {
	c.prev, c.next = f.tail, nil
	if f.tail == nil {
		f.head = c
	} else {
		f.tail.next = c
	}
	f.tail = c
	b := bucketOfTag(c.tag)
	c.hashNext = f.byTag[b]
	f.byTag[b] = c
	f.count++
}

func (f *flight) remove(c *command) {
	if c.prev == nil {
		f.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		f.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	at := &f.byTag[bucketOfTag(c.tag)]
	for *at != c {
		at = &(*at).hashNext
	}
	*at = c.hashNext
	c.prev, c.next, c.hashNext = nil, nil, nil
	f.count--
}

func (f *flight) find(tag uint32) *command {
	for c := f.byTag[bucketOfTag(tag)]; c != nil; c = c.hashNext {
		if c.tag == tag {
			return c
		}
	}
	return nil
}

// opList is the operations in order of submission.
type opList struct {
	head, tail *Op
	count      int
}

func (l *opList) push(op *Op) {
	op.prev, op.next = l.tail, nil
	if l.tail == nil {
		l.head = op
	} else {
		l.tail.next = op
	}
	l.tail = op
	l.count++
}

func (l *opList) remove(op *Op) {
	if op.prev == nil {
		l.head = op.next
	} else {
		op.prev.next = op.next
	}
	if op.next == nil {
		l.tail = op.prev
	} else {
		op.next.prev = op.prev
	}
	op.prev, op.next = nil, nil
	l.count--
}

func (l *opList) has(op *Op) bool { return op.prev != nil || l.head == op }
