package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clade/integration/lab"
)

// The resync is of a cluster of its own, whose volume takes long enough to copy.
var resyncCase = scaleCase{name: "resync", key: "resync", nodes: 3, volumes: 1, sizeBytes: 2 * gib, macs: 1}

const (
	resyncMax  = 90 * time.Second
	sampleTime = 700 * time.Millisecond // of one foreground measurement; they are repeated
	samplesMax = 8
)

// measureResync lets a disk go stale in all its regions and measures how fast it is filled again: without any load, and under one.
func (s *scaler) measureResync(ctx context.Context) error {
	if err := s.resyncLimits(); err != nil {
		return err
	}
	at, err := s.startCluster(ctx, &resyncCase)
	if err != nil {
		return err
	}
	defer func() {
		if down := at.takeOff(); down != nil {
			s.tell("%s is not down: %v", at.name, down)
		}
	}()
	s.tell("resync: filling the volume")
	if _, err := s.bench(ctx, &at.site, fillTime, at.addresses[0], "--op", "write", "--fill", "--size", "1MiB", "--depth", "4"); err != nil {
		return err
	}
	s.result.Resync = resyncResult{MBps: map[string][]float64{}, Undisturbed: map[string][]float64{}, During: map[string][]float64{}}
	r := &s.result.Resync
	for _, load := range []string{"", "r16", "w16"} {
		if err := s.oneResync(ctx, at, load, r); err != nil {
			return err
		}
	}
	return nil
}

// resyncLimits measures what the disk gives to one that writes large pieces.
func (s *scaler) resyncLimits() error {
	var probes []diskProbe
	for i := range diskProbes {
		if n := diskProbes[i].name; n == limitBigWrite || n == limitBigRead {
			probes = append(probes, diskProbes[i])
		}
	}
	found, err := measureLimits(s.dir, s.each, probes)
	s.result.Limits = append(s.result.Limits, found...)
	return err
}

// oneResync is one of them, under a load or none. The load ends before a long resync does.
func (s *scaler) oneResync(ctx context.Context, at *scaleLab, load string, r *resyncResult) error {
	ctx, cancel := context.WithTimeout(ctx, resyncMax)
	defer cancel()
	if load != "" {
		if err := s.samples(ctx, at, load, r.Undisturbed, samplesMax/2); err != nil {
			return err
		}
	}
	victim, err := at.makeStale(ctx, s)
	if err != nil {
		return err
	}
	if err := at.lab.Do(lab.FaultRestart, victim); err != nil {
		return err
	}
	var first, last resyncSeen
	if load != "" {
		first, last, err = s.besideLoad(ctx, at, load, r)
	} else if first, err = at.resyncNow(ctx); err == nil {
		err = lab.AwaitHealthy(ctx, at.lab)
		last = resyncSeen{time.Now(), first.total, first.total}
	}
	if err == nil {
		err = lab.AwaitHealthy(ctx, at.lab)
	}
	if err != nil {
		return err
	}
	mbps := float64(last.done-first.done) * mib / last.at.Sub(first.at).Seconds() / 1e6
	s.tell("resync under %s: %d of %d MiB: %.0f MB/s", loadText(load), last.done-first.done, first.total, mbps)
	r.MBps[load] = append(r.MBps[load], mbps)
	if load != "" {
		return s.samples(ctx, at, load, r.Undisturbed, samplesMax/2)
	}
	return nil
}

// resyncSeen is how far a resync was at some time, in regions of 1 MiB.
type resyncSeen struct {
	at          time.Time
	done, total int
}

// resyncNow waits until a resync is under way that knows what there is to copy.
func (at *scaleLab) resyncNow(ctx context.Context) (seen resyncSeen, err error) {
	err = lab.Await(ctx, at.lab, "a resync", func(st *lab.NodeStatus) bool {
		seen, _ = resyncOf(st)
		return seen.total > 0
	})
	return seen, err
}

// resyncOf finds the resync in a status.
func resyncOf(st *lab.NodeStatus) (resyncSeen, bool) {
	for i := range st.Volumes {
		for _, j := range st.Volumes[i].Resync {
			return resyncSeen{time.Now(), j.Done, j.Total}, true
		}
	}
	return resyncSeen{}, false
}

// besideLoad measures the foreground for as long as the resync runs, but not longer than samplesMax times; a measurement that it did not
// run through does not count.
func (s *scaler) besideLoad(ctx context.Context, at *scaleLab, load string, r *resyncResult) (first, last resyncSeen, err error) {
	if first, err = at.resyncNow(ctx); err != nil {
		return first, last, err
	}
	for range samplesMax {
		iops, err := s.sample(ctx, at, load)
		if err != nil {
			return first, last, err
		}
		st, err := at.lab.AskCluster(ctx)
		if err != nil {
			return first, last, err
		}
		seen, runs := resyncOf(st)
		if !runs {
			break
		}
		last = seen
		r.During[load] = append(r.During[load], iops)
	}
	if len(r.During[load]) == 0 {
		return first, last, errors.New("resync: it was over before the foreground was measured")
	}
	return first, last, nil
}

func loadText(load string) string {
	if load == "" {
		return "none"
	}
	return load
}

// makeStale kills a node that serves nothing and changes every region of the volume. It returns the node.
func (at *scaleLab) makeStale(ctx context.Context, s *scaler) (string, error) {
	owner, err := lab.OwnerOf(ctx, at.lab, 1)
	if err != nil {
		return "", err
	}
	victim := at.lab.Nodes[0].Name
	if victim == owner {
		victim = at.lab.Nodes[1].Name
	}
	if err := at.lab.Do(lab.FaultKillAll, victim); err != nil {
		return "", err
	}
	err = lab.Await(ctx, at.lab, "a stale disk", func(st *lab.NodeStatus) bool {
		return len(st.Volumes) == 1 && len(st.Volumes[0].Stale) == 1 && st.Volumes[0].Health == "degraded"
	})
	if err != nil {
		return "", err
	}
	const regionsOfRow = 2 * mib // of the volume: one region of each data shard
	quiet := at.site
	quiet.pids = nil // one of them has gone
	_, err = s.bench(ctx, &quiet, fillTime, at.addresses[0], "--op", "write", "--fill", "--places", fmt.Sprint(2*at.sizeBytes/regionsOfRow), "--depth", "16")
	return victim, err
}

// samples measures the foreground some times.
func (s *scaler) samples(ctx context.Context, at *scaleLab, load string, into map[string][]float64, n int) error {
	for range n {
		iops, err := s.sample(ctx, at, load)
		if err != nil {
			return err
		}
		into[load] = append(into[load], iops)
	}
	return nil
}

// sample measures the foreground once.
func (s *scaler) sample(ctx context.Context, at *scaleLab, load string) (float64, error) {
	quiet := at.site
	quiet.pids = nil
	op := "read"
	for _, l := range scaleLoads {
		if l.name == load {
			op = l.op
		}
	}
	r, err := s.bench(ctx, &quiet, sampleTime, at.addresses[0], "--op", op, "--span", fmt.Sprintf("%dB", scaleSpan), "--total-depth", fmt.Sprint(scaleDepth))
	if err != nil {
		return 0, err
	}
	s.tell("foreground %s: %s IOPS, p99.9 %s µs", load, number(r.IOPS), number(r.Latency.P999))
	return r.IOPS, nil
}
