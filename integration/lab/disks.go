package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"clade/cluster/runtime"
)

// DiskFault lets a node's disk (from 0) fail reads, writes or syncs; all false ends that. The lab must have been made with
// Spec.DiskFaults. A node that has seen its disk fail does not use it again before it is restarted.
func (l *Lab) DiskFault(ctx context.Context, node string, disk int, read, write, sync bool) error {
	body, err := json.Marshal(runtime.FaultRequest{Path: l.diskPath(node, disk), Read: read, Write: write, Sync: sync})
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", l.adminSocket(node))
		}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+runtime.PathFault, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("lab: %s: %w", node, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("lab: fault of disk %d of %s: %w", disk+1, node, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, errorBodyMax)) // it is for people
		return fmt.Errorf("lab: fault of disk %d of %s: %s: %s", disk+1, node, resp.Status, text)
	}
	return nil
}

// ballastName is the file that fills a node's file system.
const ballastName = "ballast"

// SmallFSNode returns the node whose files have a small file system of their own, or nothing.
func (l *Lab) SmallFSNode() string {
	if l.Spec.SmallFS == 0 {
		return ""
	}
	return l.Nodes[l.Spec.Nodes-1].Name
}

// mountSmall gives a node's directory a file system of Spec.SmallFS bytes, in memory, if it is the one to have it.
func (l *Lab) mountSmall(i int) error {
	if l.Nodes[i].Name != l.SmallFSNode() {
		return nil
	}
	dir := l.path(l.Nodes[i].Name)
	if err := unix.Mount("clade-lab", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", l.Spec.SmallFS)); err != nil {
		return fmt.Errorf("lab: mount a file system of %d bytes at %s: %w", l.Spec.SmallFS, dir, err)
	}
	return nil
}

// unmountSmall takes it away again, with all that is in it; one that is not there is fine.
func (l *Lab) unmountSmall(i int) error {
	if l.Nodes[i].Name != l.SmallFSNode() {
		return nil
	}
	dir := l.path(l.Nodes[i].Name)
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("lab: unmount %s: %w", dir, err)
	}
	return nil
}

// Fill fills the file system that holds everything a node keeps, its disks included, to the last byte; Unfill makes room again.
// It must be the SmallFSNode: nobody else's file system is ever filled.
func (l *Lab) Fill(node string) error {
	if node == "" || node != l.SmallFSNode() {
		return fmt.Errorf("lab %s: node %q has no file system of its own that can be filled", l.Spec.Name, node)
	}
	f, err := os.OpenFile(l.path(node, ballastName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("lab: fill %s: %w", node, err)
	}
	block := make([]byte, mib)
	for len(block) > 0 && err == nil {
		if _, err = f.Write(block); errors.Is(err, unix.ENOSPC) {
			block, err = block[:len(block)/2], nil // the last holes, too
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("lab: fill %s: %w", node, err)
	}
	return nil
}

// Unfill ends Fill.
func (l *Lab) Unfill(node string) error {
	if err := os.Remove(l.path(node, ballastName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}
