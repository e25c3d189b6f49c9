package lab

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// registryDir lists the labs of this machine by name, so that a name means one lab whatever its directory is. It is on a file
// system that a reboot empties, as it does the namespaces.
const registryDir = "/run/clade-lab"

const stateFileName = "lab.json"

// Phases of a lab.
const (
	phaseMaking = "making" // its maker is at work, or was killed over it
	phaseUp     = "up"
)

// Lab is a lab of this machine. Its methods may be called by one goroutine at a time, if not said otherwise.
type Lab struct {
	Spec  Spec     `json:"spec"`
	Phase string   `json:"phase"`
	Mark  string   `json:"mark"` // in the environment of all its processes
	Nodes []Member `json:"nodes"`

	mu   sync.Mutex // guards Nodes' processes and lab.json
	lock *os.File   // held while the lab is made, and for as long as it lives if Spec.Held
}

// Member is one node of a lab.
type Member struct {
	Name    string `json:"name"`
	Witness bool   `json:"witness,omitempty"`
	Host    int    `json:"host"` // the last part of its address on the cluster network
	// Process is the last `clade serve` started for it: the guardian.
	Process Process `json:"process"`
}

// ErrNoLab says that there is no lab of that name.
var ErrNoLab = errors.New("no such lab")

// ErrExists says that there is one already.
var ErrExists = errors.New("a lab of this name exists")

func (l *Lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.Spec.Dir}, parts...)...)
}

func registryPath(name string) string { return filepath.Join(registryDir, name) }

// save writes lab.json so that a crash leaves the old or the new one.
func (l *Lab) save() error {
	raw, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("lab %s: %w", l.Spec.Name, err)
	}
	file := l.path(stateFileName)
	if err := os.WriteFile(file+".new", append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("lab %s: %w", l.Spec.Name, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("lab %s: %w", l.Spec.Name, err)
	}
	return nil
}

// claim makes the lab's directory and its entry in the registry, which holds the directory's path and is locked.
func claim(spec Spec) (*Lab, error) {
	l := &Lab{Spec: spec, Phase: phaseMaking}
	mark := make([]byte, 12)
	if _, err := rand.Read(mark); err != nil {
		return nil, fmt.Errorf("lab: no random numbers: %w", err)
	}
	l.Mark = hex.EncodeToString(mark)
	for i, name := range spec.nodeNames() {
		l.Nodes = append(l.Nodes, Member{Name: name, Witness: i >= spec.Nodes, Host: i + 1})
	}
	if err := os.MkdirAll(registryDir, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	f, err := os.OpenFile(registryPath(spec.Name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("lab %s: %w: take it down first (clade lab down --name %s), or choose another --name", spec.Name, ErrExists, spec.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", spec.Name, err)
	}
	l.lock = f
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		// A sweep may have taken the new entry, still empty and not locked, for a dead one.
		var same bool
		if same, err = sameFile(f, registryPath(spec.Name)); err == nil && !same {
			l.release()
			return claim(spec)
		}
	}
	if err == nil {
		_, err = f.WriteString(spec.Dir)
	}
	if err == nil {
		err = l.makeDir()
	}
	if err != nil {
		l.unclaim()
		return nil, fmt.Errorf("lab %s: %w", spec.Name, err)
	}
	return l, nil
}

// makeDir makes the lab's directory. One that holds anything else than a former lab's is refused: Down removes it.
func (l *Lab) makeDir() error {
	entries, err := os.ReadDir(l.Spec.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == stateFileName }) {
		// The machine was restarted: the registry forgot the lab, the files stayed.
		if entries, err = clearDir(l.Spec); err != nil {
			return err
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("directory %s is not empty: choose another --dir, or remove what is in it", l.Spec.Dir)
	}
	if err := os.MkdirAll(l.Spec.Dir, 0o755); err != nil {
		return err
	}
	return l.save()
}

// clearDir removes the files of a lab that nothing else is left of, and returns what stays.
func clearDir(spec Spec) ([]fs.DirEntry, error) {
	old, err := readState(spec.Dir)
	if err != nil {
		return nil, err
	}
	for i := range old.Nodes {
		if !nameForm.MatchString(old.Nodes[i].Name) {
			return nil, fmt.Errorf("%s names a node %q", filepath.Join(spec.Dir, stateFileName), old.Nodes[i].Name)
		}
		if err := os.RemoveAll(filepath.Join(spec.Dir, old.Nodes[i].Name)); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(filepath.Join(spec.Dir, stateFileName)); err != nil {
		return nil, err
	}
	return os.ReadDir(spec.Dir)
}

// readState reads a lab.json.
func readState(dir string) (*Lab, error) {
	file := filepath.Join(dir, stateFileName)
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	l := &Lab{}
	if err := json.Unmarshal(raw, l); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

// unclaim takes the entry out of the registry and lets go of its lock.
func (l *Lab) unclaim() {
	_ = os.Remove(registryPath(l.Spec.Name)) // gone already: fine
	l.release()
}

// release lets go of the lock: the lab now lives by itself.
func (l *Lab) release() {
	if l.lock != nil {
		_ = l.lock.Close() // nothing is written to it any more
		l.lock = nil
	}
}

// Open returns an existing lab.
func Open(name string) (*Lab, error) {
	dir, err := os.ReadFile(registryPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s: %w; see: clade lab status", name, ErrNoLab)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	l, err := readState(string(dir))
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	if l.Spec.Name != name {
		return nil, fmt.Errorf("lab %s: %s is of lab %s", name, dir, l.Spec.Name)
	}
	return l, nil
}

// List returns the names of all labs of this machine.
func List() ([]string, error) {
	entries, err := os.ReadDir(registryDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var out []string
	for _, e := range entries {
		if nameForm.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	sort.Strings(out)
	return out, nil
}

// index returns the place of a node.
func (l *Lab) index(node string) (int, error) {
	var names []string
	for i := range l.Nodes {
		if l.Nodes[i].Name == node {
			return i, nil
		}
		names = append(names, l.Nodes[i].Name)
	}
	return 0, fmt.Errorf("lab %s has no node %q: it has %s", l.Spec.Name, node, strings.Join(names, ", "))
}
