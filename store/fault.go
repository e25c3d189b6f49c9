package store

import "sync"

// FaultDevice makes a device fail on demand. The zero faults are none. It may be used by several goroutines.
type FaultDevice struct {
	Device
	mu     sync.Mutex
	faults Faults
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
	f := d.current()
	if f.Write != nil && f.hit(len(p), off) {
		return 0, f.Write
	}
	if f.Sync != nil {
		return 0, f.Sync
	}
	return d.Device.WriteThrough(p, off)
}

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
