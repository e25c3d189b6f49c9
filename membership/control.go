package membership

import (
	"fmt"
	"slices"

	"clade/aoe"
	"clade/raid"
)

// Bounds of the table of recent control requests (B: C20).
const (
	maxDedupe       = 4096
	maxDedupePerMAC = 64
	// Log time advances in generations of 20 s (State.advanceClock). Of the four that pass before an entry goes, three lie
	// wholly after its execution: at least 60 s.
	generationMs = 20_000
	dedupeLifeMs = 4 * generationMs
)

// Dedupe is an entry of the table of recent control requests: how the first copy of a request ended.
type Dedupe struct {
	Vol      raid.VolumeID     `json:"vol"`
	Src      aoe.MAC           `json:"src"`
	Tag      [4]byte           `json:"tag"`
	Digest   [16]byte          `json:"digest"` // of the whole command
	AtMs     int64             `json:"at_ms"`  // log time
	Result   aoe.ControlResult `json:"result"`
	Mutation uint64            `json:"mutation"` // of the config string when the request had ended
}

// ControlOutcome is what the owner does about a control request whose command has been applied.
type ControlOutcome struct {
	Silent   bool              // no answer: the initiator asks again later
	Repeated bool              // it was in the table and has not been executed again
	Result   aoe.ControlResult // what to answer, together with the volume's Control now
}

// Control changes what initiators may change of a volume, on behalf of its owner in Epoch. So a change that a former owner
// proposed is void, and Activate's log index covers every change that was accepted before (B: C19).
type Control struct {
	Vol   raid.VolumeID      `json:"vol"`
	Epoch raid.Epoch         `json:"epoch"`
	Req   aoe.ControlRequest `json:"req"`
}

// CommandType returns the tag on the wire.
func (*Control) CommandType() string { return "control" }

func (c *Control) apply(s *State, h Header) Result {
	v, err := s.volumeAt(c.Vol, c.Epoch)
	if err != nil {
		return Result{Volume: c.Vol, Err: err}
	}
	switch {
	case h.By != v.Data.Owner:
		return Result{Volume: c.Vol, Err: fmt.Errorf("volume %q: control request by node %d: %w", v.Name, h.By, ErrNotOwner)}
	case !v.Data.Active:
		return Result{Volume: c.Vol, Err: fmt.Errorf("volume %q: %w", v.Name, raid.ErrNotActive)}
	}
	s.Dedupe = slices.DeleteFunc(s.Dedupe, func(d Dedupe) bool { return s.TimeMs-d.AtMs >= dedupeLifeMs })
	mine := 0
	for i := range s.Dedupe {
		d := &s.Dedupe[i]
		if d.Src != c.Req.Src {
			continue
		}
		if mine++; !mutated("C20") && d.Vol == c.Vol && d.Tag == c.Req.Tag && d.Digest == c.Req.Digest {
			out := repeated(v.Control, c.Req, d)
			return Result{Volume: c.Vol, Control: &out}
		}
	}
	if mutated("C20_QUOTA") {
		mine = 0
	}
	if byOperator(c.Req) {
		mine = 0 // operators are few, and answer for what their scripts do
	}
	if mine >= maxDedupePerMAC || len(s.Dedupe) >= maxDedupe { // of young entries: not executed, since it could not be remembered
		return Result{Volume: c.Vol, Control: &ControlOutcome{Silent: true}}
	}
	control, res := v.Control.Apply(c.Req)
	w := *v
	w.Control = control
	s.putVolume(&w)
	s.Dedupe = append(s.Dedupe, Dedupe{Vol: c.Vol, Src: c.Req.Src, Tag: c.Req.Tag, Digest: c.Req.Digest,
		AtMs: s.TimeMs, Result: res, Mutation: control.Mutation})
	return Result{Volume: c.Vol, Control: &ControlOutcome{Result: res}}
}

// repeated answers a request that has been executed before. Who lost has lost; who won is told so only while it is still true
// (B: C20). A key is not unique in time: the same tag and bytes may be a new request, which neither may be executed (it could be
// a late copy) nor be told of a success that is none. It gets silence until the entry is old. An operator's key is unique: his node
// asks until it hears how that one request has ended, whatever came after it.
func repeated(now aoe.Control, req aoe.ControlRequest, d *Dedupe) ControlOutcome {
	out := ControlOutcome{Repeated: true, Result: d.Result}
	if !d.Result.OK() || byOperator(req) || mutated("WON_FOR_EVER") {
		return out
	}
	holds := true
	switch req.Kind {
	case aoe.ControlConfigSet:
		holds = now.Mutation == d.Mutation
		if !holds && len(now.Config) > 0 {
			out.Result = aoe.ControlResult{AoEError: aoe.ErrorStringPresent}
			return out
		}
	case aoe.ControlConfigForce:
		holds = now.Mutation == d.Mutation
	case aoe.ControlMaskEdit:
		again, res := now.Apply(req)
		holds = res.OK() && slices.Equal(again.Mask, now.Mask)
	case aoe.ControlReserveSet:
		holds = slices.Equal(now.Reserved, req.MACs)
		if !holds && !now.MayUse(req.Src) {
			out.Result = aoe.ControlResult{AoEError: aoe.ErrorReserved}
			return out
		}
	case aoe.ControlReserveForce:
		holds = slices.Equal(now.Reserved, req.MACs)
	}
	out.Silent = !holds
	return out
}

// byOperator reports whether a request came from a node's admin interface: no initiator has the address zero (aoe.Target drops it).
func byOperator(req aoe.ControlRequest) bool { return req.Src == aoe.MAC{} }

func normaliseControl(c aoe.Control) aoe.Control {
	c.Config, c.Mask, c.Reserved = normalise(c.Config), normalise(c.Mask), normalise(c.Reserved)
	return c
}
