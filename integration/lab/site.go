package lab

import (
	"context"
	"fmt"
	"time"
)

// Site is a running cluster that can be hurt: a Lab, or a Memory where namespaces cannot be had. Any goroutine may call its
// methods but Down.
type Site interface {
	// Shape returns what the cluster was made like.
	Shape() Spec
	// AskCluster returns the cluster as the node sees it that knows best.
	AskCluster(ctx context.Context) (*NodeStatus, error)
	// Do lets a fault happen to a node.
	Do(f Fault, node string) error
	// Drain moves everything off a node, or undoes that.
	Drain(ctx context.Context, node string, undo bool) error
	// OpenHost opens initiators on the SAN.
	OpenHost() (*Host, error)
	// Down takes it all away.
	Down() error
}

// Shape returns what the lab was made like.
func (l *Lab) Shape() Spec { return l.Spec }

// Drain runs `clade drain` at some node that is not the one that is drained.
func (l *Lab) Drain(ctx context.Context, node string, undo bool) error {
	i, err := l.index(node)
	if err != nil {
		return err
	}
	via := (i + 1) % len(l.Nodes)
	_, err = l.Run(ctx, via, l.drainArgs(l.Nodes[via].Name, node, undo))
	return err
}

// Handoff runs `clade handoff` on the target: it is to serve a slot.
func (l *Lab) Handoff(ctx context.Context, slot uint8, target string) error {
	i, err := l.index(target)
	if err != nil {
		return err
	}
	_, err = l.Run(ctx, i, append([]string{"handoff", fmt.Sprintf("e%d.%d", l.Spec.Shelf, slot), target}, l.via(target)...))
	return err
}

// StatusJSON runs `clade status --json` on a node and returns what it printed.
func (l *Lab) StatusJSON(ctx context.Context, node string) ([]byte, error) {
	i, err := l.index(node)
	if err != nil {
		return nil, err
	}
	out, err := l.Run(ctx, i, append([]string{"status", "--json"}, l.via(node)...))
	return []byte(out), err
}

// Running returns how many processes of a node run: two of one that serves, a guardian and its worker.
func (l *Lab) Running(node string) (int, error) {
	ps, err := l.processesOf(node)
	return len(ps), err
}

// Await asks a cluster until ok says yes, or ctx ends; then it tells what is not yet as wanted.
func Await(ctx context.Context, s Site, what string, ok func(*NodeStatus) bool) error {
	last := "no node has answered"
	for {
		st, err := s.AskCluster(ctx)
		switch {
		case err == nil && ok(st):
			return nil
		case err == nil:
			last = Summary(st)
		case ctx.Err() == nil:
			last = err.Error()
		}
		select {
		case <-time.After(statusRetryMs * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("lab %s: %s: not in time; last seen: %s", s.Shape().Name, what, last)
		}
	}
}

// AwaitHealthy waits until all nodes are up and all volumes are served and complete.
func AwaitHealthy(ctx context.Context, s Site) error {
	spec := s.Shape()
	return Await(ctx, s, "health", func(st *NodeStatus) bool { return IsHealthy(spec, st) })
}

// IsHealthy says that a cluster of this shape has all nodes up and all volumes served and complete.
func IsHealthy(spec Spec, s *NodeStatus) bool {
	if s.Health != "healthy" || len(s.Nodes) != spec.Nodes+spec.Witnesses || len(s.Volumes) != spec.Slots {
		return false
	}
	for i := range s.Nodes {
		if s.Nodes[i].State != "up" {
			return false
		}
	}
	for i := range s.Volumes {
		if s.Volumes[i].Health != "healthy" {
			return false
		}
	}
	return true
}

// OwnerOf returns the name of the node that serves a slot, once one does.
func OwnerOf(ctx context.Context, s Site, slot uint8) (string, error) {
	owner := ""
	err := Await(ctx, s, fmt.Sprintf("an owner of slot %d", slot), func(st *NodeStatus) bool {
		for i := range st.Volumes {
			if v := &st.Volumes[i]; v.Slot == slot && v.Active {
				owner = v.OwnerName
			}
		}
		return owner != ""
	})
	return owner, err
}

// Summary puts what is wrong in a status into one line.
func Summary(s *NodeStatus) string {
	text := s.Health
	for _, p := range s.Problems {
		text += "; " + p.What
	}
	return text
}
