package initiator

// expireOps ends the operations whose deadline has come, and all of them when
// the device has been silent for DeadNs.
func (d *Device) expireOps(nowNs int64) {
	for op := d.ops.head; op != nil; {
		next := op.next
		switch {
		case op.DeadlineNs > 0 && nowNs >= op.DeadlineNs:
			d.finish(nowNs, op, ErrTimeout)
		case op.DeadlineNs > 0:
			d.wakeNs = min(d.wakeNs, op.DeadlineNs)
		}
		op = next
	}
}

// expireCommands takes the data commands out of flight that were not answered in
// time. They wait in resend for their path's window.
func (d *Device) expireCommands(nowNs int64) {
	if d.cfg.LinuxTiming {
		if d.flight.head == nil {
			return
		}
		if at := d.tickedNs + linuxTickNs; nowNs < at {
			d.wakeNs = min(d.wakeNs, at)
			return
		}
		// The driver's timer runs freely; only its phase is kept.
		d.tickedNs = nowNs - nowNs%linuxTickNs
		d.wakeNs = min(d.wakeNs, d.tickedNs+linuxTickNs)
	}
	linuxRTO := d.rtt.rtoNs(1)
	for c := d.flight.head; c != nil; {
		next := c.next
		due := c.dueNs
		if d.cfg.LinuxTiming { // judged by today's estimate
			due = c.sentNs + linuxRTO
		}
		if nowNs < due {
			if !d.cfg.LinuxTiming {
				d.wakeNs = min(d.wakeNs, due)
			}
			c = next
			continue
		}
		if d.timedOut(nowNs, c) {
			return
		}
		c = next
	}
}

// timedOut handles one late command; true if that ended the device.
func (d *Device) timedOut(nowNs int64, c *command) bool {
	d.stats.Timeouts++
	waited := c.waitedNs + nowNs - c.sentNs
	if !c.probe {
		if d.cfg.DeadNs > 0 && waited > d.cfg.DeadNs {
			d.goDown(nowNs)
			return true
		}
		if d.cfg.Mode == ModeIPXE && c.dueNs-c.sentNs > 10*second {
			d.finish(nowNs, c.op, ErrTimeout)
			return false
		}
		d.noteTimeout(nowNs, c)
	}
	d.land(c)
	c.waitedNs = waited
	d.resend = append(d.resend, c)
	return false
}

// goDown fails everything, as the driver does after aoe_deadsecs.
func (d *Device) goDown(nowNs int64) {
	d.down = true
	for d.ops.head != nil {
		d.finish(nowNs, d.ops.head, ErrDown)
	}
	for _, c := range d.resend { // probes
		c.path.probing = false
		d.recycle(c)
	}
	d.resend = d.resend[:0]
}

// expireControls makes control commands due again.
func (d *Device) expireControls(nowNs int64) {
	for _, c := range d.controls {
		if c.copies > 0 && nowNs < c.dueNs {
			d.wakeNs = min(d.wakeNs, c.dueNs)
		}
	}
}

// nextDiscoverNs is when the next broadcast Query Config is due.
func (d *Device) nextDiscoverNs() int64 {
	if d.ops.count == 0 && d.discoverNs != 0 {
		return never // nobody waits for an answer
	}
	if len(d.paths) == 0 {
		return d.discoverNs
	}
	if d.discoverNs == 0 {
		return 0
	}
	if d.cfg.Mode == ModeIPXE {
		return never
	}
	// Something is owed and no path has said anything for a while: perhaps the
	// volume has another MAC now.
	return max(d.discoverNs, max(d.lastHeardNs, d.ops.head.SubmitNs)+2*d.cfg.RTOMaxNs)
}
