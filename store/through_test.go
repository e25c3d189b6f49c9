package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"clade/store"
	"clade/store/disktest"
)

// pagesOf returns n pages of a byte.
func pagesOf(b byte, n int) []byte { return bytes.Repeat([]byte{b}, 4096*n) }

// What is written through survives a power cut, over everything that was written to the same place before; what else the cache holds is
// not made durable by it; and one that the cut interrupts is there in part, sector by sector.
func TestWriteThroughOfTheModel(t *testing.T) {
	kept, torn := 0, 0
	for seed := range uint64(64) {
		dev := disktest.New(1<<20, seed)
		write := func(f func([]byte, int64) (int, error), p []byte, off int64) {
			if _, err := f(p, off); err != nil {
				t.Fatal(err)
			}
		}
		write(dev.WriteAt, pagesOf(1, 4), 0)
		write(dev.WriteThrough, pagesOf(2, 2), 4096)
		dev.CrashAt(1)
		if _, err := dev.WriteThrough(pagesOf(3, 2), 65536); !errors.Is(err, disktest.ErrCrashed) {
			t.Fatalf("%v", err)
		}
		dev.PowerOn()
		b := make([]byte, 128<<10)
		if _, err := dev.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b[4096:3*4096], pagesOf(2, 2)) {
			t.Fatalf("seed %d: what was written through is %d... %d", seed, b[4096], b[2*4096])
		}
		kept += bytes.Count(b[:4096], []byte{1})
		torn += bytes.Count(b[65536:65536+8192], []byte{3})
	}
	if kept == 0 || kept == 64*4096 || torn == 0 || torn == 64*8192 {
		t.Fatalf("of the cache %d of %d bytes were kept, of the last write %d of %d", kept, 64*4096, torn, 64*8192)
	}
}

// A file takes writes that are durable when they return on file systems with O_DIRECT and without, from any memory, and reads see them.
func TestWriteThroughOfAFile(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/dev/shm"} {
		dir, err := os.MkdirTemp(dir, "through") //nolint:usetesting // one of them on a tmpfs
		if err != nil {
			t.Logf("no tmpfs to test with: %v", err)
			continue
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		path := filepath.Join(dir, "disk")
		if err := store.CreateFile(path, 1<<20); err != nil {
			t.Fatal(err)
		}
		dev, err := store.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dev.WriteThrough(pagesOf(1, 2), 1<<20-4096); err == nil {
			t.Fatal("written beyond the end")
		}
		for i := range 8 {
			off := int64(i) * 8192
			if _, err := dev.WriteAt(pagesOf(9, 2), off); err != nil {
				t.Fatal(err)
			}
			p := append(make([]byte, i, 3*4096), pagesOf(byte(i+1), 1)...)[i:] // not aligned, but for the first
			if n, err := dev.WriteThrough(p, off); err != nil || n != 4096 {
				t.Fatalf("%s: %d, %v", dir, n, err)
			}
			got := make([]byte, 8192)
			if _, err := dev.ReadAt(got, off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, append(pagesOf(byte(i+1), 1), pagesOf(9, 1)...)) {
				t.Fatalf("%s: reads %d and %d", dir, got[0], got[4096])
			}
		}
		if err := errors.Join(dev.Sync(), dev.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
