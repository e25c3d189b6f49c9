package store

import (
	"cmp"
	"fmt"
	"slices"

	"clade/raid"
)

// The journal's room is promised before anything is logged, so that a group always fits (B: L4):
//
//	used + building + the request + what would have to be copied forward + waste at the journal's end <= size - reserve
//
// Whoever would break that makes room first: flush, apply, checkpoint. What cannot be made to fit is refused, but Fence, Start and
// commit points, which are small, may use the reserve.

// requestBytesMax bounds one request's blocks: a whole region, and more where the journal is larger.
func (j *journal) requestBytesMax() int64 { return max(j.size/16, raid.RegionBytes) }

// groupBytesMax is the length above which a group is written before it gets more.
func (j *journal) groupBytesMax() int64 { return max(j.size/16, raid.RegionBytes+64<<10) }

// groupBytesLimit is more than any group has: what one request may add to groupBytesMax, its meta part included.
func (j *journal) groupBytesLimit() int64 {
	return j.groupBytesMax() + j.requestBytesMax() + metaBytesMax
}

func (j *journal) reserve() int64 { return j.size / 32 }

// pinnedBytesMax bounds all volumes' records above the commit point (B: L12). Once they have been copied forward, they and room
// for another copy, with three groups of the largest size and the reserve, are less than the journal.
func (j *journal) pinnedBytesMax() int64 {
	if j.size < 16<<20 {
		return j.size * 3 / 16
	}
	return j.size * 5 / 16
}

const (
	baseVolumesMin = 4   // a disk's first volumes have equal base quotas
	baseVolumesMax = 256 // DESIGN section 6
	baseDivisor    = 18  // see baseQuota
)

// A quota is how many bytes of records above the durable commit point a volume may have here. It is told to the owner with Started and
// is a base, which every volume gets, and an extra, by which a disk with few volumes gives them most of its room. What both are in sum
// over all volumes that are here is less than pinnedBytesMax, in whatever order volumes came, were started again, and went:
//
// Extras are state of the volume, in the journal before they are told, in the checkpoint since. A Start gives what the other volumes'
// extras leave of extraBytesMax, so their sum is never more. One that was told may have been used up at once, so it falls only where
// nothing can be left of what was sent on its credit: in the Start of a later epoch, when records of former ones are refused, and every
// record that the disk still has is at or below the commit point that this Start makes durable; and with the volume.
//
// Bases need no memory. See baseQuota.

// baseQuota is the part of a quota that is told while the disk has so many volumes.
//
// Of those that are still here at most n were told it when there were at most n: when the last of these was told, the others were here,
// too. So the n-th largest is at most baseQuota(n), whatever was told again since, and the sum is at most the sum of baseQuota(n) over
// all n: 1 + (H(256) - H(4)) + 1/2 = 5.5 of 18 parts of pinnedBytesMax, H the harmonic numbers.
func (j *journal) baseQuota(volumes int) uint64 {
	n := int64(max(volumes, baseVolumesMin))
	q := j.pinnedBytesMax() / baseDivisor / n
	if n > baseVolumesMax {
		q = q * baseVolumesMax / n * baseVolumesMax / n
	}
	return uint64(max(q, 1)) // 0 would be none: no owner has more than one record above a quota that is too small for it
}

// extraBytesMax bounds all volumes' extras. With the bases that is 15/16 of pinnedBytesMax; owners count a little less than records take.
func (j *journal) extraBytesMax() uint64 { return uint64(j.pinnedBytesMax() * 5 / 8) }

// grant sets the extra of a volume that is started: its fair share, but at most half of what is left, so that there is something for
// those to come. anew says that the epoch is new; in the same one it only grows.
func (d *Disk) grant(v *volume, anew bool) {
	left := d.jrn.extraBytesMax()
	for _, other := range d.vols {
		if other != v {
			left -= min(left, other.extra)
		}
	}
	extra := min(d.jrn.extraBytesMax()/uint64(len(d.vols)), left/2)
	if n := len(v.log); !anew || n > 0 && v.log[n-1].Seq > v.logged { // history is silent about such a record: it stays
		extra = max(extra, v.extra)
	}
	if extra != v.extra {
		v.extra = extra
		d.log(entry{kind: entryQuota, vol: v.id, seq: raid.Seq(extra)})
	}
}

// metaBytes is an upper bound of what a request takes in its group's meta part.
func metaBytes(r *raid.DiskRequest) int64 {
	n := int64(256 + 24*len(r.Hist) + 24*len(r.Shards) + 20*len(r.Blocks))
	if r.Rec != nil {
		n += int64(20*len(r.Rec.Blocks) + 4*len(r.Rec.Parts) + 41*len(r.Rec.Reqs))
	}
	return n
}

// journalBytes is an upper bound of what a request takes in the journal, but for the page that begins a group.
func journalBytes(r *raid.DiskRequest) int64 {
	n := metaBytes(r) + int64(pageBytes*len(r.Blocks))
	if r.Rec != nil {
		n += int64(pageBytes * len(r.Rec.Blocks))
	}
	return n
}

// logs returns upper bounds of what a request may add to the journal in all, and to a group's meta part.
func (d *Disk) logs(r *raid.DiskRequest) (n, meta int64) {
	n, meta = journalBytes(r), metaBytes(r)
	if v := d.volume(r.Vol); v != nil && r.Kind == raid.ReqShards { // it may delete all of them
		more := shardStateBytes * int64(len(v.shards))
		n, meta = n+more, meta+more
	}
	return n, meta
}

// small reports whether a request may use the reserve: the next one makes room again.
func (d *Disk) small(r *raid.DiskRequest) bool {
	n, _ := d.logs(r)
	return n <= d.jrn.reserve()/4
}

// admit makes room for a request before it is executed, and reports whether there is any. It may sync: that happens only under
// a load that the journal is too small for.
func (d *Disk) admit(r *raid.DiskRequest) (bool, error) {
	if r.Kind == raid.ReqRead || r.Kind == raid.ReqRegions || r.Kind == raid.ReqVerify {
		return true, nil
	}
	n, meta := d.logs(r)
	reserve := int64(0)
	if r.Rec != nil || len(r.Blocks) > 0 {
		reserve = d.jrn.reserve()
	}
	if meta > metaBytesMax/2 {
		return false, nil // no group could be read again that has such requests; no owner sends them
	}
	return d.admitBytes(n, meta, reserve)
}

// admitBytes makes room for entries of n bytes, of which meta are not blocks, and reports whether there is any.
func (d *Disk) admitBytes(n, meta, reserve int64) (bool, error) {
	if !d.joins(n, meta) {
		if err := d.flush(); err != nil {
			return false, err
		}
	}
	if d.fits(n, reserve) {
		return true, nil
	}
	if d.fullAt == d.jrn.head.lsn && d.inflight == nil && len(d.building.entries) == 0 {
		return false, nil // nothing has changed since there was no room to be made
	}
	if err := d.reclaim(); err != nil {
		return false, err
	}
	if d.fits(n, reserve) {
		return true, nil
	}
	d.fullAt = d.jrn.head.lsn
	return false, nil
}

// joins reports whether entries of n bytes, of which meta are not blocks, may become part of the group that is being built.
func (d *Disk) joins(n, meta int64) bool {
	return len(d.building.entries) == 0 || d.building.bytes()+n <= d.jrn.groupBytesMax() && int64(d.building.meta)+meta <= metaBytesMax/2
}

// fits is the promise above.
func (d *Disk) fits(n, reserve int64) bool {
	group := d.building.bytes() + n + pageBytes
	waste := max(group, d.jrn.groupBytesMax())
	return d.jrn.used()+group+d.pinned()+n+waste <= d.jrn.size-reserve
}

// pinned returns the bytes of the journal that a copy of all records that are not applied takes.
func (d *Disk) pinned() int64 {
	n := int64(0)
	for _, v := range d.vols {
		n += v.logBytes
	}
	return n
}

// recordBytes is what a record takes when it is copied forward, its share of a group's padding included.
func recordBytes(r *raid.Record) int64 {
	return int64(128 + (pageBytes+20)*len(r.Blocks) + 4*len(r.Parts) + 41*len(r.Reqs))
}

// flush makes everything logged durable before it returns; the answers are kept for the caller of Step or EndSync.
func (d *Disk) flush() error {
	for d.inflight != nil || len(d.building.entries) > 0 {
		if d.inflight == nil {
			d.beginGroup()
		}
		if err := d.inflight.job.Run(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		d.inflight.job.state = jobEnded // it must not be started any more: its bytes are the next group's
		d.settle()
	}
	return nil
}

// maintain keeps the journal from filling up to the point where a request has to wait. Up to half of it that is the business of a
// checkpoint in pieces, if there is one.
func (d *Disk) maintain() error {
	used := d.jrn.used()
	if used <= d.jrn.size*3/8 || used <= d.jrn.size/2 && (d.cp != nil || d.jrn.distance(d.oldestStart()) <= used/2) {
		return nil
	}
	return d.reclaim()
}

// reclaim makes all room that can be made: everything logged becomes durable, what may be is applied, the tail moves.
func (d *Disk) reclaim() error {
	if err := d.flush(); err != nil {
		return err
	}
	for {
		if k, err := d.apply(applyBlocks, false); err != nil {
			return err
		} else if k == 0 {
			return d.checkpoint()
		}
	}
}

// copyForward writes records that are not applied once more at the head, the oldest first and under the same identity, until what is
// left lies within a quarter of the journal. Each group is synced before the next (S1). If the power fails in between, the next
// copyForward goes on where this one was: never is more copied than there is.
func (d *Disk) copyForward() error {
	list := d.unapplied()
	for len(list) > 0 && d.jrn.distance(d.oldestStart()) > d.jrn.size/4 {
		g, n := &group{}, 0
		for ; n < len(list) && (n == 0 || g.bytes()+recordBytes(list[n].Record) <= d.jrn.size/32); n++ {
			g.add(entry{kind: entryRecord, vol: list[n].vol, rec: list[n].Record})
		}
		bytes, off := d.jrn.form(g)
		if err := writeDurable(d.dev, bytes, off); err != nil {
			return fmt.Errorf("copy forward: %w", err)
		}
		for _, r := range list[:n] {
			r.lsn = g.lsn
		}
		list = list[n:]
	}
	return nil
}

// kept is a record of a volume that is not applied.
type kept struct {
	*record
	vol raid.VolumeID
}

// unapplied returns all records that are not applied, in order of their groups.
func (d *Disk) unapplied() []kept {
	var list []kept
	for _, v := range d.vols {
		for _, r := range v.log {
			list = append(list, kept{r, v.id})
		}
	}
	slices.SortStableFunc(list, func(a, b kept) int { return cmp.Compare(a.lsn, b.lsn) })
	return list
}
