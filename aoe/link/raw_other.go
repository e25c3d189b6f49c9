//go:build !linux

package link

import (
	"errors"
	"net"
	"syscall"
)

// isLinkError reports whether err says that the interface is down or gone.
func isLinkError(err error) bool {
	return errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.ENXIO)
}

// inspector looks interfaces up.
type inspector struct{}

func newInspector() (inspector, error) { return inspector{}, nil }

func (inspector) lookUp(ifindex int) (linkFacts, error) {
	ifi, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return linkFacts{}, err
	}
	up := ifi.Flags&net.FlagUp != 0
	return linkFacts{name: ifi.Name, mtu: ifi.MTU, up: up, lower: up && ifi.Flags&net.FlagRunning != 0}, nil
}

func (inspector) close() {}
