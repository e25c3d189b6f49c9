package runtime

import (
	"sync"
	"time"

	"clade/raid"
	"clade/store"
)

const (
	// queueRequestsMax bounds what waits for one disk. Owners' credit keeps a well-behaved queue far below it.
	queueRequestsMax = 1 << 16
	// backgroundEvery is how often a busy disk gets on with applying and trimming.
	backgroundEvery = 4 * time.Millisecond
	// backgroundIdle is how often an idle disk without work looks again.
	backgroundIdle = 50 * time.Millisecond
	// backgroundBusy is how long it waits when the last piece left something that a sync may be holding up.
	backgroundBusy = time.Millisecond
)

// diskEvent is what a disk's worker tells the core.
type diskEvent struct {
	worker  *diskWorker
	replies []raid.DiskReply
	failed  error // the disk is over; the last event of a worker
}

// diskWorker runs one open disk: one goroutine calls the disk's methods, two others the two jobs that it may have at a time: a group,
// and a checkpoint's sync. Requests are executed in the order in which they were queued, and replies reach the core in the order in which
// the disk gave them.
type diskWorker struct {
	id   raid.DiskID
	path string
	disk *store.Disk
	post func(diskEvent)

	mu      sync.Mutex
	queue   []*raid.DiskRequest
	spare   []*raid.DiskRequest // the queue's former slice, for reuse
	stopped bool
	wake    chan struct{} // capacity 1

	jobs   chan *store.SyncJob
	synced chan syncResult
	done   chan struct{}

	stats diskStats
}

type syncResult struct {
	job *store.SyncJob
	err error
}

func newDiskWorker(id raid.DiskID, path string, disk *store.Disk, post func(diskEvent)) *diskWorker {
	return &diskWorker{
		id: id, path: path, disk: disk, post: post,
		wake: make(chan struct{}, 1), jobs: make(chan *store.SyncJob, 2), synced: make(chan syncResult, 2), done: make(chan struct{}),
	}
}

// enqueue queues requests; false if the queue is full or the worker has stopped: the caller treats the stream as broken.
func (w *diskWorker) enqueue(reqs ...*raid.DiskRequest) bool {
	w.mu.Lock()
	if w.stopped || len(w.queue)+len(reqs) > queueRequestsMax {
		w.mu.Unlock()
		return false
	}
	w.queue = append(w.queue, reqs...)
	w.mu.Unlock()
	w.ring()
	return true
}

func (w *diskWorker) ring() {
	select {
	case w.wake <- struct{}{}:
	default: // it rings already
	}
}

// depth returns how many requests wait.
func (w *diskWorker) depth() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// stop ends the worker after the requests that it has begun; what waits is dropped.
func (w *diskWorker) stop() {
	w.mu.Lock()
	w.stopped = true
	w.queue = nil
	w.mu.Unlock()
	w.ring()
}

// take returns all that waits, and whether to go on.
func (w *diskWorker) take() ([]*raid.DiskRequest, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reqs := w.queue
	w.queue, w.spare = w.spare[:0], nil
	return reqs, !w.stopped
}

func (w *diskWorker) giveBack(reqs []*raid.DiskRequest) {
	clear(reqs)
	w.mu.Lock()
	if cap(reqs) <= 4096 {
		w.spare = reqs[:0]
	}
	w.mu.Unlock()
}

// syncer runs the disk's jobs, two at a time, while run goes on with the next step.
func (w *diskWorker) syncer() {
	var second sync.WaitGroup
	second.Go(w.runJobs)
	w.runJobs()
	second.Wait()
}

func (w *diskWorker) runJobs() {
	for job := range w.jobs {
		began := bootNs()
		err := job.Run()
		w.stats.synced(bootNs() - began)
		w.synced <- syncResult{job, err}
	}
}

// run is the worker's goroutine; it ends when the worker is stopped or the disk fails, and closes the disk.
func (w *diskWorker) run() {
	defer close(w.done)
	err := w.work()
	w.mu.Lock()
	w.stopped, w.queue = true, nil
	w.mu.Unlock()
	close(w.jobs)
	if cerr := w.disk.Close(); cerr != nil && err == nil {
		err = cerr
	}
	if err != nil {
		w.post(diskEvent{worker: w, failed: err})
	}
}

// work executes requests until it is told to stop (nil) or the disk fails.
func (w *diskWorker) work() error {
	syncing, more := 0, true // jobs under way; background work may be waiting
	lastBackground := bootNs()
	timer := time.NewTimer(backgroundIdle)
	defer timer.Stop()
	for {
		reqs, ok := w.take()
		if ok && len(reqs) > 0 {
			w.step(reqs)
			more = true
		}
		for ok && w.disk.SyncWanted() {
			syncing++
			w.jobs <- w.disk.BeginSync()
		}
		if now := bootNs(); ok && more && (len(reqs) == 0 || now-lastBackground > int64(backgroundEvery)) {
			more, _ = w.disk.Background(now) // an error that matters is final: Failed says so
			lastBackground = now
			w.reply(w.disk.Step(now, nil)) // what background work has released
		}
		if err := w.disk.Failed(); err != nil || !ok {
			for ; syncing > 0; syncing-- {
				w.endSync(<-w.synced)
			}
			return err
		}
		wait := backgroundIdle
		switch {
		case more && syncing > 0:
			wait = backgroundBusy // it may be waiting for the sync
		case more:
			wait = 0
		}
		timer.Reset(wait)
		select {
		case <-w.wake:
		case r := <-w.synced:
			syncing, more = syncing-1, true
			w.endSync(r)
		case <-timer.C:
			more = true
		}
	}
}

func (w *diskWorker) step(reqs []*raid.DiskRequest) {
	began := bootNs()
	n := len(reqs)
	replies := w.disk.Step(began, reqs)
	w.stats.stepped(n, bootNs()-began)
	w.giveBack(reqs)
	w.reply(replies)
}

func (w *diskWorker) endSync(r syncResult) { w.reply(w.disk.EndSync(r.job, r.err)) }

func (w *diskWorker) reply(replies []raid.DiskReply) {
	if len(replies) > 0 {
		w.post(diskEvent{worker: w, replies: replies})
	}
}
