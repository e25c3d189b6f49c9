package main

import (
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"clade/membership"
)

// parsed returns all commands of clade, none of which does anything but reading its command line.
func parsed() *cobra.Command {
	root := newRootCommand()
	var stub func(c *cobra.Command)
	stub = func(c *cobra.Command) {
		if c.RunE != nil {
			c.RunE = func(*cobra.Command, []string) error { return nil }
		}
		for _, sub := range c.Commands() {
			stub(sub)
		}
	}
	stub(root)
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	return root
}

// FuzzArguments reads any command line, one argument a line: wrong usage is told, nothing panics.
func FuzzArguments(f *testing.F) {
	for _, line := range []string{"status --json --watch", "volume create --slot 1 --size 10GiB --layout 2+1 --disks 1,2,3", "initiator copy -i eth1 disk.img e7.1 --verify",
		"lab up --nodes 3 --layout 2+1 --size 1GiB", "join 10.0.0.1:7770 --node n2 --san eth1 --disk /dev/sdb", "initiator mask -i eth1 e7.1 --add 02:00:00:00:00:01"} {
		f.Add(strings.ReplaceAll(line, " ", "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		root := parsed()
		root.SetArgs(strings.Split(text, "\n"))
		if code := run(root); !slices.Contains([]int{exitOK, exitFailed, exitUsage}, code) {
			t.Fatalf("exit code %d", code)
		}
	})
}

// FuzzVolumeFlags reads any flags as those of a new volume: what the cluster is asked for is what was written, or it is refused.
func FuzzVolumeFlags(f *testing.F) {
	f.Add(1, "10GiB", "2+1", "64KiB", "1GiB", uint(3))
	f.Add(254, "4096", "1+0", "4KiB", "1.5MiB", uint(1<<32+1))
	f.Fuzz(func(t *testing.T, slot int, size, layout, unit, extent string, disk uint) {
		flags := createFlags{slot: slot, size: size, layout: layout, unit: unit, extent: extent, domain: "node", disks: []uint{disk}}
		c, err := flags.command(&cobra.Command{Use: "create"})
		if err != nil {
			return
		}
		if int(c.Slot) != slot || c.Slot > membership.MaxSlot || uint64(c.Disks[0]) != uint64(disk) || c.SizeBytes%4096 != 0 {
			t.Fatalf("slot %d and disk %d became %+v", slot, disk, c)
		}
		want, err := parseSize(&cobra.Command{}, extent)
		if err != nil || uint64(c.ExtentMiB)<<20 != want {
			t.Fatalf("extent %q became %d MiB", extent, c.ExtentMiB)
		}
	})
}

// FuzzValues reads any text as the values that initiator commands take.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"e7.1", "e65534.254", "e4095.0", "02:00:00:00:00:01", "64KiB", "1e30", "-1", "9EiB", "0x10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseAddress(s); err == nil {
			if b, err := parseAddress(a.String()); err != nil || b != a {
				t.Fatalf("%q became %v, then %v", s, a, b)
			}
		}
		if m, err := parseMAC(s); err == nil {
			if again, err := parseMAC(m.String()); err != nil || again != m {
				t.Fatalf("%q became %v, then %v", s, m, again)
			}
		}
		if n, err := parseBytes("chunk", s); err == nil && n < 0 {
			t.Fatalf("%q became %d", s, n)
		}
		if n, err := parseSize(&cobra.Command{}, s); err == nil && n == math.MaxUint64 {
			t.Fatalf("%q overflowed", s)
		}
	})
}
