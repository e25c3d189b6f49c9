package store_test

import (
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// after runs the disk's background work as a worker does, at times that lie so long after the last request.
func (u *user) after(ns int64) {
	u.t.Helper()
	for range 50 {
		more, err := u.d.Background(ns)
		if err != nil {
			u.t.Fatal(err)
		}
		for u.d.SyncWanted() {
			j := u.d.BeginSync()
			u.d.EndSync(j, j.Run())
		}
		if !more {
			return
		}
	}
	u.t.Fatal("background work without end")
}

// journalAt returns where the journal of newUser's disks begins: at the first group.
func journalAt(t *testing.T, dev store.Device) int64 {
	t.Helper()
	at := pagesAt(t, dev, []byte("CLGR"))
	if len(at) == 0 {
		t.Fatal("no group")
	}
	return at[0]
}

// The last group of a disk that has been idle for a moment is not taken for a torn one when it rots: what was acknowledged is there, or
// the disk says that it is damaged. With commits that came and without, when nothing can be applied.
func TestLastGroupRots(t *testing.T) {
	for _, blocks := range []int{1, 40} {
		for _, commit := range []bool{false, true} {
			dev := disktest.New(64<<20, 1)
			u := newUser(t, dev, 8<<20)
			u.make(7)
			base := journalAt(t, dev)
			n := raid.Seq(0)
			for range 5 {
				n++
				var nos []uint32
				for i := range uint32(blocks) {
					nos = append(nos, uint32(n)*50+i)
				}
				u.prepare(7, 0, 0, rec(1, n, n-1, nos...))
			}
			if commit {
				u.do(&raid.DiskRequest{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: 2, Touch: 2})
			}
			u.after(600e6) // far less than until an idle disk checkpoints
			end := base + u.d.JournalHead()
			for at := base; at < end; at += 512 * int64(blocks/8+1) {
				for _, how := range []string{"rot", "erase"} {
					d := dev.Clone(uint64(at))
					if how == "rot" {
						d.Rot(at, 512)
					} else {
						d.Erase(at, 512)
					}
					d.Crash()
					w := &user{t: t, dev: d}
					w.open()
					w.do(&raid.DiskRequest{Kind: raid.ReqShards, Since: 1, Shards: fourRegions}) // as its node does first
					rep, _ := w.takeover(7, 2, 1, []raid.HistRange{{From: 1, To: 1, End: n}}, 0)
					if !rep.Damaged && (rep.EndSeq != n || commit && rep.Commit != 2) {
						t.Fatalf("%d blocks, commit %v, %s at %d of %d: not damaged, but %+v", blocks, commit, how, at-base, end-base, rep)
					}
				}
			}
		}
	}
}

// An idle disk seals half a second after the last request, and not before: whoever writes while it does waits for its sync, too.
func TestSealAfterHalfASecond(t *testing.T) {
	u := newUser(t, disktest.New(64<<20, 1), 8<<20)
	u.make(7)
	u.prepare(7, 0, 0, rec(1, 1, 0, 5))
	for _, c := range []struct {
		ns    int64
		seals bool
	}{{0, false}, {50e6, false}, {499e6, false}, {500e6, true}} {
		if _, err := u.d.Background(c.ns); err != nil {
			t.Fatal(err)
		}
		if u.d.SyncWanted() != c.seals {
			t.Fatalf("after %d ms: sealing is %v", c.ns/1e6, !c.seals)
		}
	}
}

// An idle disk writes nothing more once the last group is vouched for.
func TestIdleIsQuiet(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(7)
	u.prepare(7, 0, 0, rec(1, 1, 0, 5)) // never committed
	for _, ns := range []int64{30e6, 60e6, 1e9, 3e9, 6e9} {
		u.after(ns)
	}
	ops := dev.Ops()
	for ns := int64(7e9); ns < 100e9; ns += 1e9 {
		u.after(ns)
	}
	if dev.Ops() != ops {
		t.Fatalf("%d writes and syncs of a disk that nobody uses", dev.Ops()-ops)
	}
}

// A part of the journal that cannot be read, and holds nothing that counts, costs nothing.
func TestUnreadableFreeJournal(t *testing.T) {
	for _, rest := range []bool{false, true} {
		dev := disktest.New(64<<20, 1)
		u := newUser(t, dev, 8<<20)
		u.make(7)
		base := journalAt(t, dev)
		for n := raid.Seq(1); n <= 5; n++ {
			u.prepare(7, n-1, n-1, rec(1, n, n-1, uint32(n)))
		}
		if rest {
			u.quiesce()
		}
		head := u.d.JournalHead()
		for at := int64(0); at < 8<<20; at += 4096 {
			if at > 64<<10 && at%(1<<20) != 0 {
				continue
			}
			d := dev.Clone(uint64(at))
			d.Latent(base+at, 4096)
			rep, err := store.Check(d, nil)
			if err != nil {
				t.Errorf("check, %d unreadable: %v", at, err)
			}
			w := &user{t: t, dev: d}
			w.open()
			w.do(&raid.DiskRequest{Kind: raid.ReqShards, Since: 1, Shards: fourRegions}) // as its node does first
			report, st := w.takeover(7, 2, 1, []raid.HistRange{{From: 1, To: 1, End: 5}}, 5)
			switch {
			case at > head: // never used
				if report.Damaged || st.Damaged || report.EndSeq != 5 {
					t.Errorf("rest %v, head %d, %d unreadable: %+v", rest, head, at, report)
				}
				if len(rep.Damage) > 0 && rep.Damage[0].Place != "journal" {
					t.Errorf("check, %d unreadable: %+v", at, rep.Damage)
				}
			case !report.Damaged && report.EndSeq != 5:
				t.Errorf("rest %v, head %d, %d unreadable: lost without a word: %+v", rest, head, at, report)
			}
		}
	}
}

// However much queues for one group, and whatever one request holds, the group can be read again.
func TestLargeMeta(t *testing.T) {
	dev := disktest.New(600<<20, 1)
	u := newUser(t, dev, 320<<20)
	u.make(7)
	n := raid.Seq(0)
	send := func(reqs int) (refused bool) {
		r := rec(1, n+1, n, 5)
		r.Reqs = make([]raid.ReqHeader, reqs)
		for _, a := range u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: r}) {
			if refused = a.Kind == raid.RepNack; refused {
				return refused
			}
		}
		n++
		return false
	}
	for range 6 {
		if send(80_000) {
			t.Fatal("refused")
		}
	}
	if !send(500_000) {
		t.Error("a record is accepted that no group can hold")
	}
	u.do(&raid.DiskRequest{Kind: raid.ReqVerify, Epoch: 1})
	dev.Crash()
	u.open()
	if rep, _ := u.takeover(7, 2, 1, []raid.HistRange{{From: 1, To: 1, End: n}}, 0); rep.Damaged || rep.EndSeq != n {
		t.Fatalf("acknowledged %d, there is %d, damaged %v", n, rep.EndSeq, rep.Damaged)
	}
}
