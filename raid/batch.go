package raid

import "slices"

// batch is a set of writes with one seq: the unit that is kept whole or dropped whole (A.4.2). It is the owner's own, and used again
// when it has committed; what leaves in requests is not in it.
type batch struct {
	seq   Seq
	parts DiskSet
	disks []*disk // the same
	rows  []batchRow
	reqs  []*request
}

type batchRow struct {
	row   *row
	fresh [][]byte // by role; nil = unchanged
}

// touch adds a row and returns its new blocks, none yet.
func (b *batch) touch(x *row, width int) [][]byte {
	n := len(b.rows)
	if n < cap(b.rows) {
		b.rows = b.rows[:n+1] // with the room that it had before
	} else {
		b.rows = append(b.rows, batchRow{})
	}
	br := &b.rows[n]
	if br.fresh == nil {
		br.fresh = make([][]byte, width)
	}
	br.row = x
	return br.fresh
}

// prepare is a Prepare with its record and room for the blocks of a small one, in one piece of memory: whoever keeps one of them keeps
// one disk's part of one batch.
type prepare struct {
	req    DiskRequest
	rec    Record
	blocks [2]Block
}

// newPrepare returns one with room for so many blocks.
func newPrepare(blocks int) *prepare {
	p := &prepare{}
	p.rec.Blocks = p.blocks[:0]
	if blocks > len(p.blocks) {
		p.rec.Blocks = make([]Block, 0, blocks)
	}
	return p
}

// forming is what makes batches without asking for memory each time. Nothing that is used again ever leaves the owner.
type forming struct {
	take  []*request // of selectWrites
	free  []*batch   // committed ones, empty
	parts []DiskID   // of the batch that is being formed
	sets  []DiskSet  // participants of late batches: most batches have those of another
	last  int        // index of the set that was made last
	room  []ReqHeader
}

const (
	freeBatchesMax  = 64
	freeBlocksMax   = 4096 // pointers to blocks that an empty batch keeps room for
	knownSetsMax    = 16
	headersTogether = 32
	impossibleSeq   = ^Seq(0)
)

// batch returns an empty batch.
func (f *forming) batch() *batch {
	n := len(f.free)
	if n == 0 {
		return &batch{}
	}
	b := f.free[n-1]
	f.free = f.free[:n-1]
	return b
}

// give takes a batch back that nobody refers to any more, with the room it has. Until it is taken again it is good for nothing.
func (f *forming) give(b *batch) {
	for i := range b.rows {
		clear(b.rows[i].fresh)
		b.rows[i].row = nil
	}
	clear(b.reqs)
	width := 0
	if len(b.rows) > 0 {
		width = len(b.rows[0].fresh)
	}
	*b = batch{seq: impossibleSeq, disks: b.disks[:0], rows: b.rows[:0], reqs: b.reqs[:0]}
	if len(f.free) < freeBatchesMax && cap(b.rows)*width <= freeBlocksMax && cap(b.reqs) <= freeBlocksMax {
		f.free = append(f.free, b)
	}
}

// set returns the set of some sorted disks, which it does not keep. Sets are immutable: one may be in many records.
func (f *forming) set(disks []DiskID) DiskSet {
	for _, s := range f.sets {
		if slices.Equal(s, disks) {
			return s
		}
	}
	s := slices.Clone(DiskSet(disks))
	if len(f.sets) < knownSetsMax {
		f.sets = append(f.sets, s)
		return s
	}
	f.last = (f.last + 1) % knownSetsMax
	f.sets[f.last] = s
	return s
}

// headers returns n request headers to be filled in, of a piece of memory that those of a few batches share and that is never used
// again: a record that is kept for long keeps no more than that.
func (f *forming) headers(n int) []ReqHeader {
	if cap(f.room)-len(f.room) < n {
		f.room = make([]ReqHeader, 0, max(n, headersTogether))
	}
	at := len(f.room)
	f.room = f.room[:at+n]
	return f.room[at : at+n : at+n]
}
