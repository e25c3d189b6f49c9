package store

import (
	"fmt"
	"slices"

	"clade/raid"
)

// Step takes requests in the order in which their owners sent them and returns the answers that need no sync; the others come
// out of EndSync. nowNs is for pacing only. The disk keeps what the requests point to, which is immutable.
func (d *Disk) Step(nowNs int64, reqs []*raid.DiskRequest) []raid.DiskReply {
	if len(reqs) > 0 {
		d.lastNs = nowNs
	}
	d.mayRead = d.cfg.AtOnce
	d.payOff()
	var out []raid.DiskReply
	for i, r := range reqs {
		if i%prefetchRequests == 0 {
			d.prefetch(reqs[i:min(i+prefetchRequests, len(reqs))])
		}
		out = roomFor(d.step(out, r), reqs[i+1:])
	}
	return append(out, d.takeReady()...)
}

// prefetchRequests is how many requests ahead the device is told what will be read.
const prefetchRequests = 64

// prefetch lets the device begin with all that several Reads need from it, which are then executed one after the other: so as many are
// under way at once as there are. What is wrong with a request is found when it is executed.
func (d *Disk) prefetch(reqs []*raid.DiskRequest) {
	if len(reqs) < 2 {
		return
	}
	for _, r := range reqs {
		v := d.volume(r.Vol)
		if r.Kind != raid.ReqRead || v == nil {
			continue
		}
		id := blockID{r.Gen, r.Extent, r.First}
		slot, block, ok := v.slotOf(id)
		if !ok || uint64(block)+uint64(r.Count) > raid.BlocksPerRegion {
			continue
		}
		if p := d.cachedPage(slot, id.page(v.id)); p != nil && p.has(block) {
			prefetch(d.dev, d.super.dataOffset(slot)+int64(block)*raid.BlockBytes, int64(r.Count)*raid.BlockBytes)
		}
	}
}

// StepNow is Step for the first of reqs, as far as nobody has to wait for the device or for more than a few blocks to be copied: records
// for which there is room, commit points, and reads of what is in memory. It returns the answers and how many requests it has executed;
// the others are to be given to Step before anything that comes after them.
func (d *Disk) StepNow(nowNs int64, reqs []*raid.DiskRequest) (out []raid.DiskReply, n int) {
	d.now = true
	for d.failed == nil && n < len(reqs) && d.mayStepNow(reqs[n]) {
		more := d.step(out, reqs[n])
		if d.waits {
			d.waits = false
			break
		}
		n++
		out, d.lastNs = roomFor(more, reqs[n:]), nowNs
	}
	d.now = false
	if n > 0 {
		out = append(out, d.takeReady()...)
	}
	return out, n
}

// roomFor makes room in out for the answers of Reads that are still to come, once there is a first one.
func roomFor(out []raid.DiskReply, reqs []*raid.DiskRequest) []raid.DiskReply {
	if len(out) != 1 || cap(out) > 1 {
		return out
	}
	n := 0
	for _, r := range reqs {
		if r.Kind == raid.ReqRead {
			n++
		}
	}
	return slices.Grow(out, n)
}

// mayStepNow reports whether a request is a read, or something for which there is room in the journal.
func (d *Disk) mayStepNow(r *raid.DiskRequest) bool {
	switch r.Kind {
	case raid.ReqRead:
		return true
	case raid.ReqPrepare, raid.ReqCommit:
		n, meta := d.logs(r)
		return meta <= metaBytesMax/2 && d.joins(n, meta) && d.fits(n, d.jrn.reserve())
	}
	return false
}

// step executes one request if there is room for what it logs.
func (d *Disk) step(out []raid.DiskReply, r *raid.DiskRequest) []raid.DiskReply {
	if d.failed != nil {
		return append(out, d.nack(r, raid.NackGone, d.failed.Error()))
	}
	ok, err := d.admit(r)
	switch {
	case err != nil:
		return append(out, d.nack(r, raid.NackGone, d.fail(err).Error()))
	case metaBytes(r) > metaBytesMax/2:
		return d.refuse(out, r, "volume %d: request %d is too large for the journal", r.Vol, r.Kind)
	case !ok && (r.Kind == raid.ReqPrepare || r.Kind == raid.ReqFill || !d.small(r)):
		return d.refuse(out, r, "volume %d: the journal is full", r.Vol)
	}
	return d.request(out, r)
}

func (d *Disk) reply(r *raid.DiskRequest, kind raid.ReplyKind) raid.DiskReply {
	return raid.DiskReply{Kind: kind, Vol: r.Vol, Disk: d.super.Disk, Epoch: r.Epoch, Stream: r.Stream, ID: r.ID, To: r.From}
}

func (d *Disk) nack(r *raid.DiskRequest, why raid.NackReason, text string) raid.DiskReply {
	rep := d.reply(r, raid.RepNack)
	rep.Nack, rep.Err = why, text
	return rep
}

func (d *Disk) refuse(out []raid.DiskReply, r *raid.DiskRequest, f string, a ...any) []raid.DiskReply {
	return append(out, d.nack(r, raid.NackRefused, fmt.Sprintf(f, a...)))
}

// request executes one request by the table of A.3. What is not acceptable and not worth a Nack is silence.
func (d *Disk) request(out []raid.DiskReply, r *raid.DiskRequest) []raid.DiskReply {
	if r.Kind == raid.ReqShards {
		return d.doShards(out, r)
	}
	v := d.volume(r.Vol)
	if v == nil {
		return out // unknown here: its node has not applied its Create yet, or has applied its Delete
	}
	if r.Epoch < v.fence && !mutated("NO_FENCE") {
		rep := d.nack(r, raid.NackFence, "")
		rep.Fence = v.fence
		return append(out, rep)
	}
	switch r.Kind {
	case raid.ReqFence:
		return d.doFence(out, v, r)
	case raid.ReqStart:
		return d.doStart(out, v, r)
	case raid.ReqVerify:
		if r.Epoch == v.fence {
			out = append(out, d.reply(r, raid.RepVerified))
		}
		return out
	}
	if r.Epoch == v.start && r.Epoch == v.fence && v.stream == 0 && !mutated("C22") {
		// The disk was opened again behind a connection that stands. It takes nothing before Start, and says so: else the owner would
		// wait for ever for the answer to a Wipe, which may take any time.
		rep := d.nack(r, raid.NackGap, "")
		rep.EndSeq = v.durableEnd()
		return append(out, rep)
	}
	if r.Epoch != v.start || r.Epoch != v.fence && !mutated("NO_FENCE") || (r.Stream != v.stream || v.stream == 0) && !mutated("C22") {
		return out // of a former stream: a later one has begun, or will after the disk was opened (B: C22)
	}
	switch r.Kind {
	case raid.ReqPrepare:
		return d.doPrepare(out, v, r)
	case raid.ReqCommit:
		v.learn(r.Commit, r.Touch)
		d.logCommit(v)
	case raid.ReqFill:
		return d.doFill(out, v, r)
	case raid.ReqRegions:
		return d.doRegions(out, v, r)
	case raid.ReqWipe:
		return d.doWipe(out, v, r)
	case raid.ReqRead:
		return d.doRead(out, v, r)
	}
	return out
}

// doFence persists the promise to refuse older epochs, and judges the disk itself, in one write (B: C26).
func (d *Disk) doFence(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	if r.Epoch > v.fence {
		liar := d.liar(v, r)
		for _, s := range r.Shards {
			if v.shard(s.Extent, s.Gen) == nil && !mutated("C27") {
				liar = true // never silently zeros (B: C27)
			}
		}
		e := entry{kind: entryFence, vol: v.id, epoch: r.Epoch, damaged: liar}
		v.redoFence(&e)
		d.cancelFresh(v.id, true)
		v.stream, v.acked, v.told = 0, 0, 0
		if mutated("FENCE_VOLATILE") {
			e.epoch = v.start
		}
		d.log(e)
	}
	d.hold(&out, func(d *Disk) []raid.DiskReply {
		rep := d.reply(r, raid.RepReport)
		rep.Report = v.report(d.cfg.BootID)
		return []raid.DiskReply{rep}
	})
	return out
}

// liar reports whether the disk has fallen back behind a fence that it had promised when the cluster last listed it (B: C26).
func (d *Disk) liar(v *volume, r *raid.DiskRequest) bool { return v.fence < r.Since && !mutated("C26") }

// doStart begins an active epoch, or a new stream in it. To a disk that was not there at the takeover it is the first word of that epoch.
func (d *Disk) doStart(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	gone := r.Acked > v.endseq() || r.Acked > 0 && r.Epoch > v.start // what it has acknowledged in this epoch (B: C26)
	damaged := (v.damaged || gone || d.liar(v, r)) && (!r.Forced || v.wiping)
	switch {
	case r.Epoch > v.start:
		for _, rec := range v.log {
			if _, unknown := v.beyond(rec, r.Hist); unknown {
				damaged = true
			}
		}
		e := entry{kind: entryStart, vol: v.id, epoch: r.Epoch, seq: r.End, damaged: damaged, forced: r.Forced, boot: d.cfg.BootID, hist: r.Hist}
		v.redoStart(&e)
		d.log(e)
		d.grant(v, true)
	case r.Epoch == v.start && r.Stream > v.stream:
		if gone && !v.damaged {
			e := entry{kind: entryFence, vol: v.id, epoch: r.Epoch, damaged: true}
			v.redoFence(&e)
			d.log(e)
		}
		d.grant(v, false)
	default:
		return out
	}
	d.cancelFresh(v.id, true)
	v.stream, v.owner, v.acked, v.told = r.Stream, r.From, 0, 0
	quota := d.jrn.baseQuota(len(d.vols)) + v.extra
	d.hold(&out, func(d *Disk) []raid.DiskReply {
		if v.stream != r.Stream {
			return nil
		}
		rep := d.reply(r, raid.RepStarted)
		rep.EndSeq, rep.Damaged, rep.Commit, rep.Quota = v.durableEnd(), v.damaged, v.durable, quota
		v.acked, v.told = rep.EndSeq, rep.Commit
		return []raid.DiskReply{rep}
	})
	return out
}

// doPrepare appends a record whose place in the chain is right.
func (d *Disk) doPrepare(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	rec := r.Rec
	if rec == nil || rec.Epoch != r.Epoch || rec.Seq == 0 {
		return d.refuse(out, r, "volume %d: prepare of another epoch", v.id)
	}
	if len(rec.Blocks) == 0 {
		return d.refuse(out, r, "volume %d seq %d: a record without blocks", v.id, rec.Seq)
	}
	known := v.find(rec.Epoch, rec.Seq, rec.BID) != nil || rec.Seq <= max(v.applied, v.base)
	switch {
	case rec.Prev == v.endseq() && rec.Seq > v.endseq():
		if bad := d.misfit(v, rec.Blocks); bad != "" {
			return d.refuse(out, r, "volume %d seq %d: %s", v.id, rec.Seq, bad)
		}
		v.push(d.newRecord(rec))
		d.log(entry{kind: entryRecord, vol: v.id, rec: rec})
		d.stats.Records++
	case known:
		d.hold(&out, func(d *Disk) []raid.DiskReply { // the answer may have been lost: once more
			rep := d.reply(r, raid.RepAck)
			rep.Seq, rep.Commit = v.durableEnd(), v.durable
			return []raid.DiskReply{rep}
		})
	default:
		rep := d.nack(r, raid.NackGap, "")
		rep.EndSeq = v.endseq()
		return append(out, rep)
	}
	v.learn(r.Commit, r.Touch)
	d.logCommit(v)
	return out
}

// misfit says what is wrong with a record's or Fill's blocks, or "".
func (d *Disk) misfit(v *volume, blocks []raid.Block) string {
	for i := range blocks {
		b := &blocks[i]
		if _, _, ok := v.slotOf(idOf(b)); !ok || len(b.Data) != raid.BlockBytes {
			return fmt.Sprintf("extent %d generation %d block %d of %d bytes does not fit", b.Extent, b.Gen, b.No, len(b.Data))
		}
	}
	if int64(len(blocks))*pageBytes > d.jrn.requestBytesMax() {
		return fmt.Sprintf("%d blocks are too many for a journal of %d bytes", len(blocks), d.jrn.size)
	}
	return ""
}

// learn takes the owner's commit point if the disk holds all that it covers (A.3 Commit).
func (v *volume) learn(c, touch raid.Seq) {
	if v.endseq() >= touch {
		v.commit = max(v.commit, c)
	}
}

// logCommit makes the commit point durable with the next group.
func (d *Disk) logCommit(v *volume) {
	if v.commit > v.logged {
		v.logged = v.commit
		d.log(entry{kind: entryCommit, vol: v.id, seq: v.commit})
	}
}

// doFill takes blocks as of s (A.3 Fill). They go through the journal as after-images, and in place when that is durable.
func (d *Disk) doFill(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	if bad := d.misfit(v, r.Blocks); bad != "" {
		return d.refuse(out, r, "volume %d fill: %s", v.id, bad)
	}
	if len(r.Blocks) > 0 {
		if why := d.fillGuard(v, r); why != "" {
			return d.refuse(out, r, "volume %d fill as of %d: %s", v.id, r.S, why)
		}
	}
	e := entry{kind: entryFill, vol: v.id, seq: r.S, r: r.R, extent: r.Extent, gen: r.Gen, region: r.Region, last: r.Last, blocks: r.Blocks}
	v.kill(e.blocks, e.seq)
	for i := range e.blocks { // until it is in place, reads find it here
		d.fillOverlay(v, &e, i)
	}
	if e.last {
		v.filled(e.seq)
	}
	d.log(e)
	d.hold(&out, func(d *Disk) []raid.DiskReply {
		if err := d.fillInPlace(v, &e); err != nil {
			_ = d.fail(err)
			return []raid.DiskReply{d.nack(r, raid.NackGone, d.failed.Error())}
		}
		rep := d.reply(r, raid.RepFilled)
		rep.Seq = r.S
		return []raid.DiskReply{rep}
	})
	return out
}

// fillGuard refuses a Fill that comes after newer changes of its region (B: C13).
func (d *Disk) fillGuard(v *volume, r *raid.DiskRequest) string {
	slot := uint64(0)
	for i := range r.Blocks {
		b := &r.Blocks[i]
		if b.Extent != r.Extent || b.Gen != r.Gen || b.No/raid.BlocksPerRegion != r.Region {
			return "blocks of more than one region"
		}
		slot, _, _ = v.slotOf(idOf(b))
	}
	for i := len(v.log) - 1; i >= 0 && v.log[i].Seq > r.S; i-- {
		for k := range v.log[i].Blocks {
			if b := &v.log[i].Blocks[k]; b.Extent == r.Extent && b.Gen == r.Gen && b.No/raid.BlocksPerRegion == r.Region {
				return fmt.Sprintf("the region has record %d", v.log[i].Seq)
			}
		}
	}
	if p := d.page(slot, pageID{v.id, r.Extent, r.Gen, r.Region}); !p.bad && p.rseq > r.S {
		return fmt.Sprintf("the region has changed at %d", p.rseq)
	}
	return ""
}

// doRead returns blocks as of s; a block that cannot be trusted is nil.
func (d *Disk) doRead(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	s := v.shard(r.Extent, r.Gen)
	if s == nil || v.endseq() < r.Touch || r.Count == 0 || r.Count > raid.BlocksPerRegion ||
		uint64(r.First)+uint64(r.Count) > uint64(s.Regions)*raid.BlocksPerRegion || (r.First+r.Count-1)/raid.BlocksPerRegion != r.First/raid.BlocksPerRegion {
		return d.refuse(out, r, "volume %d: read of extent %d blocks %d+%d", v.id, r.Extent, r.First, r.Count)
	}
	region := r.First / raid.BlocksPerRegion
	slot := s.slot + uint64(region)
	id := pageID{v.id, s.Extent, s.Gen, region}
	p := d.cachedPage(slot, id)
	switch {
	case p != nil:
	case d.now:
		d.waits = true
		return out
	default:
		p = d.page(slot, id)
	}
	rep := d.reply(r, raid.RepRead)
	rep.Extent, rep.First, rep.R = r.Extent, r.First, p.rseq
	rep.Blocks = make([][]byte, r.Count)
	limit := r.S
	if mutated("READ_UNCOMMITTED") {
		limit = 1 << 62
	}
	if !d.blocks(v, p, r.First, rep.Blocks, limit) {
		d.waits = true
		return out
	}
	return append(out, rep)
}
