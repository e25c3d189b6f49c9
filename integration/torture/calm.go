package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"clade/integration/lab"
)

// CalmConfig describes a run in which nothing fails, but everything is slow: no volume may change its owner for that.
type CalmConfig struct {
	Config
	Loss float64 // the share of frames that are lost, in each direction and on both networks
	Busy int     // processes that only burn time
}

// CalmResult is what a calm run has seen.
type CalmResult struct {
	*Result
	Loss    float64  `json:"loss"`
	Busy    int      `json:"busy"`
	Changes []Change `json:"owner_changes"` // none are needed
	Leaders int      `json:"leader_changes"`
	Leases  []Lease  `json:"leases"`
}

// Change is a volume that got another owner or epoch.
type Change struct {
	AtMs  int64  `json:"at_ms"`
	Slot  uint8  `json:"slot"`
	From  string `json:"from"`
	To    string `json:"to"`
	Epoch uint64 `json:"epoch"`
}

// Lease is how close a node came to losing its lease.
type Lease struct {
	Node    string `json:"node"`
	LeastMs int64  `json:"least_ms"` // that was left whenever it was renewed
	Terms   int    `json:"terms"`    // that ended during the run: 0, or it was lost
}

// ownerChanged is the violation that a calm run is about.
const ownerChanged = "an owner changed although nothing had failed"

const watchEvery = 100 * time.Millisecond

// Calm makes a lab, saturates the processors and loses frames for as long as is wanted, at the default settings, and reports
// every change of an owner as a violation.
func Calm(ctx context.Context, cfg CalmConfig) (*CalmResult, error) {
	if cfg.Loss < 0 || cfg.Loss >= 1 || cfg.Busy < 0 || cfg.Busy > 1024 {
		return nil, fmt.Errorf("torture: loss %v, %d busy processes: choose 0 to 1, and up to 1024", cfg.Loss, cfg.Busy)
	}
	r, err := newRun(cfg.Config)
	if err != nil {
		return nil, err
	}
	c := &calm{run: r, cfg: cfg, result: &CalmResult{Result: r.result, Loss: cfg.Loss, Busy: cfg.Busy, Changes: []Change{}}}
	return c.result, r.inLab(ctx, func(ctx context.Context) error { return r.loaded(ctx, c.watch) })
}

type calm struct {
	*run
	cfg    CalmConfig
	result *CalmResult
}

// watch hurts nobody and looks on.
func (c *calm) watch(ctx context.Context) {
	first, err := c.settled(ctx)
	if err == nil {
		err = c.lab.Lose(c.cfg.Loss)
	}
	var end func()
	if err == nil {
		end, err = burn(c.lab.Spec.Binary, c.cfg.Busy)
	}
	if err != nil {
		c.violation("the run could not begin", err, nil)
		return
	}
	c.say("nothing but %d busy processes, and %.3g %% of all frames lost", c.cfg.Busy, c.cfg.Loss*100)
	c.look(ctx, first)
	end()
	for i := range c.lab.Nodes {
		if err := c.lab.Do(lab.FaultHeal, c.lab.Nodes[i].Name); err != nil {
			c.violation("the network could not be healed", err, nil)
		}
	}
	if ctx.Err() == nil {
		c.leases(ctx, first)
	}
}

// settled waits until the leader has spread the volumes and does not touch them any more.
func (c *calm) settled(ctx context.Context) (*lab.NodeStatus, error) {
	const still = 8 * time.Second // a node that has just come gets further volumes after five; and two of the pauses between handoffs
	var last *lab.NodeStatus
	for since := time.Now(); ; {
		st, err := c.lab.AskCluster(ctx)
		if err != nil {
			return nil, err
		}
		if last == nil || len(changes(last, st)) > 0 {
			last, since = st, time.Now()
		}
		if time.Since(since) >= still {
			return last, nil
		}
		if !pause(ctx, watchEvery) {
			return nil, ctx.Err()
		}
	}
}

// changes lists the volumes of which another owner or a higher epoch is seen than before.
func changes(before, now *lab.NodeStatus) []Change {
	var out []Change
	for i := range now.Volumes {
		for k := range before.Volumes {
			a, b := &before.Volumes[k], &now.Volumes[i]
			if a.Slot == b.Slot && a.Epoch < b.Epoch {
				out = append(out, Change{Slot: b.Slot, From: a.OwnerName, To: b.OwnerName, Epoch: uint64(b.Epoch)})
			}
		}
	}
	return out
}

// look notes every change until the time is over.
func (c *calm) look(ctx context.Context, last *lab.NodeStatus) {
	until := time.Now().Add(c.run.cfg.Duration)
	for leader := last.Leader; time.Now().Before(until) && pause(ctx, watchEvery); {
		st, err := c.lab.AskCluster(ctx)
		if err != nil {
			continue // slow: it is asked again
		}
		if st.Leader != 0 && st.Leader != leader {
			leader = st.Leader
			c.result.Leaders++
		}
		list := changes(last, st)
		for _, x := range list {
			x.AtMs = time.Since(c.began).Milliseconds()
			c.result.Changes = append(c.result.Changes, x)
			c.note(ownerChanged, fmt.Errorf("slot %d: %s, then %s in epoch %d", x.Slot, x.From, x.To, x.Epoch))
		}
		if len(list) > 0 {
			last = st
		}
	}
}

// leases asks every node how close it came.
func (c *calm) leases(ctx context.Context, first *lab.NodeStatus) {
	for i := range c.lab.Nodes {
		x := Lease{Node: c.lab.Nodes[i].Name}
		st, err := c.lab.AskNode(ctx, x.Node)
		if err != nil {
			c.violation("a node does not answer", err, nil)
			return
		}
		x.LeastMs = st.LeaseLeastNs / 1e6
		for k := range st.Nodes {
			for j := range first.Nodes {
				if a, b := &first.Nodes[j], &st.Nodes[k]; a.Name == x.Node && b.Name == x.Node {
					x.Terms = int(b.Term - a.Term)
				}
			}
		}
		c.result.Leases = append(c.result.Leases, x)
	}
}

// burn starts processes that do nothing but burn time (`clade lab burn`), and returns what ends them. They end by themselves when
// this process does.
func burn(binary string, n int) (end func(), err error) {
	var cmds []*exec.Cmd
	var pipes []io.Closer
	var once sync.Once
	end = func() {
		once.Do(func() {
			for i := range cmds {
				_ = pipes[i].Close() // they end when their input does
				_ = cmds[i].Wait()
			}
		})
	}
	for range n {
		cmd := exec.Command(binary, "lab", "burn") //nolint:gosec // our own program
		in, perr := cmd.StdinPipe()
		if perr == nil {
			perr = cmd.Start()
		}
		if perr != nil {
			end()
			return nil, errors.Join(fmt.Errorf("torture: a busy process: %w", perr), err)
		}
		cmds, pipes = append(cmds, cmd), append(pipes, in)
	}
	return end, nil
}
