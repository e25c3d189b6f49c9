package cluster

import (
	"go.etcd.io/raft/v3/raftpb"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

// SANFrame is a frame received on a SAN path.
type SANFrame struct {
	Path int    // index of the SAN interface, the same on all nodes
	RxNs int64  // kernel receive time, CLOCK_BOOTTIME
	Data []byte // valid during the call only
}

// TxFrame is a frame to send: Header and the slices of Payload, gathered.
type TxFrame struct {
	Path    int
	Header  []byte
	Payload [][]byte
}

// LinkChange makes a SAN path receive, or no longer receive, what is sent to a MAC.
type LinkChange struct {
	Path int
	MAC  aoe.MAC
	Join bool
}

// PeerOut is a message to a peer.
type PeerOut struct {
	To  raid.NodeID
	Msg *PeerMessage
}

// MetaWrite is a small durable write besides the Raft log. Exactly one of its parts is set.
type MetaWrite struct {
	ID      uint64
	Revoked *membership.Revoked // into the voter's table
	Term    raid.Term           // into the state file that the process holds the lock of, if not 0 (A.2 Proof of death)
}

// PeerMessage is what nodes say to each other. Exactly one part is set, besides Relay.
type PeerMessage struct {
	Relay *Relay // set: the rest is from Relay.From to Relay.To, and the receiver passes it on

	Raft          *raftpb.Message
	Request       *raid.DiskRequest
	Reply         *raid.DiskReply
	Heartbeat     *Heartbeat
	HeartbeatAck  *membership.HeartbeatAck
	Revoke        *membership.RevokeRequest
	RevokeReply   *membership.RevokeReply
	Dead          *membership.NodeTerm // proof of death, said by the node's own guardian
	Admin         *AdminRequest
	AdminReply    *AdminReply
	ReleaseVolume *ReleaseVolume
}

// Relay is the one hop by which Raft and lease messages get round a broken link (B: L2).
type Relay struct {
	From, To raid.NodeID
}

// Heartbeat asks for a lease and says how the node is.
type Heartbeat struct {
	membership.Heartbeat
	Paths   []PathReport
	Silent  []SilenceReport `json:",omitempty"` // of every other node; empty: it does not listen, or is of a version that does not say
	Disks   raid.DiskSet    // open on the node itself
	Reach   raid.DiskSet    // those, and what the peers that it has a connection to say of theirs
	Peers   []raid.NodeID   // those that it has a connection to: who wants to reach one of them may go over it (B: L2)
	Volumes []VolumeReport
}

// PathReport is one SAN path as its node sees it. Ages are in ns; below 0: never.
type PathReport struct {
	Carrier      bool  `json:"carrier"`
	MTUOK        bool  `json:"mtu_ok"`
	BeaconAge    int64 `json:"beacon_age_ns"`
	InitiatorAge int64 `json:"initiator_age_ns"`
}

// SilenceReport says for how long a node has listened without hearing a beacon that another has sent on one of its paths.
type SilenceReport struct {
	Node raid.NodeID
	Path uint8
	Ns   int64
}

// VolumeReport is what an owner tells everybody of its volume, for status and for the leader's decisions.
type VolumeReport struct {
	Vol       raid.VolumeID
	Epoch     raid.Epoch
	FenceSeen raid.Epoch
	CalmNs    int64
	State     raid.OwnerState
	Suspended string
	Resync    []raid.ResyncStatus
	Commit    raid.Seq
}

// ReleaseVolume is the leader's word to an owner: release the volume, it is to be deleted.
type ReleaseVolume struct {
	Vol   raid.VolumeID
	Epoch raid.Epoch
}

// AdminRequest is an operator's wish. Any node takes it; what only the leader or a volume's owner can do is passed on. Kinds:
// "propose" puts the membership command of that Type to the cluster, Body is its JSON; "delete" deletes Vol; "control" changes
// the config string, mask or reservation of Vol, as the owner does for an initiator.
type AdminRequest struct {
	ID   uint64        `json:"id"` // chosen by the driver, comes back in the reply
	From raid.NodeID   `json:"from,omitempty"`
	Kind string        `json:"kind"`
	Type string        `json:"type,omitempty"`
	Body []byte        `json:"body,omitempty"`
	Vol  raid.VolumeID `json:"vol,omitempty"`

	Control *aoe.ControlRequest `json:"control,omitempty"` // Src, Tag and Digest are ours

	call uint64 // the driver's ID: between nodes, ID is one that no other process gives out
}

// AdminReply ends an AdminRequest. Err is fit for an operator; it is empty on success.
type AdminReply struct {
	ID     uint64        `json:"id"`
	Err    string        `json:"err,omitempty"`
	Node   raid.NodeID   `json:"node,omitempty"`
	Disk   raid.DiskID   `json:"disk,omitempty"`
	Gen    uint64        `json:"gen,omitempty"`
	Volume raid.VolumeID `json:"volume,omitempty"`
}

// Ready is what a node wants done. See the contract in the package comment.
type Ready struct {
	Frames []TxFrame
	Peers  []PeerOut
	Disk   []*raid.DiskRequest // to local disks
	Raft   []membership.StorageWrite
	Meta   []MetaWrite
	Link   []LinkChange
	Admin  []AdminReply
	Events []Event
	Stop   error // the process must end: see membership.Group.Stopped
	NextNs int64 // call Tick then, at the latest
}
