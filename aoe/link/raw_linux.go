package link

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// isLinkError reports whether err says that the interface is down or gone.
func isLinkError(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

// inspector looks interfaces up in the network namespace in which it was made:
// the library's goroutines run on any thread.
type inspector struct{ fd int }

func newInspector() (inspector, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return inspector{}, fmt.Errorf("socket: %w", err)
	}
	return inspector{fd}, nil
}

func (i inspector) lookUp(ifindex int) (linkFacts, error) { return lookUp(i.fd, ifindex) }

func (i inspector) close() { _ = unix.Close(i.fd) }
