package load

import (
	"sync"

	"clade/aoe"
	"clade/aoe/initiator"
)

// Status is how an operation ended.
type Status uint8

// The ends. Zero is invalid.
const (
	Open   Status = iota + 1 // no answer: a write may have been executed, or may yet be
	OK                       // answered with success
	Failed                   // answered with an error: a write may have been executed in part
)

// Record is one operation of a history. Times are nanoseconds of one clock that
// all clients share (boot time).
type Record struct {
	Client   int
	Write    bool
	LBA      uint64
	Sectors  int
	CallNs   int64
	ReturnNs int64 // of an operation that is not Open
	Status   Status
	Value    Value   // a write: of all its sectors
	Values   []Value // a read: per sector
	Copies   []CopyRecord
	ClosedNs int64 // a write that cannot be executed any more from here on; 0 = never
}

// CopyRecord is one frame that left for a write.
type CopyRecord struct {
	LBA         uint64
	Sectors     int
	SentNs      int64
	DeliveredNs []int64 // each delivery of it to a target, if these are recorded
}

// covers says whether the copy carries a sector.
func (c *CopyRecord) covers(lba uint64) bool {
	return lba >= c.LBA && lba-c.LBA < uint64(c.Sectors)
}

// Recorder collects a history. All its methods may be called by any goroutine.
type Recorder struct {
	mu       sync.Mutex
	records  []*Record
	tracked  map[copyKey]copyPlace
	damaged  int
	answered int
}

type copyKey struct {
	mac aoe.MAC
	tag uint32
}

type copyPlace struct {
	record *Record
	index  int
}

// NewRecorder returns an empty history. With trackDeliveries, Delivered finds
// the copies by source MAC and tag.
func NewRecorder(trackDeliveries bool) *Recorder {
	r := &Recorder{}
	if trackDeliveries {
		r.tracked = make(map[copyKey]copyPlace)
	}
	return r
}

// Begin records the start of an operation; value is for writes. Put the result
// into Op.User, so that Sent finds it.
func (r *Recorder) Begin(nowNs int64, client int, write bool, lba uint64, sectors int, value Value) *Record {
	rec := &Record{Client: client, Write: write, LBA: lba, Sectors: sectors, CallNs: nowNs, Status: Open, Value: value}
	r.mu.Lock()
	r.records = append(r.records, rec)
	r.mu.Unlock()
	return rec
}

// Sent records a copy: make it the initiator's Config.OnSend, bound to its MAC.
// Only writes with a Record in Op.User matter.
func (r *Recorder) Sent(mac aoe.MAC, c initiator.Copy) {
	rec, ok := c.Op.User.(*Record)
	if !ok || !rec.Write {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Copies = append(rec.Copies, CopyRecord{LBA: c.LBA, Sectors: c.Sectors, SentNs: c.SentNs})
	if r.tracked != nil {
		r.tracked[copyKey{mac, c.Tag}] = copyPlace{rec, len(rec.Copies) - 1}
	}
}

// Delivered records that a target received the frame with this source and tag
// (the last one sent under it). Other frames are ignored.
func (r *Recorder) Delivered(nowNs int64, src aoe.MAC, tag uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.tracked[copyKey{src, tag}]; ok {
		c := &at.record.Copies[at.index]
		c.DeliveredNs = append(c.DeliveredNs, nowNs)
	}
}

// End records the end of an operation. data is what a read returned.
func (r *Recorder) End(nowNs int64, rec *Record, status Status, data []byte) {
	var values []Value
	bad := 0
	if !rec.Write && status == OK {
		values = make([]Value, rec.Sectors)
		for i := range values {
			values[i] = Parse(data[i*SectorBytes:], rec.LBA+uint64(i))
			if values[i] >= Foreign {
				bad++
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Status, rec.Values = status, values
	if status != Open {
		rec.ReturnNs = nowNs
		r.answered++
	}
	r.damaged += bad
}

// CloseWrites records that no write of a client can be executed from now on: the
// answer to a reservation that excludes it was received.
func (r *Recorder) CloseWrites(nowNs int64, client int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.records {
		if rec.Write && rec.Client == client && rec.ClosedNs == 0 {
			rec.ClosedNs = nowNs
		}
	}
}

// DamagedSectors is how many sectors so far were read that nobody wrote.
func (r *Recorder) DamagedSectors() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.damaged
}

// Records returns the history. Nothing may be recorded while it is used.
func (r *Recorder) Records() []*Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records
}

// Answered is how many operations have been answered so far, with success or an error.
func (r *Recorder) Answered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}
