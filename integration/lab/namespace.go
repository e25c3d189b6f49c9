package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// inside runs do on a thread that is in a network namespace. Sockets that do opens and processes that it starts stay there.
// The thread is brought back afterwards, or ends.
func inside(namespace string, do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // without an unlock, the thread ends with the goroutine
		home, err := netns.Get()
		if err != nil {
			result <- fmt.Errorf("lab: this thread's network namespace: %w", err)
			return
		}
		defer home.Close() //nolint:errcheck // only read
		ns, err := netns.GetFromPath(filepath.Join(netnsDir, namespace))
		if err != nil {
			result <- fmt.Errorf("lab: network namespace %s: %w", namespace, err)
			return
		}
		defer ns.Close() //nolint:errcheck // only read
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("lab: enter network namespace %s: %w", namespace, err)
			return
		}
		err = do()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// makeNamespace makes a named network namespace, as `ip netns add` does.
func makeNamespace(name string) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close() //nolint:errcheck // only read
		ns, err := netns.NewNamed(name)
		if err == nil {
			_ = ns.Close() // its mount keeps it
		}
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("lab: make network namespace %s: %w", name, err)
	}
	return nil
}

// removeNamespace removes a named network namespace with all its interfaces; one that is not there is fine. The mount may be
// gone while the file is still there, if the maker was killed in between.
func removeNamespace(name string) error {
	path := filepath.Join(netnsDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("lab: unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// namespaces returns the names of all namespaces of the lab.
func (l *Lab) namespaces() []string {
	out := []string{l.SANNamespace(), l.clusterNamespace(), l.InitiatorNamespace()}
	for i := range l.Nodes {
		out = append(out, l.nodeNamespace(i))
	}
	return out
}

// SANNamespace returns the namespace that holds the SAN's switches.
func (l *Lab) SANNamespace() string { return l.Spec.namespace("san") }

// InitiatorNamespace returns the namespace for initiators.
func (l *Lab) InitiatorNamespace() string { return l.Spec.namespace("ini") }

func (l *Lab) clusterNamespace() string { return l.Spec.namespace("net") }

func (l *Lab) nodeNamespace(i int) string { return l.Spec.namespace(l.Nodes[i].Name) }
