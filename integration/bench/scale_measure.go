package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"clade/aoe/initiator/bench"
	"clade/integration/lab"
)

// look measures what a cluster costs that nobody uses.
func (s *scaler) look(ctx context.Context, at *scaleLab) error {
	before, err := at.cpuNs()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, idleTime); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := at.cpuNs()
	if err != nil {
		return err
	}
	c := s.result.costOf(at.name)
	c.IdlePercent = 100 * float64(after-before) / float64(took) / float64(at.nodes)
	s.tell("%-34s idle: %.1f %% of a processor for each node", at.name, c.IdlePercent)
	return nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cpuNs returns the processor time of all nodes' processes so far.
func (at *scaleLab) cpuNs() (sum int64, err error) {
	for _, pid := range at.pids {
		_, ns, err := bench.ProcessTime(pid)
		if err != nil {
			return 0, fmt.Errorf("%s: processor time of process %d: %w", at.name, pid, err)
		}
		sum += ns
	}
	return sum, nil
}

// remember notes the memory of a cluster that was used, once.
func (s *scaler) remember(ctx context.Context, at *scaleLab) error {
	c := s.result.costOf(at.name)
	if c.LargestMiB > 0 {
		return nil
	}
	c.ShardMiB = at.shardMiB()
	for _, pid := range at.pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return fmt.Errorf("%s: memory of process %d: %w", at.name, pid, err)
		}
		c.LargestMiB = max(c.LargestMiB, parseRSS(raw)/mib)
	}
	st, err := at.lab.AskCluster(ctx)
	if err != nil {
		return err
	}
	for i := range st.Nodes {
		c.Owned = max(c.Owned, st.Nodes[i].Owns)
	}
	s.tell("%-34s memory: %.0f MiB, largest process", at.name, c.LargestMiB)
	return nil
}

// parseRSS returns VmRSS of a /proc/PID/status in bytes; 0 if it has none.
func parseRSS(raw []byte) float64 {
	for line := range bytes.Lines(raw) {
		if value, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			if err != nil || kib < 0 {
				return 0
			}
			return kib * 1024
		}
	}
	return 0
}

// The takeovers: what is taken over.
const (
	takeEmpty = "an idle volume of 1 GiB, empty journal"
	takeFull  = "1 GiB, journal as full as it gets"
	takeMany  = "16 volumes"
	takeSmall = "64 MiB"
	takeLarge = "1 TiB"
)

const (
	takeoverMax = time.Minute
	busyDepth   = "64"
	busyBefore  = 5 * time.Second // of writes before the kill: several journals
	busyAfter   = 5 * time.Second
)

// takeoversOf lets owners die under a load, several times in each of some ways.
func (s *scaler) takeoversOf(ctx context.Context, at *scaleLab, kinds ...string) error {
	if !slices.Contains(s.parts, partTakeover) {
		return nil
	}
	h, err := at.lab.OpenHost()
	if err != nil {
		return err
	}
	defer h.Close() //nolint:errcheck // the lab goes
	w := &watchers{}
	defer w.close()
	for slot := 1; slot <= at.volumes; slot++ {
		if err := w.add(ctx, at, h, uint8(slot)); err != nil {
			return err
		}
	}
	if err := w.await(ctx, lab.WarmUpWrites); err != nil {
		return err
	}
	for _, kind := range kinds {
		for range s.result.Takeovers {
			ms, err := s.takeover(ctx, at, w, kind == takeFull)
			if err != nil {
				return fmt.Errorf("takeover of %s: %w", kind, err)
			}
			s.tell("takeover of %s: longest gap %.0f ms", kind, ms)
			s.result.addGap(kind, ms)
		}
	}
	return nil
}

// takeover kills the owner of all volumes and returns the longest gap that any of them had, in milliseconds. The node is back, and all
// is healthy, when it returns.
func (s *scaler) takeover(ctx context.Context, at *scaleLab, w *watchers, full bool) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverMax+busyBefore+busyAfter)
	defer cancel()
	owner, err := at.gather(ctx)
	if err != nil {
		return 0, err
	}
	busy := make(chan error, 1)
	if full {
		go func() {
			_, err := s.bench(ctx, &site{netns: at.netns, nic: at.nic}, busyBefore+busyAfter, append(at.args("write", false, at.usedBytes()), "--total-depth", busyDepth)...)
			busy <- err
		}()
		if err := pause(ctx, busyBefore); err != nil {
			return 0, err
		}
	} else {
		busy <- nil
	}
	w.reset()
	if err := at.lab.Do(lab.FaultKillAll, owner); err != nil {
		return 0, err
	}
	if err := w.await(ctx, 20); err != nil {
		return 0, err
	}
	longest := w.longest()
	if err := <-busy; err != nil {
		return 0, err
	}
	if err := at.lab.Do(lab.FaultRestart, owner); err != nil {
		return 0, err
	}
	if err := lab.AwaitHealthy(ctx, at.lab); err != nil {
		return 0, err
	}
	return float64(longest) / 1e6, nil
}

// gather makes one node own all volumes, one that does not lead, and returns it: a dead leader is another matter. The leader spreads
// volumes evenly, but leaves those where they are that were handed over by hand: each is, until all stay.
func (at *scaleLab) gather(ctx context.Context) (string, error) {
	target := ""
	for {
		st, err := at.lab.AskCluster(ctx)
		if err != nil {
			return "", err
		}
		for i := range st.Nodes {
			if n := &st.Nodes[i]; target == "" && n.ID != st.Leader && n.State == "up" {
				target = n.Name
			}
		}
		if target == "" {
			return "", fmt.Errorf("%s: leader %q: no other node that could own everything", at.name, st.LeaderName)
		}
		moved := false
		for j := range st.Volumes {
			if v := &st.Volumes[j]; v.OwnerName != target {
				moved = true
				_ = at.lab.Handoff(ctx, v.Slot, target) // it may be on the move; looked at again
			}
		}
		if !moved && lab.IsHealthy(at.lab.Shape(), st) {
			return target, nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return "", fmt.Errorf("%s: volumes do not stay on %s: %w", at.name, target, err)
		}
	}
}

// watchers write one block of each volume again and again.
type watchers struct{ probers []*lab.Prober }

func (w *watchers) add(ctx context.Context, at *scaleLab, h *lab.Host, slot uint8) error {
	p, err := lab.StartLinuxProber(ctx, h, at.lab.Shape().Shelf, slot, 0)
	if err == nil {
		w.probers = append(w.probers, p)
	}
	return err
}

func (w *watchers) await(ctx context.Context, writes int64) error {
	for _, p := range w.probers {
		if err := p.Await(ctx, writes); err != nil {
			return err
		}
	}
	return nil
}

func (w *watchers) reset() {
	for _, p := range w.probers {
		p.Reset()
	}
}

func (w *watchers) longest() (d time.Duration) {
	for _, p := range w.probers {
		d = max(d, p.Longest())
	}
	return d
}

func (w *watchers) close() {
	for _, p := range w.probers {
		_ = p.Close() // nothing of it is wanted any more
	}
}
