package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"clade/cluster"
)

// NodeStatus is the cluster as one node's admin API tells it, as far as a lab reads it.
type NodeStatus struct {
	cluster.Status
	Pid int `json:"pid"` // of the worker
}

const (
	adminPath     = "http://node/v1/status"
	adminTimeout  = 2 * time.Second
	adminBodyMax  = 16 << 20
	errorBodyMax  = 4 << 10
	statusRetryMs = 20
)

// ask asks one node's admin socket for its status. A node that is stopped does not answer: ctx bounds the wait.
func ask(ctx context.Context, socket string) (*NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, adminPath, nil)
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", socket, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", socket, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, errorBodyMax)) // it is for people
		return nil, fmt.Errorf("lab: %s answers %s: %s", socket, resp.Status, text)
	}
	out := &NodeStatus{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, adminBodyMax)).Decode(out); err != nil {
		return nil, fmt.Errorf("lab: %s: status: %w", socket, err)
	}
	return out, nil
}

// AskNode returns the cluster as one node sees it. Any goroutine may call it.
func (l *Lab) AskNode(ctx context.Context, node string) (*NodeStatus, error) {
	return ask(ctx, l.adminSocket(node))
}

// AskCluster asks all nodes and returns the view of the one that knows best: the leader's own; else that of a node with a
// valid lease; else any. Any goroutine may call it.
func (l *Lab) AskCluster(ctx context.Context) (*NodeStatus, error) {
	answers := make(chan *NodeStatus, len(l.Nodes))
	failures := make(chan error, len(l.Nodes))
	for i := range l.Nodes {
		go func() {
			s, err := l.AskNode(ctx, l.Nodes[i].Name)
			failures <- err
			answers <- s
		}()
	}
	var best *NodeStatus
	var errs []error
	for range l.Nodes {
		if err := <-failures; err != nil {
			errs = append(errs, err)
		}
		if s := <-answers; s != nil && (best == nil || rank(s) > rank(best)) {
			best = s
			if rank(s) == rankLeader {
				return best, nil
			}
		}
	}
	if best == nil {
		return nil, fmt.Errorf("lab %s: no node answers: %w", l.Spec.Name, errors.Join(errs...))
	}
	return best, nil
}

const rankLeader = 3

func rank(s *NodeStatus) int {
	switch {
	case s.Leader != 0 && s.Leader == s.Self && s.LeaseValid:
		return rankLeader
	case s.LeaseValid:
		return 2
	case s.Leader != 0:
		return 1
	}
	return 0
}
