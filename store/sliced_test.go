package store_test

import (
	"encoding/binary"
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// Under steady load checkpoints are made, and no group waits for them: the disk never syncs by itself, writes little between two
// groups, and goes on while a checkpoint's sync takes its time. Whenever the power fails, all that was acknowledged is there.
func TestCheckpointInPieces(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(7)
	began := u.d.Status().Checkpoints
	newest := map[uint32]raid.Seq{}
	var flush *store.SyncJob
	most, n := 0, raid.Seq(0)
	for n < 3000 {
		c := n
		n++
		no := uint32(n*37) % (4*raid.BlocksPerRegion - 1)
		newest[no], newest[no+1] = n, n
		syncs, ops := dev.Syncs(), dev.Ops()
		u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: rec(1, n, c, no, no+1), Commit: c, Touch: c})
		j := u.d.BeginSync()
		if n%97 == 0 { // the power fails before, while, and after a group is made durable
			u.cut(dev.Clone(uint64(n)), newest, c, n)
			torn := dev.Clone(uint64(n))
			torn.CrashAt(1)
			_ = j.On(torn).Run()
			u.cut(torn, newest, c, n)
		}
		u.d.EndSync(j, j.Run())
		if n%89 == 0 {
			u.cut(dev.Clone(uint64(n)), newest, n, n)
		}
		if _, err := u.d.Background(0); err != nil {
			t.Fatal(err)
		}
		if k := dev.Syncs() - syncs; k != 0 {
			t.Fatalf("group %d waited for %d syncs", n, k)
		}
		most = max(most, dev.Ops()-ops)
		switch {
		case flush == nil && u.d.SyncWanted():
			flush = u.d.BeginSync()
		case flush != nil && n%7 == 0:
			u.d.EndSync(flush, flush.Run())
			flush = nil
		}
	}
	made := u.d.Status().Checkpoints - began
	t.Logf("%d checkpoints, at most %d writes for one group", made, most)
	if made < 5 || most > 600 {
		t.Fatalf("%d checkpoints, %d writes for one group", made, most)
	}
}

// cut opens a copy of the disk after a power cut: all up to acked is there, what was not may be up to n.
func (u *user) cut(dev *disktest.Device, newest map[uint32]raid.Seq, acked, n raid.Seq) {
	u.t.Helper()
	dev.Crash()
	w := &user{t: u.t, dev: dev}
	w.open()
	rep, _ := w.takeover(7, 2, 1, []raid.HistRange{{From: 1, To: 1, End: n}}, 0)
	if rep.Damaged || rep.EndSeq < acked || rep.Commit+2 < acked {
		u.t.Fatalf("acknowledged %d: %+v", acked, rep)
	}
	for region := range uint32(4) {
		first := region * raid.BlocksPerRegion
		for i, b := range w.read(7, 2, rep.EndSeq, first, raid.BlocksPerRegion) {
			no := first + uint32(i)
			seq := newest[no]
			switch {
			case seq > rep.EndSeq:
			case b == nil:
				u.t.Fatalf("acknowledged %d: block %d of %d is bad", acked, no, seq)
			case seq > 0 && (b[8] != byte(seq) || binary.LittleEndian.Uint32(b) != no):
				u.t.Fatalf("acknowledged %d: block %d is not that of %d", acked, no, seq)
			}
		}
	}
}

// A disk whose device is slow is not idle: it goes on waiting, and does not load the device with what can wait. And when it is idle with
// much applied, that is synced by a job beside it, not while everybody waits.
func TestIdleCheckpointSyncsBeside(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(7)
	n := raid.Seq(0)
	prepare := func() *store.SyncJob {
		n++
		var nos []uint32
		for i := range uint32(16) {
			nos = append(nos, uint32(n)*16+i)
		}
		u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: rec(1, n, n-1, nos...), Commit: n - 1, Touch: n - 1})
		return u.d.BeginSync()
	}
	background := func(ns int64) {
		t.Helper()
		if _, err := u.d.Background(ns); err != nil {
			t.Fatal(err)
		}
	}
	for range 12 {
		j := prepare()
		u.d.EndSync(j, j.Run())
	}
	j := prepare()
	applied := u.d.Status().Applied
	background(10e9) // the job takes ten seconds
	u.d.EndSync(j, j.Run())
	background(10e9)
	if got := u.d.Status().Applied; got != applied {
		t.Fatalf("applied %d records while a group was being written", got-applied)
	}
	for range 20 { // no more than unsyncedMax at once, and then more
		j := prepare()
		u.d.EndSync(j, j.Run())
	}
	checkpoints, syncs := u.d.Status().Checkpoints, dev.Syncs()
	for ns := int64(20e9); ns < 30e9; ns += 50e6 {
		background(ns)
		if u.d.SyncWanted() {
			break
		}
	}
	if u.d.Status().Applied == applied || u.d.Status().Checkpoints != checkpoints || dev.Syncs() != syncs || !u.d.SyncWanted() {
		t.Fatalf("%d applied, %d checkpoints, %d syncs of its own, wants one beside: %v", u.d.Status().Applied-applied,
			u.d.Status().Checkpoints-checkpoints, dev.Syncs()-syncs, u.d.SyncWanted())
	}
	for ns := int64(30e9); ns < 40e9; ns += 50e6 {
		for u.d.SyncWanted() {
			j := u.d.BeginSync()
			u.d.EndSync(j, j.Run())
		}
		background(ns)
	}
	if u.d.Status().Checkpoints == checkpoints {
		t.Fatal("no checkpoint was made at last")
	}
}
