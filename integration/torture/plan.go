package torture

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"clade/integration/lab"
)

// Kind is a fault as the nemesis deals it out, with its end: a node that is killed is also started again.
type Kind string

// The kinds.
const (
	KillWorker   Kind = "kill -9 of a worker"
	KillMachine  Kind = "kill -9 of worker and guardian"
	Pause        Kind = "SIGSTOP, SIGCONT"
	CutSAN       Kind = "SAN cut"
	CutSANPath   Kind = "one SAN path cut"
	DeafSAN      Kind = "deaf on the SAN"
	MuteSAN      Kind = "mute on the SAN"
	CutCluster   Kind = "cluster network cut"
	DeafCluster  Kind = "deaf on the cluster network"
	MuteCluster  Kind = "mute on the cluster network"
	Drain        Kind = "drain, undo"
	Handoff      Kind = "handoff"
	PowerLoss    Kind = "power loss of a node"
	PowerLossAll Kind = "power loss of all"
	RestartAll   Kind = "kill -9 of all workers"
	DiskWrites   Kind = "disk: writes and syncs fail"
	DiskReads    Kind = "disk: reads fail"
	DiskFull     Kind = "file system full"
)

// trait says what a kind does to the budget of nodes that may be out.
type trait struct {
	kind   Kind
	weight int
	out    bool // the node counts as lost
	all    bool // every node is hit: nothing else may happen meanwhile
}

var traits = []trait{
	{KillWorker, 4, true, false}, {KillMachine, 3, true, false}, {Pause, 4, true, false}, {CutSAN, 2, true, false}, {CutSANPath, 2, false, false},
	{DeafSAN, 2, true, false}, {MuteSAN, 2, true, false}, {CutCluster, 2, true, false}, {DeafCluster, 2, true, false}, {MuteCluster, 2, true, false},
	{Drain, 2, false, false}, {Handoff, 3, false, false}, {PowerLoss, 3, true, false}, {PowerLossAll, 1, false, true}, {RestartAll, 1, false, true},
	{DiskWrites, 2, true, false}, {DiskReads, 2, true, false}, {DiskFull, 1, true, false},
}

// Kinds lists all kinds.
func Kinds() []Kind {
	var out []Kind
	for i := range traits {
		out = append(out, traits[i].kind)
	}
	return out
}

// role says who is hit; which node that is shows when it happens.
type role uint8

const (
	anyone role = iota + 1 // by number
	theOwner
	theLeader
)

// act is one fault of a round.
type act struct {
	trait
	role   role
	number int           // of a node or slot, to be taken modulo how many there are
	after  time.Duration // since the round began
	hold   time.Duration // until its end
}

// round is what happens between two states of health.
type round struct {
	acts  []act
	pause time.Duration // before it
}

// plan makes rounds. The same seed and shape give the same ones.
type plan struct {
	rnd    *rand.Rand
	spec   lab.Spec
	m      int
	traits []trait
	sum    int // of weights
}

// The range of how long a fault lasts: shorter than a lease to much longer.
const (
	holdMin  = 200 * time.Millisecond
	holdMax  = 5 * time.Second
	pauseMax = 1500 * time.Millisecond
	// overlapOneIn rounds has a second fault.
	overlapOneIn = 3
)

// newPlan returns the plan for a lab whose volumes bear the loss of m nodes.
func newPlan(seed uint64, spec lab.Spec, m int) *plan {
	p := &plan{rnd: rand.New(rand.NewPCG(seed, 0x746f7274757265)), spec: spec, m: m}
	for _, t := range traits {
		switch {
		case t.kind == CutSANPath && spec.SANPaths < 2, t.kind == DiskFull && spec.SmallFS == 0, t.out && m < 1,
			(t.kind == DiskReads || t.kind == DiskWrites) && !spec.DiskFaults:
			continue
		}
		p.traits = append(p.traits, t)
		p.sum += t.weight
	}
	return p
}

func (p *plan) trait() trait {
	n := p.rnd.IntN(p.sum)
	for _, t := range p.traits {
		if n -= t.weight; n < 0 {
			return t
		}
	}
	panic("torture: weights do not add up")
}

// duration is spread evenly over orders of magnitude.
func (p *plan) duration(low, high time.Duration) time.Duration {
	d := float64(low) * math.Pow(float64(high)/float64(low), p.rnd.Float64())
	return time.Duration(d).Round(time.Millisecond)
}

func (p *plan) act() act {
	a := act{trait: p.trait(), number: p.rnd.IntN(1 << 20), hold: p.duration(holdMin, holdMax)}
	switch n := p.rnd.IntN(10); {
	case n < 5:
		a.role = theOwner
	case n < 6:
		a.role = theLeader
	default:
		a.role = anyone
	}
	return a
}

// next returns the next round. Its acts that take nodes out are at most m.
func (p *plan) next() round {
	r := round{pause: p.duration(10*time.Millisecond, pauseMax)}
	first := p.act()
	r.acts = append(r.acts, first)
	if first.all || p.rnd.IntN(overlapOneIn) > 0 {
		return r
	}
	for range 20 { // one that fits
		second := p.act()
		if second.all || second.kind == first.kind || second.out && first.out && p.m < 2 || !mix(first.kind, second.kind) {
			continue
		}
		second.after = time.Duration(p.rnd.Int64N(int64(first.hold)))
		r.acts = append(r.acts, second)
		break
	}
	return r
}

// mix says whether two kinds may overlap: a path of a node is not cut while another node's whole SAN side is, and an operator
// drains or hands off when all nodes are there.
func mix(a, b Kind) bool {
	operator := func(k Kind) bool { return k == Drain || k == Handoff }
	return !operator(a) && !operator(b)
}

// step is the beginning or the end of an act.
type step struct {
	act int
	end bool
	at  time.Duration
}

// steps returns a round's steps in order.
func (r *round) steps() []step {
	var out []step
	for i, a := range r.acts {
		out = append(out, step{i, false, a.after}, step{i, true, a.after + a.hold})
	}
	slices.SortStableFunc(out, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return out
}
