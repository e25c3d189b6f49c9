package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"clade/membership"
	"clade/raid"
)

// adminTable is the operators' requests under way at this node.
type adminTable struct {
	open []adminOpen
}

type adminOpen struct {
	id   uint64 // of the proposal; 0: waits for a leader, or for a deletion
	req  AdminRequest
	body membership.Body
	atNs int64
	sent int64
}

const (
	adminMax       = 256
	adminTimeoutNs = 10 * second
	adminRetryNs   = second
)

// Admin takes an operator's request; its reply comes in a later Ready, after ten seconds at the latest.
func (n *Node) Admin(nowNs int64, r AdminRequest) {
	n.tick(nowNs)
	r.From = n.opt.ID
	n.adminFrom(r)
}

func (n *Node) adminFrom(r AdminRequest) {
	if len(n.admin.open) >= adminMax {
		n.adminReply(r, AdminReply{Err: "too many requests at once: try again"})
		return
	}
	switch r.Kind {
	case "propose":
		body, err := membership.NewCommand(r.Type)
		if err == nil {
			d := json.NewDecoder(bytes.NewReader(r.Body))
			d.DisallowUnknownFields()
			err = d.Decode(body)
		}
		if err != nil {
			n.adminReply(r, AdminReply{Err: fmt.Sprintf("%s: %v", r.Type, err)})
			return
		}
		n.admin.open = append(n.admin.open, adminOpen{req: r, body: body, atNs: n.now})
	case "delete":
		n.admin.open = append(n.admin.open, adminOpen{req: r, atNs: n.now})
	default:
		n.adminReply(r, AdminReply{Err: fmt.Sprintf("unknown request %q", r.Kind)})
		return
	}
	n.adminStep()
}

func (n *Node) adminReply(r AdminRequest, out AdminReply) {
	out.ID = r.ID
	if r.From == n.opt.ID {
		n.ready.Admin = append(n.ready.Admin, out)
		return
	}
	n.sendControl(r.From, &PeerMessage{AdminReply: &out})
}

// adminStep proposes what waits, and gives up what has waited for too long.
func (n *Node) adminStep() {
	lead, _ := n.group.Leader()
	for i := 0; i < len(n.admin.open); i++ {
		a := &n.admin.open[i]
		if n.now-a.atNs > adminTimeoutNs {
			r := a.req
			why := "no answer in 10 s: is there a quorum? See clade status"
			if lead == 0 {
				why = "the cluster has no leader, so it has no quorum: start more of its nodes, then try again"
			}
			n.admin.open = slices.Delete(n.admin.open, i, i+1)
			i--
			n.adminReply(r, AdminReply{Err: why})
			continue
		}
		if a.sent != 0 && n.now-a.sent < adminRetryNs || lead == 0 {
			continue
		}
		switch {
		case a.req.Kind == "delete":
			a.sent = n.now
			n.deleteVolume(a, lead)
		case a.id == 0:
			a.sent = n.now
			if id, err := n.propose(a.body); err == nil {
				a.id = id
			}
		}
	}
}

// deleteVolume is the leader's: it keeps the volume free of owners until it is deleted (A.1 Delete's guard).
func (n *Node) deleteVolume(a *adminOpen, lead raid.NodeID) {
	if lead != n.opt.ID {
		if a.req.From == n.opt.ID {
			n.sendControl(lead, &PeerMessage{Admin: &a.req})
		}
		return
	}
	mv := n.group.State().Volume(a.req.Vol)
	if mv == nil {
		return
	}
	if !n.isDeleting(a.req.Vol) {
		n.leader.deleting = append(n.leader.deleting, deletion{vol: a.req.Vol, until: n.now + adminTimeoutNs, req: a.req})
	}
	n.deletionStep(mv)
}

// deletionStep releases the volume, then deletes it.
func (n *Node) deletionStep(mv *membership.Volume) {
	l := &n.leader
	l.deleting = slices.DeleteFunc(l.deleting, func(d deletion) bool { return n.now > d.until || n.group.State().Volume(d.vol) == nil })
	if !n.isDeleting(mv.Data.ID) {
		return
	}
	d := mv.Data
	if n.group.State().OwnerLives(d) {
		m := ReleaseVolume{Vol: d.ID, Epoch: d.Epoch}
		if d.Owner == n.opt.ID {
			n.releaseFor(m)
		} else {
			n.sendControl(d.Owner, &PeerMessage{ReleaseVolume: &m})
		}
		return
	}
	id, err := n.propose(&membership.Delete{Vol: d.ID, Epoch: d.Epoch, Ver: d.Ver})
	if err != nil {
		return
	}
	for i := range n.admin.open {
		if a := &n.admin.open[i]; a.req.Kind == "delete" && a.req.Vol == d.ID {
			a.id = id
		}
	}
}

// releaseFor lets an owner go because the leader wants its volume deleted.
func (n *Node) releaseFor(m ReleaseVolume) {
	if v := n.volume(m.Vol); v != nil && v.owner != nil && v.cfgEpoch == m.Epoch {
		v.owner.Release(n.now)
	}
}

// adminApplied ends the request whose command has applied.
func (n *Node) adminApplied(r *membership.Result) {
	for i := range n.admin.open {
		a := &n.admin.open[i]
		if a.id == 0 || a.id != r.ID {
			continue
		}
		if a.req.Kind == "delete" && !r.OK() {
			return // another owner was quicker: once more
		}
		out := AdminReply{Node: r.Node, Disk: r.Disk, Volume: r.Volume}
		if r.Err != nil {
			out.Err = r.Err.Error()
		}
		if d := n.group.State().Disk(r.Disk); d != nil {
			out.Gen = d.AttachGen
		}
		req := a.req
		n.admin.open = slices.Delete(n.admin.open, i, i+1)
		n.adminReply(req, out)
		return
	}
}
