package raid

import (
	"math/bits"
	"slices"
)

// fullCover is the mask of a block whose eight sectors are all overwritten.
const fullCover = 0xFF

func coverMask(s span) uint8 {
	return uint8((1<<(s.n/SectorBytes) - 1) << (s.off / SectorBytes))
}

// form turns queued writes into batches, as many as may be in flight. Nobody waits for a batch to fill: what is there goes,
// merged with what came in the same burst.
func (o *Owner) form() {
	for o.queue.dirty {
		o.queue.dirty = false
		if len(o.queue.writes) == 0 || !o.mayForm() {
			return
		}
		take := o.selectWrites()
		if len(take) == 0 {
			return
		}
		o.makeBatch(take)
		o.queue.dirty = true
	}
}

// rowsPerBatch bounds the rows of one batch by the disks' quotas: one disk gets at most one block of each.
func (o *Owner) rowsPerBatch() int {
	n := 256
	for _, x := range o.disks {
		if (x.inW || x.inJ) && x.quota > 0 {
			n = min(n, int(x.quota/4/(BlockBytes+64)))
		}
	}
	return max(n, 1)
}

func (o *Owner) mayForm() bool {
	if o.suspendedNs != 0 || len(o.batches) >= o.cfg.InflightMax || !o.chained() {
		return false
	}
	need := uint64(o.rowsPerBatch()) * (BlockBytes + 64)
	for _, x := range o.disks {
		if (x.inW || x.inJ) && x.quota > 0 && x.used+need > x.quota && x.used > 0 {
			return false
		}
	}
	return true
}

// selectWrites returns the queued writes that can be one batch now, in order of admission, and starts fetching old bytes for
// those that cannot. The result is valid until the next call. A write waits when a row of it lacks old bytes, lies in a locked
// region, or has an earlier write that waits: so rows keep the order of admission. Writes that wait take their cover of other rows
// back, which may leave those incomplete; hence the loop.
func (o *Owner) selectWrites() []*request {
	cand := o.candidates()
	q := &o.queue
	q.pass++
	turn := q.pass
	for first := true; ; first = false {
		q.pass++
		for _, r := range cand {
			if r.heldPass != turn {
				o.coverRows(r, q.pass)
			}
		}
		changed := false
		for _, r := range cand {
			if r.heldPass != turn && o.mustWait(r, turn, first) {
				r.heldPass = turn
				changed = true
				for _, x := range r.rows {
					x.held = turn
				}
			}
		}
		if !changed {
			break
		}
	}
	take := o.forming.take[:0]
	rest := q.writes[:0]
	for i, r := range q.writes {
		if i < len(cand) && r.heldPass != turn {
			take = append(take, r)
		} else {
			rest = append(rest, r)
		}
	}
	clear(q.writes[len(rest):])
	q.writes, o.forming.take = rest, take
	return take
}

// candidates returns the head of the queue that one batch may carry.
func (o *Owner) candidates() []*request {
	bytes, rows, limit := 0, 0, o.rowsPerBatch()
	for i, r := range o.queue.writes {
		bytes += r.bytes
		rows += len(r.rows)
		if i > 0 && (bytes > o.cfg.BatchBytesMax || rows > limit) {
			return o.queue.writes[:i]
		}
	}
	return o.queue.writes
}

func (o *Owner) coverRows(r *request, pass uint64) {
	for i, s := range r.spans {
		x := r.rows[i]
		if x.pass != pass {
			x.pass = pass
			clear(x.cover)
		}
		x.cover[s.role] |= coverMask(s)
	}
}

func (o *Owner) mustWait(r *request, turn uint64, fetch bool) bool {
	wait := false
	for _, x := range r.rows {
		if x.held == turn || x.fetch != nil || o.locks.taken(x.key.region()) {
			wait = true
			continue
		}
		if need := o.oldNeeded(x); need != 0 {
			if fetch {
				o.fetchRow(x, need)
			}
			wait = true
		}
	}
	return wait
}

// oldNeeded returns the roles whose old blocks are missing to encode the row with what the pass overwrites: by
// reconstruct-write (the data that stays) or by parity update (the data that goes, and the parities), whichever reads less.
func (o *Owner) oldNeeded(x *row) roles {
	var rebuild, delta roles
	for role := range o.v.Layout.K {
		c := x.cover[role]
		if x.latest(role) == nil {
			if c != fullCover {
				rebuild = rebuild.with(role)
			}
			if c != 0 {
				delta = delta.with(role)
			}
		}
	}
	if rebuild == 0 || o.v.Layout.M == 0 {
		return rebuild & o.partly(x)
	}
	for role := o.v.Layout.K; role < o.v.Layout.Width(); role++ {
		if x.latest(role) == nil {
			delta = delta.with(role)
		}
	}
	switch {
	case delta&x.lost != 0:
		return rebuild
	case rebuild&x.lost != 0, delta == 0, o.readCost(x.key, delta) < o.readCost(x.key, rebuild):
		return delta
	}
	return rebuild
}

// partly keeps, for layouts without parity, only the blocks that are overwritten in part: the others do not matter.
func (o *Owner) partly(x *row) roles {
	if o.v.Layout.M > 0 {
		return ^roles(0)
	}
	var out roles
	for role, c := range x.cover {
		if c != 0 {
			out = out.with(role)
		}
	}
	return out
}

// readCost is the number of blocks to read for a set of roles: one each, or k when one of them has to be rebuilt.
func (o *Owner) readCost(key rowKey, r roles) int {
	for role := range o.v.Layout.Width() {
		if r.has(role) && !o.diskOf(key, role).readable() {
			return o.v.Layout.K
		}
	}
	return bits.OnesCount64(uint64(r))
}

// makeBatch gives writes their seq and sends them. From here on the seq is never given up in this epoch (A.4.2).
func (o *Owner) makeBatch(take []*request) {
	b := o.forming.batch()
	b.seq, b.reqs = o.next, append(b.reqs, take...)
	o.next++
	for _, r := range take {
		o.leaveQueue(r)
		o.overlay(b, r)
	}
	for i := range b.rows {
		o.encode(&b.rows[i])
	}
	b.parts = o.partsOf(b)
	o.sendBatch(b)
	clear(take)
	for _, br := range b.rows {
		x := br.row
		for role, block := range br.fresh {
			if block != nil {
				x.pend[role] = block
			}
		}
		x.pendSeq, x.fresh = b.seq, nil
		o.locks.inflight[x.key.region()]++
		o.touched(x.key.region(), b.seq)
	}
	o.batches = append(o.batches, b)
}

// overlay puts a write's bytes over the newest version of its blocks.
func (o *Owner) overlay(b *batch, r *request) {
	for i, s := range r.spans {
		x := r.rows[i]
		if x.fresh == nil {
			x.fresh = b.touch(x, o.v.Layout.Width())
		}
		if whole := r.blocks[i]; whole != nil { // nobody else has it
			x.fresh[s.role] = whole
			continue
		}
		block := x.fresh[s.role]
		if block == nil {
			if old := x.latest(s.role); old != nil && x.cover[s.role] != fullCover {
				block = slices.Clone(old)
			} else {
				block = make([]byte, BlockBytes)
			}
			x.fresh[s.role] = block
		}
		copy(block[s.off:s.off+s.n], r.data[s.at:s.at+s.n])
	}
}

// encode computes the row's parities over the pending view.
func (o *Owner) encode(br *batchRow) {
	k, m := o.v.Layout.K, o.v.Layout.M
	if m == 0 {
		return
	}
	x := br.row
	shards, old := o.coding[:k+m], o.coding[k+m:]
	defer clear(o.coding) // it keeps no blocks alive
	whole := true
	for role := range k {
		shards[role] = br.fresh[role]
		if shards[role] == nil {
			shards[role] = x.latest(role)
		}
		whole = whole && shards[role] != nil
	}
	for role := k; role < k+m; role++ {
		if old := x.latest(role); whole || old == nil {
			br.fresh[role] = make([]byte, BlockBytes)
		} else {
			br.fresh[role] = slices.Clone(old)
		}
		shards[role] = br.fresh[role]
	}
	if whole {
		o.code.Encode(shards)
		return
	}
	for role := range k {
		if br.fresh[role] != nil {
			old[role] = x.latest(role)
		}
	}
	o.code.Delta(old, br.fresh, br.fresh[k:])
}

// partsOf returns the participants: the disks of the touched data blocks and of all m parities of each row, as far as they are
// in W or J, and notes them in the batch. A parity that does not change takes part too: without it the loss of the data disk would hide
// the batch (B: C24).
func (o *Owner) partsOf(b *batch) DiskSet {
	for i := range b.rows {
		br := &b.rows[i]
		for role, block := range br.fresh {
			if block == nil || mutated("C24b") && role >= o.v.Layout.K && slices.Equal(block, br.row.latest(role)) {
				continue
			}
			if x := o.diskOf(br.row.key, role); x.inW || x.inJ {
				if x.partSeq != b.seq {
					x.partSeq, x.partBlocks = b.seq, 0
				}
				x.partBlocks++
			}
		}
	}
	f := &o.forming
	f.parts = f.parts[:0]
	for _, x := range o.disks {
		if x.partSeq == b.seq {
			f.parts = append(f.parts, x.id)
			b.disks = append(b.disks, x)
		}
	}
	return f.set(f.parts)
}

// sendBatch makes a record for each participant and sends it. The batch id is the same in all.
func (o *Owner) sendBatch(b *batch) {
	bid := o.newBID()
	reqs := o.forming.headers(len(b.reqs))
	for i, r := range b.reqs {
		reqs[i] = r.req
		reqs[i].AgeUs += uint32(min((o.now-r.atNs)/1000, 1<<30))
	}
	for _, x := range b.disks {
		if mutated("C24a") {
			bid = o.newBID()
		}
		x.part = newPrepare(x.partBlocks)
		x.part.rec = Record{Epoch: o.epoch, Seq: b.seq, BID: bid, Commit: o.commit, Parts: b.parts, Reqs: reqs, Blocks: x.part.rec.Blocks}
	}
	for i := range b.rows {
		br := &b.rows[i]
		for role, block := range br.fresh {
			if block == nil {
				continue
			}
			if x := o.diskOf(br.row.key, role); x.part != nil {
				rec := &x.part.rec
				rec.Blocks = append(rec.Blocks, Block{Extent: br.row.key.ext, Gen: o.geo.placement(br.row.key, role).Gen, No: br.row.key.no, Data: block})
			}
		}
	}
	for _, x := range b.disks {
		p := x.part
		x.part = nil
		o.prepare(x, p)
	}
}

// newBID returns a random id for a batch (splitmix64): two owners never give one name to two batches (B: C24).
func (o *Owner) newBID() uint64 {
	o.bids += 0x9E3779B97F4A7C15
	z := o.bids
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
