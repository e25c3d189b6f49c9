package initiator

import "clade/aoe"

// path is one way to the volume: a serving MAC seen through an interface. It
// has its own window, in frames, that falls when a frame is lost and grows with
// the answers, up to min(buffer count, MaxOut).
type path struct {
	mac     aoe.MAC
	iface   int
	sectors int // per frame: min(advertised, what the MTU carries)

	limit     int // min(buffer count, MaxOut)
	window    int
	threshold int // up to here +1 per answer, then +1 per window
	countdown int
	out       int // frames in flight

	lastNs    int64 // last frame received from it
	shrunkNs  int64 // last time the window was cut for a single loss
	timeouts  int   // since the last frame received from it
	taint     int   // > 0: avoided while another path is not
	probeNs   int64 // last probe
	probing   bool  // ModeLinux: a probe command is in flight or waits
	everHeard bool
}

// Driver constants: the scorn time and the limit of the taint.
const (
	linuxScornNs  = 10 * second
	linuxTaintMax = 1000
	// libraryTaintTimeouts is how many time-outs without any frame from a path
	// make ModeLibrary try the others.
	libraryTaintTimeouts = 2
)

// setLimit takes an advertised buffer count.
func (p *path) setLimit(bufCount, maxOut int, mode Mode) {
	limit := max(1, min(bufCount, maxOut))
	if p.limit == 0 {
		p.window, p.threshold = limit, limit
		if mode == ModeLinux { // the driver starts with half, growing slowly
			p.window, p.threshold = max(1, limit/2), 0
		}
		p.countdown = limit
	} else if limit < p.window {
		p.window, p.threshold, p.countdown = 1, limit/2, limit
	}
	p.limit = limit
}

// answered grows the window by one answer.
func (p *path) answered() {
	if p.window >= p.limit {
		return
	}
	if p.window < p.threshold {
		p.window++
		return
	}
	if p.out >= p.window-1 {
		if p.countdown--; p.countdown <= 0 {
			p.window++
			p.countdown = p.window
		}
	}
}

// collapse is what the driver does at each time-out, and the library when
// nothing came since the lost frame was sent: from now on one frame at a time.
func (p *path) collapse() {
	if p.window > 1 {
		p.threshold = max(1, p.window/2)
		p.window = 1
	}
}

// shrink halves the window for a frame lost among others that were answered, at
// most once per interval.
func (p *path) shrink(nowNs, intervalNs int64) {
	if nowNs-p.shrunkNs < intervalNs {
		return
	}
	p.shrunkNs = nowNs
	p.threshold = max(1, p.window/2)
	p.window = p.threshold
	p.countdown = p.window
}

// room says whether another frame may leave.
func (p *path) room() bool { return p.out < p.window }

// findPath returns the path with this MAC and interface, or nil.
func (d *Device) findPath(mac aoe.MAC, iface int) *path {
	for _, p := range d.paths {
		if p.mac == mac && p.iface == iface {
			return p
		}
	}
	return nil
}

// maxPaths bounds what a flood of forged discovery answers can make us keep.
const maxPaths = 64

// learnPath takes a config response: a new way to the volume, or news about a
// known one. Paths are never forgotten, as in the driver.
func (d *Device) learnPath(nowNs int64, mac aoe.MAC, iface int, bufCount, sectors int) {
	if d.cfg.Mode == ModeIPXE && len(d.paths) > 0 && (mac != d.paths[0].mac || iface != d.paths[0].iface) {
		return // the first answer fixes the path for the session
	}
	if sectors == 0 {
		sectors = 2 // servers from before the field existed
	}
	p := d.findPath(mac, iface)
	if p == nil {
		if len(d.paths) >= maxPaths {
			return
		}
		p = &path{mac: mac, iface: iface}
		d.paths = append(d.paths, p)
		if d.discoverNs == never {
			d.discoverNs = nowNs + d.cfg.DiscoverEachNs
		}
	}
	p.sectors = max(1, min(sectors, d.mtuSectors(iface)))
	p.setLimit(bufCount, d.cfg.MaxOut, d.cfg.Mode)
	d.sectors = d.paths[0].sectors
	for _, q := range d.paths { // one small path makes all frames small
		d.sectors = min(d.sectors, q.sectors)
	}
	if d.cfg.MaxSectors > 0 {
		d.sectors = min(d.sectors, d.cfg.MaxSectors)
	}
	d.heard(nowNs, p)
}

// mtuSectors is the driver's arithmetic: a frame carries (MTU-36)/512 sectors,
// two where that gives none.
func (d *Device) mtuSectors(iface int) int {
	if n := (d.cfg.MTUs[iface] - ataBytes) / SectorBytes; n > 0 {
		return min(n, 255)
	}
	return 2
}

// heard notes a sign of life.
func (d *Device) heard(nowNs int64, p *path) {
	p.lastNs, p.everHeard, p.timeouts = nowNs, true, 0
	d.lastHeardNs = nowNs
	if d.cfg.Mode != ModeLinux {
		p.taint = 0
	}
}

// noteTimeout judges a path by a frame that was not answered in time.
func (d *Device) noteTimeout(nowNs int64, c *command) {
	p := c.path
	p.timeouts++
	waited := c.waitedNs + nowNs - c.sentNs
	if d.cfg.Mode == ModeLinux {
		limit := linuxScornNs
		if d.cfg.DeadNs > 0 {
			limit = min(limit, d.cfg.DeadNs/int64(max(1, d.untainted())))
		}
		if waited > limit && len(d.paths) > 1 {
			p.taint = min(linuxTaintMax, max(1, p.taint*3))
		}
		p.collapse()
		return
	}
	if p.timeouts >= libraryTaintTimeouts && len(d.paths) > 1 {
		p.taint = 1
	}
	if p.lastNs < c.sentNs {
		p.collapse()
	} else {
		p.shrink(nowNs, d.rtt.rtoNs(1))
	}
}

func (d *Device) untainted() int {
	n := 0
	for _, p := range d.paths {
		if p.taint == 0 {
			n++
		}
	}
	return n
}

// pickPath returns the next path in turn that has room and is not avoided, or
// nil. A frame that is sent again stays with its MAC in ModeLinux as long as
// that is not tainted.
func (d *Device) pickPath(old *path) *path {
	none := d.untainted() == 0
	n := len(d.paths)
	for i := 0; i < n; i++ {
		k := (d.turn + i) % n
		p := d.paths[k]
		if (p.taint > 0 && !none) || !p.room() {
			continue
		}
		if old != nil && d.cfg.Mode == ModeLinux && p.mac != old.mac && (old.taint == 0 || none) {
			continue
		}
		d.turn = (k + 1) % n
		return p
	}
	return nil
}
