package raid

import "slices"

// verifier asks disks whether the epoch still holds, for volumes whose reads must not rest on the lease alone (A.2 Strict
// lease, B: C18): a clock that stood still cannot make such a read stale, since every later owner has fenced one of the disks
// that answered.
type verifier struct {
	round   uint64 // id of the round under way; 0: none
	startNs int64
	heard   []DiskID
	reads   []*request // wait for this round: they arrived before it began
	next    []*request // wait for the next one
}

// verifyAgainNs is when a round is asked again: its answers may have been lost with a stream.
const verifyAgainNs = 100 * ms

// verify completes a read whose bytes are there when enough disks have confirmed the epoch after it arrived.
func (o *Owner) verify(r *request) { o.verifying.next = append(o.verifying.next, r) }

// verifyStep begins a round for the reads that wait.
func (o *Owner) verifyStep() {
	v := &o.verifying
	switch {
	case v.round != 0 && o.now-v.startNs < verifyAgainNs:
		return
	case v.round != 0:
		v.next = append(v.reads, v.next...)
	case len(v.next) == 0:
		return
	}
	v.round, v.startNs, v.heard = o.newID(), o.now, nil
	v.reads, v.next = v.next, nil
	for _, x := range o.disks {
		if x.inW && x.started {
			o.send(x, &DiskRequest{Kind: ReqVerify, ID: v.round})
		}
	}
}

// verified takes a disk's confirmation.
func (o *Owner) verified(x *disk, r *DiskReply) {
	v := &o.verifying
	if r.ID != v.round || v.round == 0 || slices.Contains(v.heard, x.id) {
		return
	}
	v.heard = append(v.heard, x.id)
	v.reads = slices.DeleteFunc(v.reads, func(r *request) bool {
		for _, s := range r.spans {
			if !o.confirmed(s.key.ext) {
				return false
			}
		}
		o.finish(r, DoneRead, o.gather(r))
		return true
	})
	if len(v.reads) == 0 {
		v.round = 0
	}
}

// confirmed reports whether so many disks of an extent have answered that k others are not left for a later owner to fence.
func (o *Owner) confirmed(ext uint32) bool {
	inW, heard := 0, 0
	for _, p := range o.geo.extents[ext].Shards {
		if x := o.disk(p.Disk); x.inW {
			inW++
			if slices.Contains(o.verifying.heard, p.Disk) {
				heard++
			}
		}
	}
	return heard >= inW-o.v.Layout.K+1
}

// dropVerifying ends the reads that wait for a round.
func (o *Owner) dropVerifying() {
	v := &o.verifying
	for _, r := range append(v.reads, v.next...) {
		o.finish(r, DoneDropped, nil)
	}
	*v = verifier{}
}
