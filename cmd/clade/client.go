package main

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
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clade/cluster"
	"clade/cluster/runtime"
	"clade/membership"
)

// defaultDir is where a node's data is unless --dir says otherwise.
const defaultDir = "/var/lib/clade"

// target says which node a command talks to, and how it prints.
type target struct {
	dir  string
	addr string // host:port of a node's admin.tcp
	json bool
}

// addFlags gives a command the flags of a target.
func (t *target) addFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&t.dir, "dir", envOr("CLADE_DIR", defaultDir), "data directory of the node on this host to talk to (also CLADE_DIR)")
	f.StringVar(&t.addr, "api", os.Getenv("CLADE_API"), "talk to the admin.tcp address of a node instead, host:port (also CLADE_API)")
	f.BoolVar(&t.json, "json", false, "print the result as JSON")
}

func envOr(key, otherwise string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return otherwise
}

// client returns the HTTP client of the node and its base URL.
func (t *target) client() (*http.Client, string) {
	if t.addr != "" {
		return &http.Client{}, "http://" + t.addr
	}
	socket := filepath.Join(t.dir, "admin.sock")
	if c, err := runtime.LoadConfig(t.dir); err == nil {
		socket = runtime.SocketPath(t.dir, c)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}, "http://node"
}

// call asks the node one thing. What the node refuses has exit code 4, a node that does not answer 3.
func (t *target) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	client, base := t.client()
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return failure(exitUsage, "Write --api host:port.", "%w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return t.unreachable(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end, or is of no use
	if resp.StatusCode != http.StatusOK {
		return apiError(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return failure(exitFailed, "Are both ends of the same version? See: clade version", "answer of the node: %w", err)
	}
	return nil
}

func (t *target) unreachable(err error) error {
	if t.addr != "" {
		return failure(exitUnreachable, "Does a node serve its admin API there? See admin.tcp in its config.toml.", "no answer from %s: %w", t.addr, err)
	}
	if errors.Is(err, os.ErrPermission) {
		return failure(exitUnreachable, "Run this as the user that runs the node, or with sudo.", "no access to the node in %s: %w", t.dir, err)
	}
	return failure(exitUnreachable, "Is it running? Start it: clade serve --dir "+t.dir+"\nIs it another directory? Use --dir, or --api host:port.", "the node in %s does not answer", t.dir)
}

func apiError(resp *http.Response) error {
	var e runtime.APIError
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e); err != nil || e.Err == "" {
		return failure(exitFailed, "", "the node answers %s", resp.Status)
	}
	code := exitFailed
	switch {
	case e.Refused:
		code = exitRefused
	case resp.StatusCode == http.StatusServiceUnavailable:
		code = exitUnreachable
	}
	return failure(code, "", "%s", e.Err)
}

// status asks the node for the cluster's status.
func (t *target) status(ctx context.Context) (*runtime.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s := &runtime.Status{}
	return s, t.call(ctx, http.MethodGet, runtime.PathStatus, nil, s)
}

// request puts a request to the cluster.
func (t *target) request(ctx context.Context, q cluster.AdminRequest) (*cluster.AdminReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	reply := &cluster.AdminReply{}
	return reply, t.call(ctx, http.MethodPost, runtime.PathRequest, q, reply)
}

// propose commits a command.
func (t *target) propose(ctx context.Context, b membership.Body) (*cluster.AdminReply, error) {
	raw, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	return t.request(ctx, cluster.AdminRequest{Kind: "propose", Type: b.CommandType(), Body: raw})
}

// print writes v as JSON, or what text writes.
func (t *target) print(cmd *cobra.Command, v any, text func(w io.Writer)) error {
	w := cmd.OutOrStdout()
	if !t.json {
		text(w)
		return nil
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// findNode finds a node by name or number.
func findNode(s *runtime.Status, arg string) (*cluster.NodeStatus, error) {
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Name == arg || fmt.Sprint(n.ID) == arg {
			return n, nil
		}
	}
	names := make([]string, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		names = append(names, n.Name)
	}
	return nil, failure(exitRefused, "The nodes are: "+strings.Join(names, ", "), "there is no node %q", arg)
}

// findVolume finds a volume by address, name or slot number.
func findVolume(s *runtime.Status, arg string) (*cluster.VolumeStatus, error) {
	var known []string
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if v.Address == arg || v.Name == arg || fmt.Sprint(v.Slot) == arg {
			return v, nil
		}
		known = append(known, v.Address)
	}
	next := "There is no volume yet. Make one: clade volume create --help"
	if len(known) > 0 {
		next = "The volumes are: " + strings.Join(known, ", ")
	}
	return nil, failure(exitRefused, next, "there is no volume %q", arg)
}

// findDisk finds a disk by number, UUID or the path it was added under.
func findDisk(s *runtime.Status, arg string) (*cluster.DiskStatus, error) {
	for i := range s.Disks {
		if d := &s.Disks[i]; fmt.Sprint(d.ID) == arg || d.UUID == arg {
			return d, nil
		}
	}
	return nil, failure(exitRefused, "See: clade disk list", "there is no disk %q", arg)
}
