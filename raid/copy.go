package raid

import (
	"fmt"
	"slices"
)

// copyJob rebuilds blocks of one region for one disk and sends them as a Fill: a region of a joining disk, or the bad blocks
// that a read or scrub has found (A.4.5, A.4.7).
type copyJob struct {
	x      *disk
	join   *join // nil: a repair
	key    regionKey
	first  uint32
	count  uint32
	only   []uint32 // repair: exactly these block numbers
	s      Seq
	src    roles
	lost   roles // roles of which a block was bad or whose disk did not answer
	got    [][][]byte
	wait   int
	locked bool
	over   bool // cancelled
	id     uint64

	beganNs int64 // of a join
}

func rowText(o *Owner, k rowKey) string {
	return fmt.Sprintf("extent %d block %d (volume offset %d) has fewer than %d good blocks", k.ext, k.no, o.geo.address(k, 0), o.v.Layout.K)
}

// startCopy locks the region; what is read then is as of one commit point, with nothing in flight.
func (o *Owner) startCopy(c *copyJob) {
	c.got = make([][][]byte, o.v.Layout.Width())
	if c.join == nil {
		o.repairs = append(o.repairs, c)
	} else {
		c.join.copies = append(c.join.copies, c)
	}
	if mutated("FILL_UNLOCKED") {
		o.readCopy(c)
		return
	}
	o.lock(c.key, func() {
		if c.over {
			o.unlock(c.key)
			return
		}
		c.locked = true
		o.readCopy(c)
	})
}

// readCopy asks k disks for the blocks.
func (o *Owner) readCopy(c *copyJob) {
	c.s, c.wait, c.src = o.commit, 0, 0
	clear(c.got)
	if !o.moreSources(c, o.v.Layout.K) {
		o.copyFailed(c)
	}
}

// moreSources asks n further disks; it reports whether there were so many.
func (o *Owner) moreSources(c *copyJob, n int) bool {
	for role := range o.v.Layout.Width() {
		x := o.diskOf(rowKey{c.key.ext, c.first}, role)
		if n == 0 {
			break
		}
		if x == c.x || c.src.has(role) || c.lost.has(role) && c.got[role] == nil || !x.readable() {
			continue
		}
		c.src = c.src.with(role)
		c.wait++
		n--
		o.sendRead(&readOut{x: x, ext: c.key.ext, first: c.first, copy: c, role: role}, &DiskRequest{}, c.count, c.s)
	}
	return n == 0
}

func (o *Owner) copyRead(out *readOut, r *DiskReply) {
	c := out.copy
	if c.over {
		return
	}
	c.wait--
	if !out.fits(r) || r.R > c.s && !mutated("READ_MIX") {
		c.lost = c.lost.with(out.role)
	} else {
		c.got[out.role] = r.Blocks
	}
	if c.wait > 0 {
		return
	}
	if n := o.shortBy(c); n > 0 {
		if !o.moreSources(c, n) && c.wait == 0 {
			o.copyFailed(c)
		}
		return
	}
	o.sendFill(c)
}

// shortBy returns how many further disks are needed for the worst row.
func (o *Owner) shortBy(c *copyJob) int {
	worst := 0
	for _, no := range c.blocks() {
		good := 0
		for _, blocks := range c.got {
			if blocks != nil && len(blocks[no-c.first]) == BlockBytes {
				good++
			}
		}
		worst = max(worst, o.v.Layout.K-good)
	}
	return worst
}

// blocks returns the block numbers that the Fill will carry.
func (c *copyJob) blocks() []uint32 {
	if c.only != nil {
		return c.only
	}
	out := make([]uint32, c.count)
	for i := range out {
		out[i] = c.first + uint32(i)
	}
	return out
}

// sendFill rebuilds the disk's blocks and sends them on the stream of its Prepares: later records follow it (B: C13).
func (o *Owner) sendFill(c *copyJob) {
	role := o.geo.roleOf(c.key.region, o.positionOn(c.x.id, c.key.ext))
	gen := o.genOn(c.x.id, c.key.ext)
	req := &DiskRequest{Kind: ReqFill, ID: o.newID(), S: c.s, R: c.s, Extent: c.key.ext, Gen: gen, Region: c.key.region}
	if c.join != nil {
		req.R = min(max(c.join.changed[c.key], c.join.touched[c.key]), c.s) // a damaged page answers the largest seq
	}
	if mutated("C16b") {
		req.R = 0
	}
	shards := make([][]byte, o.v.Layout.Width())
	for _, no := range c.blocks() {
		clear(shards)
		have := 0
		for r, blocks := range c.got {
			if blocks != nil && len(blocks[no-c.first]) == BlockBytes && have < o.v.Layout.K {
				shards[r] = blocks[no-c.first]
				have++
			}
		}
		o.code.Rebuild(shards, roles(0).with(role))
		req.Blocks = append(req.Blocks, Block{Extent: c.key.ext, Gen: gen, No: no, Data: shards[role]})
	}
	c.id = req.ID
	o.send(c.x, req)
	c.got = nil
	o.releaseCopy(c)
}

func (o *Owner) positionOn(d DiskID, ext uint32) int {
	return slices.IndexFunc(o.geo.extents[ext].Shards, func(p Placement) bool { return p.Disk == d })
}

func (o *Owner) releaseCopy(c *copyJob) {
	if c.locked {
		c.locked = false
		o.unlock(c.key)
	}
}

// endCopy takes a job off its list.
func (o *Owner) endCopy(c *copyJob) {
	c.over = true
	o.releaseCopy(c)
	same := func(x *copyJob) bool { return x == c }
	if c.join == nil {
		o.repairs = slices.DeleteFunc(o.repairs, same)
	} else {
		c.join.copies = slices.DeleteFunc(c.join.copies, same)
	}
}

func (o *Owner) copyFilled(x *disk, r *DiskReply) {
	for _, c := range o.copiesTo(x) {
		if c.id != r.ID || c.id == 0 { // 0: not sent yet
			continue
		}
		o.endCopy(c)
		if c.join != nil {
			c.join.active--
			c.join.done++
			o.cfg.Pace.ended(o.now, o.now-c.beganNs)
			return
		}
		o.event(OwnerEvent{Kind: EventRepaired, Disk: x.id, Text: fmt.Sprintf("extent %d blocks %v", c.key.ext, c.only)})
		return
	}
}

func (o *Owner) copiesTo(x *disk) []*copyJob {
	var out []*copyJob
	for _, c := range o.repairs {
		if c.x == x {
			out = append(out, c)
		}
	}
	if j := o.joinOf(x); j != nil {
		out = append(out, j.copies...)
	}
	return out
}

// copyFailed gives a job up for now: a join begins again after its back-off, a repair when the block is met again.
func (o *Owner) copyFailed(c *copyJob) {
	x := c.x
	o.endCopy(c)
	if c.join != nil {
		o.abortJoin(x, fmt.Sprintf("too few disks to rebuild extent %d region %d", c.key.ext, c.key.region))
	}
}

// copySourceLost looks for another source after a disk that was asked has gone.
func (o *Owner) copySourceLost(out *readOut) {
	c := out.copy
	if c.over {
		return
	}
	c.wait--
	c.lost = c.lost.with(out.role)
	if !o.moreSources(c, 1) && c.wait == 0 {
		o.copyFailed(c)
	}
}

// copiesLost ends what was under way to x: its stream has broken, and with it the order of Fills and Prepares.
func (o *Owner) copiesLost(x *disk) {
	for _, c := range o.copiesTo(x) {
		o.endCopy(c)
	}
	j := o.joinOf(x)
	switch {
	case j == nil:
	case x.inW: // its last Fill is acknowledged: the records go on from where its chain ends
	case x.inJ || j.step == joinWiping:
		o.backOff(x, backoffOtherMaxNs)
		x.inJ, x.sent, x.credit, x.used, x.acked, x.touch, x.chained = false, nil, nil, 0, 0, 0, false
		o.queue.dirty = true // writes may have waited for its credit
		o.endJoin(x)
	}
	o.rejoinsLost(x)
}

// rejoinsLost lets joins ask again that waited for x's region table.
func (o *Owner) rejoinsLost(x *disk) {
	for _, j := range o.joins {
		if j.step == joinAsking && j.x != x {
			j.step = joinSettling
		}
	}
}

// refused takes a Nack of Fill, Read, Wipe or Prepare.
func (o *Owner) refused(x *disk, r *DiskReply) {
	if out := o.reads.under.take(x, r.ID); out != nil {
		x.readFailed = o.now + second
		o.requeue(out)
		return
	}
	for _, j := range o.joins {
		if a, ok := j.asked[r.ID]; ok && a.x == x && j.step == joinAsking {
			o.abortJoin(j.x, fmt.Sprintf("disk %d does not tell what changed: %s", x.id, r.Err))
			return
		}
	}
	j := o.joinOf(x)
	switch {
	case j != nil && !x.inW:
		o.abortJoin(x, "it refused: "+r.Err)
	case x.inW && r.ID == 0: // a Prepare; what has an id was asked of others meanwhile, or is a Fill
		o.giveUp(x, dropGap, "it refused: "+r.Err)
	}
	for _, c := range o.copiesTo(x) {
		if c.id == r.ID && c.id != 0 {
			o.endCopy(c)
		}
	}
}

// repair rebuilds a bad block of a disk in W from the others (A.4.7).
func (o *Owner) repair(k rowKey, role int) {
	x := o.diskOf(k, role)
	if !x.readable() || len(o.repairs) >= 16 {
		return
	}
	for _, c := range o.repairs {
		if c.x == x && c.key == k.region() && slices.Contains(c.only, k.no) {
			return
		}
	}
	o.startCopy(&copyJob{x: x, key: k.region(), first: k.no, count: 1, only: []uint32{k.no}})
}
