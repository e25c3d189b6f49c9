package store

import (
	"cmp"
	"slices"

	"clade/raid"
)

// blockID names a block of a volume on this disk. It has no gaps: a map hashes it in one piece.
type blockID struct {
	gen    uint64
	extent uint32
	no     uint32
}

func idOf(b *raid.Block) blockID { return blockID{b.Gen, b.Extent, b.No} }

// page names the page of a volume's block.
func (b blockID) page(vol raid.VolumeID) pageID {
	return pageID{vol, b.extent, b.gen, b.no / raid.BlocksPerRegion}
}

// record is a record in the journal that has not been applied.
type record struct {
	*raid.Record
	lsn     uint64
	durable bool
	dead    []bool // by block: a Fill as of a later seq carries it (B: C21); nil: none
}

// volume is the state of (disk, volume) of A.3. What the journal holds is replayed through the same methods (redo).
type volume struct {
	id        raid.VolumeID
	fence     raid.Epoch
	start     raid.Epoch
	damaged   bool
	wiping    bool // a Wipe has begun: what is in place may be zeros that never were, not even a forced Start believes them
	bootStart raid.BootID
	commit    raid.Seq // as the owner says
	logged    raid.Seq // in a group, maybe not durable yet
	durable   raid.Seq // durable: the most that may be applied
	applied   raid.Seq
	base      raid.Seq
	based     raid.Seq // base as far as it is durable
	shards    []shard  // sorted by extent, generation
	extra     uint64   // bytes of its quota beyond the base (room.go)

	log      []*record // not applied, ascending seq
	overlay  overlay
	logBytes int64 // what log takes when it is copied forward

	stream raid.Stream // σ
	owner  raid.NodeID // who sent Start: unsolicited acknowledgements go there
	acked  raid.Seq    // told the owner to be durable
	told   raid.Seq    // durable commit point that the owner was told
}

func newVolume(id raid.VolumeID) *volume {
	return &volume{id: id, overlay: overlay{}}
}

// endseq is the newest seq that the disk holds (A.3).
func (v *volume) endseq() raid.Seq {
	e := max(v.applied, v.base)
	if n := len(v.log); n > 0 {
		e = max(e, v.log[n-1].Seq)
	}
	return e
}

// shard returns the shard, or nil.
func (v *volume) shard(extent uint32, gen uint64) *shard {
	from, to := 0, len(v.shards)
	for from < to {
		mid := (from + to) / 2
		switch s := &v.shards[mid]; {
		case s.Extent == extent && s.Gen == gen:
			return s
		case s.Extent < extent || s.Extent == extent && s.Gen < gen:
			from = mid + 1
		default:
			to = mid
		}
	}
	return nil
}

// slotOf returns the slot and block within it of a block, if the shard has it.
func (v *volume) slotOf(b blockID) (slot uint64, block uint32, ok bool) {
	s := v.shard(b.extent, b.gen)
	if s == nil || b.no >= s.Regions*raid.BlocksPerRegion {
		return 0, 0, false
	}
	return s.slot + uint64(b.no/raid.BlocksPerRegion), b.no % raid.BlocksPerRegion, true
}

// push appends a record; the chain has been checked.
func (v *volume) push(r *record) {
	v.log = append(v.log, r)
	v.logBytes += recordBytes(r.Record)
	if n := len(v.log); n > 1 && v.log[n-2].Seq > r.Seq {
		slices.SortStableFunc(v.log, func(a, b *record) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	for i := range r.Blocks {
		v.overlay.add(idOf(&r.Blocks[i]), image{r, i})
	}
}

// drop takes a record out of log and overlay: it is applied, or a Start declared it void.
func (v *volume) drop(r *record) {
	v.logBytes -= recordBytes(r.Record)
	for i := range r.Blocks {
		v.overlay.drop(idOf(&r.Blocks[i]), func(im image) bool { return im.rec == r })
	}
}

// newest returns a block's newest living image at or below s, or nil.
func (v *volume) newest(id blockID, s raid.Seq) []byte {
	var best image
	v.overlay.each(id, func(im image) {
		if im.rec.Seq <= s && im.alive() && (best.rec == nil || im.rec.Seq > best.rec.Seq) {
			best = im
		}
	})
	if best.rec == nil {
		return nil
	}
	return best.data()
}

// find returns the record with this identity, or nil.
func (v *volume) find(e raid.Epoch, n raid.Seq, bid uint64) *record {
	i, _ := slices.BinarySearchFunc(v.log, n, func(r *record, n raid.Seq) int { return cmp.Compare(r.Seq, n) })
	for ; i < len(v.log) && v.log[i].Seq == n; i++ {
		if r := v.log[i]; r.Epoch == e && r.BID == bid {
			return r
		}
	}
	return nil
}

// redoFence is the effect of a Fence.
func (v *volume) redoFence(e *entry) {
	v.fence = max(v.fence, e.epoch)
	v.damaged = v.damaged || e.damaged
	v.wiping = v.wiping || e.wiping
}

// beyond reports whether a Start with this history declares a record void, and whether the history is silent about it.
func (v *volume) beyond(r *record, hist []raid.HistRange) (void, unknown bool) {
	if mutated("NO_TRUNC") || r.Epoch < v.start {
		return false, false
	}
	end, closed := raid.EndOf(hist, r.Epoch)
	if mutated("TRUNC_BY_SEQ") && len(hist) > 0 {
		end, closed = hist[len(hist)-1].End, true
	}
	return closed && r.Seq > end, !closed
}

// redoStart is the effect of a Start with a larger epoch: what later epochs declared void goes, durably (B: C10).
func (v *volume) redoStart(e *entry) {
	if e.epoch > v.start {
		keep := v.log[:0]
		for _, r := range v.log {
			if void, _ := v.beyond(r, e.hist); void {
				v.drop(r)
				continue
			}
			keep = append(keep, r)
		}
		clear(v.log[len(keep):])
		v.log = keep
		v.start, v.fence, v.bootStart = e.epoch, max(v.fence, e.epoch), e.boot
		v.raiseCommit(e.seq)
	}
	v.damaged = e.damaged
}

// filled notes the last Fill of a resync: what the volume was given implies that everything up to s is committed (B: C9).
func (v *volume) filled(s raid.Seq) {
	if mutated("FILL_NO_BASE") {
		return
	}
	v.base = max(v.base, s)
	v.raiseCommit(s)
}

// raiseCommit notes a commit point that is in the journal.
func (v *volume) raiseCommit(c raid.Seq) {
	v.commit, v.logged = max(v.commit, c), max(v.logged, c)
}

// kill marks the images at or below s of exactly these blocks as dead: the Fill carries what counts. The records stay in log,
// endseq and report until they are applied (B: C21).
func (v *volume) kill(blocks []raid.Block, s raid.Seq) {
	for i := range blocks {
		v.overlay.each(idOf(&blocks[i]), func(im image) {
			if im.rec.Seq <= s {
				if im.rec.dead == nil {
					im.rec.dead = make([]bool, len(im.rec.Blocks))
				}
				im.rec.dead[im.at] = true
			}
		})
	}
	if !mutated("REPAIR_DROPS") || len(blocks) == 0 {
		return
	}
	keep := v.log[:0]
	for _, r := range v.log {
		if r.Seq <= s {
			v.drop(r)
			continue
		}
		keep = append(keep, r)
	}
	clear(v.log[len(keep):])
	v.log = keep
}

// redoWipe empties the volume on this disk; the caller makes its pages anew.
func (v *volume) redoWipe() {
	for _, r := range v.log {
		v.drop(r)
	}
	v.log = nil
	v.commit, v.logged, v.durable, v.applied, v.base, v.based = 0, 0, 0, 0, 0, 0
	v.damaged, v.wiping = false, false
	v.acked, v.told = 0, 0
}

// report is what a fenced disk says.
func (v *volume) report(now raid.BootID) *raid.Report {
	out := &raid.Report{Start: v.start, Commit: v.durable, Applied: v.applied, EndSeq: v.endseq(), Base: v.base, Damaged: v.damaged,
		BootStart: v.bootStart, BootNow: now}
	for _, r := range v.log {
		if r.Seq > v.applied {
			out.Records = append(out.Records, raid.RecordID{Epoch: r.Epoch, Seq: r.Seq, BID: r.BID, Parts: r.Parts, Reqs: r.Reqs})
		}
	}
	return out
}
