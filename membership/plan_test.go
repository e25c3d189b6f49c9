package membership

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"clade/raid"
)

// world is a state with a health in which everything is in order.
type world struct {
	*machine
	h   Health
	v   RaftView
	now int64
	p   *Planner
}

// newWorld returns a cluster of n nodes with a disk each and some volumes (2+1), all owned by node 1.
func newWorld(t *testing.T, n, volumes int) *world {
	t.Helper()
	w := &world{machine: newCluster(t, n, 1), now: 1e12, p: NewPlanner(PlannerOptions{MaxVoters: 9})}
	for i := range volumes {
		w.must(1, createCmd(uint8(i), 2, 1, 64))
		w.own(raid.VolumeID(i+1), 1)
	}
	w.h = Health{Self: 1, LeadNs: w.now - 60e9}
	w.v = RaftView{Leader: 1, Lead: true, Last: 100}
	for i := 1; i <= n; i++ {
		id := raid.NodeID(i)
		w.v.Members = append(w.v.Members, RaftMember{Node: id, Match: 100, Active: true})
		w.h.Nodes = append(w.h.Nodes, NodeHealth{Node: id, Term: 1, HeartbeatNs: w.now - 40*ms, LV: w.s.Voters.LV, ReachAll: true,
			Paths: []PathHealth{{Carrier: true, MTUOK: true, BeaconNs: w.now - 100*ms}}})
	}
	return w
}

// own makes a node the active owner of a volume.
func (w *world) own(v raid.VolumeID, n raid.NodeID) {
	w.t.Helper()
	d := w.s.Volume(v).Data
	if w.s.OwnerLives(d) {
		w.must(d.Owner, volCmd(raid.VolumeCommand{Kind: raid.CmdRelease, Vol: v, Epoch: d.Epoch}))
	}
	w.must(1, &Takeover{Vol: v, Epoch: d.Epoch, Next: d.Epoch + 1, Node: n, Term: w.s.Node(n).Term})
	d = w.s.Volume(v).Data
	w.must(n, volCmd(raid.VolumeCommand{Kind: raid.CmdActivate, Vol: v, Epoch: d.Epoch, Ver: d.Ver, F: d.InSync(), C0: 0, End: 0}))
}

func (w *world) node(n int) *NodeHealth { return &w.h.Nodes[n-1] }

// tell moves time and lets the nodes be heard.
func (w *world) tell(ns int64, who ...int) {
	w.now += ns
	for _, n := range who {
		w.node(n).HeartbeatNs = w.now
		for i := range w.node(n).Paths {
			if w.node(n).Paths[i].BeaconNs != 0 {
				w.node(n).Paths[i].BeaconNs = w.now
			}
		}
	}
}

// plan describes the decisions in one line.
func (w *world) plan() string {
	var out []string
	for _, d := range w.p.Plan(w.s, &w.h, &w.v, w.now) {
		switch b := d.Propose.(type) {
		case *Takeover:
			out = append(out, fmt.Sprintf("takeover v%d %d->%d n%d", b.Vol, b.Epoch, b.Next, b.Node))
		case *Handoff:
			out = append(out, fmt.Sprintf("handoff v%d n%d", b.Vol, b.Target))
		case *VotersBegin:
			out = append(out, fmt.Sprintf("begin %v", b.New))
		case *VotersEnd:
			out = append(out, fmt.Sprintf("end %d", b.LV))
		case *NodeRemove:
			out = append(out, fmt.Sprintf("remove n%d", b.Node))
		case nil:
			if d.Revoke != nil {
				out = append(out, fmt.Sprintf("revoke n%d.%d", d.Revoke.Node, d.Revoke.Term))
			} else {
				out = append(out, fmt.Sprintf("conf %d n%d", d.Conf.Kind, d.Conf.Node))
			}
		default:
			out = append(out, b.CommandType())
		}
		if d.Why == "" {
			w.t.Error("a decision without a reason")
		}
	}
	return strings.Join(out, ", ")
}

func (w *world) want(what, plan string) {
	w.t.Helper()
	if got := w.plan(); got != plan {
		w.t.Errorf("%s: %q, want %q", what, got, plan)
	}
}

func TestPlanDoesNothingWhenAllIsWell(t *testing.T) {
	w := newWorld(t, 3, 1)
	for range 100 {
		w.tell(100*ms, 1, 2, 3)
		w.want("quiet", "")
	}
}

func TestPlanSuspectsWhoIsNotHeard(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*world)
		want string
	}{
		"silent for 199 ms":                      {func(w *world) { w.node(2).HeartbeatNs = w.now - 199*ms }, ""},
		"silent for 200 ms":                      {func(w *world) { w.node(2).HeartbeatNs = w.now - 200*ms }, "revoke n2.1"},
		"resets":                                 {func(w *world) { w.node(2).Resets = true }, "revoke n2.1"},
		"the leader itself":                      {func(w *world) { w.node(1).HeartbeatNs = 0 }, ""},
		"heard only in its former term":          {func(w *world) { w.must(2, &NodeBoot{Node: 2, Term: 1, Proof: true, Info: testInfo(2)}) }, "revoke n2.2"},
		"its term is over":                       {func(w *world) { w.must(1, &NodeDead{Node: 2, Term: 1}); w.node(2).HeartbeatNs = 0 }, ""},
		"a new leader has not heard anybody yet": {func(w *world) { w.h.LeadNs, w.node(2).HeartbeatNs = w.now-250*ms, 0 }, ""},
		"a new leader has waited":                {func(w *world) { w.h.LeadNs, w.node(2).HeartbeatNs = w.now-310*ms, 0 }, "revoke n2.1"},
	} {
		w := newWorld(t, 3, 0)
		c.do(w)
		w.want(name, c.want)
		w.want(name+", at once again", "")
	}
}

func TestPlanGivesOrphansToTheBestCandidate(t *testing.T) {
	orphan := func(w *world) { w.must(1, &NodeDead{Node: 1, Term: 1}) }
	for name, c := range map[string]struct {
		do   func(*world)
		want string
	}{
		"owner lives":            {func(w *world) {}, ""},
		"owner's term is over":   {orphan, "takeover v1 1->2 n2"},
		"released":               {func(w *world) { w.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdRelease, Vol: 1, Epoch: 1})) }, "takeover v1 1->2 n1"},
		"no heartbeat":           {func(w *world) { orphan(w); w.node(2).HeartbeatNs -= 170 * ms }, "revoke n2.1, takeover v1 1->2 n3"},
		"no carrier":             {func(w *world) { orphan(w); w.node(2).Paths[0].Carrier = false }, "takeover v1 1->2 n3"},
		"MTU too small":          {func(w *world) { orphan(w); w.node(2).Paths[0].MTUOK = false }, "takeover v1 1->2 n3"},
		"one of two paths works": {func(w *world) { orphan(w); w.node(2).Paths = append([]PathHealth{{}}, w.node(2).Paths...) }, "takeover v1 1->2 n2"},
		"reaches k disks":        {func(w *world) { orphan(w); w.node(2).ReachAll = false; w.node(2).Reach = raid.NewDiskSet(1, 2) }, "takeover v1 1->2 n2"},
		"reaches fewer than k":   {func(w *world) { orphan(w); w.node(2).ReachAll = false; w.node(2).Reach = raid.NewDiskSet(2) }, "takeover v1 1->2 n3"},
		"a disk that is stale": {func(w *world) {
			staleDisk1(w)
			orphan(w)
			w.node(2).ReachAll = false
			w.node(2).Reach = raid.NewDiskSet(1, 2)
		}, "takeover v1 1->2 n3"},
		"draining": {func(w *world) { orphan(w); w.must(1, &SetDraining{Node: 2, On: true}) }, "takeover v1 1->2 n3"},
		"all are draining": {func(w *world) {
			orphan(w)
			w.must(1, &SetDraining{Node: 2, On: true})
			w.must(1, &SetDraining{Node: 3, On: true})
		}, "takeover v1 1->2 n2"},
		"the target of the handoff": {func(w *world) { w.must(1, &Handoff{Vol: 1, Epoch: 1, Target: 3}); orphan(w) }, "takeover v1 1->2 n3"},
		"a disk has seen epoch 8":   {func(w *world) { orphan(w); w.h.Volumes = []VolumeHealth{{Vol: 1, FenceSeen: 8}} }, "takeover v1 1->9 n2"},
		"nobody":                    {func(w *world) { orphan(w); w.node(2).Paths, w.node(3).Paths = nil, nil }, ""},
	} {
		w := newWorld(t, 3, 1)
		c.do(w)
		w.want(name, c.want)
	}
	w := newWorld(t, 3, 4) // several orphans are spread at once
	w.own(1, 2)
	orphan(w)
	w.want("fewest volumes first", "takeover v2 1->2 n3, takeover v3 1->2 n2, takeover v4 1->2 n3")
}

func staleDisk1(w *world) {
	d := w.s.Volume(1).Data
	w.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdStale, Vol: 1, Epoch: d.Epoch, Ver: d.Ver, Disk: 1}))
}

func TestPlanTriesTheNextCandidateAndTheSameOneLater(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.must(1, &NodeDead{Node: 1, Term: 1})
	w.node(1).HeartbeatNs = 0
	takeover := func(n raid.NodeID) {
		d := w.s.Volume(1).Data
		w.must(1, &Takeover{Vol: 1, Epoch: d.Epoch, Next: d.Epoch + 1, Node: n, Term: 1})
		w.want("while it tries", "")
		w.must(n, volCmd(raid.VolumeCommand{Kind: raid.CmdRelease, Vol: 1, Epoch: d.Epoch + 1}))
		w.tell(10*ms, 2, 3)
	}
	w.want("first", "takeover v1 1->2 n2")
	takeover(2)
	w.want("n2 has given up", "takeover v1 2->3 n3")
	takeover(3)
	w.want("both have given up", "")
	w.tell(970*ms, 2, 3)
	w.want("990 ms later", "")
	w.tell(20*ms, 2, 3)
	w.want("a second later", "takeover v1 3->4 n2")
	takeover(2)
	w.want("n3's turn", "takeover v1 4->5 n3")
	takeover(3)
	w.want("both have given up twice", "")
	w.tell(1900*ms, 2, 3)
	w.want("the second wait is longer", "")
	w.tell(100*ms, 2, 3)
	w.want("n2 after two seconds", "takeover v1 5->6 n2")
}

func TestPlanHandsOffForTheSANOnlyToWhoShowsMore(t *testing.T) {
	path := func(carrier bool, ageMs int64) PathHealth {
		p := PathHealth{Carrier: carrier, MTUOK: true}
		if ageMs >= 0 {
			p.BeaconNs = 1e12 - ageMs*ms
		}
		return p
	}
	for name, c := range map[string]struct {
		owner, other []PathHealth
		want         string
	}{
		"equal":                                {[]PathHealth{path(true, 100)}, []PathHealth{path(true, 100)}, ""},
		"no carrier":                           {[]PathHealth{path(false, 100)}, []PathHealth{path(true, 100)}, "handoff v1 n2"},
		"nobody has carrier":                   {[]PathHealth{path(false, -1)}, []PathHealth{path(false, -1)}, ""},
		"both see nobody":                      {[]PathHealth{path(true, -1)}, []PathHealth{path(true, -1)}, ""},
		"nobody for 2 s against now":           {[]PathHealth{path(true, 2000)}, []PathHealth{path(true, 100)}, ""},
		"nobody for 4 s against now":           {[]PathHealth{path(true, 4000)}, []PathHealth{path(true, 100)}, "handoff v1 n2"},
		"nobody for 4 s against 2 s":           {[]PathHealth{path(true, 4000)}, []PathHealth{path(true, 2000)}, ""},
		"one of two paths is dead":             {[]PathHealth{path(true, 100), path(false, -1)}, []PathHealth{path(true, 100), path(true, 100)}, "handoff v1 n2"},
		"as many, but others":                  {[]PathHealth{path(true, 100), path(false, -1)}, []PathHealth{path(false, -1), path(true, 100)}, ""},
		"more carrier, but nobody heard there": {[]PathHealth{path(true, 100)}, []PathHealth{path(true, -1), path(true, -1)}, ""},
	} {
		w := newWorld(t, 3, 1)
		w.node(1).Paths, w.node(2).Paths, w.node(3).Paths = c.owner, c.other, nil
		w.want(name, c.want)
	}
}

// An owner that hears the others' beacons while none of those who hear anything has heard its own cannot be heard by initiators
// either.
func TestPlanTakesAVolumeFromWhoCannotBeHeard(t *testing.T) {
	heard := func(node, path int, ageMs int64) HeardBeacon {
		return HeardBeacon{raid.NodeID(node), path, 1e12 - ageMs*ms}
	}
	for name, c := range map[string]struct {
		hurt func(w *world)
		want string
	}{
		"nobody says": {func(*world) {}, ""},
		"both are silent for 4 s": {func(w *world) {
			w.node(2).Heard, w.node(3).Heard = []HeardBeacon{heard(1, 0, 4000)}, []HeardBeacon{heard(1, 0, 4000)}
		}, "handoff v1 n2"},
		"one version does not say": {func(w *world) { w.node(2).Heard = []HeardBeacon{heard(1, 0, 4000)} }, "handoff v1 n2"},
		"for 2 s":                  {func(w *world) { w.node(2).Heard = []HeardBeacon{heard(1, 0, 2000)} }, ""},
		"one has heard it": {func(w *world) {
			w.node(2).Heard, w.node(3).Heard = []HeardBeacon{heard(1, 0, 4000)}, []HeardBeacon{heard(1, 0, 100)}
		}, ""},
		"on another path":           {func(w *world) { w.node(2).Heard = []HeardBeacon{heard(1, 0, 100), heard(1, 1, 4000)} }, ""},
		"the witness hears nothing": {func(w *world) { w.node(2).Heard, w.node(2).Paths[0].BeaconNs = []HeardBeacon{heard(1, 0, 4000)}, 1 }, ""},
		"the witness is not heard from": {func(w *world) {
			w.node(2).Heard, w.node(2).HeartbeatNs = []HeardBeacon{heard(1, 0, 4000)}, w.now-1100*ms
		}, ""},
		"the owner hears initiators only": {func(w *world) {
			w.node(2).Heard, w.node(1).Paths[0] = []HeardBeacon{heard(1, 0, 4000)}, PathHealth{Carrier: true, MTUOK: true, InitiatorNs: w.now}
		}, ""},
	} {
		w := newWorld(t, 3, 1)
		c.hurt(w)
		got := w.plan()
		if strings.Contains(got, "handoff") != (c.want != "") || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestPlanHoldsOffAfterAHandoff(t *testing.T) {
	w := newWorld(t, 3, 1)
	at := []int64{}
	start := w.now
	for w.now-start < 700e9 {
		w.tell(50*ms, 1, 2, 3)
		o := w.s.Volume(1).Data.Owner
		for n := 1; n <= 3; n++ { // whoever owns it seems dead
			w.node(n).Paths[0].Carrier = raid.NodeID(n) != o
		}
		if p := w.plan(); strings.HasPrefix(p, "handoff v1") {
			at = append(at, (w.now-start)/1e9)
			w.own(1, 1+o%3)
		}
	}
	want := []int64{0, 2, 6, 14, 30, 62, 126, 254, 510}
	if !slices.Equal(at[:min(len(at), len(want))], want) {
		t.Errorf("handoffs after %v s, want %v: 2 s doubling to 5 min", at, want)
	}
	w.h.Volumes = []VolumeHealth{{Vol: 1, CalmNs: 60e9}}
	w.tell(300e9, 1, 2, 3)
	if p := w.plan(); !strings.HasPrefix(p, "handoff v1") || len(w.p.holds) != 1 || w.p.holds[0].forNs != handoffHoldMinNs {
		t.Errorf("after a minute of initiator frames: %q, %+v; want a hold-off of 2 s again", p, w.p.holds)
	}
}

func TestPlanSpreadsAndDrains(t *testing.T) {
	w := newWorld(t, 3, 3)
	w.want("3/0/0", "handoff v1 n2")
	w.must(1, &Handoff{Vol: 1, Epoch: 1, Target: 2})
	w.tell(300*ms, 1, 2, 3)
	w.want("one at a time", "")
	w.node(2).Paths[0].Carrier = false
	w.want("the target cannot take it any more", "handoff v1 n0")
	w.must(1, &Handoff{Vol: 1, Epoch: 1})
	w.node(2).Paths[0].Carrier = true
	w.own(1, 2)
	w.tell(300*ms, 1, 2, 3)
	w.want("2/1/0", "handoff v2 n3")
	w.own(2, 3)
	w.tell(300e9, 1, 2, 3)
	w.want("1/1/1", "")
	w.must(1, &SetDraining{Node: 2, On: true})
	w.want("draining", "handoff v1 n1")
	w.own(1, 1)
	w.tell(300e9, 1, 2, 3)
	w.want("2/-/1: never to a draining node", "")
	w.must(1, &SetDraining{Node: 2, On: false})
	w.want("2/0/1: the difference is two", "handoff v1 n2")
	w.own(1, 2)
	w.own(2, 1)
	w.tell(600e9, 1, 2, 3)
	w.want("2/1/0 again", "handoff v2 n3")
	w.own(2, 3)
	e := w.s.Volume(2).Data.Epoch
	w.must(1, &Handoff{Vol: 2, Epoch: e, Target: 1})
	w.must(3, volCmd(raid.VolumeCommand{Kind: raid.CmdRelease, Vol: 2, Epoch: e}))
	d := w.s.Volume(2).Data
	w.must(1, volCmd(raid.VolumeCommand{Kind: raid.CmdActivate, Vol: 2, Epoch: d.Epoch, Ver: d.Ver, F: d.InSync()}))
	w.tell(600e9, 1, 2, 3)
	w.want("2/1/0: the operator's stays, another one goes", "handoff v3 n3")
}

// Who has just come back gets nothing to even out the numbers until it has stayed for a while.
func TestPlanLeavesWhoCameBackAlone(t *testing.T) {
	w := newWorld(t, 3, 3)
	w.own(2, 3)
	w.node(2).TermNs = w.now
	w.want("2/0/1, n2 is new", "")
	w.tell(4900*ms, 1, 2, 3)
	w.want("2/0/1, n2 is still new", "")
	w.tell(100*ms, 1, 2, 3)
	w.want("2/0/1", "handoff v1 n2")
}

func TestPlanNeverHandsAnythingToAWitness(t *testing.T) {
	w := newWorld(t, 3, 3)
	w.s.Node(2).Witness = true
	w.want("spread", "handoff v1 n3")
	w.must(1, &NodeDead{Node: 1, Term: 1})
	w.want("takeover", "takeover v1 1->2 n3, takeover v2 1->2 n3, takeover v3 1->2 n3")
}

func TestPlanLeadsANodeInAndOut(t *testing.T) {
	w := newWorld(t, 3, 0)
	r := w.must(1, &NodeJoin{Name: "n4", Node: testInfo(4)})
	w.want("joined", "conf 1 n4")
	w.v.Members = append(w.v.Members, RaftMember{Node: 4, Learner: true, Active: true})
	w.tell(300*ms, 1, 2, 3)
	w.want("far behind", "")
	w.v.Members[3].Match = 90
	w.want("caught up, never booted", "")
	w.must(4, &NodeBoot{Node: r.Node, Info: testInfo(4)})
	w.h.Nodes = append(w.h.Nodes, NodeHealth{Node: 4, Term: 1, HeartbeatNs: w.now, LV: 2, ReachAll: true})
	w.want("caught up and alive", "begin [1 2 3 4]")
	w.must(1, &VotersBegin{New: []raid.NodeID{1, 2, 3, 4}, LV: 2})
	w.want("begun", "conf 2 n4")
	w.v.Members[3].Learner = false
	w.want("promoted, nobody has reported", "")
	for n := 1; n <= 3; n++ {
		w.node(n).LV = 3
	}
	w.want("one has not reported", "")
	w.node(4).LV = 3
	w.want("all have", "end 3")
	w.must(1, &VotersEnd{LV: 3, Reported: []NodeTerm{{1, 1}, {2, 1}, {3, 1}, {4, 1}}})
	w.tell(300*ms, 1, 2, 3, 4)
	w.want("done", "")

	w.must(1, &NodeLeave{Node: 4})
	w.want("leaving", "begin [1 2 3]")
	w.must(1, &VotersBegin{New: []raid.NodeID{1, 2, 3}, LV: 3})
	w.want("no voter in Raft either, but told what happens: it has to report", "conf 4 n4")
	w.v.Members[3].Learner = true
	w.must(1, &NodeDead{Node: 4, Term: 1})
	for n := 1; n <= 3; n++ {
		w.node(n).LV = 4
	}
	w.want("a node whose term is over need not report", "end 4")
	w.must(1, &VotersEnd{LV: 4, Reported: []NodeTerm{{1, 1}, {2, 1}, {3, 1}}})
	w.want("gone from the state", "remove n4")
	w.must(1, &NodeRemove{Node: 4})
	w.want("last", "conf 3 n4")
	w.v.Members = w.v.Members[:3]
	w.want("nothing is left of it", "")
}

func TestALateCopyOfAddLearnerTakesNoVoteAway(t *testing.T) {
	cs := &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}
	for _, c := range []struct {
		kind ConfKind
		node raid.NodeID
		ok   bool
	}{{ConfAddLearner, 3, false}, {ConfAddLearner, 4, false}, {ConfAddLearner, 5, true}, {ConfDemote, 3, true}, {ConfDemote, 4, false},
		{ConfDemote, 5, false}, {ConfPromote, 4, true}, {ConfRemove, 4, true}} {
		if got := confChangeOK(cs, confChange(c.kind, c.node)); got != c.ok {
			t.Errorf("change %d of node %d: %t", c.kind, c.node, got)
		}
	}
	if confChangeOK(&raftpb.ConfState{Voters: []uint64{1}}, confChange(ConfDemote, 1)) {
		t.Error("the last voter is demoted")
	}
}
