package store

import (
	"fmt"
	"slices"

	"clade/raid"
)

// Fresh pages say of every block that it was never written. A shard has 8 KiB of them per MiB: those of a small one are written at
// once, those of a large one by Background, a piece at a time, so that the disk's other volumes do not wait. What is logged and
// answered comes after the last of them.

const (
	// freshAtOnce is how many regions a Step may make; a call of Background makes half as many.
	freshAtOnce = 1024
	// versionShift leaves room between the versions of pages made after one checkpoint and after the next: a page's version grows
	// once per attempted checkpoint, so fresh pages are always the newer ones.
	versionShift = 16
)

// freshJob makes the pages of shards in pieces.
type freshJob struct {
	vol    raid.VolumeID
	shards []shard
	shard  int    // the next
	region uint32 // of it
	wipe   bool
	finish func(d *Disk)
	asked  []*raid.DiskRequest // Shards that wait for it
}

func regionsOf(shards []shard) (n uint64) {
	for _, s := range shards {
		n += uint64(s.Regions)
	}
	return n
}

// freshPages makes all pages of shards anew. They are durable with the next checkpoint; until then the journal has what makes them again.
func (d *Disk) freshPages(v *volume, shards []shard) error {
	job := freshJob{vol: v.id, shards: shards}
	for {
		if done, err := d.freshStep(&job, regionsPerRun); done || err != nil {
			return err
		}
	}
}

// freshStep makes up to n regions' pages.
func (d *Disk) freshStep(job *freshJob, n uint32) (done bool, err error) {
	for n > 0 && job.shard < len(job.shards) {
		s := &job.shards[job.shard]
		count := min(regionsPerRun, n, s.Regions-job.region)
		b := make([]byte, 2*pageBytes*int(count))
		for i := range count {
			region := job.region + i
			slot := s.slot + uint64(region)
			d.pages.forget(slot)
			p := page{id: pageID{job.vol, s.Extent, s.Gen, region}, slot: slot, version: d.super.seq << versionShift, stamp: d.super.seq + 1}
			at := 2 * pageBytes * int(i)
			p.encode(b[at : at+pageBytes])
			p.version++
			p.encode(b[at+pageBytes : at+2*pageBytes])
		}
		if err := writeFull(d.dev, b, d.super.pageOffset(s.slot+uint64(job.region), 0)); err != nil {
			return false, fmt.Errorf("volume %d: make shard of extent %d: %w", job.vol, s.Extent, err)
		}
		n -= count
		if job.region += count; job.region == s.Regions {
			job.shard, job.region = job.shard+1, 0
		}
	}
	return job.shard == len(job.shards), nil
}

// freshOn gets on with the oldest job; more says whether one is left.
func (d *Disk) freshOn() (more bool, err error) {
	if len(d.fresh) == 0 {
		return false, nil
	}
	job := d.fresh[0]
	done, err := d.freshStep(job, uint32(max(d.cfg.AtOnce/2, 1)))
	if err != nil {
		return false, err
	}
	if !done {
		return true, nil
	}
	n := int64(256 + shardStateBytes*len(job.shards))
	if ok, err := d.admitBytes(n, n, 0); err != nil || !ok {
		return false, err // it is finished when there is room
	}
	d.fresh = d.fresh[1:]
	job.finish(d)
	return true, d.failed
}

// freshFor returns the job that makes or wipes a volume's shards, or nil.
func (d *Disk) freshFor(vol raid.VolumeID, wipe bool) *freshJob {
	for _, job := range d.fresh {
		if job.vol == vol && job.wipe == wipe {
			return job
		}
	}
	return nil
}

// cancelFresh forgets a job: the volume is gone, or another owner or stream has begun. A shard that is half wiped belongs to a disk
// of which Raft says S = 0, and which has called itself damaged: it is wiped again before it counts.
func (d *Disk) cancelFresh(vol raid.VolumeID, wipe bool) {
	d.fresh = slices.DeleteFunc(d.fresh, func(job *freshJob) bool { return job.vol == vol && job.wipe == wipe })
}

// doWipe makes all shards of the volume anew. Pages are made in place, so that a power cut may leave some of them: before the first of
// them is touched the volume is damaged, durably, and only the Wipe's own entry ends that. Else what is half wiped would be zeros
// with good checksums (B: C27). Shards that the disk has lost are made again: it may have come back blank.
func (d *Disk) doWipe(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	d.cancelFresh(v.id, true)
	if !v.wiping && !mutated("WIPE_TORN") {
		e := entry{kind: entryFence, vol: v.id, damaged: true, wiping: true}
		v.redoFence(&e)
		d.log(e)
	}
	if err := d.makeMissing(v, r.Shards); err != nil {
		return d.refuse(out, r, "%v", err)
	}
	v.acked, v.told = 1<<62, 1<<62 // nothing that goes is acknowledged any more
	job := &freshJob{vol: v.id, shards: slices.Clone(v.shards), wipe: true}
	job.finish = func(d *Disk) {
		v.redoWipe()
		d.log(entry{kind: entryWipe, vol: v.id})
		d.hold(&d.ready, func(d *Disk) []raid.DiskReply { return []raid.DiskReply{d.reply(r, raid.RepWiped)} })
	}
	if regionsOf(v.shards) > uint64(d.cfg.AtOnce) {
		d.hold(&out, func(d *Disk) []raid.DiskReply { // the damage is durable, and Fills that were under way are in place
			if d.volume(v.id) == v && v.start == r.Epoch && v.stream == r.Stream {
				d.fresh = append(d.fresh, job)
			}
			return nil
		})
		return out
	}
	err := d.flush()
	if err == nil {
		err = d.freshPages(v, v.shards)
	}
	if err != nil {
		return append(out, d.nack(r, raid.NackGone, d.fail(err).Error()))
	}
	job.finish(d)
	return out
}
