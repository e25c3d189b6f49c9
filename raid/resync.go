package raid

import "fmt"

// joinStep is how far a joining disk has come (A.4.5).
type joinStep uint8

const (
	joinWiping   joinStep = iota + 1
	joinSettling          // batches formed without it must commit first
	joinAsking            // Regions of all in-sync disks
	joinCopying
	joinClosing // the last Fill
	joinCatching
)

// join is the resync of one disk: which regions have changed since it went stale, and how many are copied.
type join struct {
	x       *disk
	step    joinStep
	stale   Seq // S[d] at the beginning
	j       Seq // first batch that was formed with it
	asked   map[uint64]regionsAsk
	asks    int
	changed map[regionKey]Seq // last change, as the in-sync disks said
	touched map[regionKey]Seq // by batches since
	todo    []regionKey
	active  int
	copies  []*copyJob
	done    int
	total   int
	id      uint64 // of the Wipe or last Fill
}

// regionsAsk is one Regions request: of whom, for which extent.
type regionsAsk struct {
	x   *disk
	ext uint32
}

func (o *Owner) joinOf(x *disk) *join {
	for _, j := range o.joins {
		if j.x == x {
			return j
		}
	}
	return nil
}

// resyncStep takes back the disks that have returned and moves every join on.
func (o *Owner) resyncStep() {
	for _, x := range o.disks {
		if x.inSync || x.inW || x.inJ || !x.started || o.now < x.rejoinNs || o.joinOf(x) != nil || o.suspendedNs != 0 || o.releasing {
			continue
		}
		m := o.v.Member(x.id)
		if x.damaged && m.Stale != 0 { // what it holds is worth nothing: Raft must say so first (B: C26)
			if o.mayPropose() {
				o.propose(VolumeCommand{Kind: CmdDamaged, Disk: x.id})
			}
			continue
		}
		o.beginJoin(x, m.Stale)
	}
	for _, j := range append([]*join(nil), o.joins...) {
		o.joinOn(j)
	}
}

func (o *Owner) beginJoin(x *disk, stale Seq) {
	j := &join{x: x, stale: stale, touched: map[regionKey]Seq{}}
	o.joins = append(o.joins, j)
	o.event(OwnerEvent{Kind: EventRejoin, Disk: x.id})
	if stale == 0 {
		j.step, j.id = joinWiping, o.newID()
		x.said = 0
		o.send(x, &DiskRequest{Kind: ReqWipe, ID: j.id, Shards: o.v.ShardsOn(x.id)})
		return
	}
	o.enterJ(j)
}

// enterJ lets every batch from now on include the disk.
func (o *Owner) enterJ(j *join) {
	j.x.inJ, j.x.chained, j.x.from = true, true, o.next
	j.j, j.step = o.next, joinSettling
}

func (o *Owner) joinOn(j *join) {
	switch j.step {
	case joinSettling:
		if o.commit+1 >= j.j || mutated("JOIN_INFLIGHT") {
			o.askRegions(j)
		}
	case joinCopying:
		for j.active < o.cfg.ResyncWindow && len(j.todo) > 0 && o.joinOf(j.x) == j && o.cfg.Pace.may(o.now) { // a copy may fail at once
			k := j.todo[0]
			j.todo = j.todo[1:]
			j.active++
			o.cfg.Pace.begun(o.now)
			o.startCopy(&copyJob{x: j.x, join: j, key: k, first: k.region * BlocksPerRegion, count: BlocksPerRegion, beganNs: o.now})
		}
		if j.active == 0 && len(j.todo) == 0 {
			o.lastFill(j)
		}
	case joinCatching:
		o.proposeInSync(j)
	}
}

// askRegions asks every in-sync disk of the disk's extents when each region changed last. All of them: one that was rebuilt
// lately, or was out at the time, may not remember a change (B: C16).
func (o *Owner) askRegions(j *join) {
	var asks []regionsAsk
	for _, s := range o.v.ShardsOn(j.x.id) {
		for _, p := range o.v.Extents[s.Extent].Shards {
			if p.Disk == j.x.id || !o.v.Member(p.Disk).InSync {
				continue
			}
			y := o.disk(p.Disk)
			if !y.readable() {
				return // it comes back, or leaves the in-sync set
			}
			asks = append(asks, regionsAsk{y, s.Extent})
		}
	}
	j.step, j.asked, j.changed, j.asks = joinAsking, map[uint64]regionsAsk{}, map[regionKey]Seq{}, len(asks)
	for _, a := range asks {
		id := o.newID()
		j.asked[id] = a
		o.send(a.x, &DiskRequest{Kind: ReqRegions, ID: id, S: o.commit, Touch: a.x.touch, Extent: a.ext, Gen: o.genOn(a.x.id, a.ext)})
	}
	if j.asks == 0 {
		o.planCopies(j)
	}
}

// joinReply takes the answers that joins wait for.
func (o *Owner) joinReply(x *disk, r *DiskReply) {
	switch r.Kind {
	case RepWiped:
		if j := o.joinOf(x); j != nil && j.step == joinWiping && r.ID == j.id {
			x.prev, x.damaged = 0, false
			o.enterJ(j)
		}
	case RepRegions:
		for _, j := range o.joins {
			if a, ok := j.asked[r.ID]; ok && a.x == x && j.step == joinAsking {
				delete(j.asked, r.ID)
				if r.Extent != a.ext || len(r.Regions) != o.regionsOf(j.x, a.ext) { // a region that it does not name would not be copied
					o.abortJoin(j.x, fmt.Sprintf("disk %d does not tell of all regions of extent %d what changed", x.id, a.ext))
					return
				}
				for i, s := range r.Regions {
					k := regionKey{a.ext, uint32(i)}
					j.changed[k] = max(j.changed[k], s)
				}
				if j.asks--; j.asks == 0 {
					o.planCopies(j)
				}
				return
			}
		}
	case RepFilled:
		if j := o.joinOf(x); j != nil && j.step == joinClosing && r.ID == j.id {
			x.inW = true // from now on commits wait for it; InSync only when it has caught up (B: C8)
			j.step = joinCatching
			return
		}
		o.copyFilled(x, r)
	}
}

// regionsOf returns how many regions a disk's shard of an extent has.
func (o *Owner) regionsOf(x *disk, ext uint32) int {
	for _, s := range o.v.ShardsOn(x.id) {
		if s.Extent == ext {
			return int(s.Regions)
		}
	}
	return 0
}

// planCopies lists the regions to copy: what changed after the disk went stale. For a disk that is empty (S = 0, wiped) these
// are all regions that ever changed; one that no in-sync disk saw change is zeros on both sides.
func (o *Owner) planCopies(j *join) {
	j.step = joinCopying
	for _, s := range o.v.ShardsOn(j.x.id) {
		for r := range s.Regions {
			if k := (regionKey{s.Extent, r}); j.changed[k] > j.stale {
				j.todo = append(j.todo, k)
			}
		}
	}
	j.total = len(j.todo)
}

// touched notes for the joins when a region changed last.
func (o *Owner) touched(k regionKey, n Seq) {
	for _, j := range o.joins {
		j.touched[k] = n
	}
}

// lastFill makes the disk raise its base and commit point: what it was given implies that everything up to s is committed
// (B: C9).
func (o *Owner) lastFill(j *join) {
	x := j.x
	j.step, j.id = joinClosing, o.newID()
	o.send(x, &DiskRequest{Kind: ReqFill, ID: j.id, S: o.commit, Last: true})
	if !mutated("L10") {
		x.prev = max(x.prev, o.commit) // or the chain would break at the next Prepare (B: L10)
	}
	if mutated("ADMIT_EARLY") {
		j.step = joinCatching
	}
}

// proposeInSync asks Raft to count the disk in once it has acknowledged every batch up to the commit point.
func (o *Owner) proposeInSync(j *join) {
	x := j.x
	if len(x.sent) > 0 && x.sent[0].rec.Seq <= o.commit && !mutated("ADMIT_EARLY") {
		return
	}
	if x.drop != dropNone || !x.started || !o.mayPropose() {
		return
	}
	x.inSyncVer = o.v.Ver
	o.propose(VolumeCommand{Kind: CmdInSync, Disk: x.id})
}

// endJoin forgets a disk's join and what was being copied for it.
func (o *Owner) endJoin(x *disk) {
	for i, j := range o.joins {
		if j.x == x {
			o.joins = append(o.joins[:i:i], o.joins[i+1:]...) // first: a copy that ends may end another join
			for len(j.copies) > 0 {
				o.endCopy(j.copies[0])
			}
			return
		}
	}
}

// abortJoin gives a joining disk up that no commit waits for: no need to ask Raft.
func (o *Owner) abortJoin(x *disk, why string) {
	o.event(OwnerEvent{Kind: EventDropped, Disk: x.id, Text: why})
	o.backOff(x, backoffOtherMaxNs)
	o.closeJoin(x)
}
