package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"clade/cluster"
	"clade/cluster/runtime"
	"clade/membership"
)

func newDiskCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "disk",
		Short: "List disks, add one to this node, replace, move or remove one",
		Args:  checkedArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	t.addFlags(cmd)
	cmd.AddCommand(diskListCommand(&t), diskAddCommand(&t), diskReplaceCommand(&t), diskAttachCommand(&t), diskDetachCommand(&t), diskRemoveCommand(&t))
	return cmd
}

func diskListCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the disks of the cluster, and what this node says of its own", Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			all := struct {
				Disks []cluster.DiskStatus `json:"disks"`
				Local []runtime.LocalDisk  `json:"local"`
			}{s.Disks, s.LocalDisks}
			return t.print(cmd, all, func(w io.Writer) { printDisks(w, s) })
		},
	}
}

func printDisks(w io.Writer, s *runtime.Status) {
	tw := plainTable(w)
	tw.AppendHeader(table.Row{"DISK", "NODE", "STATE", "USED", "CAPACITY", "PATH"})
	for _, d := range s.Disks {
		tw.AppendRow(table.Row{d.ID, cut(d.NodeName, 20), d.State, humanize.IBytes(d.UsedMiB << 20), humanize.IBytes(d.CapacityMiB << 20), cut(d.Label, 40)})
	}
	tw.Render()
	for _, d := range s.LocalDisks {
		if d.Err != "" {
			fmt.Fprintln(w, wrap(fmt.Sprintf("! %s: %s", d.Path, d.Err), "  ", outputColumns))
			fmt.Fprintln(w, wrap("  -> "+d.Do, "     ", outputColumns))
		}
	}
}

func diskAddCommand(t *target) *cobra.Command {
	var force bool
	var size string
	cmd := &cobra.Command{
		Use:   "add PATH",
		Short: "Format a block device or a file as a disk of this node",
		Long: `Format a block device or a file as a disk of this node.

A device that holds anything is refused: the command then says what --force
would destroy. With --size, a file that does not exist is made.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return failure(exitUsage, "", "%w", err)
			}
			bytes, err := parseSize(cmd, size)
			if err != nil {
				return err
			}
			var r runtime.DiskAddReply
			q := runtime.DiskAddRequest{Path: path, Force: force, SizeBytes: bytes}
			if err := t.call(cmd.Context(), http.MethodPost, runtime.PathDisk, q, &r); err != nil {
				return err
			}
			return t.print(cmd, r, func(w io.Writer) { printDiskAdded(w, &r) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "destroy what the device holds")
	cmd.Flags().StringVar(&size, "size", "", "make a file of this size if there is none, as in 10GiB")
	return cmd
}

func diskReplaceCommand(t *target) *cobra.Command {
	var force bool
	var size string
	cmd := &cobra.Command{
		Use:   "replace DISK PATH",
		Short: "Put an empty disk of this node in the place of one that is lost",
		Long: `Put an empty disk of this node in the place of one that is lost.

The new disk takes over the number and the shards of the lost one, which may have
been another node's; they are rebuilt from the other disks at once. The lost disk
is refused from then on, should it come back. What the new one holds is destroyed
only with --force.`,
		Example: "  clade disk replace 3 /dev/sdc",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			d, err := findDisk(s, args[0])
			if err != nil {
				return err
			}
			path, err := filepath.Abs(args[1])
			if err != nil {
				return failure(exitUsage, "", "%w", err)
			}
			bytes, err := parseSize(cmd, size)
			if err != nil {
				return err
			}
			var r runtime.DiskAddReply
			q := runtime.DiskAddRequest{Path: path, Force: force, SizeBytes: bytes, Replace: uint32(d.ID)}
			if err := t.call(cmd.Context(), http.MethodPost, runtime.PathDisk, q, &r); err != nil {
				return err
			}
			return t.print(cmd, r, func(w io.Writer) {
				printDiskAdded(w, &r)
				fmt.Fprintln(w, "its shards are being rebuilt; follow it with: clade status --watch")
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "destroy what the device holds")
	cmd.Flags().StringVar(&size, "size", "", "make a file of this size if there is none, as in 10GiB")
	return cmd
}

func printDiskAdded(w io.Writer, r *runtime.DiskAddReply) {
	fmt.Fprintf(w, "disk %d: %s, %s for shards\n", r.Disk, r.Path, humanize.IBytes(r.CapacityMiB<<20))
	if r.Destroyed != "" {
		fmt.Fprintf(w, "destroyed there: %s\n", r.Destroyed)
	}
}

// parseSize reads a size with a unit; empty is 0.
func parseSize(cmd *cobra.Command, s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 {
		return 0, wrongUsage(cmd, "%q is no size: write a number with a unit, as in 10GiB", s)
	}
	return n, nil
}

func diskAttachCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "attach DISK",
		Short: "Move a disk that is now in this node's machine to this node",
		Long: `Move a disk that is now in this node's machine to this node.

The former node must have let go of it: it is down, or the disk was detached.
Add the disk's path to the configuration, or restart the node, if the path is new.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			d, err := findDisk(s, args[0])
			if err != nil {
				return err
			}
			reply, err := t.propose(cmd.Context(), &membership.DiskAttach{Disk: d.ID, Node: s.Self, Gen: s.AttachGens[d.ID]})
			if err != nil {
				return err
			}
			return t.print(cmd, reply, func(w io.Writer) { fmt.Fprintf(w, "disk %d now belongs to this node\n", d.ID) })
		},
	}
}

func diskDetachCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "detach DISK", Short: "Let go of a disk, so that it can be moved to another node", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			d, err := findDisk(s, args[0])
			if err != nil {
				return err
			}
			reply, err := t.propose(cmd.Context(), &membership.DiskSetState{Disk: d.ID, Gen: s.AttachGens[d.ID], State: membership.DiskDetached})
			if err != nil {
				return err
			}
			return t.print(cmd, reply, func(w io.Writer) { fmt.Fprintf(w, "disk %d is detached from node %s\n", d.ID, d.NodeName) })
		},
	}
}

func diskRemoveCommand(t *target) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove DISK", Short: "Forget a disk that no volume uses", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			d, err := findDisk(s, args[0])
			if err != nil {
				return err
			}
			if err := confirm(cmd, yes, "The cluster forgets disk %d (%s on node %s).", d.ID, d.Label, d.NodeName); err != nil {
				return err
			}
			reply, err := t.propose(cmd.Context(), &membership.DiskRemove{Disk: d.ID})
			if err != nil {
				return err
			}
			return t.print(cmd, reply, func(w io.Writer) { fmt.Fprintf(w, "disk %d is forgotten\n", d.ID) })
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
