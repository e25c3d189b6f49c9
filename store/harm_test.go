package store_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

var fourRegions = []raid.ShardRef{{Extent: 0, Gen: 1, Regions: 4}}

// user drives one disk with one or more volumes as an owner would.
type user struct {
	t   *testing.T
	dev store.Device
	d   *store.Disk
}

func newUser(t *testing.T, dev store.Device, journal int64) *user {
	t.Helper()
	id := store.Identity{Cluster: [16]byte{1}, UUID: [16]byte{2}, Disk: 3}
	if err := store.Format(dev, id, store.FormatOptions{JournalBytes: journal}); err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, dev: dev}
	u.open()
	return u
}

func (u *user) open() {
	u.t.Helper()
	var err error
	if u.d, err = store.Open(u.dev, store.Config{CacheBytes: 1}); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) send(r *raid.DiskRequest) []raid.DiskReply {
	if r.Vol == 0 {
		r.Vol = 7
	}
	r.Disk, r.From = 3, 1
	return u.d.Step(0, []*raid.DiskRequest{r})
}

func (u *user) do(r *raid.DiskRequest) []raid.DiskReply {
	out := u.send(r)
	for u.d.SyncWanted() {
		j := u.d.BeginSync()
		out = append(out, u.d.EndSync(j, j.Run())...)
	}
	return out
}

func (u *user) make(vol raid.VolumeID) {
	u.do(&raid.DiskRequest{Vol: vol, Kind: raid.ReqShards, Shards: fourRegions})
	u.takeover(vol, 1, 0, nil, 0)
}

func (u *user) takeover(vol raid.VolumeID, e, since raid.Epoch, hist []raid.HistRange, end raid.Seq) (*raid.Report, raid.DiskReply) {
	u.t.Helper()
	out := u.do(&raid.DiskRequest{Vol: vol, Kind: raid.ReqFence, Epoch: e, Since: since, Shards: fourRegions})
	if len(out) != 1 || out[0].Report == nil {
		u.t.Fatalf("fence: %+v", out)
	}
	rep := out[0].Report
	out = u.do(&raid.DiskRequest{Vol: vol, Kind: raid.ReqStart, Epoch: e, Stream: 1, Hist: hist, End: end})
	if len(out) < 1 || out[0].Kind != raid.RepStarted {
		u.t.Fatalf("start: %+v", out)
	}
	return rep, out[0]
}

func fillBlock(x byte) []byte {
	b := bytes.Repeat([]byte{x}, raid.BlockBytes)
	return b
}

func rec(e raid.Epoch, n, prev raid.Seq, nos ...uint32) *raid.Record {
	r := &raid.Record{Epoch: e, Seq: n, Prev: prev, BID: uint64(n)<<8 | uint64(e), Parts: raid.DiskSet{3}}
	for _, no := range nos {
		b := fillBlock(byte(n))
		binary.LittleEndian.PutUint32(b, no)
		r.Blocks = append(r.Blocks, raid.Block{Gen: 1, No: no, Data: b})
	}
	return r
}

func (u *user) prepare(vol raid.VolumeID, c, touch raid.Seq, r *raid.Record) []raid.DiskReply {
	return u.do(&raid.DiskRequest{Vol: vol, Kind: raid.ReqPrepare, Epoch: r.Epoch, Stream: 1, Rec: r, Commit: c, Touch: touch})
}

func (u *user) quiesce() {
	u.t.Helper()
	for i := range int64(20) {
		if _, err := u.d.Background(1e9 * (i + 10)); err != nil {
			u.t.Fatal(err)
		}
		for u.d.SyncWanted() {
			j := u.d.BeginSync()
			u.d.EndSync(j, j.Run())
		}
	}
}

func (u *user) read(vol raid.VolumeID, e raid.Epoch, s raid.Seq, first, n uint32) [][]byte {
	u.t.Helper()
	out := u.do(&raid.DiskRequest{Vol: vol, Kind: raid.ReqRead, Epoch: e, Stream: 1, S: s, Gen: 1, First: first, Count: n})
	if len(out) != 1 || out[0].Kind != raid.RepRead {
		u.t.Fatalf("read: %+v", out)
	}
	return out[0].Blocks
}

// pagesAt returns where in the device a sequence of bytes begins.
func pagesAt(t *testing.T, dev store.Device, what []byte) (at []int64) {
	b := make([]byte, 1<<20)
	for off := int64(0); off < dev.Size(); off += int64(len(b)) {
		if _, err := dev.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(b); i += 4096 {
			if bytes.HasPrefix(b[i:], what) {
				at = append(at, off+int64(i))
			}
		}
	}
	return at
}

// A group torn at the journal's end and the next one at its start: the stale header must not hide what was acknowledged.
func TestTornThenWrapped(t *testing.T) {
	tried, lost := 0, 0
	for seed := uint64(1); seed < 40; seed++ {
		dev := disktest.New(64<<20, seed)
		u := newUser(t, dev, 8<<20)
		u.make(7)
		n := raid.Seq(0)
		for u.d.JournalHead() != 8<<20-16<<10 { // groups of 8 KiB, commits of 4 KiB
			if u.d.JournalHead() > 8<<20-24<<10 {
				u.do(&raid.DiskRequest{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: n, Touch: n})
				if u.d.JournalHead() != 8<<20-16<<10 {
					n++
					u.prepare(7, n-1, n-1, rec(1, n, n-1, 1))
				}
				continue
			}
			n++
			u.prepare(7, n-1, n-1, rec(1, n, n-1, 1))
			if n%20 == 0 {
				u.quiesce()
			}
		}
		// a group of four pages that is torn
		u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: rec(1, n+1, n, 2, 3, 4), Commit: n, Touch: n})
		j := u.d.BeginSync()
		dev.CrashAt(1)
		_ = j.Run()
		dev.PowerOn()
		hist := []raid.HistRange{{From: 1, To: 1, End: n}}
		probe := &user{t: t, dev: dev.Clone(1)}
		probe.open()
		if rep, _ := probe.takeover(7, 2, 1, hist, n); rep.EndSeq != n {
			continue // it is whole
		}
		u.open()
		var nos []uint32
		for i := range uint32(40) {
			nos = append(nos, i)
		}
		var out []raid.DiskReply // one group that does not fit behind the torn one
		out = append(out, u.send(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 2, Since: 1, Shards: fourRegions})...)
		out = append(out, u.send(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 2, Stream: 1, Hist: hist, End: n})...)
		out = append(out, u.prepare(7, n, n, rec(2, n+1, n, nos...))...)
		if len(out) == 0 || out[0].Report == nil {
			t.Fatalf("%+v", out)
		}
		tried++
		dev.Crash()
		u.open()
		rep, _ := u.takeover(7, 3, 2, append(hist, raid.HistRange{From: 2, To: 2, End: n + 1}), n)
		if rep.EndSeq != n+1 || rep.Damaged || rep.Start != 2 {
			lost++
			t.Logf("seed %d: acknowledged %d, reports %d, start %d, damaged %v", seed, n+1, rep.EndSeq, rep.Start, rep.Damaged)
		}
	}
	if lost > 0 || tried == 0 {
		t.Fatalf("%d of %d times", lost, tried)
	}
}

// What the last Fill covers is not acknowledged before it is durable.
func TestBaseTooEarly(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(7)
	u.send(&raid.DiskRequest{Kind: raid.ReqPrepare, Epoch: 1, Stream: 1, Rec: rec(1, 1, 0, 1)})
	j := u.d.BeginSync()
	u.send(&raid.DiskRequest{Kind: raid.ReqFill, Epoch: 1, Stream: 1, S: 9, R: 9, Gen: 1, Last: true})
	for _, r := range u.d.EndSync(j, j.Run()) {
		if r.Kind == raid.RepAck && r.Seq > 1 {
			t.Fatalf("acknowledges %d, durable is 1", r.Seq)
		}
	}
}

// A superblock, or a checkpoint's image, that is lost costs neither the disk nor, unnoticed, anything that was acknowledged since.
func TestLostSuperblock(t *testing.T) {
	for _, lives := range []int{0, 1, 2} {
		for _, how := range []string{"rot", "latent", "erase"} {
			for at := int64(0); at < 8192+2<<20; at += 4096 {
				if at >= 8192 && at%(1<<20) != 8192 {
					continue // of the images, where they begin
				}
				dev := disktest.New(64<<20, 1)
				u := newUser(t, dev, 8<<20)
				u.make(7)
				for range lives {
					u.open()
				}
				hist := []raid.HistRange{{From: 1, To: 1}}
				u.takeover(7, 2, 1, hist, 0)
				u.prepare(7, 0, 0, rec(2, 1, 0, 5))
				switch how {
				case "rot":
					dev.Rot(at, 512)
				case "latent":
					dev.Latent(at, 512)
				default:
					dev.Erase(at, 4096)
				}
				u.open()
				u.do(&raid.DiskRequest{Kind: raid.ReqShards, Since: 2, Shards: fourRegions}) // as its node does first
				out := u.do(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 3, Since: 2, Shards: fourRegions})
				if rep := out[0].Report; !rep.Damaged && (rep.Start != 2 || rep.EndSeq != 1) {
					t.Errorf("lives %d, %s at %d: %+v", lives, how, at, rep)
				}
			}
		}
	}
}

// A page whose newest copy has rotted: what the older one calls never written is damage, not zeros.
func TestRottenPage(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(7)
	u.prepare(7, 0, 0, rec(1, 1, 0, 5))
	u.do(&raid.DiskRequest{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: 1, Touch: 1})
	u.quiesce()
	u.prepare(7, 1, 1, rec(1, 2, 1, 6))
	u.do(&raid.DiskRequest{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: 2, Touch: 2})
	u.quiesce()
	if b := u.read(7, 1, 2, 6, 1); b[0] == nil || b[0][8] != 2 {
		t.Fatalf("before: %v", b[0][:16])
	}
	for _, at := range pagesAt(t, dev, []byte("CLPG")) {
		b := make([]byte, 4096)
		_, _ = dev.ReadAt(b, at)
		if binary.LittleEndian.Uint32(b[36:]) != 0 {
			continue
		}
		for _, how := range []string{"rot", "latent"} {
			c := dev.Clone(9)
			if how == "rot" {
				c.Rot(at, 512)
			} else {
				c.Latent(at, 512)
			}
			w := &user{t: t, dev: c}
			d, err := store.Open(c, store.Config{CacheBytes: 1})
			if err != nil {
				t.Errorf("%s page at %d: %v", how, at, err)
				continue
			}
			w.d = d
			w.takeover(7, 2, 1, []raid.HistRange{{From: 1, To: 1, End: 2}}, 2)
			out := w.do(&raid.DiskRequest{Kind: raid.ReqRead, Epoch: 2, Stream: 1, S: 2, Gen: 1, First: 6, Count: 1})
			if len(out) != 1 || out[0].Kind != raid.RepRead {
				t.Errorf("%s page at %d: %+v", how, at, out)
				continue
			}
			if got := out[0].Blocks[0]; got != nil && got[8] != 2 {
				t.Errorf("%s of the page at %d: block 6 reads %v", how, at, got[:16])
			}
		}
	}
}

// Batches that nobody commits must not fill the journal beyond what can be handled.
func TestNoCommit(t *testing.T) {
	for _, vols := range []int{1, 4, 40} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%d volumes: %v", vols, p)
				}
			}()
			dev := disktest.New(256<<20, 1)
			u := newUser(t, dev, 8<<20)
			for v := 1; v <= vols; v++ {
				u.make(raid.VolumeID(v))
			}
			ended := make([]raid.Seq, vols+1)
			for i := 0; i < 1200; i++ {
				v := 1 + i%vols
				n := ended[v] + 1
				out := u.prepare(raid.VolumeID(v), 0, 0, rec(1, n, n-1, uint32(n)))
				for _, r := range out {
					if r.Kind == raid.RepAck && r.Vol == raid.VolumeID(v) {
						ended[v] = r.Seq
					}
				}
				if u.d.Failed() != nil {
					t.Fatalf("%d volumes, batch %d: %v", vols, i, u.d.Failed())
				}
			}
			u.open()
		}()
	}
}

// The quotas are all used up at every position of the head, then another volume goes on.
func TestPinned(t *testing.T) {
	for lead := range 12 {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("lead %d: %v", lead, p)
				}
			}()
			dev := disktest.New(256<<20, 1)
			u := newUser(t, dev, 8<<20)
			quota := map[raid.VolumeID]int{}
			for v := raid.VolumeID(1); v <= 5; v++ {
				u.do(&raid.DiskRequest{Vol: v, Kind: raid.ReqShards, Shards: fourRegions})
			}
			for v := raid.VolumeID(1); v <= 5; v++ {
				_, st := u.takeover(v, 1, 0, nil, 0)
				quota[v] = int(st.Quota)
			}
			n := raid.Seq(0)
			busy := func(k int) {
				for range k {
					n++
					u.prepare(5, n-1, n-1, rec(1, n, n-1, uint32(n)%1000))
				}
			}
			busy(lead * 66)
			for v := raid.VolumeID(1); v <= 4; v++ {
				used := 0
				for m := raid.Seq(1); ; m++ {
					used += 4096 + 64 // what raid counts
					if used > quota[v] {
						break
					}
					u.prepare(v, 0, 0, rec(1, m, m-1, uint32(m)))
				}
			}
			busy(3000)
			if u.d.Failed() != nil {
				t.Fatalf("lead %d: %v", lead, u.d.Failed())
			}
			dev.Crash()
			u.open()
		}()
	}
}

// A Wipe of which only the pages have reached the medium leaves no zeros that look like data.
func TestWipeTorn(t *testing.T) {
	for seed := uint64(1); seed < 40; seed++ {
		dev := disktest.New(64<<20, seed)
		u := newUser(t, dev, 8<<20)
		u.make(7)
		u.prepare(7, 0, 0, rec(1, 1, 0, 5))
		u.do(&raid.DiskRequest{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: 1, Touch: 1})
		u.quiesce()
		u.send(&raid.DiskRequest{Kind: raid.ReqWipe, Epoch: 1, Stream: 1, Shards: fourRegions})
		dev.Crash()
		u.open()
		hist := []raid.HistRange{{From: 1, To: 1, End: 1}}
		rep, st := u.takeover(7, 2, 1, hist, 1)
		if rep.Damaged || st.Damaged { // then not even a forced Start makes it whole
			hist = append(hist, raid.HistRange{From: 2, To: 2, End: 1})
			u.do(&raid.DiskRequest{Kind: raid.ReqFence, Epoch: 3, Since: 1, Shards: fourRegions})
			out := u.do(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 3, Stream: 1, Hist: hist, End: 1, Forced: true})
			if len(out) != 1 || !out[0].Damaged {
				t.Fatalf("seed %d: a forced Start of what is half wiped: %+v", seed, out)
			}
			out = u.do(&raid.DiskRequest{Kind: raid.ReqWipe, Epoch: 3, Stream: 1, Shards: fourRegions})
			if len(out) != 1 || out[0].Kind != raid.RepWiped {
				t.Fatalf("seed %d: %+v", seed, out)
			}
			u.open()
			if rep, _ := u.takeover(7, 4, 1, nil, 0); rep.Damaged || rep.EndSeq != 0 {
				t.Fatalf("seed %d: after a whole Wipe: %+v", seed, rep)
			}
			continue
		}
		if rep.EndSeq < 1 {
			continue
		}
		if b := u.read(7, 2, 1, 5, 1); b[0] != nil && b[0][8] != 1 {
			t.Fatalf("seed %d: end %d, not damaged, and block 5 reads %v", seed, rep.EndSeq, b[0][:16])
		}
	}
}

// A region whose pages are both lost is damage until it is written, also after the disk was opened again; its last change counts as the
// newest that it can have been.
func TestBothPagesLost(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	u := newUser(t, dev, 8<<20)
	u.make(7)
	u.prepare(7, 0, 0, rec(1, 1, 0, 5, 6))
	u.do(&raid.DiskRequest{Kind: raid.ReqCommit, Epoch: 1, Stream: 1, Commit: 1, Touch: 1})
	u.quiesce()
	for _, at := range pagesAt(t, dev, []byte("CLPG"))[:2] {
		dev.Erase(at, 4096)
	}
	u.open()
	hist := []raid.HistRange{{From: 1, To: 1, End: 1}}
	u.takeover(7, 2, 1, hist, 1)
	if b := u.read(7, 2, 1, 4, 3); b[0] != nil || b[1] != nil || b[2] != nil {
		t.Fatalf("lost pages read as %v %v %v", b[0] != nil, b[1] != nil, b[2] != nil)
	}
	u.do(&raid.DiskRequest{Kind: raid.ReqFill, Epoch: 2, Stream: 1, S: 1, Gen: 1, Blocks: rec(1, 1, 0, 6).Blocks})
	for range 2 {
		if b := u.read(7, 2, 1, 4, 3); b[0] != nil || b[1] != nil || b[2] == nil || b[2][8] != 1 {
			t.Fatalf("after the repair of one block: %v %v %v", b[0] != nil, b[1] != nil, b[2] != nil)
		}
		out := u.do(&raid.DiskRequest{Kind: raid.ReqRegions, Epoch: 2, Stream: 1, S: 1, Gen: 1})
		if len(out) != 1 || out[0].Kind != raid.RepRegions || out[0].Regions[0] < 1 {
			t.Fatalf("the last change is forgotten: %+v", out)
		}
		u.quiesce()
		u.open()
		u.do(&raid.DiskRequest{Kind: raid.ReqStart, Epoch: 2, Stream: 1, Acked: 1})
	}
}

// What a node says of a volume's shards before it has caught up with its log deletes nothing; later it does.
func TestOldViewDeletesNothing(t *testing.T) {
	u := newUser(t, disktest.New(64<<20, 1), 8<<20)
	u.make(7)
	more := append([]raid.ShardRef{{Extent: 1, Gen: 5, Regions: 2}}, fourRegions...)
	u.do(&raid.DiskRequest{Kind: raid.ReqShards, Epoch: 1, Shards: more})
	u.takeover(7, 2, 0, nil, 0)
	has := func() bool {
		out := u.do(&raid.DiskRequest{Kind: raid.ReqRead, Epoch: 2, Stream: 1, Extent: 1, Gen: 5, Count: 1})
		return len(out) == 1 && out[0].Kind == raid.RepRead
	}
	u.do(&raid.DiskRequest{Kind: raid.ReqShards, Epoch: 1, Shards: fourRegions})
	if !has() {
		t.Fatal("a view older than the fence has deleted a shard")
	}
	u.do(&raid.DiskRequest{Kind: raid.ReqShards, Epoch: 2, Shards: fourRegions})
	if has() {
		t.Fatal("a shard that nobody names is still there")
	}
}

// A disk that was just opened knows no stream: what is late from before is not taken, whatever its number. It says so, as the owner
// behind a connection that stands would wait for an answer that never comes.
func TestNoStreamAfterOpen(t *testing.T) {
	u := newUser(t, disktest.New(64<<20, 1), 8<<20)
	u.make(7)
	u.open()
	for sigma := range raid.Stream(2) {
		for _, r := range []*raid.DiskRequest{
			{Kind: raid.ReqPrepare, Epoch: 1, Stream: sigma, Rec: rec(1, 1, 0, 1)}, {Kind: raid.ReqWipe, Epoch: 1, Stream: sigma, ID: 9},
		} {
			if out := u.do(r); len(out) != 1 || out[0].Kind != raid.RepNack || out[0].Nack != raid.NackGap || out[0].EndSeq != 0 {
				t.Fatalf("stream %d: %+v", sigma, out)
			}
		}
	}
}
