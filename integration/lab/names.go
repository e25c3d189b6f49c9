package lab

import "fmt"

// Names inside a lab's namespaces. They need not differ between labs: no interface of a lab is ever outside of them.
const (
	clusterNIC    = "cl0"   // a node's interface to the cluster network
	clusterBridge = "brcl0" // that network's switch
	clusterPort   = 7770
)

// sanNIC returns the name of a node's or the initiators' interface to a SAN path.
func sanNIC(path int) string { return fmt.Sprintf("san%d", path) }

// sanBridge returns the name of the switch of a SAN path.
func sanBridge(path int) string { return fmt.Sprintf("brsan%d", path) }

// switchPort returns the name of the switch's end of a cable to a member ("n1", "ini") on a SAN path or, with -1, on the cluster
// network.
func switchPort(member string, path int) string {
	if path < 0 {
		return member + "c"
	}
	return fmt.Sprintf("%ss%d", member, path)
}

// clusterIP returns the address of the i-th node (from 0) on the cluster network.
func (l *Lab) clusterIP(i int) string { return fmt.Sprintf("10.77.0.%d", l.Nodes[i].Host) }

// clusterAddr returns where the i-th node listens for its peers.
func (l *Lab) clusterAddr(i int) string { return fmt.Sprintf("%s:%d", l.clusterIP(i), clusterPort) }

// SANBridge returns the name of the switch of a SAN path, from 0.
func (l *Lab) SANBridge(path int) string { return sanBridge(path) }
