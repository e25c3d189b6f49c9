package store

import (
	"encoding/binary"
	"slices"

	"clade/raid"
)

const pageMagic = 0x4750_4C43 // "CLPG"

// pageID says which region of which shard a page is about.
type pageID struct {
	vol    raid.VolumeID
	extent uint32
	gen    uint64
	region uint32
}

// page is the checksums of one region.
type page struct {
	id      pageID
	slot    uint64
	version uint64
	stamp   uint64 // the superblock's seq that the checkpoint was to have for which it was written
	rseq    raid.Seq
	written [raid.BlocksPerRegion / 8]byte
	crc     [raid.BlocksPerRegion]uint32

	bad        bool // no valid page: everything in the region is damage (S6)
	which      int  // slot copy that holds version
	dirty      bool
	remade     bool // was bad: neither copy is to be left as it is
	prev, next *page
}

func (p *page) has(block uint32) bool { return p.written[block/8]&(1<<(block%8)) != 0 }

func (p *page) set(block uint32, crc uint32) {
	p.written[block/8] |= 1 << (block % 8)
	p.crc[block] = crc
}

func (p *page) encode(b []byte) {
	clear(b)
	le := binary.LittleEndian
	le.PutUint32(b, pageMagic)
	le.PutUint64(b[8:], p.version)
	le.PutUint64(b[16:], uint64(p.id.vol))
	le.PutUint32(b[24:], p.id.extent)
	le.PutUint64(b[28:], p.id.gen)
	le.PutUint32(b[36:], p.id.region)
	le.PutUint64(b[40:], uint64(p.rseq))
	copy(b[48:], p.written[:])
	le.PutUint64(b[80:], p.stamp)
	le.PutUint32(b[88:], crcOf(b[8:88]))
	for i, c := range p.crc {
		le.PutUint32(b[92+4*i:], c)
	}
	le.PutUint32(b[4:], crcOf(b[8:pageBytes]))
}

// decodeHeader reads what lies in a page's first sector, which a power cut leaves either old or new: ok is false if it is neither.
func decodeHeader(b []byte, id pageID) (p page, ok bool) {
	le := binary.LittleEndian
	if len(b) < pageBytes || le.Uint32(b) != pageMagic || le.Uint32(b[88:]) != crcOf(b[8:88]) {
		return p, false
	}
	p.id = pageID{raid.VolumeID(le.Uint64(b[16:])), le.Uint32(b[24:]), le.Uint64(b[28:]), le.Uint32(b[36:])}
	p.version, p.rseq, p.stamp = le.Uint64(b[8:]), raid.Seq(le.Uint64(b[40:])), le.Uint64(b[80:])
	copy(p.written[:], b[48:])
	return p, p.id == id
}

// decodePage reads a page; ok is false unless it is whole and says that it is about id.
func decodePage(b []byte, id pageID) (p page, ok bool) {
	p, ok = decodeHeader(b, id)
	le := binary.LittleEndian
	if !ok || le.Uint32(b[4:]) != crcOf(b[8:pageBytes]) {
		return p, false
	}
	for i := range p.crc {
		p.crc[i] = le.Uint32(b[92+4*i:])
	}
	return p, true
}

// readPage reads a region's page from the device. Both copies are whole but for one that an unfinished checkpoint has torn, and
// what that one covers is in the journal: so while the journal is replayed (torn) the other one counts. At any other time a copy that
// is not whole is damage: the one that is left may be the older, which calls blocks never written that have been (S6).
func readPage(dev Device, s *super, slot uint64, id pageID, torn bool) *page {
	b := make([]byte, 2*pageBytes)
	if readFull(dev, b, s.pageOffset(slot, 0)) != nil {
		for which := range 2 {
			half := b[which*pageBytes : (which+1)*pageBytes]
			if readFull(dev, half, s.pageOffset(slot, which)) != nil {
				clear(half) // a latent error costs the page, not the disk
			}
		}
	}
	attempt := uint64(0)
	if torn {
		attempt = s.seq + 1
	}
	return decodePages(b, slot, id, attempt)
}

// decodePages is readPage with both copies at hand; attempt is the stamp of the checkpoint that may have been cut short, 0 if none.
func decodePages(b []byte, slot uint64, id pageID, attempt uint64) *page {
	out := &page{id: id, slot: slot, bad: true}
	whole := 0
	for which := range 2 {
		p, ok := decodePage(b[which*pageBytes:(which+1)*pageBytes], id)
		if !ok {
			continue
		}
		whole++
		if out.bad || p.version > out.version {
			p.slot, p.which = slot, which
			*out = p
		}
	}
	if whole == 1 && !mutated("TRUST_ONE_PAGE") {
		other := 1 - out.which
		out.bad = !out.coversTorn(b[other*pageBytes:(other+1)*pageBytes], attempt)
	}
	return out
}

// coversTorn reports whether a copy that is not whole holds nothing that p and the journal do not: it was being written when the
// checkpoint was cut short, or p was, or it is the older one. What has lost its header is lost: a power cut does not do that.
func (p *page) coversTorn(b []byte, attempt uint64) bool {
	if attempt == 0 {
		return false
	}
	h, ok := decodeHeader(b, p.id)
	return p.stamp == attempt || ok && (h.stamp == attempt || h.version < p.version)
}

// pageCache holds pages: the dirty ones until a checkpoint, as many as the journal has changes for, and of the others the most
// recently used. Only these are in the list.
type pageCache struct {
	pages map[uint64]*page // by slot
	limit int              // of pages that are not dirty
	head  page
	dirty []*page // in order of becoming dirty

	writing []*page // of a checkpoint under way: dirty until they are written
}

func newPageCache(bytes int) *pageCache {
	c := &pageCache{pages: map[uint64]*page{}, limit: max(bytes/1400, 64)}
	c.head.prev, c.head.next = &c.head, &c.head
	return c
}

func (c *pageCache) get(slot uint64) *page {
	p := c.pages[slot]
	if p != nil && !p.dirty && c.head.next != p {
		p.unlink()
		c.front(p)
	}
	return p
}

func (c *pageCache) front(p *page) {
	p.prev, p.next = &c.head, c.head.next
	p.prev.next, p.next.prev = p, p
}

func (p *page) unlink() { p.prev.next, p.next.prev = p.next, p.prev }

// put adds a page that is not dirty.
func (c *pageCache) put(p *page) {
	c.forget(p.slot)
	c.pages[p.slot] = p
	c.front(p)
	c.evict()
}

func (c *pageCache) evict() {
	for len(c.pages)-len(c.dirty)-len(c.writing) > c.limit {
		q := c.head.prev
		q.unlink()
		delete(c.pages, q.slot)
	}
}

func (c *pageCache) touch(p *page) {
	if !p.dirty {
		p.dirty = true
		p.unlink()
		c.dirty = append(c.dirty, p)
	}
}

// begin makes all dirty pages those of a checkpoint.
func (c *pageCache) begin() {
	c.writing = append(c.writing, c.dirty...)
	c.dirty = nil
}

// clean says that the first n pages of the checkpoint have been written.
func (c *pageCache) clean(n int) {
	n = min(n, len(c.writing))
	for i, p := range c.writing[:n] {
		p.dirty = false
		c.front(p)
		c.writing[i] = nil
	}
	if c.writing = c.writing[n:]; len(c.writing) == 0 {
		c.writing = nil
	}
	c.evict()
}

// forget drops the page of a slot, what it says is of no use any more.
func (c *pageCache) forget(slot uint64) {
	p := c.pages[slot]
	if p == nil {
		return
	}
	delete(c.pages, slot)
	if !p.dirty {
		p.unlink()
		return
	}
	if i := slices.Index(c.dirty, p); i >= 0 {
		c.dirty = slices.Delete(c.dirty, i, i+1)
	} else if i := slices.Index(c.writing, p); i >= 0 {
		c.writing = slices.Delete(c.writing, i, i+1)
	}
}
