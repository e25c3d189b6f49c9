package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

// adminTable is the operators' requests under way at this node.
type adminTable struct {
	open []adminOpen
}

type adminOpen struct {
	ids  []uint64 // of its proposals: the first of them that applies ends it
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

// adminCommands are the commands that operators may propose. All others are said by machines that know what they say: a NodeDead
// without proof of death, for one, would let two nodes serve a volume.
var adminCommands = []string{"cluster_init", "node_join", "node_leave", "set_draining", "disk_add", "disk_attach", "disk_replace", "disk_state", "disk_remove",
	"create", "handoff", "feature_level"}

// Admin takes an operator's request; its reply comes in a later Ready, after ten seconds at the latest.
func (n *Node) Admin(nowNs int64, r AdminRequest) {
	n.tick(nowNs)
	r.From, r.call, r.ID = n.opt.ID, r.ID, n.newID()
	if r.Control != nil { // named so that its repetitions, and nothing else, are known again
		c, id := *r.Control, n.newID()
		c.Src = aoe.MAC{}
		binary.BigEndian.PutUint32(c.Tag[:], uint32(id))
		binary.BigEndian.PutUint64(c.Digest[:], id)
		binary.BigEndian.PutUint64(c.Digest[8:], uint64(n.opt.ID))
		r.Control = &c
	}
	n.adminFrom(r)
}

func (n *Node) adminFrom(r AdminRequest) {
	if slices.ContainsFunc(n.admin.open, func(a adminOpen) bool { return a.req.From == r.From && a.req.ID == r.ID }) {
		return // said again by the node that has it from the operator
	}
	if len(n.admin.open) >= adminMax {
		n.adminReply(r, AdminReply{Err: "too many requests at once: try again"})
		return
	}
	a := adminOpen{req: r, atNs: n.now}
	var err error
	switch {
	case r.Kind == "propose" && !slices.Contains(adminCommands, r.Type):
		err = fmt.Errorf("%q is no operator's command", r.Type)
	case r.Kind == "propose":
		a.body, err = parseCommand(r)
	case r.Kind == "control" && r.Control == nil:
		err = errors.New("nothing to change is named")
	case r.Kind == "delete" || r.Kind == "control":
	default:
		err = fmt.Errorf("unknown request %q", r.Kind)
	}
	if err != nil {
		n.adminReply(r, AdminReply{Err: err.Error()})
		return
	}
	n.admin.open = append(n.admin.open, a)
	n.adminStep()
}

func parseCommand(r AdminRequest) (membership.Body, error) {
	body, err := membership.NewCommand(r.Type)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(r.Body))
		d.DisallowUnknownFields()
		err = d.Decode(body)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Type, err)
	}
	return body, nil
}

// adminEnd replies to a request and forgets it.
func (n *Node) adminEnd(r AdminRequest, out AdminReply) {
	n.admin.open = slices.DeleteFunc(n.admin.open, func(a adminOpen) bool { return a.req.From == r.From && a.req.ID == r.ID })
	n.adminReply(r, out)
}

// adminReplyFrom takes what another node has made of a request that it was sent from here.
func (n *Node) adminReplyFrom(out AdminReply) {
	for i := range n.admin.open {
		if a := &n.admin.open[i]; a.req.From == n.opt.ID && a.req.ID == out.ID {
			n.adminEnd(a.req, out)
			return
		}
	}
}

func (n *Node) adminReply(r AdminRequest, out AdminReply) {
	out.ID = r.ID
	if r.From == n.opt.ID {
		out.ID = r.call
		n.ready.Admin = append(n.ready.Admin, out)
		return
	}
	n.sendControl(r.From, &PeerMessage{AdminReply: &out})
}

// adminStep does what waits, again every second: a proposal may be lost, and the guards make a second one harmless. What has
// waited for too long is given up.
func (n *Node) adminStep() {
	lead, _ := n.group.Leader()
	for _, a := range slices.Clone(n.admin.open) {
		if n.now-a.atNs > adminTimeoutNs {
			n.adminEnd(a.req, AdminReply{Err: n.whyNoAnswer(a.req, lead)})
			continue
		}
		if a.sent != 0 && n.now-a.sent < adminRetryNs || lead == 0 {
			continue
		}
		n.adminSent(a.req, 0)
		switch a.req.Kind {
		case "delete":
			n.deleteVolume(a, lead)
		case "control":
			n.controlVolume(a.req)
		default:
			if id, err := n.propose(a.body); err == nil {
				n.adminSent(a.req, id)
			}
		}
	}
}

// adminSent notes that a request was acted on, and under which id if that was a proposal.
func (n *Node) adminSent(r AdminRequest, id uint64) {
	for i := range n.admin.open {
		if a := &n.admin.open[i]; a.req.From == r.From && a.req.ID == r.ID {
			if a.sent = n.now; id != 0 {
				a.ids = append(a.ids, id)
			}
		}
	}
}

func (n *Node) whyNoAnswer(r AdminRequest, lead raid.NodeID) string {
	mv := n.group.State().Volume(r.Vol)
	switch {
	case lead == 0:
		return "the cluster has no leader, so it has no quorum: start more of its nodes, then try again"
	case r.Kind == "control" && mv != nil && !mv.Data.Active:
		return fmt.Sprintf("volume %q is not served now, so nothing of it can be changed; see clade status", mv.Name)
	}
	return "no answer in 10 s: is there a quorum? See clade status"
}

// controlVolume brings a change of a volume's config string, mask or reservation to its owner: only he knows when nothing that
// was admitted before it is in flight any more (B: C19).
func (n *Node) controlVolume(r AdminRequest) {
	mv := n.group.State().Volume(r.Vol)
	switch {
	case mv == nil:
		n.adminEnd(r, AdminReply{Err: fmt.Sprintf("there is no volume %d", r.Vol)})
	case !n.group.State().OwnerLives(mv.Data):
	case mv.Data.Owner != n.opt.ID:
		if r.From == n.opt.ID {
			n.sendControl(mv.Data.Owner, &PeerMessage{Admin: &r})
		}
	default:
		if v := n.volume(r.Vol); v != nil && v.serving() && n.leaseValid() {
			if c := n.pendControl(v, *r.Control); c != nil {
				c.admin = &r
			}
		}
	}
}

// deleteVolume is the leader's: it keeps the volume free of owners until it is deleted (A.1 Delete's guard).
func (n *Node) deleteVolume(a adminOpen, lead raid.NodeID) {
	if lead != n.opt.ID {
		if a.req.From == n.opt.ID {
			n.sendControl(lead, &PeerMessage{Admin: &a.req})
		}
		return
	}
	mv := n.group.State().Volume(a.req.Vol)
	if mv == nil {
		out := AdminReply{Volume: a.req.Vol}
		if len(a.ids) == 0 {
			out = AdminReply{Err: fmt.Sprintf("there is no volume %d", a.req.Vol)}
		}
		n.adminEnd(a.req, out)
		return
	}
	if !n.isDeleting(a.req.Vol) {
		n.leader.deleting = append(n.leader.deleting, deletion{vol: a.req.Vol, until: n.now + adminTimeoutNs})
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
			a.ids = append(a.ids, id)
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
		if !slices.Contains(a.ids, r.ID) {
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
		n.adminEnd(a.req, out)
		return
	}
}
