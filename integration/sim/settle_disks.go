package sim

import (
	"bytes"
	"fmt"

	"clade/raid"
	"clade/store"
)

// settle looks at what is left when everything is at rest: on every disk, not through the owner's cache. All k+m blocks of every
// row must agree, and what the data blocks hold is one more read of every sector.
func (w *world) settle() {
	if !w.runUntil(w.sched.nowNs+5*second, func() bool { return w.restless() == "" }) {
		w.fail("at the end, 5 s after all load was done: %s", w.restless())
	}
	w.checks.everything()
	s := w.newestState()
	for _, mv := range s.Volumes {
		w.settleVolume(mv.Slot, mv.Data)
	}
}

// restless returns what is still under way, for instance a handoff that spreads the owners, or "".
func (w *world) restless() string {
	for _, mv := range w.newestState().Volumes {
		v := mv.Data
		if v.Owner == 0 || w.hosts[v.Owner-1].proc == nil {
			return fmt.Sprintf("slot %d has no owner", mv.Slot)
		}
		found := false
		p := w.hosts[v.Owner-1].proc
		for _, o := range p.node.Owners(p.now()) {
			found = found || o.Vol == v.ID && o.Epoch == v.Epoch && o.Status.State == raid.OwnerActive && o.Status.Next == o.Status.Commit+1
		}
		if !found {
			return fmt.Sprintf("the owner of slot %d is not at rest", mv.Slot)
		}
		for _, m := range v.Members {
			if d := w.driverOf(m.Disk); d == nil || len(d.queue) > 0 || d.streams[v.ID] == nil || d.streams[v.ID].Epoch != v.Epoch {
				return fmt.Sprintf("slot %d: disk %d does not hear the owner of epoch %d", mv.Slot, m.Disk, v.Epoch)
			}
		}
	}
	return ""
}

func (w *world) driverOf(id raid.DiskID) *driver {
	for _, h := range w.hosts {
		if h.proc == nil {
			continue
		}
		for _, d := range h.proc.drivers {
			if d.hd.id == id && !d.failed {
				return d
			}
		}
	}
	return nil
}

func (w *world) settleVolume(slot uint8, v *raid.Volume) {
	owner := w.hosts[v.Owner-1].proc
	var commit raid.Seq
	for _, o := range owner.node.Owners(owner.now()) {
		if o.Vol == v.ID {
			commit = o.Status.Commit
			if o.Status.Next != commit+1 {
				w.fail("slot %d: at rest, but batches %d..%d are not committed", slot, commit+1, o.Status.Next-1)
			}
		}
	}
	geo, code := raid.NewGeometry(v), raid.NewCoder(v.Layout)
	for x := range v.Extents {
		for region := range v.Extents[x].Regions {
			w.settleRegion(slot, v, geo, code, uint32(x), region, commit)
		}
	}
}

// settleRegion compares the parities of one region of all shards and reads its data.
func (w *world) settleRegion(slot uint8, v *raid.Volume, geo *raid.Geometry, code *raid.Coder, x, region uint32, commit raid.Seq) {
	k, width := v.Layout.K, v.Layout.Width()
	byRole := make([][][]byte, width)
	for _, pl := range v.Extents[x].Shards {
		blocks, err := w.rawRead(v, pl, x, region*raid.BlocksPerRegion, commit)
		if err != nil {
			w.fail("slot %d extent %d region %d: disk %d: %v", slot, x, region, pl.Disk, err)
		}
		byRole[geo.RoleOn(pl.Disk, x, region)] = blocks
	}
	shards := make([][]byte, width)
	for i := range raid.BlocksPerRegion {
		row := region*raid.BlocksPerRegion + uint32(i)
		bad := -1
		for role := range width {
			if byRole[role][i] == nil {
				bad = role
			}
		}
		if bad >= 0 { // damaged on a victim and not met yet: the others rebuild it when it is read
			if !w.shape.damage {
				w.fail("slot %d extent %d block %d: the block of role %d is bad", slot, x, row, bad)
			}
			continue
		}
		for role := range width {
			shards[role] = byRole[role][i]
			if role >= k {
				shards[role] = make([]byte, raid.BlockBytes)
			}
		}
		code.Encode(shards)
		for role := k; role < width; role++ {
			if !bytes.Equal(shards[role], byRole[role][i]) {
				w.fail("slot %d extent %d block %d: parity %d does not fit the data (4: never reconstruct from a mix)", slot, x, row, role-k)
			}
		}
		for role := range k {
			w.settleBlock(slot, v, geo.Address(x, row, role), byRole[role][i])
		}
	}
}

// settleBlock makes a block found on disk one more read of its sectors.
func (w *world) settleBlock(slot uint8, v *raid.Volume, at uint64, b []byte) {
	if at >= v.Size {
		return
	}
	h := w.history.volume(slot, uint64(v.ID))
	for i := 0; i < len(b); i += sectorBytes {
		lba := (at + uint64(i)) / sectorBytes
		value := readSector(b[i:i+sectorBytes], uint64(slot), lba)
		if value != 0 || len(h.ops[lba]) > 0 {
			h.add(lba, linOp{start: w.sched.nowNs, end: w.sched.nowNs, value: value, label: fmt.Sprintf("slot %d lba %d on disk at the end", slot, lba)})
		}
	}
}

// rawRead asks a disk itself for the 256 blocks of a region, on the owner's stream; nil blocks are bad.
func (w *world) rawRead(v *raid.Volume, pl raid.Placement, x, first uint32, commit raid.Seq) ([][]byte, error) {
	d := w.driverOf(pl.Disk)
	if d == nil {
		return nil, fmt.Errorf("no process has it open")
	}
	start := d.streams[v.ID]
	return rawReadFrom(d.disk, d.p.now(), &raid.DiskRequest{Kind: raid.ReqRead, Vol: v.ID, Disk: pl.Disk, Epoch: v.Epoch, Stream: start.Stream,
		ID: 1 << 60, S: commit, Extent: x, Gen: pl.Gen, First: first, Count: raid.BlocksPerRegion})
}

func rawReadFrom(d *store.Disk, nowNs int64, q *raid.DiskRequest) ([][]byte, error) {
	for _, r := range d.Step(nowNs, []*raid.DiskRequest{q}) {
		switch {
		case r.ID != q.ID:
		case r.Kind == raid.RepRead && len(r.Blocks) == int(q.Count):
			return r.Blocks, nil
		default:
			return nil, fmt.Errorf("it answers kind %d, nack %d, %s", r.Kind, r.Nack, r.Err)
		}
	}
	return nil, fmt.Errorf("it does not answer")
}
