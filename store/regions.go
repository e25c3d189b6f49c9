package store

import (
	"slices"

	"clade/raid"
)

// A shard has 8 KiB of pages per MiB, in which it says when each region changed last. Those of a small one are read at once, those of a
// large one, or of many, by Background, a piece at a time, so that the disk's other volumes do not wait. Nothing of it stays in memory but
// the answers under way: 8 bytes per MiB of the shards that are asked about.

// regionsPerRun is how many regions' pages are read or written at once.
const regionsPerRun = 128

// pagesFrom returns both copies of the pages of up to regionsPerRun regions of a shard, from region on, nil if they cannot be read
// at once.
func (d *Disk) pagesFrom(sh *shard, region uint32) []byte {
	b := make([]byte, 2*pageBytes*int(min(regionsPerRun, sh.Regions-region)))
	if readFull(d.dev, b, d.super.pageOffset(sh.slot+uint64(region), 0)) != nil {
		return nil
	}
	return b
} // regionsJob is a Regions request under way.
type regionsJob struct {
	req  *raid.DiskRequest
	out  []raid.Seq // what the journal had for each region when it was asked; and what is in place, up to next
	next uint32
}

// doRegions answers when each region of a shard changed last, as of s: at once, or when it has been read.
func (d *Disk) doRegions(out []raid.DiskReply, v *volume, r *raid.DiskRequest) []raid.DiskReply {
	sh := v.shard(r.Extent, r.Gen)
	if sh == nil || v.endseq() < r.Touch {
		return d.refuse(out, r, "volume %d: no such shard, or behind", v.id)
	}
	job := &regionsJob{req: r, out: make([]raid.Seq, sh.Regions)}
	// All that the answer covers is in the journal or in place now. Records may be applied before their region is read, so they are
	// looked at first.
	for _, rec := range v.log {
		for k := range rec.Blocks {
			if b := &rec.Blocks[k]; rec.Seq <= r.S && b.Extent == r.Extent && b.Gen == r.Gen {
				i := b.No / raid.BlocksPerRegion
				job.out[i] = max(job.out[i], rec.Seq)
			}
		}
	}
	if len(d.asked) > 0 || int(sh.Regions) > d.mayRead {
		d.asked = append(d.asked, job)
		return out
	}
	d.mayRead -= int(sh.Regions)
	d.regionSeqs(v, sh, job, sh.Regions)
	return append(out, d.regionsReply(job))
}

func (d *Disk) regionsReply(job *regionsJob) raid.DiskReply {
	rep := d.reply(job.req, raid.RepRegions)
	rep.Extent, rep.Regions = job.req.Extent, job.out
	return rep
}

// regionsOn gets on with the oldest request; more says whether one is left. Requests of former streams are dropped as they would be in
// Step: nobody waits for them.
func (d *Disk) regionsOn(idle bool) (more bool) {
	if len(d.asked) == 0 {
		return false
	}
	job := d.asked[0]
	r := job.req
	v := d.volume(r.Vol)
	current := v != nil && v.stream != 0 && r.Epoch == v.start && r.Epoch == v.fence && r.Stream == v.stream
	var sh *shard
	if current {
		sh = v.shard(r.Extent, r.Gen)
	}
	switch {
	case !current:
	case sh == nil || int(sh.Regions) != len(job.out):
		d.ready = d.refuse(d.ready, r, "volume %d: the shard has gone", v.id)
	default:
		n := max(d.cfg.AtOnce/2, 1)
		if !idle {
			n = min(n, regionsPerRun)
		}
		d.regionSeqs(v, sh, job, uint32(n))
		if job.next < sh.Regions {
			return true
		}
		d.ready = append(d.ready, d.regionsReply(job))
	}
	d.asked = slices.Delete(d.asked, 0, 1)
	return len(d.asked) > 0
}

// regionSeqs adds to an answer the last change in place of up to n regions more. A region whose page is damaged may have changed at any
// time, and one that has changed after s meanwhile at any time before: s is the safe bound (B: C16). What is not cached is read in long
// runs and not cached: there may be very many.
func (d *Disk) regionSeqs(v *volume, sh *shard, job *regionsJob, n uint32) {
	var b []byte
	read := false
	first, end := job.next, min(sh.Regions, job.next+n)
	for i := job.next; i < end; i++ {
		if i-first == regionsPerRun {
			first, read = i, false
		}
		slot, id := sh.slot+uint64(i), pageID{v.id, sh.Extent, sh.Gen, i}
		p := d.pages.pages[slot]
		if p == nil || p.id != id {
			if !read {
				b, read = d.pagesFrom(sh, first), true
			}
			if b != nil {
				p = decodePages(b[2*pageBytes*int(i-first):], slot, id, 0)
			} else {
				p = readPage(d.dev, d.super, slot, id, false)
			}
		}
		seq := min(p.rseq, job.req.S)
		if p.bad {
			seq = job.req.S
		}
		job.out[i] = max(job.out[i], seq)
	}
	job.next = end
}
