package lab

import (
	"fmt"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// space is a network namespace with a netlink socket into it.
type space struct {
	name   string
	ns     netns.NsHandle
	handle *netlink.Handle
}

func openSpace(name string) (*space, error) {
	ns, err := netns.GetFromPath(filepath.Join(netnsDir, name))
	if err != nil {
		return nil, fmt.Errorf("lab: network namespace %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		_ = ns.Close() // only read
		return nil, fmt.Errorf("lab: netlink in %s: %w", name, err)
	}
	return &space{name, ns, h}, nil
}

func (s *space) close() {
	s.handle.Close()
	_ = s.ns.Close() // only read
}

// up brings an interface of the namespace up.
func (s *space) up(name string) error {
	link, err := s.handle.LinkByName(name)
	if err == nil {
		err = s.handle.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("lab: %s in %s: %w", name, s.name, err)
	}
	return nil
}

// buildNetwork makes all namespaces, switches and cables.
func (l *Lab) buildNetwork() error {
	for _, name := range l.namespaces() {
		if err := makeNamespace(name); err != nil {
			return err
		}
	}
	san, err := openSpace(l.SANNamespace())
	if err != nil {
		return err
	}
	defer san.close()
	cluster, err := openSpace(l.clusterNamespace())
	if err != nil {
		return err
	}
	defer cluster.close()
	for p := range l.Spec.SANPaths {
		if err := san.addBridge(sanBridge(p), l.Spec.MTU); err != nil {
			return err
		}
	}
	if err := cluster.addBridge(clusterBridge, 1500); err != nil {
		return err
	}
	if err := l.plugSAN(san, l.InitiatorNamespace(), "ini"); err != nil {
		return err
	}
	for i := range l.Nodes {
		if err := l.plugSAN(san, l.nodeNamespace(i), l.Nodes[i].Name); err != nil {
			return err
		}
		if err := l.plugCluster(cluster, i); err != nil {
			return err
		}
	}
	return nil
}

// addBridge makes a switch that forwards at once: no spanning tree, no multicast snooping.
func (s *space) addBridge(name string, mtu int) error {
	off := false
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, MulticastSnooping: &off}
	if err := s.handle.LinkAdd(b); err != nil {
		return fmt.Errorf("lab: bridge %s in %s: %w", name, s.name, err)
	}
	return s.up(name)
}

// plug lays a cable from a switch of s to an interface in another namespace.
func (s *space) plug(bridge, port string, far *space, nic string, mtu int) error {
	err := s.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MTU: mtu, TxQLen: 1000}, PeerName: nic, PeerNamespace: netlink.NsFd(far.ns), PeerMTU: uint32(mtu),
	})
	if err != nil {
		return fmt.Errorf("lab: cable %s of %s to %s of %s: %w", port, s.name, nic, far.name, err)
	}
	master, err := s.handle.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("lab: bridge %s in %s: %w", bridge, s.name, err)
	}
	link, err := s.handle.LinkByName(port)
	if err == nil {
		err = s.handle.LinkSetMaster(link, master)
	}
	if err != nil {
		return fmt.Errorf("lab: port %s of bridge %s: %w", port, bridge, err)
	}
	if err := s.up(port); err != nil {
		return err
	}
	return far.up(nic)
}

func (l *Lab) plugSAN(san *space, namespace, member string) error {
	far, err := openSpace(namespace)
	if err != nil {
		return err
	}
	defer far.close()
	if err := far.up("lo"); err != nil {
		return err
	}
	for p := range l.Spec.SANPaths {
		if err := san.plug(sanBridge(p), switchPort(member, p), far, sanNIC(p), l.Spec.MTU); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) plugCluster(cluster *space, i int) error {
	far, err := openSpace(l.nodeNamespace(i))
	if err != nil {
		return err
	}
	defer far.close()
	if err := cluster.plug(clusterBridge, switchPort(l.Nodes[i].Name, -1), far, clusterNIC, 1500); err != nil {
		return err
	}
	link, err := far.handle.LinkByName(clusterNIC)
	if err != nil {
		return fmt.Errorf("lab: %s in %s: %w", clusterNIC, far.name, err)
	}
	addr, err := netlink.ParseAddr(l.clusterIP(i) + "/24")
	if err == nil {
		err = far.handle.AddrAdd(link, addr)
	}
	if err != nil {
		return fmt.Errorf("lab: address of %s: %w", far.name, err)
	}
	return nil
}
