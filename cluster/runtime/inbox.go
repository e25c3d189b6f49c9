package runtime

import "sync"

// inbox collects what other goroutines have for the core: one slice under one lock, swapped out whole at each turn, in order
// of arrival. It has no bound of its own; each producer bounds what it has in it (peer readers by bytes, disks by the
// requests they were given, the admin server by its connections).
type inbox struct {
	mu     sync.Mutex
	items  []any
	spare  []any
	closed bool
	wake   func() // never nil once the core runs; must not block
}

// put appends an item and wakes the core; false after close.
func (b *inbox) put(item any) bool {
	first, ok := b.add(item)
	if first {
		b.wake()
	}
	return ok
}

// add is put by the core itself, which looks into the inbox before it sleeps. It returns whether the inbox was empty, and false after close.
func (b *inbox) add(item any) (first, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, false
	}
	b.items = append(b.items, item)
	return len(b.items) == 1, true
}

// take returns all items; the slice is valid until the next take.
func (b *inbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	clear(b.spare) // what was returned last
	b.items, b.spare = b.spare[:0], items
	return items
}

// waiting reports whether there is anything to take.
func (b *inbox) waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) > 0
}

// close refuses all further items.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.items = nil
	b.mu.Unlock()
}
