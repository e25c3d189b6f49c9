package raid

import "slices"

// Owner is the owner of one volume in one epoch (A.4). All its state is volatile; it lives from Takeover to release,
// revocation or the end of the process and never again with the same epoch.
//
// Methods are called by one goroutine, with a clock that does not fall. Inputs only change state; Take works the state forward
// (forms batches, sends what may be sent) and hands over the effects. All requests to one disk form one FIFO.
//
// The files: fencing.go takes over, disks.go keeps the streams, form.go turns writes into batches, commit.go settles them,
// read.go gets old bytes, lock.go locks regions, members.go drops disks and re-admits them, resync.go and copy.go refill them.
type Owner struct {
	cfg   OwnerConfig
	v     *Volume
	geo   *Geometry
	code  *Coder
	epoch Epoch
	now   int64
	state OwnerState
	dead  string // why, once DEAD

	fx, spare Effects // one is being filled, the other is in the caller's hands

	fence fencing

	disks  []*disk // all disks of the volume, sorted
	places []*disk // of every extent the disk at each position, as geo has them
	stream Stream  // last σ given out
	lastID uint64

	forced  bool // the Activate of this epoch was made by force (A.1)
	end     Seq  // end of the former epoch
	commit  Seq
	next    Seq
	batches []*batch // commit+1 .. next-1
	bids    uint64

	cache     *cache
	coding    [][]byte // the row that is being encoded: its k+m blocks by role, and the k old ones
	forming   forming
	queue     queue
	locks     locks
	reads     readers
	verifying verifier

	proposal     VolumeCommand // the latest, while Ver still fits
	proposedNs   int64
	proposed     bool
	suspendedNs  int64 // 0: not suspended
	suspendedFor string
	releasing    bool
	releaseNs    int64
	commitMoved  int64 // when the commit point last moved
	joins        []*join
	repairs      []*copyJob
}

// NewOwner begins the life of the owner of (v, v.Epoch) in FENCING. v.Owner is cfg.Node; v is kept and stays immutable.
func NewOwner(cfg OwnerConfig, v *Volume, nowNs int64) *Owner {
	o := &Owner{
		cfg: cfg.withDefaults(), v: v, geo: NewGeometry(v), code: NewCoder(v.Layout), epoch: v.Epoch, now: nowNs,
		state: OwnerFencing, bids: cfg.Seed ^ uint64(v.ID)<<40 ^ uint64(v.Epoch),
	}
	o.cache = newCache(v.Layout, o.cfg.CacheBytes)
	o.coding = make([][]byte, v.Layout.Width()+v.Layout.K)
	o.locks = locks{held: map[regionKey]*lock{}, inflight: map[regionKey]int{}}
	for _, m := range v.Members {
		o.disks = append(o.disks, &disk{id: m.Disk, inSync: m.InSync, downNs: nowNs})
	}
	o.places = make([]*disk, len(v.Extents)*v.Layout.Width())
	for i, x := range v.Extents {
		for pos, p := range x.Shards {
			o.places[i*v.Layout.Width()+pos] = o.disk(p.Disk)
		}
	}
	o.fence.start(nowNs)
	return o
}

// disk returns the owner's record of disk d, or nil.
func (o *Owner) disk(d DiskID) *disk {
	i, ok := slices.BinarySearchFunc(o.disks, d, func(x *disk, d DiskID) int { return int(x.id) - int(d) })
	if !ok {
		return nil
	}
	return o.disks[i]
}

func (o *Owner) tick(nowNs int64) { o.now = max(o.now, nowNs) }

func (o *Owner) event(e OwnerEvent) { o.fx.Events = append(o.fx.Events, e) }

func (o *Owner) newID() uint64 { o.lastID++; return o.lastID }

// SetCacheBytes says how large the stripe cache may be from now on; OwnerConfig says how large it is at first.
func (o *Owner) SetCacheBytes(bytes int) { o.cache.bound(bytes) }

// SetVolume tells the owner the volume after an applied command (I1: what leaves the in-sync set leaves W only here).
func (o *Owner) SetVolume(nowNs int64, v *Volume) {
	o.tick(nowNs)
	old := o.v
	for _, x := range o.disks {
		m := v.Member(x.id)
		x.inSync = m != nil && m.InSync
	}
	if v.Epoch != o.epoch || v.Owner != o.cfg.Node || v.ID != old.ID {
		o.v = v
		o.die("the volume has another owner")
		return
	}
	o.v = v
	if v.Ver != old.Ver || v.Active != old.Active {
		o.proposed = false
	}
	switch {
	case o.state == OwnerDead:
	case o.state == OwnerFencing && v.Active:
		o.activate()
	case o.state == OwnerActive:
		o.membersChanged(old)
	}
	if v.Released >= o.epoch && o.state != OwnerDead {
		o.die("released")
	}
}

// Connected says that a FIFO to d can be opened, or that the one there was has broken.
func (o *Owner) Connected(nowNs int64, d DiskID, up bool) {
	o.tick(nowNs)
	x := o.disk(d)
	if x == nil || x.up == up && !up || o.state == OwnerDead {
		return
	}
	if x.up {
		o.streamBroken(x)
	}
	x.up, x.downNs = up, o.now
	if !up {
		return
	}
	x.nodeDead = false
	switch o.state {
	case OwnerFencing:
		o.sendFence(x)
	case OwnerActive:
		o.openStream(x)
	}
}

// NodeDead says that the node of these disks has lost its lease term: they need no time-out to be given up.
func (o *Owner) NodeDead(nowNs int64, disks DiskSet) {
	o.tick(nowNs)
	for _, d := range disks {
		if x := o.disk(d); x != nil {
			x.nodeDead = true
		}
	}
}

// NodeAlive names all disks of nodes that are known to live; FENCING waits for them, and only for them.
func (o *Owner) NodeAlive(nowNs int64, disks DiskSet) {
	o.tick(nowNs)
	for _, d := range disks {
		if x := o.disk(d); x != nil {
			x.nodeDead = false
		}
	}
	o.fence.alive, o.fence.aliveKnown = disks, true
}

// Reply takes a disk's answer. Answers of former streams and epochs are ignored.
func (o *Owner) Reply(nowNs int64, r *DiskReply) {
	o.tick(nowNs)
	x := o.disk(r.Disk)
	if x == nil || r.Vol != o.v.ID || r.Epoch != o.epoch || o.state == OwnerDead {
		return
	}
	if r.Kind == RepNack && r.Nack == NackFence && r.Fence > o.epoch {
		o.fx.Events = append(o.fx.Events, OwnerEvent{Kind: EventFenced, Disk: x.id, Fence: r.Fence})
		o.die("a disk is fenced for a later epoch")
		return
	}
	if o.state == OwnerFencing {
		o.fenceReply(x, r)
		return
	}
	if r.Stream != x.stream {
		return
	}
	o.activeReply(x, r)
}

func (o *Owner) activeReply(x *disk, r *DiskReply) {
	switch r.Kind {
	case RepStarted:
		o.startedReply(x, r)
	case RepAck:
		o.ackReply(x, r)
	case RepRead:
		o.readReply(x, r)
	case RepRegions, RepWiped, RepFilled:
		o.joinReply(x, r)
	case RepVerified:
		o.verified(x, r)
	case RepNack:
		o.nackReply(x, r)
	}
}

// Tick lets time pass. The owner wants it at NextTickNs at the latest.
func (o *Owner) Tick(nowNs int64) { o.tick(nowNs) }

// NextTickNs returns when Tick should be called next, at the latest.
func (o *Owner) NextTickNs() int64 {
	t := o.now + 50*ms
	if o.state == OwnerActive && len(o.batches) == 0 {
		for _, x := range o.disks {
			if x.started && x.told < o.commit {
				t = min(t, max(o.now, o.commitMoved+o.cfg.CommitIdleNs))
			}
		}
	}
	for _, j := range o.joins {
		if j.step == joinCopying && len(j.todo) > 0 && j.active < o.cfg.ResyncWindow && !o.cfg.Pace.may(o.now) {
			t = min(t, o.cfg.Pace.freeNs)
		}
	}
	return t
}

// Take works the state forward and returns what is to be done. The result is valid until the next call of any method.
func (o *Owner) Take() *Effects {
	switch o.state {
	case OwnerFencing:
		o.fencingStep()
	case OwnerActive:
		o.activeStep()
	}
	if o.state == OwnerDead {
		o.deadStep()
	}
	disorder(o)
	o.fx, o.spare = o.spare, o.fx
	o.fx.reset()
	return &o.spare
}

func (e *Effects) reset() {
	clear(e.Requests)
	clear(e.Done)
	clear(e.parts)
	*e = Effects{Requests: e.Requests[:0], Proposals: e.Proposals[:0], Done: e.Done[:0], Forward: e.Forward[:0], Events: e.Events[:0], parts: e.parts[:0]}
}

// activeStep is one turn of an ACTIVE owner. Members first: a disk given up may let batches commit.
func (o *Owner) activeStep() {
	o.reads.free.turn()
	o.watchStreams()
	o.watchMembers()
	o.settle()
	o.resyncStep()
	o.form()
	o.startReads()
	o.settle()
	o.readStep()
	o.verifyStep()
	o.endFailed()
	o.barriers()
	o.tellCommit()
	o.releaseStep()
	o.cache.shrink(o.commit)
}

// die ends this incarnation: nothing is admitted, answered or sent any more.
func (o *Owner) die(why string) {
	if o.state == OwnerDead {
		return
	}
	o.state, o.dead = OwnerDead, why
	o.dropAll()
	o.event(OwnerEvent{Kind: EventDead, Text: why})
}

// deadStep proposes Release until it is applied or void: whoever turns DEAD while Raft says that he owns the volume must, or
// nobody could ever take it over while his term lives (B: L9).
func (o *Owner) deadStep() {
	if o.v.Epoch != o.epoch || o.v.Owner != o.cfg.Node || o.v.Released >= o.epoch || mutated("L9") {
		return
	}
	if o.proposed && o.proposal.Kind == CmdRelease && o.now-o.proposedNs < 300*ms {
		return
	}
	o.propose(VolumeCommand{Kind: CmdRelease})
}

// propose sends a command with the epoch and version that the owner knows. At most one is out for one version; what became
// of it shows in SetVolume.
func (o *Owner) propose(c VolumeCommand) {
	c.Vol, c.Epoch, c.Ver = o.v.ID, o.epoch, o.v.Ver
	o.proposal, o.proposed, o.proposedNs = c, true, o.now
	o.fx.Proposals = append(o.fx.Proposals, c)
}

// mayPropose reports whether no proposal is under way, or the last one seems lost. Sending it again is safe: the version
// makes the second one void.
func (o *Owner) mayPropose() bool { return !o.proposed || o.now-o.proposedNs > 500*ms }

// Release begins a planned handoff: admit no more, drop what has no seq yet, finish the pipeline, then propose Release (A.4.9).
func (o *Owner) Release(nowNs int64) {
	o.tick(nowNs)
	switch {
	case o.state == OwnerFencing:
		o.die("released before it was active")
	case o.state == OwnerActive && !o.releasing:
		o.releasing, o.releaseNs = true, o.now
		o.dropQueued()
	}
}

func (o *Owner) releaseStep() {
	if !o.releasing || o.state != OwnerActive {
		return
	}
	done := o.next == o.commit+1
	if !done && o.now-o.releaseNs < second {
		return
	}
	if done && len(o.fx.Done) > 0 {
		return // the answers leave first: from the proposal on nothing may be answered (B: M8)
	}
	for _, x := range o.disks {
		if x.started && (x.inW || x.inJ) {
			o.sendCommit(x)
		}
	}
	o.event(OwnerEvent{Kind: EventReleased})
	o.die("released")
}

// State returns where the owner is in its life.
func (o *Owner) State() OwnerState { return o.state }

// Status returns a snapshot.
func (o *Owner) Status() OwnerStatus {
	s := OwnerStatus{State: o.state, InSync: o.v.InSync(), Commit: o.commit, Next: o.next, Suspended: o.suspendedFor,
		Queued: len(o.queue.writes) + len(o.queue.reads), CacheRows: len(o.cache.rows), Forced: o.forced}
	for _, x := range o.disks {
		if x.inW {
			s.Waiting = append(s.Waiting, x.id)
		}
		if x.inJ {
			s.Joining = append(s.Joining, x.id)
		}
	}
	for _, j := range o.joins {
		s.Resync = append(s.Resync, ResyncStatus{Disk: j.x.id, Done: j.done, Total: j.total})
	}
	return s
}
