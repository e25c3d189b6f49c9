package membership

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"clade/aoe"
	"clade/raid"
)

// commandVersion is the version of the envelope.
const commandVersion = 1

// Header is what every command carries besides its body.
type Header struct {
	ID uint64      // chosen by the proposer: it finds its Result by (By, ID)
	By raid.NodeID // proposer; 0 before ClusterInit
	// ClockMs is the proposer's own clock (CLOCK_BOOTTIME in ms). Log time is made of it: see State.advanceClock.
	ClockMs int64
}

// Body is the payload of one type of command: one of the structs of this package that has CommandType.
type Body interface {
	// CommandType returns the "type" tag.
	CommandType() string
	// apply checks the guard, then changes s. It must not change anything when it returns a Result with Err.
	apply(s *State, h Header) Result
}

// Result is what became of a command. The proposer acts on it and on nothing else (B: C7).
type Result struct {
	Index uint64
	Type  string
	By    raid.NodeID
	ID    uint64

	Err  error // why the command is void; the message is fit for an operator
	Stop error // this binary cannot apply the command: the node must stop (B: L8)

	Node    raid.NodeID     // NodeJoin, ClusterInit: the new node; NodeBoot, NodeDead, NodeRevoke: the node
	Term    raid.Term       // NodeBoot, NodeDead, NodeRevoke: the term after the command
	Disk    raid.DiskID     // DiskAdd, DiskAttach
	Volume  raid.VolumeID   // commands on one volume
	Control *ControlOutcome // Control: what to answer; nil with Err
}

// OK reports whether the command took effect.
func (r Result) OK() bool { return r.Err == nil && r.Stop == nil }

type envelope struct {
	V       int             `json:"v"`
	Type    string          `json:"type"`
	ID      uint64          `json:"id"`
	By      raid.NodeID     `json:"by"`
	ClockMs int64           `json:"ms"`
	Body    json.RawMessage `json:"body"`
}

// Encode returns a command as it goes into the Raft log.
func Encode(h Header, b Body) ([]byte, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("membership: encode %s: %w", b.CommandType(), err)
	}
	data, err := json.Marshal(envelope{commandVersion, b.CommandType(), h.ID, h.By, h.ClockMs, body})
	if err != nil {
		return nil, fmt.Errorf("membership: encode %s: %w", b.CommandType(), err)
	}
	if len(data) > MaxCommandBytes {
		return nil, fmt.Errorf("membership: %s of %d bytes is longer than %d: %w", b.CommandType(), len(data), MaxCommandBytes, ErrInvalid)
	}
	return data, nil
}

// errUnknown marks what only a newer binary can know: the node must stop.
var errUnknown = errors.New("unknown to this binary")

// Decode parses a command. An error that wraps errUnknown means that a newer binary wrote it; every other error means that
// no binary ever could have.
func Decode(data []byte) (Header, Body, error) {
	var e envelope
	if len(data) > MaxCommandBytes {
		return Header{}, nil, fmt.Errorf("command of %d bytes: %w", len(data), ErrInvalid)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return Header{}, nil, fmt.Errorf("command is no JSON of the right shape: %w", ErrInvalid)
	}
	h := Header{ID: e.ID, By: e.By, ClockMs: e.ClockMs}
	if e.V != commandVersion {
		return h, nil, fmt.Errorf("command version %d: %w", e.V, errUnknown)
	}
	b := newBody(e.Type)
	if b == nil {
		if reservedTypes[e.Type] {
			return h, nil, fmt.Errorf("%s: %w", e.Type, ErrNotRelease)
		}
		return h, nil, fmt.Errorf("command type %q: %w", e.Type, errUnknown)
	}
	if err := json.Unmarshal(e.Body, b); err != nil {
		return h, nil, fmt.Errorf("%s: body is no JSON of the right shape: %w", e.Type, ErrInvalid)
	}
	d := json.NewDecoder(bytes.NewReader(e.Body))
	d.DisallowUnknownFields()
	if err := d.Decode(newBody(e.Type)); err != nil { // it parses, so a field is new
		return h, nil, fmt.Errorf("%s: a field: %w", e.Type, errUnknown)
	}
	switch b := b.(type) { // the kinds within a type are types, too
	case *VolumeCommand:
		if b.Kind > raid.CmdRelease {
			return h, nil, fmt.Errorf("%s: %v: %w", e.Type, b.Kind, errUnknown)
		}
	case *Control:
		if b.Req.Kind > aoe.ControlReserveForce {
			return h, nil, fmt.Errorf("%s: kind %d: %w", e.Type, b.Req.Kind, errUnknown)
		}
	}
	return h, b, nil
}

// newBody returns an empty body of a type, or nil.
func newBody(typ string) Body {
	switch typ {
	case "cluster_init":
		return &ClusterInit{}
	case "node_join":
		return &NodeJoin{}
	case "node_leave":
		return &NodeLeave{}
	case "node_remove":
		return &NodeRemove{}
	case "node_boot":
		return &NodeBoot{}
	case "node_dead":
		return &NodeDead{}
	case "node_revoke":
		return &NodeRevoke{}
	case "set_draining":
		return &SetDraining{}
	case "disk_add":
		return &DiskAdd{}
	case "disk_attach":
		return &DiskAttach{}
	case "disk_replace":
		return &DiskReplace{}
	case "disk_state":
		return &DiskSetState{}
	case "disk_remove":
		return &DiskRemove{}
	case "create":
		return &Create{}
	case "delete":
		return &Delete{}
	case "takeover":
		return &Takeover{}
	case "volume":
		return &VolumeCommand{}
	case "handoff":
		return &Handoff{}
	case "control":
		return &Control{}
	case "voters_begin":
		return &VotersBegin{}
	case "voters_end":
		return &VotersEnd{}
	case "feature_level":
		return &SetFeatureLevel{}
	}
	return nil
}

// reservedTypes are commands of A.1 whose names are taken but which this release refuses: every replica alike.
var reservedTypes = map[string]bool{
	"grow": true, "grow_end": true, "volume_disk_add": true, "move_begin": true, "move_end": true, "move_abort": true,
	"hist_trim": true, "force": true,
}

// Apply executes one entry of the Raft log. It is total and deterministic: whatever data is, each replica gets the same State
// and the same Result. index must grow from call to call; an index that has been applied is ignored.
func (s *State) Apply(index uint64, data []byte) Result {
	if index <= s.Applied {
		return Result{Index: index, Err: fmt.Errorf("index %d was applied before: %w", index, ErrInvalid)}
	}
	h, b, err := Decode(data)
	r := Result{Index: index, By: h.By, ID: h.ID}
	switch {
	case errors.Is(err, errUnknown):
		r.Stop = fmt.Errorf("membership: log index %d: %w; this node must be upgraded", index, err)
		return r // nothing has changed: the upgraded binary applies it
	case err != nil:
		s.Applied = index
		r.Err = err
		return r
	}
	s.Applied = index
	r.Type = b.CommandType()
	if _, init := b.(*ClusterInit); !init && !s.Initialised() {
		r.Err = ErrNotInit
		return r
	}
	s.advanceClock(h)
	out := b.apply(s, h)
	if out.Stop != nil {
		s.Applied = index - 1
	}
	out.Index, out.Type, out.By, out.ID = index, r.Type, h.By, h.ID
	return out
}

// maxClockMs bounds clocks so that sums cannot overflow.
const maxClockMs = math.MaxInt64 / 4

// advanceClock moves log time, by which the dedupe table ages (B: C20). Log time must never run ahead of real time, whatever the
// wall clocks say, however far the nodes' clocks are apart, and however long the cluster was idle. So it counts only time that one
// node has seen pass between two of its own commands: a generation ends when some node's clock is 20 s past what it was at its
// first command in it. Then time moves by these 20 s, and all begin anew.
func (s *State) advanceClock(h Header) {
	n := s.Node(h.By)
	if n == nil || n.Term == 0 || h.ClockMs <= 0 {
		return
	}
	if n.ClockMark == 0 || h.ClockMs < n.ClockMark {
		n.ClockMark = h.ClockMs
		return
	}
	if h.ClockMs-n.ClockMark < generationMs {
		return
	}
	s.TimeMs = min(s.TimeMs+generationMs, maxClockMs)
	for i := range s.Nodes {
		s.Nodes[i].ClockMark = 0
	}
	n.ClockMark = h.ClockMs
}

func void(format string, args ...any) Result { return Result{Err: fmt.Errorf(format, args...)} }

// NewCommand returns an empty body of a command type, for whoever gets commands as JSON; an error names the type.
func NewCommand(typ string) (Body, error) {
	if b := newBody(typ); b != nil {
		return b, nil
	}
	if reservedTypes[typ] {
		return nil, fmt.Errorf("%s: %w", typ, ErrNotRelease)
	}
	return nil, fmt.Errorf("command type %q: %w", typ, errUnknown)
}
