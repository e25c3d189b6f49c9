package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/initiator/conformance"
	"clade/aoe/initiator/initiatortest"
	"clade/aoe/link"
)

// newConformingBench is the bench with a target that decides as Clade does; it listens to silence for a moment only, since it
// answers in order.
func newConformingBench(t *testing.T) *initiatorBench {
	b := &initiatorBench{t: t, sw: link.NewSwitch(link.SwitchConfig{MTU: 9000})}
	port, err := b.sw.NewPort(link.SwitchPortConfig{MAC: aoe.MAC{2, 2, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	b.target = &initiatortest.Target{Port: port, MAC: aoe.MAC{2, 0xae, 0, 0, 0, 1}, Shelf: 7, Slot: 1, Sectors: 2048, BufferCount: 32, SectorCount: 16, Real: true}
	if err := b.target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.target.Stop() })
	return b
}

func TestConformanceOfAGoodTarget(t *testing.T) {
	b := newConformingBench(t)
	all := len(conformance.All())
	var r conformed
	out := b.want(0, "conformance", "-i", "san", "e7.1", "--destructive", "--silence", "1ns", "--timeout", "30s", "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Volume != "e7.1" || r.Pass != all || r.Report == nil || len(r.Results) != all {
		t.Fatalf("%v: %s", err, out)
	}
	out = b.want(0, "conformance", "-i", "san", "e7.1", "--silence", "1ns")
	if !strings.Contains(out, " 0 failed, 0 differ, ") || strings.Contains(out, " 0 skipped") {
		t.Errorf("without --destructive nothing fails, and something is skipped:\n%s", out)
	}
}

func TestConformanceOfABadTarget(t *testing.T) {
	b := newInitiatorBench(t) // a naive one: IDENTIFY without most words, no 28 bits
	out := b.want(1, "conformance", "-i", "san", "e7.1", "--silence", "1ns", "--only", "identify/", "--only", "read/28", "--timeout", (10 * time.Second).String())
	for _, want := range []string{"read/28", "FAIL", "DIFFERS", "breaks: ", "failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, tc := range []struct {
		code int
		args string
	}{
		{0, "conformance --list"},
		{0, "conformance --list --json"},
		{2, "conformance --list --only nonsense"},
		{2, "conformance -i san"},
		{2, "conformance e7.1"},
		{2, "conformance -i san -i san e7.1"},
		{3, "conformance -i san e7.2 --timeout 50ms"},
	} {
		b.want(tc.code, strings.Fields(tc.args)...)
	}
	for _, out := range []string{out, b.want(0, "conformance", "--list"), b.want(1, "conformance", "-i", "san", "e7.1", "--silence", "1ns", "--only", "identify/", "--all")} {
		for line := range strings.Lines(out) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > outputColumns {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
}
