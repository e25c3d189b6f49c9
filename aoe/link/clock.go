package link

// Clock turns receive times into times since boot for the goroutine that
// receives from one port. Create one for each port; the zero value is ready.
//
// The wall clock can be set at any moment, and then the times of frames that
// wait in a queue mean something else than those of frames to come: a frame
// from before a step backwards would look younger than it is, which is the one
// mistake that must not be made. So Clock reads both clocks after each batch,
// and if their distance has changed it gives up on the batch and on everything
// until the queue was seen empty. Adjusting the clock's rate, as NTP does all
// the time, acts on both clocks alike and changes nothing.
type Clock struct {
	// Boottime is used instead of BoottimeNs, unless it is nil.
	Boottime func() int64

	realtime func() int64 // nil: the system's; set by tests
	offsetNs int64        // realtime minus boottime
	known    bool
	draining bool // frames may be queued whose time is of the old offset
	jumps    uint64
}

const (
	// jumpNs is the change of distance that counts as a jump. Smaller ones are
	// followed silently: they cannot make a frame look much younger.
	jumpNs = 1_000_000
	// bracketNs is how long reading three clocks may take before the reading is
	// repeated, and bracketTries how often: a reading that was interrupted says
	// little about the distance.
	bracketNs    = 50_000
	bracketTries = 8
)

// Convert replaces the times of a batch that Receive just returned by times on
// CLOCK_BOOTTIME and returns the present time on the same clock. Call it after
// every Receive, also after an empty one. If ok is false the times are not to
// be trusted and the frames have to be dropped; their senders send them again.
// No returned time is later than nowNs.
func (c *Clock) Convert(frames []RxFrame) (nowNs int64, ok bool) {
	nowNs, jumped := c.sample()
	if jumped {
		c.draining = true
	}
	if c.draining {
		// Only a call after the one that noticed the jump proves by being
		// empty that nothing older is queued.
		if len(frames) == 0 && !jumped {
			c.draining = false
		}
		return nowNs, false
	}
	for i := range frames {
		frames[i].TimeNs = min(frames[i].TimeNs-c.offsetNs, nowNs)
	}
	return nowNs, true
}

// Jumps returns how often the wall clock was found to have been set.
func (c *Clock) Jumps() uint64 { return c.jumps }

// sample reads the clocks and reports whether their distance has changed.
func (c *Clock) sample() (nowNs int64, jumped bool) {
	realtime, boottime := c.realtime, c.Boottime
	if realtime == nil {
		realtime = RealtimeNs
	}
	if boottime == nil {
		boottime = BoottimeNs
	}
	var width, offset int64
	for try := range bracketTries {
		before := boottime()
		wall := realtime()
		nowNs = boottime()
		if try == 0 || nowNs-before < width {
			width = nowNs - before
			offset = wall - before - width/2
		}
		if width <= bracketNs {
			break
		}
	}
	change := offset - c.offsetNs
	if change < 0 {
		change = -change
	}
	jumped = c.known && change > jumpNs+width
	if jumped {
		c.jumps++
	}
	c.offsetNs, c.known = offset, true
	return nowNs, jumped
}
