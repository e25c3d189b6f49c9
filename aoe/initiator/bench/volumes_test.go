package bench

import (
	"bytes"
	"testing"

	"clade/aoe"
	"clade/aoe/link"
)

// nulls starts null targets e9.1, e9.2, ... on one port each.
func (r *rig) nulls(t *testing.T, n int) []*Null {
	t.Helper()
	var out []*Null
	for i := range n {
		p, err := r.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 1, byte(i)}})
		if err != nil {
			t.Fatal(err)
		}
		null, err := NewNull(p, 9, uint8(1+i), 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- null.Serve() }()
		t.Cleanup(func() {
			null.Stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		out = append(out, null)
	}
	return out
}

// TestAllVolumesAndInitiatorsGetTheirShare: in turn, whatever the depth.
func TestAllVolumesAndInitiatorsGetTheirShare(t *testing.T) {
	r := newRig(t, 9000)
	nulls := r.nulls(t, 3)
	also := []Volume{{9, 2}, {9, 3}}
	res, err := Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Also: also, Op: Read, TotalDepth: 5, MACs: macs(4), Fill: true, SpanBytes: 1 << 20, MeasureNs: testNs})
	if err != nil {
		t.Fatal(err)
	}
	if res.Volumes != 3 || res.Initiators != 4 || res.TotalDepth != 5 || res.Address != "e9.1 and 2 more" || res.SpanBytes != 1<<20 {
		t.Errorf("%+v", res)
	}
	first := nulls[0].Served()
	for i, n := range nulls {
		if got := n.Served(); got == 0 || got > first+first/10+20 || first > got+got/10+20 {
			t.Errorf("volume %d has answered %d times, the first %d", i+1, got, first)
		}
	}
}

// TestTotalDepthIsOfAllTogether: and each session may have less than one.
func TestTotalDepthIsOfAllTogether(t *testing.T) {
	r := newRig(t, 9000)
	r.nulls(t, 2)
	for _, depth := range []int{1, 7, 100} {
		cfg := Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Also: []Volume{{9, 2}}, Op: Read, TotalDepth: depth, MACs: macs(8)}.withDefaults()
		e, err := newEngine(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.identify(); err != nil {
			t.Fatal(err)
		}
		if err := e.layOut(); err != nil {
			t.Fatal(err)
		}
		e.begin(phase{name: "measure", op: Read, size: cfg.SizeBytes, random: true, submit: true, endNs: e.clock() + testNs/10})
		pending := 0
		for _, s := range e.sessions {
			pending += s.dev.Pending()
		}
		if pending != depth || e.ops < uint64(depth) {
			t.Errorf("%d operations in flight after %d, want %d", pending, e.ops, depth)
		}
		if err := e.drain(); err != nil {
			t.Error(err)
		}
		e.close()
	}
}

// TestPlacesAreSpread: one in each part of the span, and nothing else is touched.
func TestPlacesAreSpread(t *testing.T) {
	const mib, places = 1 << 20, 16
	r := newRig(t, 9000)
	target := r.disk(t, 10*mib/512)
	res, err := Run(Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Write, Depth: 4, Fill: true, StartBytes: mib, SpanBytes: 8 * mib, Places: places, MACs: macs(3), MeasureNs: testNs})
	if err != nil {
		t.Fatal(err)
	}
	if res.Places != places || res.SpanBytes != places*4096 {
		t.Errorf("%d places, %d bytes", res.Places, res.SpanBytes)
	}
	disk, offsets := target.Disk(), map[int]bool{}
	var written [places]int
	for at := 0; at < len(disk); at += 4096 {
		if bytes.Equal(disk[at:at+4096], make([]byte, 4096)) {
			continue
		}
		if at < mib || at >= 9*mib {
			t.Fatalf("written outside of the span, at %d", at)
		}
		part := (at - mib) / (8 * mib / places)
		written[part]++
		offsets[(at-mib)%(8*mib/places)] = true
	}
	for i, n := range written {
		if n != 1 {
			t.Errorf("%d places in part %d", n, i)
		}
	}
	if len(offsets) < places/2 {
		t.Errorf("the places are at %d different offsets of their parts", len(offsets))
	}
}

func TestRunRefusesTooManyVolumes(t *testing.T) {
	r := newRig(t, 9000)
	good := Config{Ports: []link.Port{r.port}, Shelf: 9, Slot: 1, Op: Read}
	twice, many, sessions, deep := good, good, good, good
	twice.Also = []Volume{{9, 2}, {9, 1}}
	for i := range 300 {
		many.Also = append(many.Also, Volume{8, uint8(i)})
	}
	sessions.Also, sessions.MACs = many.Also[:200], macs(100)
	deep.TotalDepth = 5000
	for name, c := range map[string]Config{"one twice": twice, "300": many, "too many sessions": sessions, "too deep": deep} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
