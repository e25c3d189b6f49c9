package membership

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"clade/aoe"
	"clade/raid"
)

// A snapshot is: magic (4), feature level BE32, CRC-32C of the rest BE32, then JSON. The extents of a volume, which may be
// hundreds of thousands, are packed as varints inside it. Equal states give equal bytes: structs encode in the order of their
// fields, no map is involved, and an empty slice is always nil (normalise).
var snapshotMagic = [4]byte{'C', 'L', 'D', 'S'}

const snapshotHeaderBytes = 12

// MaxSnapshotBytes bounds what Restore looks at.
const MaxSnapshotBytes = 512 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrSnapshot says that a snapshot is damaged or that no binary could have written it.
var ErrSnapshot = errors.New("membership: bad snapshot")

// ErrSnapshotLevel says that a newer binary wrote the snapshot: this one must not run in the cluster (B: L8).
var ErrSnapshotLevel = errors.New("membership: the snapshot's feature level is unknown to this binary")

type snapshotJSON struct {
	Applied      uint64           `json:"applied"`
	Cluster      UUID             `json:"cluster"`
	Name         string           `json:"name"`
	Shelf        uint16           `json:"shelf"`
	FeatureLevel int              `json:"feature_level"`
	SectorCount  uint8            `json:"sector_count"`
	TimeMs       int64            `json:"time_ms"`
	NextNode     raid.NodeID      `json:"next_node"`
	NextDisk     raid.DiskID      `json:"next_disk"`
	NextVolume   raid.VolumeID    `json:"next_volume"`
	Voters       Voters           `json:"voters"`
	Nodes        []Node           `json:"nodes"`
	Disks        []Disk           `json:"disks"`
	Volumes      []snapshotVolume `json:"volumes"`
	Dedupe       []Dedupe         `json:"dedupe"`
}

type snapshotVolume struct {
	Volume  Volume `json:"volume"`  // without Data.Extents
	Extents []byte `json:"extents"` // packed
}

// Snapshot returns s as bytes; equal states give equal bytes. The result is the caller's.
func (s *State) Snapshot() []byte {
	j := snapshotJSON{
		Applied: s.Applied, Cluster: s.Cluster, Name: s.Name, Shelf: s.Shelf, FeatureLevel: s.FeatureLevel,
		SectorCount: s.SectorCount, TimeMs: s.TimeMs, NextNode: s.NextNode, NextDisk: s.NextDisk, NextVolume: s.NextVolume,
		Voters: Voters{Cur: normalise(s.Voters.Cur), Prev: normalise(s.Voters.Prev), LV: s.Voters.LV},
		Nodes:  normalise(s.Nodes), Disks: normalise(s.Disks), Dedupe: normalise(s.Dedupe),
	}
	for _, v := range s.Volumes {
		d := *v.Data
		d.Extents = nil
		d.Members, d.Hist = normalise(d.Members), normalise(d.Hist)
		w := *v
		w.Data = &d
		w.Control = normaliseControl(w.Control)
		j.Volumes = append(j.Volumes, snapshotVolume{Volume: w, Extents: packExtents(v.Data.Extents)})
	}
	body, err := json.Marshal(j)
	if err != nil {
		panic(fmt.Sprintf("membership: state does not encode: %v", err))
	}
	return sealSnapshot(max(s.FeatureLevel, MinFeatureLevel), body)
}

// sealSnapshot puts the header before a body.
func sealSnapshot(level int, body []byte) []byte {
	out := make([]byte, snapshotHeaderBytes, snapshotHeaderBytes+len(body))
	copy(out, snapshotMagic[:])
	binary.BigEndian.PutUint32(out[4:], uint32(level))
	binary.BigEndian.PutUint32(out[8:], crc32.Checksum(body, castagnoli))
	return append(out, body...)
}

func normalise[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

// Restore returns the state that a snapshot holds, or an error; data may be anything. It keeps no reference to data.
func Restore(data []byte) (*State, error) {
	if len(data) < snapshotHeaderBytes || len(data) > MaxSnapshotBytes || [4]byte(data[:4]) != snapshotMagic {
		return nil, fmt.Errorf("%w: %d bytes without its header", ErrSnapshot, len(data))
	}
	if l := binary.BigEndian.Uint32(data[4:]); l < MinFeatureLevel || l > MaxFeatureLevel {
		return nil, fmt.Errorf("%w: level %d, this binary knows %d..%d", ErrSnapshotLevel, l, MinFeatureLevel, MaxFeatureLevel)
	}
	body := data[snapshotHeaderBytes:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(data[8:]) {
		return nil, fmt.Errorf("%w: checksum", ErrSnapshot)
	}
	var j snapshotJSON
	if err := json.Unmarshal(body, &j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if j.FeatureLevel > MaxFeatureLevel {
		return nil, fmt.Errorf("%w: level %d", ErrSnapshotLevel, j.FeatureLevel)
	}
	s := &State{
		Applied: j.Applied, Cluster: j.Cluster, Name: j.Name, Shelf: j.Shelf, FeatureLevel: j.FeatureLevel,
		SectorCount: j.SectorCount, TimeMs: j.TimeMs, NextNode: j.NextNode, NextDisk: j.NextDisk, NextVolume: j.NextVolume,
		Voters: j.Voters, Nodes: j.Nodes, Disks: j.Disks, Dedupe: j.Dedupe,
	}
	for i := range j.Volumes {
		v := &j.Volumes[i].Volume
		if v.Data == nil {
			return nil, fmt.Errorf("%w: volume without data", ErrSnapshot)
		}
		var err error
		if v.Data.Extents, err = unpackExtents(j.Volumes[i].Extents); err != nil {
			return nil, err
		}
		s.Volumes = append(s.Volumes, v)
	}
	return s, s.check()
}

// check returns an error unless s is a state that commands can lead to, as far as the code relies on it.
func (s *State) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrSnapshot, what) }
	if len(s.Nodes) > MaxNodes || len(s.Disks) > MaxDisks || len(s.Volumes) > MaxVolumes || len(s.Dedupe) > maxDedupe {
		return bad("too many rows")
	}
	if s.FeatureLevel < 0 || s.TimeMs < 0 || s.TimeMs > maxClockMs {
		return bad("feature level or time out of range")
	}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.ID == 0 || n.ID >= s.NextNode || i > 0 && s.Nodes[i-1].ID >= n.ID {
			return bad("nodes")
		}
	}
	for i := range s.Disks {
		if d := &s.Disks[i]; d.ID == 0 || d.ID >= s.NextDisk || i > 0 && s.Disks[i-1].ID >= d.ID || d.CapacityMiB > MaxDiskMiB {
			return bad("disks")
		}
	}
	for i, v := range s.Volumes {
		if v.Data.ID == 0 || v.Data.ID >= s.NextVolume || i > 0 && s.Volumes[i-1].Data.ID >= v.Data.ID {
			return bad("volume ids")
		}
		if err := s.checkVolume(v); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) checkVolume(v *Volume) error {
	d := v.Data
	bad := func(what string) error { return fmt.Errorf("%w: volume %d: %s", ErrSnapshot, d.ID, what) }
	if d.Layout.K < 1 || d.Layout.M < 0 || d.Layout.K > 32 || d.Layout.Width() > 32 || len(d.Extents) > MaxExtents {
		return bad("layout")
	}
	if len(v.Control.Config) > aoe.StringBytesMax || len(v.Control.Mask) > aoe.MaskMax || len(v.Control.Reserved) > aoe.ReserveMax {
		return bad("control")
	}
	for i := range d.Members {
		if d.Members[i].Disk == 0 || i > 0 && d.Members[i-1].Disk >= d.Members[i].Disk {
			return bad("members")
		}
	}
	for i := range d.Extents {
		x := &d.Extents[i]
		if len(x.Shards) != d.Layout.Width() || x.Regions == 0 {
			return bad("extents")
		}
		for _, p := range x.Shards {
			if d.Member(p.Disk) == nil {
				return bad("placement on a disk that is no member")
			}
		}
	}
	for i, h := range d.Hist {
		if h.From == 0 || h.From > h.To || i > 0 && d.Hist[i-1].To >= h.From {
			return bad("history")
		}
	}
	return nil
}

// packExtents encodes: count, then per extent regions, number of shards, and per shard disk and generation; all varints.
func packExtents(xs []raid.Extent) []byte {
	out := binary.AppendUvarint(nil, uint64(len(xs)))
	for i := range xs {
		out = binary.AppendUvarint(out, uint64(xs[i].Regions))
		out = binary.AppendUvarint(out, uint64(len(xs[i].Shards)))
		for _, p := range xs[i].Shards {
			out = binary.AppendUvarint(out, uint64(p.Disk))
			out = binary.AppendUvarint(out, p.Gen)
		}
	}
	return out
}

func unpackExtents(b []byte) ([]raid.Extent, error) {
	bad := fmt.Errorf("%w: packed extents", ErrSnapshot)
	ok := true
	next := func(limit uint64) uint64 {
		x, n := binary.Uvarint(b)
		if n <= 0 || x > limit {
			ok, b = false, nil
			return 0
		}
		b = b[n:]
		return x
	}
	count := next(MaxExtents)
	if !ok || count*4 > uint64(len(b)) { // an extent takes at least four bytes
		return nil, bad
	}
	out := make([]raid.Extent, count)
	for i := range out {
		out[i].Regions = uint32(next(math.MaxUint32))
		out[i].Shards = make([]raid.Placement, next(32))
		for j := range out[i].Shards {
			out[i].Shards[j] = raid.Placement{Disk: raid.DiskID(next(math.MaxUint32)), Gen: next(math.MaxUint64)}
		}
		if !ok {
			return nil, bad
		}
	}
	if len(b) != 0 {
		return nil, bad
	}
	if count == 0 {
		return nil, nil
	}
	return out, nil
}
