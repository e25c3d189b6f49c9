package raid

import (
	"fmt"
	"slices"
)

// disk is what an owner knows of one disk of its volume: the stream to it and its place in W and J.
type disk struct {
	id       DiskID
	up       bool  // a FIFO can be opened
	downNs   int64 // since when it cannot, or since when it can
	nodeDead bool  // its node's term is over
	askedNs  int64 // last Fence or Start
	asks     int   // Starts since it owes one an answer

	stream  Stream // σ of the present stream
	started bool   // Started has come back on it
	chained bool   // prev is known: Started came at least once in this epoch
	damaged bool   // it said so
	forgive bool   // the volume was forced with it (A.1): its Start forgives the damage of before, once, though Activate has ended the flag
	quota   uint64 // bytes of records above its durable commit point that it takes

	inSync     bool // as Raft says: what the owner's volume has of it
	inW, inJ   bool
	from       Seq // first batch of its present stay in W or J
	prev       Seq // its newest seq: what the next record's Prev must be
	acked      Seq // everything sent up to here is durable there
	said       Seq // how far its chain went, as it has said in this epoch; unlike acked it outlives W and J (B: C15, C26)
	touch      Seq // last seq <= commit that was sent to it
	told       Seq // commit point that it was told last
	sent       []sentRecord
	partSeq    Seq      // the newest batch of which it is a part, while that is being formed
	part       *prepare // its record
	partBlocks int
	durable    Seq    // its durable commit point
	credit     []owed // records above durable
	used       uint64 // bytes in credit

	drop       dropReason
	dropText   string
	inSyncVer  uint64 // largest version with which InSync was proposed for it, plus one
	rejoinNs   int64  // not before
	backoffNs  int64
	inSyncNs   int64 // since when it is in-sync again
	readFailed int64 // reads avoid it until then
}

// sentRecord is a record that the disk has not acknowledged yet; it is sent again on a new stream.
type sentRecord struct {
	rec    *Record
	sentNs int64
	live   bool // sent on the present stream
}

type owed struct {
	seq   Seq
	bytes uint64
}

// recordBytes is what a record costs against a disk's quota.
func recordBytes(r *Record) uint64 {
	return uint64(len(r.Blocks))*(BlockBytes+64) + uint64(len(r.Reqs))*64 + 256
}

func (o *Owner) send(x *disk, r *DiskRequest) {
	r.Vol, r.Disk, r.Epoch, r.Stream, r.From = o.v.ID, x.id, o.epoch, x.stream, o.cfg.Node
	o.fx.Requests = append(o.fx.Requests, r)
}

// openStream begins a new FIFO: Start is its first message, and nothing else goes before Started (A.4 ACTIVE).
func (o *Owner) openStream(x *disk) {
	if x.started || x.stream == 0 { // it owes an answer from here on; asking again gives it no more time
		x.downNs, x.asks = o.now, 0
	}
	x.asks++
	o.stream++
	x.stream, x.started, x.askedNs = o.stream, false, o.now
	for i := range x.sent {
		x.sent[i].live = false
	}
	o.send(x, &DiskRequest{Kind: ReqStart, ID: o.newID(), Acked: x.said, Hist: o.v.Hist, End: o.end, Forced: x.forgive,
		Since: o.v.Member(x.id).Since, Shards: o.v.ShardsOn(x.id)})
}

// streamBroken forgets what was under way on x's stream: reads go elsewhere, a resync or repair begins anew (A.4.2 Streams).
func (o *Owner) streamBroken(x *disk) {
	x.started = false
	x.stream = 0
	for i := range x.sent {
		x.sent[i].live = false
	}
	o.readsLost(x)
	o.copiesLost(x)
}

// startedReply resumes a stream where the disk says that its chain ends.
func (o *Owner) startedReply(x *disk, r *DiskReply) {
	if x.started {
		return
	}
	x.started, x.forgive, x.quota = true, false, r.Quota
	x.damaged = r.Damaged || r.EndSeq >= o.next // nobody has made such a record
	x.said = max(x.said, r.EndSeq)
	x.told, x.readFailed = r.Commit, 0
	if x.drop != dropDamaged {
		x.drop = dropNone
	}
	o.queue.dirty = true
	o.ackDurable(x, r.Commit)
	if x.damaged && (x.inW || x.inSync) {
		o.giveUp(x, dropDamaged, "it says that it is damaged")
		return
	}
	if !x.inW && !x.inJ {
		x.prev, x.acked = r.EndSeq, 0
		return
	}
	if !x.chained {
		x.chained, x.prev, x.acked = true, r.EndSeq, r.EndSeq
		return
	}
	o.resend(x, r.EndSeq)
}

// resend sends again what lies after the end of the disk's chain, which has to be a link of ours.
func (o *Owner) resend(x *disk, endseq Seq) {
	o.acknowledged(x, endseq)
	switch {
	case len(x.sent) == 0 && x.prev == endseq:
	case len(x.sent) > 0 && x.sent[0].rec.Prev == endseq:
		for i := range x.sent {
			x.sent[i].live, x.sent[i].sentNs = true, o.now
			o.sendPrepare(x, x.sent[i].rec, &DiskRequest{})
		}
	default:
		o.giveUp(x, dropGap, fmt.Sprintf("its chain ends at %d, which fits nothing that was sent", endseq))
	}
}

// sendPrepare sends a record with r, which is empty.
func (o *Owner) sendPrepare(x *disk, rec *Record, r *DiskRequest) {
	*r = DiskRequest{Kind: ReqPrepare, Rec: rec, Commit: o.commit, Touch: x.touch}
	o.send(x, r)
	x.told = o.commit
}

func (o *Owner) sendCommit(x *disk) {
	o.send(x, &DiskRequest{Kind: ReqCommit, Commit: o.commit, Touch: x.touch})
	x.told = o.commit
}

// prepare gives a disk its part of a batch, now or when its stream is started again.
func (o *Owner) prepare(x *disk, p *prepare) {
	rec := &p.rec
	rec.Prev = x.prev
	x.prev = rec.Seq
	n := recordBytes(rec)
	x.credit = append(x.credit, owed{rec.Seq, n})
	x.used += n
	x.sent = append(x.sent, sentRecord{rec: rec, sentNs: o.now, live: x.started})
	if x.started {
		o.sendPrepare(x, rec, &p.req)
	}
}

// ackReply takes a cumulative acknowledgement.
func (o *Owner) ackReply(x *disk, r *DiskReply) {
	x.said = max(x.said, r.Seq)
	o.acknowledged(x, r.Seq)
	o.ackDurable(x, r.Commit)
}

func (o *Owner) acknowledged(x *disk, n Seq) {
	i := 0
	for i < len(x.sent) && x.sent[i].rec.Seq <= n {
		x.acked = max(x.acked, x.sent[i].rec.Seq)
		i++
	}
	x.sent = slices.Delete(x.sent, 0, i)
}

// ackDurable gives credit back: what lies at or below the disk's durable commit point may be applied there.
func (o *Owner) ackDurable(x *disk, c Seq) {
	if c <= x.durable {
		return
	}
	x.durable = c
	i := 0
	for i < len(x.credit) && x.credit[i].seq <= c {
		x.used -= x.credit[i].bytes
		i++
	}
	x.credit = slices.Delete(x.credit, 0, i)
	if i > 0 {
		o.queue.dirty = true
	}
}

func (o *Owner) nackReply(x *disk, r *DiskReply) {
	switch r.Nack {
	case NackGone:
		o.giveUp(x, dropGone, "its node says that it is gone: "+r.Err)
	case NackGap:
		if x.started {
			o.streamBroken(x) // what is under way on it will not be answered
			o.openStream(x)
		}
	case NackRefused:
		o.refused(x, r)
	}
}

// watchStreams asks again for what was not answered, less and less often: a new stream makes void what a slow disk was about
// to answer on the last one.
func (o *Owner) watchStreams() {
	for _, x := range o.disks {
		if x.up && !x.started && (x.stream == 0 || o.now-x.askedNs >= retryNs<<min(x.asks-1, 4)) {
			o.openStream(x)
		}
	}
}

// tellCommit sends the commit point by itself to disks that no Prepare has told for a while, and at once to those whose
// quota is used up: they must get on for anything to get on (B: L4).
func (o *Owner) tellCommit() {
	for _, x := range o.disks {
		if !x.started || !x.inW && !x.inJ || x.told >= o.commit {
			continue
		}
		if (o.now-o.commitMoved >= o.cfg.CommitIdleNs || x.used > x.quota/2) && !mutated("L4") {
			o.sendCommit(x)
		}
	}
}

// readable reports whether d may be asked for old bytes: in-sync by Raft and in W, on a started stream, not damaged (A.4.2).
func (x *disk) readable() bool {
	return x.inW && x.inSync && x.up && x.started && !x.damaged && x.drop == dropNone
}
