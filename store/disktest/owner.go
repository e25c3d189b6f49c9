package disktest

import (
	"fmt"
	"slices"

	"clade/raid"
)

// takeover fences the disk for the next epoch and, when it has reported, starts it. Outside of sync the disk stays stale.
func (h *History) takeover(v *volume) error {
	v.epoch++
	v.stream = 0
	if v.phase != inSync && v.phase != fencing && v.phase != starting {
		v.phase = stale
	}
	wasStale := v.phase == stale
	if !wasStale {
		v.phase = fencing
	}
	h.log("v%d takeover %d", v.id, v.epoch)
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqFence, Since: v.since, Shards: v.shards()}, func(r *raid.DiskReply) error {
		if err := expect(r, raid.RepReport); err != nil {
			return err
		}
		if r.Epoch != v.epoch {
			return nil
		}
		end := v.next - 1
		if !wasStale {
			r.Report.EndSeq = v.filter(r.Report)
			if err := h.judge(v, r.Report); err != nil {
				return err
			}
			end = v.commit
			if e := r.Report.EndSeq; e > end {
				end += raid.Seq(h.rng.IntN(int(e-end) + 1))
			}
		}
		h.log("v%d report %+v: end %d (commit %d acked %d told %d next %d)", v.id, *r.Report, end, v.commit, v.acked, v.told, v.next)
		v.cut(end)
		from := raid.Epoch(0)
		if n := len(v.hist); n > 0 {
			from = v.hist[n-1].To + 1
		}
		v.hist = append(v.hist, raid.HistRange{From: from, To: v.epoch - 1, End: end}) // of all epochs that were open
		v.commit, v.end = end, end
		if !wasStale {
			v.phase, v.since = starting, v.epoch
		}
		return h.start(v)
	})
}

func (h *History) takeoverSettled(v *volume) error {
	if v.phase == fencing || v.phase == starting {
		return nil
	}
	if h.rng.IntN(2) == 0 {
		if err := h.settle(); err != nil {
			return err
		}
	}
	return h.takeover(v)
}

// filter takes the records out of a report that history declares void, as an owner does before it believes one, and returns the
// endseq without them. They are there if the disk never got the Start that would have dropped them.
func (v *volume) filter(r *raid.Report) raid.Seq {
	r.Records = slices.DeleteFunc(r.Records, func(id raid.RecordID) bool {
		end, closed := raid.EndOf(v.hist, id.Epoch)
		return id.Epoch >= r.Start && closed && id.Seq > end
	})
	end := max(r.Applied, r.Base)
	for _, id := range r.Records {
		end = max(end, id.Seq)
	}
	return end
}

// judge compares a report with what the disk has acknowledged: nothing acknowledged is missing, nothing is made up.
func (h *History) judge(v *volume, r *raid.Report) error {
	fail := func(f string, a ...any) error {
		return fmt.Errorf("volume %d: %s; report %+v, acked %d told %d commit %d base %d", v.id, fmt.Sprintf(f, a...), *r, v.acked, v.told, v.commit, v.base)
	}
	switch {
	case r.Damaged:
		return fail("damaged without cause")
	case r.EndSeq < v.acked:
		return fail("an acknowledged record is gone")
	case r.Commit < v.told:
		return fail("the durable commit point fell")
	case r.Commit > v.commit:
		return fail("a commit point that nobody sent")
	case r.Applied > r.Commit:
		return fail("applied beyond the commit point (I5)")
	case r.Base < v.base:
		return fail("base fell")
	}
	have := map[raid.Seq]bool{}
	for _, id := range r.Records {
		if id.Seq <= r.Applied {
			return fail("record %d is at or below applied", id.Seq)
		}
		i, ok := slices.BinarySearchFunc(v.sent, id.Seq, func(x *raid.Record, n raid.Seq) int { return int(x.Seq) - int(n) })
		if !ok || v.sent[i].Epoch != id.Epoch || v.sent[i].BID != id.BID || !slices.Equal(v.sent[i].Parts, id.Parts) || len(v.sent[i].Reqs) != len(id.Reqs) {
			return fail("record %d was never sent", id.Seq)
		}
		have[id.Seq] = true
	}
	for _, x := range v.sent {
		if x.Seq > r.Applied && x.Seq > r.Base && x.Seq <= r.EndSeq && !have[x.Seq] {
			return fail("record %d is missing below endseq", x.Seq)
		}
	}
	return nil
}

// start opens a new stream of the epoch.
func (h *History) start(v *volume) error {
	v.stream++
	v.started = false
	sigma := v.stream
	acked, said := v.acked, raid.Seq(0) // in this epoch
	if v.startedIn == v.epoch {
		said = acked
	}
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqStart, Acked: said, Hist: slices.Clone(v.hist), End: v.end}, func(r *raid.DiskReply) error {
		if err := expect(r, raid.RepStarted); err != nil {
			return err
		}
		if r.Stream != v.stream || r.Stream != sigma {
			return nil
		}
		v.started, v.startedIn = true, v.epoch
		h.log("v%d started %d/%d end %d commit %d", v.id, r.Epoch, r.Stream, r.EndSeq, r.Commit)
		switch {
		case r.Damaged && !v.halfWiped:
			return fmt.Errorf("volume %d: damaged without cause", v.id)
		case r.EndSeq < acked && v.phase != stale:
			return fmt.Errorf("volume %d: started at %d, acknowledged %d", v.id, r.EndSeq, acked)
		case r.Quota < 64<<10:
			return fmt.Errorf("volume %d: a quota of %d bytes", v.id, r.Quota)
		}
		v.quota, v.told, v.prev = r.Quota, max(v.told, r.Commit), r.EndSeq
		if v.phase == starting {
			v.phase = inSync
		}
		if v.phase == inSync {
			v.acked = max(v.acked, r.EndSeq)
			return h.resend(v, r.EndSeq)
		}
		// A stale disk is not sent again what it lacks: the copy covers it.
		v.sent = slices.DeleteFunc(v.sent, func(x *raid.Record) bool { return x.Seq > r.EndSeq })
		return nil
	})
}

// resend sends what the disk does not have, in a new stream.
func (h *History) resend(v *volume, from raid.Seq) error {
	prev := from
	for _, rec := range v.sent {
		if rec.Seq <= from {
			continue
		}
		again := *rec
		again.Prev = prev
		prev = rec.Seq
		if err := h.prepare(v, &again); err != nil {
			return err
		}
	}
	v.prev = max(v.prev, prev)
	return nil
}

// restream breaks the FIFO and opens another in the same epoch.
func (h *History) restream(v *volume) error {
	if v.phase == fencing || v.phase == starting || v.stream == 0 {
		return nil
	}
	if v.phase == inSync {
		v.phase = starting
	} else {
		v.phase = stale
	}
	h.log("v%d new stream", v.id)
	return h.start(v)
}

func (h *History) prepare(v *volume, rec *raid.Record) error {
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqPrepare, Rec: rec, Commit: v.commit, Touch: v.touch(v.commit)}, func(r *raid.DiskReply) error {
		return fmt.Errorf("volume %d: prepare %d after %d answered by %d (nack %d %q, end %d)", v.id, rec.Seq, rec.Prev, r.Kind, r.Nack, r.Err, r.EndSeq)
	})
}

// write forms a batch; now and then one that does not touch this disk.
func (h *History) write(v *volume) error {
	if v.phase == fencing || v.phase == starting {
		return nil
	}
	away := h.rng.IntN(8) == 0
	out := v.phase == stale || v.phase == wiping
	rec := &raid.Record{Epoch: v.epoch, Prev: v.prev, BID: h.rng.Uint64(), Commit: v.commit, Parts: raid.NewDiskSet(diskID, 9)}
	if h.rng.IntN(2) == 0 {
		rec.Reqs = []raid.ReqHeader{{Path: 1, AgeUs: 5, Header: [36]byte{1, 2, 3}}}
	}
	n := 1 + h.rng.IntN(6)
	if h.rng.IntN(10) == 0 {
		n = 20 + h.rng.IntN(100)
	}
	if free := v.credit(); !out && free < (n+3)*raid.BlockBytes && free < int(v.quota) { // one record may always be under way
		return h.commit(v)
	}
	if away {
		v.next++
		return nil
	}
	rec.Seq = v.next
	x := uint32(h.rng.IntN(len(v.regions)))
	no := uint32(h.rng.IntN(int(v.regions[x])))*raid.BlocksPerRegion + uint32(h.rng.IntN(40))
	for i := range n {
		p := place{x, no + uint32(i)}
		rec.Blocks = append(rec.Blocks, raid.Block{Extent: x, Gen: v.gen, No: p.no, Data: pattern(v.id, p, rec.Seq, rec.BID)})
		v.put(p, rec.Seq, rec.Blocks[i].Data)
		if h.rng.IntN(3) == 0 {
			no++
		}
	}
	v.next++
	if out {
		return nil
	}
	h.Counts["prepare"]++
	v.prev = rec.Seq
	v.sent = append(v.sent, rec)
	return h.prepare(v, rec)
}

// commit raises the owner's commit point as far as the disk's acknowledgements allow, and tells the disk.
func (h *History) commit(v *volume) error {
	to := v.next - 1
	if v.phase == fencing || v.phase == starting {
		return nil
	}
	if v.phase == inSync || v.phase == catching {
		for _, rec := range v.sent {
			if rec.Seq > v.acked {
				to = min(to, rec.Seq-1)
			}
		}
	}
	if to > v.commit {
		v.commit += 1 + raid.Seq(h.rng.IntN(int(to-v.commit)))
	}
	if v.phase == stale || h.rng.IntN(3) == 0 {
		return nil // it rides on the next Prepare
	}
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqCommit, Commit: v.commit, Touch: v.touch(v.commit)}, nil)
}

// repair fills some blocks of an in-sync disk with what they hold anyway.
func (h *History) repair(v *volume) error {
	r := h.region(v)
	if v.phase != inSync || v.busy(r) {
		return nil
	}
	first := r.region*raid.BlocksPerRegion + uint32(h.rng.IntN(40))
	return h.fill(v, r, first, uint32(1+h.rng.IntN(20)), nil)
}

func (h *History) region(v *volume) regionAt {
	x := uint32(h.rng.IntN(len(v.regions)))
	return regionAt{x, uint32(h.rng.IntN(int(v.regions[x])))}
}

func (h *History) fill(v *volume, r regionAt, first, n uint32, then func() error) error {
	req := &raid.DiskRequest{Kind: raid.ReqFill, S: v.commit, R: v.change[r], Extent: r.extent, Gen: v.gen, Region: r.region}
	for i := range n {
		p := place{r.extent, first + i}
		data := v.at(p, v.commit)
		if data == nil {
			data = make([]byte, raid.BlockBytes)
		}
		req.Blocks = append(req.Blocks, raid.Block{Extent: p.extent, Gen: v.gen, No: p.no, Data: data})
	}
	h.Counts["fill"]++
	return h.send(v, req, func(rep *raid.DiskReply) error {
		if rep.Epoch != v.epoch || rep.Stream != v.stream {
			return nil
		}
		if err := expect(rep, raid.RepFilled); err != nil || then == nil {
			return err
		}
		return then()
	})
}

// resync lets an in-sync disk go stale, or takes a stale one a step further towards in-sync (A.4.5).
func (h *History) resync(v *volume) error {
	switch v.phase {
	case inSync:
		if h.rng.IntN(12) == 0 {
			h.log("v%d goes stale at %d", v.id, v.commit)
			v.phase, v.stale = stale, v.commit
		}
	case stale:
		if v.stream == 0 || !v.started {
			return nil
		}
		if h.rng.IntN(5) == 0 {
			v.stale = 0
		}
		if v.stale == 0 {
			return h.wipe(v)
		}
		return h.rejoin(v)
	case copying:
		for range 1 + h.rng.IntN(4) {
			if err := h.copy(v); err != nil || v.phase != copying {
				return err
			}
		}
	}
	return nil
}

func (h *History) wipe(v *volume) error {
	v.phase, v.halfWiped = wiping, true
	sigma, epoch := v.stream, v.epoch
	h.log("v%d wipe", v.id)
	h.Counts["wipe"]++
	v.acked, v.told, v.base, v.based, v.sent = 0, 0, 0, 0, nil
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqWipe, Shards: v.shards()}, func(r *raid.DiskReply) error {
		v.halfWiped = v.halfWiped && r.Kind != raid.RepWiped
		if v.epoch != epoch || v.stream != sigma {
			return nil
		}
		if err := expect(r, raid.RepWiped); err != nil {
			return err
		}
		v.prev = 0
		return h.rejoinChained(v)
	})
}

// rejoin opens a fresh stream, whose Started says from where the chain goes on.
func (h *History) rejoin(v *volume) error {
	if err := h.start(v); err != nil {
		return err
	}
	if err := h.settle(); err != nil {
		return err
	}
	return h.rejoinChained(v)
}

// rejoinChained begins the copy: all batches formed without the disk have committed on the others.
func (h *History) rejoinChained(v *volume) error {
	v.commit = v.next - 1
	v.phase, v.todo = copying, nil
	for x, n := range v.regions {
		for r := range n {
			if k := (regionAt{uint32(x), r}); v.change[k] > v.stale {
				v.todo = append(v.todo, k)
			}
		}
	}
	return nil
}

// copy fills one region, or ends the copy.
func (h *History) copy(v *volume) error {
	v.commit = v.next - 1 // nobody waits for a disk that is joining
	if len(v.todo) > 0 {
		r := v.todo[0]
		v.todo = v.todo[1:]
		return h.fill(v, r, r.region*raid.BlocksPerRegion, raid.BlocksPerRegion, nil)
	}
	v.phase = closing
	s, sigma, epoch := v.commit, v.stream, v.epoch
	v.based = s
	v.prev = max(v.prev, s)
	h.log("v%d last fill as of %d", v.id, s)
	return h.send(v, &raid.DiskRequest{Kind: raid.ReqFill, S: s, Last: true}, func(r *raid.DiskReply) error {
		if err := expect(r, raid.RepFilled); err != nil {
			return err
		}
		v.base, v.told = max(v.base, s), max(v.told, s)
		if v.epoch != epoch || v.stream != sigma {
			return nil
		}
		v.acked = max(v.acked, s)
		v.phase = catching
		h.catchUp(v)
		return nil
	})
}

// catchUp takes a disk back that has acknowledged all it was sent up to the commit point.
func (h *History) catchUp(v *volume) {
	for _, rec := range v.sent {
		if rec.Seq > v.acked && rec.Seq <= v.commit {
			return
		}
	}
	v.phase, v.since = inSync, v.epoch
	h.Counts["resync"]++
}
