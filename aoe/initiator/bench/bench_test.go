package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/initiator/initiatortest"
	"clade/aoe/link"
)

// rig is a switch in memory with a port for the measuring side.
type rig struct {
	sw   *link.Switch
	port link.Port
}

func newRig(t *testing.T, mtu int) *rig {
	t.Helper()
	sw := link.NewSwitch(link.SwitchConfig{MTU: mtu})
	p, err := sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 1, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{sw, p}
}

// null starts a null target e9.1.
func (r *rig) null(t *testing.T, sizeBytes uint64) *Null {
	t.Helper()
	p, err := r.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNull(p, 9, 1, sizeBytes)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Serve() }()
	t.Cleanup(func() {
		n.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return n
}

// disk starts a target e9.1 that stores.
func (r *rig) disk(t *testing.T, sectors uint64) *initiatortest.Target {
	t.Helper()
	p, err := r.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 0, 2}})
	if err != nil {
		t.Fatal(err)
	}
	target := &initiatortest.Target{Port: p, MAC: aoe.MAC{2, 2, 0, 0, 0, 2}, Shelf: 9, Slot: 1, Sectors: sectors, BufferCount: 32, SectorCount: 16}
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Stop() })
	return target
}

const testNs = secondNs / 5

func TestRunCountsWhatTheNullTargetAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		mtu    int
		cfg    Config
		frames uint64 // per operation
	}{
		{"small random reads", 9000, Config{Op: Read, Depth: 16}, 1},
		{"small random writes of small frames", 1500, Config{Op: Write, Depth: 4}, 4},
		{"large sequential writes", 9000, Config{Op: Write, SizeBytes: 1 << 20, Depth: 2, Sequential: true}, 128},
		{"large sequential reads", 9000, Config{Op: Read, SizeBytes: 1 << 20, Depth: 2, Sequential: true}, 128},
		{"both", 9000, Config{Op: Mixed, Depth: 8, ReadPercent: 30}, 1},
		{"many initiators", 9000, Config{Op: Read, Depth: 2, MACs: macs(50)}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.mtu)
			null := r.null(t, 64<<20)
			cfg := tc.cfg
			cfg.Ports, cfg.Shelf, cfg.Slot, cfg.MeasureNs, cfg.WarmUpNs = []link.Port{r.port}, 9, 1, testNs, testNs/10
			res, err := Run(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if res.Ops == 0 || res.Ops != res.Reads+res.Writes {
				t.Fatalf("%d operations: %d reads, %d writes", res.Ops, res.Reads, res.Writes)
			}
			if served := null.Served(); served < res.Ops*tc.frames {
				t.Errorf("%d operations of %d frames, but the target has answered %d frames", res.Ops, tc.frames, served)
			}
			if sent := res.FramesSent - res.Resent; sent < (res.Ops-uint64(cfg.Depth*len(cfg.MACs)))*tc.frames/2 {
				t.Errorf("%d operations of %d frames, but %d frames sent", res.Ops, tc.frames, sent)
			}
			if share := float64(res.Reads) / float64(res.Ops); cfg.Op == Read && share != 1 || cfg.Op == Write && share != 0 || cfg.Op == Mixed && res.Ops > 1000 && (share < 0.2 || share > 0.4) {
				t.Errorf("%s: %d of %d were reads", cfg.Op, res.Reads, res.Ops)
			}
			l := res.Latency
			if l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
				t.Errorf("percentiles %+v", l)
			}
			if res.LongestGapUs <= 0 || res.LongestGapUs > res.Seconds*1e6 {
				t.Errorf("longest gap %g µs in %g s", res.LongestGapUs, res.Seconds)
			}
		})
	}
}

func macs(n int) []aoe.MAC {
	var out []aoe.MAC
	for i := range n {
		out = append(out, aoe.MAC{2, 3, 0, 0, 0, byte(i)})
	}
	return out
}

// TestWritesStayInTheSpan: what is outside belongs to somebody.
func TestWritesStayInTheSpan(t *testing.T) {
	const mib = 1 << 20
	for _, sequential := range []bool{false, true} {
		r := newRig(t, 9000)
		target := r.disk(t, 8*mib/512)
		res, err := Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Write, Depth: 8, MACs: macs(3), Fill: true, Sequential: sequential,
			StartBytes: 2 * mib, SpanBytes: 3*mib + 512, MeasureNs: testNs})
		if err != nil {
			t.Fatal(err)
		}
		if res.SpanBytes != 3*mib {
			t.Errorf("the span is %d bytes", res.SpanBytes)
		}
		disk := target.Disk()
		zeros := make([]byte, 4096)
		for at := 0; at < len(disk); at += 4096 {
			written := !bytes.Equal(disk[at:at+4096], zeros)
			if inside := at >= 2*mib && at < 5*mib; written != inside {
				t.Fatalf("sequential %v: 4 KiB at %d: written %v, in the span %v", sequential, at, written, inside)
			}
		}
	}
}

// TestFillReachesEverything: also what is left over by many initiators with unequal shares.
func TestFillReachesEverything(t *testing.T) {
	for _, tc := range []struct{ macs, size int }{{1, 4096}, {7, 512}, {3, 1 << 20}} {
		r := newRig(t, 9000)
		target := r.disk(t, 10<<20/512)
		if _, err := Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Read, SizeBytes: tc.size, MACs: macs(tc.macs), Fill: true, MeasureNs: secondNs / 100}); err != nil {
			t.Fatal(err)
		}
		disk := target.Disk()
		for at := 0; at < len(disk); at += 512 {
			if bytes.Equal(disk[at:at+512], make([]byte, 512)) {
				t.Fatalf("%d initiators, size %d: nothing at %d", tc.macs, tc.size, at)
			}
		}
	}
}

func TestReadsWriteNothing(t *testing.T) {
	r := newRig(t, 9000)
	target := r.disk(t, 2048)
	if _, err := Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Read, Depth: 4, MeasureNs: testNs}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(target.Disk(), make([]byte, 2048*512)) {
		t.Error("a read has written")
	}
}

func TestRunEndsWhenNobodyAnswers(t *testing.T) {
	r := newRig(t, 9000)
	_, err := Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Read, TimeoutNs: secondNs / 20})
	if !errors.Is(err, initiator.ErrTimeout) {
		t.Errorf("no target: %v", err)
	}
	stop := make(chan struct{})
	close(stop)
	if _, err = Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Read, Stop: stop}); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
}

func TestRunRefusesWhatDoesNotFit(t *testing.T) {
	r := newRig(t, 9000)
	r.null(t, 1<<20)
	good := Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Read, MeasureNs: testNs}
	for name, change := range map[string]func(c *Config){
		"no operation":            func(c *Config) { c.Op = 0 },
		"half a sector":           func(c *Config) { c.SizeBytes = 700 },
		"too large":               func(c *Config) { c.SizeBytes = 2 << 20 },
		"too deep":                func(c *Config) { c.Depth = 5000 },
		"negative depth":          func(c *Config) { c.Depth = -1 },
		"too much memory":         func(c *Config) { c.SizeBytes, c.Depth, c.MACs = 1<<20, 1024, macs(2) },
		"only reads in the mix":   func(c *Config) { c.Op, c.ReadPercent = Mixed, 100 },
		"begins inside a sector":  func(c *Config) { c.StartBytes = 100 },
		"begins behind the end":   func(c *Config) { c.StartBytes = 1 << 20 },
		"ends behind the end":     func(c *Config) { c.SpanBytes = 2 << 20 },
		"no room for one":         func(c *Config) { c.SpanBytes = 2048 },
		"a process that is not":   func(c *Config) { c.Pids = []int{1 << 30} },
		"no room for all writers": func(c *Config) { c.SpanBytes, c.MACs = 16384, macs(5) },
	} {
		c := good
		change(&c)
		if res, err := Run(c); err == nil {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

func TestProcessTime(t *testing.T) {
	for raw, want := range map[string]struct {
		name string
		ns   int64
	}{
		"1 (a) S 0 1 1 0 -1 4194560 1 2 3 4 250 50 9 9 20 0 1 0": {"a", 3 * secondNs},
		"1 (a) b (c) S 0 1 1 0 -1 4194560 1 2 3 4 0 1 9 9 20 0":  {"a) b (c", secondNs / 100},
		"1 (a S 0 1 1 0 -1 4194560 1 2 3 4 0 1 9 9 20 0":         {},
		"1 (a) S 0 1 1": {},
		"1 (a) S 0 1 1 0 -1 4194560 1 2 3 4 x 1 9 9": {},
		"": {},
	} {
		name, ns, err := parseStat([]byte(raw))
		if name != want.name || ns != want.ns || (err == nil) != (want.name != "") {
			t.Errorf("%q: %q, %d ns, %v", raw, name, ns, err)
		}
	}
}

func TestBusyProcessors(t *testing.T) {
	for raw, want := range map[string]int64{
		"cpu  100 20 30 5000 600 7 8 9 1 0\ncpu0 1 2 3 4": 174 * tickNs,
		"cpu0 100 20 30 5000 600 7 8 9 1 0":               0,
		"cpu 1 2 3":                                       0,
		"cpu  100 20 x 5000 600 7 8 9 1 0":                0,
		"":                                                0,
	} {
		if got := parseBusy([]byte(raw)); got != want {
			t.Errorf("%q: %d, want %d", raw, got, want)
		}
	}
}

func TestDiskBytes(t *testing.T) {
	r, w := parseIO([]byte("rchar: 1\nwchar: 2\nsyscr: 3\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 7\n"))
	if r != 4096 || w != 8192 {
		t.Errorf("%d read, %d written", r, w)
	}
	if r, w := parseIO([]byte("read_bytes: many\nnonsense")); r != 0 || w != 0 {
		t.Errorf("nonsense: %d read, %d written", r, w)
	}
}

func TestResultForPeopleAndScripts(t *testing.T) {
	r := &Result{Address: "e7.1", Op: "mixed", SizeBytes: 4096, Depth: 16, Initiators: 3, SpanBytes: 1 << 30, Seconds: 10, Ops: 123456, Reads: 60000, Writes: 63456,
		IOPS: 12345.6, MBps: 50.567, Latency: Latency{Mean: 1234.5, P50: 999.4, P90: 2000, P99: 31234, P999: 1.5e6, Max: 2e6}, LongestGapUs: 18765,
		FramesSent: 123500, Resent: 44, Unexpected: 2, ClientUsPerIO: 3.21, TargetUsPerIO: 10.6, Others: 0.24, DiskReadPerIO: 100, DiskWritePerIO: 12345,
		Targets: []Target{{Pid: 12, Name: "clade", UsPerIO: 10, Share: 0.5}, {Pid: 13, Name: "clade", UsPerIO: 0.6, Share: 0.01}}}
	var out strings.Builder
	r.WriteText(&out)
	for _, want := range []string{"e7.1: 4.0 KiB random mixed, depth 16, 3 initiators, over 1.0 GiB for 10.0 s", "12,346 IOPS, 50.6 MB/s", "60,000 reads, 63,456 writes",
		"p50 999µs, p90 2ms, p99 31.2ms, p99.9 1.5s, max 2s", "longest gap  18.8ms", "123,500 sent, 44 of them again; 2 answers too late",
		"client 3.2 µs, target 10.6 µs; others kept 0.24 processors busy", "100 B read, 12 KiB written", "13       clade            0.6 µs, 1 % of a processor"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(raw, &back); err != nil || back.Latency != r.Latency || back.IOPS != r.IOPS || len(back.Targets) != 2 {
		t.Errorf("%v: %+v", err, back)
	}
}
