package store

import (
	"errors"
	"sync"
)

// FaultDevice makes a device fail on demand. The zero faults are none. It may be used by several goroutines.
type FaultDevice struct {
	Device
	mu      sync.Mutex
	faults  Faults
	started struct { // by StartThrough
		n   int
		off int64
	}
}

// Faults are the errors that a FaultDevice returns instead of doing what it is asked: EIO, ENOSPC, or whatever a test needs.
type Faults struct {
	Read  error
	Write error
	Sync  error
	From  int64 // reads and writes that touch [From, To) fail; To = 0: all
	To    int64
}

// NewFaultDevice returns dev without faults.
func NewFaultDevice(dev Device) *FaultDevice { return &FaultDevice{Device: dev} }

// Set replaces the faults.
func (d *FaultDevice) Set(f Faults) {
	d.mu.Lock()
	d.faults = f
	d.mu.Unlock()
}

func (d *FaultDevice) current() Faults {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.faults
}

func (f *Faults) hit(n int, off int64) bool {
	return f.To == 0 || off < f.To && off+int64(n) > f.From
}

// ReadAt fails with Faults.Read in the range.
func (d *FaultDevice) ReadAt(p []byte, off int64) (int, error) {
	if f := d.current(); f.Read != nil && f.hit(len(p), off) {
		return 0, f.Read
	}
	return d.Device.ReadAt(p, off)
}

// ReadCached is the device's own, but false in the range.
func (d *FaultDevice) ReadCached(p []byte, off int64) bool {
	if f := d.current(); f.Read != nil && f.hit(len(p), off) {
		return false
	}
	return readCached(d.Device, p, off)
}

// WriteAt fails with Faults.Write in the range.
func (d *FaultDevice) WriteAt(p []byte, off int64) (int, error) {
	if f := d.current(); f.Write != nil && f.hit(len(p), off) {
		return 0, f.Write
	}
	return d.Device.WriteAt(p, off)
}

// WriteThrough fails with Faults.Write in the range, and with Faults.Sync.
func (d *FaultDevice) WriteThrough(p []byte, off int64) (int, error) {
	if err := d.throughFault(len(p), off); err != nil {
		return 0, err
	}
	return d.Device.WriteThrough(p, off)
}

func (d *FaultDevice) throughFault(n int, off int64) error {
	f := d.current()
	if f.Write != nil && f.hit(n, off) {
		return f.Write
	}
	return f.Sync
}

// StartThrough is the device's own, but false where WriteThrough would fail.
func (d *FaultDevice) StartThrough(p []byte, off int64, bell int) bool {
	s, ok := d.Device.(starter)
	if !ok || d.throughFault(len(p), off) != nil {
		return false
	}
	d.started.n, d.started.off = len(p), off
	return s.StartThrough(p, off, bell)
}

// EndThrough fails as WriteThrough would by now, when what was started has ended.
func (d *FaultDevice) EndThrough(wait bool) (int, error) {
	n, err := d.Device.(starter).EndThrough(wait)
	if errors.Is(err, errUnderWay) || errors.Is(err, errAgain) {
		return n, err
	}
	if ferr := d.throughFault(d.started.n, d.started.off); ferr != nil {
		return 0, ferr
	}
	return n, err
}

// uncache is the device's own.
func (d *FaultDevice) uncache(off, n int64) { uncache(d.Device, off, n) }

// Prefetch is the device's own.
func (d *FaultDevice) Prefetch(off, n int64) { prefetch(d.Device, off, n) }

// InMemory is the device's own.
func (d *FaultDevice) InMemory() bool { return inMemory(d.Device) }

// Sync fails with Faults.Sync.
func (d *FaultDevice) Sync() error {
	if f := d.current(); f.Sync != nil {
		return f.Sync
	}
	return d.Device.Sync()
}

// prewrite is the device's own.
func (d *FaultDevice) prewrite(off, n int64) error {
	if p, ok := d.Device.(prewriter); ok {
		return p.prewrite(off, n)
	}
	return nil
}
