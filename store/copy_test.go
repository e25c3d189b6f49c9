package store_test

import (
	"fmt"
	"testing"

	"clade/raid"
	"clade/store/disktest"
)

// written is a device that counts the bytes that are written.
type written struct {
	*disktest.Device
	bytes int
}

func (d *written) WriteAt(p []byte, off int64) (int, error) {
	d.bytes += len(p)
	return d.Device.WriteAt(p, off)
}

// Records that nobody commits are copied forward while another volume goes on: one call does that with a bounded number of syncs, and
// all calls together write no more than a bounded multiple of what the other volume writes.
func TestCopyForwardIsBounded(t *testing.T) {
	for _, vols := range []int{1, 4, 20} {
		t.Run(fmt.Sprint(vols), func(t *testing.T) {
			const journal = 64 << 20
			dev := &written{Device: disktest.New(400<<20, 1)}
			u := newUser(t, dev, journal)
			pinned := 0
			for v := raid.VolumeID(1); v <= raid.VolumeID(vols); v++ {
				q := int(u.begin(v, 1, 1))
				pinned += q
				u.useUp(v, q, 8)
			}
			u.make(99)
			most, bytes, n := 0, 0, raid.Seq(0)
			dev.bytes = 0
			for range 1500 {
				n++
				var nos []uint32
				for i := range uint32(32) {
					nos = append(nos, (uint32(n)*32+i)%(4*raid.BlocksPerRegion))
				}
				before := dev.Syncs()
				u.prepare(99, n-1, n-1, rec(1, n, n-1, nos...))
				if _, err := u.d.Background(0); err != nil {
					t.Fatal(err)
				}
				most = max(most, dev.Syncs()-before)
				bytes += len(nos) * raid.BlockBytes
			}
			t.Logf("%d MiB pinned: at most %d syncs in one call, %.1f bytes written per byte", pinned>>20, most, float64(dev.bytes)/float64(bytes))
			// Of all that can be pinned, 5/16 of the journal, a 32nd at a time, and its last piece: 11. Besides what was under way, the
			// request's own group, and the checkpoint.
			if most > 11+5 {
				t.Errorf("%d syncs in one call", most)
			}
			if dev.bytes > 5*bytes {
				t.Errorf("%d bytes written for %d", dev.bytes, bytes)
			}
		})
	}
}
