package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"clade/aoe/initiator/bench"
)

// scaled is a run in which everything was measured, and every goal is met with room.
func scaled() *scale {
	t := &scale{Machine: machine{CPU: "some CPU", When: "some day"}, Resync: resyncResult{MBps: map[string][]float64{"": {1000}, "r16": {30}, "w16": {20}},
		Undisturbed: map[string][]float64{"r16": {100}, "w16": {100}}, During: map[string][]float64{"r16": {90}, "w16": {80}}}}
	one := func() *bench.Result {
		return &bench.Result{Ops: 1000, IOPS: 5000, TargetUsPerIO: 100, Latency: bench.Latency{P50: 100, P999: 500}}
	}
	for i := range scaleCases {
		c := &scaleCases[i]
		*t.costOf(c.name) = cost{IdlePercent: 1, LargestMiB: 100, Owned: 1, ShardMiB: 512}
		for _, l := range scaleLoads {
			if i > 0 {
				t.add(c.name, l.name, true, one())
				t.add(c.name, l.name, false, one())
			}
		}
	}
	for _, kind := range []string{takeEmpty, takeFull, takeMany, takeSmall, takeLarge} {
		for _, ms := range []float64{600, 500, 700} {
			t.addGap(kind, ms)
		}
	}
	t.Limits = []limit{{Name: limitBigWrite, Title: "writes", MBps: 1500}}
	return t
}

func TestScaleGoalsAreMetMissedOrNotMeasured(t *testing.T) {
	for _, v := range judgeScale(scaled()) {
		if v.word() != "met" {
			t.Errorf("%s: %g, wanted %g: %s", v.Text, v.Value, v.Limit, v.word())
		}
	}
	for _, v := range judgeScale(&scale{}) {
		if v.word() != "not measured" {
			t.Errorf("%s of nothing: %s", v.Text, v.word())
		}
	}
}

// TestScaleGoalsNotice: each goal is missed when what it is about is just beyond the limit.
func TestScaleGoalsNotice(t *testing.T) {
	slow := func(name, load string) func(*scale, float64) {
		return func(s *scale, us float64) { s.cell(name, load).Case[0].TargetUsPerIO = us }
	}
	gap := func(kind string) func(*scale, float64) {
		return func(s *scale, ms float64) { s.Gaps[kind] = []float64{ms, ms, 0.5} }
	}
	memory := func(name string) func(*scale, float64) {
		return func(s *scale, more float64) { s.Costs[name].LargestMiB = 100 + more }
	}
	for _, tc := range []struct {
		what        []string
		change      func(*scale, float64)
		met, missed float64
	}{
		{[]string{"16 volumes: writes for a CPU second"}, slow("16 volumes", "w16"), 133, 134},
		{[]string{"9 nodes: reads for a CPU second"}, slow("9 nodes", "r16"), 133, 134},
		{[]string{"1 TiB: reads for a CPU second"}, slow("1 TiB", "r16"), 20, 134},
		{[]string{"takeover", takeFull}, gap(takeFull), 1200, 1201},
		{[]string{"takeover", takeLarge}, gap(takeLarge), 100, 1201},
		{[]string{"1 TiB: memory"}, memory("1 TiB"), 32, 33},
		{[]string{"p99.9 of a 4 KiB read"}, func(s *scale, v float64) {
			for _, r := range s.ofBase("r16") {
				r.Latency.P999 = v
			}
		}, 1000, 1001},
		{[]string{"reads during a resync"}, func(s *scale, v float64) { s.Resync.During["r16"] = []float64{v} }, 70, 69},
		{[]string{"writes during a resync"}, func(s *scale, v float64) { s.Resync.During["w16"] = []float64{v} }, 71, 69},
		{[]string{"resync without load"}, func(s *scale, v float64) { s.Resync.MBps[""] = []float64{v} }, 750, 749},
	} {
		for want, value := range map[string]float64{"met": tc.met, "MISSED": tc.missed} {
			s := scaled()
			tc.change(s, value)
			if v := find(t, judgeScale(s), tc.what...); v.word() != want {
				t.Errorf("%s with %g against %g: %s, want %s", v.Text, v.Value, v.Limit, v.word(), want)
			}
		}
	}
}

// TestMemoryMayGrow with what is served and stored: twice 64 MiB for a volume, and 16 bytes for a MiB of shards.
func TestMemoryMayGrow(t *testing.T) {
	s := scaled()
	s.Costs["16 volumes"].Owned, s.Costs["1 TiB"].ShardMiB = 6, 512+512*1024
	if _, most, ok := s.growthMiB("16 volumes"); !ok || most != 2*5*64+scaleSlackMiB {
		t.Errorf("%g MiB", most)
	}
	if grown, most, ok := s.growthMiB("1 TiB"); !ok || most != 2*8+scaleSlackMiB || grown != 0 {
		t.Errorf("%g of %g MiB", grown, most)
	}
}

func TestCostOfSeveralRounds(t *testing.T) {
	s := &scale{}
	for _, us := range []float64{100, 300} { // 100 us of 3000 operations, 300 us of 1000: 150 us on average
		s.add("8 MACs", "r16", false, &bench.Result{TargetUsPerIO: us, Ops: uint64(300_000 / us)})
		s.add("8 MACs", "r16", true, &bench.Result{TargetUsPerIO: 75, Ops: 10})
	}
	if v, ok := s.costRatio("8 MACs", "r16"); !ok || v != 0.5 {
		t.Errorf("%g %v", v, ok)
	}
	if n := len(s.ofBase("r16")); n != 2 {
		t.Errorf("%d results of the base case", n)
	}
	if _, ok := s.costRatio("8 MACs", "w16"); ok {
		t.Error("a ratio of what was not measured")
	}
	s.add("9 nodes", "r16", true, &bench.Result{})
	s.add("9 nodes", "r16", false, &bench.Result{})
	if _, ok := s.costRatio("9 nodes", "r16"); ok {
		t.Error("a ratio of no operations")
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 3, 2, 1}, 2}} {
		if got := median(tc.v); got != tc.want {
			t.Errorf("%v: %g", tc.v, got)
		}
	}
}

func TestRSS(t *testing.T) {
	for raw, want := range map[string]float64{
		"Name:\tclade\nVmHWM:\t  999 kB\nVmRSS:\t    2048 kB\nThreads:\t9\n": 2 << 20,
		"VmRSS:\t x kB\n": 0, "VmRSS:\t -5 kB\n": 0, "": 0,
	} {
		if got := parseRSS([]byte(raw)); got != want {
			t.Errorf("%q: %g", raw, got)
		}
	}
}

func TestScaleReport(t *testing.T) {
	s := scaled()
	s.Failed = []string{"some\nthing"}
	text := scaleMarkdown(s)
	for _, want := range []string{"# Cost and tail", "some CPU", "| 16 volumes | 10,000 | 1.00 | 5,000 | 100 / 500 |", "| 1 TiB | 600 | 700 | 1.00 |", "| reads | 30.0 | 100 | 90.0 | 0.90 |",
		"| none | 1,000 | - | - | - |", "The disk: writes: 1,500 MB/s.", "- some thing"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "MISSED") || strings.Contains(text, "processors busy") {
		t.Errorf("a quiet run that meets all goals:\n%s", text)
	}
	for _, c := range s.Cells {
		for _, r := range c.Base {
			r.Others = 1
		}
	}
	if !strings.Contains(scaleMarkdown(s), "**Something else kept 0.5 processors busy") {
		t.Error("the report does not say that the machine was not quiet")
	}
	if empty := scaleMarkdown(&scale{}); strings.Contains(empty, "## Cost") || !strings.Contains(empty, "## Goals") {
		t.Errorf("of nothing:\n%s", empty)
	}
	var back scale
	raw, err := json.Marshal(s)
	if err = errors.Join(err, json.Unmarshal(raw, &back)); err != nil || scaleMarkdown(&back) != scaleMarkdown(s) {
		t.Errorf("what is read again is another report: %v", err)
	}
}

func TestScaleNothingToMeasure(t *testing.T) {
	for _, args := range [][]string{{"--cases", "nobody"}, {"--each", "0"}, {"--rounds", "0"}, {"--takeovers", "0"}, {"more"}, {"--unknown"}} {
		if err := runScale(t.Context(), io.Discard, args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

// TestWholeScaleRun measures the base case and 8 initiators for moments, with its takeovers, and nothing stays behind.
func TestWholeScaleRun(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI lacks root, for network namespaces, or ip, of the package iproute2")
		}
		t.Skip("needs root, for network namespaces, and ip, of the package iproute2")
	}
	const root = "/var/tmp"
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Type == tmpfsMagic {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI lacks %s on a disk", root)
		}
		t.Skipf("needs %s on a disk", root)
	}
	out := t.TempDir()
	program := filepath.Join(out, "clade")
	if text, err := exec.Command("go", "build", "-o", program, "clade/cmd/clade").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	var log strings.Builder
	if err := runScale(t.Context(), &log, []string{"--dir", root, "--clade", program, "--out", out, "--each", "200ms", "--rounds", "2", "--takeovers", "1",
		"--cases", "8 MACs,64 MiB", "--parts", partTakeover}); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	raw, err := os.ReadFile(filepath.Join(out, "bench-scale.json"))
	var s scale
	if err = errors.Join(err, json.Unmarshal(raw, &s)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"8 MACs", "64 MiB"} {
		for _, l := range scaleLoads {
			c := s.cell(name, l.name)
			if c == nil || len(c.Base) != 2 || len(c.Case) != 2 {
				t.Fatalf("%s, %s: %+v", name, l.name, c)
			}
			if r := c.Case[0]; r.Ops == 0 || r.TotalDepth != scaleDepth || len(r.Targets) != 6 || r.Initiators != findCase(name).macs || (r.Writes > 0) != (l.op == "write") {
				t.Errorf("%s, %s: %+v", name, l.name, r)
			}
		}
	}
	if v := s.Gaps[takeSmall]; len(v) != 1 || v[0] <= 0 || len(s.Failed) > 0 || s.Costs["64 MiB"].LargestMiB <= 0 {
		t.Errorf("gaps %v, costs %+v, failed %v\n%s", v, s.Costs["64 MiB"], s.Failed, log.String())
	}
	pattern := fmt.Sprintf("%s%d*", namePrefix, os.Getpid())
	for _, dir := range []string{root, "/run/netns"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}
