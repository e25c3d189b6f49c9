package torture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"clade/aoe/initiator"
)

// timing is whose retransmissions an initiator has.
type timing uint8

const (
	libraryTiming timing = iota
	linuxTiming
	timings
)

// meter measures how long operations take, those included that still wait, and how many are done over time. Any goroutine may
// call its methods.
type meter struct {
	mu      sync.Mutex
	began   map[int]waiting // by worker
	longest [timings]int64  // since reset
	ever    [timings]int64
	sinceNs int64
	startNs int64
	bins    []Bin
	binNs   int64
}

type waiting struct {
	timing timing
	ns     int64
}

// Bin is what was done in a piece of the run.
type Bin struct {
	Operations int `json:"operations"`
	LongestMs  int `json:"longest_ms"` // of the operations that were done in it
}

// binsMax bounds what is remembered of a run of any length: then two pieces become one.
const (
	binsMax    = 2048
	binFirstNs = int64(250 * time.Millisecond)
)

func newMeter() *meter {
	now := initiator.BootNs()
	return &meter{began: map[int]waiting{}, startNs: now, sinceNs: now, binNs: binFirstNs}
}

// begin says that a worker's operation has begun.
func (m *meter) begin(worker int, t timing, nowNs int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began[worker] = waiting{t, nowNs}
}

// end says that it is over.
func (m *meter) end(worker int, nowNs int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.began[worker]
	if !ok {
		return
	}
	delete(m.began, worker)
	m.note(w, nowNs)
	for at := int((nowNs - m.startNs) / m.binNs); ; at = int((nowNs - m.startNs) / m.binNs) {
		if at < binsMax {
			for len(m.bins) <= at {
				m.bins = append(m.bins, Bin{})
			}
			b := &m.bins[at]
			b.Operations++
			b.LongestMs = max(b.LongestMs, int((nowNs-w.ns)/1e6))
			return
		}
		m.halve()
	}
}

// halve makes two pieces one.
func (m *meter) halve() {
	var out []Bin
	for i := 0; i < len(m.bins); i += 2 {
		b := m.bins[i]
		if i+1 < len(m.bins) {
			b.Operations += m.bins[i+1].Operations
			b.LongestMs = max(b.LongestMs, m.bins[i+1].LongestMs)
		}
		out = append(out, b)
	}
	m.bins, m.binNs = out, 2*m.binNs
}

// note counts how long an operation has taken since it began, or since reset if that is later.
func (m *meter) note(w waiting, nowNs int64) {
	took := nowNs - max(w.ns, m.sinceNs)
	m.longest[w.timing] = max(m.longest[w.timing], took)
	m.ever[w.timing] = max(m.ever[w.timing], nowNs-w.ns)
}

// reset forgets the longest waits: a fault begins. What waits already counts from now.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest, m.sinceNs = [timings]int64{}, initiator.BootNs()
}

// since returns the longest wait since reset, in ns.
func (m *meter) since() [timings]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := initiator.BootNs()
	for _, w := range m.began {
		m.note(w, now)
	}
	return m.longest
}

// whole returns the longest waits of the run, in ns, the pieces and how long each is.
func (m *meter) whole() (longest [timings]int64, bins []Bin, binNs int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ever, m.bins, m.binNs
}

// await waits until every operation that had begun before a time is done.
func (m *meter) await(ctx context.Context, beforeNs int64) error {
	ctx, cancel := context.WithTimeout(ctx, opMax)
	defer cancel()
	for {
		n := 0
		m.mu.Lock()
		for _, w := range m.began {
			if w.ns < beforeNs {
				n++
			}
		}
		m.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("torture: %d operations wait since before: %w", n, ctx.Err())
		}
	}
}
