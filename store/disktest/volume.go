package disktest

import (
	"encoding/binary"

	"clade/raid"
)

// version is a block's bytes from a seq on.
type version struct {
	seq  raid.Seq
	data []byte
}

// phase is what a volume's owner thinks of the disk.
type phase uint8

const (
	fencing phase = iota // Fence sent
	starting
	inSync
	stale // batches are formed without the disk
	rejoining
	wiping
	copying
	closing  // the last Fill is under way
	catching // commits wait for the disk again
)

// volume is the dumb model: what a well-behaved owner has sent to the disk, what it was told, and the bytes that must be there.
type volume struct {
	id      raid.VolumeID
	regions []uint32 // by extent
	gen     uint64

	phase     phase
	halfWiped bool // a Wipe was sent and is not confirmed: the disk may call itself damaged
	epoch     raid.Epoch
	stream    raid.Stream
	started   bool       // Started has come for the newest stream
	startedIn raid.Epoch // the last epoch in which Started has come
	since     raid.Epoch
	hist      []raid.HistRange
	end       raid.Seq // for Start
	next      raid.Seq
	commit    raid.Seq
	prev      raid.Seq // prev[d]
	stale     raid.Seq // S[d]
	quota     uint64

	sent   []*raid.Record // in this chain, ascending; what a Start or Wipe declared void is gone
	acked  raid.Seq       // the disk has said that it has everything up to here
	told   raid.Seq       // the disk has said that this commit point is durable
	base   raid.Seq       // of the last Fill with Last that it confirmed
	based  raid.Seq       // sent, maybe not confirmed
	truth  map[place][]version
	change map[regionAt]raid.Seq
	todo   []regionAt // regions to copy
}

type place struct{ extent, no uint32 }

type regionAt struct{ extent, region uint32 }

func (p place) region() regionAt { return regionAt{p.extent, p.no / raid.BlocksPerRegion} }

func newVolume(id raid.VolumeID, regions ...uint32) *volume {
	return &volume{id: id, regions: regions, gen: 1, epoch: 0, next: 1, truth: map[place][]version{}, change: map[regionAt]raid.Seq{}}
}

func (v *volume) shards() []raid.ShardRef {
	var out []raid.ShardRef
	for i, n := range v.regions {
		out = append(out, raid.ShardRef{Extent: uint32(i), Gen: v.gen, Regions: n})
	}
	return out
}

// at returns a block's bytes as of s; nil is zeros.
func (v *volume) at(p place, s raid.Seq) []byte {
	var out []byte
	for _, x := range v.truth[p] {
		if x.seq <= s {
			out = x.data
		}
	}
	return out
}

func (v *volume) put(p place, s raid.Seq, data []byte) {
	v.truth[p] = append(v.truth[p], version{s, data})
	v.change[p.region()] = s
}

// cut forgets every batch beyond end: the owner's takeover has declared it void.
func (v *volume) cut(end raid.Seq) {
	for p, list := range v.truth {
		n := len(list)
		for n > 0 && list[n-1].seq > end {
			n--
		}
		v.truth[p] = list[:n]
	}
	clear(v.change)
	for p, list := range v.truth {
		if n := len(list); n > 0 {
			v.change[p.region()] = max(v.change[p.region()], list[n-1].seq)
		}
	}
	n := len(v.sent)
	for n > 0 && v.sent[n-1].Seq > end {
		n--
	}
	v.sent = v.sent[:n]
	v.next = end + 1
	v.acked = min(v.acked, max(v.touch(end), v.base))
}

// touch is the last seq <= c that was sent to the disk.
func (v *volume) touch(c raid.Seq) raid.Seq {
	for i := len(v.sent) - 1; i >= 0; i-- {
		if v.sent[i].Seq <= c {
			return v.sent[i].Seq
		}
	}
	return 0
}

// busy reports whether a batch beyond the commit point touches a region: then it is locked.
func (v *volume) busy(r regionAt) bool { return v.change[r] > v.commit }

// credit returns how many bytes of records the owner may still send.
func (v *volume) credit() int {
	used := 0
	for _, r := range v.sent {
		if r.Seq > v.told {
			used += recordBytes(r)
		}
	}
	return int(v.quota) - used
}

func recordBytes(r *raid.Record) int { return 4096 + len(r.Blocks)*raid.BlockBytes + 64*len(r.Reqs) }

// pattern returns a block's bytes that nothing else has.
func pattern(vol raid.VolumeID, p place, seq raid.Seq, bid uint64) []byte {
	b := make([]byte, raid.BlockBytes)
	x := uint64(vol)<<48 ^ uint64(p.extent)<<40 ^ uint64(p.no)<<20 ^ uint64(seq) ^ bid
	for i := 0; i < len(b); i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	return b
}
