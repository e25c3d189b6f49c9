package runtime

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clade/membership"
	"clade/raid"
)

// ErrLocked says that another process holds the lock on the state file: the node is running.
var ErrLocked = errors.New("another process holds the lock: this node is running already")

// stateFileName is the file that proves the death of a term (A.2 Proof of death).
const stateFileName = "state"

// stateMax bounds what is read of a state file.
const stateMax = 4096

// stateRecord is what the state file holds: which term the last process that held the lock had got, and on which kernel and
// in which file it wrote so. A copy of the file fits neither another kernel nor another inode (B: C30).
type stateRecord struct {
	Version int             `json:"version"`
	Cluster membership.UUID `json:"cluster"`
	Node    raid.NodeID     `json:"node"`
	Term    raid.Term       `json:"term"`
	BootID  string          `json:"boot_id"` // hex
	Dev     uint64          `json:"dev"`
	Inode   uint64          `json:"inode"`
}

// stateFile is the open and locked state file. The lock belongs to this open file: it ends when the process does, whatever
// ends it. O_CLOEXEC keeps it from children.
type stateFile struct {
	f      *os.File
	bootID raid.BootID
	self   stateRecord // what this process writes, without the term
	found  *stateRecord
}

// lockWaitNs is how long a starting process waits for the lock: a former one that was killed lets go of it only when the kernel
// has ended it, and its guardian holds it while it proves the death.
const lockWaitNs = 3e9

// awaitState is openState with patience.
func awaitState(dir string, bootID raid.BootID, waitNs int64) (*stateFile, error) {
	deadline := bootNs() + waitNs
	s, err := openState(dir, bootID)
	for errors.Is(err, ErrLocked) && bootNs() < deadline {
		time.Sleep(time.Millisecond)
		s, err = openState(dir, bootID)
	}
	return s, err
}

// openState opens and locks the state file in dir, or makes it. Anyone else who holds the lock is ErrLocked.
func openState(dir string, bootID raid.BootID) (*stateFile, error) {
	path := filepath.Join(dir, stateFileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("runtime: state file: %w", err)
	}
	s := &stateFile{f: f, bootID: bootID}
	if err := s.lockAndRead(); err != nil {
		_ = f.Close() // the first error says more
		return nil, fmt.Errorf("runtime: state file %s: %w", path, err)
	}
	return s, nil
}

func (s *stateFile) lockAndRead() error {
	if err := unix.Flock(int(s.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return fmt.Errorf("flock: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.f.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	s.self = stateRecord{Version: 1, BootID: hex.EncodeToString(s.bootID[:]), Dev: st.Dev, Inode: st.Ino}
	raw, err := io.ReadAll(io.LimitReader(s.f, stateMax))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	var r stateRecord
	// A torn or foreign file proves nothing, and that is all that follows: the node gets its former term revoked.
	if json.Unmarshal(raw, &r) == nil && r.Version == 1 {
		s.found = &r
	}
	return nil
}

// proof returns the term whose death the lock in hand proves, 0 if it proves none: what the former holder wrote must be from
// this kernel, this very file, a local file system, and this node of this cluster.
func (s *stateFile) proof(cluster membership.UUID, node raid.NodeID) raid.Term {
	r := s.found
	if r == nil || r.Cluster != cluster || r.Node != node {
		return 0
	}
	if mutated("C30") {
		return r.Term
	}
	if r.BootID != s.self.BootID || r.Dev != s.self.Dev || r.Inode != s.self.Inode || !localFileSystem(int(s.f.Fd())) {
		return 0
	}
	return r.Term
}

// write makes a term durable in the file, before its first heartbeat.
func (s *stateFile) write(cluster membership.UUID, node raid.NodeID, term raid.Term) error {
	r := s.self
	r.Cluster, r.Node, r.Term = cluster, node, term
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("runtime: state file: %w", err)
	}
	// Replacing the file would lose the lock and the inode, so it is written in place: padded to one length, so that a torn
	// write leaves no JSON, or all of it.
	line := string(raw)
	if pad := 511 - len(line); pad > 0 {
		line += strings.Repeat(" ", pad)
	}
	if _, err := s.f.WriteAt([]byte(line+"\n"), 0); err != nil {
		return fmt.Errorf("runtime: state file: %w", err)
	}
	if err := s.f.Sync(); err != nil {
		return fmt.Errorf("runtime: state file: sync: %w", err)
	}
	s.found = &r
	return nil
}

// Close releases the lock.
func (s *stateFile) Close() error {
	if err := s.f.Close(); err != nil {
		return fmt.Errorf("runtime: state file: %w", err)
	}
	return nil
}

// localFileSystem reports whether flock on fd is the business of this kernel alone. Only what is known to be local counts.
func localFileSystem(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch st.Type & 0xFFFFFFFF {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC & 0xFFFFFFFF, unix.TMPFS_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC & 0xFFFFFFFF, unix.RAMFS_MAGIC, zfsSuperMagic, bcachefsSuperMagic:
		return true
	}
	return false
}

// Magics that golang.org/x/sys does not name.
const (
	zfsSuperMagic      = 0x2FC12FC1
	bcachefsSuperMagic = 0xCA451A4E
)
