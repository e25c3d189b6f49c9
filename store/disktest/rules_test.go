package disktest

import (
	"errors"
	"syscall"
	"testing"

	"clade/raid"
	"clade/store"
)

func memory() *Device { return New(testBytes, 1) }

// An error of a write or a sync is final: nothing that waits is answered, everything later is NackGone, and what was acknowledged
// before is there after the next opening.
func TestFailureIsFinal(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault store.Faults
	}{
		{"sync EIO", store.Faults{Sync: syscall.EIO}},
		{"write EIO", store.Faults{Write: syscall.EIO}},
		{"write ENOSPC", store.Faults{Write: syscall.ENOSPC}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := memory()
			faulty := store.NewFaultDevice(dev)
			r := newRig(t, faulty)
			r.create(1)
			r.write(1, 1, 0, 2, 0)
			faulty.Set(c.fault)
			out := r.all(&raid.DiskRequest{Kind: raid.ReqPrepare, Rec: r.record(1, 2, 0, 2), Commit: 1})
			for _, a := range out {
				if a.Kind == raid.RepAck && a.Seq >= 2 {
					t.Errorf("acknowledged %d although the device failed", a.Seq)
				}
			}
			if err := r.disk.Failed(); !errors.Is(err, store.ErrFailed) {
				t.Fatalf("Failed() = %v", err)
			}
			faulty.Set(store.Faults{})
			for _, kind := range []raid.ReqKind{raid.ReqFence, raid.ReqStart, raid.ReqPrepare, raid.ReqRead, raid.ReqVerify, raid.ReqShards} {
				out := r.all(&raid.DiskRequest{Kind: kind, Epoch: 9, Rec: r.record(1, 3, 0, 1), Gen: 1, Count: 1, Shards: rigShards})
				if len(out) != 1 || out[0].Kind != raid.RepNack || out[0].Nack != raid.NackGone {
					t.Errorf("request %d after the failure: %+v", kind, out)
				}
			}
			dev.Crash()
			r.open()
			rep, st := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 1, End: 1}}, 1)
			if rep.Damaged || st.Damaged || rep.EndSeq < 1 {
				t.Fatalf("after the crash: %+v", rep)
			}
			r.expect(1, 1, 0, 1)
		})
	}
}

// Any number of Fills may queue while a sync is under way; the journal is smaller than they are.
func TestFlood(t *testing.T) {
	r := newRig(t, memory())
	for vol := raid.VolumeID(1); vol <= 3; vol++ {
		r.create(vol)
		r.write(vol, 1, 0, 1, 0)
		r.commit(vol, 1)
	}
	r.write(1, 2, 1000, 4, 0) // pins the tail
	r.post(&raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 1, Rec: r.record(1, 3, 1010, 4)})
	job := r.disk.BeginSync()
	filled := 0
	count := func(out []raid.DiskReply) {
		for _, a := range out {
			switch a.Kind {
			case raid.RepFilled:
				filled++
			case raid.RepNack:
				t.Fatalf("refused: %+v", a)
			}
		}
	}
	for n := raid.Seq(1); n <= 5; n++ {
		for vol := raid.VolumeID(2); vol <= 3; vol++ {
			for region := range uint32(4) {
				count(r.post(fillOf(vol, 1, 1, region, 0, raid.BlocksPerRegion)))
			}
		}
	}
	count(r.disk.EndSync(job, job.Run()))
	count(r.sync())
	if filled != 40 {
		t.Fatalf("%d of 40 Fills were answered", filled)
	}
	r.rest()
	for no := uint32(0); no < 4*raid.BlocksPerRegion; no += 37 {
		r.expect(2, 1, no, 1)
		r.expect(3, 1, no, 1)
	}
	r.expect(1, 3, 1010, 3)
	r.expect(1, 1, 1010, 0)
}

// A volume whose owner hangs with uncommitted records keeps them, for ever, and costs the others nothing (B: L4, L12).
func TestPinnedRecords(t *testing.T) { pinnedRecords(t) }

func pinnedRecords(t testing.TB) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.create(2)
	used := 0
	_, st := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 1, End: 0}}, 0)
	last := raid.Seq(0)
	for used+5*4500 < int(st.Quota) {
		last++
		r.write(1, last, uint32(last)*4%1000, 4, 0)
		used += 5 * 4500
	}
	for n := raid.Seq(1); n <= 1500; n++ {
		if a := r.write(2, n, uint32(n*7)%1000, 8, n-1); a.Seq != n {
			t.Fatalf("ack %d of %d", a.Seq, n)
		}
		if n%5 == 0 {
			r.now += 1e9
			if _, err := r.disk.Background(r.now); err != nil {
				t.Fatal(err)
			}
		}
	}
	dev.Crash()
	r.open()
	rep, _ := r.takeover(1, 2, []raid.HistRange{{From: 0, To: 1, End: 0}, {From: 2, To: 2, End: last}}, last)
	if len(rep.Records) != int(last) || rep.Damaged || rep.Commit != 0 {
		t.Fatalf("%d of %d pinned records, damaged %v, commit %d", len(rep.Records), last, rep.Damaged, rep.Commit)
	}
	r.expect(1, last, uint32(last)*4%1000, last)
	if rep, _ := r.takeover(2, 1, []raid.HistRange{{From: 0, To: 1, End: 1500}}, 1500); rep.Damaged || rep.EndSeq != 1500 {
		t.Fatalf("the other volume: %+v", rep)
	}
}

// When the durable commit point has risen and nothing else is to be answered, the owner is told: it needs its credit back (B: L4).
func TestCommitIsAcknowledged(t *testing.T) {
	r := newRig(t, memory())
	r.create(1)
	r.write(1, 1, 0, 1, 0)
	if a := r.commit(1, 1); a.Commit != 1 || a.Seq != 1 || a.Epoch != 1 || a.Stream != 1 {
		t.Fatalf("%+v", a)
	}
}

// What rots in place is BadBlock, never data, and a Fill of the block cures it; a lost page of checksums makes its whole region
// bad, in part cured by what is written (S6, B: C27).
func TestRot(t *testing.T) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.write(1, 1, 0, 8, 0)
	r.commit(1, 1)
	r.rest()
	at := inPlace(dev, data(1, 1, 3))
	if at < 0 {
		t.Fatal("the block is not in place")
	}
	dev.Rot(at, 512)
	r.expectBad(1, 1, 3)
	r.expect(1, 1, 4, 1)
	r.want(fillOf(1, 1, 1, 0, 3, 1), raid.RepFilled)
	r.expect(1, 1, 3, 1)
	r.rest()
	dev.Latent(at, 512)
	r.expectBad(1, 1, 3)
	r.expect(1, 1, 2, 1)
	r.want(fillOf(1, 1, 1, 0, 3, 1), raid.RepFilled)
	r.expect(1, 1, 3, 1)
	r.rest()
	if rep, err := store.Check(dev, nil); err != nil || len(rep.Damage) > 0 {
		t.Fatalf("check: %v %+v", err, rep.Damage)
	}
}

// inPlace returns where a block's bytes are in the data area, -1 if they are not.
func inPlace(dev *Device, want []byte) int64 {
	b := make([]byte, raid.BlockBytes)
	for off := int64(testBytes) - 30<<20; off < testBytes; off += raid.BlockBytes {
		if _, err := dev.ReadAt(b, off); err == nil && string(b) == string(want) {
			return off
		}
	}
	return -1
}

// rolledBack is a rig whose device is as it was before its newest record was acknowledged.
func rolledBack(t testing.TB) *rig {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.write(1, 1, 0, 1, 0)
	old := dev.Clone(2)
	r.write(1, 2, 0, 1, 1)
	r.dev = old
	r.open()
	return r
}

// A disk that was rolled back says so, and goes on saying so until it is wiped (B: C26).
func TestRolledBack(t *testing.T) {
	t.Run("records", func(t *testing.T) { ackedGone(t) })
	t.Run("fence", func(t *testing.T) { fenceFell(t) })
	t.Run("start", func(t *testing.T) { startFell(t) })
	t.Run("shard", func(t *testing.T) { shardMissing(t) })
}

func ackedGone(t testing.TB) {
	r := rolledBack(t)
	if st := r.want(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 2, Acked: 2}, raid.RepStarted); !st.Damaged || st.EndSeq != 1 {
		t.Fatalf("%+v", st)
	}
	r.open()
	if st := r.want(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 3}, raid.RepStarted); !st.Damaged {
		t.Fatalf("it forgot that it was damaged")
	}
	r.want(&raid.DiskRequest{Kind: raid.ReqWipe, Stream: 3}, raid.RepWiped)
	r.open()
	if st := r.want(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 4}, raid.RepStarted); st.Damaged || st.EndSeq != 0 || st.Commit != 0 {
		t.Fatalf("after a wipe: %+v", st)
	}
}

// startFell is the fence, or the start, that fell of a disk that comes back while an owner serves: it gets no Fence.
func startFell(t testing.TB) {
	closed := []raid.HistRange{{From: 1, To: 7, End: 2}}
	for _, q := range []raid.DiskRequest{{Since: 7}, {Since: 1, Acked: 1}} {
		r := rolledBack(t)
		for stream := raid.Stream(1); stream < 3; stream++ { // the second time its fence is new enough, but it remembers
			start := q
			start.Kind, start.Epoch, start.Hist, start.End, start.Stream = raid.ReqStart, 8, closed, 2, stream
			if st := r.want(&start, raid.RepStarted); !st.Damaged {
				t.Fatalf("since %d, acknowledged %d, stream %d: %+v", q.Since, q.Acked, stream, st)
			}
			r.open()
		}
	}
	r := rolledBack(t)
	if st := r.want(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 8, Since: 1, Hist: closed, End: 2, Stream: 1}, raid.RepStarted); st.Damaged {
		t.Fatalf("a disk that was only away: %+v", st)
	}
}

func fenceFell(t testing.TB) {
	r := rolledBack(t)
	for e := raid.Epoch(8); e < 10; e++ { // the second time its fence is new enough, but it remembers
		if rep := r.want(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: e, Since: 7, Shards: rigShards}, raid.RepReport); !rep.Report.Damaged {
			t.Fatalf("fence %d: %+v", e, rep.Report)
		}
	}
}

func shardMissing(t testing.TB) {
	r := rolledBack(t)
	more := append([]raid.ShardRef{{Extent: 1, Gen: 1, Regions: 2}}, rigShards...)
	if rep := r.want(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 2, Since: 1, Shards: more}, raid.RepReport); !rep.Report.Damaged {
		t.Fatalf("fence: %+v", rep.Report)
	}
	r = rolledBack(t)
	r.want(&raid.DiskRequest{Kind: raid.ReqShards, Shards: more, Since: 1}, raid.RepShards)
	if rep := r.want(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 2, Since: 1, Shards: more}, raid.RepReport); !rep.Report.Damaged {
		t.Fatalf("shards, then fence: %+v", rep.Report)
	}
}

// A hole in the journal before what is whole is damage of every volume; a torn end is not (B: C15c).
func TestHoleInJournal(t *testing.T) {
	t.Run("whole", func(t *testing.T) { hole(t, func(*Device, []int64) {}, false) })
	t.Run("last group", func(t *testing.T) { hole(t, func(d *Device, at []int64) { d.Rot(at[len(at)-1], 512) }, false) })
	t.Run("group before the last", func(t *testing.T) { holeBeforeLast(t) })
	t.Run("first group", func(t *testing.T) { hole(t, func(d *Device, at []int64) { d.Rot(at[0], 512) }, true) })
	t.Run("unreadable", func(t *testing.T) { hole(t, func(d *Device, at []int64) { d.Latent(at[1], 512) }, true) })
}

func holeBeforeLast(t testing.TB) {
	hole(t, func(d *Device, at []int64) { d.Rot(at[len(at)-2], 512) }, true)
}

// hole spoils blocks of five groups in the journal and asks both volumes whether they are damaged.
func hole(t testing.TB, spoil func(dev *Device, at []int64), damaged bool) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.create(2)
	for n := raid.Seq(1); n <= 5; n++ {
		r.write(1, n, uint32(n), 1, 0)
	}
	var at []int64
	b := make([]byte, raid.BlockBytes)
	for off := int64(0); off < testBytes && len(at) < 5; off += 4096 {
		n := raid.Seq(len(at) + 1)
		if _, err := dev.ReadAt(b, off); err == nil && string(b) == string(data(1, n, uint32(n))) {
			at = append(at, off)
		}
	}
	if len(at) != 5 {
		t.Fatalf("%d blocks in the journal", len(at))
	}
	spoil(dev, at)
	for range 2 { // it remembers
		r.open()
		for vol := raid.VolumeID(1); vol <= 2; vol++ {
			r.epoch[vol]++
			rep := r.want(&raid.DiskRequest{Kind: raid.ReqFence, Vol: vol, Shards: rigShards}, raid.RepReport).Report
			if rep.Damaged != damaged {
				t.Fatalf("volume %d: damaged is %v, want %v", vol, rep.Damaged, damaged)
			}
		}
	}
}

// What a former stream of the same epoch still delivers is dropped (B: C22).
func TestFormerStream(t *testing.T) { formerStream(t) }

func formerStream(t testing.TB) {
	r := newRig(t, memory())
	r.create(1)
	r.write(1, 1, 0, 1, 0)
	r.strm[1] = 2
	r.want(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 2, Acked: 1}, raid.RepStarted)
	old := fillOf(1, 1, 1, 0, 0, 1)
	old.Blocks[0].Data = make([]byte, raid.BlockBytes)
	old.Stream = 1
	if out := r.all(old); len(out) != 0 {
		t.Fatalf("a Fill of the former stream was answered: %+v", out)
	}
	if out := r.all(&raid.DiskRequest{Kind: raid.ReqPrepare, Stream: 1, Rec: r.record(1, 2, 0, 1)}); len(out) != 0 {
		t.Fatalf("a Prepare of the former stream was answered: %+v", out)
	}
	r.commit(1, 1)
	r.expect(1, 1, 0, 1)
}

// The last Fill of a resync says that everything up to it is committed: the disk reports so after a crash, or what it was given
// without the records would look like a gap (B: C9).
func TestLastFillCommits(t *testing.T) { lastFillCommits(t) }

func lastFillCommits(t testing.TB) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.write(1, 1, 0, 1, 1)
	for region := range uint32(3) {
		r.want(fillOf(1, 9, 7, region, 0, 2), raid.RepFilled)
	}
	r.want(&raid.DiskRequest{Kind: raid.ReqFill, S: 9, Last: true}, raid.RepFilled)
	dev.Crash()
	r.open()
	if rep, _ := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 1, End: 9}}, 9); rep.Commit != 9 || rep.EndSeq != 9 || rep.Base != 9 {
		t.Fatalf("%+v", rep)
	}
}

// A repair takes no record with it (B: C21).
func TestRepairKeepsRecords(t *testing.T) { repairKeeps(t) }

func repairKeeps(t testing.TB) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.write(1, 1, 5, 1, 0)
	r.write(1, 2, 6, 2, 1)
	r.want(&raid.DiskRequest{Kind: raid.ReqFill, S: 2, R: 2, Gen: 1, Blocks: []raid.Block{{Gen: 1, No: 6, Data: data(1, 2, 6)}}}, raid.RepFilled)
	dev.Crash()
	r.open()
	rep, _ := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 1, End: 2}}, 2)
	if rep.EndSeq != 2 {
		t.Fatalf("%+v", rep)
	}
	for no, n := range map[uint32]raid.Seq{5: 1, 6: 2, 7: 2} {
		r.expect(1, 2, no, n)
	}
}

// A Fill is refused when the region has changed since what it was made from (B: C13).
func TestFillGuard(t *testing.T) {
	r := newRig(t, memory())
	r.create(1)
	r.write(1, 1, 5, 1, 0)
	r.write(1, 2, 6, 1, 1)
	refused := func(when string) {
		t.Helper()
		if out := r.want(fillOf(1, 1, 1, 0, 9, 1), raid.RepNack); out.Nack != raid.NackRefused {
			t.Fatalf("%s: %+v", when, out)
		}
		r.want(fillOf(1, 1, 1, 1, 9, 1), raid.RepFilled) // another region
	}
	refused("in the journal")
	r.commit(1, 2)
	r.rest()
	refused("in place")
}

// Lower epochs are refused, after a power cut too (B: C10).
func TestFence(t *testing.T) { fence(t, false); fence(t, true) }

func fence(t testing.TB, crash bool) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.write(1, 1, 0, 1, 0)
	r.want(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 5, Since: 1, Shards: rigShards}, raid.RepReport)
	if crash {
		dev.Crash()
		r.open()
	}
	for _, q := range []*raid.DiskRequest{
		{Kind: raid.ReqPrepare, Rec: r.record(1, 2, 0, 1)}, {Kind: raid.ReqStart, Stream: 9}, {Kind: raid.ReqFence, Epoch: 4},
		{Kind: raid.ReqVerify}, {Kind: raid.ReqCommit, Commit: 1}, {Kind: raid.ReqRead, Gen: 1, Count: 1},
	} {
		out := r.all(q)
		if len(out) != 1 || out[0].Kind != raid.RepNack || out[0].Nack != raid.NackFence || out[0].Fence != 5 {
			t.Fatalf("request %d of epoch %d: %+v", q.Kind, q.Epoch, out)
		}
	}
}

// A late returner has 1:2 and 1:3, the main line 1:1, 2:2, 2:3: it keeps 1:1 only. Cutting by seq would keep them (B: C10c).
func TestLateReturner(t *testing.T) { lateReturner(t) }

func lateReturner(t testing.TB) {
	r := newRig(t, memory())
	r.create(1)
	for n := raid.Seq(1); n <= 3; n++ {
		r.write(1, n, uint32(n), 1, 0)
	}
	r.epoch[1] = 2
	_, st := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 1, End: 1}, {From: 2, To: 2, End: 3}}, 3)
	if st.EndSeq != 1 || st.Damaged {
		t.Fatalf("%+v", st)
	}
	r.open()
	if rep, _ := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 1, End: 1}, {From: 2, To: 3, End: 3}}, 3); len(rep.Records) > 0 || rep.EndSeq != 1 {
		t.Fatalf("%+v", rep)
	}
}

// A record of an epoch that history does not know is worth nothing: the disk is damaged.
func TestUnknownEpoch(t *testing.T) {
	r := newRig(t, memory())
	r.create(1)
	r.write(1, 1, 0, 1, 0)
	if _, st := r.takeover(1, 1, []raid.HistRange{{From: 0, To: 0, End: 0}}, 1); !st.Damaged {
		t.Fatalf("%+v", st)
	}
}

// A page of checksums of which the newer copy is lost is damage: the older one calls blocks never written that have been
// (S6, B: C27). What is written afterwards is good again, and the rest stays bad.
func TestLostPage(t *testing.T) { lostPage(t) }

func lostPage(t testing.TB) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.rest()
	before := dev.Clone(3)
	r.write(1, 1, 0, 4, 0)
	r.commit(1, 1)
	r.rest()
	b, old := make([]byte, 4096), make([]byte, 4096)
	lost := 0
	for off := int64(8 << 20 / 2); off < testBytes; off += 4096 {
		if _, err := dev.ReadAt(b, off); err != nil || string(b[:4]) != "CLPG" {
			continue
		}
		if _, err := before.ReadAt(old, off); err == nil && string(old) != string(b) {
			dev.Erase(off, 4096)
			lost++
		}
	}
	if lost != 1 {
		t.Fatalf("%d pages have changed", lost)
	}
	r.open()
	r.strm[1] = 2
	r.want(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 2, Acked: 1}, raid.RepStarted)
	for no := range uint32(4) {
		if b := r.read(1, 1, no); b != nil {
			t.Fatalf("block %d: %x... instead of BadBlock", no, b[:8])
		}
	}
	regions := r.want(&raid.DiskRequest{Kind: raid.ReqRegions, S: 1, Gen: 1}, raid.RepRegions).Regions
	if regions[0] != 1 || regions[1] != 0 {
		t.Fatalf("regions %v", regions)
	}
	r.want(fillOf(1, 1, 1, 0, 2, 1), raid.RepFilled)
	r.rest()
	r.open()
	r.strm[1] = 3
	r.want(&raid.DiskRequest{Kind: raid.ReqStart, Stream: 3, Acked: 1}, raid.RepStarted)
	r.expect(1, 1, 2, 1)
	r.expectBad(1, 1, 3)
	r.expectBad(1, 1, 200)
}

// What the owner calls committed is written in place only when that is durable (I5, B: C25).
func TestApplyWaitsForCommit(t *testing.T) { applyWaits(t) }

func applyWaits(t testing.TB) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	r.write(1, 1, 0, 1, 0)
	r.post(&raid.DiskRequest{Kind: raid.ReqCommit, Commit: 1})
	for range 20 {
		r.now += 3_000_000_000
		if _, err := r.disk.Background(r.now); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if at := inPlace(dev, data(1, 1, 0)); at >= 0 {
		t.Fatalf("it is at %d although the commit point is not durable", at)
	}
	r.sync()
	r.rest()
	if inPlace(dev, data(1, 1, 0)) < 0 {
		t.Fatalf("it is not in place although the commit point is durable")
	}
}

// While a large shard is made or wiped, other volumes of the disk go on; what is asked for is answered when it is durable.
func TestLargeShard(t *testing.T) { largeShard(t) }

func largeShard(t testing.TB) {
	dev := memory()
	r := newRig(t, dev)
	r.create(1)
	large := []raid.ShardRef{{Extent: 0, Gen: 1, Regions: 20}}
	r.disk = r.opened(store.Config{Node: 1, AtOnce: 4})
	r.strm[1] = 2
	r.want(&raid.DiskRequest{Kind: raid.ReqStart, Vol: 1}, raid.RepStarted)
	r.write(1, 1, 0, 1, 0)

	n := raid.Seq(1)
	drive := func(kind raid.ReplyKind) {
		t.Helper()
		for range 40 {
			n++
			out := r.all(&raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 1, Rec: r.record(1, n, 0, 1)})
			acked := false
			for _, a := range out {
				if a.Kind == kind && a.Vol == 2 {
					return
				}
				acked = acked || a.Kind == raid.RepAck && a.Vol == 1 && a.Seq == n
			}
			if !acked {
				t.Fatalf("the other volume waits: %+v", out)
			}
			if _, err := r.disk.Background(r.now); err != nil {
				t.Fatal(err)
			}
		}
		t.Fatalf("no answer %d", kind)
	}
	for range 2 { // asked twice, made once
		if out := r.post(&raid.DiskRequest{Kind: raid.ReqShards, Vol: 2, Shards: large}); len(out) > 0 {
			t.Fatalf("answered before it is there: %+v", out)
		}
	}
	drive(raid.RepShards)
	r.epoch[2], r.strm[2] = 1, 1
	r.want(&raid.DiskRequest{Kind: raid.ReqFence, Vol: 2, Shards: large}, raid.RepReport)
	r.want(&raid.DiskRequest{Kind: raid.ReqStart, Vol: 2}, raid.RepStarted)
	r.write(2, 1, 5000, 2, 0)
	r.commit(2, 1)
	r.post(&raid.DiskRequest{Kind: raid.ReqWipe, Vol: 2, Shards: large})
	r.sync()
	crashed := dev.Clone(11)
	drive(raid.RepWiped)
	r.expect(2, 0, 5000, 0)

	// In the middle of a wipe the volume is damaged: what is left of it is not to be believed.
	crashed.Crash()
	r.dev = crashed
	r.open()
	r.epoch[2] = 2
	if rep := r.want(&raid.DiskRequest{Kind: raid.ReqFence, Vol: 2, Shards: large}, raid.RepReport); !rep.Report.Damaged {
		t.Fatalf("half wiped: %+v", rep.Report)
	}
}
