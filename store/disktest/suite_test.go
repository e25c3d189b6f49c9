package disktest

import (
	"path/filepath"
	"testing"

	"clade/store"
)

func TestMemory(t *testing.T) {
	Run(t, func(_ *testing.T, size int64) store.Device { return New(size, 5) })
}

func TestFile(t *testing.T) {
	Run(t, func(t *testing.T, size int64) store.Device { return openFile(t, size) })
}

// unplugged is a file with a volatile cache whose process is killed.
type unplugged struct {
	store.Device
	file store.Device
}

func (u *unplugged) Crash() { u.Device = store.VolatileCache(u.file) }

func TestVolatileFile(t *testing.T) {
	Run(t, func(t *testing.T, size int64) store.Device {
		f := openFile(t, size)
		return &unplugged{store.VolatileCache(f), f}
	})
}

func openFile(t *testing.T, size int64) store.Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := store.CreateFile(path, size); err != nil {
		t.Fatal(err)
	}
	f, err := store.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
