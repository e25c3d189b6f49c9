package initiator

// estimator turns answer times into the time after which a frame is sent
// again. Two arithmetics: the one of RFC 6298 with a minimum and a ceiling,
// and the Linux driver's, in microseconds, whose deviation is weighted with 8
// and which has neither.
type estimator struct {
	linux                     bool
	minNs, startNs, maxNs     int64
	srttNs, devNs             int64 // library
	samples                   int
	avgScaledUs, devScaledUs  int64 // Linux: scaled by 2^8 and 2^3
	minRTTNs, maxRTTNs, count int64
}

// The driver's scales and start values: 250 ms and 2 s.
const (
	linuxAvgShift = 8
	linuxDevShift = 3
	linuxAvgStart = (1_000_000 / 4) << linuxAvgShift
	linuxDevStart = linuxAvgStart / 4
	// linuxTickNs is how often the driver looks at its timers.
	linuxTickNs = 100 * millisecond
)

func newEstimator(c *Config) estimator {
	e := estimator{linux: c.LinuxTiming, minNs: c.RTOMinNs, startNs: c.RTOStartNs, maxNs: c.RTOMaxNs}
	e.reset()
	return e
}

// reset forgets what was learned: the driver does at each IDENTIFY.
func (e *estimator) reset() {
	e.avgScaledUs, e.devScaledUs = linuxAvgStart, linuxDevStart
	e.srttNs, e.devNs, e.samples = 0, 0, 0
}

// sample takes one answer time.
func (e *estimator) sample(rttNs int64) {
	if rttNs < 0 {
		return
	}
	if e.count == 0 || rttNs < e.minRTTNs {
		e.minRTTNs = rttNs
	}
	e.maxRTTNs = max(e.maxRTTNs, rttNs)
	e.count++

	diff := rttNs/microsecond - e.avgScaledUs>>linuxAvgShift
	e.avgScaledUs += diff
	e.devScaledUs += abs(diff) - e.devScaledUs>>linuxDevShift

	if e.samples++; e.samples == 1 {
		e.srttNs, e.devNs = rttNs, rttNs/2
		return
	}
	e.devNs += (abs(e.srttNs-rttNs) - e.devNs) / 4
	e.srttNs += (rttNs - e.srttNs) / 8
}

// rtoNs is the time-out of a frame that is sent for the n-th time (n >= 1).
func (e *estimator) rtoNs(n int) int64 {
	if e.linux {
		us := 2*e.avgScaledUs>>linuxAvgShift + 8*e.devScaledUs>>linuxDevShift
		return max(us, 1) * microsecond
	}
	rto := e.startNs
	if e.samples > 0 {
		rto = min(max(e.srttNs+4*e.devNs, e.minNs), e.maxNs)
	}
	for ; n > 1 && rto < e.maxNs; n-- {
		rto *= 2
	}
	return min(rto, max(e.maxNs, e.startNs))
}

func abs(v int64) int64 {
	if v < 0 {
		return -v
	}
	return v
}
