package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store"
)

// deathSettles is how long a replacement waits for the cluster to notice that a node died.
const deathSettles = 5 * time.Second

// DiskAddRequest asks a node to take a disk.
type DiskAddRequest struct {
	Path      string `json:"path"`
	Force     bool   `json:"force"`                // destroy what the disk holds
	SizeBytes uint64 `json:"size_bytes,omitempty"` // make a file of that size if there is none
	Replace   uint32 `json:"replace,omitempty"`    // take the place of this disk, which is lost
}

// DiskAddReply says what became of it.
type DiskAddReply struct {
	Path        string `json:"path"`
	Disk        uint32 `json:"disk"`
	UUID        string `json:"uuid"`
	CapacityMiB uint64 `json:"capacity_mib"`
	Destroyed   string `json:"destroyed,omitempty"` // what the disk held before
}

// probe is a disk that may be formatted: opened, and looked at.
type probe struct {
	path  string
	dev   store.Device
	holds string // what formatting destroys; empty: nothing
}

// probeAll looks at disks before anything is changed anywhere. Without force, one that holds anything is refused.
func probeAll(paths []string, cluster membership.UUID, force bool) (out []*probe, err error) {
	defer func() {
		if err != nil {
			for _, p := range out {
				_ = p.dev.Close() // nothing was written
			}
		}
	}()
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			return out, refusal("list each disk once", "disk %s is listed twice", path)
		}
		p, err := probeDisk(path, cluster, force)
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	return out, nil
}

func probeDisk(path string, cluster membership.UUID, force bool) (*probe, error) {
	dev, err := store.OpenFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal("name a block device or a file; a file is made by giving its size as well", "disk %s does not exist", path)
	}
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	p := &probe{path: path, dev: dev}
	if p.holds, err = contents(dev, cluster); err == nil && p.holds != "" && !force {
		err = refusal("to destroy that, use --force", "disk %s holds %s", path, p.holds)
	}
	if err != nil {
		_ = dev.Close() // nothing was written
		return nil, err
	}
	return p, nil
}

// contents describes what a device holds; empty if it is blank.
func contents(dev store.Device, cluster membership.UUID) (string, error) {
	ident, err := store.ReadIdentity(dev)
	switch {
	case err == nil && ident.Cluster == [16]byte(cluster):
		return fmt.Sprintf("disk %d of this cluster (UUID %s)", ident.Disk, uuidString(ident.UUID)), nil
	case err == nil:
		return fmt.Sprintf("disk %d of another clade cluster (UUID %s)", ident.Disk, uuidString(ident.UUID)), nil
	}
	return store.Occupied(dev)
}

// MakeDiskFile makes a file of a size to serve as a disk; one that exists is left alone.
func MakeDiskFile(path string, sizeBytes uint64) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if sizeBytes > 1<<62 {
		return refusal("", "a disk of %d bytes is too large", sizeBytes)
	}
	return store.CreateFile(path, int64(sizeBytes))
}

// AddDisk formats a disk, attaches it to this node, and begins to use it.
func (r *Runtime) AddDisk(ctx context.Context, q DiskAddRequest) (DiskAddReply, error) {
	path := q.Path
	if !filepath.IsAbs(path) {
		return DiskAddReply{}, refusal("", "disk path %q is not absolute", path)
	}
	if q.SizeBytes > 0 {
		if err := MakeDiskFile(path, q.SizeBytes); err != nil {
			return DiskAddReply{}, err
		}
	}
	// A path that is already open would fail at its lock; that message would explain nothing.
	used := ""
	if err := r.inspect(ctx, func(r *Runtime) { used = r.disks.inUse(path) }); err != nil {
		return DiskAddReply{}, err
	}
	if used != "" {
		return DiskAddReply{}, refusal("", "disk %s is in use by this node: %s", path, used)
	}
	p, err := probeDisk(path, r.id.Cluster, q.Force)
	if err != nil {
		return DiskAddReply{}, err
	}
	var gen uint64
	if q.Replace != 0 {
		if gen, err = r.awaitReplaceable(ctx, raid.DiskID(q.Replace), path); err != nil {
			return DiskAddReply{}, errors.Join(err, p.dev.Close())
		}
	}
	reply, err := p.format(r.id, func(c *membership.DiskAdd) (cluster.AdminReply, error) {
		if q.Replace != 0 {
			return r.proposeCommand(ctx, &membership.DiskReplace{Disk: raid.DiskID(q.Replace), Gen: gen, Node: c.Node, UUID: c.UUID,
				CapacityMiB: c.CapacityMiB, Label: c.Label})
		}
		return r.proposeCommand(ctx, c)
	})
	if err != nil {
		return reply, err
	}
	if err := rememberDisk(r.opt.Dir, path); err != nil {
		return reply, err
	}
	if err := r.inspect(ctx, func(r *Runtime) { r.disks.add(path) }); err != nil {
		return reply, err
	}
	return reply, r.untilDiskSettles(ctx, path)
}

// awaitReplaceable asks replaceable until it agrees or refuses for good. Of a node that died just now the lease takes a moment to be
// revoked, and its disks to leave the in-sync sets: nobody shall have to call again for that.
func (r *Runtime) awaitReplaceable(ctx context.Context, d raid.DiskID, path string) (uint64, error) {
	settled := time.After(deathSettles)
	for {
		gen, soon, err := r.replaceable(ctx, d, path)
		if err == nil || !soon {
			return gen, err
		}
		select {
		case <-settled:
			return 0, err
		case <-ctx.Done():
			return 0, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// replaceable returns the attach generation of a disk that a new one may replace here, and with a refusal whether it may be none soon.
// It is asked before anything is destroyed; the cluster asks again.
func (r *Runtime) replaceable(ctx context.Context, d raid.DiskID, path string) (gen uint64, soon bool, err error) {
	ierr := r.inspect(ctx, func(r *Runtime) {
		s := r.node.State()
		row := s.Disk(d)
		if row == nil {
			err = refusal("see clade disk list", "there is no disk %d", d)
			return
		}
		gen = row.AttachGen
		if m := r.disks.byID[d]; m != nil {
			err = refusal("to let go of it: clade disk detach", "disk %d works: it is %s", d, m.path)
			return
		}
		if former := s.Node(row.Node); former != nil && former.ID != r.id.Node && former.Held && row.State == membership.DiskOK {
			err = refusal("replace the disk there, or let go of it: clade disk detach",
				"disk %d is node %q's, which lives", d, former.Name)
			soon = true
			return
		}
		for _, v := range s.Volumes {
			if m := v.Data.Member(d); m != nil && m.InSync {
				err = refusal("wait until clade status shows the volume degraded by its loss", "volume %q still counts disk %d as in sync, and %s would be empty", v.Name, d, path)
				soon = true
			}
		}
	})
	return gen, soon && ierr == nil, errors.Join(ierr, err)
}

// untilDiskSettles waits until a disk that was added is in use, or will not be.
func (r *Runtime) untilDiskSettles(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	why := ""
	err := r.until(ctx, func(r *Runtime) bool {
		for _, s := range r.disks.slots {
			if s.path == path {
				why = s.err
				return s.state == slotOpen || s.state == slotRefused || s.state == slotFailed || s.state == slotAbsent
			}
		}
		return true
	})
	if err == nil && why != "" {
		err = fmt.Errorf("disk %s was added but cannot be used: %s", path, why)
	}
	return err
}

// rememberDisk adds a path to the list that Start reads.
func rememberDisk(dir, path string) error {
	file := filepath.Join(dir, disksFileName)
	var paths []string
	if err := loadJSON(file, &paths); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if slices.Contains(paths, path) {
		return nil
	}
	return saveJSON(file, append(paths, path))
}

// inUse says how a path is used, or nothing. In the core's goroutine.
func (m *diskManager) inUse(path string) string {
	for _, s := range m.slots {
		if s.path == path && (s.state == slotOpen || s.state == slotOpening || s.state == slotProbing) {
			return fmt.Sprintf("disk %d, %s", s.id, slotNames[s.state])
		}
		if s.path == path && s.dev != nil { // waiting: it lets go of it
			m.closeDevice(s)
			s.state = slotAbsent
		}
	}
	return ""
}

// format makes the probed device a disk of node id: it is formatted, the cluster gives it a number, and the disk is told. It
// closes the device.
func (p *probe) format(id Identity, add func(*membership.DiskAdd) (cluster.AdminReply, error)) (DiskAddReply, error) {
	uuid := newUUID()
	out := DiskAddReply{Path: p.path, UUID: uuidString(uuid), Destroyed: p.holds}
	err := p.write(id, uuid, &out, add)
	if cerr := p.dev.Close(); err == nil {
		err = cerr
	}
	if err != nil && out.Disk != 0 {
		err = fmt.Errorf("%w; the cluster knows it as disk %d already: clade disk remove %d", err, out.Disk, out.Disk)
	}
	if err != nil {
		return out, fmt.Errorf("disk %s: %w", p.path, err)
	}
	return out, nil
}

func (p *probe) write(id Identity, uuid membership.UUID, out *DiskAddReply, add func(*membership.DiskAdd) (cluster.AdminReply, error)) error {
	ident := store.Identity{Cluster: id.Cluster, UUID: uuid}
	if err := store.Format(p.dev, ident, store.FormatOptions{Force: p.holds != ""}); err != nil {
		return err
	}
	var err error
	if out.CapacityMiB, err = store.CapacityMiB(p.dev); err != nil {
		return err
	}
	reply, err := add(&membership.DiskAdd{Node: id.Node, UUID: uuid, CapacityMiB: out.CapacityMiB, Label: diskLabel(p.path)})
	if err != nil {
		return err
	}
	out.Disk, ident.Disk, ident.AttachGen = uint32(reply.Disk), reply.Disk, reply.Gen
	return store.SetIdentity(p.dev, ident)
}
