package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clade/aoe/initiator/bench"
)

// measured is a table in which everything was measured, and every goal is met with room.
func measured() *table {
	t := &table{Machine: machine{CPU: "some CPU", When: "some day", Processors: 2}}
	for _, row := range allRows {
		for i := range loads {
			r := &bench.Result{IOPS: 100_000, MBps: 2000, FramesSent: 1000, TargetUsPerIO: 10, ClientUsPerIO: 3, Targets: []bench.Target{{Pid: 1}},
				Latency: bench.Latency{P50: 100, P99: 200, P999: 300}}
			t.add(row, loads[i].name, r)
		}
	}
	for i := range diskProbes {
		t.Limits = append(t.Limits, limit{Name: diskProbes[i].name, Title: diskProbes[i].title, PerSecond: 50_000, MBps: 2500, P50Us: 200})
	}
	return t
}

func find(t *testing.T, verdicts []verdict, parts ...string) verdict {
	t.Helper()
	for _, v := range verdicts {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(v.Text, p) }) {
			return v
		}
	}
	t.Fatalf("no goal has %v", parts)
	return verdict{}
}

func TestGoalsAreMetMissedOrNotMeasured(t *testing.T) {
	for _, v := range judge(measured()) {
		if v.word() != "met" {
			t.Errorf("%s: %g, wanted %g: %s", v.Text, v.Value, v.Limit, v.word())
		}
	}
	for _, v := range judge(&table{}) {
		if v.word() != "not measured" {
			t.Errorf("%s of an empty table: %s", v.Text, v.word())
		}
	}
}

// TestGoalsNotice: each goal is missed when what it is about is just beyond the limit.
func TestGoalsNotice(t *testing.T) {
	for _, tc := range []struct {
		what   []string
		row    string
		col    string
		change func(r *bench.Result)
		missed bool
	}{
		{[]string{"Clade 2+1: 4 KiB write, qd 1"}, row21, "w1", func(r *bench.Result) { r.IOPS = 474 }, false},
		{[]string{"Clade 2+1: 4 KiB write, qd 1"}, row21, "w1", func(r *bench.Result) { r.IOPS = 473 }, true},
		{[]string{"Clade 2+1: 4 KiB write, qd 16"}, row21, "w16", func(r *bench.Result) { r.IOPS = 6859 }, true},
		{[]string{"Clade 2+1: 4 KiB write, qd 64"}, row21, "w64", func(r *bench.Result) { r.IOPS = 20_799 }, true},
		{[]string{"Clade 2+1: 4 KiB read, qd 16"}, row21, "r16", func(r *bench.Result) { r.IOPS = 17_229 }, true},
		{[]string{"Clade 2+1: 1 MiB sequential write"}, row21, "sw", func(r *bench.Result) { r.MBps = 285 }, true},
		{[]string{"Clade 2+1: 1 MiB sequential read"}, row21, "sr", func(r *bench.Result) { r.MBps = 824 }, false},
		{[]string{"MTU 1500: 4 KiB write, qd 64"}, row21Small, "w64", func(r *bench.Result) { r.IOPS = 49_999 }, true},
		{[]string{"MTU 1500: 4 KiB write, qd 64"}, row21Small, "w64", func(r *bench.Result) { r.IOPS = 50_000 }, false},
		{[]string{"latency", "fdatasync"}, row21, "w1", func(r *bench.Result) { r.Latency.P50 = 300 }, false},
		{[]string{"latency", "fdatasync"}, row21, "w1", func(r *bench.Result) { r.Latency.P50 = 301 }, true},
		{[]string{"on tmpfs: 4 KiB read, qd 1,", rowVblade}, rowRAM, "r1", func(r *bench.Result) { r.IOPS = 99_999 }, true},
		{[]string{"on tmpfs: 4 KiB read, qd 1,", rowNull}, rowRAM, "r1", func(r *bench.Result) { r.IOPS = 75_500 }, false},
		{[]string{"on tmpfs: 4 KiB read, qd 1,", rowNull}, rowRAM, "r1", func(r *bench.Result) { r.IOPS = 75_400 }, true},
		{[]string{"on tmpfs: 4 KiB write, qd 64,", rowVblade}, rowRAM, "w64", func(r *bench.Result) { r.IOPS = 99_999 }, true},
		{[]string{"CPU", "write, qd 64"}, row21, "w64", func(r *bench.Result) { r.TargetUsPerIO = 61 }, true},
		{[]string{"CPU", "read, qd 64"}, row21, "r64", func(r *bench.Result) { r.TargetUsPerIO = 21 }, true},
		{[]string{"CPU", "read from disk, qd 64"}, row21, "d64", func(r *bench.Result) { r.TargetUsPerIO = 41 }, true},
		{[]string{"Clade 4+2: 4 KiB write, qd 1,"}, row42, "w1", func(r *bench.Result) { r.IOPS = 69_999 }, true},
		{[]string{"Clade 4+2: 4 KiB write, qd 64,"}, row42, "w64", func(r *bench.Result) { r.IOPS = 60_001 }, false},
		{[]string{"Clade 2+1: p99.9", "write, qd 16"}, row21, "w16", func(r *bench.Result) { r.Latency.P999 = 1001 }, true},
	} {
		tab := measured()
		tc.change(tab.Cells[tc.row][tc.col][0])
		if v := find(t, judge(tab), tc.what...); v.Met == tc.missed {
			t.Errorf("%s with %g against %g: %s", v.Text, v.Value, v.Limit, v.word())
		}
	}
}

func TestTheBestRoundCounts(t *testing.T) {
	var tab table
	for _, iops := range []float64{5, 9, 7} {
		tab.add(row21, "w1", &bench.Result{IOPS: iops})
	}
	if v, ok := tab.rate(row21, "w1"); !ok || v != 9 {
		t.Errorf("%g %v", v, ok)
	}
	if v, ok := tab.rate(row21, "w16"); ok {
		t.Errorf("what was not measured is %g", v)
	}
	tab.Limits = []limit{{Name: limitRead1, PerSecond: 3}, {Name: limitRead1, PerSecond: 4}, {Name: limitRead16, PerSecond: 9}}
	if l := tab.limit(limitRead1); l.PerSecond != 4 {
		t.Errorf("limit %g", l.PerSecond)
	}
	if tab.limit(limitBigRead) != nil {
		t.Error("a limit that was not measured")
	}
}

func TestReport(t *testing.T) {
	tab := measured()
	tab.Failed = []string{"one line\nand another"}
	tab.Cells[row21]["w16"][0] = &bench.Result{IOPS: 12_345.6, TargetUsPerIO: 54.32, ClientUsPerIO: 3.21, FramesSent: 1000, Resent: 5, LongestGapUs: 7700,
		Latency: bench.Latency{P50: 1234, P99: 2345, P999: 98765}, Targets: []bench.Target{{Pid: 1}}}
	text := markdown(tab)
	for _, want := range []string{"some CPU", "12,346", "54.3 / 3.21", "1,234 / 2,345 / 98,765, 7.70", "| 5.00 |", "- one line and another", "0.12 |", "MISSED",
		"of " + "29 met", "4 KiB append + fdatasync, three files"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the report", want)
		}
	}
	columns := 0
	for line := range strings.Lines(text) { // every line of a table has as many cells as its head
		n := strings.Count(line, "|")
		switch {
		case n == 0:
			columns = 0
		case columns == 0:
			columns = n
		case n != columns:
			t.Errorf("%d bars, want %d: %s", n, columns, line)
		}
	}
	if strings.Contains(text, "quiet machine") {
		t.Error("a quiet run is called disturbed")
	}
	tab.Cells[row21]["r1"][0].Others = 100
	if !strings.Contains(markdown(tab), "quiet machine") {
		t.Error("a disturbed run is not called so")
	}
	tab.Cells[row21]["r1"][0].Others = 0
	if strings.Contains(markdown(&table{}), "NaN") {
		t.Error("an empty table divides by zero")
	}
	raw, err := json.Marshal(tab)
	var back table
	if err = errors.Join(err, json.Unmarshal(raw, &back)); err != nil || markdown(&back) != text {
		t.Errorf("the JSON does not give the same report: %v", err)
	}
}

func TestPictureIsWellFormed(t *testing.T) {
	for _, tab := range []*table{measured(), {}} {
		dec := xml.NewDecoder(strings.NewReader(string(picture(tab))))
		bars := 0
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				bars++
			}
		}
		if want := len(tab.Cells) * len(loads); bars != want {
			t.Errorf("%d bars, want %d", bars, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.5: "1.50", 12.34: "12.3", 123.4: "123", 1234: "1,234", 1234567: "1,234,567", 999.6: "1,000"} {
		if got := number(v); got != want {
			t.Errorf("%g is %s, want %s", v, got, want)
		}
	}
}

func TestPick(t *testing.T) {
	for wanted, want := range map[string][]string{
		"":            allRows,
		"Clade 2+1":   {row21},
		"2+1":         {row21, row21Small},
		"null, 4+2":   {rowNull, row42},
		"nothing":     nil,
		"vblade,null": {rowNull, rowVblade},
	} {
		if got := pick(allRows, wanted); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", wanted, got, want)
		}
	}
	if got := pick(loadNames(), "w1,r64"); !slices.Equal(got, []string{"w1", "r64"}) {
		t.Errorf("%v", got)
	}
}

func TestEveryLimitIsMeasured(t *testing.T) {
	dir := t.TempDir()
	if testing.Short() {
		t.Skip("writes half a gigabyte")
	}
	found, err := measureLimits(dir, 20*time.Millisecond, diskProbes)
	if err != nil {
		t.Skipf("needs a file system with O_DIRECT: %v", err)
	}
	for i, l := range found {
		if l.Name != diskProbes[i].name || l.PerSecond <= 0 || l.P50Us <= 0 || l.P50Us > l.P99Us {
			t.Errorf("%+v", l)
		}
	}
	for col, name := range limitOf {
		if findLoad(col) == nil || !slices.ContainsFunc(diskProbes, func(p diskProbe) bool { return p.name == name }) {
			t.Errorf("column %s is held against %s", col, name)
		}
	}
}

// TestWholeRun measures two targets for moments: that everything comes up, is measured, and goes away again.
func TestWholeRun(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI lacks root, for network namespaces, or ip, of the package iproute2")
		}
		t.Skip("needs root, for network namespaces, and ip, of the package iproute2")
	}
	const root = "/var/tmp"
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Type == tmpfsMagic {
		t.Skipf("needs %s on a disk", root)
	}
	out := t.TempDir()
	program := filepath.Join(out, "clade")
	if text, err := exec.Command("go", "build", "-o", program, "clade/cmd/clade").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	var log strings.Builder
	if err := run(t.Context(), &log, []string{"--dir", root, "--clade", program, "--out", out, "--each", "200ms", "--rounds", "2",
		"--rows", "null,1+0 on tmpfs", "--loads", "w1,r16"}); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	raw, err := os.ReadFile(filepath.Join(out, "bench.json"))
	var tab table
	if err = errors.Join(err, json.Unmarshal(raw, &tab)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{rowNull, rowRAM} {
		for _, col := range []string{"w1", "r16"} {
			if r := tab.best(row, col); r == nil || len(tab.Cells[row][col]) != 2 || r.Ops == 0 || r.Depth != findLoad(col).depth || (r.Writes > 0) != findLoad(col).write {
				t.Errorf("%s, %s: %+v", row, col, r)
			}
		}
	}
	if r := tab.best(rowRAM, "w1"); r != nil && len(r.Targets) != 2 {
		t.Errorf("a node is a worker and a guardian, but processor time is of %+v", r.Targets)
	}
	if len(tab.Failed) > 0 || !strings.Contains(log.String(), "Clade 1+0 on tmpfs") {
		t.Errorf("%v\n%s", tab.Failed, log.String())
	}
	pattern := fmt.Sprintf("%s%d*", namePrefix, os.Getpid())
	for _, dir := range []string{root, "/run/netns"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestReadsFromMemoryAreNotFromDisk(t *testing.T) {
	for perIO, want := range map[float64]bool{0: false, 2047: false, 2048: true, 7000: true} {
		if got := fromDisk(&bench.Result{SizeBytes: 4096, DiskReadPerIO: perIO}); got != want {
			t.Errorf("%g bytes of 4096: %v", perIO, got)
		}
	}
}

func TestAutogroup(t *testing.T) {
	for s, want := range map[string]struct {
		nice int
		ok   bool
	}{"/autogroup-12 nice 0\n": {0, true}, "/autogroup-1 nice -10": {-10, true}, "/autogroup-1 nice x": {}, "": {}} {
		if nice, ok := parseAutogroup(s); nice != want.nice || ok != want.ok {
			t.Errorf("%q: %d %v", s, nice, ok)
		}
	}
}

func TestNothingToMeasure(t *testing.T) {
	for _, args := range [][]string{{"--rows", "nobody"}, {"--loads", "x"}, {"--each", "0"}, {"--rounds", "0"}, {"more"}, {"--unknown"}} {
		if err := run(t.Context(), io.Discard, args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
