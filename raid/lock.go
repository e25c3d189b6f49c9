package raid

// locks are the region locks. While a region is locked, or wanted, no new batch touches it; it is granted when no batch that
// touches it is between Prepare and commit (A.4.5).
type locks struct {
	held     map[regionKey]*lock
	inflight map[regionKey]int // rows of batches above the commit point
}

type lock struct {
	granted bool
	waiters []func()
}

// taken reports whether writes of the region have to wait.
func (l *locks) taken(k regionKey) bool { return l.held[k] != nil }

// lock calls grant as soon as the region is the caller's, now or later. The caller ends it with unlock.
func (o *Owner) lock(k regionKey, grant func()) {
	l := o.locks.held[k]
	if l == nil {
		l = &lock{}
		o.locks.held[k] = l
	}
	l.waiters = append(l.waiters, grant)
	o.grant(k)
}

func (o *Owner) grant(k regionKey) {
	l := o.locks.held[k]
	if l == nil || l.granted || len(l.waiters) == 0 || o.locks.inflight[k] > 0 {
		return
	}
	g := l.waiters[0]
	l.waiters = l.waiters[1:]
	l.granted = true
	g()
}

func (o *Owner) unlock(k regionKey) {
	l := o.locks.held[k]
	l.granted = false
	if len(l.waiters) == 0 {
		delete(o.locks.held, k)
		o.queue.dirty = true
		return
	}
	o.grant(k)
}

// landed notes that a row of a batch has committed.
func (o *Owner) landed(k regionKey) {
	if o.locks.inflight[k]--; o.locks.inflight[k] == 0 {
		delete(o.locks.inflight, k)
		o.grant(k)
	}
}
