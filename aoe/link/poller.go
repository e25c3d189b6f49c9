package link

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Where a Poller's owner is.
const (
	pollerAwake  = iota // not in Wait: a bell needs no system call
	pollerAsleep        // in Wait, or about to be
	pollerRung          // a bell rang since the last Wait
)

// Poller sleeps for one goroutine until one of its ports has something to
// receive. A port belongs to one Poller at most.
type Poller struct {
	ports  []Port
	extra  []*Source
	state  atomic.Int32
	waking atomic.Int32 // in Wake
	sleeper
	closeOnce sync.Once
}

// NewPoller returns a Poller over ports, which may be none: then only Wake and
// time-outs end a Wait. Close it when done, after its goroutine left Wait.
func NewPoller(ports ...Port) (*Poller, error) { return newPoller(false, ports) }

// NewHoldingPoller is NewPoller for a goroutine that sleeps often and shortly
// in a process with others: for the first milliseconds of a Wait it keeps its
// processor, as if it went on running. That makes waking it up much cheaper.
// The others have one processor less, and what this goroutine has made ready to
// run waits until another one finds it: call runtime.Gosched before Wait if
// there is such. With as many such Pollers as processors none holds anything.
// Where there are descriptors, it Watches.
func NewHoldingPoller(ports ...Port) (*Poller, error) { return newPoller(true, ports) }

func newPoller(hold bool, ports []Port) (*Poller, error) {
	p := &Poller{ports: append([]Port(nil), ports...)}
	hasDescriptors := false
	for _, port := range p.ports {
		fds, _ := port.readable(nil)
		hasDescriptors = hasDescriptors || len(fds) > 0
	}
	if err := p.sleeper.open(hasDescriptors || hold, hold); err != nil {
		return nil, err
	}
	for _, port := range p.ports {
		port.watch(p.Wake)
	}
	return p, nil
}

// Source is a descriptor that is not a port's, on which a Poller sleeps as well.
type Source struct {
	FD    int
	Write bool // wait also until it can be written to
	// Of the last Wait. An error or the end of a stream counts as either.
	Readable, Writable bool
}

// Watches reports whether the Poller can sleep on other descriptors: not if it
// sleeps without any.
func (p *Poller) Watches() bool { return p.sleeper.watches() }

// Watch makes Wait return as soon as a source has something, too. Sources are
// the business of the goroutine that waits. The descriptor must stay open until
// Unwatch.
func (p *Poller) Watch(s *Source) { p.extra = append(p.extra, s) }

// Unwatch undoes Watch; for a source that is not watched it does nothing.
func (p *Poller) Unwatch(s *Source) {
	p.extra = slices.DeleteFunc(p.extra, func(x *Source) bool { return x == s })
	s.Readable, s.Writable = false, false
}

// Sources returns what is watched.
func (p *Poller) Sources() []*Source { return p.extra }

// Wait sleeps until a port has something (frames, or an error to report), and
// then returns true; or until timeoutNs have passed or Wake was called, and
// then returns false. A negative time-out never passes; zero only looks. A Wake
// that came since the last Wait returned ends this one at once, and so does a
// source that is ready. Wait may return false early for no reason.
func (p *Poller) Wait(timeoutNs int64) (bool, error) {
	if !p.state.CompareAndSwap(pollerAwake, pollerAsleep) {
		timeoutNs = 0 // rung since the last time: only look
	}
	ready := false
	p.sleeper.fds = p.sleeper.fds[:0]
	for _, port := range p.ports {
		has := false
		p.sleeper.fds, has = port.readable(p.sleeper.fds)
		ready = ready || has
	}
	if ready {
		timeoutNs = 0
	}
	fromKernel, err := p.sleeper.sleep(timeoutNs, p.extra)
	if p.state.Swap(pollerAwake) == pollerRung {
		p.sleeper.hush()
		for _, port := range p.ports {
			_, has := port.readable(p.sleeper.fds[:0])
			ready = ready || has
		}
	}
	return ready || fromKernel, err
}

// Wake ends the current Wait, or the next one if none is running. Any
// goroutine may call it, as often as it likes, and after Close, too: it costs
// something only when there is a sleeper.
func (p *Poller) Wake() {
	p.waking.Add(1)
	if p.state.Swap(pollerRung) == pollerAsleep {
		p.sleeper.ring()
	}
	p.waking.Add(-1)
}

// Close releases what the Poller holds; the ports stay open.
func (p *Poller) Close() {
	p.closeOnce.Do(func() {
		for _, port := range p.ports {
			port.watch(nil)
		}
		p.state.Store(pollerRung)  // nobody rings any more
		for p.waking.Load() != 0 { // but for those who are about to: not into what has been closed
			runtime.Gosched()
		}
		p.sleeper.close()
	})
}

// channelSleeper sleeps without descriptors. Being a channel it also works
// under testing/synctest.
type channelSleeper struct {
	bell  chan struct{}
	timer *time.Timer
}

func (s *channelSleeper) open() {
	s.bell = make(chan struct{}, 1)
	s.timer = time.NewTimer(time.Hour)
	s.timer.Stop()
}

func (s *channelSleeper) sleep(timeoutNs int64) {
	if timeoutNs == 0 {
		return
	}
	if timeoutNs < 0 {
		<-s.bell
		return
	}
	s.timer.Reset(time.Duration(timeoutNs))
	select {
	case <-s.bell:
	case <-s.timer.C:
	}
	s.timer.Stop()
}

func (s *channelSleeper) ring() {
	select {
	case s.bell <- struct{}{}:
	default: // it rings already
	}
}

func (s *channelSleeper) hush() {
	select {
	case <-s.bell:
	default:
	}
}
