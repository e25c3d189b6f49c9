package raid

import "slices"

// verifier asks disks whether the epoch still holds, for volumes whose reads must not rest on the lease alone (A.2 Strict
// lease, B: C18): a clock that stood still cannot make such a read stale, since every later owner has fenced one of the disks
// that answered.
type verifier struct {
	round   uint64 // id of the latest round; 0: none yet
	startNs int64
	heard   map[DiskID]uint64 // the latest round that a disk has answered
	reads   []verifyRead      // wait for answers to their round or a later one
	next    []*request        // wait for the next round
}

type verifyRead struct {
	r     *request
	round uint64 // began after the read arrived
}

// verifyAgainNs is when a round is asked again: its answers may have been lost with a stream. Late ones count all the same,
// or disks that are slower than this would never confirm anything.
const verifyAgainNs = 100 * ms

// verify completes a read whose bytes are there when enough disks have confirmed the epoch after it arrived.
func (o *Owner) verify(r *request) { o.verifying.next = append(o.verifying.next, r) }

// verifyStep begins a round for the reads that wait.
func (o *Owner) verifyStep() {
	v := &o.verifying
	if len(v.reads)+len(v.next) == 0 || len(v.reads) > 0 && o.now-v.startNs < verifyAgainNs {
		return
	}
	v.round, v.startNs = o.newID(), o.now
	for _, r := range v.next {
		v.reads = append(v.reads, verifyRead{r, v.round})
	}
	clear(v.next)
	v.next = v.next[:0]
	for _, x := range o.disks {
		if x.inW && x.started {
			o.send(x, &DiskRequest{Kind: ReqVerify, ID: v.round})
		}
	}
}

// verified takes a disk's confirmation.
func (o *Owner) verified(x *disk, r *DiskReply) {
	v := &o.verifying
	if r.ID > v.round || r.ID <= v.heard[x.id] {
		return
	}
	if v.heard == nil {
		v.heard = map[DiskID]uint64{}
	}
	v.heard[x.id] = r.ID
	v.reads = slices.DeleteFunc(v.reads, func(w verifyRead) bool {
		for _, s := range w.r.spans {
			if !o.confirmed(s.key.ext, w.round) {
				return false
			}
		}
		o.finish(w.r, DoneRead, o.gather(w.r))
		return true
	})
}

// confirmed reports whether so many disks of an extent have answered a round, or a later one, that k others are not left for a
// later owner to fence.
func (o *Owner) confirmed(ext uint32, round uint64) bool {
	inW, heard := 0, 0
	for _, p := range o.geo.extents[ext].Shards {
		if x := o.disk(p.Disk); x.inW {
			inW++
			if o.verifying.heard[p.Disk] >= round {
				heard++
			}
		}
	}
	return heard >= inW-o.v.Layout.K+1
}

// dropVerifying ends the reads that wait for a round.
func (o *Owner) dropVerifying() {
	v := &o.verifying
	for _, w := range v.reads {
		o.finish(w.r, DoneDropped, nil)
	}
	for _, r := range v.next {
		o.finish(r, DoneDropped, nil)
	}
	v.reads, v.next = nil, nil
}
