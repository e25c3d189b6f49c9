package membership

import (
	"cmp"
	"errors"
	"slices"

	"clade/aoe"
	"clade/raid"
)

// Feature levels this binary can run at (B: L8). A command or snapshot of a higher level stops it.
const (
	MinFeatureLevel = 1
	MaxFeatureLevel = 1
)

// Limits of the replicated state. They bound memory and the size of a snapshot, whatever is proposed.
const (
	MaxNodes        = 64
	MaxDisks        = 4096
	MaxVolumes      = 255 // slots 0..254; 255 is the broadcast address
	MaxExtents      = 1 << 18
	MaxNameBytes    = 64
	MaxAddrBytes    = 256
	MaxSANPaths     = 16
	MaxCommandBytes = 64 << 10
)

// The reasons why a command is void. Result.Err wraps one of them, or one of package raid's.
var (
	ErrNotInit    = errors.New("the cluster is not initialised")
	ErrInvalid    = errors.New("invalid")
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("already used")
	ErrTerm       = errors.New("the node's lease term has moved on")
	ErrHeld       = errors.New("the node's lease term is held")
	ErrOwned      = errors.New("the owner may still be serving")
	ErrNotOwner   = errors.New("the proposer does not own the volume")
	ErrVotes      = errors.New("not enough votes")
	ErrInUse      = errors.New("in use")
	ErrNoSpace    = errors.New("not enough space")
	ErrFeature    = errors.New("feature level")
	ErrNotRelease = errors.New("not in this release")
)

// UUID is 16 random bytes.
type UUID [16]byte

// Node is a member of the cluster.
type Node struct {
	ID         raid.NodeID `json:"id"`
	Name       string      `json:"name"`
	Addr       string      `json:"addr"` // cluster address, host:port
	Host       string      `json:"host"` // what it calls its machine; for people
	Key        UUID        `json:"key"`  // chosen by the joining process: makes NodeJoin repeatable
	Term       raid.Term   `json:"term"` // lease term (A.1)
	Held       bool        `json:"held"` // some process got Term by its own NodeBoot
	Witness    bool        `json:"witness"`
	Draining   bool        `json:"draining"`
	Leaving    bool        `json:"leaving"`     // the leader takes it out of the voters, then removes it
	MaxFeature int         `json:"max_feature"` // highest feature level of its binary
	SANPaths   int         `json:"san_paths"`
	ClockMark  int64       `json:"clock_mark"` // its clock at its first command in this generation of log time, ms; 0: none
}

// DiskState says whether a disk may be used.
type DiskState string

// The states of a disk.
const (
	DiskOK       DiskState = "ok"
	DiskFailed   DiskState = "failed"   // takes no new shard
	DiskDetached DiskState = "detached" // takes no new shard; may be attached to another node
)

// Disk is a disk that the cluster knows.
type Disk struct {
	ID          raid.DiskID `json:"id"`
	UUID        UUID        `json:"uuid"`
	Node        raid.NodeID `json:"node"`
	AttachGen   uint64      `json:"attach_gen"` // grows with each attachment to a node (B: M7)
	CapacityMiB uint64      `json:"capacity_mib"`
	State       DiskState   `json:"state"`
	Label       string      `json:"label"` // for people: the path it was added under
}

// Identity is what a volume tells initiators of itself, constant for the volume's life (DESIGN 4.7).
type Identity struct {
	Serial       string `json:"serial"`   // ASCII, at most 20
	Model        string `json:"model"`    // ASCII, at most 40
	Firmware     string `json:"firmware"` // ASCII, at most 8
	FirmwareWord uint16 `json:"firmware_word"`
	BufCount     uint16 `json:"buf_count"`
}

// FailureDomain says what the shards of an extent must not share.
type FailureDomain string

// The failure domains.
const (
	DomainNode FailureDomain = "node"
	DomainDisk FailureDomain = "disk"
)

// Volume is a volume's replicated state. It is immutable once State holds it: a command replaces it.
type Volume struct {
	Data      *raid.Volume  `json:"data"` // what the data plane obeys; immutable as well
	Slot      uint8         `json:"slot"`
	Name      string        `json:"name"`
	Identity  Identity      `json:"identity"`
	Domain    FailureDomain `json:"domain"`
	Strict    bool          `json:"strict"`           // strict lease: reads ask the disks too (A.2, B: C18)
	Handoff   raid.NodeID   `json:"handoff"`          // the owner shall release so that this node takes over; 0: none
	Placed    raid.NodeID   `json:"placed,omitempty"` // where an operator has put it: there it stays while that node serves it; 0: anywhere
	CreatedMs int64         `json:"created_ms"`       // Unix time by the proposer's clock; for people
	Control   aoe.Control   `json:"control"`
}

// ID returns the volume's id.
func (v *Volume) ID() raid.VolumeID { return v.Data.ID }

// Voters are the lease voters (A.1). A majority of Cur, and of Prev when there is one, grants and revokes leases (B: C6).
type Voters struct {
	Cur  []raid.NodeID `json:"cur"`  // sorted
	Prev []raid.NodeID `json:"prev"` // sorted; empty: no change under way
	LV   uint64        `json:"lv"`
}

// Joint reports whether a change of voters is under way.
func (v Voters) Joint() bool { return len(v.Prev) > 0 }

// Majority reports whether yes holds for a majority of Cur and, during a change, of Prev as well.
func (v Voters) Majority(yes func(raid.NodeID) bool) bool {
	if !majority(v.Cur, yes) {
		return false
	}
	if !v.Joint() || mutated("NOT_JOINT") {
		return true
	}
	return majority(v.Prev, yes)
}

// Clone returns a deep copy.
func (v Voters) Clone() Voters {
	return Voters{Cur: slices.Clone(v.Cur), Prev: slices.Clone(v.Prev), LV: v.LV}
}

// majority is false for an empty set: nobody may grant or revoke in the name of no one.
func majority(set []raid.NodeID, yes func(raid.NodeID) bool) bool {
	n := 0
	for _, id := range set {
		if yes(id) {
			n++
		}
	}
	return n > len(set)/2
}

// State is the replicated state machine. The zero value is the state before ClusterInit.
type State struct {
	Applied      uint64 // Raft index of the last command
	Cluster      UUID
	Name         string
	Shelf        uint16
	FeatureLevel int
	SectorCount  uint8 // largest ATA request that volumes advertise, fixed at init (DESIGN 4.7)
	TimeMs       int64 // log time: see advanceClock
	NextNode     raid.NodeID
	NextDisk     raid.DiskID
	NextVolume   raid.VolumeID
	Voters       Voters
	Nodes        []Node    // sorted by id
	Disks        []Disk    // sorted by id
	Volumes      []*Volume // sorted by id
	Dedupe       []Dedupe  // in order of execution
}

// Initialised reports whether ClusterInit has been applied.
func (s *State) Initialised() bool { return s.FeatureLevel != 0 }

// Node returns node id, or nil. The result points into s.
func (s *State) Node(id raid.NodeID) *Node {
	i, ok := slices.BinarySearchFunc(s.Nodes, id, func(n Node, id raid.NodeID) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return nil
	}
	return &s.Nodes[i]
}

// NodeNamed returns the node of that name, or nil.
func (s *State) NodeNamed(name string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// Disk returns disk id, or nil. The result points into s.
func (s *State) Disk(id raid.DiskID) *Disk {
	i, ok := slices.BinarySearchFunc(s.Disks, id, func(d Disk, id raid.DiskID) int { return cmp.Compare(d.ID, id) })
	if !ok {
		return nil
	}
	return &s.Disks[i]
}

// DiskUUID returns the disk with that UUID, or nil.
func (s *State) DiskUUID(u UUID) *Disk {
	for i := range s.Disks {
		if s.Disks[i].UUID == u {
			return &s.Disks[i]
		}
	}
	return nil
}

// Volume returns volume id, or nil.
func (s *State) Volume(id raid.VolumeID) *Volume {
	i, ok := s.volumeIndex(id)
	if !ok {
		return nil
	}
	return s.Volumes[i]
}

func (s *State) volumeIndex(id raid.VolumeID) (int, bool) {
	return slices.BinarySearchFunc(s.Volumes, id, func(v *Volume, id raid.VolumeID) int { return cmp.Compare(v.Data.ID, id) })
}

// Slot returns the volume in a slot, or nil.
func (s *State) Slot(slot uint8) *Volume {
	for _, v := range s.Volumes {
		if v.Slot == slot {
			return v
		}
	}
	return nil
}

// DisksOf returns the disks attached to a node.
func (s *State) DisksOf(n raid.NodeID) raid.DiskSet {
	var out raid.DiskSet
	for i := range s.Disks {
		if s.Disks[i].Node == n {
			out = append(out, s.Disks[i].ID)
		}
	}
	return out
}

// OwnerLives reports whether the volume's owner may still be serving: it has one, did not release the epoch, and the
// owner's lease term has not been bumped. It is the negation of Takeover's guard (A.1).
func (s *State) OwnerLives(v *raid.Volume) bool {
	if v.Owner == 0 || v.Released == v.Epoch {
		return false
	}
	n := s.Node(v.Owner)
	return n != nil && v.OwnerTerm >= n.Term
}

// UsedMiB returns how much of a disk the volumes' shards take.
func (s *State) UsedMiB(d raid.DiskID) uint64 {
	return s.usedMiB()[d]
}

// UsedByDisk returns UsedMiB of all disks in one pass over the placements. Look up only: the order of a map must not matter.
func (s *State) UsedByDisk() map[raid.DiskID]uint64 { return s.usedMiB() }

// usedMiB sums up the regions of all placements by disk. Look up only; the order of a map must not matter to anyone.
func (s *State) usedMiB() map[raid.DiskID]uint64 {
	used := make(map[raid.DiskID]uint64, len(s.Disks))
	for _, v := range s.Volumes {
		for i := range v.Data.Extents {
			x := &v.Data.Extents[i]
			for _, p := range x.Shards {
				used[p.Disk] += uint64(x.Regions)
			}
		}
	}
	return used
}

// putVolume replaces the volume with the same id.
func (s *State) putVolume(v *Volume) {
	i, ok := s.volumeIndex(v.Data.ID)
	if !ok {
		panic("membership: putVolume of a volume that is not there")
	}
	s.Volumes[i] = v
}
