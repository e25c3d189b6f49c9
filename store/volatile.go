package store

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// VolatileCache returns a Device that keeps what is written in memory until Sync, and only then gives it to dev. A process that is
// killed loses exactly what a power cut could take from a disk with a volatile cache. Tests of whole nodes need it: the kernel
// keeps what a killed process wrote. Closing it drops what was not synced, and closes dev.
func VolatileCache(dev Device) Device {
	return &volatileCache{dev: dev, dirty: map[int64][]byte{}}
}

// volatileCache holds unsynced writes by sector. Its lock is held over dev's reads and writes, so that a reader never finds a
// sector in neither place; Sync of dev itself runs without it.
type volatileCache struct {
	dev    Device
	mu     sync.Mutex
	dirty  map[int64][]byte // by sector number
	failed error            // of a Sync: what became of its writes is unknown (S7)
}

const sectorBytes = 512

// ReadAt reads what was written last.
func (c *volatileCache) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.dev.ReadAt(p, off)
	c.overlay(p[:n], off)
	return n, err
}

// overlay puts what is not synced over what dev has. Under mu.
func (c *volatileCache) overlay(p []byte, off int64) {
	for at := 0; at < len(p) && len(c.dirty) > 0; {
		sector, in := (off+int64(at))/sectorBytes, int((off+int64(at))%sectorBytes)
		part := min(sectorBytes-in, len(p)-at)
		if b := c.dirty[sector]; b != nil {
			copy(p[at:at+part], b[in:])
		}
		at += part
	}
}

// ReadCached reads what was written last, where dev need not be waited for.
func (c *volatileCache) ReadCached(p []byte, off int64) bool {
	if !c.mu.TryLock() { // held while dev is written to
		return false
	}
	defer c.mu.Unlock()
	if !readCached(c.dev, p, off) {
		return false
	}
	c.overlay(p, off)
	return true
}

// WriteAt keeps p, which it copies.
func (c *volatileCache) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > c.dev.Size() {
		return 0, io.ErrShortWrite
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	for at := 0; at < len(p); {
		sector, in := (off+int64(at))/sectorBytes, int((off+int64(at))%sectorBytes)
		part := min(sectorBytes-in, len(p)-at)
		b := c.dirty[sector]
		if b == nil {
			b = make([]byte, sectorBytes)
			if part < sectorBytes {
				if _, err := c.dev.ReadAt(b, sector*sectorBytes); err != nil && !errors.Is(err, io.EOF) {
					return at, err
				}
			}
			c.dirty[sector] = b
		}
		copy(b[in:], p[at:at+part])
		at += part
	}
	return len(p), nil
}

// WriteThrough gives p to dev, and nothing else.
func (c *volatileCache) WriteThrough(p []byte, off int64) (int, error) {
	if off%sectorBytes != 0 || len(p)%sectorBytes != 0 {
		return 0, fmt.Errorf("write %d bytes through at %d: not whole sectors", len(p), off)
	}
	if err := c.forget(off/sectorBytes, (off+int64(len(p)))/sectorBytes); err != nil {
		return 0, err
	}
	n, err := c.dev.WriteThrough(p, off)
	if err != nil {
		c.mu.Lock()
		c.failed = err
		c.mu.Unlock()
	}
	return n, err
}

// forget drops unsynced writes of the sectors [from, to), which are about to be written through.
func (c *volatileCache) forget(from, to int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := from; s < to; s++ {
		delete(c.dirty, s)
	}
	return c.failed
}

// prewrite is dev's own.
func (c *volatileCache) prewrite(off, n int64) error {
	if p, ok := c.dev.(prewriter); ok {
		return p.prewrite(off, n)
	}
	return nil
}

// Sync gives dev all that was written before the call, in order of place, and syncs it.
func (c *volatileCache) Sync() error {
	if err := c.flush(); err != nil {
		return err
	}
	err := c.dev.Sync()
	if err != nil {
		c.mu.Lock()
		c.failed = err
		c.mu.Unlock()
	}
	return err
}

func (c *volatileCache) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return c.failed
	}
	sectors := make([]int64, 0, len(c.dirty))
	for s := range c.dirty {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	var run []byte
	for i, s := range sectors {
		run = append(run, c.dirty[s]...)
		if i+1 < len(sectors) && sectors[i+1] == s+1 && len(run) < 1<<20 {
			continue
		}
		at := (s+1)*sectorBytes - int64(len(run))
		if _, err := c.dev.WriteAt(run[:min(int64(len(run)), c.dev.Size()-at)], at); err != nil {
			c.failed = err
			return err
		}
		run = run[:0]
	}
	clear(c.dirty)
	return nil
}

// Size is dev's.
func (c *volatileCache) Size() int64 { return c.dev.Size() }

// Close closes dev without what was not synced.
func (c *volatileCache) Close() error { return c.dev.Close() }
