package sim

import (
	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store"
)

// invariants reads the invariants of A.4 from the state machines themselves: here those that owners and the replicated state show
// (I1, I2, I8), every few steps; in invariants_disk.go what disks show (I3, I5, I6, I11), after all their work; in invariants_held.go
// what must be where (I4, I7, I9, I12). I10 is the history's part.
type invariants struct {
	w         *world
	steps     int
	commits   map[ownerKey]raid.Seq // highest commit point that the owner of an epoch ever had
	ended     map[ownerKey]raid.Seq // end of an epoch, as first recorded
	batches   map[batchKey]*batch
	newest    map[raid.VolumeID]raid.Epoch       // with a batch
	appliedTo map[ownerKey]raid.Seq              // highest record of an epoch that any disk has applied
	committed map[raid.VolumeID][]committedBatch // by seq - 1
	shadows   map[shadowKey]*shadow
	views     []store.VolumeView
	log       []store.LogRecord
	lying     []*shadow // not found out yet
	latest    []*membership.Volume
	owners    map[ownerKey]ownerOf
}

type ownerKey struct {
	vol   raid.VolumeID
	epoch raid.Epoch
}

type batchKey struct {
	ownerKey
	seq raid.Seq
}

// ownerOf says which process is the owner of an epoch: never two.
type ownerOf struct {
	proc int
	term raid.Term
}

func newInvariants(w *world) *invariants {
	return &invariants{w: w, commits: map[ownerKey]raid.Seq{}, ended: map[ownerKey]raid.Seq{}, batches: map[batchKey]*batch{}, newest: map[raid.VolumeID]raid.Epoch{},
		appliedTo: map[ownerKey]raid.Seq{}, committed: map[raid.VolumeID][]committedBatch{}, shadows: map[shadowKey]*shadow{},
		owners: map[ownerKey]ownerOf{}}
}

const (
	checkEverySteps = 8
	everythingEvery = 64 // of those
)

// afterStep looks at everything every few steps of any process.
func (c *invariants) afterStep(p *process) {
	c.steps++
	c.follow(p.node.State())
	if c.steps%checkEverySteps == 0 {
		c.owner(p)
		c.oneServes()
		c.ends(p)
		c.w.stats.checks++
		if c.w.stats.checks%everythingEvery == 0 {
			c.everything()
		}
	}
}

// oneServes is I8: at one instant at most one process finds its lease valid and the serving rule true for a volume. A stopped
// process counts: it could go on at any moment.
func (c *invariants) oneServes() {
	if c.w.history.strict { // clocks that stand make leases worthless: disks are asked instead
		return
	}
	seen := map[raid.VolumeID]int{}
	for _, h := range c.w.hosts {
		if h.proc == nil {
			continue
		}
		for _, o := range h.proc.node.Owners(h.proc.now()) {
			if !o.Serving {
				continue
			}
			if other := seen[o.Vol]; other != 0 {
				c.w.fail("I8: nodes %d and %d both may serve volume %d (epoch %d at node %d)", other, h.index+1, o.Vol, o.Epoch, h.index+1)
			}
			seen[o.Vol] = h.index + 1
		}
	}
}

// owner looks at the volumes that a process owns.
func (c *invariants) owner(p *process) {
	for _, o := range p.node.Owners(p.now()) {
		k := ownerKey{o.Vol, o.Epoch}
		if old, ok := c.owners[k]; ok && old != (ownerOf{p.number, o.Term}) {
			c.w.fail("volume %d epoch %d: process %d term %d and process %d term %d both own it", o.Vol, o.Epoch, old.proc, old.term, p.number, o.Term)
		}
		c.owners[k] = ownerOf{p.number, o.Term}
		if o.Status.State != raid.OwnerActive {
			continue
		}
		c.commits[k] = max(c.commits[k], o.Status.Commit)
		c.ends(p)
		c.committedTo(p.node.State().Volume(o.Vol), o.Epoch, o.Status.Commit)
		c.waitSet(p, o)
	}
}

// waitSet is I1: commits wait for every disk that Raft calls in-sync, as this node knows it and as anybody knows it.
func (c *invariants) waitSet(p *process, o cluster.OwnerView) {
	w := raid.NewDiskSet(o.Status.Waiting...)
	for _, h := range c.w.hosts {
		if h.proc == nil {
			continue
		}
		v := h.proc.node.State().Volume(o.Vol)
		// A node that lags may still list a disk that has been marked stale since: Ver tells.
		own := p.node.State().Volume(o.Vol)
		if v == nil || v.Data.Epoch != o.Epoch || v.Data.Ver < own.Data.Ver || !v.Data.Active {
			continue
		}
		if in := v.Data.InSync(); !in.SubsetOf(w) {
			c.w.fail("I1: volume %d epoch %d: node %d waits for %v, node %d knows in-sync %v", o.Vol, o.Epoch, p.index+1, w, h.index+1, in)
		}
	}
}

// ends looks at the ends of epochs that a process knows.
func (c *invariants) ends(p *process) {
	for _, v := range p.node.State().Volumes {
		for _, r := range v.Data.Hist {
			for e := r.From; e <= r.To; e++ {
				c.closed(ownerKey{v.ID(), e}, r.End)
			}
		}
	}
}

// closed is I2: no owner incarnation ever committed above the end that was recorded for its epoch, and an end never changes. And I3
// for what was applied before the end was known.
func (c *invariants) closed(k ownerKey, end raid.Seq) {
	if old, ok := c.ended[k]; ok && old != end {
		c.w.fail("volume %d epoch %d ended at %d, now at %d", k.vol, k.epoch, old, end)
	}
	c.ended[k] = end
	if n := c.appliedTo[k]; n > end {
		c.w.fail("I3: volume %d epoch %d ended at %d, a disk has applied %d", k.vol, k.epoch, end, n)
	}
	if c.commits[k] > end {
		c.w.fail("I2: volume %d epoch %d committed %d and ended at %d", k.vol, k.epoch, c.commits[k], end)
	}
}

// request looks at what an owner asks of a disk.
func (c *invariants) request(r *raid.DiskRequest) {
	if r.Kind == raid.ReqPrepare && r.Rec != nil {
		c.sent(r)
	}
}

func (c *invariants) processEnded(p *process) {
	c.owner(p)
}
