package disktest

import (
	"bytes"
	"testing"

	"clade/raid"
	"clade/store"
)

// rig asks one disk single things and fails the test when the answer is of another kind than expected.
type rig struct {
	t     testing.TB
	dev   store.Device
	disk  *store.Disk
	epoch map[raid.VolumeID]raid.Epoch
	strm  map[raid.VolumeID]raid.Stream
	prev  map[raid.VolumeID]raid.Seq
	now   int64
}

var rigShards = []raid.ShardRef{{Extent: 0, Gen: 1, Regions: 4}}

func newRig(t testing.TB, dev store.Device) *rig {
	t.Helper()
	r := &rig{t: t, dev: dev, epoch: map[raid.VolumeID]raid.Epoch{}, strm: map[raid.VolumeID]raid.Stream{}, prev: map[raid.VolumeID]raid.Seq{}}
	if err := store.Format(dev, ID, smallJournal); err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	r.disk = r.opened(store.Config{Node: 1, BootID: raid.BootID{1}})
}

func (r *rig) opened(cfg store.Config) *store.Disk {
	r.t.Helper()
	d, err := store.Open(r.dev, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// post hands a request over and returns what is answered without a sync.
func (r *rig) post(q *raid.DiskRequest) []raid.DiskReply {
	if q.Vol == 0 {
		q.Vol = 1
	}
	q.Disk, q.From = diskID, 1
	if q.Epoch == 0 {
		q.Epoch = r.epoch[q.Vol]
	}
	if q.Stream == 0 && q.Kind != raid.ReqFence {
		q.Stream = r.strm[q.Vol]
	}
	r.now += 1000
	return r.disk.Step(r.now, []*raid.DiskRequest{q})
}

func (r *rig) sync() []raid.DiskReply {
	var out []raid.DiskReply
	for r.disk.SyncWanted() {
		j := r.disk.BeginSync()
		out = append(out, r.disk.EndSync(j, j.Run())...)
	}
	return out
}

func (r *rig) all(q *raid.DiskRequest) []raid.DiskReply { return append(r.post(q), r.sync()...) }

func (r *rig) want(q *raid.DiskRequest, kind raid.ReplyKind) raid.DiskReply {
	r.t.Helper()
	out := r.all(q)
	for i := range out {
		if out[i].Kind == kind && out[i].Vol == q.Vol {
			return out[i]
		}
	}
	r.t.Fatalf("request %d of volume %d: no answer %d in %+v", q.Kind, q.Vol, kind, out)
	return raid.DiskReply{}
}

func (r *rig) create(vol raid.VolumeID) {
	r.t.Helper()
	r.want(&raid.DiskRequest{Kind: raid.ReqShards, Vol: vol, Shards: rigShards}, raid.RepShards)
	r.takeover(vol, 0, nil, 0)
}

func (r *rig) takeover(vol raid.VolumeID, since raid.Epoch, hist []raid.HistRange, end raid.Seq) (*raid.Report, raid.DiskReply) {
	r.t.Helper()
	r.epoch[vol]++
	r.strm[vol] = 1
	rep := r.want(&raid.DiskRequest{Kind: raid.ReqFence, Vol: vol, Since: since, Shards: rigShards}, raid.RepReport)
	st := r.want(&raid.DiskRequest{Kind: raid.ReqStart, Vol: vol, Hist: hist, End: end}, raid.RepStarted)
	r.prev[vol] = st.EndSeq
	return rep.Report, st
}

func (r *rig) record(vol raid.VolumeID, n raid.Seq, first, count uint32) *raid.Record {
	rec := &raid.Record{Epoch: r.epoch[vol], Seq: n, Prev: r.prev[vol], BID: uint64(n) + 1000, Parts: raid.NewDiskSet(diskID)}
	for i := range count {
		rec.Blocks = append(rec.Blocks, raid.Block{Gen: 1, No: first + i, Data: data(vol, n, first+i)})
	}
	r.prev[vol] = n
	return rec
}

func data(vol raid.VolumeID, n raid.Seq, no uint32) []byte {
	return pattern(vol, place{0, no}, n, 77)
}

func (r *rig) write(vol raid.VolumeID, n raid.Seq, first, count uint32, commit raid.Seq) raid.DiskReply {
	r.t.Helper()
	return r.want(&raid.DiskRequest{Kind: raid.ReqPrepare, Vol: vol, Rec: r.record(vol, n, first, count), Commit: commit}, raid.RepAck)
}

func (r *rig) commit(vol raid.VolumeID, c raid.Seq) raid.DiskReply {
	r.t.Helper()
	return r.want(&raid.DiskRequest{Kind: raid.ReqCommit, Vol: vol, Commit: c}, raid.RepAck)
}

func fillOf(vol raid.VolumeID, s, n raid.Seq, region, first, count uint32) *raid.DiskRequest {
	q := &raid.DiskRequest{Kind: raid.ReqFill, Vol: vol, S: s, R: n, Gen: 1, Region: region}
	for i := range count {
		no := region*raid.BlocksPerRegion + first + i
		q.Blocks = append(q.Blocks, raid.Block{Gen: 1, No: no, Data: data(vol, n, no)})
	}
	return q
}

// read returns one block as of s; nil is a BadBlock.
func (r *rig) read(vol raid.VolumeID, s raid.Seq, no uint32) []byte {
	r.t.Helper()
	return r.want(&raid.DiskRequest{Kind: raid.ReqRead, Vol: vol, S: s, Gen: 1, First: no, Count: 1}, raid.RepRead).Blocks[0]
}

func (r *rig) expect(vol raid.VolumeID, s raid.Seq, no uint32, n raid.Seq) {
	r.t.Helper()
	want := make([]byte, raid.BlockBytes)
	if n > 0 {
		want = data(vol, n, no)
	}
	switch b := r.read(vol, s, no); {
	case b == nil:
		r.t.Errorf("volume %d block %d as of %d is bad, want that of %d", vol, no, s, n)
	case !bytes.Equal(b, want):
		r.t.Errorf("volume %d block %d as of %d is not that of %d", vol, no, s, n)
	}
}

func (r *rig) expectBad(vol raid.VolumeID, s raid.Seq, no uint32) {
	r.t.Helper()
	if b := r.read(vol, s, no); b != nil {
		r.t.Errorf("volume %d block %d as of %d: %x... instead of BadBlock", vol, no, s, b[:8])
	}
}

// rest lets the disk apply all it may and checkpoint.
func (r *rig) rest() {
	r.t.Helper()
	for range 200 {
		r.now += 3_000_000_000
		if _, err := r.disk.Background(r.now); err != nil {
			r.t.Fatal(err)
		}
		r.sync()
	}
}
