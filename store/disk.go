package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"clade/raid"
)

// Config is what a disk is told when it is opened; zero fields get the documented defaults.
type Config struct {
	Node       raid.NodeID
	BootID     raid.BootID // of the running kernel
	CacheBytes int         // checksum pages; default 16 MiB
	AtOnce     int         // regions whose pages a Step may make anew, or read, by itself; default 1024
	AttachGen  uint64      // 0, or the generation that the cluster knows: a disk with an older one is a copy (B: M7)
}

// Disk is an open disk. One goroutine at a time, which holds it, calls its methods, but for SyncJob.Run.
type Disk struct {
	dev   Device
	cfg   Config
	super *super
	jrn   journal
	pages *pageCache
	vols  []*volume // sorted by id

	fresh   []*freshJob   // oldest first
	asked   []*regionsJob // oldest first
	mayRead int           // regions of which this Step may still read the pages

	building     *group
	inflight     *group
	spare        *group           // the next one to build, nil: none
	records      []*record        // for reuse, empty
	puts         []put            // for reuse, of length 0
	now          bool             // in StepNow
	waits        bool             // what it was asked for would have to wait for the device
	applyAt      int              // counts the volumes whose turn it was to be applied
	owing        bool             // an EndSyncNow has left something
	waiting      func() bool      // somebody waits for what Background does to end; nil: never
	place        []byte           // for the next read in place, nil: none
	run          []byte           // neighbours on their way in place, for reuse: a region at most
	flushing     *SyncJob         // empties the device's cache
	unsynced     int              // bytes written in place since the last one began
	emptying     bool             // one is wanted
	ready        []raid.DiskReply // made by a flush inside another call; handed out by the next EndSync or Step
	failed       error
	replaying    bool    // Open has not yet checkpointed: pages may be torn
	lastNs       int64   // last Step
	busyNs       int64   // when Background last found that a group was being written
	settled      bool    // one has become durable since
	checkpointed uint64  // lsn of the newest group that the newest checkpoint covers
	vouched      uint64  // lsn up to which something later that is durable says that a group was
	sealing      bool    // the next group may be empty: it vouches for the last one
	cp           *sliced // a checkpoint that goes in pieces, nil: none
	fullAt       uint64  // lsn of the head when the journal was full of what cannot be applied
	stats        Stats
	checkNs      int64
}

// Stats counts what a disk has done. Counters only grow.
type Stats struct {
	Syncs        uint64 `json:"syncs"`
	Groups       uint64 `json:"groups"`
	Records      uint64 `json:"records"`
	Applied      uint64 `json:"applied"`
	Checkpoints  uint64 `json:"checkpoints"`
	BadBlocks    uint64 `json:"bad_blocks"`
	JournalBytes int64  `json:"journal_bytes"` // in use
	JournalSize  int64  `json:"journal_size"`
	Regions      uint64 `json:"regions"`
	RegionsUsed  uint64 `json:"regions_used"`
}

// Identity returns which disk this is.
func (d *Disk) Identity() Identity { return d.super.Identity }

// Failed returns why the disk is not used any more, or nil. It is final (S7).
func (d *Disk) Failed() error { return d.failed }

// Status returns the counters and how full the disk is.
func (d *Disk) Status() Stats {
	s := d.stats
	s.JournalBytes, s.JournalSize, s.Regions = d.jrn.used(), d.jrn.size, d.super.regions
	for _, v := range d.vols {
		for _, sh := range v.shards {
			s.RegionsUsed += uint64(sh.Regions)
		}
	}
	return s
}

// Volumes returns the volumes of which the disk holds anything.
func (d *Disk) Volumes() []raid.VolumeID {
	var out []raid.VolumeID
	for _, v := range d.vols {
		out = append(out, v.id)
	}
	return out
}

func (d *Disk) fail(err error) error {
	if d.failed == nil {
		d.failed = fmt.Errorf("store: disk %d %w: %w", d.super.Disk, ErrFailed, err)
	}
	return d.failed
}

func (d *Disk) volume(id raid.VolumeID) *volume {
	i, ok := slices.BinarySearchFunc(d.vols, id, func(v *volume, id raid.VolumeID) int { return cmp.Compare(v.id, id) })
	if !ok {
		return nil
	}
	return d.vols[i]
}

func (d *Disk) addVolume(id raid.VolumeID) *volume {
	i, ok := slices.BinarySearchFunc(d.vols, id, func(v *volume, id raid.VolumeID) int { return cmp.Compare(v.id, id) })
	if !ok {
		d.vols = slices.Insert(d.vols, i, newVolume(id))
	}
	return d.vols[i]
}

func (d *Disk) removeVolume(id raid.VolumeID) {
	d.vols = slices.DeleteFunc(d.vols, func(v *volume) bool { return v.id == id })
}

// log queues an entry for the next group.
func (d *Disk) log(e entry) { d.building.add(e) }

// hold runs f when everything logged so far is durable: at once if it is.
func (d *Disk) hold(out *[]raid.DiskReply, f func(d *Disk) []raid.DiskReply) {
	switch {
	case len(d.building.entries) > 0:
		d.building.done = append(d.building.done, f)
	case d.inflight != nil:
		d.inflight.done = append(d.inflight.done, f)
	default:
		*out = append(*out, f(d)...)
	}
}

// SyncWanted reports whether BeginSync has something to do: a group to write and none under way, or a checkpoint that waits for the
// device's cache and no job that empties it under way. So there are at most two jobs at a time.
func (d *Disk) SyncWanted() bool { return d.failed == nil && (d.groupWanted() || d.flushWanted()) }

// SyncLarge reports whether to form the next group takes so long that who must not wait had best leave BeginSync to others.
func (d *Disk) SyncLarge() bool { return d.building.bytes() > bufBytesMax }

func (d *Disk) groupWanted() bool {
	return d.inflight == nil && (len(d.building.entries) > 0 || d.sealing)
}

// SyncJob makes one group durable, or what is in the device's cache. Run may be called by another goroutine while the disk goes on and
// another job runs. Or whoever holds the disk calls Start, and if that says true, Ended, and Run when there is an outcome: no other
// goroutine has to be woken for the job.
type SyncJob struct {
	dev    Device
	g      *group // nil: the device's cache
	bytes  []byte // the group as it is written, at off
	off    int64
	cp     *sliced     // the checkpoint under way when it began
	covers slicedPhase // and how far it was

	state jobState  // written by whoever holds the disk, before the job is given to anybody
	once  sync.Once // the job's Run, or a flush that could not wait for it
	err   error
}

type jobState uint8

const (
	jobIdle    jobState = iota // Run does it
	jobStarted                 // the device does it
	jobEnded                   // the device has done it: err is the outcome
)

// quickBytesMax is how much is copied in less time than it takes to wake somebody for it.
const quickBytesMax = 256 << 10

// Quick reports whether Run waits for nothing and takes so little that whoever holds the disk had best call it at once: a group of
// moderate size, on a device in memory.
func (j *SyncJob) Quick() bool {
	return j.g != nil && len(j.bytes) <= quickBytesMax && inMemory(j.dev)
}

// Group reports whether the job makes a group durable, and does not empty the device's cache.
func (j *SyncJob) Group() bool { return j.g != nil }

// Start begins a group's job without waiting for it, where the device can do that; bell is an eventfd that is rung when it has ended:
// then ask Ended. False: nothing was begun, and the job is to be Run. It is called at most once, before Run, by whoever holds the disk. The
// bell rings for every job that was started, even if Run has its outcome already, as a flush inside another call may have called that;
// it does not ring after Close.
func (j *SyncJob) Start(bell int) bool {
	if j.g == nil || j.state != jobIdle {
		return false
	}
	s, ok := j.dev.(starter)
	if !ok || !s.StartThrough(j.bytes, j.off, bell) {
		return false
	}
	j.state = jobStarted
	return true
}

// Ended reports whether the device is done with a job that was started. If so, Run returns the outcome without waiting, unless again says
// that the device could not do the job without keeping somebody waiting: then it is like a job that was never started, and is to be Run, by
// any goroutine that may wait. Ended never waits. It is called by whoever holds the disk, as is Run of a started job until Ended has said
// so; that Run waits for the end, and does the job itself where again would be true.
func (j *SyncJob) Ended() (ended, again bool) {
	if j.state == jobStarted {
		j.take(false)
	}
	return j.state != jobStarted, j.state == jobIdle
}

// take asks the device for the outcome of a started job.
func (j *SyncJob) take(wait bool) {
	n, err := j.dev.(starter).EndThrough(wait)
	switch {
	case errors.Is(err, errUnderWay):
	case errors.Is(err, errAgain):
		j.state = jobIdle
	default:
		j.state, j.err = jobEnded, throughError(n, err, j.bytes, j.off)
	}
}

// Run does the job, once. Its error goes to EndSync.
func (j *SyncJob) Run() error {
	j.once.Do(func() {
		if j.state == jobStarted {
			j.take(true)
		}
		switch {
		case j.state == jobEnded || j.dev == nil:
		case j.g == nil:
			j.err = j.dev.Sync()
		default:
			j.err = writeDurable(j.dev, j.bytes, j.off)
		}
	})
	return j.err
}

// BeginSync forms a group of what has queued, or begins to empty the device's cache, and returns the job that does it. SyncWanted must
// hold.
func (d *Disk) BeginSync() *SyncJob {
	switch {
	case d.failed != nil:
		return &SyncJob{}
	case d.groupWanted():
		job := d.beginGroup()
		d.beginSliced()
		return job
	}
	d.flushing, d.emptying, d.unsynced = &SyncJob{dev: d.dev, cp: d.cp}, false, 0
	if d.cp != nil {
		d.flushing.covers = d.cp.phase
	}
	return d.flushing
}

// beginGroup makes building inflight. Its job is yet to be run.
func (d *Disk) beginGroup() *SyncJob {
	g := d.building
	d.building = d.newGroup()
	bytes, off := d.jrn.form(g)
	g.job = SyncJob{dev: d.dev, g: g, bytes: bytes, off: off}
	d.inflight, d.sealing = g, false
	d.stats.Groups++
	for i := range g.entries {
		if e := &g.entries[i]; e.rec != nil {
			if v := d.volume(e.vol); v != nil {
				if r := v.find(e.rec.Epoch, e.rec.Seq, e.rec.BID); r != nil {
					r.lsn = g.lsn
				}
			}
		}
	}
	return &g.job
}

// EndSync takes the outcome of a job and returns the answers that are true now.
func (d *Disk) EndSync(job *SyncJob, err error) []raid.DiskReply {
	covered, ok := d.endJob(job, err)
	if ok {
		d.afterSync(covered)
	}
	return d.takeReady()
}

// EndSyncNow is EndSync of a group for those who must not wait for the device. What may take long is left to the next Step, Background or
// EndSync; more says that there is some, so that one had best come soon.
func (d *Disk) EndSyncNow(job *SyncJob, err error) (replies []raid.DiskReply, more bool) {
	if job.g == nil {
		panic("store: the device's cache was emptied by somebody who must not wait")
	}
	if _, ok := d.endJob(job, err); ok {
		d.owing = true
		more = d.jrn.used() > d.jrn.size*3/8 || d.cp != nil && d.cp.phase == slicedPages
	}
	return d.takeReady(), more
}

// endJob is the part of EndSync that waits for nothing. It returns what the job has covered of a checkpoint, and false if that is all.
func (d *Disk) endJob(job *SyncJob, err error) (slicedPhase, bool) {
	d.stats.Syncs++
	if err != nil && d.failed == nil {
		_ = d.fail(fmt.Errorf("sync: %w", err))
	}
	if d.flushing == job {
		d.flushing = nil
	}
	if d.failed != nil || job.dev == nil {
		d.inflight = nil
		return slicedCut, false
	}
	covered := slicedCut
	if job.g != nil {
		if d.inflight == job.g { // else a flush was quicker
			d.settle()
		}
		d.giveBack(job.g)
	} else if job.cp == d.cp {
		covered = job.covers
	}
	return covered, true
}

// afterSync keeps the journal from filling, and gets on with a checkpoint.
func (d *Disk) afterSync(covered slicedPhase) {
	d.owing = false
	err := d.maintain()
	if err == nil {
		err = d.slicedOn(covered)
	}
	if err != nil {
		_ = d.fail(err)
	}
}

// payOff does what an EndSyncNow has left.
func (d *Disk) payOff() {
	if d.owing && d.failed == nil {
		d.afterSync(slicedCut)
	}
}

// takeReady returns the answers that are there.
func (d *Disk) takeReady() []raid.DiskReply {
	out := d.ready
	d.ready = nil
	return out
}

// giveBack keeps a group for the next one, once nobody runs its job any more.
func (d *Disk) giveBack(g *group) {
	if d.spare != nil || cap(g.entries) > spareEntriesMax {
		return
	}
	clear(g.entries)
	clear(g.done)
	*g = group{entries: g.entries[:0], done: g.done[:0]}
	d.spare = g
}

// newGroup returns an empty group.
func (d *Disk) newGroup() *group {
	g := d.spare
	if d.spare = nil; g == nil {
		g = &group{}
	}
	return g
}

// settle marks the inflight group durable and runs what waited for it. The answers go to ready.
func (d *Disk) settle() {
	g := d.inflight
	d.inflight, d.settled = nil, true
	d.vouched = max(d.vouched, g.lsn-1)
	if len(g.entries) == 0 {
		d.vouched = g.lsn // nothing in it could be lost
	}
	for i := range g.entries {
		e := &g.entries[i]
		v := d.volume(e.vol)
		if v == nil {
			continue
		}
		switch e.kind {
		case entryRecord:
			if r := v.find(e.rec.Epoch, e.rec.Seq, e.rec.BID); r != nil {
				r.durable = true
			}
		case entryCommit, entryStart:
			v.durable = max(v.durable, min(e.seq, v.logged))
		case entryFill:
			if e.last {
				v.durable = max(v.durable, min(e.seq, v.logged))
				v.based = max(v.based, min(e.seq, v.base))
			}
		}
	}
	for _, f := range g.done {
		out := f(d) // may add to ready itself
		d.ready = append(d.ready, out...)
	}
	d.slicedDurable(g)
	d.ready = d.acks(d.ready)
}

// acks returns a cumulative acknowledgement for every volume of which more is durable than its owner was told.
func (d *Disk) acks(out []raid.DiskReply) []raid.DiskReply {
	for _, v := range d.vols {
		if v.stream == 0 || v.fence != v.start {
			continue
		}
		seq := v.durableEnd()
		if seq <= v.acked && v.durable <= v.told {
			continue
		}
		v.acked, v.told = max(v.acked, seq), v.durable
		out = append(out, raid.DiskReply{Kind: raid.RepAck, Vol: v.id, Disk: d.super.Disk, Epoch: v.start, Stream: v.stream, To: v.owner,
			Seq: seq, EndSeq: seq, Commit: v.durable})
	}
	return out
}

// durableEnd is endseq as far as it is durable.
func (v *volume) durableEnd() raid.Seq {
	n := len(v.log)
	for n > 0 && !v.log[n-1].durable { // groups become durable in the order in which records came: those that are not come last
		n--
	}
	e := max(v.applied, v.based)
	if n > 0 {
		e = max(e, v.log[n-1].Seq)
	}
	return e
}

// Close lets go of the device, after the end of a job that was started. What was not answered may be lost.
func (d *Disk) Close() error { return d.dev.Close() }
