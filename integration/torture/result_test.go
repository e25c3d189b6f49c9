package torture

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"clade/aoe/initiator"
)

func TestRowsOfFaults(t *testing.T) {
	r := &Result{Events: []Event{
		{Kind: Pause, StallMs: 10}, {Kind: Pause, StallMs: 30, LinuxStallMs: 70}, {Kind: Pause, StallMs: 20},
		{Kind: Pause, StallMs: 900, Overlapped: true}, {Kind: CutSANPath, StallMs: 900, Overlapped: true},
	}}
	r.sum()
	want := []Row{
		{Kind: Pause, Times: 4, Alone: 3, LongestMs: 30, MedianMs: 20, LongestLinuxMs: 70},
		{Kind: CutSANPath, Times: 1},
		{Kind: twoAtOnce, Times: 1, Alone: 2, LongestMs: 900, MedianMs: 900},
	}
	if len(r.Faults) != len(want) {
		t.Fatalf("rows %+v, want %+v", r.Faults, want)
	}
	for i := range want {
		if r.Faults[i] != want[i] {
			t.Errorf("row %d: %+v, want %+v", i, r.Faults[i], want[i])
		}
	}
}

// TestMeter: an operation that still waits is a stall; one that began before a fault counts from the fault on; memory is bounded.
func TestMeter(t *testing.T) {
	m := newMeter()
	m.startNs, m.sinceNs = 0, 1000
	m.begin(1, linuxTiming, 400)
	m.end(1, 3000)
	if m.longest[linuxTiming] != 2000 || m.ever[linuxTiming] != 2600 || m.longest[libraryTiming] != 0 {
		t.Errorf("longest %v since the fault, %v ever", m.longest, m.ever)
	}
	now := initiator.BootNs()
	m.sinceNs = now - 5e9
	m.begin(2, libraryTiming, now-2e9)
	if got := m.since()[libraryTiming]; got < 2e9 {
		t.Errorf("one that still waits for 2 s: %d ns", got)
	}
	m.end(2, now)
	m = newMeter()
	m.startNs, m.sinceNs = 0, 0
	for i := range int64(10 * binsMax) {
		m.begin(1, libraryTiming, i*binFirstNs)
		m.end(1, i*binFirstNs)
	}
	_, bins, binNs := m.whole()
	sum := 0
	for _, b := range bins {
		sum += b.Operations
	}
	if len(bins) > binsMax || binNs != 16*binFirstNs || sum != 10*binsMax {
		t.Errorf("%d pieces of %d ns hold %d operations", len(bins), binNs, sum)
	}
}

// TestPicture: it is well-formed, names every fault and every violation, and is one chart a run; an empty run makes no trouble.
func TestPicture(t *testing.T) {
	r := &Result{Shape: "2+1", Seed: 9, DurationMs: 60_000, BinMs: 250, Bins: []Bin{{Operations: 100}, {Operations: 300}},
		Events:     []Event{{Kind: Pause, Node: "n<1>", BeginMs: 10, EndMs: 500, StallMs: 77}, {Kind: PowerLossAll, Node: "all", BeginMs: 900, EndMs: 1500}},
		Violations: []Violation{{AtMs: 1000, What: "w"}}}
	var out bytes.Buffer
	if err := WriteSVG(&out, []*Result{r, {Shape: "1+1"}}); err != nil {
		t.Fatal(err)
	}
	texts := ""
	for dec := xml.NewDecoder(bytes.NewReader(out.Bytes())); ; {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
		if c, ok := tok.(xml.CharData); ok {
			texts += string(c) + "\n"
		}
	}
	for _, want := range []string{string(Pause), string(PowerLossAll), "n<1>", "violation\n", "seed 9", "1+1, seed 0", "1000/s"} {
		if !strings.Contains(texts, want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	for _, bad := range []string{"NaN", "Inf", "-0."} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("the picture has a %q in it", bad)
		}
	}
}
