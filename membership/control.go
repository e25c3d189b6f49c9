package membership

import "clade/raid"

// MAC is an Ethernet address.
type MAC [6]byte

// ControlState is what initiators may change of a volume.
type ControlState struct {
	Config   []byte `json:"config"`
	Setter   MAC    `json:"setter"`
	Mutation uint64 `json:"mutation"`
	Mask     []MAC  `json:"mask"`
	Reserved []MAC  `json:"reserved"`
}

// Dedupe is an entry of the table of recent control requests.
type Dedupe struct {
	Vol raid.VolumeID `json:"vol"`
}

// ControlOutcome is what to answer.
type ControlOutcome struct{ Silent bool }

// Control is an initiator's control request.
type Control struct {
	Vol   raid.VolumeID `json:"vol"`
	Epoch raid.Epoch    `json:"epoch"`
}

// CommandType returns the tag on the wire.
func (*Control) CommandType() string { return "control" }

func (c *Control) apply(s *State, h Header) Result { return Result{} }
