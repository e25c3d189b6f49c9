package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const killMax = 10 * time.Second

// Down takes a lab away: processes, namespaces, files.
func (l *Lab) Down() error { return l.remove() }

// remove can be repeated after a failure, and works on what a killed Up has left.
func (l *Lab) remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for i := range l.Nodes {
		errs = append(errs, l.killAll(l.Nodes[i].Name))
	}
	for _, name := range l.namespaces() {
		errs = append(errs, removeNamespace(name))
	}
	for i := range l.Nodes {
		if err := l.unmountSmall(i); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.RemoveAll(l.path(l.Nodes[i].Name)); err != nil {
			errs = append(errs, fmt.Errorf("lab: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab %s is not down: try again: clade lab down --name %s: %w", l.Spec.Name, l.Spec.Name, err)
	}
	for _, name := range []string{stateFileName, stateFileName + ".new"} {
		if err := os.Remove(l.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("lab: %w", err)
		}
	}
	_ = os.Remove(l.Spec.Dir) // whoever keeps something else in it keeps it
	l.unclaim()
	return nil
}

// killAll kills all processes of a node and waits until they are gone. One may start another while we look: look again.
func (l *Lab) killAll(node string) error {
	deadline := time.Now().Add(killMax)
	for nobody := 0; nobody < 2; time.Sleep(lookEach) {
		ps, err := l.processesOf(node)
		if err != nil {
			return err
		}
		nobody++
		for _, p := range ps {
			nobody = 0
			if err := l.signal(node, p, unix.SIGKILL); err != nil {
				return err
			}
		}
		if nobody == 0 && time.Now().After(deadline) {
			return fmt.Errorf("lab: process %d of %s does not die", ps[0].Pid, node)
		}
	}
	return nil
}

// Sweep takes away what killed makers have left: labs that were never finished, and those that were to live no longer than
// their maker. It returns their names.
func Sweep() ([]string, error) {
	names, err := List()
	if err != nil {
		return nil, err
	}
	var swept []string
	var errs []error
	for _, name := range names {
		gone, err := sweepOne(name)
		if gone {
			swept = append(swept, name)
		}
		errs = append(errs, err)
	}
	return swept, errors.Join(errs...)
}

// sweepOne removes a lab if nobody holds its lock and it should not be alive then.
func sweepOne(name string) (bool, error) {
	f, err := os.OpenFile(registryPath(name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lab %s: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // only its lock matters
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil // its maker lives
	}
	if same, err := sameFile(f, registryPath(name)); err != nil || !same {
		return false, err // taken down, perhaps made anew, between the two calls
	}
	l, err := Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		// Killed before lab.json was written, or its directory was removed by hand: nothing but the entry is known.
		return true, os.Remove(registryPath(name))
	}
	if err != nil {
		return false, err
	}
	if l.Phase == phaseUp && !l.Spec.Held {
		return false, nil
	}
	return true, l.remove()
}

func sameFile(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("lab: %w", err)
	}
	b, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lab: %w", err)
	}
	return os.SameFile(a, b), nil
}

// leftOvers returns which of the lab's namespaces and directories still exist.
func (l *Lab) leftOvers() []string {
	var out []string
	for _, name := range l.namespaces() {
		if _, err := os.Lstat(filepath.Join(netnsDir, name)); err == nil {
			out = append(out, "namespace "+name)
		}
	}
	if _, err := os.Lstat(l.path(stateFileName)); err == nil {
		out = append(out, l.path(stateFileName))
	}
	for i := range l.Nodes {
		if ps, _ := l.processesOf(l.Nodes[i].Name); len(ps) > 0 {
			out = append(out, fmt.Sprintf("process %d of %s", ps[0].Pid, l.Nodes[i].Name))
		}
		if _, err := os.Lstat(l.path(l.Nodes[i].Name)); err == nil {
			out = append(out, l.path(l.Nodes[i].Name))
		}
	}
	return out
}
