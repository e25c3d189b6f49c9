package store

import (
	"cmp"
	"fmt"
	"slices"

	"clade/raid"
)

var zeroBlock = make([]byte, raid.BlockBytes)

// page returns a region's checksums.
func (d *Disk) page(v *volume, slot uint64, id pageID) (*page, error) {
	if p := d.pages.get(slot); p != nil && p.id == id {
		return p, nil
	}
	p, err := readPage(d.dev, d.super, slot, id)
	if err != nil {
		return nil, fmt.Errorf("volume %d extent %d region %d: checksums: %w", v.id, id.extent, id.region, err)
	}
	d.pages.put(p)
	return p, nil
}

// blocks fills out with the newest versions at or below limit of the blocks from first on, all of one region: from the
// journal's overlay, else in place if the checksum is right. What cannot be trusted stays nil.
func (d *Disk) blocks(v *volume, p *page, first uint32, out [][]byte, limit raid.Seq) error {
	var place []byte
	base := first % raid.BlocksPerRegion
	for i := range out {
		no := first + uint32(i)
		if b := v.newest(blockID{p.id.extent, p.id.gen, no}, limit); b != nil {
			out[i] = b
			continue
		}
		at := base + uint32(i)
		switch {
		case p.bad:
			d.stats.BadBlocks++
			continue
		case !p.has(at):
			out[i] = zeroBlock
			continue
		}
		if place == nil { // the rest in one read
			place = make([]byte, (len(out)-i)*raid.BlockBytes)
			if _, err := d.dev.ReadAt(place, d.super.dataOffset(p.slot)+int64(at)*raid.BlockBytes); err != nil {
				place = d.oneByOne(p.slot, at, len(out)-i)
			}
			base, place = at, place[:len(place):len(place)]
			first, out = no, out[i:]
			return d.inPlace(v, p, first, out, limit, place)
		}
	}
	return nil
}

// inPlace is the rest of blocks, with the bytes in place at hand.
func (d *Disk) inPlace(v *volume, p *page, first uint32, out [][]byte, limit raid.Seq, place []byte) error {
	for i := range out {
		no := first + uint32(i)
		if b := v.newest(blockID{p.id.extent, p.id.gen, no}, limit); b != nil {
			out[i] = b
			continue
		}
		at := no % raid.BlocksPerRegion
		if !p.has(at) {
			out[i] = zeroBlock
			continue
		}
		b := place[i*raid.BlockBytes : (i+1)*raid.BlockBytes : (i+1)*raid.BlockBytes]
		if crcOf(b) != p.crc[at] {
			d.stats.BadBlocks++
			continue
		}
		out[i] = b
	}
	return nil
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

// write puts blocks in place, neighbours in one write, and notes their checksums.
func (d *Disk) write(v *volume, puts []put) error {
	slices.SortStableFunc(puts, func(a, b put) int { return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.block, b.block)) })
	for i := 0; i < len(puts); {
		j := i + 1
		for j < len(puts) && puts[j].slot == puts[i].slot && puts[j].block == puts[i].block+uint32(j-i) {
			j++
		}
		run := puts[i].data
		if j-i > 1 {
			run = make([]byte, 0, (j-i)*raid.BlockBytes)
			for _, q := range puts[i:j] {
				run = append(run, q.data...)
			}
		}
		if err := writeFull(d.dev, run, d.super.dataOffset(puts[i].slot)+int64(puts[i].block)*raid.BlockBytes); err != nil {
			return fmt.Errorf("volume %d extent %d: %w", v.id, puts[i].id.extent, err)
		}
		i = j
	}
	for i := range puts {
		if err := d.note(v, &puts[i]); err != nil {
			return err
		}
	}
	return nil
}

// note stores a block's checksum and its region's last change.
func (d *Disk) note(v *volume, q *put) error {
	p, err := d.page(v, q.slot, q.id)
	if err != nil {
		return err
	}
	if p.bad {
		if err := d.distrust(p); err != nil {
			return err
		}
	}
	p.set(q.block, crcOf(q.data))
	p.rseq = max(p.rseq, q.rseq)
	d.pages.touch(p)
	return nil
}

// distrust makes a page out of none: each block gets a checksum that what is in place does not have, so that all stay bad until
// they are written (S6).
func (d *Disk) distrust(p *page) error {
	p.bad, p.version = false, 0
	for at := range uint32(raid.BlocksPerRegion) {
		b := d.oneByOne(p.slot, at, 1)
		p.set(at, ^crcOf(b))
	}
	b := make([]byte, 2*pageBytes)
	if err := readFull(d.dev, b, d.super.pageOffset(p.slot, 0)); err != nil {
		return err
	}
	for which := range 2 { // above whatever may be there
		if q, ok := decodePage(b[which*pageBytes:(which+1)*pageBytes], p.id); ok {
			p.version = max(p.version, q.version)
		}
	}
	return nil
}

// freshPages makes the pages of shards anew: nothing written. They are durable with the next sync.
func (d *Disk) freshPages(v *volume, shards []shard) error {
	b := make([]byte, 2*pageBytes)
	for _, s := range shards {
		for i := range s.Regions {
			slot := s.slot + uint64(i)
			id := pageID{v.id, s.Extent, s.Gen, i}
			d.pages.forget(slot)
			old, err := readPage(d.dev, d.super, slot, id)
			if err != nil {
				return fmt.Errorf("volume %d: make shard of extent %d: %w", v.id, s.Extent, err)
			}
			p := page{id: id, slot: slot, version: old.version + 1}
			p.encode(b[:pageBytes])
			p.version++
			p.encode(b[pageBytes:])
			if err := writeFull(d.dev, b, d.super.pageOffset(slot, 0)); err != nil {
				return fmt.Errorf("volume %d: make shard of extent %d: %w", v.id, s.Extent, err)
			}
		}
	}
	return nil
}

// fillOverlay lets reads find a Fill's block until it is in place.
func (d *Disk) fillOverlay(v *volume, e *entry, i int) {
	id := idOf(&e.blocks[i])
	v.overlay[id] = append(v.overlay[id], image{&record{Record: &raid.Record{Seq: e.seq, Blocks: e.blocks}}, i})
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
		puts = append(puts, put{slot, block, pageID{v.id, id.extent, id.gen, id.no / raid.BlocksPerRegion}, e.r, b.Data})
		list := slices.DeleteFunc(v.overlay[id], func(im image) bool { return &im.rec.Blocks[im.at] == b })
		if len(list) == 0 {
			delete(v.overlay, id)
		} else {
			v.overlay[id] = list
		}
	}
	return d.write(v, puts)
}
