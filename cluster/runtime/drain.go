package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"clade/membership"
	"clade/raid"
)

// drainedFileName says that this node drained itself before it stopped, so that its next process takes that back. A drain
// that an operator asked for stays.
const drainedFileName = "drained"

const drainLook = 10 * time.Millisecond

// Drain hands everything that this node serves or leads to others, until ctx ends. The node goes on running; it takes
// nothing new before its next start.
func (r *Runtime) Drain(ctx context.Context) error {
	var draining, others bool
	var row raid.NodeID
	err := r.inspect(ctx, func(r *Runtime) {
		if n := r.node.State().Node(r.id.Node); n != nil {
			row, draining = n.ID, n.Draining
		}
		others = r.successors()
	})
	if err != nil || row == 0 {
		return err
	}
	if others {
		if err := r.handOver(ctx, draining); err != nil {
			return err
		}
	}
	return r.handLeaderOver(ctx)
}

// successors reports whether there is a node that could take this one's volumes. In the core's goroutine.
func (r *Runtime) successors() bool {
	s := r.node.State()
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.ID != r.id.Node && !n.Witness && n.Held && !n.Draining && r.conns[n.ID] != nil {
			return true
		}
	}
	return false
}

// handOver drains this node and waits until it owns nothing, or nobody is left to hand it to.
func (r *Runtime) handOver(ctx context.Context, draining bool) error {
	if !draining {
		if err := writeDurably(filepath.Join(r.opt.Dir, drainedFileName), []byte("this node drained itself to stop; its next start undoes that\n")); err != nil {
			return err
		}
		if _, err := r.proposeCommand(ctx, &membership.SetDraining{Node: r.id.Node, On: true}); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
	}
	owned, alone := 0, false
	err := r.until(ctx, func(r *Runtime) bool {
		owned = 0
		s := r.node.State()
		for _, v := range s.Volumes {
			if v.Data.Owner == r.id.Node && s.OwnerLives(v.Data) {
				owned++
			}
		}
		alone = !r.successors()
		return owned == 0 || alone
	})
	if err != nil {
		return fmt.Errorf("drain: %d volumes are still served here: %w", owned, err)
	}
	if owned > 0 {
		return fmt.Errorf("drain: %d volumes are still served here and no other node can take them", owned)
	}
	r.log.Info("everything is handed over")
	return nil
}

// handLeaderOver asks Raft for another leader: an election after the stop would take longer.
func (r *Runtime) handLeaderOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	asked := false
	err := r.until(ctx, func(r *Runtime) bool {
		if !r.node.Group().IsLeader() {
			return true
		}
		view := r.node.Group().View()
		for _, m := range view.Members {
			if !asked && !m.Learner && m.Node != r.id.Node && r.conns[m.Node] != nil {
				asked = true
				r.node.Group().TransferLeader(m.Node)
			}
		}
		return !asked // nobody to lead instead
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // the others elect one
	}
	return err
}

// until asks the core until it says yes.
func (r *Runtime) until(ctx context.Context, done func(*Runtime) bool) error {
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	for {
		yes := false
		if err := r.inspect(ctx, func(r *Runtime) { yes = done(r) }); err != nil || yes {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// undrain takes back that the former process drained this node to stop. Called when this process has its lease term.
func (r *Runtime) undrain() {
	path := filepath.Join(r.opt.Dir, drainedFileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return
	}
	r.disks.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
		defer cancel()
		if _, err := r.proposeCommand(ctx, &membership.SetDraining{Node: r.id.Node}); err != nil {
			r.log.Warn("this node is still draining; undo it: clade drain --undo", "err", err)
			return
		}
		if err := os.Remove(path); err != nil {
			r.log.Warn("cannot remove the note of the drain", "err", err)
		}
	})
}
