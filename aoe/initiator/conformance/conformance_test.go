package conformance

import (
	"context"
	"testing"
	"time"

	"clade/aoe"
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
