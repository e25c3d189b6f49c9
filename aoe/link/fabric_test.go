package link_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"clade/aoe"
	"clade/aoe/link"
	"clade/aoe/link/linktest"
)

// station is a station's address.
func station(i int) aoe.MAC { return aoe.MAC{2, 0, 0, 0, 0, byte(i)} }

// reach returns the ports that a frame from a station behind a port reaches.
func reach(f *link.Fabric, nowNs int64, from link.FabricPort, dst, src aoe.MAC) []link.FabricPort {
	ports := []link.FabricPort{}
	for _, d := range f.Transmit(nil, nowNs, from, linktest.Frame(dst, src, 0, 1, 1, 60)) {
		ports = append(ports, d.Port)
	}
	return ports
}

func newFabric(ports int, cfg link.FabricConfig) *link.Fabric {
	f := link.NewFabric(cfg)
	for range ports {
		f.AddPort()
	}
	return f
}

func TestFabric(t *testing.T) {
	type ports = []link.FabricPort
	const second = int64(1e9)
	group := aoe.MAC{1, 0, 0, 0, 0, 9}
	f := newFabric(4, link.FabricConfig{})
	steps := []struct {
		name     string
		before   func()
		nowNs    int64
		from     link.FabricPort
		dst, src aoe.MAC
		want     ports
	}{
		{"unknown unicast is flooded", nil, 0, 0, station(2), station(0), ports{1, 2, 3}},
		{"a learnt address is not", nil, 1, 2, station(0), station(2), ports{0}},
		{"nor is the other", nil, 2, 0, station(2), station(0), ports{2}},
		{"broadcast is flooded", nil, 3, 2, aoe.Broadcast, station(2), ports{0, 1, 3}},
		{"multicast is flooded", nil, 4, 2, group, station(2), ports{0, 1, 3}},
		{"nothing comes back where it came from", nil, 5, 0, station(0), station(5), ports{}},
		{"a group is no source", nil, 6, 1, station(0), group, ports{0}},
		{"and was not learnt", nil, 7, 0, group, station(0), ports{1, 2, 3}},
		{"any frame moves an address", nil, 8, 3, station(0), station(2), ports{0}},
		{"to its new port", nil, 9, 0, station(2), station(0), ports{3}},
		{"known until the last moment", nil, 300*second + 7, 1, station(2), station(1), ports{3}},
		{"forgotten with age", nil, 300*second + 8, 1, station(2), station(1), ports{0, 2, 3}},
		{"a cut loses one way", func() { f.SetCut(1, 2, true) }, 400 * second, 1, aoe.Broadcast, station(1), ports{0, 3}},
		{"but not the other", nil, 400 * second, 2, aoe.Broadcast, station(2), ports{0, 1, 3}},
		{"a cut does not stop learning", nil, 401 * second, 0, station(1), station(0), ports{1}},
		{"known but cut: lost", nil, 402 * second, 1, station(2), station(1), ports{}},
		{"healed", func() { f.SetCut(1, 2, false) }, 403 * second, 1, station(2), station(1), ports{2}},
		{"a port that is down gets nothing", func() { f.SetUp(2, false) }, 404 * second, 1, aoe.Broadcast, station(1), ports{0, 3}},
		{"sends nothing", nil, 404 * second, 2, aoe.Broadcast, station(2), ports{}},
		{"and its addresses are forgotten", func() { f.SetUp(2, true) }, 405 * second, 1, station(2), station(1), ports{0, 2, 3}},
	}
	for _, s := range steps {
		if s.before != nil {
			s.before()
		}
		if got := reach(f, s.nowNs, s.from, s.dst, s.src); !slices.Equal(got, s.want) {
			t.Fatalf("%s: reached %v, want %v", s.name, got, s.want)
		}
	}
}

// TestFabricForgetsToMakeRoom: a full table learns nothing new until something
// in it has aged, and flooding goes on.
func TestFabricForgetsToMakeRoom(t *testing.T) {
	f := newFabric(2, link.FabricConfig{EntriesMax: 2, AgeNs: 100})
	reach(f, 0, 0, aoe.Broadcast, station(1))
	reach(f, 50, 0, aoe.Broadcast, station(2))
	reach(f, 60, 0, aoe.Broadcast, station(3))
	if _, known := f.Lookup(60, station(3)); known {
		t.Error("learnt beyond the limit")
	}
	reach(f, 100, 0, aoe.Broadcast, station(3))
	if _, known := f.Lookup(100, station(3)); !known {
		t.Error("not learnt although an entry had aged")
	}
	if _, known := f.Lookup(100, station(2)); !known {
		t.Error("forgot one that was young enough")
	}
}

// TestFabricFate: loss, copies and delays are done as told, and only to the
// port they are meant for.
func TestFabricFate(t *testing.T) {
	f := newFabric(4, link.FabricConfig{Fate: func(nowNs int64, from, to link.FabricPort, frame []byte) link.Fate {
		switch to {
		case 1:
			return link.Fate{Drop: true}
		case 2:
			return link.Fate{DelayNs: 5, Copy: true, CopyDelayNs: 3}
		}
		return link.Fate{}
	}})
	frame := linktest.Frame(aoe.Broadcast, station(0), 0, 1, 1, 60)
	got := ""
	for _, d := range f.Transmit(nil, 100, 0, frame) {
		got += fmt.Sprintf("%d@%d ", d.Port, d.AtNs)
		if &d.Data[0] != &frame[0] {
			t.Error("the frame was copied")
		}
	}
	if got != "2@105 2@103 3@100 " {
		t.Errorf("delivered %s", got)
	}
}

// TestFabricLikeModel compares random histories with a switch that is so
// simple that it can be seen to be right: it keeps a list of what it has heard.
func TestFabricLikeModel(t *testing.T) {
	const ports, stations, ageNs = 5, 6, 40
	type heard struct {
		port, station int
		atNs          int64
	}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := newFabric(ports, link.FabricConfig{AgeNs: ageNs})
		up := [ports]bool{true, true, true, true, true}
		var cut [ports][ports]bool
		var log []heard
		nowNs := int64(0)
		for step := range 300 {
			nowNs += rng.Int64N(8)
			switch rng.IntN(12) {
			case 0:
				p := rng.IntN(ports)
				up[p] = !up[p]
				f.SetUp(link.FabricPort(p), up[p])
				if !up[p] {
					log = slices.DeleteFunc(log, func(h heard) bool { return h.port == p })
				}
			case 1:
				a, b := rng.IntN(ports), rng.IntN(ports)
				cut[a][b] = !cut[a][b]
				f.SetCut(link.FabricPort(a), link.FabricPort(b), cut[a][b])
			default:
				from, src, dst := rng.IntN(ports), rng.IntN(stations), rng.IntN(stations)
				want := []link.FabricPort{}
				if up[from] {
					// Hearing a station replaces what was heard of it before.
					log = slices.DeleteFunc(log, func(h heard) bool { return h.station == src })
					log = append(log, heard{from, src, nowNs})
					only := -1
					for _, h := range log {
						if h.station == dst && nowNs-h.atNs < ageNs {
							only = h.port
						}
					}
					for p := range ports {
						if p != from && up[p] && !cut[from][p] && (only == -1 || only == p) {
							want = append(want, link.FabricPort(p))
						}
					}
				}
				if got := reach(f, nowNs, link.FabricPort(from), station(dst), station(src)); !slices.Equal(got, want) {
					t.Fatalf("seed %d step %d: %d to %d from port %d reached %v, want %v", seed, step, src, dst, from, got, want)
				}
			}
		}
	}
}

// newPorts returns a switch with a clock of its own and ports on it.
func newPorts(t *testing.T, cfg link.SwitchConfig, ports int) (*link.Switch, []*link.SwitchPort) {
	t.Helper()
	sw := link.NewSwitch(cfg)
	var all []*link.SwitchPort
	for i := range ports {
		p, err := sw.NewPort(link.SwitchPortConfig{MAC: station(i), QueueFrames: 8, Promiscuous: i == 2})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return sw, all
}

// numbers receives everything that waits and returns "number@time" of each.
func numbers(t *testing.T, p *link.SwitchPort) string {
	t.Helper()
	batch := make([]link.RxFrame, 16)
	n, err := p.Receive(batch)
	if err != nil {
		t.Fatal(err)
	}
	s := ""
	for _, f := range batch[:n] {
		s += fmt.Sprintf("%d@%d ", binary.BigEndian.Uint32(f.Data[20:]), f.TimeNs)
	}
	return s
}

func sendTo(t *testing.T, p *link.SwitchPort, dst aoe.MAC, number uint32) {
	t.Helper()
	if n, err := p.Send([]link.TxFrame{{Header: linktest.Frame(dst, p.MAC(), 0, 1, number, 60)}}); n != 1 || err != nil {
		t.Fatalf("sent %d: %v", n, err)
	}
}

// TestSwitchDelays: delayed frames arrive when their time has come, in order
// of time, and not at a port that went down meanwhile.
func TestSwitchDelays(t *testing.T) {
	nowNs := int64(1000)
	delays := map[uint32]int64{1: 50, 2: 20, 3: 0, 4: 20}
	sw, p := newPorts(t, link.SwitchConfig{
		Clock: func() int64 { return nowNs },
		Fabric: link.FabricConfig{Fate: func(_ int64, _, _ link.FabricPort, frame []byte) link.Fate {
			return link.Fate{DelayNs: delays[binary.BigEndian.Uint32(frame[20:])]}
		}},
	}, 2)
	for i := uint32(1); i <= 4; i++ {
		sendTo(t, p[0], p[1].MAC(), i)
	}
	for _, step := range []struct {
		nowNs int64
		want  string
	}{{1000, "3@1000 "}, {1019, ""}, {1020, "2@1020 4@1020 "}, {1100, "1@1050 "}} {
		nowNs = step.nowNs
		sw.Settle()
		if got := numbers(t, p[1]); got != step.want {
			t.Errorf("at %d: %q, want %q", step.nowNs, got, step.want)
		}
	}
	sendTo(t, p[0], p[1].MAC(), 1)
	sw.SetState(p[1], link.StateDown)
	nowNs = 2000
	sw.Settle()
	sw.SetState(p[1], link.StateUp)
	if _, err := p[1].Receive(nil); err == nil {
		t.Error("going down was not reported")
	}
	if got := numbers(t, p[1]); got != "" {
		t.Errorf("%q arrived at a port that was down", got)
	}
}

// TestSwitchFloodsToListeners: a port like a network card ignores what is for
// others, a promiscuous one does not; a joined address counts as its own.
func TestSwitchFloodsToListeners(t *testing.T) {
	_, p := newPorts(t, link.SwitchConfig{Clock: func() int64 { return 0 }}, 4)
	serving := aoe.MAC{2, 0xae, 0, 0, 0, 1}
	if err := p[3].Join(serving); err != nil {
		t.Fatal(err)
	}
	sendTo(t, p[0], serving, 1)
	for i, want := range []string{"", "", "1@0 ", "1@0 "} {
		if got := numbers(t, p[i]); got != want {
			t.Errorf("port %d: %q, want %q", i, got, want)
		}
	}
	if err := p[3].Leave(serving); err != nil {
		t.Fatal(err)
	}
	sendTo(t, p[0], serving, 2)
	if got := numbers(t, p[3]); got != "" {
		t.Errorf("after leaving: %q", got)
	}
}

// TestSwitchQueueBound: a queue holds what it says and no more.
func TestSwitchQueueBound(t *testing.T) {
	_, p := newPorts(t, link.SwitchConfig{Clock: func() int64 { return 0 }}, 2)
	for i := range uint32(10) {
		sendTo(t, p[0], p[1].MAC(), i)
	}
	if got := numbers(t, p[1]); got != "0@0 1@0 2@0 3@0 4@0 5@0 6@0 7@0 " {
		t.Errorf("kept %q", got)
	}
	if s := p[1].Stats(); s.RxDropped != 2 {
		t.Errorf("%d dropped", s.RxDropped)
	}
}

// TestSwitchCut: a one-way cut between ports.
func TestSwitchCut(t *testing.T) {
	sw, p := newPorts(t, link.SwitchConfig{Clock: func() int64 { return 0 }}, 2)
	sw.SetCut(p[0], p[1], true)
	sendTo(t, p[0], p[1].MAC(), 1)
	sendTo(t, p[1], p[0].MAC(), 2)
	if a, b := numbers(t, p[0]), numbers(t, p[1]); a != "2@0 " || b != "" {
		t.Errorf("received %q and %q", a, b)
	}
}
