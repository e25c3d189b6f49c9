package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clade/cluster"
	"clade/cluster/runtime"
	"clade/membership"
	"clade/raid"
)

func newVolumeCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Create, list, show and delete volumes",
		Args:  checkedArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	t.addFlags(cmd)
	cmd.AddCommand(volumeCreateCommand(&t), volumeListCommand(&t), volumeShowCommand(&t), volumeDeleteCommand(&t))
	return cmd
}

// createFlags are the flags of volume create.
type createFlags struct {
	slot                             int
	name, size, layout, unit, domain string
	extent, serial                   string
	disks                            []uint
	strict, noWait                   bool
}

func volumeCreateCommand(t *target) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create --slot N --size SIZE --layout K+M",
		Short: "Create a volume",
		Long: `Create a volume and wait until it is served.

A layout of K+M keeps K shards of data and M of parity on K+M disks of as many
nodes: any M of them may be lost at once.`,
		Example: "  clade volume create --slot 1 --size 10GiB --layout 2+1\n  clade volume create --slot 2 --size 1TiB --layout 4+2 --unit 128KiB --name db",
		Args:    checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.command(cmd)
			if err != nil {
				return err
			}
			return createVolume(cmd, t, c, !f.noWait)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&f.slot, "slot", -1, "slot (AoE minor), 0 to 254")
	fl.StringVar(&f.size, "size", "", "size, as in 10GiB")
	fl.StringVar(&f.layout, "layout", "", "data+parity, as in 2+1")
	fl.StringVar(&f.name, "name", "", "name (default: vol<slot>)")
	fl.StringVar(&f.unit, "unit", "64KiB", "stripe unit, a power of two from 4KiB to 1MiB")
	fl.StringVar(&f.domain, "domain", "node", "what the shards of an extent must not share: node or disk")
	fl.StringVar(&f.extent, "extent", "", "size of an extent (default 1GiB)")
	fl.UintSliceVar(&f.disks, "disks", nil, "use only these disks")
	fl.StringVar(&f.serial, "serial", "", "serial number that initiators see (default: made from the cluster's id)")
	fl.BoolVar(&f.strict, "strict", false, "reads ask the disks for the lease, too: for hosts whose clock may stand still")
	fl.BoolVar(&f.noWait, "no-wait", false, "do not wait until the volume is served")
	for _, name := range []string{"slot", "size", "layout"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return cmd
}

// command turns the flags into the command for the cluster.
func (f *createFlags) command(cmd *cobra.Command) (*membership.Create, error) {
	if f.slot < 0 || f.slot > membership.MaxSlot {
		return nil, wrongUsage(cmd, "--slot %d: 0 to %d", f.slot, membership.MaxSlot)
	}
	k, m, ok := strings.Cut(f.layout, "+")
	data, err1 := strconv.Atoi(k)
	parity, err2 := strconv.Atoi(m)
	if !ok || err1 != nil || err2 != nil {
		return nil, wrongUsage(cmd, "--layout %q: write data+parity, as in 2+1", f.layout)
	}
	size, err := parseSize(cmd, f.size)
	if err != nil {
		return nil, err
	}
	unit, err := parseSize(cmd, f.unit)
	if err != nil {
		return nil, err
	}
	extent, err := parseSize(cmd, f.extent)
	if err != nil {
		return nil, err
	}
	if size%raid.BlockBytes != 0 {
		return nil, wrongUsage(cmd, "--size %s is no multiple of 4KiB", f.size)
	}
	if extent%(1<<20) != 0 || extent>>20 > math.MaxUint32 {
		return nil, wrongUsage(cmd, "--extent %s: want a multiple of 1MiB, as in 1GiB", f.extent)
	}
	if unit > raid.RegionBytes {
		return nil, wrongUsage(cmd, "--unit %s: want a power of two from 4KiB to 1MiB", f.unit)
	}
	c := &membership.Create{Slot: uint8(f.slot), Name: f.name, SizeBytes: size, Layout: raid.Layout{K: data, M: parity, UnitBytes: int(unit)},
		ExtentMiB: uint32(extent >> 20), Domain: membership.FailureDomain(f.domain), Strict: f.strict, Identity: membership.Identity{Serial: f.serial}}
	if c.Name == "" {
		c.Name = fmt.Sprintf("vol%d", f.slot)
	}
	for _, d := range f.disks {
		if d > math.MaxUint32 {
			return nil, wrongUsage(cmd, "--disks: there is no disk %d", d)
		}
		c.Disks = c.Disks.With(raid.DiskID(d))
	}
	return c, nil
}

func createVolume(cmd *cobra.Command, t *target, c *membership.Create, wait bool) error {
	reply, err := t.propose(cmd.Context(), c)
	if err != nil {
		return err
	}
	byID := func(s *runtime.Status) *cluster.VolumeStatus {
		for i := range s.Volumes {
			if s.Volumes[i].ID == reply.Volume {
				return &s.Volumes[i]
			}
		}
		return nil
	}
	s, err := t.waitFor(cmd.Context(), 15*time.Second, func(s *runtime.Status) bool {
		v := byID(s)
		return v != nil && (!wait || v.Health == "healthy" || v.Health == "degraded")
	})
	if err != nil {
		return failure(exitFailed, "It may come up by itself. See what is wrong: clade status", "volume %q exists but is not served yet: %w", c.Name, err)
	}
	v := byID(s)
	return t.print(cmd, v, func(w io.Writer) {
		fmt.Fprintf(w, "volume %s (%s), %s, layout %s", v.Address, v.Name, humanize.IBytes(v.SizeBytes), v.Layout)
		if v.OwnerName != "" {
			fmt.Fprintf(w, ", served by %s", v.OwnerName)
		}
		fmt.Fprintln(w)
	})
}

func volumeListCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the volumes", Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			return t.print(cmd, s.Volumes, func(w io.Writer) { printVolumes(w, s, 0) })
		},
	}
}

func volumeShowCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show one volume: e7.1, its name, or its slot", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			v, err := findVolume(s, args[0])
			if err != nil {
				return err
			}
			return t.print(cmd, v, func(w io.Writer) { printVolume(w, v) })
		},
	}
}

func printVolume(w io.Writer, v *cluster.VolumeStatus) {
	line := func(key, format string, args ...any) { fmt.Fprintf(w, "%-10s%s\n", key, fmt.Sprintf(format, args...)) }
	line("volume", "%s (%s)", v.Address, v.Name)
	line("health", "%s", v.Health)
	if v.Suspended != "" {
		line("", "%s", v.Suspended)
	}
	line("size", "%s (%d bytes)", humanize.IBytes(v.SizeBytes), v.SizeBytes)
	line("layout", "%s, unit %s", v.Layout, humanize.IBytes(uint64(v.UnitBytes)))
	if v.OwnerName == "" {
		line("owner", "none")
	} else {
		line("owner", "%s, epoch %d", v.OwnerName, v.Epoch)
	}
	line("in sync", "disks %v", v.InSync)
	if len(v.Stale) > 0 {
		line("stale", "disks %v", v.Stale)
	}
	for _, r := range v.Resync {
		line("resync", "disk %d %s", r.Disk, bar(r.Done, r.Total, 30))
	}
	for i, m := range v.ServingMACs {
		line("MAC", "%s on SAN path %d", m, i)
	}
	line("serial", "%s", v.Serial)
	if v.Config != "" {
		line("config", "%q", v.Config)
	}
	if len(v.Reserved) > 0 {
		line("reserved", "for %v", v.Reserved)
	}
	if len(v.Mask) > 0 {
		line("mask", "%v", v.Mask)
	}
}

func volumeDeleteCommand(t *target) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete VOLUME", Short: "Delete a volume and all its data", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			v, err := findVolume(s, args[0])
			if err != nil {
				return err
			}
			if err := confirm(cmd, yes, "All data of volume %s (%s, %s) will be lost.", v.Address, v.Name, humanize.IBytes(v.SizeBytes)); err != nil {
				return err
			}
			reply, err := t.request(cmd.Context(), cluster.AdminRequest{Kind: "delete", Vol: v.ID})
			if err != nil {
				return err
			}
			return t.print(cmd, reply, func(w io.Writer) { fmt.Fprintf(w, "volume %s is deleted\n", v.Address) })
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
