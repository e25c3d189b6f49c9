package link_test

import (
	"testing"

	"clade/aoe"
	"clade/aoe/link"
	"clade/aoe/link/linktest"
)

func TestConformanceSwitch(t *testing.T) {
	linktest.Run(t, func(t *testing.T) *linktest.Segment {
		sw := link.NewSwitch(link.SwitchConfig{MTU: 9000})
		var ports [2]*link.SwitchPort
		return &linktest.Segment{
			Open: func(t *testing.T, end int, cfg link.Config) link.Port {
				port, err := sw.NewPort(link.SwitchPortConfig{
					MAC:    aoe.MAC{2, 0, 0, 0, 0, byte(end + 1)},
					Filter: cfg.Filter, Beacons: cfg.Beacons, BatchFrames: cfg.BatchFrames,
				})
				if err != nil {
					t.Fatal(err)
				}
				ports[end] = port
				return port
			},
			SetUp: func(t *testing.T, end int, up bool) {
				state := link.StateDown
				if up {
					state = link.StateUp
				}
				sw.SetState(ports[end], state)
			},
			Remove:     func(t *testing.T, end int) { sw.SetState(ports[end], link.StateGone) },
			Restore:    func(t *testing.T, end int) { sw.SetState(ports[end], link.StateUp) },
			At:         func(end int, do func()) { do() },
			KernelTime: true, NoAllocations: true,
		}
	})
}
