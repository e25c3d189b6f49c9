package store

import (
	"cmp"
	"fmt"
	"slices"

	"clade/raid"
)

// doShards brings a volume's shards in line with what its node has applied (A.3 Shards). They are made only while the volume
// has never been active on this disk (since 0): a live shard that is missing later is damage, never zeros (B: C27). A volume
// without shards is gone.
func (d *Disk) doShards(out []raid.DiskReply, r *raid.DiskRequest) []raid.DiskReply {
	v := d.volume(r.Vol)
	if len(r.Shards) == 0 {
		d.cancelFresh(r.Vol, false)
		d.cancelFresh(r.Vol, true)
		if v != nil {
			e := entry{kind: entryRemove, vol: r.Vol}
			d.redoRemove(v, &e)
			d.log(e)
		}
		d.hold(&out, func(d *Disk) []raid.DiskReply { return []raid.DiskReply{d.reply(r, raid.RepShards)} })
		return out
	}
	if job := d.freshFor(r.Vol, false); job != nil { // it is asked again when these are there
		job.asked = append(job.asked, r)
		return out
	}
	var missing []raid.ShardRef
	for _, s := range r.Shards {
		if v == nil || v.shard(s.Extent, s.Gen) == nil {
			missing = append(missing, s)
		}
	}
	var err error
	switch {
	case len(missing) == 0:
	case r.Since == 0:
		err = d.makeShards(r.Vol, missing)
		if job := d.freshFor(r.Vol, false); job != nil {
			job.asked = append(job.asked, r)
			return out
		}
	case v == nil && !d.stateFits(1, 0):
		err = d.errState(r.Vol)
	case v == nil || !v.damaged:
		v = d.addVolume(r.Vol) // so that Fence finds it, and says that it lacks shards
		e := entry{kind: entryFence, vol: r.Vol, damaged: true}
		v.redoFence(&e)
		d.log(entry{kind: entryShards, vol: r.Vol})
		d.log(e)
	}
	if err != nil {
		if d.failed != nil {
			return append(out, d.nack(r, raid.NackGone, d.failed.Error()))
		}
		return d.refuse(out, r, "%v", err)
	}
	if v = d.volume(r.Vol); v != nil {
		d.removeUnnamed(v, r.Shards, r.Epoch)
	}
	d.hold(&out, func(d *Disk) []raid.DiskReply { return []raid.DiskReply{d.reply(r, raid.RepShards)} })
	return out
}

// removeUnnamed deletes shards that applied state no longer names; records of them keep their identity.
func (d *Disk) removeUnnamed(v *volume, named []raid.ShardRef, epoch raid.Epoch) {
	if epoch < v.fence {
		return // a node that has not caught up with its log does not know yet what was added since
	}
	e := entry{kind: entryRemove, vol: v.id}
	for _, s := range v.shards {
		if !slices.ContainsFunc(named, func(n raid.ShardRef) bool { return n.Extent == s.Extent && n.Gen == s.Gen }) {
			e.shards = append(e.shards, s)
		}
	}
	if len(e.shards) > 0 {
		d.cancelFresh(v.id, true) // its slots may be another's soon
		d.redoRemove(v, &e)
		d.log(e)
	}
}

// makeShards finds room for shards and makes their pages. They are durable with the next group, which makes the pages again if need be.
func (d *Disk) makeShards(id raid.VolumeID, refs []raid.ShardRef) error {
	e, err := d.allot(id, refs)
	if err != nil {
		return err
	}
	if regionsOf(e.shards) > uint64(d.cfg.AtOnce) {
		job := &freshJob{vol: id, shards: e.shards}
		job.finish = func(d *Disk) {
			d.addShards(&e)
			d.log(e)
			for _, r := range job.asked {
				out := d.step(nil, r) // may add to ready itself
				d.ready = append(d.ready, out...)
			}
		}
		d.fresh = append(d.fresh, job)
		return nil
	}
	if err := d.redoShards(&e); err != nil {
		return d.fail(err)
	}
	d.log(e)
	return nil
}

// allot finds room for shards.
func (d *Disk) allot(id raid.VolumeID, refs []raid.ShardRef) (entry, error) {
	e := entry{kind: entryShards, vol: id}
	volumes := 0
	if d.volume(id) == nil {
		volumes = 1
	}
	if !d.stateFits(volumes, len(refs)) {
		return e, d.errState(id)
	}
	free := d.freeRuns()
	for _, ref := range refs {
		if ref.Regions == 0 {
			return e, fmt.Errorf("disk %d: volume %d extent %d has a shard of nothing", d.super.Disk, id, ref.Extent)
		}
		i := slices.IndexFunc(free, func(f run) bool { return f.n >= uint64(ref.Regions) })
		if i < 0 {
			return e, fmt.Errorf("disk %d has no room for %d MiB of volume %d extent %d", d.super.Disk, ref.Regions, id, ref.Extent)
		}
		e.shards = append(e.shards, shard{ref, free[i].at})
		free[i].at += uint64(ref.Regions)
		free[i].n -= uint64(ref.Regions)
	}
	return e, nil
}

// What a volume, a shard, and a record of one block take in a checkpoint's image (encodeImage); each further block takes less.
const (
	volumeStateBytes = 82
	shardStateBytes  = 24
	recordStateBytes = 40
)

// stateFits reports whether a checkpoint can hold so many volumes and shards more, and every record that the journal can hold: these have
// at least one block each. Format gives an image more than that.
func (d *Disk) stateFits(volumes, shards int) bool {
	volumes += len(d.vols)
	for _, v := range d.vols {
		shards += len(v.shards)
	}
	for _, job := range d.fresh {
		if !job.wipe {
			volumes, shards = volumes+1, shards+len(job.shards)
		}
	}
	n := uint64(imageHeaderBytes) + uint64(volumes)*volumeStateBytes + uint64(shards)*shardStateBytes
	return n+d.super.journalBytes/pageBytes*recordStateBytes <= d.super.imageBytes
}

func (d *Disk) errState(id raid.VolumeID) error {
	return fmt.Errorf("disk %d has no room for volume %d: a checkpoint of its %d volumes and all their shards would be larger than %d bytes",
		d.super.Disk, id, len(d.vols), d.super.imageBytes)
}

// makeMissing finds room for those shards that a volume which is being wiped lacks; the Wipe makes their pages with all others. Until
// it is done the volume is damaged, so it does not matter which of it is durable.
func (d *Disk) makeMissing(v *volume, refs []raid.ShardRef) error {
	missing := slices.DeleteFunc(slices.Clone(refs), func(s raid.ShardRef) bool { return v.shard(s.Extent, s.Gen) != nil })
	if len(missing) == 0 {
		return nil
	}
	e, err := d.allot(v.id, missing)
	if err != nil {
		return err
	}
	d.addShards(&e)
	d.log(e)
	return nil
}

// redoShards is the effect of entryShards, with their pages.
func (d *Disk) redoShards(e *entry) error {
	for _, s := range e.shards {
		if s.slot+uint64(s.Regions) > d.super.regions {
			return fmt.Errorf("volume %d: shard of extent %d lies beyond the disk", e.vol, s.Extent)
		}
	}
	return d.freshPages(d.addShards(e), e.shards)
}

// addShards names shards whose pages are there.
func (d *Disk) addShards(e *entry) *volume {
	v := d.addVolume(e.vol)
	for _, s := range e.shards {
		if v.shard(s.Extent, s.Gen) == nil {
			v.shards = append(v.shards, s)
		}
	}
	slices.SortFunc(v.shards, func(a, b shard) int { return cmp.Or(cmp.Compare(a.Extent, b.Extent), cmp.Compare(a.Gen, b.Gen)) })
	return v
}

// redoRemove is the effect of entryRemove.
func (d *Disk) redoRemove(v *volume, e *entry) {
	if len(e.shards) == 0 {
		for _, s := range v.shards {
			d.forgetPages(s)
		}
		d.removeVolume(v.id)
		return
	}
	for _, s := range e.shards {
		d.forgetPages(s)
		v.shards = slices.DeleteFunc(v.shards, func(x shard) bool { return x.Extent == s.Extent && x.Gen == s.Gen })
	}
	for _, r := range v.log { // what they hold of it is written nowhere any more
		for i := range r.Blocks {
			if v.shard(r.Blocks[i].Extent, r.Blocks[i].Gen) == nil {
				if r.dead == nil {
					r.dead = make([]bool, len(r.Blocks))
				}
				r.dead[i] = true
			}
		}
	}
}

func (d *Disk) forgetPages(s shard) {
	for i := range uint64(s.Regions) {
		d.pages.forget(s.slot + i)
	}
}

// run is a stretch of free slots.
type run struct{ at, n uint64 }

// freeRuns returns the free slots, lowest first.
func (d *Disk) freeRuns() []run {
	var taken []shard
	for _, v := range d.vols {
		taken = append(taken, v.shards...)
	}
	for _, job := range d.fresh {
		if !job.wipe {
			taken = append(taken, job.shards...)
		}
	}
	slices.SortFunc(taken, func(a, b shard) int { return cmp.Compare(a.slot, b.slot) })
	var out []run
	at := uint64(0)
	for _, s := range taken {
		if s.slot > at {
			out = append(out, run{at, s.slot - at})
		}
		at = max(at, s.slot+uint64(s.Regions))
	}
	if at < d.super.regions {
		out = append(out, run{at, d.super.regions - at})
	}
	return out
}
