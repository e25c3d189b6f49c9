package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clade/aoe"
	"clade/cluster/runtime"
)

// joinAgain is how long 'clade join --serve' waits for a member that did not answer.
const joinAgain = time.Second

// nodeFlags are what init and join ask of a new node.
type nodeFlags struct {
	dir, node, listen, advertise, adminTCP string
	san, disks                             []string
	diskSize                               string
	witness, force, json, serve            bool
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", envOr("CLADE_DIR", defaultDir), "data directory to prepare (also CLADE_DIR)")
	fl.StringVar(&f.node, "node", hostName(), "name of this node, unique in the cluster")
	fl.StringVar(&f.listen, "listen", "", "cluster address to listen on (default: --advertise)")
	fl.StringVar(&f.advertise, "advertise", "", "cluster address that other nodes connect to, host:port")
	fl.StringSliceVar(&f.san, "san", nil, "SAN interface: a name, its MAC, or an IP prefix on it (repeat for several paths)")
	fl.StringSliceVar(&f.disks, "disk", nil, "block device or file to format as a disk (repeat for several)")
	fl.StringVar(&f.diskSize, "disk-size", "", "make disk files that do not exist with this size, as in 10GiB")
	fl.StringVar(&f.adminTCP, "admin-tcp", "", "also serve metrics and the admin API, unauthenticated, on this address")
	fl.BoolVar(&f.witness, "witness", false, "only a vote: no disks, no volumes")
	fl.BoolVar(&f.force, "force", false, "destroy what the disks hold")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	fl.BoolVar(&f.serve, "serve", false, "then run the node, as 'clade serve' does; a directory that is prepared already is only served")
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// config turns the flags into a configuration, and makes disk files.
func (f *nodeFlags) config(cmd *cobra.Command) (runtime.Config, error) {
	c := runtime.Config{Node: f.node, Listen: f.listen, Advertise: f.advertise, SAN: f.san}
	c.Admin.TCP = f.adminTCP
	if c.Listen == "" {
		c.Listen = f.advertise
	}
	if f.advertise == "" && f.listen == "" {
		return c, wrongUsage(cmd, "which address shall the other nodes connect to? Give --advertise host:port")
	}
	size, err := parseSize(cmd, f.diskSize)
	if err != nil {
		return c, err
	}
	for i, d := range f.disks {
		if f.disks[i], err = filepath.Abs(d); err != nil {
			return c, failure(exitUsage, "", "%w", err)
		}
		if size == 0 {
			continue
		}
		if err := runtime.MakeDiskFile(f.disks[i], size); err != nil {
			return c, err
		}
	}
	f.dir, err = filepath.Abs(f.dir)
	return c, err
}

func newInitCommand() *cobra.Command {
	var f nodeFlags
	var name string
	var shelf, sectors uint
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a cluster, with this node as its first member",
		Long: `Found a cluster, with this node as its first member.

It prepares the data directory; 'clade serve --dir DIR' then needs nothing else.
The number of sectors of a request is fixed here: --sectors 16 needs MTU 8228 on
all SAN interfaces of all nodes, --sectors 2 goes with MTU 1500.

With --serve this is all that a container has to run, the first time and ever after.`,
		Example: "  clade init --dir /var/lib/clade --cluster lab --shelf 7 --node n1 --advertise 10.0.0.1:7770 --san eth1 --disk /dev/sdb",
		Args:    checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if shelf > 0xFFFF {
				return wrongUsage(cmd, "--shelf %d is no 16-bit number", shelf)
			}
			if err := aoe.ValidateAddress(uint16(shelf), 0); err != nil {
				return wrongUsage(cmd, "%w", err)
			}
			if sectors > 255 {
				return wrongUsage(cmd, "--sectors %d: at most 255", sectors)
			}
			return f.run(cmd, func(cfg runtime.Config) error {
				out, err := runtime.Init(runtime.InitOptions{Dir: f.dir, Cluster: name, Shelf: uint16(shelf), SectorCount: uint8(sectors),
					Witness: f.witness, Config: cfg, Disks: f.disks, Force: f.force})
				if err != nil {
					return setupError(err)
				}
				return f.print(cmd, out, fmt.Sprintf("cluster %s is founded, shelf %d, %d sectors a request", name, shelf, out.Identity.SectorCount))
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&name, "cluster", "clade", "name of the cluster")
	cmd.Flags().UintVar(&shelf, "shelf", 1, "shelf (AoE major) of the cluster")
	cmd.Flags().UintVar(&sectors, "sectors", 0, "largest request in sectors (default: what the SAN interfaces' MTU carries, at most 16)")
	return cmd
}

func newJoinCommand() *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use:   "join ADDRESS",
		Short: "Make this node a member of a cluster, through any member's cluster address",
		Long: `Make this node a member of a cluster, through any member's cluster address.

It prepares the data directory; 'clade serve --dir DIR' then needs nothing else.
It can be repeated after a failure.

With --serve this is all that a container has to run, the first time and ever
after; it then waits for a member that does not answer yet.`,
		Example: "  clade join 10.0.0.1:7770 --dir /var/lib/clade --node n2 --advertise 10.0.0.2:7770 --san eth1 --disk /dev/sdb",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, func(cfg runtime.Config) error {
				out, err := f.join(cmd, runtime.JoinOptions{Dir: f.dir, Addr: args[0], Witness: f.witness, Config: cfg, Disks: f.disks, Force: f.force})
				if err != nil {
					return setupError(err)
				}
				return f.print(cmd, out, fmt.Sprintf("node %s is member %d of cluster %s, shelf %d", cfg.Node, out.Identity.Node, out.Identity.ClusterName, out.Identity.Shelf))
			})
		},
	}
	f.add(cmd)
	return cmd
}

// run prepares the data directory and, with --serve, runs the node; then one that is prepared already is just run.
func (f *nodeFlags) run(cmd *cobra.Command, prepare func(runtime.Config) error) error {
	prepared := false
	if f.serve {
		var err error
		if prepared, err = runtime.IsPrepared(f.dir); err != nil {
			return err
		}
	}
	if !prepared {
		cfg, err := f.config(cmd)
		if err != nil {
			return err
		}
		if err := prepare(cfg); err != nil {
			return err
		}
	}
	if !f.serve {
		return nil
	}
	s := serveFlags{dir: f.dir, listen: f.listen, advertise: f.advertise, san: f.san, adminTCP: f.adminTCP}
	return s.runGuardian(cmd)
}

// join joins; with --serve it waits until the member answers, since both may have been started at the same time.
func (f *nodeFlags) join(cmd *cobra.Command, opt runtime.JoinOptions) (*runtime.Prepared, error) {
	if !f.serve {
		return runtime.Join(cmd.Context(), opt)
	}
	// As process 1 of a container a signal without a handler would not end it.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for said := false; ; said = true {
		out, err := runtime.Join(ctx, opt)
		var silent *runtime.UnreachableError
		if !errors.As(err, &silent) || ctx.Err() != nil {
			return out, err
		}
		if !said {
			fmt.Fprintln(cmd.ErrOrStderr(), "waiting:", err)
		}
		select {
		case <-time.After(joinAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// setupError gives an error of init and join its exit code.
func setupError(err error) error {
	var refused *runtime.RefusedError
	var silent *runtime.UnreachableError
	var config *runtime.ConfigError
	switch {
	case errors.As(err, &config):
		return failure(exitUsage, "", "%w", err)
	case errors.As(err, &refused):
		next := ""
		if refused.Next != "" {
			next = "Next: " + refused.Next + "."
		}
		return failure(exitRefused, next, "%s", refused.What)
	case errors.As(err, &silent):
		return failure(exitUnreachable, "", "%w", err)
	}
	return err
}

func (f *nodeFlags) print(cmd *cobra.Command, p *runtime.Prepared, done string) error {
	for _, w := range p.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
	}
	t := target{json: f.json}
	return t.print(cmd, p, func(w io.Writer) {
		fmt.Fprintln(w, done)
		for i := range p.Disks {
			d := &p.Disks[i]
			fmt.Fprintf(w, "disk %d: %s, %s for shards\n", d.Disk, d.Path, humanize.IBytes(d.CapacityMiB<<20))
			if d.Destroyed != "" {
				fmt.Fprintf(w, "destroyed there: %s\n", d.Destroyed)
			}
		}
		if !f.serve {
			fmt.Fprintf(w, "next: clade serve --dir %s\n", f.dir)
		}
	})
}
