package disktest

import (
	"testing"

	"clade/store"
)

// Run lets every kind of device show that a disk on it does what the model does: newDevice returns a fresh one of the given size,
// all zeros. A device that is a Crasher loses power now and then.
func Run(t *testing.T, newDevice func(t *testing.T, sizeBytes int64) store.Device) {
	for seed := range uint64(3) {
		dev := newDevice(t, 40<<20)
		_, crashes := dev.(Crasher)
		h := &History{Dev: dev, Seed: seed + 1000, Volumes: 2, Crashes: crashes}
		if err := h.Start(store.FormatOptions{JournalBytes: 4 << 20}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range 400 {
			if err := h.Step(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
		if err := h.Verify(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := h.Close(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		rep, err := store.Check(dev, nil)
		if err != nil || len(rep.Damage) > 0 {
			t.Fatalf("seed %d: check: %v, %+v", seed, err, rep.Damage)
		}
	}
}
