package link

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isLinkError reports whether err says that the interface is down or gone.
func isLinkError(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}
