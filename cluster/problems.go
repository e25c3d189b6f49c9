package cluster

import (
	"cmp"
	"fmt"
	"slices"

	"clade/aoe"
	"clade/raid"
)

// Problem says what is wrong, for how long, and what to do.
type Problem struct {
	Key   string `json:"key"` // the same problem has the same key
	What  string `json:"what"`
	Do    string `json:"do"`
	AgeNs int64  `json:"age_ns"` // since this node has noticed it, to the second
}

// problemWatch remembers since when each problem has been there, whether or not anybody asks.
type problemWatch struct {
	lookedNs int64
	seen     []seenProblem // as found by the last look
}

type seenProblem struct {
	key     string
	sinceNs int64
}

const watchEveryNs = second

// watchStep looks for problems once a second.
func (n *Node) watchStep() {
	if w := &n.watch; w.lookedNs == 0 || n.now-w.lookedNs >= watchEveryNs {
		w.lookedNs = n.now
		w.note(n.look(n.now).Problems, n.now)
	}
}

// note keeps what is still there and adds what is new.
func (w *problemWatch) note(problems []Problem, nowNs int64) {
	next := make([]seenProblem, 0, len(problems))
	for _, p := range problems {
		next = append(next, seenProblem{p.Key, w.since(p.Key, nowNs)})
	}
	w.seen = next
}

func (w *problemWatch) since(key string, nowNs int64) int64 {
	for _, s := range w.seen {
		if s.key == key {
			return s.sinceNs
		}
	}
	return nowNs
}

// ages fills in for how long each problem has been there.
func (w *problemWatch) ages(problems []Problem, nowNs int64) {
	for i := range problems {
		problems[i].AgeNs = max(nowNs-w.since(problems[i].Key, nowNs), 0)
	}
}

// problems lists what is wrong, worst first, with what to do.
func (n *Node) problems(out *Status) {
	add := func(key, do, f string, a ...any) {
		out.Problems = append(out.Problems, Problem{Key: key, What: fmt.Sprintf(f, a...), Do: do})
	}
	if out.Leader == 0 {
		add("quorum", "start more nodes: a majority of the voters must be up; until then volumes are silent and initiators keep retrying",
			"no quorum: %d of %d nodes can be heard", up(out.Nodes), len(out.Nodes))
	}
	for i := range out.Volumes {
		v := &out.Volumes[i]
		key := fmt.Sprintf("volume-%d", v.ID)
		switch v.Health {
		case "down":
			add(key, "bring back nodes that hold its in-sync disks; it resumes by itself", "volume %s (%s) is not served", v.Address, v.Name)
		case "suspended":
			add(key, "bring that disk's node back; it resumes by itself", "volume %s (%s) is suspended: %s", v.Address, v.Name, v.Suspended)
		case "degraded":
			do := "nothing: it resyncs by itself"
			if len(v.Resync) == 0 {
				do = "bring back the disk or its node; the resync then starts by itself"
			}
			add(key, do, "volume %s (%s) is degraded: stale disks %v%s", v.Address, v.Name, v.Stale, progress(v.Resync))
		}
	}
	for i := range out.Nodes {
		x := &out.Nodes[i]
		key := fmt.Sprintf("node-%d", x.ID)
		if x.State != "up" {
			add(key, "start it: clade serve", "node %s is %s", x.Name, x.State)
			continue
		}
		for p := range x.Paths {
			switch path := &x.Paths[p]; {
			case !path.Carrier:
				add(fmt.Sprintf("%s-san-%d", key, p), "check its cable or switch port", "node %s has no carrier on SAN path %d", x.Name, p)
			case !path.MTUOK:
				add(fmt.Sprintf("%s-mtu-%d", key, p), fmt.Sprintf("raise the MTU of the interface to %d", aoe.MTUFor(out.SectorCount)),
					"node %s: the MTU of SAN path %d is too small for %d sectors a frame; it cannot own volumes", x.Name, p, out.SectorCount)
			}
		}
		if x.Draining {
			add(key+"-drain", "clade drain --undo "+x.Name+" when the work is done", "node %s is draining", x.Name)
		}
	}
	for i := range out.Disks {
		if d := &out.Disks[i]; d.State == "missing" || d.State == "failed" {
			add(fmt.Sprintf("disk-%d", d.ID), fmt.Sprintf("look at the node's log and bring it back, or put an empty disk in its place: clade disk replace %d PATH", d.ID), "disk %d (%s on node %s) is %s", d.ID, d.Label, d.NodeName, d.State)
		}
	}
	out.Health = "healthy"
	for _, v := range out.Volumes {
		if v.Health == "down" || v.Health == "suspended" {
			out.Health = "down"
		}
	}
	if out.Leader == 0 {
		out.Health = "down"
	}
	if out.Health == "healthy" && slices.ContainsFunc(out.Problems, func(p Problem) bool { return true }) {
		out.Health = "degraded"
	}
}

func up(nodes []NodeStatus) int {
	n := 0
	for _, x := range nodes {
		if x.State == "up" {
			n++
		}
	}
	return n
}

func progress(r []raid.ResyncStatus) string {
	text := ""
	r = slices.Clone(r) // a peer's report is not ours to change
	slices.SortFunc(r, func(a, b raid.ResyncStatus) int { return cmp.Compare(a.Disk, b.Disk) })
	for _, x := range r {
		text += fmt.Sprintf("; disk %d: %d of %d MiB copied", x.Disk, x.Done, x.Total)
	}
	return text
}
