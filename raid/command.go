package raid

import (
	"errors"
	"fmt"
)

// CommandKind names the commands that a volume's owner proposes (A.1).
type CommandKind uint8

// The owner's commands.
const (
	CmdActivate CommandKind = iota + 1
	CmdStale
	CmdInSync
	CmdDamaged
	CmdRelease
)

// String returns the command's name in PROTOCOL A.1.
func (k CommandKind) String() string {
	switch k {
	case CmdActivate:
		return "Activate"
	case CmdStale:
		return "Stale"
	case CmdInSync:
		return "InSync"
	case CmdDamaged:
		return "Damaged"
	case CmdRelease:
		return "Release"
	}
	return fmt.Sprintf("CommandKind(%d)", uint8(k))
}

// VolumeCommand is a compare-and-set on one volume's state: it applies only if epoch and, but for Release, version are those
// it names (B: C7). The proposer acts on the result of apply, never on having proposed.
type VolumeCommand struct {
	Kind  CommandKind `json:"kind"`
	Vol   VolumeID    `json:"vol"`
	Epoch Epoch       `json:"epoch"`
	Ver   uint64      `json:"ver"`
	Disk  DiskID      `json:"disk,omitempty"`
	S     Seq         `json:"s,omitempty"`   // Stale
	F     DiskSet     `json:"f,omitempty"`   // Activate: the new in-sync set
	Z     DiskSet     `json:"z,omitempty"`   // Activate: the liars
	C0    Seq         `json:"c0,omitempty"`  // Activate
	End   Seq         `json:"end,omitempty"` // Activate
}

// ErrEpoch and the others tell a proposer why its command was void.
var (
	ErrEpoch     = errors.New("epoch has moved on")
	ErrVersion   = errors.New("version has moved on")
	ErrNotActive = errors.New("volume is not active")
	ErrActive    = errors.New("volume is active already")
	ErrTooFew    = errors.New("an extent would keep fewer than k in-sync disks")
	ErrSet       = errors.New("disk set does not fit the volume")
)

// Apply returns the volume after c, or the reason why c is void; v itself never changes. It keeps the guards and effects of
// A.1 for the five commands of an owner and is total: any c, however malformed, gets an answer.
func (v *Volume) Apply(c VolumeCommand) (*Volume, error) {
	if c.Epoch != v.Epoch && !(mutated("STALE_NO_CAS") && c.Kind == CmdStale) {
		return nil, ErrEpoch
	}
	if c.Kind == CmdRelease {
		n := v.Clone()
		n.Released = c.Epoch
		return n, nil
	}
	if c.Ver != v.Ver && !(mutated("STALE_NO_CAS") && c.Kind == CmdStale) && !(mutated("INSYNC_NO_CAS") && c.Kind == CmdInSync) {
		return nil, ErrVersion
	}
	if c.Kind == CmdActivate {
		return v.activate(c)
	}
	if !v.Active {
		return nil, ErrNotActive
	}
	if v.Member(c.Disk) == nil {
		return nil, ErrSet
	}
	n := v.Clone()
	n.Ver++
	m := n.Member(c.Disk)
	switch c.Kind {
	case CmdStale, CmdDamaged:
		if !v.EveryExtentKeeps(v.InSync().Without(c.Disk)) {
			return nil, ErrTooFew
		}
		if c.Kind == CmdDamaged {
			m.Stale = 0
		} else if m.InSync {
			m.Stale = c.S
		}
		m.InSync = false
	case CmdInSync:
		if m.InSync {
			return nil, ErrSet
		}
		m.InSync, m.Since, m.Stale = true, v.Epoch, 0
	default:
		return nil, fmt.Errorf("unknown volume command %d", c.Kind)
	}
	return n, nil
}

func (v *Volume) activate(c VolumeCommand) (*Volume, error) {
	if v.Active {
		return nil, ErrActive
	}
	f, z := NewDiskSet(c.F...), NewDiskSet(c.Z...)
	if !f.SubsetOf(v.InSync()) || len(f.And(z)) != 0 || c.C0 > c.End {
		return nil, ErrSet
	}
	if !v.EveryExtentKeeps(f) {
		return nil, ErrTooFew
	}
	n := v.Clone()
	for i := range n.Members {
		m := &n.Members[i]
		switch {
		case f.Has(m.Disk):
			m.Since = v.Epoch
		case m.InSync:
			m.InSync = false
			m.Stale = c.C0
			if z.Has(m.Disk) { // a liar may lack what it should hold below C0 (B: C32)
				m.Stale = 0
			}
		}
	}
	n.closeEpochs(c.Epoch, c.End)
	n.Active, n.LastActive, n.Forced = true, v.Epoch, false
	n.Ver++
	return n, nil
}

// closeEpochs records end for every epoch below e that has none yet. Closed epochs form a prefix, so one range is enough.
func (v *Volume) closeEpochs(e Epoch, end Seq) {
	first := Epoch(1)
	if len(v.Hist) > 0 {
		last := &v.Hist[len(v.Hist)-1]
		first = last.To + 1
		if first >= e {
			return
		}
		if last.End == end { // equal neighbours merge: failed candidates close many epochs at one seq
			last.To = e - 1
			return
		}
	}
	if first < e {
		v.Hist = append(v.Hist, HistRange{From: first, To: e - 1, End: end})
	}
}
