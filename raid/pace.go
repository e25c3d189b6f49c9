package raid

// Pace lets the copying of regions yield to initiators (DESIGN: resync, rebuild and the like share one throttle). All owners of a node
// share one, since they share its processors and disks; one goroutine calls them. The zero value is ready.
//
// While requests of initiators come in, one region is copied at a time, and after each there is a rest of several times what it took: a
// machine that is slowed down by the copying makes it rest longer by itself. A rest is never longer than paceRestMaxNs, so that a disk is
// filled at some 10 MiB a second whatever initiators do: a volume without a spare disk is at risk for so much longer.
//
// It counts nothing, and so cannot be left waiting for a copy that has gone with its owner.
type Pace struct {
	busyNs int64 // when an initiator's request was admitted last, and 1: zero is never
	freeNs int64 // when the next copy may begin while initiators are busy
}

const (
	paceBusyNs    = 50 * ms // so long after a request initiators are busy
	paceRest      = 3       // times as long as a copy took
	paceRestMaxNs = 100 * ms
)

// used notes that an initiator's request was admitted.
func (p *Pace) used(nowNs int64) { p.busyNs = nowNs + 1 }

func (p *Pace) busy(nowNs int64) bool { return p.busyNs != 0 && nowNs < p.busyNs+paceBusyNs }

// may reports whether a copy may begin.
func (p *Pace) may(nowNs int64) bool { return !p.busy(nowNs) || nowNs >= p.freeNs }

// begun notes that a copy has begun; if it never ends, the next one may begin all the same.
func (p *Pace) begun(nowNs int64) { p.freeNs = nowNs + paceRestMaxNs }

// ended notes that a copy has ended that took so long.
func (p *Pace) ended(nowNs, tookNs int64) {
	p.freeNs = nowNs + min(paceRest*max(tookNs, 0), paceRestMaxNs)
}
