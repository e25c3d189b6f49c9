package sim

import (
	"strings"
	"testing"

	"clade/membership"
	"clade/raid"
	"clade/store"
)

// The invariants of the disks are shown to notice: each gets a state by hand that breaks it, and one that does not.

type badState struct {
	w  *world
	c  *invariants
	d  *driver
	s  *shadow
	mv *membership.Volume
}

func newBadState(t *testing.T) *badState {
	t.Helper()
	w := newWorld(1, options{quiet: true, nodes: 3, tweak: calm(3, 2, 1)})
	h := w.hosts[0]
	disk, err := store.Open(h.disks[0].gate, store.Config{Node: 1})
	if err != nil {
		t.Fatal(err)
	}
	h.disks[0].id = 1
	h.proc = &process{h: h, w: w}
	d := &driver{p: h.proc, hd: h.disks[0], disk: disk}
	h.proc.drivers = []*driver{d}
	data := &raid.Volume{ID: 1, Epoch: 1, Layout: raid.Layout{K: 2, M: 1}, Active: true,
		Members: []raid.Member{{Disk: 1, InSync: true}, {Disk: 2, InSync: true}, {Disk: 3}},
		Extents: []raid.Extent{{Shards: []raid.Placement{{Disk: 1}, {Disk: 2}, {Disk: 3}}}}}
	b := &badState{w: w, c: w.checks, d: d, mv: &membership.Volume{Data: data}}
	b.s = b.c.shadow(1, 1)
	b.s.seen = true
	return b
}

// prepare tells the invariants of a part of a batch.
func (b *badState) prepare(disk raid.DiskID, n raid.Seq, bid uint64, parts ...raid.DiskID) {
	b.c.request(&raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 1, Disk: disk,
		Rec: &raid.Record{Epoch: 1, Seq: n, BID: bid, Parts: parts, Blocks: []raid.Block{{}}}})
}

func (b *badState) outcome(f func()) string {
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(failed); !ok {
					panic(p)
				}
			}
		}()
		f()
	}()
	return b.w.failure
}

func TestInvariantsNotice(t *testing.T) {
	view := func(fence, start raid.Epoch, commit, applied raid.Seq) store.VolumeView {
		return store.VolumeView{Vol: 1, Fence: fence, Start: start, Commit: commit, Applied: applied}
	}
	for _, c := range []struct {
		want string // "": nothing is wrong
		do   func(b *badState)
	}{
		{"I5", func(b *badState) { b.c.look(b.d, b.s, view(1, 1, 4, 5)) }},
		{"", func(b *badState) { b.c.look(b.d, b.s, view(1, 1, 5, 5)) }},
		{"I6", func(b *badState) { b.c.look(b.d, b.s, view(3, 2, 0, 0)); b.c.look(b.d, b.s, view(2, 2, 0, 0)) }},
		{"I6", func(b *badState) { b.c.look(b.d, b.s, view(3, 2, 0, 0)); b.c.look(b.d, b.s, view(3, 1, 0, 0)) }},
		{"I6", func(b *badState) {
			b.c.promised(b.d, []raid.DiskReply{{Kind: raid.RepReport, Vol: 1, Epoch: 7}})
			b.s.view = store.VolumeView{Fence: b.s.fenceSaid}
			b.c.look(b.d, b.s, view(6, 1, 0, 0)) // after a power loss
		}},
		{"I3", func(b *badState) {
			b.c.ended[ownerKey{1, 1}] = 4
			b.s.set(5, heldRecord{1, 9, true})
			b.s.view = view(2, 2, 4, 4)
			b.c.look(b.d, b.s, view(2, 2, 5, 5))
		}},
		{"", func(b *badState) { // declared void by a Start
			b.c.ended[ownerKey{1, 1}] = 4
			b.s.set(5, heldRecord{1, 9, true})
			b.s.view = view(1, 1, 4, 4)
			b.c.look(b.d, b.s, view(2, 2, 4, 4))
		}},
		{"I3", func(b *badState) { // the end is learnt later
			b.s.set(5, heldRecord{1, 9, true})
			b.s.view = view(1, 1, 4, 4)
			b.c.look(b.d, b.s, view(1, 1, 5, 5))
			b.c.closed(ownerKey{1, 1}, 4)
		}},
		{"I2", func(b *badState) { b.c.commits[ownerKey{1, 1}] = 5; b.c.closed(ownerKey{1, 1}, 4) }},
		{"", func(b *badState) { b.c.commits[ownerKey{1, 1}] = 4; b.c.closed(ownerKey{1, 1}, 4) }},
		{"now at", func(b *badState) { b.c.closed(ownerKey{1, 1}, 4); b.c.closed(ownerKey{1, 1}, 5) }},
		{"I9", func(b *badState) { b.prepare(1, 1, 9, 1, 3); b.prepare(3, 1, 8, 1, 3) }},
		{"I4", func(b *badState) { b.prepare(1, 1, 9, 1, 3); b.c.committedTo(b.mv, 1, 1) }},
		{"I4", func(b *badState) { // in the log, but not durable
			b.prepare(1, 1, 9, 1, 3)
			b.s.set(1, heldRecord{1, 9, false})
			b.c.committedTo(b.mv, 1, 1)
		}},
		{"I4", func(b *badState) { // another batch of that number
			b.prepare(1, 1, 9, 1, 3)
			b.s.set(1, heldRecord{1, 8, true})
			b.c.committedTo(b.mv, 1, 1)
		}},
		{"", func(b *badState) {
			b.prepare(1, 1, 9, 1, 3)
			b.s.set(1, heldRecord{1, 9, true})
			b.c.committedTo(b.mv, 1, 1)
		}},
		{"", func(b *badState) { // by a Fill
			b.prepare(1, 1, 9, 1, 3)
			b.s.view.Base = 1
			b.c.committedTo(b.mv, 1, 1)
		}},
		{"nobody has sent", func(b *badState) { b.c.committedTo(b.mv, 1, 1) }},
		{"I12", func(b *badState) { b.prepare(3, 1, 9, 3); b.c.committedTo(b.mv, 1, 1) }},
		{"I11", func(b *badState) {
			b.s.view.Start, b.s.view.Stream = 1, 5
			b.c.stepped(b.d, []*raid.DiskRequest{{Kind: raid.ReqFill, Vol: 1, Epoch: 1, Stream: 4, ID: 3}},
				[]raid.DiskReply{{Kind: raid.RepFilled, Vol: 1, Epoch: 1, Stream: 4, ID: 3}})
		}},
		{"", func(b *badState) {
			b.s.view.Start, b.s.view.Stream = 1, 5
			b.c.stepped(b.d, []*raid.DiskRequest{{Kind: raid.ReqFill, Vol: 1, Epoch: 1, Stream: 5, ID: 3}},
				[]raid.DiskReply{{Kind: raid.RepFilled, Vol: 1, Epoch: 1, Stream: 5, ID: 3}})
		}},
	} {
		b := newBadState(t)
		got := b.outcome(func() { c.do(b) })
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("want %q, got %q", c.want, got)
		}
	}
}
