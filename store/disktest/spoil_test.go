package disktest

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Whatever single page of the medium is spoilt, in whatever way, a disk that is opened again tells the truth, a BadBlock, or that it is
// damaged: never older or other bytes, never zeros. Only the journal's very last group may be lost like a torn one, as nothing is
// left that could tell the two apart before the disk has been idle for a moment (S11, B: C15).
func TestSpoiltAnywhere(t *testing.T) {
	lives := uint64(3)
	if *manySeeds > 0 {
		lives = *manySeeds
	}
	seen := map[string]int{}
	for seed := range lives {
		h, dev := newHistory(seed)
		if err := run(h, 300+int(seed%3)*200); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			if err := h.Step(); err != nil {
				t.Fatal(err)
			}
		}
		if seed%2 == 0 { // else the power is cut while a group is being written
			if err := h.settle(); err != nil {
				t.Fatal(err)
			}
		}
		rng := rand.New(rand.NewPCG(seed, 77))
		for _, off := range live(t, dev, rng, 25) {
			for _, how := range []string{"rot", "erase", "latent"} {
				d := dev.Clone(rng.Uint64())
				switch how {
				case "rot":
					d.Rot(off+int64(rng.IntN(8))*sectorBytes, sectorBytes)
				case "erase":
					d.Erase(off, 4096)
				case "latent":
					d.Latent(off, 4096)
				}
				d.Crash()
				seen[judgeSpoilt(t, h, d, seed, off, how)]++
			}
		}
	}
	t.Log(seen)
}

// live returns n places of pages that are not empty, most of them not data.
func live(t *testing.T, dev *Device, rng *rand.Rand, n int) []int64 {
	t.Helper()
	var out []int64
	b := make([]byte, 4096)
	for off := int64(0); off < testBytes; off += 4096 {
		if _, err := dev.ReadAt(b, off); err == nil && bytes.Count(b, []byte{0}) < len(b) {
			out = append(out, off)
		}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return append(out[:min(n, len(out))], 0, 4096)
}

func judgeSpoilt(t *testing.T, h *History, d *Device, seed uint64, off int64, how string) string {
	t.Helper()
	x := h.copyOn(d)
	err := x.Reopen()
	switch {
	case err == nil:
		return "unnoticed or cured"
	case strings.Contains(err.Error(), "damaged without cause"):
		return "damaged"
	case strings.Contains(err.Error(), "got BadBlock"):
		return "BadBlock"
	case off < 13<<20 && (strings.Contains(err.Error(), "is gone") || strings.Contains(err.Error(), "point fell") || strings.Contains(err.Error(), "base fell")):
		return "last group"
	}
	t.Errorf("seed %d, %s at %d: %v", seed, how, off, err)
	return "wrong"
}

// copyOn returns a history that goes on from here on another device.
func (h *History) copyOn(d *Device) *History {
	x := *h
	x.Dev, x.job, x.Counts = d, nil, map[string]int{}
	x.rng = rand.New(rand.NewPCG(h.Seed, 3))
	x.vols = nil
	for _, v := range h.vols {
		w := *v
		w.truth, w.change = maps.Clone(v.truth), maps.Clone(v.change)
		w.sent, w.hist = slices.Clone(v.sent), slices.Clone(v.hist)
		x.vols = append(x.vols, &w)
	}
	return &x
}
