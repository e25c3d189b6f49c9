package store_test

import (
	"testing"

	"clade/store"
	"clade/store/disktest"
)

func TestAreasFollowEachOtherAndEndOnTheDevice(t *testing.T) {
	dev := disktest.New(64<<20, 1)
	if _, err := store.Areas(dev); err == nil {
		t.Fatal("a blank device has areas")
	}
	if err := store.Format(dev, store.Identity{Disk: 1}, store.FormatOptions{JournalBytes: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	a, err := store.Areas(dev)
	if err != nil {
		t.Fatal(err)
	}
	end := int64(8192)
	for _, x := range []store.Area{a.Image, a.Journal, a.Pages, a.Data} {
		if x.Bytes <= 0 || x.Offset < end {
			t.Errorf("area %+v begins before %d or is empty: %+v", x, end, a)
		}
		end = x.Offset + x.Bytes
	}
	if end > dev.Size() || a.Journal.Bytes != 8<<20 {
		t.Errorf("areas %+v on a device of %d bytes", a, dev.Size())
	}
}
