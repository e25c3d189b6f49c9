package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/initiator/initiatortest"
	"clade/aoe/initiator/load"
	"clade/aoe/link"
)

var hostMAC = aoe.MAC{2, 1, 0, 0, 0, 1}

// newSAN makes a switch with a target e7.1 of 4 MiB and a host. fault may be nil.
func newSAN(t *testing.T, fault func(frame []byte, answer bool) int) (*initiator.Host, *initiatortest.Target) {
	t.Helper()
	return newSANOf(t, false, fault)
}

// newSANOf is newSAN with the choice between the naive target and aoe.Target.
func newSANOf(t *testing.T, real bool, fault func(frame []byte, answer bool) int) (*initiator.Host, *initiatortest.Target) {
	t.Helper()
	sw := link.NewSwitch(link.SwitchConfig{MTU: 9000})
	port := func(cfg link.SwitchPortConfig) link.Port {
		p, err := sw.NewPort(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	target := &initiatortest.Target{Port: port(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 0, 1}}), MAC: aoe.MAC{2, 0xae, 0, 0, 0, 1},
		Shelf: 7, Slot: 1, Sectors: 8192, BufferCount: 32, SectorCount: 16, Fault: fault, Real: real}
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Stop)
	host, err := initiator.NewHost(initiator.HostConfig{Ports: []link.Port{port(link.SwitchPortConfig{MAC: hostMAC})}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return host, target
}

func newClient(t *testing.T, h *initiator.Host, cfg initiator.Config) *initiator.Client {
	t.Helper()
	if cfg.MAC == (aoe.MAC{}) {
		cfg.MAC = initiator.NewMAC()
	}
	cfg.Shelf, cfg.Slot = 7, 1
	c, err := h.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lossy loses and duplicates in both directions.
func lossy(seed uint64, loss, dup int) func([]byte, bool) int {
	rng := rand.New(rand.NewPCG(seed, 1))
	return func([]byte, bool) int {
		switch n := rng.IntN(100); {
		case n < loss:
			return 0
		case n < loss+dup:
			return 2
		}
		return 1
	}
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestClientReadsBackWhatItWrote(t *testing.T) {
	for name, cfg := range map[string]initiator.Config{"library": {}, "iPXE": {Mode: initiator.ModeIPXE}, "Linux": {Mode: initiator.ModeLinux}} {
		for _, real := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, aoe.Target %v", name, real), func(t *testing.T) { readBack(t, cfg, real) })
		}
	}
}

func readBack(t *testing.T, cfg initiator.Config, real bool) {
	h, target := newSANOf(t, real, nil)
	c := newClient(t, h, cfg)
	ctx := timeout(t, time.Minute)
	id, err := c.Identify(ctx)
	if err != nil || id.Sectors != 8192 || id.Model != "initiatortest" || id.Serial != "serial-1" || id.Firmware != "1.0" || !id.LBA48 {
		t.Fatalf("identify: %+v, %v", id, err)
	}
	data := make([]byte, 100*512)
	rand.NewChaCha8([32]byte{1}).Read(data)
	if err := c.WriteAt(ctx, data, 33*512); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(target.Disk()[33*512:][:len(data)], data) {
		t.Fatal("the target holds other data")
	}
	got := make([]byte, len(data))
	if err := c.ReadAt(ctx, got, 33*512); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read back: %v, equal %v", err, bytes.Equal(got, data))
	}
	if err := c.ReadAt(ctx, got, 3); !errors.Is(err, initiator.ErrRange) {
		t.Errorf("an unaligned read gives %v", err)
	}
	var ata *initiator.ATAError
	if err := c.ReadAt(ctx, got, 8190*512); !errors.As(err, &ata) {
		t.Errorf("a read beyond the end gives %v", err)
	}
}

func TestClientSurvivesLossAndDuplication(t *testing.T) {
	h, target := newSAN(t, lossy(1, 5, 5))
	c := newClient(t, h, initiator.Config{})
	ctx := timeout(t, time.Minute)
	want := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{2}).Read(want)
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			off := int64(i) << 16
			if err := c.WriteAt(ctx, want[off:off+1<<16], off); err != nil {
				t.Errorf("write at %d: %v", off, err)
			}
		}()
	}
	wait.Wait()
	if !bytes.Equal(target.Disk()[:len(want)], want) {
		t.Fatal("the target holds other data")
	}
	got := make([]byte, len(want))
	if err := c.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read back: %v", err)
	}
	if st := c.Stats(); st.Resent == 0 || st.Failed != 0 || st.LongestStallNs == 0 || st.Latency.Count != st.Ops {
		t.Errorf("statistics: %+v", st)
	}
}

func TestClientTimesOutAndCancels(t *testing.T) {
	h, _ := newSAN(t, func([]byte, bool) int { return 0 })
	c := newClient(t, h, initiator.Config{})
	if err := c.WriteAt(timeout(t, 30*time.Millisecond), make([]byte, 512), 0); !errors.Is(err, initiator.ErrTimeout) {
		t.Errorf("silence gives %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.ReadAt(ctx, make([]byte, 512), 0) }()
	cancel()
	if err := <-ended; !errors.Is(err, initiator.ErrCanceled) {
		t.Errorf("cancellation gives %v", err)
	}
	before := c.Stats().Discoveries
	go func() { ended <- c.ReadAt(context.Background(), make([]byte, 512), 0) }()
	for c.Stats().Discoveries == before { // it waits
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, initiator.ErrDown) {
		t.Errorf("closing gives %v", err)
	}
	if err := c.ReadAt(context.Background(), make([]byte, 512), 0); !errors.Is(err, initiator.ErrDown) {
		t.Errorf("a closed client gives %v", err)
	}
}

func TestDiscover(t *testing.T) {
	h, target := newSAN(t, nil)
	c := newClient(t, h, initiator.Config{})
	if _, err := c.Config(timeout(t, time.Minute), initiator.ConfigSet, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	found, err := h.Discover(timeout(t, 100*time.Millisecond), hostMAC, 0xFFFF, 0xFF)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %+v, %v", found, err)
	}
	if f := found[0]; f.Shelf != 7 || f.Slot != 1 || f.MAC != target.MAC || f.BufferCount != 32 || f.SectorCount != 16 || string(f.Config) != "hello" {
		t.Errorf("found %+v", f)
	}
	if found, err = h.Discover(timeout(t, 30*time.Millisecond), hostMAC, 8, 1); err != nil || len(found) != 0 {
		t.Errorf("another shelf: found %+v, %v", found, err)
	}
}

func TestConfigMaskReserve(t *testing.T) {
	for _, real := range []bool{false, true} {
		t.Run(fmt.Sprintf("aoe.Target %v", real), func(t *testing.T) { configMaskReserve(t, real) })
	}
}

func configMaskReserve(t *testing.T, real bool) {
	h, _ := newSANOf(t, real, lossy(3, 15, 10))
	a, b := newClient(t, h, initiator.Config{}), newClient(t, h, initiator.Config{})
	ctx := timeout(t, time.Minute)

	if text, err := a.Config(ctx, initiator.ConfigSet, []byte("a's")); err != nil || string(text) != "a's" {
		t.Fatalf("set: %q, %v", text, err)
	}
	if text, err := b.Config(ctx, initiator.ConfigSet, []byte("b's")); !errors.Is(err, initiator.ErrConfigPresent) || string(text) != "a's" {
		t.Fatalf("second set: %q, %v", text, err)
	}
	for _, tc := range []struct {
		text   string
		prefix bool
		want   bool
	}{{"a's", false, true}, {"a", false, false}, {"a", true, true}, {"b", true, false}} {
		if got, err := b.TestConfig(ctx, tc.prefix, []byte(tc.text)); err != nil || got != tc.want {
			t.Errorf("test %q (prefix %v): %v, %v", tc.text, tc.prefix, got, err)
		}
	}
	if text, err := b.Config(ctx, initiator.ConfigForceSet, []byte("b's")); err != nil || string(text) != "b's" {
		t.Errorf("force set: %q, %v", text, err)
	}

	if list, err := a.Reserve(ctx, initiator.ReserveSet, a.MAC()); err != nil || len(list) != 1 || list[0] != a.MAC() {
		t.Fatalf("reserve: %v, %v", list, err)
	}
	if list, err := b.Reserve(ctx, initiator.ReserveSet, b.MAC()); !errors.Is(err, initiator.ErrReserved) || len(list) != 1 || list[0] != a.MAC() {
		t.Errorf("second reserve: %v, %v", list, err)
	}
	if err := b.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, initiator.ErrReserved) {
		t.Errorf("a write of the excluded gives %v", err)
	}
	if list, err := b.Reserve(ctx, initiator.ReserveForceSet, b.MAC()); err != nil || list[0] != b.MAC() {
		t.Errorf("force: %v, %v", list, err)
	}
	if list, err := b.Reserve(ctx, initiator.ReserveSet); err != nil || len(list) != 0 {
		t.Errorf("release: %v, %v", list, err)
	}

	if list, err := a.Mask(ctx, initiator.MaskDirective{MAC: a.MAC()}); err != nil || len(list) != 1 || list[0] != a.MAC() {
		t.Errorf("mask: %v, %v", list, err)
	}
	if err := b.ReadAt(timeout(t, 50*time.Millisecond), make([]byte, 512), 0); !errors.Is(err, initiator.ErrTimeout) {
		t.Errorf("the volume talks to somebody it must not: %v", err)
	}
	if list, err := a.Mask(ctx, initiator.MaskDirective{Delete: true, MAC: a.MAC()}); err != nil || len(list) != 0 {
		t.Errorf("mask: %v, %v", list, err)
	}
}

func TestRaceHasOneWinner(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		h, _ := newSANOf(t, seed > 1, lossy(seed, 15, 15))
		res, err := h.Race(timeout(t, time.Minute), 7, 1, 8, "host-")
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Check(); err != nil || len(res.Contenders) != 8 {
			t.Fatalf("seed %d: %v: %+v", seed, err, res)
		}
		again, err := h.Race(timeout(t, time.Minute), 7, 1, 3, "later-")
		if err != nil || again.Winners != 0 || again.Final != res.Final || again.Check() == nil {
			t.Errorf("a race for a string that is set: %+v, %v", again, err)
		}
	}
}

func TestVolumeReaderAndWriter(t *testing.T) {
	h, target := newSAN(t, nil)
	v, err := newClient(t, h, initiator.Config{}).Volume(timeout(t, time.Minute))
	if err != nil || v.Size() != 8192*512 {
		t.Fatalf("size %d, %v", v.Size(), err)
	}
	data := make([]byte, 4096)
	rand.NewChaCha8([32]byte{3}).Read(data)
	if n, err := v.WriteAt(data, v.Size()-4096); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	whole, err := io.ReadAll(io.NewSectionReader(v, v.Size()-4096+7, 1<<20))
	if err != nil || !bytes.Equal(whole, data[7:]) {
		t.Errorf("an unaligned read to the end: %d bytes, %v", len(whole), err)
	}
	if n, err := v.ReadAt(make([]byte, 10), v.Size()); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a read at the end: %d, %v", n, err)
	}
	for _, off := range []int64{-512, 7, v.Size() - 512} {
		if _, err := v.WriteAt(data[:1024], off); !errors.Is(err, initiator.ErrRange) {
			t.Errorf("a write at %d gives %v", off, err)
		}
	}
	if !bytes.Equal(target.Disk()[v.Size()-4096:], data) {
		t.Error("the target holds other data")
	}
}

func TestLoadRunIsLinearizable(t *testing.T) {
	h, _ := newSAN(t, lossy(4, 3, 3))
	sum, err := load.Run(timeout(t, time.Minute), load.RunConfig{Host: h, Shelf: 7, Slot: 1, Clients: 3, Depth: 3,
		Operations: 1500, Seed: 1, Workload: load.WorkloadConfig{Sectors: 128, MaxSectors: 24, HotSectors: 8}})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Reads+sum.Writes != 1500 || sum.Failed+sum.Open != 0 || sum.Resent == 0 || sum.DamagedRead != 0 {
		t.Errorf("%+v", sum)
	}
	if res := load.Check(sum.Recorder.Records(), load.Options{}); res.Err() != nil || res.Sectors == 0 {
		t.Fatalf("%v after %d sectors: %v", res.Verdict, res.Sectors, res.Err())
	}
}

func TestLoadRunFindsCorruption(t *testing.T) {
	var target *initiatortest.Target
	writes := 0
	h, target := newSAN(t, func(frame []byte, answer bool) int {
		if writes++; writes == 400 {
			target.Corrupt(3 * 512)
		}
		return 1
	})
	_ = target
	sum, err := load.Run(timeout(t, time.Minute), load.RunConfig{Host: h, Shelf: 7, Slot: 1, Clients: 1, Operations: 1000, Seed: 1,
		Workload: load.WorkloadConfig{Sectors: 16, MaxSectors: 8, ReadPercent: 80}})
	if err != nil {
		t.Fatal(err)
	}
	if res := load.Check(sum.Recorder.Records(), load.Options{}); res.Verdict != load.Violated || sum.DamagedRead == 0 {
		t.Fatalf("a damaged sector was found %v, %d damaged", res.Verdict, sum.DamagedRead)
	}
}
