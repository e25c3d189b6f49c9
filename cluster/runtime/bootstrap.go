package runtime

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"clade/aoe"
	"clade/aoe/link"
	"clade/cluster"
	"clade/membership"
	"clade/store/raftlog"
)

// SectorCounts that Init takes: what fits a frame of MTU 1500, and of MTU 9000. 17 would fit too, but then every second frame
// would begin in the middle of a 4 KiB block (aoe.MaxSectors).
const (
	SectorsMTU1500 = 2
	SectorsMTU9000 = 16
)

// RefusedError says that nothing was done because it must not be done: trying again alone will not help.
type RefusedError struct {
	What string // what is wrong
	Next string // what to do
}

func (e *RefusedError) Error() string {
	if e.Next == "" {
		return e.What
	}
	return e.What + "; " + e.Next
}

func refusal(next, format string, args ...any) error {
	return &RefusedError{What: fmt.Sprintf(format, args...), Next: next}
}

// UnreachableError says that no answer came from where one was needed.
type UnreachableError struct {
	Addr string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from %s: %v; is a node running there, and is this its cluster address?", e.Addr, e.Err)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// InitOptions says what cluster to found and what its first node is.
type InitOptions struct {
	Dir         string
	Cluster     string // name
	Shelf       uint16
	SectorCount uint8 // 0: what the SAN interfaces' MTU carries, 16 at most; 2 without interfaces
	Witness     bool
	Config      Config
	Disks       []string
	Force       bool // format disks that carry something
	Transport   Transport
	// MTUs replaces the look at the SAN interfaces, for nodes whose ports are injected.
	MTUs []int
}

// Prepared is what Init and Join have done.
type Prepared struct {
	Identity Identity       `json:"identity"`
	Disks    []DiskAddReply `json:"disks"`
	Warnings []string       `json:"warnings"`
}

// Init founds a cluster of one node and prepares its data directory, so that Start needs nothing else.
func Init(opt InitOptions) (*Prepared, error) {
	cfg := opt.Config.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := emptyDir(opt.Dir); err != nil {
		return nil, err
	}
	mtus, err := sanMTUs(cfg.SAN, opt.MTUs)
	if err != nil {
		return nil, err
	}
	if opt.SectorCount == 0 {
		opt.SectorCount = sectorsFor(mtus)
	}
	if err := checkMTUs(mtus, cfg.SAN, opt.SectorCount); err != nil {
		return nil, err
	}
	if opt.Witness && len(opt.Disks) > 0 {
		return nil, refusal("give the disks to another node", "a witness has no disks")
	}
	id := Identity{ClusterName: opt.Cluster, Shelf: opt.Shelf, SectorCount: opt.SectorCount, Node: 1, Name: cfg.Node, Witness: opt.Witness}
	id.Cluster, id.Key = newUUID(), newUUID()
	id.Seeds = []Peer{{1, cfg.Advertise}}
	probes, err := probeAll(opt.Disks, id.Cluster, opt.Force)
	if err != nil {
		return nil, err
	}
	log, err := raftlog.Open(filepath.Join(opt.Dir, raftFileName))
	if err != nil {
		return nil, err
	}
	out := &Prepared{Identity: id}
	f := founder{log: log, id: &id}
	if err = f.start(); err == nil {
		_, err = f.propose(&membership.ClusterInit{Cluster: id.Cluster, Name: opt.Cluster, Shelf: opt.Shelf, SectorCount: opt.SectorCount,
			Feature: membership.MaxFeatureLevel, NodeName: cfg.Node, NodeKey: id.Key, Witness: opt.Witness, Node: nodeInfo(cfg, len(mtus))})
	}
	for _, p := range probes {
		if err != nil {
			break
		}
		out.Disks, err = appendDisk(out.Disks, p, id, f.addDisk)
	}
	if cerr := log.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return out, savePrepared(opt.Dir, cfg, id, out.Disks)
}

func appendDisk(done []DiskAddReply, p *probe, id Identity, add func(*membership.DiskAdd) (cluster.AdminReply, error)) ([]DiskAddReply, error) {
	r, err := p.format(id, add)
	if err != nil {
		return done, err
	}
	return append(done, r), nil
}

// savePrepared writes what Start reads; the identity last, since it makes the directory a node's.
func savePrepared(dir string, cfg Config, id Identity, disks []DiskAddReply) error {
	paths := make([]string, 0, len(disks))
	for _, d := range disks {
		paths = append(paths, d.Path)
	}
	if err := saveConfig(dir, cfg); err != nil {
		return err
	}
	if err := saveJSON(filepath.Join(dir, disksFileName), paths); err != nil {
		return err
	}
	return saveJSON(filepath.Join(dir, identityFileName), id)
}

// emptyDir makes the data directory and removes what an attempt that failed has left.
func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("runtime: data directory: %w", err)
	}
	var id Identity
	err := loadJSON(filepath.Join(dir, identityFileName), &id)
	if err == nil {
		return refusal("run 'clade serve --dir "+dir+"', or choose another directory", "%s already holds node %q of cluster %q", dir, id.Name, id.ClusterName)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(filepath.Join(dir, raftFileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runtime: data directory: %w", err)
	}
	return nil
}

// IsPrepared reports whether Init or Join has made a directory a node's. One that cannot be read is an error.
func IsPrepared(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, identityFileName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("runtime: data directory: %w", err)
	}
	return true, nil
}

func newUUID() (u membership.UUID) {
	if _, err := rand.Read(u[:]); err != nil {
		panic(fmt.Sprintf("runtime: no random numbers: %v", err)) // crypto/rand never fails on Linux
	}
	return u
}

func nodeInfo(cfg Config, paths int) membership.NodeInfo {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return membership.NodeInfo{Addr: cfg.Advertise, Host: host, MaxFeature: membership.MaxFeatureLevel, SANPaths: paths}
}

// sanMTUs returns the MTU of each SAN interface.
func sanMTUs(san []string, given []int) ([]int, error) {
	if given != nil {
		return given, nil
	}
	var out []int
	for _, spec := range san {
		ifi, err := link.Resolve(spec)
		if err != nil {
			return nil, refusal("name an interface, its MAC, or an IP prefix on it; see: ip link", "SAN interface %q: %v", spec, err)
		}
		out = append(out, ifi.MTU)
	}
	return out, nil
}

// sectorsFor returns how many sectors a request may have on all these interfaces.
func sectorsFor(mtus []int) uint8 {
	if len(mtus) == 0 {
		return SectorsMTU1500
	}
	return max(1, aoe.MaxSectors(slices.Min(mtus)))
}

func checkMTUs(mtus []int, san []string, sectors uint8) error {
	for i, mtu := range mtus {
		if need := aoe.MTUFor(sectors); mtu < need {
			name := fmt.Sprintf("path %d", i)
			if i < len(san) {
				name = san[i]
			}
			return refusal(fmt.Sprintf("raise it (ip link set %s mtu 9000, and the switch), or found the cluster with fewer --sectors", name),
				"the MTU of SAN interface %s is %d; the cluster's requests of %d sectors need %d", name, mtu, sectors, need)
		}
	}
	return nil
}

// founder runs the Raft group of a cluster's first node without a runtime, long enough to commit its first commands.
type founder struct {
	log   *raftlog.Log
	id    *Identity
	group *membership.Group
	nowNs int64
	next  uint64
}

func (f *founder) start() error {
	if err := f.log.Write(raftlog.Batch{Snapshot: membership.Bootstrap(1)}); err != nil {
		return err
	}
	f.nowNs = bootNs()
	var err error
	f.group, err = membership.NewGroup(f.nowNs, membership.GroupOptions{Node: 1, Storage: f.log})
	if err == nil {
		f.group.Campaign()
	}
	return err
}

// propose commits one command and returns its result.
func (f *founder) propose(b membership.Body) (membership.Result, error) {
	f.next++
	id, sent := f.next, false
	for range 10_000 {
		if !sent && f.group.IsLeader() {
			if err := f.group.Propose(membership.Header{ID: id, By: 1, ClockMs: f.nowNs / 1e6}, b); err != nil {
				return membership.Result{}, err
			}
			sent = true
		}
		fx := f.group.Take()
		for _, w := range fx.Writes {
			batch := raftlog.Batch{Snapshot: w.Snapshot, Compact: w.CompactTo}
			if w.Append != nil {
				batch = raftlog.BatchOf(w.Append)
			}
			if err := f.log.Write(batch); err != nil {
				return membership.Result{}, err
			}
			f.group.Stored(w.Seq)
		}
		for _, r := range fx.Applied {
			if r.ID == id {
				if r.Err != nil {
					return r, refusal("", "%v", r.Err)
				}
				return r, r.Stop
			}
		}
		if len(fx.Writes) == 0 { // it waits for time only
			f.nowNs += membership.DefaultTickNs
			f.group.Tick(f.nowNs)
		}
	}
	panic("runtime: a Raft group of one does not commit")
}

// addDisk is what a running node does through its admin table.
func (f *founder) addDisk(c *membership.DiskAdd) (cluster.AdminReply, error) {
	r, err := f.propose(c)
	if err != nil {
		return cluster.AdminReply{}, err
	}
	return cluster.AdminReply{Node: r.Node, Disk: r.Disk, Gen: f.group.State().Disk(r.Disk).AttachGen}, nil
}

// JoinOptions says which cluster to join and what the new node is.
type JoinOptions struct {
	Dir       string
	Addr      string // cluster address of any member
	Witness   bool
	Config    Config
	Disks     []string
	Force     bool
	Transport Transport
	MTUs      []int // as in InitOptions
}

// Join makes this node a member of an existing cluster and prepares its data directory, so that Start needs nothing else. It
// can be repeated after a failure.
func Join(ctx context.Context, opt JoinOptions) (*Prepared, error) {
	cfg := opt.Config.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := emptyDir(opt.Dir); err != nil {
		return nil, err
	}
	if opt.Witness && len(opt.Disks) > 0 {
		return nil, refusal("give the disks to another node", "a witness has no disks")
	}
	mtus, err := sanMTUs(cfg.SAN, opt.MTUs)
	if err != nil {
		return nil, err
	}
	out := &Prepared{}
	// First ask what the cluster is like: what cannot work must be known before it has a new member.
	w, err := askJoin(ctx, opt.Transport, opt.Addr, nil)
	if err != nil {
		return nil, err
	}
	if err := checkMTUs(mtus, cfg.SAN, w.Joined.SectorCount); err != nil {
		return nil, err
	}
	if d := time.Duration(w.RealNs - realNs()); d > time.Second || d < -time.Second {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the wall clock there differs by %s: set both by NTP", d.Round(time.Millisecond)))
	}
	probes, err := probeAll(opt.Disks, w.Cluster, opt.Force)
	if err != nil {
		return nil, err
	}
	key, err := joinKey(opt.Dir)
	if err != nil {
		return nil, err
	}
	w, err = askJoin(ctx, opt.Transport, opt.Addr, &membership.NodeJoin{Name: cfg.Node, Key: key, Witness: opt.Witness, Node: nodeInfo(cfg, len(mtus))})
	if err != nil {
		return nil, err
	}
	j := w.Joined
	id := Identity{Cluster: w.Cluster, ClusterName: j.Name, Shelf: j.Shelf, SectorCount: j.SectorCount, Node: j.Node, Name: cfg.Node, Key: key,
		Witness: opt.Witness, Seeds: j.Members}
	add := func(c *membership.DiskAdd) (cluster.AdminReply, error) {
		w, err := opt.Transport.call(ctx, opt.Addr, hello{Hello: newHello(purposeJoin, Identity{}), DiskAdd: c, Key: key})
		if err != nil {
			return cluster.AdminReply{}, explainCall(opt.Addr, err)
		}
		if w.Disk == nil {
			return cluster.AdminReply{}, fmt.Errorf("runtime: %s answers without a disk", opt.Addr)
		}
		return *w.Disk, nil
	}
	for _, p := range probes {
		if out.Disks, err = appendDisk(out.Disks, p, id, add); err != nil {
			return nil, err
		}
	}
	out.Identity = id
	if err := savePrepared(opt.Dir, cfg, id, out.Disks); err != nil {
		return nil, err
	}
	return out, os.Remove(filepath.Join(opt.Dir, joinKeyFileName))
}

// joinKeyFileName holds the key of a join under way, so that a repeated one is recognised.
const joinKeyFileName = "join.json"

func joinKey(dir string) (membership.UUID, error) {
	path := filepath.Join(dir, joinKeyFileName)
	var key membership.UUID
	err := loadJSON(path, &key)
	if errors.Is(err, fs.ErrNotExist) {
		key = newUUID()
		err = saveJSON(path, key)
	}
	return key, err
}

func askJoin(ctx context.Context, t Transport, addr string, c *membership.NodeJoin) (welcome, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return welcome{}, refusal("write host:port, as in 10.0.0.1:7770", "%q is no cluster address", addr)
	}
	w, err := t.call(ctx, addr, hello{Hello: newHello(purposeJoin, Identity{}), Join: c})
	if err != nil {
		return w, explainCall(addr, err)
	}
	if w.Joined == nil {
		return w, fmt.Errorf("runtime: %s answers without saying what cluster it is", addr)
	}
	if w.Feature < membership.MinFeatureLevel {
		return w, refusal("upgrade the cluster first", "the node at %s is too old for this binary", addr)
	}
	return w, nil
}

// explainCall tells a refusal from silence.
func explainCall(addr string, err error) error {
	var refused *refusedError
	if errors.As(err, &refused) {
		return refusal("", "the cluster at %s refuses: %s", addr, refused.why)
	}
	return &UnreachableError{addr, err}
}

// admit is the member's side of Join. Without a join or a disk in it, hello only asks what the cluster is like.
func (r *Runtime) admit(ctx context.Context, h *hello, w *welcome) error {
	reply := cluster.AdminReply{}
	var err error
	switch {
	case h.Join != nil:
		reply, err = r.proposeCommand(ctx, h.Join)
	case h.DiskAdd != nil:
		reply, err = r.addForeignDisk(ctx, h)
		w.Disk = &reply
	}
	if err != nil {
		return err
	}
	return r.inspect(ctx, func(r *Runtime) {
		s := r.node.State()
		w.Joined = &joined{Node: reply.Node, Name: s.Name, Shelf: s.Shelf, SectorCount: s.SectorCount}
		for i := range s.Nodes {
			w.Joined.Members = append(w.Joined.Members, Peer{s.Nodes[i].ID, s.Nodes[i].Addr})
		}
		if !s.Initialised() {
			w.Err = "this node does not know its cluster yet: try again, or another member"
		}
	})
}

// addForeignDisk adds a disk of a node that is joining and so cannot propose by itself; the node's key says that it may.
func (r *Runtime) addForeignDisk(ctx context.Context, h *hello) (cluster.AdminReply, error) {
	known := false
	err := r.inspect(ctx, func(r *Runtime) {
		row := r.node.State().Node(h.DiskAdd.Node)
		known = row != nil && row.Key == h.Key && !row.Held
	})
	if err != nil {
		return cluster.AdminReply{}, err
	}
	if !known {
		return cluster.AdminReply{}, fmt.Errorf("node %d is not joining: add disks with 'clade disk add'", h.DiskAdd.Node)
	}
	return r.proposeCommand(ctx, h.DiskAdd)
}

// proposeCommand commits a command through this node.
func (r *Runtime) proposeCommand(ctx context.Context, b membership.Body) (cluster.AdminReply, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return cluster.AdminReply{}, fmt.Errorf("runtime: %s: %w", b.CommandType(), err)
	}
	reply, err := r.Admin(ctx, cluster.AdminRequest{Kind: "propose", Type: b.CommandType(), Body: body})
	if err == nil && reply.Err != "" {
		err = errors.New(reply.Err)
	}
	return reply, err
}

// diskLabel is how a disk is called for people: its path, as far as Raft takes it.
func diskLabel(path string) string {
	out := make([]byte, 0, len(path))
	for i := range len(path) {
		if c := path[i]; c > ' ' && c <= '~' && c != '"' && c != '\\' {
			out = append(out, c)
		}
	}
	return string(out[max(0, len(out)-membership.MaxAddrBytes):])
}
