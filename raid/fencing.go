package raid

import (
	"cmp"
	"slices"
)

// fencing is what a new owner learns before its Activate: the reports of the fenced disks (A.4 FENCING).
type fencing struct {
	startNs    int64
	alive      DiskSet
	aliveKnown bool
	reports    []diskReport // by disk, sorted
	choice     *choice      // proposed
}

type diskReport struct {
	disk DiskID
	gone bool
	rep  *Report
}

// choice is what an Activate is made of.
type choice struct {
	f, liars DiskSet
	c0, end  Seq
	forced   bool
}

func (f *fencing) start(nowNs int64) { f.startNs = nowNs }

func (f *fencing) of(d DiskID) *diskReport {
	for i := range f.reports {
		if f.reports[i].disk == d {
			return &f.reports[i]
		}
	}
	return nil
}

// giveUpNs is how long a candidate with fewer than k disks of some extent holds on before another may try (B: L7).
const giveUpNs = 5 * second

// retryNs is when a Fence or Start without an answer is sent again: a node may learn of the volume later than its owner.
const retryNs = 200 * ms

func (o *Owner) sendFence(x *disk) {
	m := o.v.Member(x.id)
	x.askedNs = o.now
	o.send(x, &DiskRequest{Kind: ReqFence, ID: o.newID(), Since: m.Since, Shards: o.v.ShardsOn(x.id)})
}

func (o *Owner) fenceReply(x *disk, r *DiskReply) {
	switch {
	case r.Kind == RepReport && r.Report != nil:
	case r.Kind == RepNack && r.Nack == NackGone:
	default:
		return
	}
	if r.Report != nil {
		slices.SortStableFunc(r.Report.Records, func(a, b RecordID) int { return cmp.Compare(a.Seq, b.Seq) }) // they are; at looks them up
	}
	if old := o.fence.of(x.id); old != nil {
		old.gone, old.rep = r.Kind == RepNack, r.Report
		return
	}
	o.fence.reports = append(o.fence.reports, diskReport{disk: x.id, gone: r.Kind == RepNack, rep: r.Report})
	slices.SortFunc(o.fence.reports, func(a, b diskReport) int { return int(a.disk) - int(b.disk) })
}

// fencingStep asks again where there was no answer, and proposes Activate when enough is known.
func (o *Owner) fencingStep() {
	for _, x := range o.disks {
		if x.up && o.fence.of(x.id) == nil && (x.askedNs == 0 || o.now-x.askedNs >= retryNs) {
			o.sendFence(x)
		}
	}
	if o.v.Active || !o.mayPropose() {
		return
	}
	insync := o.v.InSync()
	heard, waiting := DiskSet{}, false
	for _, d := range insync {
		r := o.fence.of(d)
		switch {
		case r != nil && !r.gone:
			heard = append(heard, d)
		case r == nil && (!o.fence.aliveKnown || o.fence.alive.Has(d)) && !o.disk(d).nodeDead:
			waiting = true
		}
	}
	waited := o.now - o.fence.startNs
	if !o.v.EveryExtentKeeps(heard) {
		if waited >= giveUpNs {
			o.die("fewer than k in-sync disks of an extent answered the fence")
		}
		return
	}
	if waiting && waited < o.cfg.FenceWaitNs {
		return
	}
	c := reconcile(o.v, o.fence.reports)
	if c == nil {
		if waited >= giveUpNs {
			o.die("fewer than k trustworthy in-sync disks of an extent answered the fence")
		}
		return
	}
	o.fence.choice = c
	f, s := c.f, c.c0
	if mutated("KEEP_UNREACHED") {
		f = insync
	}
	if mutated("S_END") {
		s = c.end
	}
	z := c.liars
	if mutated("C32") {
		z = nil
	}
	o.propose(VolumeCommand{Kind: CmdActivate, F: f, Z: z, C0: s, End: c.end})
}

// reconcile decides from the reports who is kept and where the former epoch ends; nil when fewer than k disks of an extent
// can be trusted. It is the safe heart of a takeover: no batch at or below c0 is ever cut, what is above is kept whole or
// dropped whole (B: C1, C2, C15, L6).
func reconcile(v *Volume, reports []diskReport) *choice {
	insync := v.InSync()
	var in []diskReport
	c := &choice{forced: v.Forced}
	for _, r := range reports {
		if !r.gone && r.rep != nil && insync.Has(r.disk) {
			in = append(in, r)
			if (v.Forced || !r.rep.Damaged) && r.rep.Commit > c.c0 {
				c.c0 = r.rep.Commit
			}
		}
	}
	if !v.Forced && !mutated("C15a") {
		c.liars = liars(v, in, c.c0)
	}
	f1, f2 := DiskSet{}, DiskSet{}
	for _, r := range in {
		if c.liars.Has(r.disk) {
			continue
		}
		f1 = append(f1, r.disk)
		if r.rep.BootStart == r.rep.BootNow {
			f2 = append(f2, r.disk)
		}
	}
	if !v.EveryExtentKeeps(f1) {
		return nil
	}
	c.f, c.end = f1, endOf(v, in, f1, c.c0)
	if len(f2) < len(f1) && v.EveryExtentKeeps(f2) && !mutated("C15b") {
		// A disk whose host rebooted may have lost a cache: leave it out rather than cut what others kept (B: C15b).
		if end := endOf(v, in, f2, c.c0); end > c.end {
			c.f, c.end = f2, end
		}
	}
	return c
}

// liars returns the disks that are damaged, or lack a batch at or below c0 of which another disk's report says that they are
// participants (B: C15a).
func liars(v *Volume, in []diskReport, c0 Seq) DiskSet {
	var out DiskSet
	for _, r := range in {
		if r.rep.Damaged || lacksCommitted(v, in, r, c0) {
			out = append(out, r.disk)
		}
	}
	return out
}

func lacksCommitted(v *Volume, in []diskReport, r diskReport, c0 Seq) bool {
	for _, other := range in {
		if other.disk == r.disk {
			continue
		}
		for _, id := range other.rep.Records {
			if id.Seq <= c0 && counts(v, other.rep, id) && id.Parts.Has(r.disk) && id.Seq > r.rep.Applied && id.Seq > r.rep.Base && !hasSeq(r.rep, id) {
				return true
			}
		}
	}
	return false
}

func hasSeq(rep *Report, id RecordID) bool {
	for _, have := range rep.at(id.Seq) {
		if have.Epoch == id.Epoch && have.BID == id.BID {
			return true
		}
	}
	return false
}

// at returns the records with a seq.
func (r *Report) at(n Seq) []RecordID {
	bySeq := func(a RecordID, n Seq) int { return cmp.Compare(a.Seq, n) }
	from, _ := slices.BinarySearchFunc(r.Records, n, bySeq)
	to := from
	for to < len(r.Records) && r.Records[to].Seq == n {
		to++
	}
	return r.Records[from:to]
}

// endOf returns the last seq of the longest run after c0 in which every participant among f reports the same batch.
func endOf(v *Volume, in []diskReport, f DiskSet, c0 Seq) Seq {
	end := c0
	for {
		id, ok := newestAt(v, in, f, end+1)
		if !ok {
			return end
		}
		for _, r := range in {
			if f.Has(r.disk) && id.Parts.Has(r.disk) && !reportsCounted(v, r, id) {
				return end
			}
		}
		end++
	}
}

// newestAt returns the record at seq n with the highest epoch in the reports of f.
func newestAt(v *Volume, in []diskReport, f DiskSet, n Seq) (RecordID, bool) {
	var best RecordID
	found := false
	for _, r := range in {
		if !f.Has(r.disk) {
			continue
		}
		for _, id := range r.rep.at(n) {
			if counts(v, r.rep, id) && (!found || id.Epoch > best.Epoch) {
				best, found = id, true
			}
		}
	}
	return best, found
}

func reportsCounted(v *Volume, r diskReport, id RecordID) bool {
	for _, have := range r.rep.at(id.Seq) {
		if have.Epoch == id.Epoch && have.BID == id.BID && counts(v, r.rep, have) {
			return true
		}
	}
	return false
}

// counts says whether a reported record may be part of the history: those that a later Activate declared void are ignored,
// though the disk that holds them has not met that Activate's Start yet (B: C10b).
func counts(v *Volume, rep *Report, id RecordID) bool {
	if mutated("RECON_NOHIST") {
		return true
	}
	if id.Epoch < rep.Start {
		return true
	}
	end, closed := EndOf(v.Hist, id.Epoch)
	return !closed || id.Seq <= end
}

// activate begins ACTIVE once the one command that ends the takeover has been applied.
func (o *Owner) activate() {
	f := o.v.InSync()
	end := Seq(0)
	if e, ok := EndOf(o.v.Hist, o.epoch-1); ok {
		end = e
	}
	if c := o.fence.choice; c == nil || end != c.end && o.epoch > 1 {
		o.die("somebody else activated this epoch")
		return
	}
	o.state, o.end, o.commit, o.next, o.commitMoved = OwnerActive, end, end, end+1, o.now
	o.forced = o.fence.choice.forced
	for _, x := range o.disks {
		x.inW = f.Has(x.id)
		x.forgive = x.inW && o.forced
		if x.up {
			o.openStream(x)
		} else {
			x.downNs = o.now
		}
	}
	o.rollForward(f)
	o.fence.reports = nil
	o.event(OwnerEvent{Kind: EventActive, Disks: f})
}

// rollForward names the writes that were kept, for whoever received their Prepare lately (A.4.12).
func (o *Owner) rollForward(f DiskSet) {
	type name struct {
		epoch Epoch
		seq   Seq
		bid   uint64
	}
	done := map[name]bool{}
	for _, r := range o.fence.reports {
		if r.gone || !f.Has(r.disk) {
			continue
		}
		for _, id := range r.rep.Records {
			n := name{id.Epoch, id.Seq, id.BID}
			if id.Seq > o.end || done[n] || !counts(o.v, r.rep, id) {
				continue
			}
			done[n] = true
			for _, req := range id.Reqs {
				o.fx.Forward = append(o.fx.Forward, RolledForward{ID: id, Req: req})
			}
		}
	}
}
