package membership

import (
	"fmt"
	"slices"

	"clade/aoe"
	"clade/raid"
)

// NodeInfo is what a node says of itself when it joins and at each boot.
type NodeInfo struct {
	Addr       string `json:"addr"`
	Host       string `json:"host"`
	MaxFeature int    `json:"max_feature"`
	SANPaths   int    `json:"san_paths"`
}

func (i NodeInfo) validate() error {
	switch {
	case i.Addr == "" || len(i.Addr) > MaxAddrBytes || !printable(i.Addr):
		return fmt.Errorf("cluster address %q: %w", i.Addr, ErrInvalid)
	case len(i.Host) > MaxNameBytes || !printable(i.Host):
		return fmt.Errorf("host name %q: %w", i.Host, ErrInvalid)
	case i.SANPaths < 0 || i.SANPaths > MaxSANPaths:
		return fmt.Errorf("%d SAN paths, at most %d: %w", i.SANPaths, MaxSANPaths, ErrInvalid)
	}
	return nil
}

// ClusterInit founds the cluster: the proposer becomes node 1 and the only voter.
type ClusterInit struct {
	Cluster     UUID     `json:"cluster"`
	Name        string   `json:"name"`
	Shelf       uint16   `json:"shelf"`
	SectorCount uint8    `json:"sector_count"`
	Feature     int      `json:"feature"`
	NodeName    string   `json:"node_name"`
	NodeKey     UUID     `json:"node_key"`
	Witness     bool     `json:"witness"`
	Node        NodeInfo `json:"node"`
}

// CommandType returns the tag on the wire.
func (*ClusterInit) CommandType() string { return "cluster_init" }

func (c *ClusterInit) apply(s *State, h Header) Result {
	switch {
	case s.Initialised():
		return void("the cluster is initialised already as %q: %w", s.Name, ErrExists)
	case c.Feature > MaxFeatureLevel:
		return Result{Stop: fmt.Errorf("membership: cluster of feature level %d, this binary has %d: %w", c.Feature, MaxFeatureLevel, errUnknown)}
	case c.Feature < MinFeatureLevel || c.Node.MaxFeature < c.Feature:
		return void("feature level %d: %w", c.Feature, ErrInvalid)
	case c.Cluster == UUID{}:
		return void("the cluster id is zero: %w", ErrInvalid)
	case !validName(c.Name) || !validName(c.NodeName):
		return void("name %q or %q: letters, digits, '-', '_' and '.', at most %d: %w", c.Name, c.NodeName, MaxNameBytes, ErrInvalid)
	case c.SectorCount == 0:
		return void("sector count 0: %w", ErrInvalid)
	}
	if err := aoe.ValidateAddress(c.Shelf, 0); err != nil {
		return void("%v: %w", err, ErrInvalid)
	}
	if err := c.Node.validate(); err != nil {
		return Result{Err: err}
	}
	s.Cluster, s.Name, s.Shelf, s.SectorCount, s.FeatureLevel = c.Cluster, c.Name, c.Shelf, c.SectorCount, c.Feature
	s.NextDisk, s.NextVolume, s.NextNode = 1, 1, 2
	s.Nodes = []Node{newNode(1, c.NodeName, c.NodeKey, c.Witness, c.Node)}
	s.Voters = Voters{Cur: []raid.NodeID{1}, LV: 1}
	return Result{Node: 1}
}

func newNode(id raid.NodeID, name string, key UUID, witness bool, i NodeInfo) Node {
	return Node{ID: id, Name: name, Key: key, Witness: witness,
		Addr: i.Addr, Host: i.Host, MaxFeature: i.MaxFeature, SANPaths: i.SANPaths}
}

// NodeJoin admits a node. It can be repeated: the same key, name and address get the id they have.
type NodeJoin struct {
	Name    string   `json:"name"`
	Key     UUID     `json:"key"`
	Witness bool     `json:"witness"`
	Node    NodeInfo `json:"node"`
}

// CommandType returns the tag on the wire.
func (*NodeJoin) CommandType() string { return "node_join" }

func (c *NodeJoin) apply(s *State, h Header) Result {
	if !validName(c.Name) {
		return void("node name %q: letters, digits, '-', '_' and '.', at most %d: %w", c.Name, MaxNameBytes, ErrInvalid)
	}
	if err := c.Node.validate(); err != nil {
		return Result{Err: err}
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch {
		case c.Key != UUID{} && n.Key == c.Key && n.Name == c.Name:
			return Result{Node: n.ID}
		case n.Name == c.Name:
			return void("node name %q is %w by node %d at %s", c.Name, ErrExists, n.ID, n.Addr)
		case n.Addr == c.Node.Addr:
			return void("cluster address %s is %w by node %q", c.Node.Addr, ErrExists, n.Name)
		}
	}
	if c.Node.MaxFeature < s.FeatureLevel {
		return void("the cluster runs at %w %d, node %q knows %d at most: upgrade it first", ErrFeature, s.FeatureLevel, c.Name, c.Node.MaxFeature)
	}
	if len(s.Nodes) >= MaxNodes {
		return void("%d nodes already: %w", len(s.Nodes), ErrNoSpace)
	}
	id := s.NextNode
	s.NextNode++
	s.Nodes = append(s.Nodes, newNode(id, c.Name, c.Key, c.Witness, c.Node))
	return Result{Node: id}
}

// NodeLeave announces that a node shall go; the leader then takes it out of the voters and proposes NodeRemove.
type NodeLeave struct {
	Node raid.NodeID `json:"node"`
}

// CommandType returns the tag on the wire.
func (*NodeLeave) CommandType() string { return "node_leave" }

func (c *NodeLeave) apply(s *State, h Header) Result {
	n := s.Node(c.Node)
	if n == nil {
		return void("node %d: %w", c.Node, ErrNotFound)
	}
	if err := s.nodeUnused(n); err != nil {
		return Result{Err: err}
	}
	if len(s.Voters.Cur) == 1 && s.Voters.Cur[0] == n.ID {
		return void("node %q is the only voter: %w", n.Name, ErrInUse)
	}
	n.Leaving, n.Draining = true, true
	return Result{Node: n.ID}
}

// nodeUnused returns an error while a node holds disks of volumes.
func (s *State) nodeUnused(n *Node) error {
	for _, v := range s.Volumes {
		for _, m := range v.Data.Members {
			if d := s.Disk(m.Disk); d != nil && d.Node == n.ID {
				return fmt.Errorf("disk %d of node %q holds shards of volume %q: %w", d.ID, n.Name, v.Name, ErrInUse)
			}
		}
	}
	return nil
}

// NodeRemove takes a node and its (unused) disks out of the state. The node must not vote, and must not be able to serve: a
// node without a row counts as one whose terms are over.
type NodeRemove struct {
	Node raid.NodeID `json:"node"`
}

// CommandType returns the tag on the wire.
func (*NodeRemove) CommandType() string { return "node_remove" }

func (c *NodeRemove) apply(s *State, h Header) Result {
	n := s.Node(c.Node)
	if n == nil {
		return void("node %d: %w", c.Node, ErrNotFound)
	}
	if err := s.nodeUnused(n); err != nil {
		return Result{Err: err}
	}
	if slices.Contains(s.Voters.Cur, n.ID) || slices.Contains(s.Voters.Prev, n.ID) {
		return void("node %q is a lease voter: %w", n.Name, ErrInUse)
	}
	for _, v := range s.Volumes {
		if v.Data.Owner == n.ID && s.OwnerLives(v.Data) {
			return void("node %q owns volume %q: %w", n.Name, v.Name, ErrInUse)
		}
	}
	s.Disks = slices.DeleteFunc(s.Disks, func(d Disk) bool { return d.Node == c.Node })
	s.Nodes = slices.DeleteFunc(s.Nodes, func(n Node) bool { return n.ID == c.Node })
	return Result{Node: c.Node}
}

// NodeBoot begins a lease term (A.1). Proof says that the proposer has proof of death for Term (A.2 Proof of death).
type NodeBoot struct {
	Node  raid.NodeID `json:"node"`
	Term  raid.Term   `json:"term"`
	Proof bool        `json:"proof"`
	Info  NodeInfo    `json:"info"`
}

// CommandType returns the tag on the wire.
func (*NodeBoot) CommandType() string { return "node_boot" }

func (c *NodeBoot) apply(s *State, h Header) Result {
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return void("node %d: %w", c.Node, ErrNotFound)
	case n.Term != c.Term:
		return Result{Node: n.ID, Term: n.Term, Err: fmt.Errorf("node %q is at term %d, not %d: %w", n.Name, n.Term, c.Term, ErrTerm)}
	case n.Held && !c.Proof && !mutated("BOOT_NO_PROOF"):
		return Result{Node: n.ID, Term: n.Term, Err: fmt.Errorf("node %q, term %d: %w and there is no proof that its holder died", n.Name, n.Term, ErrHeld)}
	case c.Info.MaxFeature < s.FeatureLevel:
		return void("the cluster runs at %w %d, the binary of node %q knows %d at most", ErrFeature, s.FeatureLevel, n.Name, c.Info.MaxFeature)
	}
	if err := c.Info.validate(); err != nil {
		return Result{Err: err}
	}
	for i := range s.Nodes {
		if o := &s.Nodes[i]; o.ID != n.ID && o.Addr == c.Info.Addr {
			return void("cluster address %s is %w by node %q", o.Addr, ErrExists, o.Name)
		}
	}
	if !c.Proof || !mutated("C3") {
		n.Term++
	}
	n.Held = true
	n.Addr, n.Host, n.MaxFeature, n.SANPaths = c.Info.Addr, c.Info.Host, c.Info.MaxFeature, c.Info.SANPaths
	n.ClockMark = 0 // its host's clock may have begun anew
	return Result{Node: n.ID, Term: n.Term}
}

// NodeDead ends a term on proof of death by the node's own kernel (A.2), said by its guardian.
type NodeDead struct {
	Node raid.NodeID `json:"node"`
	Term raid.Term   `json:"term"`
}

// CommandType returns the tag on the wire.
func (*NodeDead) CommandType() string { return "node_dead" }

func (c *NodeDead) apply(s *State, h Header) Result { return s.endTerm(c.Node, c.Term) }

// NodeRevoke ends a term on the word of lease voters that have durably revoked it. Whether they are a majority is judged by
// the voters at apply, joint rule included (B: C6).
type NodeRevoke struct {
	Node raid.NodeID   `json:"node"`
	Term raid.Term     `json:"term"`
	Yes  []raid.NodeID `json:"yes"`
}

// CommandType returns the tag on the wire.
func (*NodeRevoke) CommandType() string { return "node_revoke" }

func (c *NodeRevoke) apply(s *State, h Header) Result {
	if !s.Voters.Majority(func(id raid.NodeID) bool { return slices.Contains(c.Yes, id) }) {
		return void("term %d of node %d: %v have revoked it: %w", c.Term, c.Node, c.Yes, ErrVotes)
	}
	return s.endTerm(c.Node, c.Term)
}

func (s *State) endTerm(id raid.NodeID, t raid.Term) Result {
	n := s.Node(id)
	switch {
	case n == nil:
		return void("node %d: %w", id, ErrNotFound)
	case n.Term != t:
		return Result{Node: id, Term: n.Term, Err: fmt.Errorf("node %q is at term %d, not %d: %w", n.Name, n.Term, t, ErrTerm)}
	case n.Term == 0:
		return void("node %q has never booted: %w", n.Name, ErrInvalid)
	}
	n.Term++
	n.Held = false
	return Result{Node: id, Term: n.Term}
}

// SetDraining says that a node shall own nothing and get no new shard.
type SetDraining struct {
	Node raid.NodeID `json:"node"`
	On   bool        `json:"on"`
}

// CommandType returns the tag on the wire.
func (*SetDraining) CommandType() string { return "set_draining" }

func (c *SetDraining) apply(s *State, h Header) Result {
	n := s.Node(c.Node)
	if n == nil {
		return void("node %d: %w", c.Node, ErrNotFound)
	}
	if n.Leaving && !c.On {
		return void("node %q is leaving: %w", n.Name, ErrInUse)
	}
	n.Draining = c.On
	return Result{Node: n.ID}
}

// SetFeatureLevel raises the feature level; every member must know it (B: L8).
type SetFeatureLevel struct {
	Level int `json:"level"`
}

// CommandType returns the tag on the wire.
func (*SetFeatureLevel) CommandType() string { return "feature_level" }

func (c *SetFeatureLevel) apply(s *State, h Header) Result {
	if c.Level <= s.FeatureLevel {
		return void("the cluster is at %w %d already and never goes back", ErrFeature, s.FeatureLevel)
	}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.MaxFeature < c.Level {
			return void("%w %d: the binary of node %q knows %d at most", ErrFeature, c.Level, n.Name, n.MaxFeature)
		}
	}
	if c.Level > MaxFeatureLevel {
		return Result{Stop: fmt.Errorf("membership: feature level %d, this binary has %d: %w", c.Level, MaxFeatureLevel, errUnknown)}
	}
	s.FeatureLevel = c.Level
	return Result{}
}

// VotersBegin starts a change of the lease voters (B: C6).
type VotersBegin struct {
	New []raid.NodeID `json:"new"`
	LV  uint64        `json:"lv"` // the lv it was planned at: a delayed duplicate is void
}

// CommandType returns the tag on the wire.
func (*VotersBegin) CommandType() string { return "voters_begin" }

func (c *VotersBegin) apply(s *State, h Header) Result {
	switch {
	case s.Voters.Joint():
		return void("a change of voters is under way: %w", ErrInUse)
	case c.LV != s.Voters.LV:
		return void("voters are at lv %d, not %d: %w", s.Voters.LV, c.LV, ErrTerm)
	case len(c.New) == 0 || len(c.New) > len(s.Nodes):
		return void("%d voters: %w", len(c.New), ErrInvalid)
	}
	next := slices.Compact(slices.Sorted(slices.Values(c.New)))
	for _, id := range next {
		if s.Node(id) == nil {
			return void("voter %d: %w", id, ErrNotFound)
		}
	}
	if slices.Equal(next, s.Voters.Cur) {
		return void("these are the voters already: %w", ErrExists)
	}
	s.Voters = Voters{Prev: s.Voters.Cur, Cur: next, LV: s.Voters.LV + 1}
	return Result{}
}

// NodeTerm names one incarnation of a node.
type NodeTerm struct {
	Node raid.NodeID `json:"node"`
	Term raid.Term   `json:"term"`
}

// VotersEnd ends the joint phase. Reported lists the incarnations that have said, in a heartbeat, that they go by LV; every
// node with a living term must be among them (A.1).
type VotersEnd struct {
	LV       uint64     `json:"lv"`
	Reported []NodeTerm `json:"reported"`
}

// CommandType returns the tag on the wire.
func (*VotersEnd) CommandType() string { return "voters_end" }

func (c *VotersEnd) apply(s *State, h Header) Result {
	if !s.Voters.Joint() || c.LV != s.Voters.LV {
		return void("voters are at lv %d: %w", s.Voters.LV, ErrTerm)
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Held && !slices.Contains(c.Reported, NodeTerm{n.ID, n.Term}) {
			return void("node %q, term %d, has not reported lv %d: %w", n.Name, n.Term, c.LV, ErrVotes)
		}
	}
	s.Voters.Prev = nil
	return Result{}
}

// validName accepts what is safe in a path, a metric label and a shell.
func validName(name string) bool {
	if name == "" || len(name) > MaxNameBytes {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_' || c == '.'):
		default:
			return false
		}
	}
	return true
}

// printable accepts visible ASCII without quotes or spaces.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return true
}
