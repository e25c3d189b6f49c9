package link

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
)

// Resolve finds the interface that spec means: a name, a MAC address, or an IP
// prefix in which the interface has an address (see Config.Interface). It looks
// at the network namespace of the calling thread. If several interfaces match
// a MAC address or a prefix, that is an error: serving on the wrong network
// would not be noticed.
func Resolve(spec string) (*net.Interface, error) {
	if mac, err := net.ParseMAC(spec); err == nil && len(mac) == 6 {
		return onlyInterface(spec, func(ifi *net.Interface) bool {
			return bytes.Equal(ifi.HardwareAddr, mac)
		})
	}
	if prefix, err := netip.ParsePrefix(spec); err == nil {
		return onlyInterface(spec, func(ifi *net.Interface) bool { return hasAddress(ifi, prefix) })
	}
	ifi, err := net.InterfaceByName(spec)
	if err != nil {
		return nil, fmt.Errorf("link: %s: %w: %w", spec, ErrGone, err)
	}
	return ifi, nil
}

// onlyInterface returns the one interface that matches.
func onlyInterface(spec string, match func(*net.Interface) bool) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("link: %s: list interfaces: %w", spec, err)
	}
	var found *net.Interface
	for i := range all {
		if !match(&all[i]) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("link: %s: both %s and %s match", spec, found.Name, all[i].Name)
		}
		found = &all[i]
	}
	if found == nil {
		return nil, fmt.Errorf("link: %s: %w: no interface matches", spec, ErrGone)
	}
	return found, nil
}

// hasAddress reports whether ifi has an address in prefix. An interface that
// vanishes meanwhile has none.
func hasAddress(ifi *net.Interface, prefix netip.Prefix) bool {
	addrs, err := ifi.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(ipnet.IP); ok && prefix.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}
