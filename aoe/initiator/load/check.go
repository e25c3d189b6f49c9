package load

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Verdict is what Check finds. Zero is invalid.
type Verdict uint8

// The verdicts.
const (
	Linearizable Verdict = iota + 1
	Violated
	Unknown // the search took too long; this is not a pass
)

func (v Verdict) String() string {
	switch v {
	case Linearizable:
		return "linearizable"
	case Violated:
		return "VIOLATED"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// Options say what is known about the run. The zero value makes the weakest
// assumptions: a copy lives for ever, all sectors start as zeros.
type Options struct {
	// Initial returns what a sector held before the history; nil = zeros.
	Initial func(lba uint64) Value
	// DeliveriesKnown: CopyRecord.DeliveredNs is complete, so that a copy
	// without a delivery was lost and is never executed.
	DeliveriesKnown bool
	// CopyLifeNs is how long after its sending a copy may be executed, if
	// deliveries are not known: the longest delay of network and target. 0 =
	// for ever.
	CopyLifeNs int64
	// EffectSlackNs is how long after its delivery a copy may be executed: 0
	// for a target whose order of execution is the order of arrival.
	EffectSlackNs int64
	// SectorTimeout bounds the search per sector; default 30 s.
	SectorTimeout time.Duration
}

// Violation is a sector whose history no disk could have.
type Violation struct {
	LBA  uint64
	Text string // the operations around the read that is wrong
}

// Result is the outcome of a Check.
type Result struct {
	Verdict    Verdict
	Violations []Violation // at most 8, lowest LBA first
	Unknown    []uint64    // sectors whose search was given up
	Sectors    int         // checked
	Operations int         // per sector, summed
}

// Err returns nil for Linearizable only.
func (r *Result) Err() error {
	switch {
	case r.Verdict == Linearizable:
		return nil
	case len(r.Violations) > 0:
		return fmt.Errorf("load: the history of LBA %d is not linearizable: %s", r.Violations[0].LBA, r.Violations[0].Text)
	}
	return fmt.Errorf("load: the histories of %d sectors could not be decided in time: this is not a pass", len(r.Unknown))
}

const maxViolations = 8

// forever is a time after all others.
const forever = int64(1<<63 - 1)

// Check decides whether the history of each sector is that of a register.
func Check(records []*Record, opt Options) *Result {
	if opt.SectorTimeout <= 0 {
		opt.SectorTimeout = 30 * time.Second
	}
	bySector := make(map[uint64][]*Record)
	for _, rec := range records {
		for i := 0; i < rec.Sectors; i++ {
			lba := rec.LBA + uint64(i)
			bySector[lba] = append(bySector[lba], rec)
		}
	}
	lbas := make([]uint64, 0, len(bySector))
	for lba := range bySector {
		lbas = append(lbas, lba)
	}
	slices.Sort(lbas)

	res := &Result{Verdict: Linearizable, Sectors: len(lbas)}
	for _, lba := range lbas {
		s := newSector(lba, bySector[lba], &opt)
		res.Operations += len(s.reads) + len(s.writes)
		verdict, text := s.check(opt.SectorTimeout)
		switch {
		case verdict == Violated:
			res.Verdict = Violated
			if len(res.Violations) < maxViolations {
				res.Violations = append(res.Violations, Violation{lba, text})
			}
		case verdict == Unknown:
			res.Unknown = append(res.Unknown, lba)
			if res.Verdict == Linearizable {
				res.Verdict = Unknown
			}
		}
	}
	return res
}

// event is one operation on one sector: a read, a write that was executed within
// the interval, or (optional) a copy that may have been.
type event struct {
	read, optional bool
	value          Value
	fromNs, toNs   int64
	client         int
}

func (e *event) String() string {
	verb := "wrote"
	switch {
	case e.read:
		verb = "read"
	case e.optional:
		verb = "may have written"
	}
	to := fmt.Sprintf("%.6f", float64(e.toNs)/1e9)
	if e.toNs == forever {
		to = "ever"
	}
	return fmt.Sprintf("[%.6f..%s] client %d %s %v", float64(e.fromNs)/1e9, to, e.client, verb, e.value)
}

// sector is the history of one sector.
type sector struct {
	initial Value
	reads   []event // by return
	writes  []event
	broken  string // a violation seen without any search
}

func newSector(lba uint64, records []*Record, opt *Options) *sector {
	s := &sector{}
	if opt.Initial != nil {
		s.initial = opt.Initial(lba)
	}
	known := map[Value]bool{s.initial: true}
	for _, rec := range records {
		if rec.Write {
			known[rec.Value] = true
			s.addWrite(lba, rec, opt)
		}
	}
	for _, rec := range records {
		if rec.Write || rec.Status != OK {
			continue
		}
		e := event{read: true, value: rec.Values[lba-rec.LBA], fromNs: rec.CallNs, toNs: rec.ReturnNs, client: rec.Client}
		if !known[e.value] && s.broken == "" {
			s.broken = e.String() + ", which nobody wrote there"
		}
		s.reads = append(s.reads, e)
	}
	slices.SortStableFunc(s.reads, func(a, b event) int { return cmp.Compare(a.toNs, b.toNs) })
	return s
}

// addWrite turns a write into its possible executions (see the package comment).
func (s *sector) addWrite(lba uint64, rec *Record, opt *Options) {
	e := event{value: rec.Value, client: rec.Client, optional: true}
	var copies []event
	firstNs := forever
	closedNs := forever
	if rec.ClosedNs > 0 {
		closedNs = rec.ClosedNs
	}
	for i := range rec.Copies {
		c := &rec.Copies[i]
		if !c.covers(lba) {
			continue
		}
		firstNs = min(firstNs, c.SentNs)
		e.fromNs = c.SentNs
		ends := c.DeliveredNs
		if !opt.DeliveriesKnown {
			ends = []int64{forever}
			if opt.CopyLifeNs > 0 {
				ends[0] = c.SentNs + opt.CopyLifeNs
			}
		}
		for _, end := range ends {
			if opt.DeliveriesKnown {
				end += opt.EffectSlackNs
			}
			if rec.Status != OK {
				end = forever
			}
			e.toNs = min(end, closedNs)
			copies = append(copies, e)
		}
	}
	if firstNs == forever && !(opt.DeliveriesKnown && len(rec.Copies) > 0) {
		// The copies were not recorded: there was one.
		firstNs = rec.CallNs
		e.fromNs, e.toNs = rec.CallNs, closedNs
		copies = append(copies, e)
	}
	if rec.Status == OK {
		if len(copies) == 0 {
			s.broken = fmt.Sprintf("client %d was told that its write %v is done, but no copy of it was delivered", rec.Client, rec.Value)
			return
		}
		// One copy has done it before the answer; taking away the one that
		// dies first leaves room for any choice of that one.
		first := 0
		for i := range copies {
			if copies[i].toNs < copies[first].toNs {
				first = i
			}
		}
		copies = slices.Delete(copies, first, first+1)
		s.writes = append(s.writes, event{value: rec.Value, client: rec.Client, fromNs: max(rec.CallNs, firstNs), toNs: rec.ReturnNs})
	}
	s.writes = append(s.writes, copies...)
}

// check searches for an order; for a violation it says which read is the first
// that fits none.
func (s *sector) check(timeout time.Duration) (Verdict, string) {
	if s.broken != "" {
		return Violated, s.broken
	}
	switch s.search(len(s.reads), timeout) {
	case porcupine.Ok:
		return Linearizable, ""
	case porcupine.Unknown:
		return Unknown, ""
	}
	// Fewer reads are fewer demands, so the first bad one can be bisected.
	low, high := 0, len(s.reads)
	for low+1 < high {
		mid := (low + high) / 2
		if s.search(mid, timeout) == porcupine.Illegal {
			high = mid
		} else {
			low = mid
		}
	}
	return Violated, s.explain(high)
}

// search looks for an order of all writes and the first n reads.
func (s *sector) search(n int, timeout time.Duration) porcupine.CheckResult {
	reads := s.reads[:n]
	lastNs := make(map[Value]int64) // when each value was last seen
	for _, r := range reads {
		lastNs[r.value] = max(lastNs[r.value], r.toNs)
	}
	ids := map[Value]uint32{s.initial: 0}
	id := func(v Value) uint32 {
		if _, ok := ids[v]; !ok {
			ids[v] = uint32(len(ids))
		}
		return ids[v]
	}
	var ops []porcupine.Operation
	add := func(e *event, toNs int64) {
		ops = append(ops, porcupine.Operation{ClientId: e.client, Call: e.fromNs, Return: toNs,
			Input: step{read: e.read, optional: e.optional, id: id(e.value)}})
	}
	for i := range s.writes {
		e := &s.writes[i]
		toNs := e.toNs
		if e.optional {
			// An execution that need not be helps only a read of its value:
			// without one later on, it may as well not have been. This keeps
			// the search small without changing its outcome.
			if toNs = min(toNs, lastNs[e.value]); toNs < e.fromNs {
				continue
			}
		}
		add(e, toNs)
	}
	for i := range reads {
		add(&reads[i], reads[i].toNs)
	}
	return porcupine.CheckOperationsTimeout(register, ops, timeout)
}

// explain lists what surrounds the n-th read.
func (s *sector) explain(n int) string {
	bad := s.reads[n-1]
	var lines []string
	lines = append(lines, bad.String()+" fits no order; around it:")
	near := slices.Concat(s.writes, s.reads[:n-1])
	slices.SortStableFunc(near, func(a, b event) int { return cmp.Compare(a.fromNs, b.fromNs) })
	near = slices.DeleteFunc(near, func(e event) bool { return e.fromNs > bad.toNs })
	if len(near) > 12 {
		near = near[len(near)-12:]
	}
	for i := range near {
		lines = append(lines, near[i].String())
	}
	return strings.Join(lines, "\n\t")
}

// step is the input of one operation of the register.
type step struct {
	read, optional bool
	id             uint32
}

// register is a sector as porcupine's model. Its state is the set of values that
// the sector may hold, since an optional execution may or may not have been: a
// sorted list of identifiers in a string.
var register = porcupine.Model{
	Init: func() any { return encode([]uint32{0}) },
	Step: func(state, input, _ any) (bool, any) {
		in := input.(step)
		switch {
		case in.read:
			if !contains(state.(string), in.id) {
				return false, state
			}
			return true, encode([]uint32{in.id})
		case in.optional:
			return true, insert(state.(string), in.id)
		}
		return true, encode([]uint32{in.id})
	},
}

func encode(ids []uint32) string {
	b := make([]byte, 0, 4*len(ids))
	for _, v := range ids {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return string(b)
}

func contains(set string, id uint32) bool {
	for i := 0; i < len(set); i += 4 {
		if binary.BigEndian.Uint32([]byte(set[i:i+4])) == id {
			return true
		}
	}
	return false
}

func insert(set string, id uint32) string {
	if contains(set, id) {
		return set
	}
	at := 0
	for at < len(set) && binary.BigEndian.Uint32([]byte(set[at:at+4])) < id {
		at += 4
	}
	return set[:at] + encode([]uint32{id}) + set[at:]
}
