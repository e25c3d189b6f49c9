//go:build !linux

package link

import (
	"errors"
	"syscall"
)

// isLinkError reports whether err says that the interface is down or gone.
func isLinkError(err error) bool {
	return errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.ENXIO)
}
