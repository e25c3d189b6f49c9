package cluster

import (
	"fmt"
	"slices"

	"clade/aoe"
	"clade/membership"
)

// controlsMax bounds the control requests of one volume under way. One whose proposal was lost, and which its sender has given
// up, is forgotten after controlLifeNs.
const (
	controlsMax   = 256
	controlLifeNs = 3 * second
)

// pendingControl is a control request between its proposal and its answer. Retransmissions attach to it.
type pendingControl struct {
	id     uint64
	req    aoe.ControlRequest
	admin  *AdminRequest // an operator's; else an initiator's:
	frame  []byte        // as received last: what the answer is made from
	path   uint8
	sentNs int64
	done   *membership.ControlOutcome // applied; the barrier is out
}

// controlOf returns a volume's control state.
func controlOf(mv *membership.Volume) aoe.Control { return mv.Control }

// control takes an initiator's request for a change that only one may win.
func (n *Node) control(v *volume, r *aoe.Request, f *SANFrame, req aoe.ControlRequest) {
	if c := n.pendControl(v, req); c != nil {
		c.frame, c.path = append(c.frame[:0], r.Frame[:min(len(r.Frame), aoe.FrameBytesMin)]...), uint8(f.Path)
	}
}

// pendControl proposes a change, or finds it under way: it is decided in the replicated state and answered when every frame
// admitted before it has been committed (A.4.8, B: C19). It returns nil when nothing is admitted now.
func (n *Node) pendControl(v *volume, req aoe.ControlRequest) *pendingControl {
	if !v.owner.Admitting() {
		n.stats.DropClosed++
		return nil
	}
	for _, c := range v.controls {
		if c.req.Src == req.Src && c.req.Tag == req.Tag && c.req.Digest == req.Digest {
			if c.done == nil && n.now-c.sentNs > 300*ms {
				n.proposeControl(v, c) // the first proposal seems lost; twice is harmless: the table knows it
			}
			return c
		}
	}
	if len(v.controls) >= controlsMax {
		n.stats.DropInitiator++
		return nil
	}
	n.stats.Controls++
	c := &pendingControl{req: req}
	v.controls = append(v.controls, c)
	n.proposeControl(v, c)
	return c
}

func (n *Node) proposeControl(v *volume, c *pendingControl) {
	c.sentNs = n.now
	if id, err := n.propose(&membership.Control{Vol: v.id, Epoch: v.cfgEpoch, Req: c.req}); err == nil {
		c.id = id
	}
}

// controlApplied follows a control command of ours. The target has the new state already; now the barrier.
func (n *Node) controlApplied(r *membership.Result) {
	v := n.volume(r.Volume)
	if v == nil || v.owner == nil {
		return
	}
	for _, c := range v.controls {
		if c.id != r.ID || c.done != nil {
			continue
		}
		if !r.OK() || r.Control == nil || r.Control.Silent {
			n.endControl(v, c) // silence: the initiator asks again, maybe another owner
			return
		}
		c.done = r.Control
		i := n.tokens.take()
		t := &n.tokens.rows[i]
		t.v, t.epoch, t.kind, t.ctl = v, v.cfgEpoch, aoe.ActionControl, c
		v.owner.Barrier(n.now, uint64(i))
		return
	}
}

// controlStep forgets what nobody waits for any more. Should it still apply, it is answered by silence, and the next copy by
// what the replicated table says.
func (n *Node) controlStep(v *volume) {
	v.controls = slices.DeleteFunc(v.controls, func(c *pendingControl) bool { return c.done == nil && n.now-c.sentNs > controlLifeNs })
}

func (n *Node) endControl(v *volume, c *pendingControl) {
	for i, x := range v.controls {
		if x == c {
			v.controls = append(v.controls[:i:i], v.controls[i+1:]...)
			return
		}
	}
}

// controlSettled answers: nothing admitted before the change is in flight any more.
func (n *Node) controlSettled(v *volume, c *pendingControl, ok bool) {
	n.endControl(v, c)
	if !ok {
		return
	}
	if c.admin != nil {
		n.adminEnd(*c.admin, AdminReply{Volume: v.id, Err: refusal(c.done.Result, &v.target.Control)})
	} else {
		f := aoe.AppendControlReply(n.header(replyRoom(v)), c.frame, v.macs[c.path], &v.target.Identity, &v.target.Control, c.done.Result)
		n.tx.answers = append(n.tx.answers, answer{v: v, frame: TxFrame{Path: int(c.path), Header: f}})
	}
	if c.done.Result.OK() && !c.done.Repeated {
		n.stageBeacons(v) // others may look at the config string (facts: S5)
	}
}

// refusal is what an operator reads of a change that was not made, "" for one that was.
func refusal(r aoe.ControlResult, now *aoe.Control) string {
	switch {
	case r.OK():
		return ""
	case r.AoEError == aoe.ErrorStringPresent:
		return fmt.Sprintf("the config string is %q already: only force replaces it", printable(now.Config))
	case r.AoEError == aoe.ErrorReserved:
		return fmt.Sprintf("the volume is reserved for %v: only force replaces that", now.Reserved)
	case r.MaskError == aoe.MaskErrFull:
		return fmt.Sprintf("the mask is full: it takes %d addresses", aoe.MaskMax)
	}
	return fmt.Sprintf("refused: AoE error %d, mask error %d at entry %d", r.AoEError, r.MaskError, r.Failed)
}
