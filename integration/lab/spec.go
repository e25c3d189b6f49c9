package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Bounds of a lab. They keep one machine alive, not the cluster.
const (
	nodesMax    = 32
	disksMax    = 16
	slotsMax    = 64
	sanPathsMax = 4
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Spec says what a lab is like. Zero fields have the documented defaults.
type Spec struct {
	Name          string `json:"name"`           // default "lab"
	Dir           string `json:"dir"`            // default DefaultDir(Name)
	Nodes         int    `json:"nodes"`          // storage nodes; default 3
	Witnesses     int    `json:"witnesses"`      // further nodes, without disks
	Disks         int    `json:"disks"`          // per storage node; default 1
	Layout        string `json:"layout"`         // "k+m"; default 2+1
	SizeBytes     uint64 `json:"size_bytes"`     // of each volume; default 1 GiB
	Slots         int    `json:"slots"`          // volumes, in slots 1..n; default 1, -1 for none
	MTU           int    `json:"mtu"`            // of the SAN; default 9000
	SANPaths      int    `json:"san_paths"`      // switches, and interfaces per node; default 1
	Shelf         uint16 `json:"shelf"`          // default 7
	VolatileCache bool   `json:"volatile_cache"` // disks lose unsynced bytes when their process dies
	DiskFaults    bool   `json:"disk_faults"`    // Lab.DiskFault works
	SmallFS       int64  `json:"small_fs"`       // bytes of a file system in memory for the last storage node's files; 0: none
	Binary        string `json:"binary"`         // the clade program; default: this one
	// Held makes a lab that lives no longer than the process that made it: the next Up or Down of any lab sweeps it away if
	// its maker was killed.
	Held bool `json:"held"`
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	layoutForm = regexp.MustCompile(`^([0-9]{1,2})\+([0-9]{1,2})$`)
)

// DefaultDir returns where a lab of this name keeps its files: below /var/lib, or in the directory for temporary files where
// that cannot be written.
func DefaultDir(name string) string {
	const root = "/var/lib/clade-lab"
	if err := os.MkdirAll(root, 0o755); err == nil {
		return filepath.Join(root, name)
	}
	return filepath.Join(os.TempDir(), "clade-lab", name)
}

// WithDefaults returns s with its zero fields filled in.
func (s Spec) WithDefaults() Spec {
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if s.Name == "" {
		s.Name = "lab"
	}
	if s.Dir == "" && nameForm.MatchString(s.Name) {
		s.Dir = DefaultDir(s.Name)
	}
	if s.Layout == "" {
		s.Layout = "2+1"
	}
	setInt(&s.Nodes, 3)
	setInt(&s.Disks, 1)
	setInt(&s.Slots, 1)
	setInt(&s.MTU, 9000)
	setInt(&s.SANPaths, 1)
	s.Slots = max(s.Slots, 0)
	if s.SizeBytes == 0 {
		s.SizeBytes = gib
	}
	if s.Shelf == 0 {
		s.Shelf = 7
	}
	return s
}

// Validate says what is wrong with a Spec that has its defaults.
func (s Spec) Validate() error {
	var errs []error
	bad := func(f string, a ...any) { errs = append(errs, fmt.Errorf(f, a...)) }
	within := func(what string, v, least, most int) {
		if v < least || v > most {
			bad("%s %d: choose %d to %d", what, v, least, most)
		}
	}
	if !nameForm.MatchString(s.Name) {
		bad("name %q: use up to 32 small letters, digits and dashes", s.Name)
	}
	within("--nodes", s.Nodes, 1, nodesMax)
	within("--witness", s.Witnesses, 0, nodesMax)
	within("--disks", s.Disks, 1, disksMax)
	within("--slots", s.Slots, 0, slotsMax)
	within("--san-paths", s.SANPaths, 1, sanPathsMax)
	within("--mtu", s.MTU, 576, 65535)
	k, m, err := s.shape()
	if err != nil {
		errs = append(errs, err)
	} else if k+m > s.Nodes {
		bad("--layout %s needs %d storage nodes, --nodes gives %d", s.Layout, k+m, s.Nodes)
	}
	if s.SizeBytes < mib || s.SizeBytes > 1<<44 {
		bad("--size %s: choose 1MiB to 16TiB", humanize.IBytes(s.SizeBytes))
	}
	// A unix socket's path is limited; the longest is that of an admin socket.
	if n := len(filepath.Join(s.Dir, "n32", "data", "admin.sock")); n > 100 {
		bad("--dir %s is too long by %d bytes for the sockets in it", s.Dir, n-100)
	}
	return errors.Join(errs...)
}

// shape returns k and m of the layout.
func (s Spec) shape() (k, m int, err error) {
	if !layoutForm.MatchString(s.Layout) {
		return 0, 0, fmt.Errorf("--layout %q: write k+m, as in 2+1", s.Layout)
	}
	if _, err := fmt.Sscanf(s.Layout, "%d+%d", &k, &m); err != nil || k < 1 {
		return 0, 0, fmt.Errorf("--layout %q: write k+m, as in 2+1", s.Layout)
	}
	return k, m, nil
}

// diskBytes returns how large each disk file is made: its share of all volumes with room for whole extents, the journal, and
// some to spare. The files are sparse, so room costs nothing.
func (s Spec) diskBytes() uint64 {
	k, m, err := s.shape()
	if err != nil {
		panic(fmt.Sprintf("lab: layout %q of a validated spec", s.Layout))
	}
	extents := (s.SizeBytes + gib - 1) / gib
	perVolume := extents * gib / uint64(k) * uint64(k+m)
	all := perVolume * uint64(max(s.Slots, 1))
	share := all / uint64(s.Nodes*s.Disks)
	return max(2*share, gib/uint64(k)*2) + 2*gib
}

// blankMax bounds the time in which the pages of new volumes are written, 8 KiB for each MiB of a shard, to a slow disk that all share.
func (s Spec) blankMax() time.Duration {
	const slowest = 50 << 20 // bytes a second
	k, m, err := s.shape()
	if err != nil {
		panic(fmt.Sprintf("lab: layout %q of a validated spec", s.Layout))
	}
	pages := s.SizeBytes / mib * 8192 / uint64(k) * uint64(k+m) * uint64(max(s.Slots, 0))
	return time.Duration(pages/slowest) * time.Second
}

// nodeNames returns the names of all nodes, witnesses last.
func (s Spec) nodeNames() []string {
	var out []string
	for i := range s.Nodes + s.Witnesses {
		out = append(out, fmt.Sprintf("n%d", i+1))
	}
	return out
}

// namespace returns the name of one of the lab's network namespaces.
func (s Spec) namespace(role string) string {
	return strings.Join([]string{"clade", s.Name, role}, "-")
}
