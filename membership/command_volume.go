package membership

import (
	"fmt"
	"slices"

	"clade/raid"
)

// Delete removes a volume; Takeover's guard holds, so no former owner can still serve it from memory (B: C29).
type Delete struct {
	Vol   raid.VolumeID `json:"vol"`
	Epoch raid.Epoch    `json:"epoch"`
	Ver   uint64        `json:"ver"`
}

// CommandType returns the tag on the wire.
func (*Delete) CommandType() string { return "delete" }

func (c *Delete) apply(s *State, h Header) Result {
	v, err := s.volumeAt(c.Vol, c.Epoch)
	if err != nil {
		return Result{Err: err}
	}
	if c.Ver != v.Data.Ver {
		return void("volume %q is at version %d, not %d: %w", v.Name, v.Data.Ver, c.Ver, raid.ErrVersion)
	}
	if s.OwnerLives(v.Data) && !mutated("DELETE_LIVE") {
		return void("volume %q is served by node %d: %w; release it first", v.Name, v.Data.Owner, ErrOwned)
	}
	i, _ := s.volumeIndex(c.Vol)
	s.Volumes = slices.Delete(s.Volumes, i, i+1)
	s.Dedupe = slices.DeleteFunc(s.Dedupe, func(d Dedupe) bool { return d.Vol == c.Vol })
	return Result{Volume: c.Vol}
}

// Takeover gives a volume without a living owner to an incarnation of a node (A.1). Next is normally Epoch+1, and more when
// a disk has seen a higher fence (B: L7).
type Takeover struct {
	Vol   raid.VolumeID `json:"vol"`
	Epoch raid.Epoch    `json:"epoch"`
	Next  raid.Epoch    `json:"next"`
	Node  raid.NodeID   `json:"node"`
	Term  raid.Term     `json:"term"`
}

// CommandType returns the tag on the wire.
func (*Takeover) CommandType() string { return "takeover" }

// maxEpoch leaves room above every epoch that a broken disk may report.
const maxEpoch = 1 << 62

func (c *Takeover) apply(s *State, h Header) Result {
	v, err := s.volumeAt(c.Vol, c.Epoch)
	if err != nil {
		return Result{Err: err}
	}
	n := s.Node(c.Node)
	switch {
	case c.Next <= c.Epoch || c.Next > maxEpoch:
		return void("volume %q: epoch %d after %d: %w", v.Name, c.Next, c.Epoch, ErrInvalid)
	case n == nil:
		return void("node %d: %w", c.Node, ErrNotFound)
	case n.Witness:
		return void("node %q is a witness: %w", n.Name, ErrInvalid)
	case n.Term != c.Term || !n.Held:
		return void("node %q is at term %d (held: %t), not %d: %w", n.Name, n.Term, n.Held, c.Term, ErrTerm)
	case s.OwnerLives(v.Data) && !mutated("TAKEOVER_LIVE"):
		return void("volume %q is served by node %d: %w", v.Name, v.Data.Owner, ErrOwned)
	}
	d := v.Data.Clone()
	d.Epoch, d.Owner, d.OwnerTerm, d.Active = c.Next, c.Node, c.Term, false
	d.Ver++
	w := *v
	w.Data, w.Handoff = d, 0
	s.putVolume(&w)
	return Result{Volume: c.Vol, Node: c.Node, Term: c.Term}
}

// VolumeCommand is one of the five commands of a volume's owner; package raid has their guards and effects.
type VolumeCommand struct {
	raid.VolumeCommand
}

// CommandType returns the tag on the wire.
func (*VolumeCommand) CommandType() string { return "volume" }

func (c *VolumeCommand) apply(s *State, h Header) Result {
	v := s.Volume(c.Vol)
	if v == nil {
		return void("volume %d: %w", c.Vol, ErrNotFound)
	}
	if h.By != v.Data.Owner {
		return void("volume %q: %s by node %d: %w", v.Name, c.Kind, h.By, ErrNotOwner)
	}
	cmd := c.VolumeCommand
	if cmd.Kind == raid.CmdStale && mutated("STALE_NO_CAS") || cmd.Kind == raid.CmdInSync && mutated("INSYNC_NO_CAS") {
		cmd.Epoch, cmd.Ver = v.Data.Epoch, v.Data.Ver
	}
	d, err := v.Data.Apply(cmd)
	if err != nil {
		return Result{Volume: c.Vol, Err: fmt.Errorf("volume %q, epoch %d: %s: %w", v.Name, c.Epoch, c.Kind, err)}
	}
	w := *v
	w.Data = d
	if c.Kind == raid.CmdRelease {
		s.passOn(&w)
	}
	s.putVolume(&w)
	return Result{Volume: c.Vol}
}

// passOn gives a released volume to the node that its Handoff names, in the same step: the Takeover that would follow has its
// guard here (released = epoch, the target's term is living), and a planned handoff saves one round of Raft.
func (s *State) passOn(w *Volume) {
	n := s.Node(w.Handoff)
	if w.Handoff == 0 || n == nil || !n.Held || n.Witness || n.Leaving || w.Data.Released != w.Data.Epoch || w.Data.Epoch >= maxEpoch {
		return
	}
	d := w.Data.Clone()
	d.Epoch, d.Owner, d.OwnerTerm, d.Active = d.Epoch+1, n.ID, n.Term, false
	d.Ver++
	w.Data, w.Handoff = d, 0
}

// Handoff asks the owner of (Vol, Epoch) to release the volume so that Target takes over; Target 0 takes the wish back.
type Handoff struct {
	Vol    raid.VolumeID `json:"vol"`
	Epoch  raid.Epoch    `json:"epoch"`
	Target raid.NodeID   `json:"target"`
	Auto   bool          `json:"auto,omitempty"` // the leader's own wish; an operator's is not undone to spread volumes
}

// CommandType returns the tag on the wire.
func (*Handoff) CommandType() string { return "handoff" }

func (c *Handoff) apply(s *State, h Header) Result {
	v, err := s.volumeAt(c.Vol, c.Epoch)
	if err != nil {
		return Result{Err: err}
	}
	if c.Target != 0 {
		n := s.Node(c.Target)
		switch {
		case n == nil:
			return void("node %d: %w", c.Target, ErrNotFound)
		case n.Witness || n.Leaving:
			return void("node %q cannot own a volume: %w", n.Name, ErrInvalid)
		case !n.Held:
			return void("node %q is down: %w", n.Name, ErrTerm)
		case c.Target == v.Data.Owner && s.OwnerLives(v.Data):
			return void("node %q owns volume %q already: %w", n.Name, v.Name, ErrExists)
		}
	}
	w := *v
	w.Handoff, w.Placed = c.Target, c.Target
	if c.Auto {
		w.Placed = 0
	}
	s.putVolume(&w)
	return Result{Volume: c.Vol, Node: c.Target}
}

// volumeAt returns the volume if it is at that epoch.
func (s *State) volumeAt(id raid.VolumeID, e raid.Epoch) (*Volume, error) {
	v := s.Volume(id)
	if v == nil {
		return nil, fmt.Errorf("volume %d: %w", id, ErrNotFound)
	}
	if v.Data.Epoch != e {
		return nil, fmt.Errorf("volume %q is at epoch %d, not %d: %w", v.Name, v.Data.Epoch, e, raid.ErrEpoch)
	}
	return v, nil
}
