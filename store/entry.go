package store

import (
	"encoding/binary"

	"clade/raid"
)

// entryKind names what a journal entry does; part of the format.
type entryKind uint8

const (
	entryRecord entryKind = iota + 1 // a volume's record
	entryFence                       // fence := Epoch, damaged, being wiped
	entryStart                       // fence, start := Epoch, records beyond Hist dropped, commit raised
	entryCommit                      // durable commit point
	entryFill                        // blocks as of S
	entryWipe                        // all shards anew
	entryShards                      // shards made
	entryRemove                      // shards deleted; none named: the whole volume
	entryQuota                       // extra := seq, in bytes
)

// entry is one change of a volume's durable state.
type entry struct {
	kind    entryKind
	vol     raid.VolumeID
	epoch   raid.Epoch
	seq     raid.Seq // Start, Commit: commit point; Fill: S; Quota: bytes
	r       raid.Seq // Fill
	damaged bool
	wiping  bool // Fence
	forced  bool // Start
	last    bool // Fill
	boot    raid.BootID
	hist    []raid.HistRange
	shards  []shard
	extent  uint32
	gen     uint64
	region  uint32
	rec     *raid.Record
	blocks  []raid.Block // Fill
}

// shard is where a shard lies on the disk.
type shard struct {
	raid.ShardRef
	slot uint64 // first of its Regions slots
}

// buf appends little-endian fields.
type buf struct{ b []byte }

func (w *buf) u8(v byte)    { w.b = append(w.b, v) }
func (w *buf) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *buf) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *buf) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

// view takes little-endian fields; after the first failure everything is zero. Lists are made only as long as the rest can be.
type view struct {
	b   []byte
	bad bool
}

func (r *view) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *view) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *view) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *view) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *view) flag() bool {
	v := r.u8()
	r.bad = r.bad || v > 1
	return v == 1
}

func (r *view) count(size int) int {
	n := int(r.u32())
	if n < 0 || n > len(r.b)/size {
		r.bad = true
		return 0
	}
	return n
}

func (w *buf) shards(list []shard) {
	w.u32(uint32(len(list)))
	for _, s := range list {
		w.u32(s.Extent)
		w.u64(s.Gen)
		w.u32(s.Regions)
		w.u64(s.slot)
	}
}

func (r *view) shards() []shard {
	var out []shard
	for range r.count(24) {
		out = append(out, shard{raid.ShardRef{Extent: r.u32(), Gen: r.u64(), Regions: r.u32()}, r.u64()})
	}
	return out
}

// blocks writes where blocks belong and their checksums; the bytes follow behind the group's meta part.
func (w *buf) blocks(list []raid.Block) {
	w.u32(uint32(len(list)))
	for i := range list {
		w.u32(list[i].Extent)
		w.u64(list[i].Gen)
		w.u32(list[i].No)
		w.u32(crcOf(list[i].Data))
	}
}

// blocks reads descriptors; the checksums go to sums, for when the bytes are there.
func (r *view) blocks(sums *[]uint32) []raid.Block {
	var out []raid.Block
	for range r.count(20) {
		out = append(out, raid.Block{Extent: r.u32(), Gen: r.u64(), No: r.u32()})
		*sums = append(*sums, r.u32())
	}
	return out
}

func (w *buf) record(rec *raid.Record) {
	for _, v := range []uint64{uint64(rec.Epoch), uint64(rec.Seq), uint64(rec.Prev), rec.BID, uint64(rec.Commit)} {
		w.u64(v)
	}
	w.u32(uint32(len(rec.Parts)))
	for _, d := range rec.Parts {
		w.u32(uint32(d))
	}
	w.u32(uint32(len(rec.Reqs)))
	for i := range rec.Reqs {
		w.u8(rec.Reqs[i].Path)
		w.u32(rec.Reqs[i].AgeUs)
		w.b = append(w.b, rec.Reqs[i].Header[:]...)
	}
	w.blocks(rec.Blocks)
}

func (r *view) record(sums *[]uint32) *raid.Record {
	rec := &raid.Record{Epoch: raid.Epoch(r.u64()), Seq: raid.Seq(r.u64()), Prev: raid.Seq(r.u64()), BID: r.u64(), Commit: raid.Seq(r.u64())}
	var parts []raid.DiskID
	for range r.count(4) {
		parts = append(parts, raid.DiskID(r.u32()))
	}
	rec.Parts = raid.NewDiskSet(parts...)
	for range r.count(41) {
		h := raid.ReqHeader{Path: r.u8(), AgeUs: r.u32()}
		copy(h.Header[:], r.take(36))
		rec.Reqs = append(rec.Reqs, h)
	}
	rec.Blocks = r.blocks(sums)
	return rec
}

func (w *buf) entry(e *entry) {
	w.u8(byte(e.kind))
	w.u64(uint64(e.vol))
	switch e.kind {
	case entryRecord:
		w.record(e.rec)
	case entryFence:
		w.u64(uint64(e.epoch))
		w.flag(e.damaged)
		w.flag(e.wiping)
	case entryStart:
		w.u64(uint64(e.epoch))
		w.u64(uint64(e.seq))
		w.flag(e.damaged)
		w.flag(e.forced)
		w.b = append(w.b, e.boot[:]...)
		w.u32(uint32(len(e.hist)))
		for _, h := range e.hist {
			w.u64(uint64(h.From))
			w.u64(uint64(h.To))
			w.u64(uint64(h.End))
		}
	case entryCommit, entryQuota:
		w.u64(uint64(e.seq))
	case entryFill:
		w.u64(uint64(e.seq))
		w.u64(uint64(e.r))
		w.u32(e.extent)
		w.u64(e.gen)
		w.u32(e.region)
		w.flag(e.last)
		w.blocks(e.blocks)
	case entryShards, entryRemove:
		w.shards(e.shards)
	}
}

func (r *view) entry(sums *[]uint32) entry {
	e := entry{kind: entryKind(r.u8()), vol: raid.VolumeID(r.u64())}
	switch e.kind {
	case entryRecord:
		e.rec = r.record(sums)
	case entryFence:
		e.epoch, e.damaged, e.wiping = raid.Epoch(r.u64()), r.flag(), r.flag()
	case entryStart:
		e.epoch, e.seq, e.damaged, e.forced = raid.Epoch(r.u64()), raid.Seq(r.u64()), r.flag(), r.flag()
		copy(e.boot[:], r.take(16))
		for range r.count(24) {
			e.hist = append(e.hist, raid.HistRange{From: raid.Epoch(r.u64()), To: raid.Epoch(r.u64()), End: raid.Seq(r.u64())})
		}
	case entryCommit, entryQuota:
		e.seq = raid.Seq(r.u64())
	case entryFill:
		e.seq, e.r, e.extent, e.gen, e.region, e.last = raid.Seq(r.u64()), raid.Seq(r.u64()), r.u32(), r.u64(), r.u32(), r.flag()
		e.blocks = r.blocks(sums)
	case entryWipe:
	case entryShards, entryRemove:
		e.shards = r.shards()
	default:
		r.bad = true
	}
	return e
}

// data returns the blocks that an entry carries.
func (e *entry) data() []raid.Block {
	if e.rec != nil {
		return e.rec.Blocks
	}
	return e.blocks
}
