package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"clade/integration/lab"
)

// scaleCommand is the first argument that asks for the second report: `make bench-scale`.
const scaleCommand = "scale"

// scaler is one run of it.
type scaler struct {
	bencher
	cases  []string // to measure
	parts  []string
	result scale
}

// The parts of a run, besides the cases.
const (
	partTakeover = "takeover"
	partResync   = "resync"
)

var allParts = []string{partTakeover, partResync}

func runScale(ctx context.Context, stderr io.Writer, args []string) error {
	runtime.LockOSThread() // children are tied to the thread that started them, and have its priority
	defer runtime.UnlockOSThread()
	f := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	f.SetOutput(stderr)
	root := f.String("dir", "/var/tmp", "directory on the disk to measure; not a file system in memory")
	binary := f.String("clade", "bin/clade", "the program to measure")
	out := f.String("out", "bin", "where bench-scale.md and bench-scale.json go")
	docs := f.Bool("docs", false, "also write docs/performance-scale.md")
	asJSON := f.Bool("json", false, "print the result as JSON")
	each := f.Duration("each", 2*time.Second, "time of one measurement")
	rounds := f.Int("rounds", 2, "rounds of each case, by turns with the base case")
	takeovers := f.Int("takeovers", 3, "takeovers of each kind")
	names := f.String("cases", "", "measure only these: names or parts of names, with commas between them (16 volumes, nodes, 1 TiB)")
	parts := f.String("parts", "", "besides the cases' costs measure only these, of "+strings.Join(allParts, ",")+", or none")
	if err := f.Parse(args); err != nil {
		return err
	}
	s := &scaler{bencher: bencher{each: *each, rounds: *rounds, began: time.Now(), log: stderr}, cases: pick(caseNames(), *names), parts: pick(allParts, *parts)}
	s.result.Takeovers = *takeovers
	if s.each <= 0 || s.rounds < 1 || *takeovers < 1 || len(s.cases) == 0 || f.NArg() > 0 {
		return errors.New("nothing to measure: see --help")
	}
	undo, err := s.prepare(*root, *binary)
	if err != nil {
		return err
	}
	defer undo()
	if err := raiseProcess(); err != nil {
		s.tell("no precedence for what measures takeovers: %v", err)
	}
	s.result.Machine = lookAround(ctx, s.dir)
	err = errors.Join(s.measureScale(ctx), removeDir(s.dir))
	s.result.Machine.Minutes = time.Since(s.began).Minutes()
	if err != nil {
		return err
	}
	return s.writeScale(*out, *docs, *asJSON)
}

// writeScale prints the report and leaves it behind.
func (s *scaler) writeScale(out string, docs, asJSON bool) error {
	s.result.Goals = judgeScale(&s.result)
	raw, err := json.MarshalIndent(&s.result, "", " ")
	if err != nil {
		return err
	}
	report := scaleMarkdown(&s.result)
	if asJSON {
		fmt.Println(string(raw))
	} else {
		fmt.Print(report)
	}
	files := map[string]string{filepath.Join(out, "bench-scale.md"): report, filepath.Join(out, "bench-scale.json"): string(raw)}
	if docs {
		files["docs/performance-scale.md"] = report
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
	}
	return nil
}

// measureScale is the whole run. The base case's cluster stays up, since each case is measured by turns with it.
func (s *scaler) measureScale(ctx context.Context) error {
	base, err := s.startCluster(ctx, &scaleCases[0])
	if err != nil {
		return s.scaleFailed(ctx, err)
	}
	err = s.withBase(ctx, base)
	if down := base.takeOff(); down != nil {
		s.tell("%s is not down: %v", base.row, down)
	}
	if err == nil && slices.Contains(s.parts, partResync) {
		err = s.scaleFailed(ctx, s.measureResync(ctx))
	}
	return err
}

func (s *scaler) withBase(ctx context.Context, base *scaleLab) error {
	if err := s.scaleFailed(ctx, s.look(ctx, base)); err != nil {
		return err
	}
	for i := range scaleCases[1:] {
		c := &scaleCases[1+i]
		if !slices.Contains(s.cases, c.name) {
			continue
		}
		if err := s.scaleFailed(ctx, s.oneCase(ctx, base, c)); err != nil {
			return err
		}
	}
	if !slices.Contains(s.cases, caseBase) {
		return nil
	}
	if len(s.result.ofBase("r16")) == 0 { // nobody was measured by turns with it
		for turn := range s.rounds {
			if err := s.scaleFailed(ctx, s.round(ctx, base, base, turn)); err != nil {
				return err
			}
		}
	}
	if err := s.scaleFailed(ctx, s.remember(ctx, base)); err != nil {
		return err
	}
	return s.scaleFailed(ctx, s.takeoversOf(ctx, base, takeEmpty, takeFull))
}

// oneCase measures a case by turns with the base case, and its takeovers.
func (s *scaler) oneCase(ctx context.Context, base *scaleLab, c *scaleCase) error {
	at := *base
	at.scaleCase = c
	if c.own {
		up, err := s.startCluster(ctx, c)
		if err != nil {
			return err
		}
		at = *up
		defer func() {
			if down := up.takeOff(); down != nil {
				s.tell("%s is not down: %v", c.name, down)
			}
		}()
		if err := s.look(ctx, &at); err != nil {
			return err
		}
	}
	for turn := range s.rounds {
		if err := s.round(ctx, base, &at, turn); err != nil {
			return err
		}
	}
	if err := errors.Join(s.remember(ctx, &at), s.remember(ctx, base)); err != nil {
		return err
	}
	if c.take == "" {
		return nil
	}
	return s.takeoversOf(ctx, &at, c.take)
}

// scaleFailed notes what could not be measured; an interruption ends the run.
func (s *scaler) scaleFailed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	s.tell("FAILED: %v", err)
	s.result.Failed = append(s.result.Failed, err.Error())
	return nil
}

// scaleLab is a lab of one case.
type scaleLab struct {
	site
	*scaleCase
	lab       *lab.Lab
	addresses []string // of the volumes
}

// startCluster makes a case's lab, whose volumes are healthy and written as far as they will be used.
func (s *scaler) startCluster(ctx context.Context, c *scaleCase) (*scaleLab, error) {
	s.tell("%s: %d nodes, %d x %s", c.name, c.nodes, c.volumes, bytesText(c.sizeBytes))
	name := fmt.Sprintf("s%d-%s", os.Getpid(), c.key)
	l, err := lab.Up(ctx, lab.Spec{Name: name, Dir: filepath.Join(s.dir, c.key), Nodes: c.nodes, Slots: c.volumes, SizeBytes: c.sizeBytes, Binary: s.binary, Held: true}, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	at := &scaleLab{site: site{row: c.name, netns: l.InitiatorNamespace(), takeOff: l.Down}, scaleCase: c, lab: l}
	if err := s.fill(ctx, at); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.name, err), l.Down())
	}
	return at, nil
}

// fill writes all of the volumes that will be used. The disk files are on the disk before and after: a large volume's new tables, still
// in memory, would take minutes of the disk from what is measured.
func (s *scaler) fill(ctx context.Context, at *scaleLab) error {
	report, err := at.lab.Status(ctx)
	if err != nil {
		return err
	}
	at.nic = report.Initiator.Interface
	for i := range report.Volumes {
		at.addresses = append(at.addresses, report.Volumes[i].Address)
	}
	for _, n := range report.Nodes {
		disks, _ := filepath.Glob(filepath.Join(report.Dir, n.Name, "disk*")) // the pattern is good
		at.disks = append(at.disks, disks...)
	}
	if err := errors.Join(at.findProcesses(ctx), at.settle()); err != nil {
		return err
	}
	if _, err := s.bench(ctx, &at.site, fillTime, at.args("write", true, at.usedBytes())...); err != nil {
		return err
	}
	healthy, cancel := context.WithTimeout(ctx, takeoverMax)
	defer cancel()
	return errors.Join(at.settle(), lab.AwaitHealthy(healthy, at.lab))
}

// findProcesses looks for all processes of all nodes.
func (at *scaleLab) findProcesses(ctx context.Context) error {
	report, err := at.lab.Status(ctx)
	if err != nil {
		return err
	}
	at.pids = nil
	for i := range report.Nodes {
		n := &report.Nodes[i]
		if n.Pid == 0 || n.GuardianPid == 0 {
			return fmt.Errorf("%s: node %s does not run", at.name, n.Name)
		}
		at.pids = append(at.pids, n.Pid, n.GuardianPid)
	}
	return nil
}
