package initiator

// pump sends whatever may be sent now.
func (d *Device) pump(nowNs int64) {
	if d.nextDiscoverNs() <= nowNs {
		d.sendDiscover(nowNs)
	}
	if len(d.paths) == 0 || d.down {
		return
	}
	for _, c := range d.controls {
		if c.copies == 0 || nowNs >= c.dueNs {
			d.sendControl(nowNs, c)
		}
	}
	d.pumpResend(nowNs)
	for len(d.queue) > 0 {
		p := d.pickPath(nil)
		if p == nil {
			break
		}
		d.sendData(nowNs, d.cut(), p)
	}
	d.probePaths(nowNs)
}

// pumpResend sends again what timed out, as far as the windows allow.
func (d *Device) pumpResend(nowNs int64) {
	if len(d.resend) == 0 {
		return
	}
	kept := d.resend[:0]
	blocked := false
	for _, c := range d.resend {
		if c.probe {
			if d.resendProbe(nowNs, c) {
				kept = append(kept, c)
			}
			continue
		}
		var p *path
		if !blocked {
			p = d.pickPath(c.path)
			// In ModeLinux a later frame may belong to another, open path.
			blocked = p == nil && d.cfg.Mode != ModeLinux
		}
		if p == nil {
			kept = append(kept, c)
			continue
		}
		d.sendData(nowNs, c, p)
	}
	d.resend = kept
}

// resendProbe handles a probe of ModeLinux that was not answered: slowly again,
// or no more. It says whether the probe still waits.
func (d *Device) resendProbe(nowNs int64, c *command) bool {
	p := c.path
	clear := d.untainted()
	if p.taint == 0 || clear == 0 {
		p.probing = false
		d.recycle(c)
		return false
	}
	at := c.sentNs + int64(p.taint)*d.rtt.rtoNs(1)
	if nowNs < at || !p.room() {
		d.wakeNs = min(d.wakeNs, max(at, nowNs+linuxTickNs))
		return true
	}
	d.sendData(nowNs, c, p)
	return false
}

// probePaths asks the avoided paths whether they are back. The library sends a
// config query; the driver a READ of LBA 0 with a dummy payload, which is why a
// target has to decide by the ATA command alone.
func (d *Device) probePaths(nowNs int64) {
	if d.ops.count == 0 || len(d.paths) < 2 || d.untainted() == 0 {
		return
	}
	for _, p := range d.paths {
		if p.taint == 0 {
			continue
		}
		if d.cfg.Mode == ModeLinux {
			if !p.probing && p.room() {
				p.probing = true
				c := d.newCommand(nil, OpRead)
				c.probe, c.sectors = true, d.sectors
				d.sendData(nowNs, c, p)
			}
			continue
		}
		if at := p.probeNs + d.cfg.RTOMaxNs; p.probeNs != 0 && nowNs < at {
			d.wakeNs = min(d.wakeNs, at)
			continue
		}
		p.probeNs = nowNs
		d.wakeNs = min(d.wakeNs, nowNs+d.cfg.RTOMaxNs)
		from := len(d.arena)
		d.arena = appendDiscover(d.arena, p.mac, d.cfg.MAC, d.cfg.Shelf, d.cfg.Slot, d.queryTag())
		d.emit(p.iface, from, nil)
	}
}

// cut makes the next command of the oldest operation that has some left.
func (d *Device) cut() *command {
	op := d.queue[0]
	c := d.newCommand(op, op.Kind)
	switch op.Kind {
	case OpRead, OpWrite:
		c.sectors = min(d.sectors, op.Sectors()-op.cut)
		c.lba = op.LBA + uint64(op.cut)
		c.data = op.Data[op.cut*SectorBytes:][:c.sectors*SectorBytes]
	case OpIdentify:
		c.sectors, c.data = 1, op.Data
	}
	op.cut += max(1, c.sectors)
	op.left++
	if op.wholeCut() {
		n := copy(d.queue, d.queue[1:])
		d.queue[n] = nil
		d.queue = d.queue[:n]
	}
	return c
}

// probePayload is what the driver's probe carries.
var probePayload [255 * SectorBytes]byte

// sendData sends a data command over a path: for the first time or again.
func (d *Device) sendData(nowNs int64, c *command, p *path) {
	if c.copies == 0 || d.cfg.Mode != ModeIPXE {
		c.tag = d.nextTag(nowNs)
	}
	c.copies++
	c.path, c.sentNs = p, nowNs
	rto := d.rtt.rtoNs(c.copies)
	if d.cfg.Mode == ModeIPXE {
		rto = 250 * millisecond << min(c.copies-1, 10)
	}
	c.dueNs = nowNs + rto
	wake := c.dueNs
	if d.cfg.LinuxTiming {
		wake = nowNs - nowNs%linuxTickNs + linuxTickNs
	}
	d.wakeNs = min(d.wakeNs, wake)
	p.out++
	d.flight.add(c)

	from := len(d.arena)
	d.arena = appendHeader(d.arena, p.mac, d.cfg.MAC, d.cfg.Shelf, d.cfg.Slot, commandATA, c.tag)
	d.arena = appendATA(d.arena, c.kind, c.lba, c.sectors)
	var payload []byte
	switch {
	case c.probe:
		payload = probePayload[:c.sectors*SectorBytes]
	case c.kind == OpWrite:
		payload = c.data
	}
	d.emit(p.iface, from, payload)
	d.noteSent(nowNs, c)
}

// sendControl sends a control command, again under its own tag, over the next
// path: the target can tell a retransmission and give its first answer again.
func (d *Device) sendControl(nowNs int64, c *command) {
	p := d.pickPath(nil)
	if p == nil { // all windows full: control commands are not subject to them
		p = d.paths[d.turn%len(d.paths)]
	}
	c.copies++
	c.path, c.sentNs = p, nowNs
	c.dueNs = nowNs + min(100*millisecond<<min(c.copies-1, 8), max(d.cfg.RTOMaxNs, 100*millisecond))
	d.wakeNs = min(d.wakeNs, c.dueNs)
	command := uint8(commandConfig)
	switch c.kind {
	case OpMask:
		command = commandMask
	case OpReserve:
		command = commandReserve
	}
	from := len(d.arena)
	d.arena = appendHeader(d.arena, p.mac, d.cfg.MAC, d.cfg.Shelf, d.cfg.Slot, command, c.tag)
	d.arena = append(d.arena, c.op.Request...)
	d.emit(p.iface, from, nil)
	d.noteSent(nowNs, c)
}

// sendDiscover broadcasts a query for this volume on all interfaces.
func (d *Device) sendDiscover(nowNs int64) {
	d.stats.Discoveries++
	d.discoverNs = nowNs + d.cfg.DiscoverEachNs
	for iface := range d.cfg.MTUs {
		from := len(d.arena)
		d.arena = appendDiscover(d.arena, broadcast, d.cfg.MAC, d.cfg.Shelf, d.cfg.Slot, d.queryTag())
		d.emit(iface, from, nil)
	}
}

// noteSent counts a copy and tells the hook.
func (d *Device) noteSent(nowNs int64, c *command) {
	op := c.op
	if op == nil {
		return
	}
	if op.FirstNs == 0 {
		op.FirstNs = nowNs
	}
	op.FramesSent++
	if c.copies > 1 {
		op.Resent++
		d.stats.Resent++
	}
	if d.cfg.OnSend != nil {
		d.cfg.OnSend(Copy{Op: op, Tag: c.tag, LBA: c.lba, Sectors: c.sectors, Number: c.copies,
			SentNs: nowNs, Interface: c.path.iface, Dst: c.path.mac})
	}
}

// emit hands out the frame whose header is the arena from an offset on. An
// arena that grows moves, but what was handed out before stays as it was.
func (d *Device) emit(iface, from int, payload []byte) {
	d.stats.FramesSent++
	header := d.arena[from:len(d.arena):len(d.arena)]
	d.eff.Frames = append(d.eff.Frames, Frame{Interface: iface, Header: header, Payload: payload})
}

func (d *Device) userBit() uint32 {
	if d.cfg.KernelTags {
		return 0
	}
	return userTag
}

// nextTag returns a tag for a data frame: 15 bits that count and 16 of the
// clock, as the driver's. Zero means "none" to the driver.
func (d *Device) nextTag(nowNs int64) uint32 {
	for {
		d.tagSeq++
		tag := d.tagSeq&0x7FFF<<16 | uint32(uint16(nowNs/millisecond)) | d.userBit()
		if d.cfg.Mode == ModeIPXE {
			tag = ipxeTag | d.tagSeq&0xFFFF
		}
		if tag != 0 && d.flight.find(tag) == nil {
			return tag
		}
	}
}

// queryTag is the tag of discovery: 0 by the driver.
func (d *Device) queryTag() uint32 { return d.userBit() }

// nextControlTag returns a tag for a control command: it counts from
// Config.TagSeed in the half of the tags that the mode uses.
func (d *Device) nextControlTag() uint32 {
	d.controlTag++
	return d.controlTag&^userTag | d.userBit()
}
