package initiator

// ataReply matches an answer to a data command by its tag alone: neither the
// source MAC nor the interface has to be the one asked, as in the driver.
func (d *Device) ataReply(nowNs int64, r *reply) {
	if r.failed && d.dropError(r) {
		return
	}
	c := d.flight.find(r.tag)
	if c == nil {
		if c = d.findWaiting(r.tag); c == nil {
			d.unexpected(nowNs, r.tag)
			return
		}
	}
	if !r.failed && len(r.body) < ataBytes-headerBytes {
		d.stats.Ignored++
		return
	}
	d.stats.Answers++
	if d.cfg.Mode != ModeIPXE {
		d.rtt.sample(nowNs - c.sentNs)
	}
	c.path.answered()
	if c.probe {
		d.probeAnswered(c)
		return
	}
	op := c.op
	if err := d.judge(c, r); err != nil {
		d.finish(nowNs, op, err)
		return
	}
	if c.kind == OpIdentify && d.cfg.LinuxTiming {
		d.rtt.reset() // the driver forgets its estimate at each IDENTIFY
	}
	d.takeOut(c)
	d.recycle(c)
	if op.left--; op.left == 0 && op.wholeCut() {
		d.finish(nowNs, op, nil)
	}
}

// judge says whether an answer ends its operation badly; the data of a read is
// taken over.
func (d *Device) judge(c *command, r *reply) error {
	if r.failed {
		return &ProtocolError{Shelf: d.cfg.Shelf, Slot: d.cfg.Slot, Code: r.code}
	}
	if status := r.body[offATAStatus-headerBytes]; status&ataStatusBad != 0 {
		return &ATAError{Shelf: d.cfg.Shelf, Slot: d.cfg.Slot, LBA: c.lba, Sectors: c.sectors,
			Write: c.kind == OpWrite, Status: status, Err: r.body[offATAErr-headerBytes]}
	}
	if c.kind == OpRead || c.kind == OpIdentify {
		data := r.body[ataBytes-headerBytes:]
		if len(data) < len(c.data) {
			return ErrRunt
		}
		copy(c.data, data)
	}
	return nil
}

// dropError says whether an answer with the error flag is treated as if it had
// been lost: all of them by the driver, "unavailable" by everybody but iPXE.
func (d *Device) dropError(r *reply) bool {
	d.stats.AoEErrors++
	return d.cfg.IgnoreErrors || r.code == codeUnavailable && d.cfg.Mode != ModeIPXE
}

// findWaiting finds a command that timed out and was not sent again yet: an
// answer to its last copy is as good as before.
func (d *Device) findWaiting(tag uint32) *command {
	for _, c := range d.resend {
		if c.tag == tag {
			return c
		}
	}
	return nil
}

// takeOut removes a command from where it is: in flight or waiting.
func (d *Device) takeOut(c *command) {
	if d.flight.find(c.tag) == c {
		d.land(c)
		return
	}
	for i, w := range d.resend {
		if w == c {
			d.resend = append(d.resend[:i], d.resend[i+1:]...)
			return
		}
	}
}

// unexpected counts an answer to a superseded tag. Its age, from the clock in
// the low half of the tag, still tells how slow the target is.
func (d *Device) unexpected(nowNs int64, tag uint32) {
	d.stats.Unexpected++
	if d.cfg.Mode == ModeIPXE || tag&userTag != d.userBit() {
		return
	}
	ageMs := int64(uint16(nowNs/millisecond) - uint16(tag))
	if ageMs < 30_000 { // beyond, the 16 bits may have wrapped
		d.rtt.sample(ageMs * millisecond)
	}
}

// controlReply matches the answer to a config, mask or reserve command.
func (d *Device) controlReply(nowNs int64, r *reply, kind OpKind) {
	for i, c := range d.controls {
		if c.tag != r.tag || c.kind != kind || c.copies == 0 {
			continue
		}
		if r.failed && r.code == codeUnavailable {
			d.stats.AoEErrors++
			return
		}
		d.stats.Answers++
		op := c.op
		op.Reply = append([]byte(nil), r.body...)
		var err error
		if r.failed {
			d.stats.AoEErrors++
			err = &ProtocolError{Shelf: d.cfg.Shelf, Slot: d.cfg.Slot, Code: r.code}
		}
		d.controls = append(d.controls[:i], d.controls[i+1:]...)
		d.recycle(c)
		op.left = 0
		d.finish(nowNs, op, err)
		return
	}
	if r.command != commandConfig { // config answers come unasked too: beacons
		d.stats.Unexpected++
	}
}

// probeAnswered lowers the taint of a path by one, as the driver does; the probe
// goes on until none is left.
func (d *Device) probeAnswered(c *command) {
	p := c.path
	if p.taint > 0 {
		p.taint--
	}
	p.probing = false
	d.takeOut(c)
	d.recycle(c)
}
