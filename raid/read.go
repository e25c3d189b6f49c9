package raid

import (
	"cmp"
	"slices"
)

// readers are the reads under way to disks: for rows of the cache (fetch) and for whole regions (copyJob).
type readers struct {
	under  outs
	want   []readWant // to be sent this turn
	sends  []*readOut // what becomes of them
	stuck  []*fetch   // too few disks at the moment
	failed []*fetch   // too few good blocks: their requests end after the turn's loops
	ending []*readOut // not under way any more, and being gone through
	free   readFree
}

// fetch brings missing committed blocks of one row into the cache: straight from their disks, or rebuilt from k others, all
// as of one committed seq (A.4.6).
type fetch struct {
	row     *row
	want    roles
	more    roles // asked for while it was under way
	src     roles
	bad     roles // BadBlock: their disk has nothing to say
	got     [][]byte
	asOf    Seq
	tooNew  bool // a reply's region had changed in place after asOf
	decode  bool
	waiting int
	tries   int
	locked  bool
}

// fetchRow starts to bring the wanted roles of a row into the cache.
func (o *Owner) fetchRow(x *row, want roles) {
	if x.fetch != nil {
		x.fetch.more |= want
		return
	}
	x.fetch = o.reads.free.fetch(o.v.Layout.Width())
	x.fetch.row, x.fetch.want = x, want
	x.refs++
	o.planFetch(x.fetch)
}

// diskOf returns the disk on which the block of a role in a row lies. Where shards lie does not change while an owner lives.
func (o *Owner) diskOf(key rowKey, role int) *disk {
	return o.places[int(key.ext)*o.v.Layout.Width()+o.geo.position(key.no/BlocksPerRegion, role)]
}

// usable reports whether a fetch may ask the disk of a role.
func (o *Owner) usable(f *fetch, role int) bool {
	x := o.diskOf(f.row.key, role)
	return !f.bad.has(role) && x.readable() && x.readFailed <= o.now
}

// sources returns the roles to read for a fetch, and whether the wanted blocks have to be rebuilt; ok is false when too few
// disks can be asked now.
func (o *Owner) sources(f *fetch) (src roles, decode, ok bool) {
	direct := true
	for role := range o.v.Layout.Width() {
		if f.want.has(role) && !o.usable(f, role) {
			direct = false
		}
	}
	if direct {
		return f.want, false, true
	}
	have := 0
	for _, b := range f.row.comm {
		if b != nil {
			have++
		}
	}
	for _, local := range []bool{true, false} {
		for role := range o.v.Layout.Width() {
			d := o.geo.placement(f.row.key, role).Disk
			if have < o.v.Layout.K && f.row.comm[role] == nil && o.cfg.Local.Has(d) == local && o.usable(f, role) {
				src = src.with(role)
				have++
			}
		}
	}
	return src, true, have >= o.v.Layout.K
}

// planFetch chooses whom to ask, as of the present commit point.
func (o *Owner) planFetch(f *fetch) {
	src, decode, ok := o.sources(f)
	if !ok {
		if o.exhausted(f) {
			o.reads.failed = append(o.reads.failed, f)
			return
		}
		o.reads.stuck = append(o.reads.stuck, f)
		return
	}
	f.src, f.decode, f.asOf, f.tooNew, f.waiting = src, decode, o.commit, false, 0
	clear(f.got)
	for role := range o.v.Layout.Width() {
		if src.has(role) {
			f.waiting++
			o.reads.want = append(o.reads.want, readWant{f: f, x: o.diskOf(f.row.key, role), key: f.row.key, role: role})
		}
	}
	if f.waiting == 0 {
		o.fetched(f)
	}
}

// exhausted reports whether every in-sync disk of the row has had its say: only then is the row unreadable.
func (o *Owner) exhausted(f *fetch) bool {
	for role := range o.v.Layout.Width() {
		x := o.diskOf(f.row.key, role)
		if !f.bad.has(role) && f.row.comm[role] == nil && x.inSync && !o.usable(f, role) {
			return false
		}
	}
	return true
}

// fetched goes on when all that was asked has answered.
func (o *Owner) fetched(f *fetch) {
	x := f.row
	if f.src&f.bad != 0 {
		o.planFetch(f)
		return
	}
	if f.decode && (f.tooNew || x.commSeq > f.asOf) && !mutated("READ_MIX") {
		o.fetchAgain(f)
		return
	}
	if f.decode {
		for role, b := range x.comm {
			if b != nil {
				f.got[role] = b
			}
		}
		o.code.Rebuild(f.got, f.want)
	}
	for role, b := range f.got {
		// A block that a batch has installed since is newer than what was read as of asOf (A.4.2).
		if b != nil && x.comm[role] == nil {
			o.cache.install(x, role, b)
		}
	}
	o.fetchDone(f)
	for role := range o.v.Layout.Width() {
		if f.bad.has(role) {
			o.repair(x.key, role)
		}
	}
}

// fetchAgain reads once more at a newer seq; the third time under the region's lock, so that it cannot go on for ever.
func (o *Owner) fetchAgain(f *fetch) {
	f.tries++
	if f.tries < 2 || f.locked {
		o.planFetch(f)
		return
	}
	o.lock(f.row.key.region(), func() {
		f.locked = true
		o.planFetch(f)
	})
}

func (o *Owner) fetchDone(f *fetch) {
	x := f.row
	x.fetch = nil
	x.refs--
	o.reads.free.endedFetches = append(o.reads.free.endedFetches, f)
	o.queue.dirty = true
	if f.locked {
		o.unlock(x.key.region())
	}
	var again roles
	for role := range o.v.Layout.Width() {
		if f.more.has(role) && x.comm[role] == nil {
			again = again.with(role)
		}
	}
	if again != 0 {
		o.fetchRow(x, again)
	}
}

// endFailed ends the requests that need a row of which fewer than k good blocks are left: the one case of ATA UNC.
func (o *Owner) endFailed() {
	if len(o.reads.failed) == 0 {
		return
	}
	for len(o.reads.failed) > 0 {
		f := o.reads.failed[0]
		o.reads.failed = o.reads.failed[1:]
		o.fetchFailed(f)
	}
	o.form() // what waited behind them, or needs nothing old
	o.sendReads()
}

func (o *Owner) fetchFailed(f *fetch) {
	x := f.row
	f.more = 0
	o.fetchDone(f)
	o.event(OwnerEvent{Kind: EventUnreadable, Text: rowText(o, x.key)})
	o.queue.reads = slices.DeleteFunc(o.queue.reads, func(r *request) bool {
		for i, s := range r.spans {
			if r.rows[i] == x && f.want.has(s.role) && x.comm[s.role] == nil {
				o.finish(r, DoneUnreadable, nil)
				return true
			}
		}
		return false
	})
	x.lost = 0
	for role := range o.v.Layout.Width() {
		if x.comm[role] == nil && !o.usable(f, role) {
			x.lost = x.lost.with(role)
		}
	}
	if !o.needsLost(x, o.candidates()...) {
		return
	}
	o.queue.writes = slices.DeleteFunc(o.queue.writes, func(r *request) bool {
		if !slices.Contains(r.rows, x) || !o.needsLost(x, r) {
			return false
		}
		o.leaveQueue(r)
		o.finish(r, DoneUnreadable, nil)
		return true
	})
}

// needsLost reports whether writes, taken together, need lost blocks of a row. Those that overwrite them do not, and the row is
// good again afterwards.
func (o *Owner) needsLost(x *row, writes ...*request) bool {
	o.queue.pass++
	for _, r := range writes {
		o.coverRows(r, o.queue.pass)
	}
	return x.pass == o.queue.pass && o.oldNeeded(x)&x.lost != 0
}

// readReply takes the blocks of one Read.
func (o *Owner) readReply(x *disk, r *DiskReply) {
	out := o.reads.under.take(x, r.ID)
	if out == nil {
		return
	}
	if out.copy != nil {
		x.readFailed = 0
		o.copyRead(out, r)
		return
	}
	if !out.fits(r) { // it would say the same at once if it were asked at once
		x.readFailed = o.now + second
		o.requeue(out)
		return
	}
	x.readFailed = 0
	o.reads.ending = append(o.reads.ending, out)
	for i := range out.fetches {
		w := &out.fetches[i]
		b := r.Blocks[i]
		switch {
		case w.f == nil: // planned anew, perhaps because of a block before it
			continue
		case b == nil:
			w.f.bad = w.f.bad.with(w.role)
		case len(b) != BlockBytes, r.R > o.commit: // nothing above the commit point is ever in place: it would never be old enough
			w.f.bad = w.f.bad.with(w.role)
		default:
			w.f.got[w.role] = b
		}
		if r.R > w.f.asOf {
			w.f.tooNew = true
		}
		o.oneFewer(w.f)
	}
	o.ended(out)
}

// ended lets go of the Read that was gone through last.
func (o *Owner) ended(out *readOut) {
	o.reads.ending = o.reads.ending[:len(o.reads.ending)-1]
	o.reads.free.endedOuts = append(o.reads.free.endedOuts, out)
}

// fits reports whether a reply is about the blocks that were asked for: as many of them, from the same place.
func (out *readOut) fits(r *DiskReply) bool {
	n := len(out.fetches)
	if out.copy != nil {
		n = int(out.copy.count)
	}
	return len(r.Blocks) == n && r.Extent == out.ext && r.First == out.first
}

func (o *Owner) oneFewer(f *fetch) {
	if f.waiting--; f.waiting == 0 {
		o.fetched(f)
	}
}

// requeue plans the fetches of a Read anew that will not be answered.
func (o *Owner) requeue(out *readOut) {
	if out.copy != nil {
		o.copySourceLost(out)
		return
	}
	o.reads.ending = append(o.reads.ending, out)
	for i := range out.fetches {
		if f := out.fetches[i].f; f != nil {
			// Answers of the other sources of this plan would be mixed with the next plan's: forget them.
			o.forgetFetch(f)
			o.planFetch(f)
		}
	}
	o.ended(out)
}

// forgetFetch takes a fetch out of every Read that is under way for it.
func (o *Owner) forgetFetch(f *fetch) {
	o.reads.want = slices.DeleteFunc(o.reads.want, func(w readWant) bool { return w.f == f })
	for _, r := range o.reads.under.list {
		if r.out != nil {
			r.out.forget(f)
		}
	}
	for _, out := range o.reads.ending {
		out.forget(f)
	}
}

func (out *readOut) forget(f *fetch) {
	for i := range out.fetches {
		if out.fetches[i].f == f {
			out.fetches[i].f = nil
		}
	}
}

// readsLost goes elsewhere with everything that was asked of x.
func (o *Owner) readsLost(x *disk) {
	for _, out := range o.reads.under.all() {
		if out.x == x && o.reads.under.take(x, out.id) != nil {
			o.requeue(out)
		}
	}
	var again []*fetch
	for _, w := range o.reads.want {
		if w.x == x {
			again = append(again, w.f)
		}
	}
	for _, f := range again {
		o.forgetFetch(f)
		o.planFetch(f)
	}
}

// readStep sends what was planned, and looks for another source where a disk takes too long.
func (o *Owner) readStep() {
	stuck := o.reads.stuck
	o.reads.stuck = nil
	for _, f := range stuck {
		o.planFetch(f)
	}
	o.overdueReads()
	o.sendReads()
}

// overdueReads looks for another source for what a disk takes too long with.
func (o *Owner) overdueReads() {
	if out := o.reads.under.oldest(); out == nil || o.now-out.sentNs < min(o.cfg.ReadTimeoutNs, copyTimeoutNs) {
		return // nor is any that was sent after it
	}
	for _, out := range o.reads.under.all() {
		switch wait := o.now - out.sentNs; {
		case o.reads.under.find(out.x, out.id) < 0: // it has ended meanwhile
			continue
		case out.copy != nil: // it holds a region's lock: nobody may keep that for ever
			if wait > copyTimeoutNs {
				o.reads.under.take(out.x, out.id)
				o.copySourceLost(out)
			}
			continue
		case wait < o.cfg.ReadTimeoutNs:
			continue
		}
		if out.late { // as long as it owes this answer it is no other source for it
			out.x.readFailed = max(out.x.readFailed, o.now+1)
		} else {
			out.x.readFailed = o.now + second
		}
		if !o.otherSources(out) {
			out.late = true
			continue
		}
		o.reads.under.take(out.x, out.id)
		o.requeue(out)
	}
}

// copyTimeoutNs is how long a copy waits for one source before it looks for another, or gives up for now.
const copyTimeoutNs = 2 * second

func (o *Owner) otherSources(out *readOut) bool {
	for _, w := range out.fetches {
		if w.f == nil {
			continue
		}
		if _, _, ok := o.sources(w.f); !ok {
			return false
		}
	}
	return true
}

// sendReads merges neighbouring blocks of one disk and region into one Read.
func (o *Owner) sendReads() {
	if len(o.reads.want) == 0 {
		return
	}
	want, sends := o.reads.want, o.reads.sends[:0]
	slices.SortFunc(want, func(a, b readWant) int { // no two are alike
		if a.x != b.x {
			return cmp.Compare(a.x.id, b.x.id)
		}
		return cmp.Compare(uint64(a.key.ext)<<32|uint64(a.key.no), uint64(b.key.ext)<<32|uint64(b.key.no))
	})
	for i := 0; i < len(want); {
		a := &want[i]
		j := i + 1
		for j < len(want) && want[j].x == a.x && want[j].f.asOf == a.f.asOf && want[j].key.region() == a.key.region() &&
			want[j].key.no == a.key.no+uint32(j-i) {
			j++
		}
		out := o.reads.free.out()
		out.x, out.ext, out.first, out.role = a.x, a.key.ext, a.key.no, a.role
		out.fetches = append(out.fetches, want[i:j]...)
		sends = append(sends, out)
		i = j
	}
	var reqs []DiskRequest
	for i, out := range sends {
		if len(reqs) == 0 {
			reqs = make([]DiskRequest, min(len(sends)-i, readsTogether))
		}
		o.sendRead(out, &reqs[0], uint32(len(out.fetches)), out.fetches[0].f.asOf)
		reqs = reqs[1:]
	}
	clear(want)
	clear(sends)
	o.reads.want, o.reads.sends = want[:0], sends[:0]
}

// readsTogether is how many requests are made in one piece of memory: whoever keeps one keeps no more than that.
const readsTogether = 16

// sendRead sends a Read with r, which is empty. All its blocks have one role in one region.
func (o *Owner) sendRead(out *readOut, r *DiskRequest, count uint32, asOf Seq) {
	out.id, out.sentNs = o.newID(), o.now
	o.reads.under.add(out)
	*r = DiskRequest{Kind: ReqRead, ID: out.id, S: asOf, Touch: out.x.touch, Extent: out.ext,
		Gen: o.geo.placement(rowKey{out.ext, out.first}, out.role).Gen, First: out.first, Count: count}
	o.send(out.x, r)
}

func (o *Owner) genOn(d DiskID, ext uint32) uint64 {
	for _, p := range o.geo.extents[ext].Shards {
		if p.Disk == d {
			return p.Gen
		}
	}
	panic("raid: no shard of the extent on this disk")
}

// startReads completes the reads whose bytes are in the committed view and starts fetching for the others.
func (o *Owner) startReads() {
	done := false
	for i, r := range o.queue.reads {
		if !r.settled && !o.settleRead(r) || o.commit < r.waitSeq && !mutated("READ_UNCOMMITTED") {
			continue
		}
		ready := true
		for i, s := range r.spans {
			if x := r.rows[i]; o.visible(x, s.role) == nil {
				ready = false
				if x.fetch == nil || !x.fetch.want.has(s.role) {
					o.fetchRow(x, roles(0).with(s.role))
				}
			}
		}
		if ready {
			if o.cfg.Strict {
				o.verify(r)
			} else {
				o.finish(r, DoneRead, o.gather(r))
			}
			o.queue.reads[i] = nil
			done = true
		}
	}
	if done {
		o.queue.reads = slices.DeleteFunc(o.queue.reads, func(r *request) bool { return r == nil })
	}
}

// visible returns a block's committed version, or nil.
func (o *Owner) visible(x *row, role int) []byte {
	if mutated("READ_UNCOMMITTED") {
		return x.latest(role)
	}
	return x.comm[role]
}

// settleRead finds out what a read has to wait for: the writes of its rows that were admitted before it.
func (o *Owner) settleRead(r *request) bool {
	for _, x := range r.rows {
		if len(x.queued) > 0 && x.queued[0] < r.order {
			return false
		}
	}
	for i, s := range r.spans {
		if x := r.rows[i]; x.pend[s.role] != nil {
			r.waitSeq = max(r.waitSeq, x.pendSeq)
		}
	}
	r.settled = true
	return true
}

// gather returns a read's bytes, valid as long as the effects that they go into.
func (o *Owner) gather(r *request) [][]byte {
	at := len(o.fx.parts)
	for i, s := range r.spans {
		o.fx.parts = append(o.fx.parts, o.visible(r.rows[i], s.role)[s.off:s.off+s.n])
	}
	return o.fx.parts[at:len(o.fx.parts):len(o.fx.parts)]
}
