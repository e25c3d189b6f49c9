package lab

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"clade/aoe/initiator"
	"clade/aoe/link"
)

// Host is a set of initiators inside a lab.
type Host struct {
	*initiator.Host
	ports []link.Port
}

// OpenHost opens the initiators' interfaces, one per SAN path, in this process. The sockets stay in the lab's namespace; the
// process does not.
func (l *Lab) OpenHost() (*Host, error) {
	h := &Host{}
	err := inside(l.InitiatorNamespace(), func() error {
		for p := range l.Spec.SANPaths {
			port, err := link.Open(link.Config{Interface: sanNIC(p)})
			if err != nil {
				return err
			}
			h.ports = append(h.ports, port)
		}
		return nil
	})
	if err == nil {
		h.Host, err = initiator.NewHost(initiator.HostConfig{Ports: h.ports})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s: initiator: %w", l.Spec.Name, err), h.closePorts())
	}
	return h, nil
}

// Close ends all initiators of the host.
func (h *Host) Close() error {
	h.Host.Close()
	return h.closePorts()
}

func (h *Host) closePorts() error {
	var errs []error
	for _, p := range h.ports {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// allocated returns how much room a file takes, holes not counted.
func allocated(e os.DirEntry) int64 {
	info, err := e.Info()
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return 0
}
