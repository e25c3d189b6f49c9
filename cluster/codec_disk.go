package cluster

import (
	"encoding/binary"

	"clade/raid"
)

// writer appends big-endian fields; blocks are collected apart.
type writer struct {
	b       []byte
	payload [][]byte
}

func (w *writer) u8(v byte)    { w.b = append(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }
func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
		return
	}
	w.u8(0)
}

func (w *writer) text(s string) {
	s = s[:min(len(s), 1024)]
	w.u32(uint32(len(s)))
	w.b = append(w.b, s...)
}

// reader takes big-endian fields; after the first failure everything is zero and failed is set. Memory is bounded: a list is
// only made when the rest of the frame can hold it.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.b) {
		r.failed = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) flag() bool {
	v := r.u8()
	if v > 1 {
		r.failed = true
	}
	return v == 1
}

func (r *reader) text() string { return string(r.take(int(r.u32() & 0xFFFF))) }

// count reads the length of a list whose elements take at least size bytes each.
func (r *reader) count(size int) int {
	n := int(r.u32())
	if n > listMax || n*size > len(r.b) {
		r.failed = true
		return 0
	}
	return n
}

func (w *writer) disks(s raid.DiskSet) {
	w.u32(uint32(len(s)))
	for _, d := range s {
		w.u32(uint32(d))
	}
}

func (r *reader) disks() raid.DiskSet {
	n := r.count(4)
	if n == 0 {
		return nil
	}
	out := make([]raid.DiskID, n)
	for i := range out {
		out[i] = raid.DiskID(r.u32())
	}
	return raid.NewDiskSet(out...)
}

const reqHeaderBytes = 1 + 4 + 36

func (w *writer) reqs(reqs []raid.ReqHeader) {
	w.u32(uint32(len(reqs)))
	for i := range reqs {
		w.u8(reqs[i].Path)
		w.u32(reqs[i].AgeUs)
		w.b = append(w.b, reqs[i].Header[:]...)
	}
}

func (r *reader) reqs() []raid.ReqHeader {
	n := r.count(reqHeaderBytes)
	if n == 0 {
		return nil
	}
	out := make([]raid.ReqHeader, n)
	for i := range out {
		out[i].Path, out[i].AgeUs = r.u8(), r.u32()
		copy(out[i].Header[:], r.take(36))
	}
	return out
}

// blocks writes where blocks belong; their bytes are gathered behind the frame.
func (w *writer) blocks(bs []raid.Block) {
	w.u32(uint32(len(bs)))
	for i := range bs {
		w.u32(bs[i].Extent)
		w.u64(bs[i].Gen)
		w.u32(bs[i].No)
		w.payload = append(w.payload, bs[i].Data)
	}
}

// blocks reads where blocks belong; data takes their bytes, once everything before them has been read.
func (r *reader) blocks() []raid.Block {
	n := r.count(16 + raid.BlockBytes)
	if n == 0 {
		return nil
	}
	out := make([]raid.Block, n)
	for i := range out {
		out[i].Extent, out[i].Gen, out[i].No = r.u32(), r.u64(), r.u32()
	}
	return out
}

func (r *reader) data(bs []raid.Block) {
	for i := range bs {
		bs[i].Data = r.take(raid.BlockBytes)
	}
}

func (w *writer) request(q *raid.DiskRequest) {
	w.u8(byte(q.Kind))
	w.u64(uint64(q.Vol))
	w.u32(uint32(q.Disk))
	w.u64(uint64(q.Epoch))
	w.u64(uint64(q.Stream))
	w.u64(q.ID)
	w.u64(uint64(q.Since))
	w.u64(uint64(q.Acked))
	w.u64(uint64(q.End))
	w.u64(uint64(q.Commit))
	w.u64(uint64(q.Touch))
	w.u64(uint64(q.S))
	w.u64(uint64(q.R))
	w.u64(q.Gen)
	w.u32(q.Extent)
	w.u32(q.Region)
	w.u32(q.First)
	w.u32(q.Count)
	w.flag(q.Last)
	w.flag(q.Forced)
	w.u32(uint32(len(q.Shards)))
	for _, s := range q.Shards {
		w.u32(s.Extent)
		w.u64(s.Gen)
		w.u32(s.Regions)
	}
	w.u32(uint32(len(q.Hist)))
	for _, h := range q.Hist {
		w.u64(uint64(h.From))
		w.u64(uint64(h.To))
		w.u64(uint64(h.End))
	}
	w.blocks(q.Blocks)
	w.flag(q.Rec != nil)
	if q.Rec != nil {
		w.u64(uint64(q.Rec.Epoch))
		w.u64(uint64(q.Rec.Seq))
		w.u64(uint64(q.Rec.Prev))
		w.u64(q.Rec.BID)
		w.u64(uint64(q.Rec.Commit))
		w.disks(q.Rec.Parts)
		w.reqs(q.Rec.Reqs)
		w.blocks(q.Rec.Blocks)
	}
}

func (r *reader) request() *raid.DiskRequest {
	q := &raid.DiskRequest{Kind: raid.ReqKind(r.u8()), Vol: raid.VolumeID(r.u64()), Disk: raid.DiskID(r.u32()), Epoch: raid.Epoch(r.u64()),
		Stream: raid.Stream(r.u64()), ID: r.u64(), Since: raid.Epoch(r.u64()), Acked: raid.Seq(r.u64()), End: raid.Seq(r.u64()),
		Commit: raid.Seq(r.u64()), Touch: raid.Seq(r.u64()), S: raid.Seq(r.u64()), R: raid.Seq(r.u64()), Gen: r.u64(), Extent: r.u32(),
		Region: r.u32(), First: r.u32(), Count: r.u32(), Last: r.flag(), Forced: r.flag()}
	for range r.count(16) {
		q.Shards = append(q.Shards, raid.ShardRef{Extent: r.u32(), Gen: r.u64(), Regions: r.u32()})
	}
	for range r.count(24) {
		q.Hist = append(q.Hist, raid.HistRange{From: raid.Epoch(r.u64()), To: raid.Epoch(r.u64()), End: raid.Seq(r.u64())})
	}
	q.Blocks = r.blocks()
	if r.flag() {
		q.Rec = &raid.Record{Epoch: raid.Epoch(r.u64()), Seq: raid.Seq(r.u64()), Prev: raid.Seq(r.u64()), BID: r.u64(), Commit: raid.Seq(r.u64()),
			Parts: r.disks(), Reqs: r.reqs(), Blocks: r.blocks()}
	}
	r.data(q.Blocks)
	if q.Rec != nil {
		r.data(q.Rec.Blocks)
	}
	// What a node says only to its own disks never comes from a peer.
	if q.Kind < raid.ReqFence || q.Kind > raid.ReqVerify || q.Kind == raid.ReqPrepare && q.Rec == nil || q.Count > raid.BlocksPerRegion {
		r.failed = true
	}
	return q
}

func (w *writer) reply(p *raid.DiskReply) {
	w.u8(byte(p.Kind))
	w.u64(uint64(p.Vol))
	w.u32(uint32(p.Disk))
	w.u64(uint64(p.Epoch))
	w.u64(uint64(p.Stream))
	w.u64(p.ID)
	w.u64(uint64(p.To))
	w.u8(byte(p.Nack))
	w.u64(uint64(p.Fence))
	w.text(p.Err)
	w.u64(uint64(p.EndSeq))
	w.flag(p.Damaged)
	w.u64(uint64(p.Seq))
	w.u64(uint64(p.Commit))
	w.u64(p.Quota)
	w.u32(p.Extent)
	w.u32(p.First)
	w.u64(uint64(p.R))
	w.u32(uint32(len(p.Regions)))
	for _, s := range p.Regions {
		w.u64(uint64(s))
	}
	w.flag(p.Report != nil)
	if p.Report != nil {
		w.report(p.Report)
	}
	w.u32(uint32(len(p.Blocks)))
	for _, b := range p.Blocks {
		w.flag(b != nil)
		if b != nil {
			w.payload = append(w.payload, b)
		}
	}
}

func (w *writer) report(p *raid.Report) {
	w.u64(uint64(p.Start))
	w.u64(uint64(p.Commit))
	w.u64(uint64(p.Applied))
	w.u64(uint64(p.EndSeq))
	w.u64(uint64(p.Base))
	w.flag(p.Damaged)
	w.b = append(w.b, p.BootStart[:]...)
	w.b = append(w.b, p.BootNow[:]...)
	w.u32(uint32(len(p.Records)))
	for i := range p.Records {
		id := &p.Records[i]
		w.u64(uint64(id.Epoch))
		w.u64(uint64(id.Seq))
		w.u64(id.BID)
		w.disks(id.Parts)
		w.reqs(id.Reqs)
	}
}

func (r *reader) report() *raid.Report {
	p := &raid.Report{Start: raid.Epoch(r.u64()), Commit: raid.Seq(r.u64()), Applied: raid.Seq(r.u64()), EndSeq: raid.Seq(r.u64()),
		Base: raid.Seq(r.u64()), Damaged: r.flag()}
	copy(p.BootStart[:], r.take(16))
	copy(p.BootNow[:], r.take(16))
	for range r.count(32) {
		p.Records = append(p.Records, raid.RecordID{Epoch: raid.Epoch(r.u64()), Seq: raid.Seq(r.u64()), BID: r.u64(), Parts: r.disks(), Reqs: r.reqs()})
	}
	return p
}

func (r *reader) reply() *raid.DiskReply {
	p := &raid.DiskReply{Kind: raid.ReplyKind(r.u8()), Vol: raid.VolumeID(r.u64()), Disk: raid.DiskID(r.u32()), Epoch: raid.Epoch(r.u64()),
		Stream: raid.Stream(r.u64()), ID: r.u64(), To: raid.NodeID(r.u64()), Nack: raid.NackReason(r.u8()), Fence: raid.Epoch(r.u64()),
		Err: r.text(), EndSeq: raid.Seq(r.u64()), Damaged: r.flag(), Seq: raid.Seq(r.u64()), Commit: raid.Seq(r.u64()), Quota: r.u64(),
		Extent: r.u32(), First: r.u32(), R: raid.Seq(r.u64())}
	if n := r.count(8); n > 0 {
		p.Regions = make([]raid.Seq, n)
		for i := range p.Regions {
			p.Regions[i] = raid.Seq(r.u64())
		}
	}
	if r.flag() {
		p.Report = r.report()
	}
	if n := r.count(1); n > 0 {
		there := r.take(n)
		p.Blocks = make([][]byte, n)
		for i, f := range there {
			if f == 1 {
				p.Blocks[i] = r.take(raid.BlockBytes)
			} else if f != 0 {
				r.failed = true
			}
		}
	}
	if p.Kind < raid.RepReport || p.Kind > raid.RepNack || p.Kind == raid.RepReport && p.Report == nil {
		r.failed = true
	}
	return p
}
