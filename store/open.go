package store

import (
	"errors"
	"fmt"
	"slices"

	"clade/raid"
)

// Open recovers a disk from what its device holds: the newest checkpoint, and what the journal says since. Records at or below
// the commit point are written in place again, whole blocks and checksums, without reading what is there (B: C11). Errors:
// ErrNotFormatted, ErrSuperblock, ErrTooSmall, ErrGeneration, or the device's.
func Open(dev Device, cfg Config) (*Disk, error) {
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 16 << 20
	}
	if cfg.AtOnce == 0 {
		cfg.AtOnce = freshAtOnce
	}
	d, img, err := load(dev, cfg)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if cfg.AttachGen > d.super.AttachGen {
		return nil, fmt.Errorf("store: disk %d, generation %d of %d: %w", d.super.Disk, d.super.AttachGen, cfg.AttachGen, ErrGeneration)
	}
	d.replaying = true
	damaged, err := d.replay(img)
	if err != nil {
		return nil, fmt.Errorf("store: disk %d: replay: %w", d.super.Disk, err)
	}
	for _, v := range d.vols {
		v.damaged = v.damaged || damaged && !mutated("C15c")
		v.commit, v.durable, v.based = v.logged, v.logged, v.base
		for _, r := range v.log {
			r.durable = true
		}
	}
	d.jrn.incarnation++
	for {
		k, err := d.apply(applyBlocks, false)
		if err != nil {
			return nil, fmt.Errorf("store: disk %d: replay: %w", d.super.Disk, err)
		}
		if k == 0 {
			break
		}
	}
	d.replaying = false
	// Before anything is appended: damage is remembered, and what lies beyond the head belongs to a life that is over.
	if err := d.checkpointAt(d.oldestStart()); err != nil {
		return nil, fmt.Errorf("store: disk %d: %w", d.super.Disk, err)
	}
	uncache(dev, d.jrn.base, d.jrn.size) // all of it was read, and nothing of it is again
	return d, nil
}

// load reads the superblocks and the newest image that is whole.
func load(dev Device, cfg Config) (*Disk, *imageState, error) {
	supers, err := readSupers(dev)
	if err != nil {
		return nil, nil, err
	}
	unread := ErrSuperblock
	for _, s := range supers {
		if int64(s.deviceBytes) > dev.Size() {
			return nil, nil, fmt.Errorf("the device has shrunk from %d to %d bytes: %w", s.deviceBytes, dev.Size(), ErrTooSmall)
		}
		b := make([]byte, s.imageLen)
		if err := readFull(dev, b, s.imageAt(s.image)); err != nil {
			unread = err
			continue
		}
		if crcOf(b) != s.imageCRC {
			continue // torn with its superblock: the one before it counts
		}
		img, err := decodeImage(b)
		if err != nil {
			continue
		}
		d := &Disk{dev: dev, cfg: cfg, super: s, pages: newPageCache(cfg.CacheBytes), vols: img.vols, building: &group{}}
		d.jrn = journal{dev: dev, base: s.journalOffset(), size: int64(s.journalBytes), uuid: s.UUID, incarnation: s.incarnation, current: img.lsn + 1, tail: s.tail, head: s.tail}
		return d, img, nil
	}
	return nil, nil, fmt.Errorf("no checkpoint is whole: %w", unread)
}

// replay reads the journal from the tail. Up to the image's lsn only records that the image calls alive count; beyond it every
// entry is executed again. It reports whether the journal is damaged (S1).
func (d *Disk) replay(img *imageState) (damaged bool, err error) {
	p := d.jrn.tail
	for {
		entries, at, next, ok, err := d.jrn.read(p)
		if err != nil {
			// A journal that cannot be read is damaged, not the end of the disk: the others refill it, and writing the
			// sectors anew usually cures them.
			d.jrn.head = p
			return true, nil
		}
		if !ok {
			break
		}
		d.jrn.starts = append(d.jrn.starts, at)
		for i := range entries {
			if p.lsn <= img.lsn {
				d.revive(img, &entries[i], p.lsn)
			} else if err := d.redo(&entries[i], p.lsn); err != nil {
				return false, err
			}
		}
		p = next
	}
	d.jrn.head = p
	if p.lsn <= img.lsn || len(img.alive) > 0 {
		return true, nil // what the checkpoint counted on is not there
	}
	later, _ := d.jrn.laterThan(p.lsn)
	return later, nil
}

// revive takes a record back that was alive at the checkpoint.
func (d *Disk) revive(img *imageState, e *entry, lsn uint64) {
	if e.rec == nil {
		return
	}
	i := slices.IndexFunc(img.alive, func(a aliveRecord) bool {
		return a.vol == e.vol && a.epoch == e.rec.Epoch && a.seq == e.rec.Seq && a.bid == e.rec.BID && a.lsn == lsn
	})
	if i < 0 {
		return
	}
	r := &record{Record: e.rec, lsn: lsn}
	for _, at := range img.alive[i].dead {
		if int(at) < len(e.rec.Blocks) {
			if r.dead == nil {
				r.dead = make([]bool, len(e.rec.Blocks))
			}
			r.dead[at] = true
		}
	}
	d.addVolume(e.vol).push(r)
	img.alive = slices.Delete(img.alive, i, i+1)
}

// redo executes an entry of the journal again.
func (d *Disk) redo(e *entry, lsn uint64) error {
	if e.kind == entryShards {
		return d.redoShards(e)
	}
	v := d.volume(e.vol)
	if v == nil {
		return nil // deleted later
	}
	switch e.kind {
	case entryRecord:
		if r := v.find(e.rec.Epoch, e.rec.Seq, e.rec.BID); r != nil {
			r.lsn = lsn // copied forward
			return nil
		}
		if e.rec.Seq > max(v.applied, v.base) || e.rec.Seq > v.endseq() {
			v.push(&record{Record: e.rec, lsn: lsn})
		}
	case entryFence:
		v.redoFence(e)
	case entryStart:
		v.redoStart(e)
	case entryCommit:
		v.raiseCommit(e.seq)
	case entryQuota:
		v.extra = uint64(e.seq)
	case entryFill:
		v.kill(e.blocks, e.seq)
		if e.last {
			v.filled(e.seq)
		}
		return d.fillInPlace(v, e)
	case entryWipe:
		v.redoWipe()
		return d.freshPages(v, v.shards)
	case entryRemove:
		d.redoRemove(v, e)
	}
	return nil
}

// oldestStart returns where the group of the oldest record that is not applied begins; the head if there is none.
func (d *Disk) oldestStart() position {
	if lsn, ok := d.oldest(); ok {
		return d.jrn.startOf(lsn)
	}
	return d.jrn.head
}

// checkpointAt makes what is in place durable, then the state of the volumes and the incarnation, and moves the tail (S4). Nothing is
// appended.
func (d *Disk) checkpointAt(tail position) error {
	if err := d.slicedStop(); err != nil {
		return err
	}
	d.pages.begin()
	if err := d.writePages(len(d.pages.writing)); err != nil {
		return err
	}
	if err := d.dev.Sync(); err != nil {
		return fmt.Errorf("checkpoint: sync: %w", err)
	}
	d.unsynced = 0
	lsn := d.jrn.head.lsn - 1
	next, err := d.writeImage(encodeImage(&imageState{lsn: lsn, vols: d.vols}), tail)
	if err != nil {
		return err
	}
	if err := d.dev.Sync(); err != nil {
		return fmt.Errorf("checkpoint: sync: %w", err)
	}
	d.counts(next, tail, lsn)
	return nil
}

// aliveRecord is a record that an image counts on: it is in the journal, not applied.
type aliveRecord struct {
	vol   raid.VolumeID
	epoch raid.Epoch
	seq   raid.Seq
	bid   uint64
	lsn   uint64
	dead  []uint32
}

// imageState is what a checkpoint keeps: the state of all volumes after the group lsn.
type imageState struct {
	lsn   uint64
	vols  []*volume
	alive []aliveRecord
}

const imageHeaderBytes = 16

func encodeImage(s *imageState) []byte {
	if s == nil {
		s = &imageState{}
	}
	var w buf
	w.u32(formatVersion)
	w.u64(s.lsn)
	w.u32(uint32(len(s.vols)))
	for _, v := range s.vols {
		w.u64(uint64(v.id))
		for _, x := range []uint64{uint64(v.fence), uint64(v.start), uint64(v.logged), uint64(v.applied), uint64(v.base)} {
			w.u64(x)
		}
		w.u64(v.extra)
		w.flag(v.damaged)
		w.flag(v.wiping)
		w.b = append(w.b, v.bootStart[:]...)
		w.shards(v.shards)
		w.u32(uint32(len(v.log)))
		for _, r := range v.log {
			for _, x := range []uint64{uint64(r.Epoch), uint64(r.Seq), r.BID, r.lsn} {
				w.u64(x)
			}
			var dead []uint32
			for i, x := range r.dead {
				if x {
					dead = append(dead, uint32(i))
				}
			}
			w.u32(uint32(len(dead)))
			for _, x := range dead {
				w.u32(x)
			}
		}
	}
	return w.b
}

var errImage = errors.New("malformed image")

func decodeImage(b []byte) (*imageState, error) {
	r := view{b: b}
	if v := r.u32(); v != formatVersion || r.bad {
		return nil, errImage
	}
	s := &imageState{lsn: r.u64()}
	for range r.count(79) {
		v := newVolume(raid.VolumeID(r.u64()))
		v.fence, v.start, v.durable = raid.Epoch(r.u64()), raid.Epoch(r.u64()), raid.Seq(r.u64())
		v.applied, v.base, v.extra = raid.Seq(r.u64()), raid.Seq(r.u64()), r.u64()
		v.damaged, v.wiping = r.flag(), r.flag()
		v.commit, v.logged = v.durable, v.durable
		copy(v.bootStart[:], r.take(16))
		v.shards = r.shards()
		for range r.count(36) {
			a := aliveRecord{vol: v.id, epoch: raid.Epoch(r.u64()), seq: raid.Seq(r.u64()), bid: r.u64(), lsn: r.u64()}
			for range r.count(4) {
				a.dead = append(a.dead, r.u32())
			}
			s.alive = append(s.alive, a)
		}
		if n := len(s.vols); n > 0 && s.vols[n-1].id >= v.id {
			return nil, errImage
		}
		s.vols = append(s.vols, v)
	}
	if r.bad || len(r.b) != 0 {
		return nil, errImage
	}
	return s, nil
}
