package initiator

// OpKind says what an operation does.
type OpKind uint8

// The operations. Zero is invalid.
const (
	OpRead     OpKind = iota + 1
	OpWrite           // ATA WRITE SECTORS EXT
	OpFlush           // ATA FLUSH CACHE EXT; the Linux driver never sends it
	OpIdentify        // ATA IDENTIFY DEVICE into 512 bytes of Data
	OpConfig          // Query Config with any sub-command
	OpMask            // MAC Mask List
	OpReserve         // Reserve/Release
)

func (k OpKind) String() string {
	names := [...]string{"invalid", "read", "write", "flush", "identify", "config", "mask", "reserve"}
	if int(k) < len(names) {
		return names[k]
	}
	return "invalid"
}

// SectorBytes is the size of a sector on the wire.
const SectorBytes = 512

// maxLBA is the first sector that 48 bits do not address.
const maxLBA = uint64(1) << 48

// Op is one operation. The caller fills the first group and hands it to Submit;
// from then on it belongs to the Device, Data included, until it comes back in
// Effects.Done with the second group filled.
type Op struct {
	Kind OpKind
	LBA  uint64 // first sector (read, write)
	// Data is what to write, or where to put what was read: a whole number of
	// sectors. Identify wants 512 bytes.
	Data []byte
	// Request is the body of a control command (config, mask, reserve), the
	// bytes behind the 24-byte header; see ConfigRequest and its like.
	Request []byte
	// DeadlineNs ends the retransmissions with ErrTimeout; 0 is never.
	DeadlineNs int64
	// User is the caller's own.
	User any

	Err error
	// Reply is the body of the answer to a control command. It is set also
	// when Err is a ProtocolError: the answer then says what is in force.
	Reply      []byte
	SubmitNs   int64
	FirstNs    int64 // first frame sent; 0 if none was
	DoneNs     int64
	FramesSent int // all copies of all frames
	Resent     int // of these, retransmissions

	cut  int // sectors cut into commands so far
	left int // commands cut and not answered
	done bool
	prev *Op
	next *Op
	wake chan struct{} // the shell's: closed when the operation is done
}

// Sectors is the length of a read or write in sectors.
func (op *Op) Sectors() int { return len(op.Data) / SectorBytes }

// MaybeExecuted says whether a write that ended with an error may still have
// been carried out in part or whole, or may be later: a frame of it has left.
func (op *Op) MaybeExecuted() bool { return op.Err != nil && op.FramesSent > 0 }

func (op *Op) control() bool {
	return op.Kind == OpConfig || op.Kind == OpMask || op.Kind == OpReserve
}

// wholeCut says whether every command of the operation has been made.
func (op *Op) wholeCut() bool {
	if op.Kind == OpRead || op.Kind == OpWrite {
		return op.cut == op.Sectors()
	}
	return op.cut > 0
}

func (op *Op) valid() bool {
	switch op.Kind {
	case OpRead, OpWrite:
		n := uint64(op.Sectors())
		return n > 0 && len(op.Data)%SectorBytes == 0 && op.LBA < maxLBA && n <= maxLBA-op.LBA
	case OpIdentify:
		return len(op.Data) == SectorBytes
	case OpFlush:
		return true
	case OpConfig, OpMask, OpReserve:
		return len(op.Request) > 0 && len(op.Request) <= maxControlBytes
	}
	return false
}
