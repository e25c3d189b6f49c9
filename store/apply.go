package store

import (
	"fmt"

	"clade/raid"
)

const (
	applyBlocks  = 1024     // in one piece of Background
	lazyBytes    = 32 << 20 // applied at the latest when so much may be, or an eighth of the journal
	unsyncedMax  = 1 << 20  // a checkpoint syncs by itself, while everybody waits; more is synced beside it before
	idleNs       = 20_000_000
	sealNs       = 500_000_000   // an idle disk seals after so long: whoever writes then waits for the seal's sync, too
	checkpointNs = 2_000_000_000 // an idle disk checkpoints after so long
)

// Background does a bounded piece of what nobody waits for: applying, and when the journal fills or the disk is idle, a
// checkpoint. more says that there is more to do now. An error is final; Failed has it too.
func (d *Disk) Background(nowNs int64) (more bool, err error) {
	if d.payOff(); d.failed != nil {
		return false, d.failed
	}
	if more, err := d.freshOn(); err != nil {
		return false, d.fail(err)
	} else if more {
		return true, nil
	}
	if d.inflight != nil || d.settled { // a device that is slow just now is not idle, nor the disk when it has at last answered
		d.busyNs, d.settled = nowNs, false
	}
	idle := nowNs-max(d.lastNs, d.busyNs) >= idleNs
	reading := d.regionsOn(idle)
	full := d.jrn.used() > d.jrn.size/4
	if idle || full || d.muchToApply(min(lazyBytes, d.jrn.size/8)) {
		n, err := d.apply(d.piece(idle), !full)
		if err != nil {
			return false, d.fail(err)
		}
		if n > 0 {
			d.checkNs = nowNs
			return true, nil
		}
	}
	quiet := d.inflight == nil && len(d.building.entries) == 0
	if quiet && idle && d.checkpointed < d.jrn.head.lsn-1 && (full || nowNs-d.checkNs >= checkpointNs) {
		if d.emptying = d.unsynced > unsyncedMax; d.emptying || d.flushing != nil {
			return reading, nil // whoever writes now does not wait for all that was applied
		}
		d.checkNs = nowNs
		if err := d.checkpoint(); err != nil {
			return false, d.fail(err)
		}
	}
	d.seal(quiet && nowNs-d.lastNs >= sealNs)
	return reading, nil
}

// seal asks for an empty group behind the last one of a disk that is idle. As at most one group is unsynced (S1), it says that the one
// before it was durable: should that rot, it is not taken for one that a power cut has torn (S11).
func (d *Disk) seal(idle bool) {
	d.sealing = idle && d.vouched < d.jrn.head.lsn-1 && d.fits(0, d.jrn.reserve())
}

// piece is how many blocks Background applies in one go: few while requests come, which wait for it; more when much has piled up.
func (d *Disk) piece(idle bool) int {
	if idle {
		return applyBlocks
	}
	return int(min(max(d.applicable()/raid.BlockBytes/32, applyBlocks/8), applyBlocks))
}

// muchToApply reports whether more than so many bytes of records may be applied. Mostly there are not that many records at all.
func (d *Disk) muchToApply(bytes int64) bool {
	all := int64(0)
	for _, v := range d.vols {
		all += v.logBytes
	}
	return all > bytes && d.applicable() > bytes
}

// applicable returns the bytes of records that may be applied.
func (d *Disk) applicable() int64 {
	n := int64(0)
	for _, v := range d.vols {
		for _, r := range v.log {
			if !d.mayApply(v, r) {
				break
			}
			n += int64(len(r.Blocks)) * raid.BlockBytes
		}
	}
	return n
}

// mayApply is S3: durable itself, and at or below the durable commit point (I5).
func (d *Disk) mayApply(v *volume, r *record) bool {
	limit := v.durable
	if mutated("C25") {
		limit = v.commit
	}
	if d.freshFor(v.id, true) != nil {
		return false // its pages are being made anew
	}
	return r.durable && r.Seq <= limit || mutated("APPLY_EARLY")
}

// applyTogether is how many blocks are written in place before anybody else is looked after.
const applyTogether = 32

// YieldTo tells the disk how it learns that somebody waits for it: while there is much room in the journal, Background ends early then.
func (d *Disk) YieldTo(waiting func() bool) { d.waiting = waiting }

// apply writes up to n blocks of each volume's oldest records in place, but those that later records overwrite, and returns how many
// records it has applied. yields: less, if somebody waits.
func (d *Disk) apply(n int, yields bool) (int, error) {
	done := 0
	for range d.vols {
		d.applyAt++ // the next one, also after a call that ended early
		v := d.vols[d.applyAt%len(d.vols)]
		for left := n; left > 0; {
			k, blocks, err := d.applyOldest(v, min(left, applyTogether))
			if done += k; err != nil {
				return done, err
			}
			if k == 0 {
				break
			}
			if left -= blocks; yields && d.waiting != nil && d.waiting() {
				return done, nil
			}
		}
	}
	return done, nil
}

// applyOldest applies a volume's oldest records, of n blocks or somewhat more.
func (d *Disk) applyOldest(v *volume, n int) (k, blocks int, err error) {
	for k < len(v.log) && blocks < n && d.mayApply(v, v.log[k]) {
		blocks += len(v.log[k].Blocks)
		k++
	}
	if k == 0 {
		return 0, 0, nil
	}
	if err := d.applyRecords(v, v.log[:k]); err != nil {
		return 0, 0, err
	}
	for i, r := range v.log[:k] {
		v.drop(r)
		v.applied = max(v.applied, r.Seq)
		v.log[i] = nil
		d.forget(r)
	}
	v.log = v.log[k:]
	d.stats.Applied += uint64(k)
	return k, blocks, nil
}

func (d *Disk) applyRecords(v *volume, recs []*record) error {
	puts, dead := d.puts[:0], []put(nil)
	for _, r := range recs {
		for i := range r.Blocks {
			id := idOf(&r.Blocks[i])
			slot, block, ok := v.slotOf(id)
			if !(image{r, i}).alive() || d.superseded(v, r, id) {
				if ok {
					dead = append(dead, put{slot: slot, id: id.page(v.id), rseq: r.Seq})
				}
				continue
			}
			if !ok {
				return fmt.Errorf("volume %d seq %d: extent %d block %d has no shard", v.id, r.Seq, id.extent, id.no)
			}
			puts = append(puts, put{slot, block, id.page(v.id), r.Seq, r.Blocks[i].Data})
		}
	}
	err := d.write(v, puts)
	if clear(puts); cap(puts) <= 2*applyBlocks {
		d.puts = puts[:0]
	}
	if err != nil {
		return err
	}
	for i := range dead { // the region has changed all the same: what replaces the block may not be in place yet (B: C16)
		if p := d.page(dead[i].slot, dead[i].id); !p.bad {
			p.rseq = max(p.rseq, dead[i].rseq)
			d.pages.touch(p)
		}
	}
	return nil
}

// superseded reports whether a block of a record that is applied need not be written: a later record overwrites it that may be applied as
// well (S3). Nothing takes that one back, and until it is in place reads find it in the overlay, and the tail stays before it (S4).
func (d *Disk) superseded(v *volume, r *record, id blockID) (yes bool) {
	v.overlay.each(id, func(im image) {
		yes = yes || im.rec.Seq > r.Seq && im.alive() && (d.mayApply(v, im.rec) || mutated("SUPERSEDED_EARLY"))
	})
	return yes
}

// recordsMax bounds the empty records that are kept for reuse.
const recordsMax = 4096

// newRecord returns a record that is not durable.
func (d *Disk) newRecord(rec *raid.Record) *record {
	n := len(d.records)
	if n == 0 {
		return &record{Record: rec}
	}
	r := d.records[n-1]
	d.records = d.records[:n-1]
	r.Record = rec
	return r
}

// forget keeps a record for reuse that is in place and that neither log nor overlay has any more.
func (d *Disk) forget(r *record) {
	if *r = (record{}); len(d.records) < recordsMax {
		d.records = append(d.records, r)
	}
}

// checkpoint makes what is in place durable, then the state of the volumes, and moves the tail (S4). Nothing may be logged and
// not durable. Records that are not applied and would pin the tail are copied forward, under the same identity (B: L12).
func (d *Disk) checkpoint() error {
	if d.inflight != nil || len(d.building.entries) > 0 {
		panic("store: checkpoint with entries that are not durable")
	}
	if !mutated("L12") {
		if err := d.copyForward(); err != nil {
			return err
		}
	}
	return d.checkpointAt(d.oldestStart())
}

// oldest returns the group of the oldest record that is not applied.
func (d *Disk) oldest() (lsn uint64, ok bool) {
	for _, v := range d.vols {
		for _, r := range v.log {
			if !ok || r.lsn < lsn {
				lsn, ok = r.lsn, true
			}
		}
	}
	return lsn, ok
}

// writePages writes up to n of the pages that are to be written to their other copies (S5), those that were made out of none to both.
func (d *Disk) writePages(n int) error {
	b := make([]byte, pageBytes)
	for _, p := range d.pages.writing[:min(n, len(d.pages.writing))] {
		if mutated("C16a") {
			break
		}
		for copies := 0; copies == 0 || p.remade && copies < 2; copies++ {
			p.version++
			p.stamp = d.super.seq + 1
			p.which = 1 - p.which
			p.encode(b)
			if err := writeFull(d.dev, b, d.super.pageOffset(p.slot, p.which)); err != nil {
				return fmt.Errorf("checkpoint: %w", err)
			}
		}
		p.remade = false
	}
	d.pages.clean(n)
	return nil
}

// writeImage writes the volumes' state and the superblock that names it and the tail; it counts when it is durable.
func (d *Disk) writeImage(img []byte, tail position) (*super, error) {
	if uint64(len(img)) > d.super.imageBytes {
		return nil, fmt.Errorf("checkpoint: the state of %d volumes takes %d bytes, there is room for %d", len(d.vols), len(img), d.super.imageBytes)
	}
	next := *d.super
	next.seq++
	next.image = 1 - d.super.image
	next.imageLen, next.imageCRC, next.tail = uint32(len(img)), crcOf(img), tail
	next.incarnation = d.jrn.incarnation
	if err := writeFull(d.dev, img, next.imageAt(next.image)); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if err := writeFull(d.dev, next.encode(), int64(next.seq%2)*pageBytes); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return &next, nil
}
