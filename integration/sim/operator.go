package sim

import (
	"encoding/json"
	"fmt"
	"slices"

	"clade/cluster"
	"clade/membership"
	"clade/raid"
)

// operator is who changes the cluster while it runs. He looks at the newest state, says what is missing to any node that lives,
// and goes on until the state is as he wants it: requests and answers may be lost, and said twice.
type operator struct {
	w        *world
	rnd      random
	tasks    []*task
	ticking  bool
	clearing [256]bool              // slots whose mask is being emptied
	doomed   map[raid.VolumeID]bool // volumes that were to be deleted
}

// task is one thing that shall come about.
type task struct {
	what    string
	done    func(*membership.State) bool                 // it has come about
	next    func(*membership.State) cluster.AdminRequest // what to ask for now
	then    func()                                       // when it is done; may be nil
	replied func()                                       // at each answer; may be nil
	asked   *process
	askedNs int64
}

const (
	operatorEveryNs = 100 * ms
	operatorAgainNs = 11 * second // requests are answered within ten
)

func newOperator(w *world) *operator {
	return &operator{w: w, doomed: map[raid.VolumeID]bool{}, rnd: newRandom(w.shape.seed, "operator")}
}

// want begins a task.
func (o *operator) want(t *task) {
	o.tasks = append(o.tasks, t)
	if !o.ticking {
		o.ticking = true
		o.tick()
	}
}

// busy returns what is not done, or "".
func (o *operator) busy() string {
	if len(o.tasks) == 0 {
		return ""
	}
	return o.tasks[0].what
}

func (o *operator) tick() {
	s := o.w.newestState()
	if s != nil {
		o.tasks = slices.DeleteFunc(o.tasks, func(t *task) bool {
			if !t.done(s) {
				return false
			}
			o.w.note("operator: done: %s", t.what)
			if t.then != nil {
				t.then()
			}
			return true
		})
		for _, t := range o.tasks {
			o.ask(s, t)
		}
	}
	if o.ticking = len(o.tasks) > 0; o.ticking {
		o.w.sched.after(o.rnd.delay(operatorEveryNs), o.tick)
	}
}

func (o *operator) ask(s *membership.State, t *task) {
	now := o.w.sched.nowNs
	if t.asked != nil && !t.asked.dead && now-t.askedNs < operatorAgainNs {
		return
	}
	var living []*process
	for _, h := range o.w.hosts {
		if h.proc != nil && !h.proc.paused && s.Node(h.id()) != nil {
			living = append(living, h.proc)
		}
	}
	if len(living) == 0 {
		return
	}
	p := pick(o.rnd, living...)
	t.asked, t.askedNs = p, now
	p.ask(t.next(s), func(r cluster.AdminReply) {
		if t.replied != nil && r.Err == "" {
			t.replied()
		}
		if t.asked != p {
			return
		}
		t.asked = nil
		if r.Err != "" {
			o.w.note("operator: %s: %s", t.what, r.Err)
		}
	})
}

func proposal(kind string, body membership.Body) cluster.AdminRequest {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return cluster.AdminRequest{Kind: "propose", Type: kind, Body: b}
}

// drain makes a node own nothing, or lets it own again. What was asked for last counts: there is one task for each node, and it is
// not done while a request for the contrary may still be under way.
func (o *operator) drain(h *host, on bool) {
	h.drained = on
	if h.draining {
		return
	}
	h.draining = true
	var t *task
	t = &task{
		what: fmt.Sprintf("draining of node %d", h.index+1),
		done: func(s *membership.State) bool {
			n := s.Node(h.id())
			return n == nil || n.Leaving || n.Draining == h.drained && (t.asked == nil || t.asked.dead && o.w.sched.nowNs-t.askedNs > 2*second)
		},
		next: func(*membership.State) cluster.AdminRequest {
			return proposal("set_draining", &membership.SetDraining{Node: h.id(), On: h.drained})
		},
		then: func() { h.draining = false },
	}
	o.want(t)
}

// lookAgain drains no longer what was done by halves: the newest state that he could see may have been an old one, or a request may
// have taken effect after he had given it up.
func (o *operator) lookAgain() {
	s := o.w.newestState()
	if s == nil {
		return
	}
	for _, h := range o.w.hosts {
		if n := s.Node(h.id()); n != nil && n.Draining && !n.Leaving && !h.drained {
			o.drain(h, false)
		}
	}
}

// join admits a host that has been a spare, and starts it.
func (o *operator) join(h *host) {
	o.want(&task{
		what: fmt.Sprintf("node %d joins", h.index+1),
		done: func(s *membership.State) bool { return s.Node(h.id()) != nil },
		next: func(*membership.State) cluster.AdminRequest {
			return proposal("node_join", &membership.NodeJoin{Name: fmt.Sprintf("n%d", h.index+1), Key: nodeKey(h.index), Witness: h.witness,
				Node: o.w.nodeInfo(h.index)})
		},
		then: func() {
			h.off, h.spare = false, spareMember
			h.start()
		},
	})
}

// leave takes a node without shards out of the cluster; its process finds out, or is switched off.
func (o *operator) leave(h *host) {
	o.want(&task{
		what: fmt.Sprintf("node %d leaves", h.index+1),
		done: func(s *membership.State) bool { return s.Node(h.id()) == nil },
		next: func(*membership.State) cluster.AdminRequest {
			return proposal("node_leave", &membership.NodeLeave{Node: h.id()})
		},
		then: func() { o.w.sched.after(o.rnd.delay(300*ms), h.switchOff) },
	})
}

// recreate deletes the volume of a slot and makes a new one there.
func (o *operator) recreate(slot int) {
	s := o.w.newestState()
	if s == nil || s.Slot(uint8(slot)) == nil {
		return
	}
	old := s.Slot(uint8(slot)).ID()
	o.doomed[old] = true
	o.want(&task{
		what: fmt.Sprintf("slot %d gets another volume than %d", slot, old),
		done: func(s *membership.State) bool {
			v := s.Slot(uint8(slot))
			return v != nil && v.ID() > old
		},
		next: func(s *membership.State) cluster.AdminRequest {
			if s.Slot(uint8(slot)) != nil {
				return cluster.AdminRequest{Kind: "delete", Vol: old}
			}
			return proposal("create", o.w.volumeOf(o.w.shape.volumes[slot]))
		},
	})
}

// volumeOf is the command that makes a volume of the shape.
func (w *world) volumeOf(v volumeShape) *membership.Create {
	domain := membership.DomainNode
	if v.perDisk {
		domain = membership.DomainDisk
	}
	return &membership.Create{Slot: v.slot, Name: fmt.Sprintf("v%d", v.slot), SizeBytes: uint64(v.sizeMiB) << 20,
		Layout: raid.Layout{K: v.k, M: v.m, UnitBytes: v.unitBytes}, ExtentMiB: v.extentMiB, Domain: domain, Strict: v.strict}
}

// handoff asks once for a volume to be moved to a node; whether it comes about does not matter.
func (o *operator) handoff(node int) {
	w := o.w
	s := w.newestState()
	p := w.hosts[o.rnd.IntN(len(w.hosts))].proc
	if p == nil || s == nil || len(s.Volumes) == 0 {
		return
	}
	v := s.Volumes[o.rnd.IntN(len(s.Volumes))]
	p.ask(proposal("handoff", &membership.Handoff{Vol: v.ID(), Epoch: v.Data.Epoch, Target: w.hosts[node].id()}), func(cluster.AdminReply) {})
}
