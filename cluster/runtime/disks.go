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
// itself, as no goroutine has to be woken for that; everything else by the goroutine of run, which also applies and trims. A group is
// written by the device itself where that can be, which rings the core's bell when it has ended. Two more goroutines run other jobs, of
// which the disk may have two at a time, a group and a checkpoint's sync. Requests are executed in the order in which they were queued, and
// replies reach the core in the order in which the disk gave them.
type diskWorker struct {
	id   raid.DiskID
	path string
	post func(diskEvent)
	bell int // eventfd on which the core sleeps, -1: none

	own       sync.Mutex // before mu
	disk      *store.Disk
	syncing   int            // jobs under way
	started   *store.SyncJob // the one that the device does
	startedNs int64
	core      bool // the core holds it: it must not wait for the device
	stepped   bool // since run looked last

	mu      sync.Mutex
	queue   []*raid.DiskRequest
	spare   []*raid.DiskRequest // the queue's former slice, for reuse
	stopped bool
	wake    chan struct{} // capacity 1

	jobs chan *store.SyncJob // capacity: more than there may be, also if flushes were quicker than some
	done chan struct{}

	stats diskStats
}

func newDiskWorker(id raid.DiskID, path string, disk *store.Disk, bell int, post func(diskEvent)) *diskWorker {
	w := &diskWorker{
		id: id, path: path, disk: disk, bell: bell, post: post,
		wake: make(chan struct{}, 1), jobs: make(chan *store.SyncJob, 16), done: make(chan struct{}),
	}
	disk.YieldTo(func() bool { return len(w.wake) > 0 })
	return w
}

// stepNow executes the first of reqs in the caller's goroutine, the one that calls enqueue, as far as that can be done at once, and returns the
// others, and whether it has made another goroutine ready to run. post takes the replies; it must not block.
func (w *diskWorker) stepNow(reqs []*raid.DiskRequest, post func(diskEvent)) (rest []*raid.DiskRequest, begun bool) {
	if len(reqs) > stepNowMax || !w.own.TryLock() {
		return reqs, false
	}
	defer w.release()
	w.core = true
	if !w.idle() {
		return reqs, false
	}
	began := nearBootNs()
	replies, n := w.disk.StepNow(began, reqs)
	if n == 0 {
		return reqs, false
	}
	w.stepped = true
	w.stats.stepped(n, nearBootNs()-began)
	w.reply(replies, post)
	begun = w.startJobs(post)
	if w.over() {
		w.ring()
	}
	return reqs[n:], begun
}

// idle reports whether nothing is queued and the worker has not stopped.
func (w *diskWorker) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.stopped && len(w.queue) == 0
}

// collectNow is for the core, when the bell has rung.
func (w *diskWorker) collectNow(post func(diskEvent)) {
	if !w.own.TryLock() {
		w.ring() // run, which is at work, sees to it
		return
	}
	defer w.release()
	w.core = true
	if w.collect(post) && w.over() {
		w.ring() // run waits for the last job
	}
}

// release ends what the core does at the disk.
func (w *diskWorker) release() {
	w.core = false
	w.own.Unlock()
}

// collect takes the outcome of the job that the device was doing, if it has ended, and goes on with the next ones. Under own.
func (w *diskWorker) collect(post func(diskEvent)) bool {
	if w.started == nil {
		return false
	}
	if !w.outcome(post) {
		return false
	}
	if !w.over() {
		w.startJobs(post)
	}
	return true
}

// outcome takes the outcome of the job that the device was doing, if it has ended. Under own.
func (w *diskWorker) outcome(post func(diskEvent)) bool {
	ended, again := w.started.Ended()
	if !ended {
		return false
	}
	job := w.started
	if w.started = nil; again {
		w.jobs <- job
		return true
	}
	w.end(job, job.Run(), w.startedNs, post)
	return true
}

// await waits for the job that the device is doing. Under own.
func (w *diskWorker) await() {
	if job := w.started; job != nil {
		w.started = nil
		w.end(job, job.Run(), w.startedNs, w.post)
	}
}

// startJobs sees to what the disk wants done, and returns whether it has made a goroutine ready to run for that. Under own.
func (w *diskWorker) startJobs(post func(diskEvent)) (woke bool) {
	for job := w.begin(post); job != nil; job = w.begin(post) {
		if !w.launch(job, post) {
			w.jobs <- job
			woke = true
		}
	}
	return woke
}

// launch has a job done without another goroutine, if that can be. Under own.
func (w *diskWorker) launch(job *store.SyncJob, post func(diskEvent)) bool {
	now := nearBootNs()
	switch {
	case job.Quick():
		w.end(job, job.Run(), now, post)
	case w.bell >= 0 && job.Start(w.bell):
		w.started, w.startedNs = job, now
	default:
		return false
	}
	return true
}

// end takes a job's outcome. Under own.
func (w *diskWorker) end(job *store.SyncJob, err error, beganNs int64, post func(diskEvent)) {
	w.stats.synced(nearBootNs() - beganNs)
	w.syncing--
	w.stepped = true
	if !w.core {
		w.reply(w.disk.EndSync(job, err), post)
		return
	}
	replies, more := w.disk.EndSyncNow(job, err)
	w.reply(replies, post)
	if more {
		w.ring()
	}
}

// begin returns the next job that the disk wants done, nil if there is none. Under own.
func (w *diskWorker) begin(post func(diskEvent)) *store.SyncJob {
	if w.started != nil && w.disk.SyncWanted() {
		w.outcome(post) // a flush in another call may have waited for it: then it is over, and there may be another group
	}
	if !w.disk.SyncWanted() {
		return nil
	}
	if w.core && w.disk.SyncLarge() {
		w.ring()
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
			job = w.ended(job, job.Run(), began)
		}
	}
}

// ended takes the outcome of a job and returns the next one for the same goroutine, if there is any.
func (w *diskWorker) ended(job *store.SyncJob, err error, beganNs int64) (mine *store.SyncJob) {
	w.own.Lock()
	defer w.own.Unlock()
	w.end(job, err, beganNs, w.post)
	if w.over() {
		w.ring() // run waits for the last job
		return nil
	}
	for next := w.begin(w.post); next != nil; next = w.begin(w.post) {
		switch {
		case w.launch(next, w.post):
		case mine == nil:
			mine = next
		default:
			w.jobs <- next
		}
	}
	return mine
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
	w.collect(w.post)
	reqs, ok := w.take()
	if ok && len(reqs) > 0 {
		w.step(reqs)
	}
	if ok {
		w.startJobs(w.post)
	}
	look.more = look.more || w.stepped || len(reqs) > 0
	active := w.stepped
	w.stepped = false
	if now := nearBootNs(); ok && look.more && (len(reqs) == 0 || now-look.lastNs > int64(backgroundEvery)) {
		look.more, _ = w.disk.Background(now) // an error that matters is final: Failed says so
		look.lastNs = now
		w.reply(w.disk.Step(now, nil), w.post) // what background work has released
		w.startJobs(w.post)
	}
	if err = w.disk.Failed(); err != nil || !ok {
		w.await()
	}
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
	w.reply(replies, w.post)
}

// reply gives replies to the core. Under own, so that they stay in order.
func (w *diskWorker) reply(replies []raid.DiskReply, post func(diskEvent)) {
	if len(replies) > 0 {
		post(diskEvent{worker: w, replies: replies})
	}
}
