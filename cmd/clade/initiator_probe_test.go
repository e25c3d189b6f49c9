package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestInitiatorProbeWritesOnlyWhereItIsTold(t *testing.T) {
	b := newInitiatorBench(t)
	out := b.want(0, "probe", "-i", "san", "e7.1", "--offset", "512KiB", "--every", "50ms", "--pause", "1ms", "--count", "3", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), out)
	}
	var last probed
	for _, line := range lines {
		var p probed
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if p.Writes < last.Writes {
			t.Errorf("%d writes after %d", p.Writes, last.Writes)
		}
		last = p
	}
	disk := b.target.Disk()
	for i, block := range [][]byte{disk[512<<10:][:probeBytes], disk[512<<10+probeBytes:][:probeBytes]} {
		if bytes.Count(block, []byte{0}) == probeBytes {
			t.Errorf("prober %d has written nothing", i)
		}
	}
	if bytes.Count(disk[:512<<10], []byte{0}) != 512<<10 || bytes.Count(disk[512<<10+2*probeBytes:], []byte{0}) != len(disk)-512<<10-2*probeBytes {
		t.Error("something was written elsewhere")
	}
	b.want(2, "probe", "-i", "san", "e7.1", "--offset", "100")
	b.want(2, "probe", "-i", "san", "e7.1", "--offset", "0", "--every", "0s")
}

// TestProberCountsWaitsAcrossIntervals: a write that waits when an interval ends is part of it, and of the next with all its time.
func TestProberCountsWaitsAcrossIntervals(t *testing.T) {
	var p prober
	for _, s := range []struct {
		begin, answered, take int64 // times; 0: does not happen
		writes, longest       int64
	}{
		{begin: 100, answered: 130, take: 200, writes: 1, longest: 30},
		{begin: 250, take: 300, writes: 1, longest: 50},
		{take: 400, writes: 1, longest: 150},
		{answered: 420, take: 500, writes: 2, longest: 170},
		{take: 600, writes: 2, longest: 0},
	} {
		if s.begin != 0 {
			p.begin(s.begin)
		}
		if s.answered != 0 {
			p.answered(s.answered)
		}
		if writes, longest := p.take(s.take); writes != s.writes || longest != s.longest {
			t.Errorf("at %d: %d writes, longest %d; want %d and %d", s.take, writes, longest, s.writes, s.longest)
		}
	}
}
