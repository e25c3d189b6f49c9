package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clade/store"
	"clade/store/disktest"
)

// A file is a disk of one process at a time, is never made over another, and never grows.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if _, err := store.OpenFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a file that is not there: %v", err)
	}
	if err := store.CreateFile(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := store.CreateFile(path, 1<<20); !errors.Is(err, os.ErrExist) {
		t.Fatalf("made over another: %v", err)
	}
	dev, err := store.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenFile(path); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("opened twice: %v", err)
	}
	if _, err := dev.WriteAt(make([]byte, 2), 1<<20-1); err == nil || dev.Size() != 1<<20 {
		t.Fatalf("written beyond the end: %v, %d bytes", err, dev.Size())
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if dev, err = store.OpenFile(path); err != nil {
		t.Fatalf("after closing: %v", err)
	}
	_ = dev.Close()
	if _, err := store.OpenFile(t.TempDir()); err == nil {
		t.Fatal("opened a directory")
	}
}

// Format destroys nothing that it was not told to, and says what it would have been.
func TestFormatRefuses(t *testing.T) {
	put := func(off int64, b ...byte) func(d store.Device) {
		return func(d store.Device) { _, _ = d.WriteAt(b, off) }
	}
	id := store.Identity{Cluster: [16]byte{7}, Disk: 4}
	for _, c := range []struct {
		name string
		lay  func(d store.Device)
		says string
	}{
		{"blank", func(store.Device) {}, ""},
		{"ext4", put(1024+56, 0x53, 0xEF), "ext2/3/4"},
		{"xfs", put(0, []byte("XFSB")...), "XFS"},
		{"lvm", put(512, []byte("LABELONE")...), "LVM"},
		{"gpt", put(512, []byte("EFI PART")...), "partition"},
		{"mbr", put(510, 0x55, 0xAA), "partition"},
		{"a byte", put(900000, 1), "unknown data"},
		{"disk", func(d store.Device) { _ = store.Format(d, id, store.FormatOptions{JournalBytes: 4 << 20}) }, "disk 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := disktest.New(40<<20, 1)
			c.lay(dev)
			opt := store.FormatOptions{JournalBytes: 4 << 20}
			err := store.Format(dev, store.Identity{Disk: 5}, opt)
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, store.ErrForeign) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v", err)
			}
			opt.Force = true
			if err := store.Format(dev, store.Identity{Disk: 5}, opt); err != nil {
				t.Fatal(err)
			}
			if got, err := store.ReadIdentity(dev); err != nil || got.Disk != 5 {
				t.Fatalf("%+v, %v", got, err)
			}
		})
	}
}
