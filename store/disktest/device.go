package disktest

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
)

const sectorBytes = 512

// ErrCrashed is what a device without power answers; ErrLatent what a sector answers that cannot be read.
var (
	ErrCrashed = errors.New("disktest: no power")
	ErrLatent  = errors.New("disktest: latent read error")
)

// Device is a disk in memory with a volatile cache: what was written since the last Sync may be lost, sector by sector, when the
// power fails. All chance comes from its seed. Several goroutines may use it.
type Device struct {
	mu      sync.Mutex
	size    int64
	rng     *rand.Rand
	sectors map[int64]*[sectorBytes]byte // durable; absent: zeros. The arrays are never changed, only replaced
	cache   map[int64]*[sectorBytes]byte // newest version of what is not durable
	pending []write                      // every version of it, in order
	latent  map[int64]bool
	off     bool // no power
	crashAt int  // operation at which the power fails; 0: never
	ops     int
	syncs   int
	through int // writes
}

// write is one sector of a write that is not durable.
type write struct {
	sector int64
	data   *[sectorBytes]byte
}

// New returns a device of sizeBytes zeros.
func New(sizeBytes int64, seed uint64) *Device {
	return &Device{
		size: sizeBytes, rng: rand.New(rand.NewPCG(seed, 0xd15c)),
		sectors: map[int64]*[sectorBytes]byte{}, cache: map[int64]*[sectorBytes]byte{}, latent: map[int64]bool{},
	}
}

// Size returns the bytes the device has.
func (d *Device) Size() int64 { return d.size }

// Close does nothing: the device can be opened again. What was not synced stays in its cache, as after the end of a process.
func (d *Device) Close() error { return nil }

// Ops counts the writes and syncs so far, Syncs the syncs.
func (d *Device) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Through counts the writes that were durable when they returned.
func (d *Device) Through() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.through
}

// Syncs counts the syncs that were done.
func (d *Device) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// ReadAt reads what was written last.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return 0, ErrCrashed
	}
	for at := 0; at < len(p); {
		sector, in := (off+int64(at))/sectorBytes, int((off+int64(at))%sectorBytes)
		if off < 0 || off+int64(at) >= d.size {
			return at, io.EOF
		}
		if d.latent[sector] {
			return at, ErrLatent
		}
		part := min(sectorBytes-in, len(p)-at)
		if b := d.at(sector); b != nil {
			copy(p[at:at+part], b[in:])
		} else {
			clear(p[at : at+part])
		}
		at += part
	}
	return len(p), nil
}

// ReadCached is ReadAt, as if every fourth page were not in memory, nor what cannot be read.
func (d *Device) ReadCached(p []byte, off int64) bool {
	const pageBytes = 4096
	for at := off / pageBytes; at*pageBytes < off+int64(len(p)); at++ {
		if at%4 == 3 {
			return false
		}
	}
	n, err := d.ReadAt(p, off)
	return err == nil && n == len(p)
}

func (d *Device) at(sector int64) *[sectorBytes]byte {
	if b := d.cache[sector]; b != nil {
		return b
	}
	return d.sectors[sector]
}

// WriteAt keeps p in the cache. If the power fails at this operation, any part of it may be there afterwards.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return 0, ErrCrashed
	}
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, io.ErrShortWrite
	}
	for at := 0; at < len(p); {
		sector, in := (off+int64(at))/sectorBytes, int((off+int64(at))%sectorBytes)
		part := min(sectorBytes-in, len(p)-at)
		b := new([sectorBytes]byte)
		if part < sectorBytes {
			if old := d.at(sector); old != nil {
				*b = *old
			}
		}
		copy(b[in:], p[at:at+part])
		d.cache[sector] = b
		d.pending = append(d.pending, write{sector, b})
		delete(d.latent, sector)
		at += part
	}
	if d.count() {
		return 0, ErrCrashed
	}
	return len(p), nil
}

// WriteThrough makes p durable, and nothing else: what the cache holds of other sectors stays there. If the power fails at this
// operation, any sectors of it may be there afterwards.
func (d *Device) WriteThrough(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return 0, ErrCrashed
	}
	if off < 0 || off+int64(len(p)) > d.size || off%sectorBytes != 0 || len(p)%sectorBytes != 0 {
		return 0, io.ErrShortWrite
	}
	first, end := off/sectorBytes, (off+int64(len(p)))/sectorBytes
	for s := first; s < end; s++ {
		b := new([sectorBytes]byte)
		copy(b[:], p[(s-first)*sectorBytes:])
		d.cache[s] = b
		d.pending = append(d.pending, write{s, b})
		delete(d.latent, s)
	}
	if d.count() {
		return 0, ErrCrashed
	}
	d.through++
	rest := d.pending[:0]
	for _, w := range d.pending {
		if w.sector < first || w.sector >= end {
			rest = append(rest, w)
		}
	}
	clear(d.pending[len(rest):])
	d.pending = rest
	for s := first; s < end; s++ {
		d.sectors[s] = d.cache[s]
		delete(d.cache, s)
	}
	return len(p), nil
}

// Sync makes everything durable that was written before.
func (d *Device) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off || d.count() {
		return ErrCrashed
	}
	d.syncs++
	for _, w := range d.pending {
		d.sectors[w.sector] = w.data
	}
	d.forget()
	return nil
}

func (d *Device) forget() {
	clear(d.cache)
	d.pending = nil
}

// count counts an operation and reports whether the power fails at it.
func (d *Device) count() bool {
	d.ops++
	if d.crashAt == 0 || d.ops < d.crashAt {
		return false
	}
	d.lose()
	d.off = true
	return true
}

// CrashAt lets the power fail at the n-th operation from now (write or sync, from 1); 0 disarms it. From then on everything is
// ErrCrashed until PowerOn.
func (d *Device) CrashAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashAt = 0
	if n > 0 {
		d.crashAt = d.ops + n
	}
}

// Crashed reports whether the power has failed.
func (d *Device) Crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// PowerOn brings the device back after CrashAt, with what the crash has left.
func (d *Device) PowerOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off, d.crashAt = false, 0
}

// Crash is a power cut, and power again: of what was not synced some sectors are there, others not.
func (d *Device) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lose()
	d.off, d.crashAt = false, 0
}

// lose decides what of the cache has reached the medium: nothing, all, the first writes, or any sectors, in any version.
func (d *Device) lose() {
	keep := func(int) bool { return false }
	switch d.rng.IntN(5) {
	case 0:
	case 1:
		keep = func(int) bool { return true }
	case 2:
		n := d.rng.IntN(len(d.pending) + 1)
		keep = func(i int) bool { return i < n }
	case 3: // only what came last: later writes overtake earlier ones
		n := d.rng.IntN(len(d.pending) + 1)
		keep = func(i int) bool { return i >= n }
	default:
		chance := d.rng.IntN(100)
		keep = func(int) bool { return d.rng.IntN(100) < chance }
	}
	for i, w := range d.pending {
		if keep(i) {
			d.sectors[w.sector] = w.data
		}
	}
	d.forget()
}

// Latent makes the sectors of [off, off+n) unreadable until they are written.
func (d *Device) Latent(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := off / sectorBytes; s*sectorBytes < off+n; s++ {
		d.latent[s] = true
	}
}

// Rot flips a bit in each sector of [off, off+n), silently.
func (d *Device) Rot(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := off / sectorBytes; s*sectorBytes < off+n; s++ {
		b := new([sectorBytes]byte)
		if old := d.at(s); old != nil {
			*b = *old
		}
		b[d.rng.IntN(sectorBytes)] ^= 1 << d.rng.IntN(8)
		d.put(s, b)
	}
}

// Erase makes [off, off+n) zeros, silently: a write that the drive has lost.
func (d *Device) Erase(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := off / sectorBytes; s*sectorBytes < off+n; s++ {
		d.put(s, new([sectorBytes]byte))
	}
}

func (d *Device) put(s int64, b *[sectorBytes]byte) {
	if d.cache[s] != nil {
		d.cache[s] = b
		d.pending = append(d.pending, write{s, b})
		return
	}
	d.sectors[s] = b
}

// Clone returns a device with the same durable contents and what is in the cache, and another seed: for trying several futures of
// one past, and for rolling back.
func (d *Device) Clone(seed uint64) *Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New(d.size, seed)
	for s, b := range d.sectors { // a map from a map: order does not matter
		c.sectors[s] = b
	}
	for s, b := range d.cache {
		c.cache[s] = b
	}
	for s := range d.latent {
		c.latent[s] = true
	}
	c.pending = slices.Clone(d.pending)
	return c
}
