package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"clade/aoe/link"
	"clade/membership"
	"clade/raid"
	"clade/store"
)

// slotState is where a disk's path is on its way to being used.
type slotState uint8

const (
	slotProbing slotState = iota + 1 // its identity is being read
	slotAbsent                       // cannot be opened; tried again
	slotRefused                      // may not be used: Err says why
	slotWaiting                      // for the cluster to know it as this node's
	slotOpening                      // recovery runs
	slotOpen
	slotFailed // was open and has failed; not tried again before a restart
)

var slotNames = map[slotState]string{slotProbing: "probing", slotAbsent: "absent", slotRefused: "refused", slotWaiting: "waiting",
	slotOpening: "recovering", slotOpen: "open", slotFailed: "failed"}

const (
	probeAgainNs = int64(5 * time.Second)
	// probeMaxNs is how long the other disks wait for one that is being probed, lest a copy be taken for the disk itself.
	probeMaxNs = int64(5 * time.Second)
)

// diskSlot is one path of a disk. The core's goroutine owns it; probing and recovery run in goroutines of their own, which
// post what they found.
type diskSlot struct {
	path   string
	state  slotState
	err    string
	do     string // what to do about err
	nextNs int64  // when to try again
	probed int64  // when the last probe began
	dev    store.Device
	ident  store.Identity
	id     raid.DiskID
	gen    uint64
	worker *diskWorker

	released bool // it worked, and was let go of because the cluster said so
}

// slotProbed and slotOpened are what those goroutines post.
type slotProbed struct {
	slot  *diskSlot
	dev   store.Device
	ident store.Identity
	err   error
}
type slotOpened struct {
	slot *diskSlot
	disk *store.Disk
	err  error
}

// diskManager brings this node's disks into use and takes failed ones out. The core's goroutine owns it.
type diskManager struct {
	r      *Runtime
	bootID raid.BootID
	slots  []*diskSlot
	byID   map[raid.DiskID]*diskSlot
	batch  []*raid.DiskRequest
	bell   link.Source    // an eventfd that disks ring when a write has ended that they do by themselves; FD -1: none
	wg     sync.WaitGroup // probes, recoveries, workers and syncers
}

func newDiskManager(r *Runtime, bootID raid.BootID) *diskManager {
	m := &diskManager{r: r, bootID: bootID, byID: map[raid.DiskID]*diskSlot{}, bell: link.Source{FD: -1}}
	if p := r.poller.Load(); p.Watches() {
		if fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil { // else goroutines wait for disks
			m.bell.FD = fd
			p.Watch(&m.bell)
		}
	}
	return m
}

// collect takes what disks have done by themselves, if the bell has rung.
func (m *diskManager) collect() {
	if !m.bell.Readable {
		return
	}
	m.bell.Readable = false
	var count [8]byte
	_, _ = unix.Read(m.bell.FD, count[:]) // it only has to be silent again
	for _, s := range m.slots {
		if s.state == slotOpen {
			s.worker.collectNow(m.r.post)
		}
	}
}

// start probes all configured disks. Before the core runs.
func (m *diskManager) start() {
	var managed []string
	if err := loadJSON(filepath.Join(m.r.opt.Dir, disksFileName), &managed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.r.log.Error("the list of disks cannot be read; only those of the configuration are used", "err", err)
	}
	for _, path := range append(slices.Clone(m.r.cfg.Disks), managed...) {
		m.add(path)
	}
}

// add begins to use a path; one that is there already is probed again if it is not in use.
func (m *diskManager) add(path string) {
	for _, s := range m.slots {
		if s.path == path {
			if s.state == slotAbsent || s.state == slotRefused || s.state == slotFailed {
				m.probe(s)
			}
			return
		}
	}
	s := &diskSlot{path: path}
	m.slots = append(m.slots, s)
	m.probe(s)
}

// probe reads a disk's identity.
func (m *diskManager) probe(s *diskSlot) {
	s.state, s.err, s.do, s.id, s.probed, s.released = slotProbing, "", "", 0, bootNs(), false
	m.wg.Go(func() {
		out := slotProbed{slot: s}
		out.dev, out.err = m.r.openDevice(s.path)
		if out.err == nil {
			out.ident, out.err = store.ReadIdentity(out.dev)
		}
		if !m.r.inbox.put(out) && out.dev != nil {
			_ = out.dev.Close() // the node has stopped
		}
	})
}

// openDevice opens a disk's file with what labs and tests put around it.
func (r *Runtime) openDevice(path string) (store.Device, error) {
	dev, err := store.OpenFile(path)
	if err != nil {
		return nil, err
	}
	if r.opt.WrapDevice != nil {
		dev = r.opt.WrapDevice(path, dev)
	}
	if r.opt.FaultSocket {
		dev = r.fault(path, dev)
	}
	if r.opt.VolatileCache {
		dev = store.VolatileCache(dev)
	}
	return dev, nil
}

// probed judges what a probe has found.
func (m *diskManager) probed(x slotProbed) {
	s := x.slot
	s.dev, s.ident = x.dev, x.ident
	if x.err != nil {
		m.reject(s, x.err)
		return
	}
	if s.ident.Cluster != [16]byte(m.r.id.Cluster) {
		m.refuse(s, "to reuse it here, destroying what it holds: clade disk add --force", "it belongs to another cluster")
		return
	}
	for _, o := range m.slots {
		if o == s || o.ident.UUID != s.ident.UUID || o.state != slotWaiting && o.state != slotOpening && o.state != slotOpen {
			continue
		}
		const do = "remove the copy from the node's disks and restart the node; to use it as a disk of its own: clade disk add --force"
		m.refuse(s, do, "it is a copy of %s, or that one is of it: both carry the UUID %s", o.path, uuidString(s.ident.UUID))
		if o.state == slotWaiting { // nobody can tell which of the two is the disk
			m.refuse(o, do, "it is a copy of %s, or that one is of it: both carry the UUID %s", s.path, uuidString(s.ident.UUID))
		}
		return
	}
	s.state = slotWaiting
	m.follow(m.r.node.State())
}

// probing reports whether a probe is under way that the other disks wait for.
func (m *diskManager) probing() bool {
	now := bootNs()
	for _, s := range m.slots {
		if s.state == slotProbing && now-s.probed < probeMaxNs {
			return true
		}
	}
	return false
}

// reject takes a disk that could not be opened or read out of use.
func (m *diskManager) reject(s *diskSlot, err error) {
	m.closeDevice(s)
	s.state, s.err, s.nextNs = slotAbsent, err.Error(), bootNs()+probeAgainNs
	s.ident = store.Identity{}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.do = "connect the disk, or take its path out of disks.json in the data directory and start the node again"
	case errors.Is(err, os.ErrPermission):
		s.do = "give this user access to the device"
	default:
		s.do = "see the error; a disk whose contents are damaged can be added anew, empty: clade disk add --force"
	}
	m.r.log.Error("a disk cannot be used", "path", s.path, "err", err)
}

// refuse says that a disk must not be used.
func (m *diskManager) refuse(s *diskSlot, do, format string, args ...any) {
	m.closeDevice(s)
	s.state, s.err, s.do = slotRefused, fmt.Sprintf(format, args...), do
	m.r.log.Error("a disk must not be used", "path", s.path, "err", s.err)
}

func (m *diskManager) closeDevice(s *diskSlot) {
	if s.dev == nil {
		return
	}
	if err := s.dev.Close(); err != nil {
		m.r.log.Warn("a disk does not close", "path", s.path, "err", err)
	}
	s.dev = nil
}

// follow admits waiting disks when the applied state has changed, and lets go of those that are another node's now.
func (m *diskManager) follow(s *membership.State) {
	probing := m.probing()
	for _, x := range m.slots {
		switch x.state {
		case slotWaiting:
			if !probing {
				m.admit(s, x)
			}
		case slotOpen:
			row := s.Disk(x.id)
			if row == nil || row.Node != m.r.id.Node || row.AttachGen != x.gen || row.State == membership.DiskDetached {
				m.release(x, "the cluster says that it is no longer this node's")
			}
		case slotRefused:
			row := s.DiskUUID(membership.UUID(x.ident.UUID))
			if x.released && row != nil && row.Node == m.r.id.Node && row.State == membership.DiskOK {
				m.probe(x) // attached again
			}
		default:
		}
	}
}

// admit opens a disk that the cluster knows as this node's.
func (m *diskManager) admit(s *membership.State, x *diskSlot) {
	if !s.Initialised() {
		return
	}
	row := s.DiskUUID(membership.UUID(x.ident.UUID))
	switch {
	case row == nil:
		x.err, x.do = "the cluster does not know it", "format it: clade disk add --force "+x.path
		return
	case row.Node != m.r.id.Node:
		x.err = fmt.Sprintf("the cluster knows it as disk %d of node %s", row.ID, nodeName(s, row.Node))
		x.do = fmt.Sprintf("to move it to this node: clade disk attach %d", row.ID)
		return
	case row.State == membership.DiskDetached:
		x.err, x.do = "it is detached", fmt.Sprintf("to use it again: clade disk attach %d", row.ID)
		return
	case x.ident.AttachGen > row.AttachGen || x.ident.Disk != 0 && x.ident.Disk != row.ID:
		m.refuse(x, "see clade disk list; if the cluster was restored from a backup, add the disk anew: clade disk add --force",
			"it says that it is disk %d, generation %d; the cluster knows it as disk %d, generation %d", x.ident.Disk, x.ident.AttachGen, row.ID, row.AttachGen)
		return
	}
	x.id, x.gen, x.state, x.err, x.do = row.ID, row.AttachGen, slotOpening, "", ""
	want := x.ident
	want.Disk, want.AttachGen = row.ID, row.AttachGen
	changed := want != x.ident
	x.ident = want
	cfg := store.Config{Node: m.r.id.Node, BootID: m.bootID, CacheBytes: int(m.r.cfg.Cache.Disk), AttachGen: row.AttachGen}
	m.wg.Go(func() {
		out := slotOpened{slot: x}
		if changed { // it was added or attached, and could not be told yet
			out.err = store.SetIdentity(x.dev, want)
		}
		if out.err == nil {
			out.disk, out.err = store.Open(x.dev, cfg)
		}
		if !m.r.inbox.put(out) && out.err == nil {
			_ = out.disk.Close() // the node has stopped
		}
	})
}

// opened puts a recovered disk to work.
func (m *diskManager) opened(now int64, x slotOpened) {
	s := x.slot
	if x.err != nil {
		m.reject(s, x.err)
		s.nextNs = 0 // it would not recover the next time either
		s.state = slotRefused
		return
	}
	s.dev = nil // the disk's now
	s.state = slotOpen
	s.worker = newDiskWorker(s.id, s.path, x.disk, m.bell.FD, func(e diskEvent) { m.r.inbox.put(e) })
	s.worker.stats = m.r.stats.disk(strconv.FormatUint(uint64(s.id), 10))
	m.byID[s.id] = s
	vols := x.disk.Volumes()
	m.wg.Go(s.worker.run)
	m.wg.Go(s.worker.syncer)
	m.r.log.Info("a disk is in use", "disk", s.id, "path", s.path, "volumes", len(vols))
	m.r.node.DiskState(now, s.id, true, vols, "in use: "+s.path)
	if row := m.r.node.State().Disk(s.id); row != nil && row.State == membership.DiskFailed {
		m.report(s, membership.DiskOK)
	}
}

// release takes a disk out of use that works.
func (m *diskManager) release(s *diskSlot, why string) {
	delete(m.byID, s.id)
	m.r.node.DiskState(bootNs(), s.id, false, nil, why)
	m.r.again = true
	s.worker.stop()
	s.state, s.err, s.do, s.released = slotRefused, why, "see clade disk list", true
}

// event takes what a worker says.
func (m *diskManager) event(now int64, e diskEvent) {
	s := m.byID[e.worker.id]
	if s == nil || s.worker != e.worker {
		return // it was taken out of use
	}
	if len(e.replies) > 0 {
		m.r.node.DiskReplies(now, e.replies)
	}
	if e.failed == nil {
		return
	}
	delete(m.byID, s.id)
	s.state, s.err, s.do = slotFailed, e.failed.Error(), fmt.Sprintf("put an empty disk in its place: clade disk replace %d PATH; to try it once more, restart the node", s.id)
	m.r.log.Error("a disk has failed", "disk", s.id, "path", s.path, "err", e.failed)
	m.r.node.DiskState(now, s.id, false, nil, "failed: "+e.failed.Error())
	m.report(s, membership.DiskFailed)
}

// report lets the cluster know that a disk has failed or works again, so that new shards go where they are safe.
func (m *diskManager) report(s *diskSlot, state membership.DiskState) {
	r, c := m.r, &membership.DiskSetState{Disk: s.id, Gen: s.gen, State: state}
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
		defer cancel()
		if _, err := r.proposeCommand(ctx, c); err != nil && !errors.Is(err, errStopped) {
			r.log.Warn("the cluster was not told of a disk's state", "disk", c.Disk, "err", err)
		}
	})
}

// tick tries absent disks again, and admits what a slow probe has held up.
func (m *diskManager) tick(now int64) {
	for _, s := range m.slots {
		if s.state == slotAbsent && now >= s.nextNs {
			m.probe(s)
		}
	}
	m.follow(m.r.node.State())
}

// enqueue hands requests to the workers, keeping the order of each disk's.
func (m *diskManager) enqueue(reqs []*raid.DiskRequest) {
	for len(reqs) > 0 {
		id, rest := reqs[0].Disk, reqs[:0]
		m.batch = m.batch[:0]
		for _, q := range reqs {
			if q.Disk == id {
				m.batch = append(m.batch, q)
			} else {
				rest = append(rest, q)
			}
		}
		reqs = rest
		s := m.byID[id]
		if s == nil {
			continue
		}
		wait, begun := m.batch, false
		if !m.r.busy {
			wait, begun = s.worker.stepNow(wait, m.r.post)
		}
		m.r.woke = m.r.woke || begun || len(wait) > 0
		if len(wait) > 0 && !s.worker.enqueue(wait...) {
			m.overflow(s, wait)
		}
	}
}

// overflow breaks the streams whose requests found no room: the node hears of it, or the peers whose requests they were.
func (m *diskManager) overflow(s *diskSlot, reqs []*raid.DiskRequest) {
	m.r.log.Error("a disk's queue is full: its streams are broken and begin again", "disk", s.id, "queued", s.worker.depth())
	for _, q := range reqs {
		if c := m.r.conns[q.From]; c != nil {
			c.kill()
		}
	}
	now := bootNs()
	m.r.node.DiskState(now, s.id, false, nil, "its queue is full")
	m.r.node.DiskState(now, s.id, true, nil, "its queue is served again")
	m.r.again = true
}

// close stops all disks; the core has ended.
func (m *diskManager) close() {
	for _, s := range m.slots {
		if s.worker != nil {
			s.worker.stop()
		}
	}
	m.wg.Wait()
	for _, s := range m.slots {
		m.closeDevice(s)
	}
}

// closeBell is for when all disks are closed: nobody rings any more.
func (m *diskManager) closeBell() {
	if m.bell.FD >= 0 {
		_ = unix.Close(m.bell.FD)
		m.bell.FD = -1
	}
}

// LocalDisk is one of the node's paths of disks.
type LocalDisk struct {
	Path   string      `json:"path"`
	Disk   raid.DiskID `json:"disk,omitempty"`
	UUID   string      `json:"uuid,omitempty"`
	State  string      `json:"state"`
	Queued int         `json:"queued"`
	Err    string      `json:"err,omitempty"`
	Do     string      `json:"do,omitempty"`
}

func uuidString(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// list describes the disks. In the core's goroutine.
func (m *diskManager) list() []LocalDisk {
	out := make([]LocalDisk, 0, len(m.slots))
	for _, s := range m.slots {
		d := LocalDisk{Path: s.path, Disk: s.id, State: slotNames[s.state], Err: s.err, Do: s.do}
		if s.ident.UUID != [16]byte{} {
			d.UUID = uuidString(s.ident.UUID)
		}
		if s.state == slotOpen {
			d.Queued = s.worker.depth()
		}
		out = append(out, d)
	}
	return out
}

// metrics returns the disks' metrics. In the core's goroutine.
func (m *diskManager) metrics() []prometheus.Metric {
	var out []prometheus.Metric
	for _, s := range m.slots {
		if s.state != slotOpen {
			out = append(out, gauge("clade_disk_up", "1 for a disk in use.", 0, "disk", strconv.FormatUint(uint64(s.id), 10), "path", s.path))
			continue
		}
		id := strconv.FormatUint(uint64(s.id), 10)
		out = append(out, gauge("clade_disk_up", "1 for a disk in use.", 1, "disk", id, "path", s.path),
			gauge("clade_disk_queue", "Requests that wait for a disk.", float64(s.worker.depth()), "disk", id))
	}
	return out
}

// nodeName returns a node's name for people.
func nodeName(s *membership.State, id raid.NodeID) string {
	if n := s.Node(id); n != nil {
		return n.Name
	}
	return fmt.Sprintf("%d", id)
}
