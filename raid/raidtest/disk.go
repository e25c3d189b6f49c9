// Package raidtest has a disk that keeps the rules of A.3 in their plainest form, to test owners and nodes against.
package raidtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"clade/raid"
)

// Disk is A.3 in its plainest form: everything it accepts is durable at once. It is what the owner is tested against
// here; package store is the real one.
type Disk struct {
	id                    raid.DiskID
	fence, start          raid.Epoch
	stream                raid.Stream
	damaged               bool
	commit, applied, base raid.Seq
	log                   []*raid.Record
	dead                  map[deadKey]bool
	place                 map[blockKey][]byte
	rseq                  map[regionAt]raid.Seq
	bad                   map[blockKey]bool
	boots, bootStart      byte
	trusting              bool
	shards                []raid.ShardRef // as the last Start named them
}

type regionAt struct{ ext, region uint32 }

type blockKey struct {
	ext, no uint32
	gen     uint64
}

type deadKey struct {
	seq raid.Seq
	blk blockKey
}

// New returns an empty disk: one volume's part of it.
func New(id raid.DiskID) *Disk {
	return &Disk{id: id, dead: map[deadKey]bool{}, place: map[blockKey][]byte{}, rseq: map[regionAt]raid.Seq{}, bad: map[blockKey]bool{}}
}

func keyOf(b raid.Block) blockKey   { return blockKey{b.Extent, b.No, b.Gen} }
func (k blockKey) region() regionAt { return regionAt{k.ext, k.no / raid.BlocksPerRegion} }
func (m *Disk) endseq() raid.Seq {
	e := max(m.applied, m.base)
	if n := len(m.log); n > 0 {
		e = max(e, m.log[n-1].Seq)
	}
	return e
}

// Handle answers one request at once; nil is silence. Everything accepted is durable.
func (m *Disk) Handle(r *raid.DiskRequest) *raid.DiskReply {
	rep := &raid.DiskReply{Vol: r.Vol, Disk: m.id, Epoch: r.Epoch, Stream: r.Stream, ID: r.ID, To: r.From}
	if r.Epoch < m.fence {
		rep.Kind, rep.Nack, rep.Fence = raid.RepNack, raid.NackFence, m.fence
		return rep
	}
	switch r.Kind {
	case raid.ReqFence:
		if r.Epoch > m.fence {
			m.damaged = m.damaged || m.fence < r.Since
			m.fence = r.Epoch
		}
		rep.Kind, rep.Report = raid.RepReport, m.report()
		return rep
	case raid.ReqStart:
		return m.doStart(r, rep)
	case raid.ReqVerify:
		rep.Kind = raid.RepVerified
		return rep
	}
	if r.Epoch != m.fence || r.Epoch != m.start || r.Stream != m.stream {
		return nil
	}
	switch r.Kind {
	case raid.ReqPrepare:
		return m.prepare(r, rep)
	case raid.ReqCommit:
		m.learn(r.Commit, r.Touch)
		rep.Kind, rep.Seq, rep.Commit = raid.RepAck, m.endseq(), m.commit
	case raid.ReqFill:
		return m.fill(r, rep)
	case raid.ReqRegions:
		m.regions(r, rep)
	case raid.ReqWipe:
		was := *m
		*m = *New(m.id)
		m.fence, m.start, m.stream = r.Epoch, r.Epoch, r.Stream
		m.shards = r.Shards
		m.boots, m.bootStart, m.trusting = was.boots, was.bootStart, was.trusting
		rep.Kind = raid.RepWiped
	case raid.ReqRead:
		return m.read(r, rep)
	}
	return rep
}

func (m *Disk) report() *raid.Report {
	out := &raid.Report{Start: m.start, Commit: m.commit, Applied: m.applied, EndSeq: m.endseq(), Base: m.base, Damaged: m.damaged,
		BootStart: raid.BootID{m.bootStart}, BootNow: raid.BootID{m.boots}}
	for _, rec := range m.log {
		if rec.Seq > m.applied {
			out.Records = append(out.Records, raid.RecordID{Epoch: rec.Epoch, Seq: rec.Seq, BID: rec.BID, Parts: rec.Parts, Reqs: rec.Reqs})
		}
	}
	return out
}

func (m *Disk) doStart(r *raid.DiskRequest, rep *raid.DiskReply) *raid.DiskReply {
	switch {
	case r.Epoch > m.start:
		m.damaged = (m.damaged || m.fence < r.Since || r.Acked > 0) && !r.Forced
		m.log = slices.DeleteFunc(m.log, func(rec *raid.Record) bool {
			end, closed := raid.EndOf(r.Hist, rec.Epoch)
			if rec.Epoch >= m.start && !closed {
				m.damaged = true
			}
			return rec.Epoch >= m.start && closed && rec.Seq > end
		})
		m.commit = max(m.commit, r.End)
		m.fence, m.start, m.bootStart = r.Epoch, r.Epoch, m.boots
	case r.Stream > m.stream:
		m.damaged = m.damaged || m.endseq() < r.Acked
	default:
		return nil
	}
	m.stream, m.shards = r.Stream, r.Shards
	rep.Kind, rep.EndSeq, rep.Damaged, rep.Commit, rep.Quota = raid.RepStarted, m.endseq(), m.damaged, m.commit, 1<<20
	return rep
}

func (m *Disk) prepare(r *raid.DiskRequest, rep *raid.DiskReply) *raid.DiskReply {
	rec := r.Rec
	known := slices.ContainsFunc(m.log, func(x *raid.Record) bool { return x.Seq == rec.Seq && x.Epoch == rec.Epoch && x.BID == rec.BID })
	switch {
	case rec.Prev == m.endseq():
		m.log = append(m.log, rec)
		slices.SortFunc(m.log, func(a, b *raid.Record) int { return int(a.Seq) - int(b.Seq) })
	case known || rec.Seq <= max(m.applied, m.base):
	default:
		rep.Kind, rep.Nack, rep.EndSeq = raid.RepNack, raid.NackGap, m.endseq()
		return rep
	}
	m.learn(r.Commit, r.Touch)
	rep.Kind, rep.Seq, rep.Commit = raid.RepAck, m.endseq(), m.commit
	return rep
}

func (m *Disk) learn(c, touch raid.Seq) {
	if m.endseq() >= touch {
		m.commit = max(m.commit, c)
	}
}

// ApplyOne writes the oldest committed record in place.
func (m *Disk) ApplyOne() {
	if len(m.log) == 0 || m.log[0].Seq > m.commit {
		return
	}
	rec := m.log[0]
	m.log = m.log[1:]
	for _, b := range rec.Blocks {
		if k := keyOf(b); !m.dead[deadKey{rec.Seq, k}] {
			m.place[k] = b.Data
			delete(m.bad, k)
			m.rseq[k.region()] = max(m.rseq[k.region()], rec.Seq)
		}
	}
	m.applied = max(m.applied, rec.Seq)
}

func (m *Disk) fill(r *raid.DiskRequest, rep *raid.DiskReply) *raid.DiskReply {
	reg := regionAt{r.Extent, r.Region}
	if len(r.Blocks) > 0 {
		newer := m.rseq[reg] > r.S
		for _, rec := range m.log {
			for _, b := range rec.Blocks {
				newer = newer || rec.Seq > r.S && keyOf(b).region() == reg
			}
		}
		if newer && !m.trusting {
			rep.Kind, rep.Nack, rep.Err = raid.RepNack, raid.NackRefused, "newer"
			return rep
		}
	}
	for _, b := range r.Blocks {
		k := keyOf(b)
		m.place[k] = b.Data
		delete(m.bad, k)
		for _, rec := range m.log {
			if rec.Seq <= r.S {
				m.dead[deadKey{rec.Seq, k}] = true
			}
		}
		m.rseq[reg] = max(m.rseq[reg], r.R)
	}
	if r.Last {
		m.base = max(m.base, r.S)
		m.commit = max(m.commit, r.S)
	}
	rep.Kind, rep.Seq = raid.RepFilled, r.S
	return rep
}

func (m *Disk) regions(r *raid.DiskRequest, rep *raid.DiskReply) {
	rep.Kind, rep.Extent = raid.RepRegions, r.Extent
	for _, s := range m.shards {
		if s.Extent == r.Extent {
			rep.Regions = make([]raid.Seq, s.Regions)
		}
	}
	note := func(k regionAt, s raid.Seq) {
		if k.ext != r.Extent {
			return
		}
		rep.Regions[k.region] = max(rep.Regions[k.region], s)
	}
	for k, s := range m.rseq {
		note(k, s)
	}
	for _, rec := range m.log {
		for _, b := range rec.Blocks {
			if rec.Seq <= r.S {
				note(keyOf(b).region(), rec.Seq)
			}
		}
	}
}

func (m *Disk) read(r *raid.DiskRequest, rep *raid.DiskReply) *raid.DiskReply {
	if m.endseq() < r.Touch {
		return nil
	}
	rep.Kind, rep.Extent, rep.First = raid.RepRead, r.Extent, r.First
	for no := r.First; no < r.First+r.Count; no++ {
		rep.Blocks = append(rep.Blocks, m.block(blockKey{r.Extent, no, r.Gen}, r.S))
	}
	rep.R = m.rseq[regionAt{r.Extent, r.First / raid.BlocksPerRegion}]
	return rep
}

func (m *Disk) block(k blockKey, s raid.Seq) []byte {
	for i := len(m.log) - 1; i >= 0; i-- {
		if rec := m.log[i]; rec.Seq <= s && !m.dead[deadKey{rec.Seq, k}] {
			for _, b := range rec.Blocks {
				if keyOf(b) == k {
					return b.Data
				}
			}
		}
	}
	switch {
	case m.bad[k]:
		return nil
	case m.place[k] == nil:
		return make([]byte, raid.BlockBytes)
	}
	return m.place[k]
}

// Damage makes the disk know that what it has said was durable may be gone.
func (m *Disk) Damage() { m.damaged = true }

// String describes the disk's state in one line.
func (m *Disk) String() string {
	return fmt.Sprintf("d%d fence %d start %d commit %d applied %d end %d", m.id, m.fence, m.start, m.commit, m.applied, m.endseq())
}

// ID returns the disk's id.
func (m *Disk) ID() raid.DiskID { return m.id }

// Spoil makes the i-th block in place (in order of extent and number) unreadable; it reports whether there is one.
func (m *Disk) Spoil(i int) bool {
	keys := slices.SortedFunc(maps.Keys(m.place), func(a, b blockKey) int {
		return cmp.Or(cmp.Compare(a.ext, b.ext), cmp.Compare(a.no, b.no), cmp.Compare(a.gen, b.gen))
	})
	if len(keys) == 0 {
		return false
	}
	m.bad[keys[i%len(keys)]] = true
	return true
}

// Spoilt reports whether a block is unreadable; Mend makes all readable.
func (m *Disk) Spoilt() bool { return len(m.bad) > 0 }

// Mend makes every block readable again.
func (m *Disk) Mend() { clear(m.bad) }

// ApplyAll writes every record up to commit in place.
func (m *Disk) ApplyAll(commit raid.Seq) {
	m.commit = max(m.commit, commit)
	for len(m.log) > 0 {
		m.ApplyOne()
	}
}

// BlockNow returns a block's newest bytes, nil if it is unreadable.
func (m *Disk) BlockNow(extent, no uint32, gen uint64) []byte {
	return m.block(blockKey{extent, no, gen}, 1<<62)
}

// Trust makes the disk take every Fill, also one that is older than what it holds: the owner's order has to suffice.
func (m *Disk) Trust() { m.trusting = true }

// LoseTail is a power loss after which the drive has lost what it said was durable: records from seq n on, and the commit
// point with them.
func (m *Disk) LoseTail(n raid.Seq) {
	m.boots++
	m.stream = 0
	m.commit = min(m.commit, n-1)
	m.log = slices.DeleteFunc(m.log, func(r *raid.Record) bool { return r.Seq >= n })
}
