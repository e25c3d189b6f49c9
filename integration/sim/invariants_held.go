package sim

import (
	"slices"

	"clade/membership"
	"clade/raid"
)

// What must be where: I4, I7 and I12, judged from the batches that owners sent and the records that disks hold.

// batch is what an owner called (epoch, seq).
type batch struct {
	bid     uint64
	parts   raid.DiskSet
	extents []uint32
}

// committedBatch is the batch that a seq of a volume stands for, for ever.
type committedBatch struct {
	epoch raid.Epoch
	batch
}

// sent notes a part of a batch; I9 is that one name never stands for two batches.
func (c *invariants) sent(r *raid.DiskRequest) {
	k := batchKey{ownerKey{r.Vol, r.Rec.Epoch}, r.Rec.Seq}
	b, ok := c.batches[k]
	switch {
	case !ok:
		b = &batch{bid: r.Rec.BID, parts: r.Rec.Parts}
		c.batches[k] = b
		c.newest[r.Vol] = max(c.newest[r.Vol], r.Rec.Epoch)
	case b.bid != r.Rec.BID:
		c.w.fail("I9: volume %d: two batches are called %d:%d", r.Vol, r.Rec.Epoch, r.Rec.Seq)
	}
	if !b.parts.Has(r.Disk) {
		c.w.fail("volume %d: a part of %d:%d for disk %d, which is none of %v", r.Vol, r.Rec.Epoch, r.Rec.Seq, r.Disk, b.parts)
	}
	for i := range r.Rec.Blocks {
		if x := r.Rec.Blocks[i].Extent; !slices.Contains(b.extents, x) {
			b.extents = append(b.extents, x)
		}
	}
}

// committedTo is called with an owner's commit point. What has become committed must be on every in-sync disk that takes part (I4),
// and there must be one for each extent (I12).
func (c *invariants) committedTo(v *membership.Volume, e raid.Epoch, commit raid.Seq) {
	list := c.committed[v.ID()]
	for n := raid.Seq(len(list)) + 1; n <= commit; n++ {
		var b *batch
		from := e
		for ; from > 0 && b == nil; from-- { // the epoch's own, or one that it rolled forward: the newest that counts
			if end, closed := c.ended[ownerKey{v.ID(), from}]; from != e && (!closed || n > end) {
				continue
			}
			b = c.batches[batchKey{ownerKey{v.ID(), from}, n}]
		}
		if b == nil {
			c.w.fail("volume %d: the owner of epoch %d has committed %d, which nobody has sent", v.ID(), e, n)
		}
		list = append(list, committedBatch{from + 1, *b})
		c.committed[v.ID()] = list
		for _, x := range b.extents {
			found := false
			for _, p := range v.Data.Extents[x].Shards {
				found = found || b.parts.Has(p.Disk) && v.Data.Member(p.Disk).InSync
			}
			if !found {
				c.w.fail("I12: volume %d: %d:%d is committed in epoch %d, but no in-sync disk of extent %d took part (%v)", v.ID(), from+1, n, e, x, b.parts)
			}
		}
		for _, m := range v.Data.Members {
			if m.InSync && b.parts.Has(m.Disk) {
				c.holds(m.Disk, v, n, "I4")
			}
		}
	}
}

// holds demands that an open disk has a committed batch: in its log, in place, or by a Fill.
func (c *invariants) holds(d raid.DiskID, v *membership.Volume, n raid.Seq, which string) {
	dr := c.w.driverOf(d)
	s := c.shadows[shadowKey{d, v.ID()}]
	if dr == nil || s == nil || !s.seen || s.rolled || s.view.Damaged || c.w.atlas.victim(dr.p.index) && c.w.shape.damage {
		return // nobody can look, or it has said itself that it is not to be believed
	}
	if n <= s.view.Base || n <= s.unknown {
		return
	}
	b := &c.committed[v.ID()][n-1]
	if r := s.at(n); r.bid != b.bid || r.epoch != b.epoch || !r.durable && n > s.view.Applied {
		c.w.fail("%s: disk %d does not hold %d:%d of volume %d: it has %d:%d there, durable %v (applied %d, base %d, commit %d)", which, d, b.epoch, n, v.ID(),
			r.epoch, n, r.durable, s.view.Applied, s.view.Base, s.view.Commit)
	}
}

// follow keeps the newest version of every volume that any process has ever applied: those that live may be behind it.
func (c *invariants) follow(s *membership.State) {
	for _, v := range s.Volumes {
		i := slices.IndexFunc(c.latest, func(o *membership.Volume) bool { return o.ID() == v.ID() })
		switch {
		case i < 0:
			c.latest = append(c.latest, v)
		case c.latest[i].Data.Ver < v.Data.Ver:
			c.latest[i] = v
		}
	}
}

// everything is I4 and I7 for all that was ever committed: an in-sync disk holds it all, one that went stale all up to there.
func (c *invariants) everything() {
	for _, v := range c.latest {
		if c.w.operator.doomed[v.ID()] {
			continue
		}
		for i := range v.Data.Members {
			m := &v.Data.Members[i]
			upto, which := m.Stale, "I7"
			if m.InSync {
				upto, which = raid.Seq(len(c.committed[v.ID()])), "I4"
			}
			s := c.shadows[shadowKey{m.Disk, v.ID()}]
			if s == nil {
				continue
			}
			upto = min(upto, raid.Seq(len(c.committed[v.ID()])))
			for n := s.verified + 1; n <= upto; n++ {
				if c.committed[v.ID()][n-1].parts.Has(m.Disk) {
					c.holds(m.Disk, v, n, which)
				}
			}
			if c.w.driverOf(m.Disk) != nil && !s.view.Damaged {
				s.verified = max(s.verified, min(upto, s.view.Applied)) // what is applied stays
			}
		}
	}
}
