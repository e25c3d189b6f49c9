package store

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"testing"

	"clade/raid"
)

// sliceDevice is bytes in memory.
type sliceDevice struct{ b []byte }

func (d *sliceDevice) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(d.b)) {
		return 0, io.EOF
	}
	if n := copy(p, d.b[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (d *sliceDevice) WriteAt(p []byte, off int64) (int, error)      { return copy(d.b[off:], p), nil }
func (d *sliceDevice) WriteThrough(p []byte, off int64) (int, error) { return d.WriteAt(p, off) }
func (d *sliceDevice) Sync() error                                   { return nil }
func (d *sliceDevice) Size() int64                                   { return int64(len(d.b)) }
func (d *sliceDevice) Close() error                                  { return nil }

// resum gives a mutated structure its right checksum: otherwise fuzzing never gets past it.
func resum(b []byte, at, from int) {
	if len(b) < from {
		return
	}
	crc := crcOf(b[from:])
	b[at], b[at+1], b[at+2], b[at+3] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
}

// Whatever a superblock says, decoding it neither panics nor gives a geometry outside of the device; what it gives is encoded as
// it was.
func FuzzSuper(f *testing.F) {
	good := &super{seq: 3, deviceBytes: 64 << 20, imageBytes: 1 << 20, journalBytes: 4 << 20, regions: 40, incarnation: 2, tail: position{off: 4096, lsn: 9, chain: 7}}
	f.Add(good.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > pageBytes {
			b = b[:pageBytes]
		}
		b = append(bytes.Clone(b), make([]byte, pageBytes-len(b))...)
		copy(b, superMagic)
		resum(b, 8, 12)
		s, err := decodeSuper(b)
		if err != nil {
			return
		}
		if s.dataOffset(s.regions) > int64(s.deviceBytes) || s.journalOffset() < 0 || s.pagesOffset() < s.journalOffset() {
			t.Fatalf("geometry %+v", s)
		}
		again, err := decodeSuper(s.encode())
		if err != nil || *again != *s {
			t.Fatalf("%+v became %+v: %v", s, again, err)
		}
	})
}

// Decoding a page never panics, and a page says of every block what was encoded.
func FuzzPage(f *testing.F) {
	id := pageID{3, 1, 2, 5}
	p := page{id: id, version: 7, rseq: 9}
	p.set(4, 0x1234)
	b := make([]byte, pageBytes)
	p.encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < pageBytes {
			return
		}
		b = bytes.Clone(b[:pageBytes])
		binary.LittleEndian.PutUint32(b[88:], crcOf(b[8:88]))
		resum(b, 4, 8)
		p, ok := decodePage(b, id)
		if !ok {
			return
		}
		out := make([]byte, pageBytes)
		p.encode(out)
		q, ok := decodePage(out, id)
		if !ok || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v", p, q)
		}
	})
}

func someGroup() *group {
	g := &group{}
	block := bytes.Repeat([]byte{7}, raid.BlockBytes)
	g.add(entry{kind: entryShards, vol: 1, shards: []shard{{raid.ShardRef{Extent: 1, Gen: 2, Regions: 3}, 4}}})
	g.add(entry{kind: entryFence, vol: 1, epoch: 2, damaged: true})
	g.add(entry{kind: entryStart, vol: 1, epoch: 2, seq: 4, boot: raid.BootID{1}, hist: []raid.HistRange{{From: 1, To: 1, End: 4}}})
	g.add(entry{kind: entryRecord, vol: 1, rec: &raid.Record{Epoch: 2, Seq: 5, Prev: 4, BID: 77, Commit: 4, Parts: raid.NewDiskSet(1, 2),
		Reqs: []raid.ReqHeader{{Path: 1, AgeUs: 2}}, Blocks: []raid.Block{{Extent: 1, Gen: 2, No: 8, Data: block}}}})
	g.add(entry{kind: entryCommit, vol: 1, seq: 5})
	g.add(entry{kind: entryFill, vol: 1, seq: 5, r: 5, extent: 1, gen: 2, region: 0, last: true, blocks: []raid.Block{{Extent: 1, Gen: 2, No: 9, Data: block}}})
	g.add(entry{kind: entryWipe, vol: 1})
	g.add(entry{kind: entryRemove, vol: 1})
	return g
}

// formed appends a group and writes it.
func formed(j *journal, g *group) error {
	b, off := j.form(g)
	return writeDurable(j.dev, b, off)
}

// A group comes back as it was written.
func TestGroupRoundTrip(t *testing.T) {
	dev := &sliceDevice{make([]byte, 1<<20)}
	j := journal{dev: dev, size: 1 << 20, uuid: [16]byte{1}, incarnation: 2}
	j.head.lsn, j.tail.lsn = 1, 1
	g := someGroup()
	at := j.head
	if err := formed(&j, g); err != nil {
		t.Fatal(err)
	}
	entries, _, next, ok, err := j.read(at)
	if err != nil || !ok || next != j.head {
		t.Fatalf("%v %v %+v", err, ok, next)
	}
	if !reflect.DeepEqual(entries, g.entries) {
		t.Fatalf("wrote %+v\nread  %+v", g.entries, entries)
	}
}

// Whatever the journal holds, reading it neither panics nor takes more memory than it has bytes.
func FuzzGroup(f *testing.F) {
	dev := &sliceDevice{make([]byte, 64<<10)}
	j := journal{dev: dev, size: 64 << 10, uuid: [16]byte{1}, incarnation: 2}
	j.head.lsn, j.tail.lsn = 1, 1
	if err := formed(&j, someGroup()); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(dev.b[:3*pageBytes]), true)
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		dev := &sliceDevice{make([]byte, 64<<10)}
		copy(dev.b, b)
		j := journal{dev: dev, size: 64 << 10, uuid: [16]byte{1}, incarnation: 2}
		if whole {
			resum(dev.b[:pageBytes], 4, 8)
		}
		_, _, next, ok, err := j.read(position{lsn: 1})
		if err != nil {
			t.Fatal(err)
		}
		if ok && (next.off < 0 || next.off >= j.size) {
			t.Fatalf("the next group is at %d of %d", next.off, j.size)
		}
		if _, unread := j.laterThan(0); unread != 0 {
			t.Fatalf("%d pages of a device that can be read are unread", unread)
		}
	})
}

// Decoding an image neither panics nor takes more than its length allows; what it gives is encoded as it was.
func FuzzImage(f *testing.F) {
	v := newVolume(3)
	v.extra = 99
	v.fence, v.start, v.durable, v.shards = 2, 2, 5, []shard{{raid.ShardRef{Extent: 1, Gen: 2, Regions: 3}, 4}}
	v.push(&record{Record: &raid.Record{Epoch: 2, Seq: 6, BID: 7, Blocks: make([]raid.Block, 3)}, lsn: 4, dead: []bool{false, true, false}})
	f.Add(encodeImage(&imageState{lsn: 9, vols: []*volume{v}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeImage(b)
		if err != nil || len(s.alive) > 0 {
			return
		}
		if !bytes.Equal(encodeImage(s), b) {
			t.Fatal("encoded otherwise")
		}
	})
}

// What stateFits counts is what encodeImage writes.
func TestImageBytes(t *testing.T) {
	v := newVolume(3)
	n := imageHeaderBytes
	for i, add := range []struct {
		bytes int
		do    func()
	}{
		{volumeStateBytes, func() {}},
		{2 * shardStateBytes, func() { v.shards = make([]shard, 2) }},
		{recordStateBytes, func() {
			v.push(&record{Record: &raid.Record{Seq: 6, Blocks: make([]raid.Block, 1)}, dead: []bool{true}})
		}},
	} {
		add.do()
		n += add.bytes
		if got := len(encodeImage(&imageState{vols: []*volume{v}})); got != n {
			t.Errorf("step %d: %d bytes, counted %d", i, got, n)
		}
	}
}
