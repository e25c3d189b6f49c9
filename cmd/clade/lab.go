package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"clade/integration/lab"
)

// labOptions are the flags that lab commands share.
type labOptions struct {
	name string
	json bool
}

func newLabCommand() *cobra.Command {
	o := &labOptions{}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run whole clusters on this machine, and hurt them",
		Long: `Run whole clusters on this machine, and hurt them.

A lab is a cluster of real processes in network namespaces of their own, with a
switch per SAN path and sparse files for disks. It touches neither this
machine's network nor another lab. Labs need root; 'clade lab demo' also runs
without, over a switch in memory.`,
		Example: `  clade lab up --nodes 3 --layout 2+1
  clade lab status
  clade lab fault kill n1
  clade lab fault restart n1
  clade lab down`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.name, "name", "lab", "name of the lab")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	cmd.AddCommand(o.upCommand(), o.downCommand(), o.statusCommand(), o.faultCommand(), o.replaceCommand(), o.demoCommand(), o.tortureCommand(), o.calmCommand(), burnCommand())
	return cmd
}

// labContext ends at SIGINT and SIGTERM, so that what was made is taken down.
func labContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(commandContext(cmd), syscall.SIGINT, syscall.SIGTERM)
}

func (o *labOptions) upCommand() *cobra.Command {
	spec := lab.Spec{}
	var size, layout string
	cmd := &cobra.Command{
		Use: "up", Short: "Make a lab and wait until its volumes are healthy", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bytes, err := humanize.ParseBytes(size)
			if err != nil {
				return fmt.Errorf("--size %q: write a number with a unit, as in 1GiB", size)
			}
			spec.Name, spec.SizeBytes, spec.Layout = o.name, bytes, layout
			if spec.Slots == 0 {
				spec.Slots = -1 // in a Spec 0 is the default
			}
			ctx, cancel := labContext(cmd)
			defer cancel()
			l, err := lab.Up(ctx, spec, func(step string) { fmt.Fprintln(cmd.ErrOrStderr(), "lab:", step) })
			if err != nil {
				return err
			}
			return o.report(ctx, cmd, l)
		},
	}
	f := cmd.Flags()
	f.IntVar(&spec.Nodes, "nodes", 3, "storage nodes")
	f.IntVar(&spec.Disks, "disks", 1, "disks of each")
	f.StringVar(&layout, "layout", "2+1", "k+m: data and parity")
	f.StringVar(&size, "size", "1GiB", "size of each volume")
	f.IntVar(&spec.Witnesses, "witness", 0, "further nodes without disks")
	f.IntVar(&spec.Slots, "slots", 1, "volumes, in slots 1 and up; 0 for none")
	f.IntVar(&spec.MTU, "mtu", 9000, "MTU of the SAN")
	f.IntVar(&spec.SANPaths, "san-paths", 1, "SAN switches, and interfaces of each node")
	f.StringVar(&spec.Dir, "dir", "", "directory for its files (default /var/lib/clade-lab/NAME)")
	f.Uint16Var(&spec.Shelf, "shelf", 7, "shelf of the cluster")
	f.BoolVar(&spec.VolatileCache, "volatile-cache", false, "disks lose unsynced bytes when their process dies, as at a power cut")
	return cmd
}

func (o *labOptions) downCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "Take a lab away: processes, namespaces, files", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			swept, err := lab.Sweep()
			if err != nil {
				return err
			}
			names := []string{o.name}
			if all {
				if names, err = lab.List(); err != nil {
					return err
				}
			}
			var errs []error
			for _, name := range names {
				l, err := lab.Open(name)
				switch {
				case err == nil:
					err = l.Down()
				case errors.Is(err, lab.ErrNoLab) && contains(swept, name):
					err = nil // the sweep took it
				}
				errs = append(errs, err)
			}
			if err := errors.Join(errs...); err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"down": names, "swept": append([]string{}, swept...)})
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all labs of this machine")
	return cmd
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (o *labOptions) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show a lab's nodes and volumes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(o.name)
			if errors.Is(err, lab.ErrNoLab) {
				names, lerr := lab.List()
				if lerr == nil && len(names) > 0 {
					return fmt.Errorf("lab %s: %w; there are: %s", o.name, lab.ErrNoLab, strings.Join(names, ", "))
				}
				return fmt.Errorf("lab %s: %w; make it: clade lab up", o.name, lab.ErrNoLab)
			}
			if err != nil {
				return err
			}
			ctx, cancel := labContext(cmd)
			defer cancel()
			return o.report(ctx, cmd, l)
		},
	}
}

func (o *labOptions) replaceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replace NODE",
		Short: "Lose a node with its disks, and let a new one take its place",
		Long: `Lose a node with its disks, and let a new one take its place: it joins under another
name, its empty disks take over the lost ones' shards, the lost node is removed.
'clade lab status' shows how the disks are filled.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(o.name)
			if err != nil {
				return err
			}
			ctx, cancel := labContext(cmd)
			defer cancel()
			name, err := l.Replace(ctx, args[0])
			if err != nil {
				return err
			}
			if o.json {
				return o.report(ctx, cmd, l)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has taken the place of %s\n", name, args[0])
			return nil
		},
	}
}

func (o *labOptions) faultCommand() *cobra.Command {
	var whole bool
	cmd := &cobra.Command{
		Use:   "fault kill|stop|cont|restart|cut-san|cut-cluster|cut-san-oneway|cut-cluster-oneway|mute-san|mute-cluster|heal|powerloss NODE",
		Short: "Hurt or heal a node, or 'all'",
		Long: `Hurt or heal a node of a lab, or 'all'.

  kill                SIGKILL of the worker; its guardian tells the other nodes
                      that it is dead, and exits. With --all-processes both are
                      killed: a machine's death, which nobody can prove
  stop, cont          SIGSTOP and SIGCONT of all its processes
  restart             start it again; with all: those that are dead
  cut-san             pull its SAN cables
  cut-cluster         pull its cluster cable
  cut-san-oneway      it hears nothing on the SAN, but can send
  cut-cluster-oneway  the same on the cluster network
  mute-san            it hears everything on the SAN, but cannot be heard
  mute-cluster        the same on the cluster network
  heal                take all cuts back
  powerloss           SIGKILL of everything; in a lab made with --volatile-cache
                      what was not synced is lost, too`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			fault := lab.Fault(args[0])
			if whole {
				if fault != lab.FaultKill {
					return fmt.Errorf("--all-processes goes with kill only")
				}
				fault = lab.FaultKillAll
			}
			l, err := lab.Open(o.name)
			if err != nil {
				return err
			}
			if err := l.Do(fault, args[1]); err != nil {
				return err
			}
			if fault == lab.FaultPowerLoss && !l.Spec.VolatileCache {
				fmt.Fprintln(cmd.ErrOrStderr(), "lab: the kernel keeps what the nodes wrote, synced or not: a lab made with --volatile-cache loses it")
			}
			if !o.json {
				return nil
			}
			ctx, cancel := labContext(cmd)
			defer cancel()
			return o.report(ctx, cmd, l)
		},
	}
	cmd.Flags().BoolVar(&whole, "all-processes", false, "kill the guardian too: nobody can prove the death")
	return cmd
}

// report prints a lab.
func (o *labOptions) report(ctx context.Context, cmd *cobra.Command, l *lab.Lab) error {
	r, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	printLab(cmd.OutOrStdout(), r)
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func printLab(w io.Writer, r *lab.Report) {
	fmt.Fprintf(w, "lab %s: shelf %d, files in %s\n", r.Name, r.Shelf, r.Dir)
	nodes := table.NewWriter()
	nodes.SetOutputMirror(w)
	nodes.AppendHeader(table.Row{"node", "state", "worker", "guardian", "namespace", "admin socket"})
	for _, n := range r.Nodes {
		nodes.AppendRow(table.Row{n.Name, n.State, n.Pid, n.GuardianPid, n.Netns, n.Admin})
	}
	nodes.Render()
	volumes := table.NewWriter()
	volumes.SetOutputMirror(w)
	volumes.AppendHeader(table.Row{"volume", "size", "layout", "owner", "epoch", "serving MAC", "health"})
	for _, v := range r.Volumes {
		volumes.AppendRow(table.Row{v.Address, humanize.IBytes(v.Size), v.Layout, v.Owner, v.Epoch, strings.Join(macTexts(v.ServingMACs), " "), v.Health})
	}
	volumes.Render()
	fmt.Fprintf(w, "initiators: ip netns exec %s clade initiator discover -i %s\n", r.Initiator.Netns, r.Initiator.Interface)
	fmt.Fprintf(w, "SAN switch: bridge %s in namespace %s\n", r.SAN.Bridge, r.SAN.Netns)
}
