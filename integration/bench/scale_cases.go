package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"clade/aoe/initiator/bench"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

const (
	scaleDepth  = 16        // operations in flight of all initiators on all volumes
	scaleSpan   = 128 * mib // that is used of all volumes together
	scalePlaces = 4096      // of a volume that is used all over
	fillTime    = 100 * time.Millisecond

	idleTime      = 2 * time.Second
	scaleWithin   = 0.75 // of the base case's operations for a CPU second
	caseBase      = "3 nodes, 1 volume of 1 GiB, 1 MAC"
	scaleSlackMiB = 32 // of RSS, that says nothing
)

// scaleCase is a cluster that differs from the base case in one thing.
type scaleCase struct {
	name      string
	key       string // short, for names of labs
	nodes     int
	volumes   int
	sizeBytes uint64 // of each
	macs      int
	spread    bool // scalePlaces, spread over all of the volume
	own       bool // a cluster of its own: not the base case's
	take      string
}

// The cases. The first is the base.
var scaleCases = []scaleCase{
	{name: caseBase, key: "base", nodes: 3, volumes: 1, sizeBytes: gib, macs: 1, own: true},
	{name: "8 MACs", nodes: 3, volumes: 1, sizeBytes: gib, macs: 8},
	{name: "32 MACs", nodes: 3, volumes: 1, sizeBytes: gib, macs: 32},
	{name: "4 volumes", key: "vol4", nodes: 3, volumes: 4, sizeBytes: gib, macs: 1, own: true},
	{name: "16 volumes", key: "vol16", nodes: 3, volumes: 16, sizeBytes: gib, macs: 1, own: true, take: takeMany},
	{name: "5 nodes", key: "five", nodes: 5, volumes: 1, sizeBytes: gib, macs: 1, own: true},
	{name: "9 nodes", key: "nine", nodes: 9, volumes: 1, sizeBytes: gib, macs: 1, own: true},
	{name: "64 MiB", key: "small", nodes: 3, volumes: 1, sizeBytes: 64 * mib, macs: 1, own: true, take: takeSmall},
	{name: "1 TiB", key: "large", nodes: 3, volumes: 1, sizeBytes: tib, macs: 1, spread: true, own: true, take: takeLarge},
}

func caseNames() []string {
	var out []string
	for i := range scaleCases {
		out = append(out, scaleCases[i].name)
	}
	return out
}

func findCase(name string) *scaleCase {
	for i := range scaleCases {
		if scaleCases[i].name == name {
			return &scaleCases[i]
		}
	}
	return nil
}

// shardMiB returns how many MiB of shards a node has, on average, of a 2+1 layout in extents of 1 GiB.
func (c *scaleCase) shardMiB() float64 {
	const k, width = 2, 3
	extents := (c.sizeBytes + gib - 1) / gib
	return float64(c.volumes) * float64(extents*gib/k*width/mib) / float64(c.nodes)
}

// usedBytes returns how much of all volumes together is used. The base case uses as much when it is measured by turns with this one.
func (c *scaleCase) usedBytes() uint64 {
	if c.spread {
		return scalePlaces * 4096
	}
	return min(scaleSpan, c.sizeBytes*uint64(c.volumes))
}

// args are those of clade bench for 4 KiB operations as the case wants them, over so much in all.
func (at *scaleLab) args(op string, fill bool, usedBytes uint64) []string {
	c := at.scaleCase
	span := usedBytes / uint64(c.volumes)
	out := append([]string{}, at.addresses...)
	if c.spread {
		span = c.sizeBytes
		out = append(out, "--places", fmt.Sprint(scalePlaces))
	}
	out = append(out, "--op", op, "--span", fmt.Sprintf("%dB", span), "--total-depth", fmt.Sprint(scaleDepth), "--macs", fmt.Sprint(c.macs))
	if fill {
		out = append(out, "--fill")
	}
	return out
}

func bytesText(n uint64) string { return humanize.IBytes(n) }

// The loads of a case, as the columns of the other report name them.
var scaleLoads = []struct{ name, op string }{{"r16", "read"}, {"w16", "write"}}

// round measures reads and writes of the base case and of another, each second time the other way round: what changes slowly hits both.
func (s *scaler) round(ctx context.Context, base, at *scaleLab, turn int) error {
	order := []*scaleLab{base, at}
	if turn%2 == 1 {
		slices.Reverse(order)
	}
	for _, l := range scaleLoads {
		for i, x := range order {
			if i == 1 && base == at {
				continue
			}
			r, err := s.bench(ctx, &x.site, s.each, x.args(l.op, false, at.usedBytes())...)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", x.name, l.op, err)
			}
			s.tell("%-34s %-6s %10s IOPS  %8s per CPU second, p50 %s µs, p99.9 %s µs", x.name, l.op, number(r.IOPS), number(perCPU(r)), number(r.Latency.P50), number(r.Latency.P999))
			s.result.add(at.name, l.name, x == base, r)
		}
	}
	return nil
}

// perCPU is operations for a second of processor time of all of the target's processes.
func perCPU(r *bench.Result) float64 {
	if r == nil || r.TargetUsPerIO <= 0 {
		return 0
	}
	return 1e6 / r.TargetUsPerIO
}
