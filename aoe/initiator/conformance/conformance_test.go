package conformance

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/initiator/initiatortest"
	"clade/aoe/link"
)

// bench is one volume e7.1 behind a switch in memory, which may be broken on its way.
type bench struct {
	sw     *link.Switch
	target *initiatortest.Target
}

func newBench(t testing.TB, mtu int, bend func(link.Port) link.Port) *bench {
	t.Helper()
	b := &bench{sw: link.NewSwitch(link.SwitchConfig{MTU: mtu})}
	var port link.Port
	port, err := b.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 0, 1}, Promiscuous: true})
	if err != nil {
		t.Fatal(err)
	}
	if bend != nil {
		port = bend(port)
	}
	b.target = &initiatortest.Target{Port: port, MAC: aoe.MAC{2, 0xae, 0, 0, 0, 1}, Shelf: 7, Slot: 1, Sectors: 2048, BufferCount: 64,
		SectorCount: aoe.MaxSectors(mtu), Real: true}
	if err := b.target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.target.Stop)
	return b
}

func (b *bench) options(t testing.TB) Options {
	t.Helper()
	port, err := b.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 1, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	// The target answers in order: once a later request is answered, an earlier one was not.
	return Options{Port: port, Shelf: 7, Slot: 1, Destructive: true, Silence: time.Nanosecond, Timeout: 30 * time.Second, Resend: 30 * time.Second}
}

func TestTargetOfOursPasses(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		b := newBench(t, mtu, nil)
		before := b.target.Disk()
		report, err := Run(context.Background(), b.options(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Results {
			if r.Verdict != Pass {
				t.Errorf("MTU %d: %s %s: %s", mtu, r.Verdict, r.Name, r.Found)
			}
		}
		if string(b.target.Disk()) != string(before) {
			t.Errorf("MTU %d: the sectors are not as they were", mtu)
		}
	}
}

// TestVolumeIsAsBefore: string, mask, reservation and sectors survive the destructive checks, also those of a run that is
// cancelled in the midst of them.
func TestVolumeIsAsBefore(t *testing.T) {
	for _, stopAfter := range []int{1000, 70, 110, 125} {
		b := newBench(t, 1500, nil)
		o := b.options(t)
		me, other := o.Port.MAC(), aoe.MAC{2, 1, 0, 0, 0, 9}
		text := []byte("before\x00\xff")
		hostPort, err := b.sw.NewPort(link.SwitchPortConfig{MAC: other})
		if err != nil {
			t.Fatal(err)
		}
		host, err := initiator.NewHost(initiator.HostConfig{Ports: []link.Port{hostPort}})
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		c, err := host.NewClient(initiator.Config{MAC: other, Shelf: 7, Slot: 1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		data := pattern(99, 2048)
		_, err1 := c.Config(ctx, initiator.ConfigForceSet, text)
		_, err2 := c.Reserve(ctx, initiator.ReserveSet, me, other)
		_, err3 := c.Mask(ctx, initiator.MaskDirective{MAC: me}, initiator.MaskDirective{MAC: other})
		if err := errors.Join(c.WriteAt(ctx, data, 0), err1, err2, err3); err != nil {
			t.Fatal(err)
		}

		run, stop := context.WithCancel(ctx)
		made := 0
		o.Tell = func(Result) {
			if made++; made == stopAfter {
				stop()
			}
		}
		report, err := Run(run, o)
		stop()
		if (err != nil) != (stopAfter < len(All())) || report == nil || len(report.Results) != min(stopAfter, len(All())) {
			t.Errorf("stopped after %d: %v", stopAfter, err)
		}
		gotText, err1 := c.Config(ctx, initiator.ConfigRead, nil)
		gotMask, err2 := c.Mask(ctx)
		gotReserved, err3 := c.Reserve(ctx, initiator.ReserveRead)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(gotText, text) || !slices.Equal(gotMask, []aoe.MAC{me, other}) || !slices.Equal(gotReserved, []aoe.MAC{me, other}) {
			t.Errorf("stopped after %d: string %q, mask %v, reservation %v", stopAfter, gotText, gotMask, gotReserved)
		}
		if !bytes.Equal(b.target.Disk(), data) {
			t.Errorf("stopped after %d: the sectors are not as they were", stopAfter)
		}
	}
}
