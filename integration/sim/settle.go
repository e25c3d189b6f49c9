package sim

import (
	"fmt"

	"clade/aoe/initiator"
	"clade/membership"
)

// leaderState returns the applied state of the process that has applied most, or nil.
func (w *world) newestState() *membership.State {
	var best *membership.State
	for _, h := range w.hosts {
		if h.proc != nil {
			if s := h.proc.node.State(); best == nil || s.Applied > best.Applied {
				best = s
			}
		}
	}
	return best
}

// unserved returns which volume is not active and owned by a living process, or "".
func (w *world) unserved() string {
	s := w.newestState()
	if s == nil {
		return "no process lives"
	}
	if len(s.Volumes) < len(w.shape.volumes) {
		return "a volume is missing"
	}
	if s.Voters.Joint() {
		return "a change of voters is under way"
	}
	for _, v := range s.Volumes {
		if !v.Data.Active || !s.OwnerLives(v.Data) {
			return fmt.Sprintf("slot %d has no active owner: epoch %d, owner %d, released %d, active %v", v.Slot, v.Data.Epoch, v.Data.Owner, v.Data.Released, v.Data.Active)
		}
		if p := w.hosts[v.Data.Owner-1].proc; p == nil || p.bootedTerm != v.Data.OwnerTerm {
			return fmt.Sprintf("slot %d: the process of its owner, node %d, is gone", v.Slot, v.Data.Owner)
		}
	}
	return ""
}

// unwell returns what is not as it must be ten seconds after the last fault, or "". Initiators with the timers of Linux and
// iPXE may be longer in asking again (16 s at first, facts 2.3): those have to be patient.
func (w *world) unwell(patient bool) string {
	w.operator.lookAgain()
	if why := w.unserved(); why != "" {
		return why
	}
	for _, v := range w.newestState().Volumes {
		if len(v.Control.Mask) > 0 {
			w.operator.clearMask(v.Slot)
			return fmt.Sprintf("slot %d: a mask shuts initiators out", v.Slot)
		}
		for _, m := range v.Data.Members {
			if !m.InSync {
				return fmt.Sprintf("slot %d: disk %d is not in-sync (S %d)", v.Slot, m.Disk, m.Stale)
			}
		}
	}
	if why := w.operator.busy(); why != "" && !patient {
		return "an operator waits: " + why
	}
	for _, c := range w.clients {
		for _, s := range c.sessions {
			if len(s.out) > 0 && (!patient || c.shape.mode == initiator.ModeLibrary) {
				o := s.out[0]
				return fmt.Sprintf("initiator %d (mode %d) waits for %d operations on slot %d, the first a %s of lba %d, %d sectors, begun at %.3f s, %d frames sent",
					c.index, c.shape.mode, len(s.out), s.vol.slot, o.Kind, o.LBA, o.Sectors(), float64(o.SubmitNs)/1e9, o.FramesSent)
			}
		}
	}
	return ""
}
