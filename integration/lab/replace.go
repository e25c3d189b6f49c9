package lab

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	"clade/cluster"
)

// Replace lets a node's machine be lost with all its disks and puts a new one in its place, as docs/operations.md says: another
// name and address, empty disks that take over the lost ones' shards. The lost node is removed from the cluster; it returns the
// new one's name. The disks are not filled yet: AwaitHealthy waits for that.
func (l *Lab) Replace(ctx context.Context, node string) (string, error) {
	i, err := l.index(node)
	if err != nil {
		return "", err
	}
	if len(l.Nodes) < 2 {
		return "", fmt.Errorf("lab: %s is the only node: nobody has its data", node)
	}
	if err := l.endAtOnce([]int{i}); err != nil {
		return "", err
	}
	var disks []cluster.DiskStatus
	err = Await(ctx, l, "the end of "+node, func(s *NodeStatus) bool {
		disks = s.Disks
		return slices.ContainsFunc(s.Nodes, func(n cluster.NodeStatus) bool { return n.Name == node && n.State == "down" })
	})
	if err != nil {
		return "", err
	}
	if err := l.newMachine(i); err != nil {
		return "", err
	}
	name, peer := l.Nodes[i].Name, (i+1)%len(l.Nodes)
	join := append([]string{"join", l.clusterAddr(peer)}, l.memberFlags(i, nil)...)
	if _, err := l.Run(ctx, i, join); err != nil {
		return "", err
	}
	if err := l.Serve(i); err != nil {
		return "", err
	}
	if err := l.awaitUp(ctx, i); err != nil {
		return "", err
	}
	number := 0
	for _, d := range disks {
		if d.NodeName != node {
			continue
		}
		args := append([]string{"disk", "replace", strconv.Itoa(int(d.ID)), l.diskPath(name, number)}, l.via(name)...)
		if _, err := l.Run(ctx, i, args); err != nil {
			return "", err
		}
		number++
	}
	_, err = l.Run(ctx, peer, append([]string{"node", "remove", "--yes", node}, l.via(l.Nodes[peer].Name)...))
	return name, err
}

// newMachine makes the i-th member a new machine on new cables, with new disks; the old one's files and namespace go.
func (l *Lab) newMachine(i int) error {
	old, oldSpace := l.Nodes[i], l.nodeNamespace(i)
	if err := removeNamespace(oldSpace); err != nil { // its cables go with it
		return err
	}
	if err := os.RemoveAll(l.path(old.Name)); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	host := 1 + slices.MaxFunc(l.Nodes, func(a, b Member) int { return a.Host - b.Host }).Host
	l.mu.Lock()
	l.Nodes[i] = Member{Name: fmt.Sprintf("n%d", host), Witness: old.Witness, Host: host}
	err := l.save()
	l.mu.Unlock()
	if err == nil {
		err = makeNamespace(l.nodeNamespace(i))
	}
	if err != nil {
		return err
	}
	san, err := openSpace(l.SANNamespace())
	if err != nil {
		return err
	}
	defer san.close()
	net, err := openSpace(l.clusterNamespace())
	if err != nil {
		return err
	}
	defer net.close()
	if err := l.plugSAN(san, l.nodeNamespace(i), l.Nodes[i].Name); err != nil {
		return err
	}
	if err := l.plugCluster(net, i); err != nil {
		return err
	}
	return l.makeFiles(i)
}
