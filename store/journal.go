package store

import (
	"encoding/binary"
	"fmt"

	"clade/raid"
)

const (
	groupMagic       = 0x5247_4C43 // "CLGR"
	groupHeaderBytes = 64
	metaBytesMax     = 16 << 20
	spareEntriesMax  = 1 << 12
	bufBytesMin      = 256 << 10
	bufBytesMax      = 4 << 20 // kept for the next group
)

// group is what one sync makes durable: entries, and the answers that wait for them.
type group struct {
	entries []entry
	blocks  int
	meta    int // upper estimate of the meta part
	lsn     uint64
	job     SyncJob                          // that writes it
	done    []func(d *Disk) []raid.DiskReply // run when it is durable, in order
}

func (g *group) add(e entry) {
	g.entries = append(g.entries, e)
	g.blocks += len(e.data())
	g.meta += 128 + 24*len(e.hist) + 24*len(e.shards) + 20*len(e.data())
	if e.rec != nil {
		g.meta += 4*len(e.rec.Parts) + 41*len(e.rec.Reqs)
	}
}

// bytes is an upper bound of the group's length in the journal.
func (g *group) bytes() int64 {
	return int64(groupHeaderBytes+g.meta+pageBytes-1)/pageBytes*pageBytes + int64(g.blocks)*pageBytes
}

// journal is the circular log. The groups from tail to head count.
type journal struct {
	dev         Device
	base, size  int64
	uuid        [16]byte
	incarnation uint64 // of what is appended, and of every group from current on
	current     uint64 // lsn of the first group after the checkpoint: written by the life that wrote the checkpoint
	tail, head  position
	buf         []byte     // of length 0, for form: that of the group being written
	starts      []position // where each group from tail to head begins
}

// startOf returns where the group lsn begins; the tail if it is older.
func (j *journal) startOf(lsn uint64) position {
	if len(j.starts) == 0 || lsn <= j.starts[0].lsn {
		return j.tail
	}
	return j.starts[lsn-j.starts[0].lsn]
}

// distance returns how many bytes lie from p to the head.
func (j *journal) distance(p position) int64 {
	n := j.head.off - p.off
	if n < 0 || n == 0 && j.head.lsn != p.lsn {
		n += j.size
	}
	return n
}

// trim moves the tail.
func (j *journal) trim(tail position) {
	j.tail = tail
	for len(j.starts) > 0 && j.starts[0].lsn < tail.lsn {
		j.starts = j.starts[1:]
	}
}

// used returns how many bytes from tail to head are not free.
func (j *journal) used() int64 { return j.distance(j.tail) }

// place returns where a group of n bytes goes; ok is false when there is no room. One page always stays free between head and
// tail, so that full and empty differ.
func (j *journal) place(n int64) (off int64, ok bool) {
	empty := j.head.lsn == j.tail.lsn
	switch {
	case j.head.off >= j.tail.off:
		if n <= j.size-j.head.off && (j.head.off+n < j.size || j.tail.off > 0 || empty) {
			return j.head.off, true
		}
		return 0, n < j.tail.off
	default:
		return j.head.off, n < j.tail.off-j.head.off
	}
}

// form appends a group and returns its bytes, which are to be written at off of the device before the next one is formed.
func (j *journal) form(g *group) (bytes []byte, off int64) {
	if int64(cap(j.buf)) < g.bytes() {
		j.buf = alignedBytes(int(max(g.bytes(), bufBytesMin)))
	}
	w := buf{b: j.buf[:groupHeaderBytes]}
	if cap(j.buf) > bufBytesMax {
		j.buf = nil
	}
	clear(w.b)
	for i := range g.entries {
		w.entry(&g.entries[i])
	}
	meta := len(w.b)
	metaPadded := (meta + pageBytes - 1) / pageBytes * pageBytes
	w.b = w.b[:metaPadded]
	clear(w.b[meta:])
	for i := range g.entries {
		for _, b := range g.entries[i].data() {
			w.b = append(w.b, b.Data...)
		}
	}
	le := binary.LittleEndian
	le.PutUint32(w.b, groupMagic)
	copy(w.b[8:], j.uuid[:])
	le.PutUint64(w.b[24:], j.incarnation)
	le.PutUint64(w.b[32:], j.head.lsn)
	le.PutUint32(w.b[40:], j.head.chain)
	le.PutUint32(w.b[44:], uint32(meta))
	le.PutUint32(w.b[48:], uint32(g.blocks))
	crc := crcOf(w.b[8:metaPadded])
	le.PutUint32(w.b[4:], crc)
	off, ok := j.place(int64(len(w.b)))
	if !ok {
		panic(fmt.Sprintf("store: group of %d bytes in a journal of %d with %d used", len(w.b), j.size, j.used()))
	}
	g.lsn = j.head.lsn
	j.starts = append(j.starts, position{off: off, lsn: g.lsn, chain: j.head.chain})
	j.head = position{off: (off + int64(len(w.b))) % j.size, lsn: j.head.lsn + 1, chain: crc}
	return w.b, j.base + off
}

// header is a group's header that is whole.
type header struct {
	lsn         uint64
	incarnation uint64
	chain, crc  uint32
	meta        int
	blocks      int
	body        []byte // the meta part
}

// readHeader reads the group that may begin at off; ok is false if there is no whole meta part.
func (j *journal) readHeader(off int64) (h header, ok bool, err error) {
	if off < 0 || off+pageBytes > j.size {
		return h, false, nil
	}
	b := make([]byte, pageBytes)
	if err := readFull(j.dev, b, j.base+off); err != nil {
		return h, false, err
	}
	return j.parseHeader(b, off)
}

func (j *journal) parseHeader(b []byte, off int64) (h header, ok bool, err error) {
	le := binary.LittleEndian
	if le.Uint32(b) != groupMagic || [16]byte(b[8:24]) != j.uuid {
		return h, false, nil
	}
	h = header{lsn: le.Uint64(b[32:]), incarnation: le.Uint64(b[24:]), chain: le.Uint32(b[40:]), crc: le.Uint32(b[4:]),
		meta: int(le.Uint32(b[44:])), blocks: int(le.Uint32(b[48:]))}
	padded := (h.meta + pageBytes - 1) / pageBytes * pageBytes
	if h.meta < groupHeaderBytes || h.meta > metaBytesMax || off+int64(padded)+int64(h.blocks)*pageBytes > j.size {
		return h, false, nil
	}
	h.body = b
	if padded > pageBytes {
		h.body = make([]byte, padded)
		if err := readFull(j.dev, h.body, j.base+off); err != nil {
			return h, false, err
		}
	}
	return h, crcOf(h.body[8:padded]) == h.crc, nil
}

// mine reports whether a group is of the life that should have written it. What a recovery has cut off belongs to an earlier one and
// never counts again, not even where the next group of its lsn lies elsewhere, at the journal's start.
func (j *journal) mine(h header) bool {
	if h.lsn >= j.current {
		return h.incarnation == j.incarnation
	}
	return h.incarnation <= j.incarnation
}

// read reads the group that p expects, there or at the journal's start; ok is false when it is not there whole. next is where
// the one after it is expected, at where it lies. An error says that a place where it may be cannot be read.
func (j *journal) read(p position) (entries []entry, at, next position, ok bool, err error) {
	for _, off := range []int64{p.off, 0} {
		h, whole, unread := j.readHeader(off)
		if unread != nil && err == nil && (off == p.off || j.size-p.off < j.groupBytesLimit()) {
			err = unread // else no group can have gone to the start: there was room here
		}
		if unread != nil || !whole || h.lsn != p.lsn || h.chain != p.chain || !j.mine(h) {
			continue
		}
		padded := int64(h.meta+pageBytes-1) / pageBytes * pageBytes
		entries, ok, err = j.parse(&h, off+padded)
		end := off + padded + int64(h.blocks)*pageBytes
		return entries, position{off, p.lsn, p.chain}, position{end % j.size, p.lsn + 1, h.crc}, ok, err
	}
	return nil, p, p, false, err
}

// parse reads a group's entries and blocks; ok is false when a checksum does not fit.
func (j *journal) parse(h *header, blocksAt int64) (entries []entry, ok bool, err error) {
	r := view{b: h.body[groupHeaderBytes:h.meta]}
	var sums []uint32
	for len(r.b) > 0 && !r.bad {
		entries = append(entries, r.entry(&sums))
	}
	if r.bad || len(sums) != h.blocks {
		return nil, false, nil
	}
	data := make([]byte, h.blocks*pageBytes)
	if err := readFull(j.dev, data, j.base+blocksAt); err != nil && h.blocks > 0 {
		return nil, false, err
	}
	n := 0
	for i := range entries {
		blocks := entries[i].data()
		for k := range blocks {
			b := data[n*pageBytes : (n+1)*pageBytes : (n+1)*pageBytes]
			if crcOf(b) != sums[n] {
				return nil, false, nil
			}
			blocks[k].Data = b
			n++
		}
	}
	return entries, true, nil
}

// laterThan reports whether the journal holds a whole group that proves that more than this had been synced: a later one of the same
// life, as at most one group is unsynced at a time (S1), or any of a later life, as nothing is appended before the checkpoint that
// begins a life is durable: then the newest superblock is lost and this is the one before it. Pages that cannot be read prove
// nothing: most of the journal holds nothing that counts, and what does has been read. It returns how many there are.
func (j *journal) laterThan(lsn uint64) (later bool, unread int) {
	const chunk = 1 << 20
	b := make([]byte, chunk)
	for off := int64(0); off < j.size; off += chunk {
		part := b[:min(chunk, j.size-off)]
		each := readFull(j.dev, part, j.base+off) != nil
		for at := 0; at < len(part); at += pageBytes {
			page := part[at : at+pageBytes]
			if each && readFull(j.dev, page, j.base+off+int64(at)) != nil {
				unread++
				continue
			}
			h, whole, err := j.parseHeader(page, off+int64(at))
			if err != nil {
				continue // its other pages are counted where they lie
			}
			if whole && (h.incarnation > j.incarnation || h.incarnation == j.incarnation && h.lsn > lsn) {
				return true, unread
			}
		}
	}
	return false, unread
}
