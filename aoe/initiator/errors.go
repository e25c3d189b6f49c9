package initiator

import (
	"errors"
	"fmt"
)

// Errors that callers test for with errors.Is.
var (
	// ErrTimeout: nothing answered before the deadline. A write that ends so
	// may have been executed, and may still be.
	ErrTimeout = errors.New("no answer from the target before the deadline")
	// ErrReserved: the volume is reserved by another initiator (AoE error 6).
	ErrReserved = errors.New("the volume is reserved by another initiator")
	// ErrConfigPresent: the config string is set already (AoE error 4).
	ErrConfigPresent = errors.New("a config string is present already")
	// ErrDown: the device was given up for silence (Config.DeadNs), or closed.
	ErrDown = errors.New("the device is down")
	// ErrCanceled: the caller gave the operation up.
	ErrCanceled = errors.New("operation canceled")
	// ErrRange: an operation beyond what 48 bits of sectors address, of a
	// length that is not a whole number of sectors, or of no sectors at all.
	ErrRange = errors.New("not a range of whole sectors of the volume")
	// ErrRunt: a read was answered with too little data. The Linux driver
	// makes an I/O error of it, and so do we.
	ErrRunt = errors.New("the answer to a read carries too little data")
)

// AoE error codes (AoEr11, section 2.4).
const (
	codeBadCommand    = 1
	codeBadArgument   = 2
	codeUnavailable   = 3
	codeConfigPresent = 4
	codeBadVersion    = 5
	codeReserved      = 6
)

// ProtocolError is an answer with the AoE error flag.
type ProtocolError struct {
	Shelf uint16
	Slot  uint8
	Code  uint8
}

func (e *ProtocolError) Error() string {
	text := "unknown AoE error"
	switch e.Code {
	case codeBadCommand:
		text = "unrecognized command code"
	case codeBadArgument:
		text = "bad argument parameter"
	case codeUnavailable:
		text = "device unavailable"
	case codeConfigPresent:
		text = ErrConfigPresent.Error()
	case codeBadVersion:
		text = "unsupported version"
	case codeReserved:
		text = ErrReserved.Error()
	}
	return fmt.Sprintf("e%d.%d: %s (AoE error %d)", e.Shelf, e.Slot, text, e.Code)
}

// Is makes errors.Is(err, ErrReserved) and errors.Is(err, ErrConfigPresent) work.
func (e *ProtocolError) Is(target error) bool {
	switch target {
	case ErrReserved:
		return e.Code == codeReserved
	case ErrConfigPresent:
		return e.Code == codeConfigPresent
	}
	return false
}

// ATAError is a command that the volume ended with an error status. It is
// final: no initiator tries again.
type ATAError struct {
	Shelf   uint16
	Slot    uint8
	LBA     uint64 // first sector of the frame that failed
	Sectors int
	Write   bool
	Status  uint8 // ATA status register
	Err     uint8 // ATA error register
}

func (e *ATAError) Error() string {
	verb := "read"
	if e.Write {
		verb = "write"
	}
	reason := ""
	switch {
	case e.Err&0x40 != 0:
		reason = ", uncorrectable data"
	case e.Err&0x10 != 0:
		reason = ", no such sector (beyond the end of the volume?)"
	case e.Err&0x04 != 0:
		reason = ", command aborted"
	}
	return fmt.Sprintf("e%d.%d: ATA error in %s of %d sectors at LBA %d: status %#02x, error %#02x%s",
		e.Shelf, e.Slot, verb, e.Sectors, e.LBA, e.Status, e.Err, reason)
}
