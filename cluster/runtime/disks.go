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
	// stepNowMax bounds what the core does at a disk itself. More is worth a goroutine of its own, on another processor.
	stepNowMax = 8
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

// diskWorker runs one open disk, which is whoever's holds own: a few requests that need not wait for the device are executed by the core
// itself, as no goroutine has to be woken for that; everything else by the goroutine of run, which also applies and trims. Two others run
// the jobs that the disk may have at a time, a group and a checkpoint's sync, and begin the next one. Requests are executed in the order
// in which they were queued, and replies reach the core in the order in which the disk gave them.
type diskWorker struct {
	id   raid.DiskID
	path string
	post func(diskEvent)

	own     sync.Mutex // before mu
	disk    *store.Disk
	syncing int  // jobs under way
	stepped bool // since run looked last

	mu      sync.Mutex
	queue   []*raid.DiskRequest
	spare   []*raid.DiskRequest // the queue's former slice, for reuse
	stopped bool
	wake    chan struct{} // capacity 1

	jobs chan *store.SyncJob // capacity 2: as many as there may be
	done chan struct{}

	stats diskStats
}

func newDiskWorker(id raid.DiskID, path string, disk *store.Disk, post func(diskEvent)) *diskWorker {
	return &diskWorker{
		id: id, path: path, disk: disk, post: post,
		wake: make(chan struct{}, 1), jobs: make(chan *store.SyncJob, 2), done: make(chan struct{}),
	}
}

// stepNow executes the first of reqs in the caller's goroutine, the one that calls enqueue, as far as that can be done at once, and returns the
// others, and whether it has begun a job. post takes the replies; it must not block.
func (w *diskWorker) stepNow(reqs []*raid.DiskRequest, post func(diskEvent)) (rest []*raid.DiskRequest, begun bool) {
	if len(reqs) > stepNowMax || !w.own.TryLock() {
		return reqs, false
	}
	defer w.own.Unlock()
	if !w.idle() {
		return reqs, false
	}
	began := nearBootNs()
	replies, n := w.disk.StepNow(began, reqs)
	if n == 0 {
		return reqs, false
	}
	w.stepped = true
	begun = w.startJobs()
	if len(replies) > 0 {
		post(diskEvent{worker: w, replies: replies})
	}
	w.stats.stepped(n, nearBootNs()-began)
	return reqs[n:], begun
}

// idle reports whether nothing is queued and the worker has not stopped.
func (w *diskWorker) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.stopped && len(w.queue) == 0
}

// startJobs hands out what the disk wants done, and returns whether that is anything. Under own.
func (w *diskWorker) startJobs() (begun bool) {
	for job := w.begin(); job != nil; job = w.begin() {
		w.jobs <- job
		begun = true
	}
	return begun
}

// begin returns the next job that the disk wants done, nil if there is none. Under own.
func (w *diskWorker) begin() *store.SyncJob {
	if !w.disk.SyncWanted() {
		return nil
	}
	w.syncing++
	return w.disk.BeginSync()
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

// syncer runs the disk's jobs, two at a time, while the disk goes on with the next requests.
func (w *diskWorker) syncer() {
	var second sync.WaitGroup
	second.Go(w.runJobs)
	w.runJobs()
	second.Wait()
}

func (w *diskWorker) runJobs() {
	for job := range w.jobs {
		for job != nil {
			began := nearBootNs()
			err := job.Run()
			w.stats.synced(nearBootNs() - began)
			job = w.ended(job, err)
		}
	}
}

// ended takes the outcome of a job and returns the next one for the same goroutine, if there is any.
func (w *diskWorker) ended(job *store.SyncJob, err error) *store.SyncJob {
	w.own.Lock()
	defer w.own.Unlock()
	w.syncing--
	w.stepped = true
	w.reply(w.disk.EndSync(job, err))
	if w.over() {
		w.ring() // run waits for the last job
		return nil
	}
	next := w.begin()
	w.startJobs()
	return next
}

// over reports whether the disk begins nothing any more. Under own.
func (w *diskWorker) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped || w.disk.Failed() != nil
}

// run is the worker's goroutine; it ends when the worker is stopped or the disk fails, and closes the disk.
func (w *diskWorker) run() {
	defer close(w.done)
	err := w.work()
	w.own.Lock()
	w.mu.Lock()
	w.stopped, w.queue = true, nil
	w.mu.Unlock()
	close(w.jobs)
	if cerr := w.disk.Close(); cerr != nil && err == nil {
		err = cerr
	}
	w.own.Unlock()
	if err != nil {
		w.post(diskEvent{worker: w, failed: err})
	}
}

// work executes requests until it is told to stop (nil) or the disk fails.
func (w *diskWorker) work() error {
	look := workLook{more: true, lastNs: nearBootNs()}
	timer := time.NewTimer(backgroundIdle)
	defer timer.Stop()
	for {
		wait, over, err := w.turn(&look)
		if over {
			return err
		}
		timer.Reset(wait)
		select {
		case <-w.wake:
		case <-timer.C:
			look.more = true
		}
	}
}

// workLook is what the worker's goroutine remembers from one turn to the next.
type workLook struct {
	more   bool  // background work may be waiting
	lastNs int64 // when it was looked after last
}

// turn executes what is queued, and some of what nobody waits for. It returns how long there is nothing to do unless somebody rings.
func (w *diskWorker) turn(look *workLook) (wait time.Duration, over bool, err error) {
	w.own.Lock()
	defer w.own.Unlock()
	reqs, ok := w.take()
	if ok && len(reqs) > 0 {
		w.step(reqs)
	}
	if ok {
		w.startJobs()
	}
	look.more = look.more || w.stepped || len(reqs) > 0
	active := w.stepped
	w.stepped = false
	if now := nearBootNs(); ok && look.more && (len(reqs) == 0 || now-look.lastNs > int64(backgroundEvery)) {
		look.more, _ = w.disk.Background(now) // an error that matters is final: Failed says so
		look.lastNs = now
		w.reply(w.disk.Step(now, nil)) // what background work has released
		w.startJobs()
	}
	err = w.disk.Failed()
	switch {
	case (err != nil || !ok) && w.syncing > 0:
		return backgroundIdle, false, nil // the last job rings
	case err != nil || !ok:
		return 0, true, err
	case look.more && w.syncing > 0:
		return backgroundBusy, false, nil // it may be waiting for the sync
	case look.more:
		return 0, false, nil
	case active:
		return backgroundEvery, false, nil
	}
	return backgroundIdle, false, nil
}

func (w *diskWorker) step(reqs []*raid.DiskRequest) {
	began := nearBootNs()
	n := len(reqs)
	replies := w.disk.Step(began, reqs)
	w.stats.stepped(n, nearBootNs()-began)
	w.giveBack(reqs)
	w.reply(replies)
}

// reply gives replies to the core. Under own, so that they stay in order.
func (w *diskWorker) reply(replies []raid.DiskReply) {
	if len(replies) > 0 {
		w.post(diskEvent{worker: w, replies: replies})
	}
}
