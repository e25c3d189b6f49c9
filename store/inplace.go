package store

import (
	"cmp"
	"fmt"
	"slices"

	"clade/raid"
)

var zeroBlock = make([]byte, raid.BlockBytes)

// page returns a region's checksums.
func (d *Disk) page(slot uint64, id pageID) *page {
	if p := d.cachedPage(slot, id); p != nil {
		return p
	}
	p := readPage(d.dev, d.super, slot, id, d.replaying)
	d.pages.put(p)
	return p
}

// cachedPage is page as far as it needs nothing from the device, else nil.
func (d *Disk) cachedPage(slot uint64, id pageID) *page {
	if p := d.pages.get(slot); p != nil && p.id == id {
		return p
	}
	return nil
}

// blocks fills out with the newest versions at or below limit of the blocks from first on, all of one region: from the
// journal's overlay, else in place if the checksum is right. What cannot be trusted stays nil. It returns false in a StepNow that would
// have to wait for the device.
func (d *Disk) blocks(v *volume, p *page, first uint32, out [][]byte, limit raid.Seq) bool {
	if d.now && p.bad {
		return false // damage is counted, and repaired: no hurry
	}
	from, to := len(out), 0 // the stretch that has to be read in place
	for i := range out {
		no := first + uint32(i)
		switch b := v.newest(blockID{p.id.gen, p.id.extent, no}, limit); {
		case b != nil:
			out[i] = b
		case p.bad:
			d.stats.BadBlocks++
		case !p.has(no % raid.BlocksPerRegion):
			out[i] = zeroBlock
		default:
			from, to = min(from, i), i+1
		}
	}
	if from >= to {
		return true
	}
	at := first%raid.BlocksPerRegion + uint32(from)
	place, off := d.readBuffer(to-from), d.super.dataOffset(p.slot)+int64(at)*raid.BlockBytes
	switch {
	case d.now:
		if !readCached(d.dev, place, off) {
			d.place = place
			return false
		}
	case readFull(d.dev, place, off) != nil:
		place = d.oneByOne(p.slot, at, to-from)
	}
	for i := from; i < to; i++ {
		if out[i] != nil {
			continue
		}
		b := place[(i-from)*raid.BlockBytes : (i-from+1)*raid.BlockBytes : (i-from+1)*raid.BlockBytes]
		if crcOf(b) != p.crc[(first+uint32(i))%raid.BlocksPerRegion] {
			d.stats.BadBlocks++
			continue
		}
		out[i] = b
	}
	return true
}

// readBuffer returns memory for n blocks: that of the last StepNow that found nothing to put there, if it is as long.
func (d *Disk) readBuffer(n int) []byte {
	b := d.place
	d.place = nil
	if len(b) == n*raid.BlockBytes {
		return b
	}
	return make([]byte, n*raid.BlockBytes)
}

// oneByOne reads blocks each by itself, after a read of all of them has failed: a latent error costs one block, not the disk.
// What cannot be read is zeros here, whose checksum will not fit.
func (d *Disk) oneByOne(slot uint64, at uint32, n int) []byte {
	out := make([]byte, n*raid.BlockBytes)
	for i := range n {
		b := out[i*raid.BlockBytes : (i+1)*raid.BlockBytes]
		if err := readFull(d.dev, b, d.super.dataOffset(slot)+int64(at+uint32(i))*raid.BlockBytes); err != nil {
			for k := range b {
				b[k] = 0xA5
			}
		}
	}
	return out
}

// put is one block on its way to its place.
type put struct {
	slot  uint64
	block uint32
	id    pageID
	rseq  raid.Seq
	data  []byte
}

// write puts blocks in place, neighbours in one write, and notes their checksums. It reorders puts, but not those of one block.
func (d *Disk) write(v *volume, puts []put) error {
	slices.SortStableFunc(puts, func(a, b put) int { return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.block, b.block)) })
	for i := 0; i < len(puts); {
		if d.replaying && mutated("C11") {
			break // as if what is in place could be believed
		}
		j := i + 1
		for j < len(puts) && puts[j].slot == puts[i].slot && puts[j].block == puts[i].block+uint32(j-i) {
			j++
		}
		run := puts[i].data
		if j-i > 1 {
			run = d.run[:0]
			for _, q := range puts[i:j] {
				run = append(run, q.data...)
			}
			d.run = run
		}
		if err := writeFull(d.dev, run, d.super.dataOffset(puts[i].slot)+int64(puts[i].block)*raid.BlockBytes); err != nil {
			return fmt.Errorf("volume %d extent %d: %w", v.id, puts[i].id.extent, err)
		}
		d.unsynced += len(run)
		i = j
	}
	for i := range puts {
		d.note(&puts[i])
	}
	return nil
}

// note stores a block's checksum and its region's last change.
func (d *Disk) note(q *put) {
	p := d.page(q.slot, q.id)
	if p.bad {
		d.distrust(p)
	}
	p.set(q.block, crcOf(q.data))
	p.rseq = max(p.rseq, q.rseq)
	d.pages.touch(p)
}

// distrust makes a page out of none: each block gets a checksum that what is in place does not have, so that all stay bad until
// they are written (S6). Its version is far above what a copy that cannot be read may have, should it come back.
func (d *Disk) distrust(p *page) {
	p.bad, p.remade = false, true
	p.version += 1 << (versionShift - 1)
	if v := d.volume(p.id.vol); v != nil { // its last change is lost as well: it may have been the newest (B: C16)
		p.rseq = max(p.rseq, v.applied, v.base)
	}
	for at := range uint32(raid.BlocksPerRegion) {
		p.set(at, ^crcOf(d.oneByOne(p.slot, at, 1)))
	}
}

// fillOverlay lets reads find a Fill's block until it is in place.
func (d *Disk) fillOverlay(v *volume, e *entry, i int) {
	v.overlay.add(idOf(&e.blocks[i]), image{&record{Record: &raid.Record{Seq: e.seq, Blocks: e.blocks}}, i})
}

// fillInPlace writes a durable Fill.
func (d *Disk) fillInPlace(v *volume, e *entry) error {
	var puts []put
	for i := range e.blocks {
		b := &e.blocks[i]
		id := idOf(b)
		slot, block, ok := v.slotOf(id)
		if !ok {
			continue // the shard has gone meanwhile
		}
		puts = append(puts, put{slot, block, id.page(v.id), e.r, b.Data})
		v.overlay.drop(id, func(im image) bool { return &im.rec.Blocks[im.at] == b })
	}
	return d.write(v, puts)
}
