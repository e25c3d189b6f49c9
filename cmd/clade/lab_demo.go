package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"clade/aoe/initiator"
	"clade/integration/lab"
)

// What the demo works with, and what it lets pass.
const (
	demoVolumeBytes = 512 << 20
	demoImageBytes  = 160 << 20
	demoChunkBytes  = 256 << 10
	demoDepth       = 8
	demoRacers      = 8
	demoMax         = 6 * time.Minute // a demo that takes longer hangs
	demoPause       = 3 * time.Second // how long a stopped node stands still

	limitKill  = time.Second
	limitPause = 1500 * time.Millisecond
	limitDrain = 150 * time.Millisecond
)

// demo is one run.
type demo struct {
	ctx    context.Context
	w      io.Writer
	bar    bool // progress bars
	site   lab.Site
	name   string
	keep   bool
	dead   string // the node that is left dead
	real   bool   // processes in namespaces, not goroutines
	host   *lab.Host
	slot   uint8
	dir    string // for the image
	image  string
	sum    [sha256.Size]byte
	probes [2]*lab.Prober // library timing, Linux timing
	rows   []demoRow
	began  time.Time
}

// demoRow is a line of the summary.
type demoRow struct {
	what, measured, limit string
	ok                    bool
	time                  bool // a stall: what it is depends on what else the machine does
}

func (o *labOptions) demoCommand() *cobra.Command {
	var keep, memory bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show in two minutes what Clade is for: real data, and nodes that die",
		Long: `Show in two minutes what Clade is for: real data, and nodes that die.

It makes a cluster of three nodes, writes a file system to it over ATA over
Ethernet, kills the node that serves it in the middle, measures how long a disk
stands still when a node is killed, paused or drained, reads everything back with
another node dead, checks it, and takes everything away again. It exits non-zero
if anything was not as it should be.

Without root it does the same with nodes in this process and a switch in memory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep = keep || os.Getenv("KEEP") != "" && os.Getenv("KEEP") != "0"
			ctx, cancel := labContext(cmd)
			defer cancel()
			ctx, cancel = context.WithTimeout(ctx, demoMax)
			defer cancel()
			d := &demo{ctx: ctx, w: cmd.OutOrStdout(), bar: isTerminal(cmd.ErrOrStderr()), slot: 1, real: os.Geteuid() == 0 && !memory, began: time.Now()}
			d.name, d.keep = o.name, keep
			if !cmd.Flags().Changed("name") {
				d.name = fmt.Sprintf("demo-%d", os.Getpid()) // beside any other demo
				if keep {
					d.name = "demo" // easy to type
				}
			}
			return d.run()
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the lab up (also KEEP=1)")
	cmd.Flags().BoolVar(&memory, "memory", false, "nodes in this process and a switch in memory, also as root")
	return cmd
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.w, "[%5.1f s] "+format+"\n", append([]any{time.Since(d.began).Seconds()}, args...)...)
}

// run does everything, and takes everything away but what is to be kept.
func (d *demo) run() (err error) {
	if d.dir, err = os.MkdirTemp("", "clade-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if err := d.up(); err != nil {
		return err
	}
	defer func() {
		if d.host != nil {
			err = errors.Join(err, d.host.Close())
		}
		if l, ok := d.site.(*lab.Lab); ok && d.keep && d.ctx.Err() == nil {
			if d.dead != "" {
				err = errors.Join(err, d.restart(d.dead))
			}
			d.howToAttach(l)
			return
		}
		err = errors.Join(err, d.site.Down())
	}()
	for _, step := range []func() error{d.discover, d.makeImage, d.warmUp, d.writeWithDeath, d.comeBack, d.measureKill,
		d.measurePause, d.measureDrain, d.readBack, d.race} {
		if err := step(); err != nil {
			if d.ctx.Err() != nil {
				return fmt.Errorf("interrupted: %w", d.ctx.Err())
			}
			return err
		}
	}
	return d.sumUp()
}

func (d *demo) up() error {
	spec := lab.Spec{Name: d.name, Held: !d.keep, Nodes: 3, Layout: "2+1", SizeBytes: demoVolumeBytes, MTU: 9000}
	var err error
	if d.real {
		fmt.Fprintln(d.w, "Three nodes as real processes, each in a network namespace of its own, on an Ethernet switch with MTU 9000.")
		var l *lab.Lab
		if old, oerr := lab.Open(d.name); oerr == nil && d.keep { // kept by a former run
			if err := old.Down(); err != nil {
				return err
			}
		}
		if l, err = lab.Up(d.ctx, spec, nil); err == nil {
			d.site = l
		}
	} else {
		fmt.Fprintln(d.w, "Without root: three nodes in this process, on an Ethernet switch in memory. As root, this uses real processes and interfaces.")
		spec.Dir = filepath.Join(d.dir, "lab")
		var m *lab.Memory
		if m, err = lab.NewMemory(d.ctx, spec); err == nil {
			d.site = m
		}
	}
	if err != nil {
		return err
	}
	d.say("cluster is up: layout 2+1, so any one node may be lost")
	d.host, err = d.site.OpenHost()
	return err
}

func (d *demo) shelf() uint16 { return d.site.Shape().Shelf }

func (d *demo) discover() error {
	ctx, cancel := context.WithTimeout(d.ctx, time.Second)
	defer cancel()
	found, err := d.host.Discover(ctx, initiator.NewMAC(), d.shelf(), 0xFF)
	if err != nil {
		return err
	}
	for _, f := range found {
		d.say("an initiator discovers e%d.%d, served from %s, %d sectors a frame", f.Shelf, f.Slot, macText(f.MAC), f.SectorCount)
	}
	d.row("shelf discovered", fmt.Sprintf("%d volume", len(found)), "1", len(found) == 1)
	return nil
}

func (d *demo) row(what, measured, limit string, ok bool) {
	d.rows = append(d.rows, demoRow{what: what, measured: measured, limit: limit, ok: ok})
}

// timeRow adds a stall. On a machine that does other things as well (CI=true) one beyond its limit is shown and counts for nothing:
// no test here depends on the clock.
func (d *demo) timeRow(what, measured string, limit time.Duration, ok bool) {
	d.rows = append(d.rows, demoRow{what: what, measured: measured, limit: "< " + inMs(limit), ok: ok, time: true})
}

// stallRow adds the stall that both timings saw; the row fails if either is beyond the limit.
func (d *demo) stallRow(what string, library, linux, limit time.Duration) {
	d.timeRow(what, fmt.Sprintf("%s (Linux timing: %s)", inMs(library), inMs(linux)), limit, library < limit && linux < limit)
}

func inMs(t time.Duration) string {
	return fmt.Sprintf("%d ms", t.Round(time.Millisecond).Milliseconds())
}

func (d *demo) owner() (string, error) {
	ctx, cancel := context.WithTimeout(d.ctx, 20*time.Second)
	defer cancel()
	return lab.OwnerOf(ctx, d.site, d.slot)
}

func (d *demo) healthy() error {
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	return lab.AwaitHealthy(ctx, d.site)
}

// warmUp starts two initiators that write a block at a time, beside everything else that happens.
func (d *demo) warmUp() error {
	for i, mode := range []initiator.Mode{initiator.ModeLibrary, initiator.ModeLinux} {
		off := int64(demoVolumeBytes - (i+1)<<20)
		p, err := lab.StartProber(d.ctx, d.host, d.shelf(), d.slot, off, mode)
		if err != nil {
			return err
		}
		d.probes[i] = p
	}
	ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
	defer cancel()
	for _, p := range d.probes {
		if err := p.Await(ctx, lab.WarmUpWrites); err != nil {
			return err
		}
	}
	d.say("two initiators are warm: %d writes each, one with this library's timing, one with that of the Linux driver", lab.WarmUpWrites)
	return nil
}

// stall lets something happen and returns the longest write that each prober saw from then until it went on well.
func (d *demo) stall(happen func() error, settled func() error) (library, linux time.Duration, err error) {
	for _, p := range d.probes {
		p.Reset()
	}
	if err := happen(); err != nil {
		return 0, 0, err
	}
	if err := settled(); err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
	defer cancel()
	for _, p := range d.probes {
		if err := p.Await(ctx, 50); err != nil {
			return 0, 0, err
		}
	}
	return d.probes[0].Longest(), d.probes[1].Longest(), nil
}

// movedFrom waits until another node serves.
func (d *demo) movedFrom(node string) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
		defer cancel()
		return lab.Await(ctx, d.site, "another owner than "+node, func(s *lab.NodeStatus) bool {
			for i := range s.Volumes {
				if v := &s.Volumes[i]; v.Slot == d.slot {
					return v.Active && v.OwnerName != "" && v.OwnerName != node
				}
			}
			return false
		})
	}
}

func (d *demo) kill(node string) func() error {
	return func() error { return d.site.Do(lab.FaultKill, node) }
}

// killing says how nodes die here.
func (d *demo) killing() string {
	if d.real {
		return "kill -9"
	}
	return "sudden end"
}

// killLimit is a second where a guardian proves the death; nodes in one process have none, so the lease must run out.
func (d *demo) killLimit() time.Duration {
	if d.real {
		return limitKill
	}
	return limitPause
}

func (d *demo) measureKill() error {
	node, err := d.owner()
	if err != nil {
		return err
	}
	lib, linux, err := d.stall(d.kill(node), d.movedFrom(node))
	if err != nil {
		return err
	}
	d.say("%s of %s, which served: the disk stood still for %s (Linux timing: %s)", d.killing(), node, inMs(lib), inMs(linux))
	d.stallRow("stall: "+d.killing()+" of the owner", lib, linux, d.killLimit())
	if err := d.restart(node); err != nil {
		return err
	}
	return d.healthy()
}

func (d *demo) measurePause() error {
	node, err := d.owner()
	if err != nil {
		return err
	}
	lib, linux, err := d.stall(func() error { return d.site.Do(lab.FaultStop, node) }, d.movedFrom(node))
	if err != nil {
		return errors.Join(err, d.site.Do(lab.FaultCont, node))
	}
	select {
	case <-time.After(demoPause):
	case <-d.ctx.Done():
	}
	if err := d.site.Do(lab.FaultCont, node); err != nil {
		return err
	}
	if err := d.healthy(); err != nil {
		return err
	}
	lib, linux = max(lib, d.probes[0].Longest()), max(linux, d.probes[1].Longest()) // its return must not disturb either
	d.say("%s, which served, stood still for more than %s, then went on: %s (Linux timing: %s)", node, demoPause, inMs(lib), inMs(linux))
	d.stallRow("stall: owner paused, and back", lib, linux, limitPause)
	return nil
}

// measureDrain drains three times and judges the median: what else runs on the machine easily costs more than a handoff.
func (d *demo) measureDrain() error {
	var lib, linux []time.Duration
	for range 3 {
		node, err := d.owner()
		if err != nil {
			return err
		}
		a, b, err := d.stall(func() error { return d.site.Drain(d.ctx, node, false) }, d.movedFrom(node))
		if err != nil {
			return err
		}
		lib, linux = append(lib, a), append(linux, b)
		if err := d.site.Drain(d.ctx, node, true); err != nil {
			return err
		}
		if err := d.healthy(); err != nil {
			return err
		}
	}
	d.say("clade drain of the node that served, three times: %v (Linux timing: %v)", allInMs(lib), allInMs(linux))
	slices.Sort(lib)
	slices.Sort(linux)
	d.timeRow("stall: owner drained, median of 3", fmt.Sprintf("%s (Linux timing: %s)", inMs(lib[1]), inMs(linux[1])), limitDrain, lib[1] < limitDrain)
	return nil
}

func allInMs(list []time.Duration) []string {
	var out []string
	for _, t := range list {
		out = append(out, inMs(t))
	}
	return out
}

func (d *demo) restart(node string) error {
	if l, ok := d.site.(*lab.Lab); ok {
		if err := l.AwaitExit(node, 10*time.Second); err != nil {
			return err
		}
	}
	return d.site.Do(lab.FaultRestart, node)
}

func (d *demo) race() error {
	ctx, cancel := context.WithTimeout(d.ctx, 20*time.Second)
	defer cancel()
	res, err := d.host.Race(ctx, d.shelf(), d.slot, demoRacers, "host-")
	if err != nil {
		return err
	}
	winner := ""
	for _, c := range res.Contenders {
		if c.Won {
			winner = c.Wanted
		}
	}
	err = res.Check()
	d.say("%d initiators set their config strings at the same moment; told that they won: %d (%s)", demoRacers, res.Winners, winner)
	if err != nil {
		d.say("the race is wrong: %v", err)
	}
	d.row("config string race of 8", fmt.Sprintf("%d winner: %s", res.Winners, winner), "1", err == nil)
	return nil
}

// sumUp prints the table; an error if anything failed.
func (d *demo) sumUp() error {
	t := table.NewWriter()
	t.SetOutputMirror(d.w)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"what", "measured", "limit", ""})
	failed := 0
	for _, r := range d.rows {
		verdict := "PASS"
		switch {
		case r.ok:
		case r.time && os.Getenv("CI") == "true":
			verdict = "SLOW"
		default:
			verdict = "FAIL"
			failed++
		}
		t.AppendRow(table.Row{r.what, r.measured, r.limit, verdict})
	}
	fmt.Fprintln(d.w)
	t.Render()
	d.say("done: %d of %d passed", len(d.rows)-failed, len(d.rows))
	if failed > 0 {
		return fmt.Errorf("demo: %d of %d checks failed", failed, len(d.rows))
	}
	return nil
}

func (d *demo) howToAttach(l *lab.Lab) {
	fmt.Fprintf(d.w, `
The lab stays up. See it:         clade lab status --name %[1]s
Talk to it from the initiator's namespace:
    ip netns exec %[2]s clade initiator discover -i san0
Attach a real initiator, for instance a virtual machine with a tap:
    ip -n %[3]s tuntap add tap0 mode tap
    ip -n %[3]s link set tap0 mtu 9000 master %[4]s up
    ip netns exec %[3]s qemu-system-x86_64 ... -netdev tap,id=n,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n,host_mtu=9000
  and in the guest: ip link set eth0 mtu 9000 up; modprobe aoe aoe_iflist=eth0; ls /dev/etherd
Take it down:                     clade lab down --name %[1]s
`, l.Spec.Name, l.InitiatorNamespace(), l.SANNamespace(), l.SANBridge(0))
}

// sizeText is for people.
func sizeText(n int64) string { return humanize.IBytes(uint64(n)) }

// tool runs a program and returns what it printed.
func (d *demo) tool(name string, args ...string) (string, error) {
	path, err := lookTool(name)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(d.ctx, path, args...).CombinedOutput() //nolint:gosec // mkfs.ext4 and e2fsck
	return string(out), err
}
