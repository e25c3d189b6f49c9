package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clade/aoe/initiator/bench"
	"clade/integration/lab"
)

// namePrefix begins the names of everything that a run makes outside of its labs; the number of its process follows.
const namePrefix = "clade-bench-"

// site is a target that runs, and where its initiator has to be.
type site struct {
	row     string
	volume  string // e<shelf>.<slot>
	netns   string // of the initiator
	nic     string
	pids    []int
	disks   []string // files whose pages are thrown away before a cold read
	filled  bool     // the span was written once
	takeOff func() error
	forget  func(ctx context.Context) error // empties the target's own caches; nil: it has none
}

// command runs a program that has to end well, and returns what it printed.
func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return out.Bytes(), nil
}

// wire is what a lab's SAN is, for one target: an initiator, a switch and a target, each in a namespace of its own.
type wire struct{ initiator, middle, target string }

const nic = "san0" // in both

func newWire(ctx context.Context, name string, mtu int) (*wire, error) {
	base := fmt.Sprintf("%s%d-%s", namePrefix, os.Getpid(), name)
	w := &wire{initiator: base + "-i", middle: base + "-m", target: base + "-t"}
	size := strconv.Itoa(mtu)
	var steps [][]string
	for _, ns := range []string{w.initiator, w.middle, w.target} {
		steps = append(steps, []string{"netns", "add", ns})
	}
	steps = append(steps, []string{"-n", w.middle, "link", "add", "br0", "mtu", size, "type", "bridge", "mcast_snooping", "0"})
	for i, ns := range []string{w.initiator, w.target} {
		port := fmt.Sprintf("port%d", i)
		steps = append(steps,
			[]string{"-n", w.middle, "link", "add", port, "mtu", size, "type", "veth", "peer", "name", nic, "mtu", size, "netns", ns},
			[]string{"-n", w.middle, "link", "set", port, "master", "br0", "up"},
			[]string{"-n", ns, "link", "set", nic, "up"})
	}
	steps = append(steps, []string{"-n", w.middle, "link", "set", "br0", "up"})
	for _, s := range steps {
		if _, err := command(ctx, "ip", s...); err != nil {
			return nil, errors.Join(err, w.remove())
		}
	}
	return w, nil
}

func (w *wire) remove() error {
	var errs []error
	for _, ns := range []string{w.initiator, w.middle, w.target} {
		if _, err := os.Stat(filepath.Join("/run/netns", ns)); err == nil {
			_, err = command(context.Background(), "ip", "netns", "del", ns)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// simple starts a target that is one process on a wire of its own. The process ends with this one.
func simple(ctx context.Context, row, name, volume string, mtu int, args func(nic string) []string) (*site, error) {
	w, err := newWire(ctx, name, mtu)
	if err != nil {
		return nil, err
	}
	var log bytes.Buffer
	cmd := exec.Command("ip", append([]string{"netns", "exec", w.target}, args(nic)...)...) // ip becomes the program
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // in this session, for its precedence
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", row, err), w.remove())
	}
	s := &site{row: row, volume: volume, netns: w.initiator, nic: nic, pids: []int{cmd.Process.Pid}}
	s.takeOff = func() error {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
		return w.remove()
	}
	return s, nil
}

// startNull starts the null target.
func (b *bencher) startNull(ctx context.Context) (*site, error) {
	return simple(ctx, rowNull, "null", "e9.1", 9000, func(nic string) []string {
		return []string{b.binary, "bench", "null-target", "-i", nic, "e9.1", "--size", fmt.Sprintf("%dB", volumeBytes)}
	})
}

// vbladeBuffers is what vblade is told to advertise: with its default of 16 no initiator would keep more than 16 frames going.
const vbladeBuffers = "64"

// startVblade starts vblade on a file in memory, without -s: it answers writes from the page cache.
func (b *bencher) startVblade(ctx context.Context) (*site, error) {
	if err := installVblade(ctx, b.tell); err != nil {
		return nil, err
	}
	file := filepath.Join(b.ram, "vblade")
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(f.Truncate(volumeBytes), f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rowVblade, err)
	}
	return simple(ctx, rowVblade, "vblade", "e8.1", 9000, func(nic string) []string {
		return []string{"vblade", "-b", vbladeBuffers, "8", "1", nic, file}
	})
}

// installVblade asks apt for Debian's vblade if there is none.
func installVblade(ctx context.Context, tell func(string, ...any)) error {
	if _, err := exec.LookPath("vblade"); err == nil {
		return nil
	}
	tell("installing vblade")
	if _, err := command(ctx, "apt-get", "update", "-q"); err != nil {
		return err
	}
	_, err := command(ctx, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-yq", "--no-install-recommends", "vblade")
	return err
}

// shape is a Clade row.
type shape struct {
	row    string
	layout string
	nodes  int
	mtu    int
	inRAM  bool
}

var shapes = []shape{
	{rowRAM, "1+0", 1, 9000, true},
	{row10, "1+0", 1, 9000, false},
	{row11, "1+1", 2, 9000, false},
	{row21, "2+1", 3, 9000, false},
	{row21Small, "2+1", 3, 1500, false},
	{row12, "1+2", 3, 9000, false},
	{row42, "4+2", 6, 9000, false},
}

var unnamed = regexp.MustCompile(`[^a-z0-9]+`)

// startClade makes a lab and waits until its volume is healthy.
func (b *bencher) startClade(ctx context.Context, s *shape) (*site, error) {
	root := b.dir
	if s.inRAM {
		root = b.ram
	}
	name := fmt.Sprintf("b%d-%s", os.Getpid(), strings.Trim(unnamed.ReplaceAllString(strings.ToLower(s.row), "-"), "-"))
	name = name[:min(len(name), 32)]
	l, err := lab.Up(ctx, lab.Spec{Name: name, Dir: filepath.Join(root, name), Nodes: s.nodes, Layout: s.layout, SizeBytes: volumeBytes,
		MTU: s.mtu, Binary: b.binary, Held: true}, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.row, err)
	}
	out := &site{row: s.row, netns: l.InitiatorNamespace(), takeOff: l.Down}
	out.forget = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := errors.Join(l.Do(lab.FaultKillAll, lab.AllNodes), l.Do(lab.FaultRestart, lab.AllNodes)); err != nil {
			return err
		}
		if err := lab.AwaitHealthy(ctx, l); err != nil {
			return err
		}
		return out.look(ctx, l)
	}
	if err := out.look(ctx, l); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.row, err), l.Down())
	}
	return out, nil
}

// look notes which processes and which files a lab has.
func (s *site) look(ctx context.Context, l *lab.Lab) error {
	report, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if len(report.Volumes) != 1 {
		return fmt.Errorf("%d volumes, want 1", len(report.Volumes))
	}
	s.volume, s.nic = report.Volumes[0].Address, report.Initiator.Interface
	s.pids, s.disks = nil, nil
	for _, n := range report.Nodes {
		s.pids = append(s.pids, n.Pid, n.GuardianPid)
		disks, _ := filepath.Glob(filepath.Join(report.Dir, n.Name, "disk*")) // the pattern is good
		s.disks = append(s.disks, disks...)
	}
	return nil
}

// run measures one column.
func (b *bencher) run(ctx context.Context, s *site, l *load) (*bench.Result, error) {
	if l.cold {
		if s.forget != nil {
			if err := s.forget(ctx); err != nil {
				return nil, fmt.Errorf("%s: restart for empty caches: %w", s.row, err)
			}
		}
		if err := s.dropPages(); err != nil {
			return nil, err
		}
	}
	args := []string{s.volume, "--span", fmt.Sprintf("%dB", spanBytes)}
	if !s.filled {
		args = append(args, "--fill")
	}
	r, err := b.bench(ctx, s, b.each, append(args, l.args...)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.row, l.title, err)
	}
	s.filled = true
	return r, nil
}

// bench runs `clade bench` where a site's initiator is.
func (b *bencher) bench(ctx context.Context, s *site, each time.Duration, more ...string) (*bench.Result, error) {
	seconds := each.Seconds()
	args := []string{"netns", "exec", s.netns, b.binary, "bench", "-i", s.nic, "--json", "--destroy",
		"--seconds", fmt.Sprint(seconds), "--warm-up", fmt.Sprint(min(0.5, seconds/3))}
	for _, pid := range s.pids {
		args = append(args, "--pid", strconv.Itoa(pid))
	}
	ctx, cancel := context.WithTimeout(ctx, each+2*time.Minute)
	defer cancel()
	out, err := command(ctx, "ip", append(args, more...)...)
	if err != nil {
		return nil, err
	}
	var r bench.Result
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// dropPages makes the next reads come from the disk: what is in the page cache is written, and forgotten.
func (s *site) dropPages() error {
	for _, path := range s.disks {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("%s: %w", s.row, err)
		}
		err = unix.Fdatasync(int(f.Fd()))
		if err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: page cache of %s: %w", s.row, path, err)
		}
	}
	return nil
}

// settle has the disk files written: a large volume's tables would be for a minute, at the cost of what is measured.
func (s *site) settle() error {
	for _, path := range s.disks {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("%s: %w", s.row, err)
		}
		if err = errors.Join(unix.Fdatasync(int(f.Fd())), f.Close()); err != nil {
			return fmt.Errorf("%s: sync of %s: %w", s.row, path, err)
		}
	}
	return nil
}

// sweep takes away what runs that were killed have left outside of their labs: namespaces, directories, file systems in memory.
func sweep(dir string) error {
	var errs []error
	names, _ := filepath.Glob("/run/netns/" + namePrefix + "*") // the patterns are good
	dirs, _ := filepath.Glob(filepath.Join(dir, namePrefix+"*"))
	for _, path := range append(names, dirs...) {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), namePrefix), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || unix.Kill(pid, 0) == nil {
			continue // not ours, or at work
		}
		if strings.HasPrefix(path, "/run/netns/") {
			_, err = command(context.Background(), "ip", "netns", "del", filepath.Base(path))
		} else {
			err = removeDir(path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeDir removes the directory of a run, and the file system in memory in it.
func removeDir(dir string) error {
	err := unix.Unmount(filepath.Join(dir, "ram"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", filepath.Join(dir, "ram"), err)
	}
	return os.RemoveAll(dir)
}
