package raid

// IO is one admitted request of an initiator. The caller has checked mask, reservation and range.
type IO struct {
	Token  uint64 // comes back in the Completion
	Offset uint64 // bytes from the start of the volume; multiple of SectorBytes
	Bytes  int    // multiple of SectorBytes, > 0; Offset+Bytes <= Size
	Data   []byte // Write: Bytes long; copied by the call, the caller keeps its buffer
	Req    ReqHeader
}

// DoneKind says how an IO or Barrier ended.
type DoneKind uint8

// The ends of a request. A dropped request was never executed and never will be; nothing is sent for it.
const (
	DoneRead DoneKind = iota + 1
	DoneWrite
	DoneBarrier
	DoneDropped
	DoneMuted      // executed, but after so long a suspension that an answer would only do harm: stay silent (A.4.1)
	DoneUnreadable // fewer than k good blocks although all in-sync disks answered: ATA UNC (A.4.6)
)

// Completion ends one IO or Barrier.
type Completion struct {
	Token uint64
	Kind  DoneKind
	Data  [][]byte // DoneRead: slices that concatenate to the bytes read; immutable, shared with the cache
}

// RolledForward names a write of the former epoch that this owner committed at its Activate and that may be answered by a
// node that received its Prepare itself, while it is young enough (A.4.12).
type RolledForward struct {
	ID  RecordID
	Req ReqHeader
}

// OwnerEventKind says what an OwnerEvent reports.
type OwnerEventKind uint8

// What an owner reports besides its messages.
const (
	EventActive     OwnerEventKind = iota + 1 // FENCING is over; Disks = F
	EventDead                                 // this incarnation is over: Text says why
	EventDropped                              // a disk left W: Disk, Text
	EventRejoin                               // a disk's resync began: Disk
	EventInSync                               // a disk is in-sync again: Disk
	EventSuspended                            // admitted no more: Text says what is missing
	EventResumed                              // admitted again
	EventRepaired                             // a bad block was rebuilt: Disk, Text
	EventUnreadable                           // a row has fewer than k good blocks: Text
	EventReleased                             // a planned handoff finished its pipeline
	EventFenced                               // a disk is fenced for the later epoch Fence: take over with a larger one (B: L7)
)

// OwnerEvent is something an operator may want to know.
type OwnerEvent struct {
	Kind  OwnerEventKind
	Disk  DiskID
	Disks DiskSet
	Fence Epoch
	Text  string
}

// Effects is what an owner wants done since the last Take. It and its slices are valid until the next call of any method of
// the owner; what the requests point to is immutable.
type Effects struct {
	Requests  []*DiskRequest
	Proposals []VolumeCommand
	Done      []Completion
	Forward   []RolledForward
	Events    []OwnerEvent

	parts [][]byte // of Done's Data
}

// OwnerState is where an owner is in its life: FENCING, ACTIVE, DEAD (A.4).
type OwnerState uint8

// The states of an owner.
const (
	OwnerFencing OwnerState = iota + 1
	OwnerActive
	OwnerDead
)

// String returns the state's name in A.4.
func (s OwnerState) String() string {
	switch s {
	case OwnerFencing:
		return "fencing"
	case OwnerActive:
		return "active"
	case OwnerDead:
		return "dead"
	}
	return "invalid"
}

// ResyncStatus is the progress of one joining disk.
type ResyncStatus struct {
	Disk  DiskID
	Done  int // regions copied or found unchanged
	Total int // regions of the disk's shards
}

// OwnerStatus is a snapshot for people and tests.
type OwnerStatus struct {
	State     OwnerState
	InSync    DiskSet
	Waiting   DiskSet // W: commits wait for these
	Joining   DiskSet // J
	Commit    Seq
	Next      Seq
	Suspended string // empty, or why nothing is admitted
	Resync    []ResyncStatus
	Queued    int
	CacheRows int
	Forced    bool // this epoch began with what an operator forced: writes may be lost
}

// OwnerConfig is what an owner is told at birth. Zero values mean the documented defaults.
type OwnerConfig struct {
	Node          NodeID
	Local         DiskSet // disks of this node: preferred for reads where there is a choice
	Seed          uint64  // for batch ids; must differ between incarnations
	Strict        bool    // reads ask the disks for the epoch besides the lease (A.2 Strict lease)
	CacheBytes    int     // stripe cache; default 64 MiB
	BatchBytesMax int     // data bytes in one batch; default 1 MiB
	QueueBytesMax int     // data of admitted, unfinished requests; default 16 MiB
	InflightMax   int     // batches between Prepare and commit; default 64
	AckTimeoutNs  int64   // a disk in W that owes an ack this long is dropped; default 3 s
	DisconnectNs  int64   // a disk in W whose stream is broken this long is dropped; default 150 ms
	FenceWaitNs   int64   // T of A.4 FENCING; default 3 s
	ReadTimeoutNs int64   // a read is sent elsewhere after this; default 300 ms
	CommitIdleNs  int64   // Commit travels alone after this; default 20 ms
	RejoinBaseNs  int64   // first hold-off before a dropped disk is taken back; default 200 ms, doubling to 5 min
	ResyncWindow  int     // regions of a joining disk that are copied at once while no initiator wants anything; default 4
	Pace          *Pace   // shared by the owners of a node; default: one of its own
}

const (
	ms     = int64(1_000_000)
	second = 1000 * ms
)

func (c OwnerConfig) withDefaults() OwnerConfig {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	defi := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defi(&c.CacheBytes, 64<<20)
	defi(&c.BatchBytesMax, 1<<20)
	defi(&c.QueueBytesMax, 16<<20)
	defi(&c.InflightMax, 64)
	defi(&c.ResyncWindow, 4)
	if c.Pace == nil {
		c.Pace = &Pace{}
	}
	def(&c.AckTimeoutNs, 3*second)
	def(&c.DisconnectNs, 150*ms)
	def(&c.FenceWaitNs, 3*second)
	def(&c.ReadTimeoutNs, 300*ms)
	def(&c.CommitIdleNs, 20*ms)
	def(&c.RejoinBaseNs, 200*ms)
	return c
}
