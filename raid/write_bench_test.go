package raid_test

import (
	"math/rand/v2"
	"testing"

	. "clade/raid"
)

// echo is a disk without a memory: it acknowledges what it is sent and reads zeros. It makes no garbage of its own but its replies'.
type echo struct {
	end     [ShardsMax + 1]Seq
	zeros   [][]byte
	replies []DiskReply
	next    []DiskReply
}

func (e *echo) take(r *DiskRequest) {
	rep := DiskReply{Vol: r.Vol, Disk: r.Disk, Epoch: r.Epoch, Stream: r.Stream, ID: r.ID, Commit: r.Commit}
	switch r.Kind {
	case ReqFence:
		rep.Kind, rep.Report = RepReport, &Report{}
	case ReqStart:
		rep.Kind, rep.Quota = RepStarted, 16<<20
	case ReqPrepare:
		e.end[r.Disk] = r.Rec.Seq
		rep.Kind, rep.Seq = RepAck, r.Rec.Seq
	case ReqCommit:
		rep.Kind, rep.Seq = RepAck, e.end[r.Disk]
	case ReqRead:
		rep.Kind, rep.Extent, rep.First, rep.Blocks = RepRead, r.Extent, r.First, e.zeros[:r.Count]
	default:
		return
	}
	e.replies = append(e.replies, rep)
}

// echoed is an owner of a volume over such disks, active.
type echoed struct {
	echo
	o   *Owner
	now int64

	begun, done int
}

func newEchoed(l Layout, size uint64) *echoed {
	e := &echoed{now: second}
	for range BlocksPerRegion {
		e.zeros = append(e.zeros, make([]byte, BlockBytes))
	}
	v := &Volume{ID: 7, Layout: l, Size: size, Epoch: 1, Owner: 1, Ver: 1}
	x := Extent{Regions: uint32(size / RegionBytes / uint64(l.K))}
	for d := DiskID(1); int(d) <= l.Width(); d++ {
		v.Members = append(v.Members, Member{Disk: d, InSync: true})
		x.Shards = append(x.Shards, Placement{Disk: d, Gen: 1})
	}
	v.Extents = []Extent{x}
	e.o = NewOwner(OwnerConfig{Node: 1}, v, e.now)
	for _, m := range v.Members {
		e.o.Connected(e.now, m.Disk, true)
	}
	for e.o.State() != OwnerActive || !e.o.Admitting() {
		for _, c := range e.turn() {
			if n, err := v.Apply(c); err == nil {
				v = n
				e.o.SetVolume(e.now, v)
			}
		}
	}
	return e
}

// turn lets the owner work, and the disks answer.
func (e *echoed) turn() []VolumeCommand {
	e.now += 20_000
	e.o.Tick(e.now)
	fx := e.o.Take()
	e.done += len(fx.Done)
	for _, r := range fx.Requests {
		e.take(r)
	}
	proposals := append([]VolumeCommand(nil), fx.Proposals...)
	e.replies, e.next = e.next[:0], e.replies
	for i := range e.next {
		e.o.Reply(e.now, &e.next[i])
	}
	return proposals
}

// keep lets the owner work until so many requests have ended, with depth of them under way all the time.
func (e *echoed) keep(depth, until int, begin func(token uint64)) {
	for e.done < until {
		for e.begun-e.done < depth {
			e.begun++
			begin(uint64(e.begun))
		}
		e.turn()
	}
}

// BenchmarkWrite is a random write of 4 KiB at depth 16 through the owner, with the disks' part free of cost: of rows that are in the
// cache, and of a volume that is a hundred times as large as the cache, so that old data and parity are read first.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name string
		k, m int
		size uint64
	}{{"cached", 2, 1, 16 << 20}, {"uncached", 2, 1, 8 << 30}, {"uncached4+2", 4, 2, 8 << 30}} {
		b.Run(c.name, func(b *testing.B) {
			e := newEchoed(Layout{K: c.k, M: c.m, UnitBytes: 65536}, c.size)
			rng := rand.New(rand.NewPCG(1, 1))
			data := make([]byte, BlockBytes)
			write := func(token uint64) {
				e.o.Write(e.now, &IO{Token: token, Offset: rng.Uint64N(c.size/BlockBytes) * BlockBytes, Bytes: BlockBytes, Data: data})
			}
			e.keep(16, 40_000, write) // warm
			b.SetBytes(BlockBytes)
			b.ReportAllocs()
			b.ResetTimer()
			e.keep(16, e.done+b.N, write)
		})
	}
}

// BenchmarkRead is a random read of 4 KiB at depth 64 through the owner: of what is in the cache, and of volumes of which hardly anything
// is.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct {
		name string
		k, m int
		size uint64
	}{{"hit", 1, 0, 16 << 20}, {"miss", 1, 0, 8 << 30}, {"miss4+2", 4, 2, 8 << 30}} {
		b.Run(c.name, func(b *testing.B) {
			e := newEchoed(Layout{K: c.k, M: c.m, UnitBytes: 65536}, c.size)
			rng := rand.New(rand.NewPCG(1, 1))
			read := func(token uint64) {
				e.o.Read(e.now, &IO{Token: token, Offset: rng.Uint64N(c.size/BlockBytes) * BlockBytes, Bytes: BlockBytes})
			}
			e.keep(64, 40_000, read) // warm
			b.SetBytes(BlockBytes)
			b.ReportAllocs()
			b.ResetTimer()
			e.keep(64, e.done+b.N, read)
		})
	}
}
