package sim

import (
	"slices"

	"clade/raid"
	"clade/store"
)

// What the disks hold, as seen from outside after every piece of work: invariants I3, I5, I6 and I11, and the ground for I4 and I7.

// shadow is what the simulator remembers of a volume on a disk, through crashes.
type shadow struct {
	disk      raid.DiskID
	vol       raid.VolumeID
	view      store.VolumeView
	fenceSaid raid.Epoch // in an answer: from then on it is durable
	startSaid raid.Epoch
	held      []heldRecord // by seq: the record that the disk has, or has applied
	verified  raid.Seq     // everything committed up to here that is its own was found
	seen      bool
	liedTop   raid.Seq // it lied about having this
	rolled    bool     // its contents have gone back in time: until it is wiped nothing says what it holds
	unknown   raid.Seq // applied before all that was known of it was forgotten
}

type heldRecord struct {
	epoch   raid.Epoch
	bid     uint64
	durable bool
}

type shadowKey struct {
	disk raid.DiskID
	vol  raid.VolumeID
}

func (c *invariants) shadow(disk raid.DiskID, vol raid.VolumeID) *shadow {
	k := shadowKey{disk, vol}
	s := c.shadows[k]
	if s == nil {
		s = &shadow{disk: disk, vol: vol}
		c.shadows[k] = s
	}
	return s
}

func (s *shadow) at(n raid.Seq) heldRecord {
	if int(n) < len(s.held) {
		return s.held[n]
	}
	return heldRecord{}
}

func (s *shadow) set(n raid.Seq, r heldRecord) {
	for int(n) >= len(s.held) {
		s.held = append(s.held, heldRecord{})
	}
	s.held[n] = r
}

// forget is for a disk whose contents are not what they were: wiped, replaced, or rolled back.
func (s *shadow) forget() { *s = shadow{disk: s.disk, vol: s.vol} }

// opened looks at a disk that a process has just recovered: what no answer promised may be gone, a whole volume for instance.
func (c *invariants) opened(d *driver) {
	for k, s := range c.shadows {
		if k.disk != d.hd.id {
			continue
		}
		s.view.Fence, s.view.Start, s.verified = s.fenceSaid, s.startSaid, 0
		if c.w.operator.doomed[k.vol] { // deleted; a node that has yet to hear of that may make it anew, empty, until it does
			s.view.Fence, s.view.Start = 0, 0
		}
	}
	c.views = d.disk.Inspect(c.views[:0])
	for _, v := range c.views {
		s := c.shadow(d.hd.id, v.Vol)
		if v.Damaged {
			s.forget()
		}
		if s.rolled {
			s.unknown = v.Applied
		}
		c.look(d, s, v)
	}
	c.confessed(d)
}

// noticed ends the wait for a lie to be found out.
func (c *invariants) noticed(s *shadow) {
	c.lying = slices.DeleteFunc(c.lying, func(o *shadow) bool { return o == s })
}

// afterDisk looks at all volumes of a disk that has done some work.
func (c *invariants) afterDisk(d *driver) {
	if d.disk.Failed() != nil || d.failed { // what a process still does with a disk that it has opened anew since counts for nothing
		return
	}
	c.views = d.disk.Inspect(c.views[:0])
	for _, v := range c.views {
		c.look(d, c.shadow(d.hd.id, v.Vol), v)
	}
}

func (c *invariants) look(d *driver, s *shadow, v store.VolumeView) {
	was := s.view
	s.view, s.seen = v, true
	if v.Fence < was.Fence || v.Start < was.Start || v.Start > v.Fence {
		c.w.fail("I6: disk %d volume %d: fence %d, start %d after fence %d, start %d", s.disk, s.vol, v.Fence, v.Start, was.Fence, was.Start)
	}
	if v.Damaged {
		c.noticed(s)
		return
	}
	if v.Applied > v.Commit {
		c.w.fail("I5: disk %d volume %d: applied %d, durable commit point %d", s.disk, s.vol, v.Applied, v.Commit)
	}
	c.log = d.disk.InspectLog(s.vol, c.log[:0])
	at := 0
	for n := min(was.Applied, v.Applied) + 1; int(n) < len(s.held); n++ {
		for at < len(c.log) && c.log[at].Seq < n {
			at++
		}
		r := s.held[n]
		if r.epoch == 0 || at < len(c.log) && c.log[at].Seq == n {
			continue
		}
		end, closed := c.ended[ownerKey{s.vol, r.epoch}]
		void := closed && n > end && v.Start > was.Start
		if n <= v.Applied && n > was.Applied && !void {
			c.applied(s, n, r.epoch)
		} else if n > v.Applied {
			s.held[n] = heldRecord{} // a later epoch has declared it void, or it was never durable
		}
	}
	for _, r := range c.log {
		known := s.at(r.Seq)
		if known.epoch == r.Epoch && known.bid == r.BID {
			s.held[r.Seq].durable = r.Durable
		} else if b, ok := c.batches[batchKey{ownerKey{s.vol, r.Epoch}, r.Seq}]; !ok || b.bid != r.BID {
			c.w.fail("I9: disk %d volume %d has a record %d:%d that no owner sent", s.disk, s.vol, r.Epoch, r.Seq)
		}
		if r.Seq <= v.Applied {
			c.w.fail("disk %d volume %d: record %d:%d is not applied, though %d is", s.disk, s.vol, r.Epoch, r.Seq, v.Applied)
		}
		if known.epoch != r.Epoch || known.bid != r.BID {
			s.set(r.Seq, heldRecord{r.Epoch, r.BID, r.Durable})
		}
	}
}

// applied is I3: nothing beyond the end of its epoch is ever applied, whether the end is known already or not.
func (c *invariants) applied(s *shadow, n raid.Seq, e raid.Epoch) {
	k := ownerKey{s.vol, e}
	c.appliedTo[k] = max(c.appliedTo[k], n)
	if end, ok := c.ended[k]; ok && n > end {
		c.w.fail("I3: disk %d applies record %d:%d of volume %d, whose epoch ended at %d", s.disk, e, n, s.vol, end)
	}
}

// beforeStep notes the streams that a disk serves.
func (c *invariants) beforeStep(d *driver) {
	c.views = d.disk.Inspect(c.views[:0])
	for _, v := range c.views {
		c.shadow(d.hd.id, v.Vol).view.Stream = v.Stream
	}
}

// stepped is I11: nothing of a stream older than the one that a disk has started is taken. And it notes what answers promise.
func (c *invariants) stepped(d *driver, reqs []*raid.DiskRequest, replies []raid.DiskReply) {
	for _, q := range reqs {
		s := c.shadow(d.hd.id, q.Vol)
		started, filled, wiped := false, false, false
		for i := range replies {
			r := &replies[i]
			if r.Vol == q.Vol && r.ID == q.ID && r.Epoch == q.Epoch {
				started = started || r.Kind == raid.RepStarted
				filled = filled || r.Kind == raid.RepFilled
				wiped = wiped || r.Kind == raid.RepWiped
			}
		}
		switch {
		case q.Kind == raid.ReqStart && started:
			s.view.Stream = q.Stream
		case q.Epoch != s.view.Start || q.Stream >= s.view.Stream:
		case q.Kind == raid.ReqFill && filled:
			c.w.fail("I11: disk %d volume %d takes a Fill of stream %d, it has started %d", s.disk, s.vol, q.Stream, s.view.Stream)
		case q.Kind == raid.ReqPrepare && s.at(q.Rec.Seq).bid != q.Rec.BID && c.inLog(d, q) && !c.sentTwice(reqs, q, s.view.Stream):
			c.w.fail("I11: disk %d volume %d takes record %d:%d of stream %d, it has started %d", s.disk, s.vol, q.Epoch, q.Rec.Seq, q.Stream, s.view.Stream)
		}
		if wiped {
			c.noticed(s)
			s.forget()
		}
	}
	c.promised(d, replies)
	c.afterDisk(d)
}

func (c *invariants) inLog(d *driver, q *raid.DiskRequest) bool {
	c.log = d.disk.InspectLog(q.Vol, c.log[:0])
	for _, r := range c.log {
		if r.Seq == q.Rec.Seq && r.BID == q.Rec.BID {
			return true
		}
	}
	return false
}

// sentTwice reports whether the same record came on the right stream as well.
func (c *invariants) sentTwice(reqs []*raid.DiskRequest, q *raid.DiskRequest, stream raid.Stream) bool {
	for _, o := range reqs {
		if o.Kind == raid.ReqPrepare && o.Vol == q.Vol && o.Stream >= stream && o.Rec.BID == q.Rec.BID {
			return true
		}
	}
	return false
}

// promised notes what a disk has answered: that is durable. What it reports may not lie beyond the end of a closed epoch for good,
// which reconciliation judges; what it acknowledges is held.
func (c *invariants) promised(d *driver, replies []raid.DiskReply) {
	for i := range replies {
		r := &replies[i]
		s := c.shadow(d.hd.id, r.Vol)
		switch r.Kind {
		case raid.RepReport:
			s.fenceSaid = max(s.fenceSaid, r.Epoch)
		case raid.RepStarted:
			s.fenceSaid, s.startSaid = max(s.fenceSaid, r.Epoch), max(s.startSaid, r.Epoch)
		case raid.RepWiped:
			s.held, s.verified = nil, 0
			s.view.Applied, s.view.Commit, s.view.Base = 0, 0, 0
		}
	}
}
