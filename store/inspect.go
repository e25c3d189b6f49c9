package store

import "clade/raid"

// VolumeView is what an inspector may see of a volume on a disk: for the simulator's invariants (A.4).
type VolumeView struct {
	Vol     raid.VolumeID
	Fence   raid.Epoch
	Start   raid.Epoch
	Stream  raid.Stream // σ; 0 before the first Start of this process
	Damaged bool
	Commit  raid.Seq // as far as it is durable: the most that may be applied
	Applied raid.Seq
	Base    raid.Seq // as far as it is durable
	EndSeq  raid.Seq
}

// LogRecord names a record that is not applied.
type LogRecord struct {
	Epoch   raid.Epoch
	Seq     raid.Seq
	BID     uint64
	Durable bool
}

// Inspect appends a view of every volume to buf, in order of id. It changes nothing.
func (d *Disk) Inspect(buf []VolumeView) []VolumeView {
	for _, v := range d.vols {
		buf = append(buf, VolumeView{Vol: v.id, Fence: v.fence, Start: v.start, Stream: v.stream, Damaged: v.damaged || v.wiping,
			Commit: v.durable, Applied: v.applied, Base: v.based, EndSeq: v.endseq()})
	}
	return buf
}

// InspectLog appends the records of a volume that are not applied to buf, by seq.
func (d *Disk) InspectLog(vol raid.VolumeID, buf []LogRecord) []LogRecord {
	v := d.volume(vol)
	if v == nil {
		return buf
	}
	for _, r := range v.log {
		buf = append(buf, LogRecord{Epoch: r.Epoch, Seq: r.Seq, BID: r.BID, Durable: r.durable})
	}
	return buf
}
