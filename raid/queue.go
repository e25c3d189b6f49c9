package raid

import "slices"

// request is an admitted read or write.
type request struct {
	token    uint64
	order    uint64 // admission number
	write    bool
	blocks   [][]byte // write, by span: a copy of a block that is overwritten whole, which becomes the block itself; else nil
	data     []byte   // write: a copy of everything, if some block is overwritten in part
	bytes    int
	spans    []span
	rows     []*row // of the spans, held by refs
	req      ReqHeader
	atNs     int64
	mute     bool // answered no more
	settled  bool // read: earlier writes of its rows have seqs; wait for waitSeq
	waitSeq  Seq  // read: may run when commit has reached it
	heldPass uint64
}

// queue is the order of admission. Writes wait here until they have a seq, reads until their bytes are there.
type queue struct {
	order    uint64
	writes   []*request // no seq yet
	reads    []*request
	open     []uint64 // admission numbers of writes that are not finished, ascending
	barriers []barrier
	bytes    int
	dirty    bool // something changed that may let writes go on
	pass     uint64
	free     []*request // finished ones, to be used again
}

// freeMax bounds the finished requests that are kept: a burst of all that a few initiators may have in flight.
const freeMax = 1024

// take returns an empty request.
func (q *queue) take() *request {
	n := len(q.free)
	if n == 0 {
		return &request{}
	}
	r := q.free[n-1]
	q.free = q.free[:n-1]
	return r
}

// give keeps a request that nobody holds any more, with the room it has.
func (q *queue) give(r *request) {
	if len(q.free) >= freeMax {
		return
	}
	clear(r.rows)
	clear(r.blocks)
	*r = request{spans: r.spans[:0], rows: r.rows[:0], blocks: r.blocks[:0], data: r.data[:0]}
	q.free = append(q.free, r)
}

type barrier struct {
	token uint64
	order uint64
}

// Admitting reports whether requests are taken. Where it is false the caller drops frames silently: the initiator asks again.
func (o *Owner) Admitting() bool {
	if o.state != OwnerActive || o.releasing || o.suspendedNs != 0 || o.queue.bytes >= o.cfg.QueueBytesMax {
		return false
	}
	return o.chained()
}

// AdmittingReads reports whether reads are taken: also while the volume is suspended for a disk that may not leave, since
// what k in-sync disks can serve goes on (A.4.4).
func (o *Owner) AdmittingReads() bool {
	return o.state == OwnerActive && !o.releasing && o.queue.bytes < o.cfg.QueueBytesMax && o.chained()
}

// chained reports whether every disk of W has told where its chain ends; before that no record can be made for it.
func (o *Owner) chained() bool {
	for _, x := range o.disks {
		if x.inW && !x.chained {
			return false
		}
	}
	return true
}

// Write admits a write. Its place in the order of all frames that touch the same sectors is fixed here (A.4.1).
func (o *Owner) Write(nowNs int64, io *IO) {
	o.tick(nowNs)
	r := o.admit(io, o.Admitting())
	if r == nil {
		return
	}
	r.write = true
	r.keep(io.Data)
	o.queue.writes = append(o.queue.writes, r)
	o.queue.open = append(o.queue.open, r.order)
	for i, x := range r.rows {
		if i == 0 || r.rows[i-1] != x {
			x.queued = append(x.queued, r.order)
		}
	}
	o.queue.dirty = true
}

// keep copies a write's data, each byte once where whole blocks are written.
func (r *request) keep(data []byte) {
	partly := false
	for _, s := range r.spans {
		if s.n == BlockBytes {
			r.blocks = append(r.blocks, slices.Clone(data[s.at:s.at+s.n]))
			continue
		}
		r.blocks, partly = append(r.blocks, nil), true
	}
	if partly {
		r.data = append(r.data, data...)
	}
}

// Read admits a read. It sees every write admitted before it, and nothing that is not committed.
func (o *Owner) Read(nowNs int64, io *IO) {
	o.tick(nowNs)
	if r := o.admit(io, o.AdmittingReads()); r != nil {
		o.queue.reads = append(o.queue.reads, r)
	}
}

func (o *Owner) admit(io *IO, open bool) *request {
	if !open {
		o.fx.Done = append(o.fx.Done, Completion{Token: io.Token, Kind: DoneDropped})
		return nil
	}
	o.cfg.Pace.used(o.now)
	o.queue.order++
	r := o.queue.take()
	r.token, r.order, r.bytes, r.req, r.atNs = io.Token, o.queue.order, io.Bytes, io.Req, o.now
	r.spans = o.geo.spans(r.spans, io.Offset, io.Bytes)
	for _, s := range r.spans {
		x := o.cache.get(s.key)
		x.refs++
		r.rows = append(r.rows, x)
	}
	o.queue.bytes += io.Bytes
	return r
}

// Barrier asks to be told when every write admitted before it is committed or was dropped (A.4.8; FLUSH).
func (o *Owner) Barrier(nowNs int64, token uint64) {
	o.tick(nowNs)
	if o.state != OwnerActive {
		o.fx.Done = append(o.fx.Done, Completion{Token: token, Kind: DoneDropped})
		return
	}
	o.queue.barriers = append(o.queue.barriers, barrier{token, o.queue.order})
}

func (o *Owner) barriers() {
	q := &o.queue
	for len(q.barriers) > 0 && (len(q.open) == 0 || q.open[0] > q.barriers[0].order || mutated("C19")) {
		if o.suspendedNs != 0 { // no control request is answered while suspended (A.4.4)
			return
		}
		o.fx.Done = append(o.fx.Done, Completion{Token: q.barriers[0].token, Kind: DoneBarrier})
		q.barriers = q.barriers[1:]
	}
}

// finish ends a request and lets go of its rows. It must not be used after that: it becomes another one.
func (o *Owner) finish(r *request, kind DoneKind, data [][]byte) {
	for _, x := range r.rows {
		x.refs--
	}
	o.queue.bytes -= r.bytes
	if r.write {
		i, ok := slices.BinarySearch(o.queue.open, r.order)
		if !ok {
			panic("raid: a write was finished twice")
		}
		o.queue.open = slices.Delete(o.queue.open, i, i+1)
	}
	o.fx.Done = append(o.fx.Done, Completion{Token: r.token, Kind: kind, Data: data})
	o.queue.give(r)
}

// leaveQueue takes a write off its rows' lists: it has a seq now, or never will.
func (o *Owner) leaveQueue(r *request) {
	for i, x := range r.rows {
		if i > 0 && r.rows[i-1] == x {
			continue
		}
		if j, ok := slices.BinarySearch(x.queued, r.order); ok {
			x.queued = slices.Delete(x.queued, j, j+1)
		}
	}
}

// DropQueued forgets every request that has no seq yet, for instance because the lease is not valid (A.4.10).
func (o *Owner) DropQueued(nowNs int64) {
	o.tick(nowNs)
	o.dropQueued()
}

func (o *Owner) dropQueued() {
	o.dropQueuedWrites()
	for _, r := range o.queue.reads {
		o.finish(r, DoneDropped, nil)
	}
	clear(o.queue.reads)
	o.queue.reads = o.queue.reads[:0]
	o.dropVerifying()
}

func (o *Owner) dropQueuedWrites() {
	for _, r := range o.queue.writes {
		o.leaveQueue(r)
		o.finish(r, DoneDropped, nil)
	}
	clear(o.queue.writes)
	o.queue.writes = o.queue.writes[:0]
}

// dropAll ends everything at death: what has a seq may still be committed by the next owner, but not answered by this one.
func (o *Owner) dropAll() {
	o.dropQueued()
	for _, b := range o.batches {
		for _, r := range b.reqs {
			o.finish(r, DoneMuted, nil)
		}
	}
	for _, b := range o.queue.barriers {
		o.fx.Done = append(o.fx.Done, Completion{Token: b.token, Kind: DoneDropped})
	}
	o.batches, o.queue.barriers, o.joins, o.repairs = nil, nil, nil, nil
}

// Mute says that what has a seq by now is not to be answered any more when it is committed: the lease was not valid for so long that
// the initiator has repeated it, or has given its tag to another request (A.4.1).
func (o *Owner) Mute(nowNs int64) {
	o.tick(nowNs)
	o.muteInFlight()
}

// muteInFlight marks what has a seq as not to be answered any more.
func (o *Owner) muteInFlight() {
	for _, b := range o.batches {
		for _, r := range b.reqs {
			r.mute = true
		}
	}
}
