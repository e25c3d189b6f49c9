package raftlog

import (
	"errors"
	"fmt"
)

// Memory is the twin of Log without a file, for the simulator. Begin queues batches like a disk that is writing; Complete
// makes the oldest ones durable and visible; Crash loses those that were not.
type Memory struct {
	reader
	queue [][]Batch
	err   error
}

// NewMemory returns an empty one.
func NewMemory() *Memory { return &Memory{} }

// Write makes the batches durable at once: Begin and Complete of everything. After an error all further writes fail.
func (m *Memory) Write(batches ...Batch) error {
	m.Begin(batches...)
	return m.Complete(len(m.queue))
}

// Begin starts to write batches that become durable together.
func (m *Memory) Begin(batches ...Batch) { m.queue = append(m.queue, batches) }

// Pending returns how many Begins are not complete.
func (m *Memory) Pending() int { return len(m.queue) }

// Complete makes the n oldest Begins durable and visible.
func (m *Memory) Complete(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range min(n, len(m.queue)) {
		if m.err != nil {
			return m.err
		}
		next, _, err := m.im.applyAll(m.queue[0])
		if err != nil {
			m.err = fmt.Errorf("raftlog: memory: %w", err)
			return m.err
		}
		m.im = next
		m.queue = m.queue[1:]
	}
	return m.err
}

// errFailed is what Fail makes of the log when no other error is given.
var errFailed = errors.New("raftlog: memory: injected failure")

// Fail makes this and all further writes fail.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err = err; err == nil {
		m.err = errFailed
	}
}

// Crash ends the process that used m and returns what the next one finds: everything complete, and the survivors oldest
// Begins which had reached the disk although nobody was told. m must not be used any more.
func (m *Memory) Crash(survivors int) *Memory {
	m.err = nil
	if err := m.Complete(survivors); err != nil {
		panic(fmt.Sprintf("raftlog: memory: %v", err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{reader: reader{im: m.im}}
}
