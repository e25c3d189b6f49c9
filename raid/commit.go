package raid

import (
	"fmt"
	"slices"
)

// settle commits what can be: batch commit+1 when every part of it that is in W now has acknowledged it (A.4.3).
func (o *Owner) settle() {
	for len(o.batches) > 0 {
		b := o.batches[0]
		heard := 0
		for _, x := range b.disks {
			if !x.inW {
				continue
			}
			if x.acked < b.seq {
				return
			}
			heard++
		}
		if heard == 0 {
			// I12: the guard of Stale keeps k of every extent in-sync and every row's parities are parts, so one is left.
			panic(fmt.Sprintf("raid: volume %d epoch %d: batch %d has no part left in W", o.v.ID, o.epoch, b.seq))
		}
		o.batches = slices.Delete(o.batches, 0, 1)
		o.committed(b)
		o.forming.give(b)
	}
}

// committed makes a batch visible: parts learn it with their next message, reads see it, initiators are answered.
func (o *Owner) committed(b *batch) {
	if b.seq != o.commit+1 {
		panic(fmt.Sprintf("raid: volume %d epoch %d: commit %d after %d", o.v.ID, o.epoch, b.seq, o.commit))
	}
	o.commit, o.commitMoved = b.seq, o.now
	for _, x := range b.disks {
		if (x.inW || x.inJ) && b.seq >= x.from {
			x.touch = b.seq
		}
	}
	for _, br := range b.rows {
		for role, block := range br.fresh {
			if block != nil {
				o.cache.install(br.row, role, block)
			}
		}
		br.row.commSeq = b.seq
		if br.row.pendSeq == b.seq {
			clear(br.row.pend)
		}
		o.landed(br.row.key.region())
	}
	for _, r := range b.reqs {
		kind := DoneWrite
		if r.mute {
			kind = DoneMuted
		}
		o.finish(r, kind, nil)
	}
	o.queue.dirty = true
}
