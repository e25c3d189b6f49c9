package raid

// Block is one whole checksum block of a shard: always an after-image, never a delta (B: C11, C12).
type Block struct {
	Extent uint32
	Gen    uint64
	No     uint32 // block number in the shard
	Data   []byte // BlockBytes long; immutable from the moment the message is made
}

// ReqHeader is what is needed to answer an initiator's write that a later owner rolls forward (A.4.12).
type ReqHeader struct {
	Path   uint8    // SAN path (interface index of the cluster, not of the host)
	AgeUs  uint32   // µs from kernel receipt of the frame to sending of the Prepare
	Header [36]byte // Ethernet, AoE and ATA header of the request as received
}

// Record is a disk's part of one batch (A.3 log). Identity of the batch is (Epoch, Seq, BID), never Seq alone (B: C10, C24).
type Record struct {
	Epoch  Epoch
	Seq    Seq
	Prev   Seq // the disk's newest seq before this one
	BID    uint64
	Commit Seq     // the owner's commit point when it was sent
	Parts  DiskSet // all participants of the batch
	Reqs   []ReqHeader
	Blocks []Block
}

// RecordID is what a Report says of a record.
type RecordID struct {
	Epoch Epoch
	Seq   Seq
	BID   uint64
	Parts DiskSet
	Reqs  []ReqHeader
}

// ReqKind says what an owner asks of a disk.
type ReqKind uint8

// The requests of A.3. ReqShards is the one that does not come from an owner: a node sends it to its own disks from
// applied Raft state (A.3 Shards).
const (
	ReqFence ReqKind = iota + 1
	ReqStart
	ReqPrepare
	ReqCommit
	ReqFill
	ReqRegions
	ReqWipe
	ReqRead
	ReqVerify
	ReqShards
	ReqMake // room for Grow: refused by this release
)

// DiskRequest is one message to (Disk, Vol). Which fields count is said per kind; all else is zero. All byte slices
// reachable from it are immutable once it has been handed over; the receiver may keep them.
type DiskRequest struct {
	Kind   ReqKind
	Vol    VolumeID
	Disk   DiskID
	Epoch  Epoch
	Stream Stream // Start and everything after it
	ID     uint64 // chosen by the sender, comes back in the reply: Fence, Start, Fill, Regions, Wipe, Read, Verify, Shards
	From   NodeID // where the reply goes; set by the node that routes

	Since  Epoch       // Fence, Start, Shards: since[d]
	Shards []ShardRef  // Fence, Shards, Wipe: the live shards of the volume on this disk
	Acked  Seq         // Start: what the disk has acknowledged in e
	Hist   []HistRange // Start
	End    Seq         // Start: end of the former epoch, committed
	Forced bool        // Start: the volume was forced; clears damaged
	Rec    *Record     // Prepare
	Commit Seq         // Prepare, Commit: the commit point
	Touch  Seq         // Prepare, Commit, Read, Regions: last seq <= Commit (or S) that was sent to this disk
	S      Seq         // Fill, Regions, Read: as of
	R      Seq         // Fill: the region's last change <= S
	Last   bool        // Fill: base := S
	Extent uint32      // Fill, Regions, Read
	Gen    uint64      // Fill, Regions, Read
	Region uint32      // Fill: region number in the shard
	First  uint32      // Read: first block number; the range lies within one region
	Count  uint32      // Read: number of blocks, 1..BlocksPerRegion
	Blocks []Block     // Fill: blocks of that one region
}

// ReplyKind says what a disk answers.
type ReplyKind uint8

// The replies of A.3.
const (
	RepReport   ReplyKind = iota + 1 // Fence
	RepStarted                       // Start
	RepAck                           // Prepare: cumulative
	RepFilled                        // Fill
	RepRegions                       // Regions
	RepWiped                         // Wipe
	RepRead                          // Read
	RepVerified                      // Verify
	RepShards                        // Shards: they are durable
	RepNack
)

// NackReason says why a disk refuses.
type NackReason uint8

// The refusals.
const (
	NackFence   NackReason = iota + 1 // the epoch is below Fence
	NackGap                           // Prepare whose prev is not EndSeq: send from EndSeq on
	NackGone                          // the disk is gone, unreadable, has failed a sync, or does not hold the volume
	NackRefused                       // guard of Fill, Read or Wipe not met, or no space: Err says which
)

// Report is what a fenced disk says (A.3 Fence). Records lists all records > applied, by (seq, epoch).
type Report struct {
	Start     Epoch
	Commit    Seq
	Applied   Seq
	EndSeq    Seq
	Base      Seq
	Damaged   bool
	Records   []RecordID
	BootStart BootID // boot id when Start was accepted
	BootNow   BootID
}

// DiskReply is one message from (Disk, Vol) to the owner that asked.
type DiskReply struct {
	Kind   ReplyKind
	Vol    VolumeID
	Disk   DiskID
	Epoch  Epoch // of the request
	Stream Stream
	ID     uint64 // of the request
	To     NodeID // DiskRequest.From

	Nack    NackReason
	Fence   Epoch // NackFence
	Err     string
	Report  *Report
	EndSeq  Seq    // Started, NackGap, Ack
	Damaged bool   // Started
	Seq     Seq    // Ack: every record of this stream up to here is durable; Filled: S
	Commit  Seq    // Ack, Started: durable commit point, for the owner's credit
	Quota   uint64 // Started: bytes of records above the durable commit point that the disk takes for this volume
	Extent  uint32
	Regions []Seq    // Regions: per region of the shard, last change <= S
	First   uint32   // Read
	Blocks  [][]byte // Read: one per block asked for; nil = BadBlock; immutable
	R       Seq      // Read: seq of the last change applied in place in that region
}
