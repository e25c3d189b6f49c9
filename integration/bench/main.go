// Command bench measures Clade against other targets and against the machine that it runs on: `make bench`.
//
// In network namespaces it brings up a target that stores nothing, vblade, and Clade in several layouts, measures all of them with
// `clade bench`, measures what the disk itself can do, and prints a table: rates, ratios to vblade, to the wire alone and to the
// disk's limits, processor time of all processes of a target, and which of the project's goals were met. Ratios are between
// measurements of one run; rates of two runs, or of two machines, say little.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clade/aoe/initiator/bench"
	"clade/integration/lab"
)

const (
	volumeBytes = 1 << 30
	spanBytes   = 256 << 20 // of the volume that is used
	ramBytes    = 4 << 30
	tmpfsMagic  = 0x01021994
)

// bencher is one run.
type bencher struct {
	binary string
	dir    string        // on the disk that is measured; of this run alone
	ram    string        // below it, in memory
	each   time.Duration // of one measurement
	rounds int           // of the targets in memory, alternating
	rows   []string      // to measure
	cols   []string
	table  table
	began  time.Time
	log    io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do, args := run, os.Args[1:]
	if len(args) > 0 && args[0] == scaleCommand {
		do, args = runScale, args[1:]
	}
	if err := do(ctx, os.Stderr, args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stderr io.Writer, args []string) error {
	runtime.LockOSThread() // children are tied to the thread that started them, and have its priority
	defer runtime.UnlockOSThread()
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	root := f.String("dir", "/var/tmp", "directory on the disk to measure; not a file system in memory")
	binary := f.String("clade", "bin/clade", "the program to measure")
	out := f.String("out", "bin", "where bench.md, bench.svg and bench.json go")
	docs := f.Bool("docs", false, "also write docs/performance-table.md and docs/performance.svg")
	each := f.Duration("each", 2500*time.Millisecond, "time of one measurement")
	rounds := f.Int("rounds", 2, "rounds of the targets in memory, which alternate")
	rows := f.String("rows", "", "measure only these: names or parts of names, with commas between them (2+1, tmpfs, null)")
	cols := f.String("loads", "", "measure only these, of "+strings.Join(loadNames(), ","))
	if err := f.Parse(args); err != nil {
		return err
	}
	b := &bencher{each: *each, rounds: *rounds, rows: pick(allRows, *rows), cols: pick(loadNames(), *cols), began: time.Now(), log: stderr}
	if b.each <= 0 || b.rounds < 1 || len(b.rows) == 0 || len(b.cols) == 0 || f.NArg() > 0 {
		return errors.New("nothing to measure: see --help")
	}
	undo, err := b.prepare(*root, *binary)
	if err != nil {
		return err
	}
	defer undo()
	b.table.Machine = lookAround(ctx, b.dir)
	err = errors.Join(b.measure(ctx), removeDir(b.dir))
	b.table.Machine.Minutes = time.Since(b.began).Minutes()
	if err != nil {
		return err
	}
	report := markdown(&b.table)
	fmt.Print(report)
	return b.write(*out, *docs, report)
}

// prepare finds the program, makes the directories of the run and gives this process and its children precedence, which undo ends.
func (b *bencher) prepare(root, binary string) (undo func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root, for network namespaces and raw frames")
	}
	if b.binary, err = filepath.Abs(binary); err == nil {
		_, err = os.Stat(b.binary)
	}
	if err != nil {
		return nil, fmt.Errorf("%w\nBuild it first: make build", err)
	}
	if err := b.makeDirs(root); err != nil {
		return nil, err
	}
	if undo, err = goFirst(); err != nil {
		b.tell("no precedence for what is measured, but a node of Clade may have it: %v", err)
	}
	return undo, nil
}

// write leaves the report behind.
func (b *bencher) write(out string, docs bool, report string) error {
	raw, err := json.MarshalIndent(&b.table, "", " ")
	if err != nil {
		return err
	}
	files := map[string][]byte{filepath.Join(out, "bench.md"): []byte(report), filepath.Join(out, "bench.svg"): picture(&b.table), filepath.Join(out, "bench.json"): raw}
	if docs {
		files["docs/performance-table.md"], files["docs/performance.svg"] = []byte(report), picture(&b.table)
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
	}
	return nil
}

func loadNames() []string {
	var out []string
	for i := range loads {
		out = append(out, loads[i].name)
	}
	return out
}

// pick returns those of a list that a list of parts of names wants; all, if it is empty. A name that is there wants only itself.
func pick(all []string, wanted string) []string {
	if wanted == "" {
		return all
	}
	var out []string
	for _, name := range all {
		for part := range strings.SplitSeq(wanted, ",") {
			if part = strings.TrimSpace(part); part != "" && (name == part || !slices.Contains(all, part) && strings.Contains(name, part)) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// makeDirs makes the directory of the run and the file system in memory.
func (b *bencher) makeDirs(root string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return fmt.Errorf("--dir %s: %w", root, err)
	}
	if st.Type == tmpfsMagic {
		return fmt.Errorf("--dir %s is in memory: name a directory on a disk", root)
	}
	_, err := lab.Sweep()
	if err = errors.Join(err, sweep(root)); err != nil {
		b.tell("what a killed run has left cannot be removed: %v", err)
	}
	b.dir = filepath.Join(root, fmt.Sprintf("%s%d", namePrefix, os.Getpid()))
	b.ram = filepath.Join(b.dir, "ram")
	if err := os.MkdirAll(b.ram, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("clade-bench", b.ram, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", int64(ramBytes))); err != nil {
		return errors.Join(fmt.Errorf("mount a file system in memory: %w", err), os.Remove(b.ram), os.Remove(b.dir))
	}
	return nil
}

func (b *bencher) tell(f string, args ...any) {
	fmt.Fprintf(b.log, "%4.0f s  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(f, args...))
}

func (b *bencher) wants(row string) bool { return slices.Contains(b.rows, row) }

// failed notes what could not be measured; an interruption ends the run.
func (b *bencher) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	b.tell("FAILED: %v", err)
	b.table.Failed = append(b.table.Failed, err.Error())
	return nil
}

// measure is the whole run: the disk, the targets in memory in turn, the others one by one, the disk again.
func (b *bencher) measure(ctx context.Context) error {
	disk := slices.ContainsFunc(shapes, func(s shape) bool { return !s.inRAM && b.wants(s.row) })
	limits := func() error {
		if !disk {
			return nil
		}
		b.tell("limits of the disk")
		found, err := measureLimits(b.dir, min(b.each, 2*time.Second), diskProbes)
		if err != nil {
			return b.failed(ctx, err)
		}
		b.table.Limits = append(b.table.Limits, found...)
		return nil
	}
	if err := limits(); err != nil {
		return err
	}
	if err := b.inMemory(ctx); err != nil {
		return err
	}
	for i := range shapes {
		s := &shapes[i]
		if s.inRAM || !b.wants(s.row) {
			continue
		}
		if err := b.one(ctx, s); err != nil {
			return err
		}
	}
	return limits()
}

// inMemory measures the targets without a disk, in turn: what disturbs one disturbs the others.
func (b *bencher) inMemory(ctx context.Context) error {
	var sites []*site
	defer func() {
		for _, s := range sites {
			if err := s.takeOff(); err != nil {
				b.tell("%s is not down: %v", s.row, err)
			}
		}
	}()
	for _, t := range []struct {
		row   string
		start func() (*site, error)
	}{
		{rowNull, func() (*site, error) { return b.startNull(ctx) }},
		{rowVblade, func() (*site, error) { return b.startVblade(ctx) }},
		{rowRAM, func() (*site, error) { return b.startClade(ctx, &shapes[0]) }},
	} {
		if !b.wants(t.row) {
			continue
		}
		b.tell("%s", t.row)
		s, err := t.start()
		if err != nil {
			if err := b.failed(ctx, err); err != nil {
				return err
			}
			continue
		}
		sites = append(sites, s)
	}
	for range b.rounds {
		for i := range loads {
			for _, s := range sites {
				if err := b.cell(ctx, s, &loads[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// one measures a Clade on disks.
func (b *bencher) one(ctx context.Context, s *shape) error {
	b.tell("%s", s.row)
	at, err := b.startClade(ctx, s)
	if err != nil {
		return b.failed(ctx, err)
	}
	for i := range loads {
		if err = b.cell(ctx, at, &loads[i]); err != nil {
			break
		}
	}
	if down := at.takeOff(); down != nil {
		b.tell("%s is not down: %v", s.row, down)
	}
	return err
}

const coldTriesMax = 2

// fromDisk says whether at least half of what was read came from a disk.
func fromDisk(r *bench.Result) bool { return r.DiskReadPerIO >= float64(r.SizeBytes)/2 }

// cell measures one column of one row.
func (b *bencher) cell(ctx context.Context, s *site, l *load) error {
	if !slices.Contains(b.cols, l.name) || l.cold && (len(s.disks) == 0 || s.row == rowRAM || s.row == row21Small) {
		return nil
	}
	r, err := b.run(ctx, s, l)
	for again := 0; err == nil && l.cold && !fromDisk(r) && again < coldTriesMax; again++ { // pages that were being written stay in memory
		r, err = b.run(ctx, s, l)
	}
	if err == nil && l.cold && !fromDisk(r) {
		err = fmt.Errorf("%s: %s: memory has answered: of %d bytes, %.0f came from the disk", s.row, l.title, r.SizeBytes, r.DiskReadPerIO)
	}
	if err != nil {
		return b.failed(ctx, err)
	}
	b.tell("%-22s %-28s %10s  p50 %s µs, p99.9 %s µs, CPU %.1f µs", s.row, l.title, rateText(l, r), number(r.Latency.P50), number(r.Latency.P999), r.TargetUsPerIO)
	b.table.add(s.row, l.name, r)
	return nil
}
