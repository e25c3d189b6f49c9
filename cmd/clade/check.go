package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"clade/raid"
	"clade/store"
)

func newCheckCommand() *cobra.Command {
	t := target{}
	cmd := &cobra.Command{
		Use:   "check DISK",
		Short: "Check a disk that no node is using: format, journal, tables and every block's checksum",
		Long: `Check a disk that no node is using: format, journal, tables and every block's
checksum. Nothing is written.

Exit codes: 0 sound, 1 the check could not be made, 4 damage was found.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return checkDisk(cmd, &t, args[0]) },
	}
	cmd.Flags().BoolVar(&t.json, "json", false, "print the result as JSON")
	return cmd
}

func checkDisk(cmd *cobra.Command, t *target, path string) error {
	dev, err := store.OpenFile(path)
	if err != nil {
		return failure(exitFailed, "Stop the node that uses it first, or name another disk.", "%w", err)
	}
	show := newCheckProgress(cmd.ErrOrStderr())
	report, err := store.Check(dev, show.set)
	show.finish()
	if cerr := dev.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return failure(exitFailed, "", "%w", err)
	}
	if err := t.print(cmd, report, func(w io.Writer) { printCheck(w, path, &report) }); err != nil {
		return err
	}
	if len(report.Damage) > 0 {
		return &cliError{code: exitRefused, err: errors.New("disk " + path + " is damaged"),
			next: "A running node repairs single blocks from the other shards. To give the disk up: clade disk add --force " + path}
	}
	return nil
}

// checkProgress shows a bar once the check takes long.
type checkProgress struct {
	w       io.Writer
	shown   bool
	started time.Time
	bar     *progressbar.ProgressBar
}

func newCheckProgress(w io.Writer) *checkProgress {
	return &checkProgress{w: w, shown: isTerminal(w), started: time.Now()}
}

func (p *checkProgress) set(done, total uint64) {
	if !p.shown || p.bar == nil && time.Since(p.started) < progressAfter {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(int64(total)<<20, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription("check"),
			progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionSetElapsedTime(true),
			progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(24))
	}
	_ = p.bar.Set64(int64(done) << 20) // a bar that cannot be drawn is no reason to stop
}

func (p *checkProgress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// damageShown bounds what is printed; --json has more.
const damageShown = 20

func printCheck(w io.Writer, path string, r *store.CheckReport) {
	verdict := "is sound"
	if len(r.Damage) > 0 {
		verdict = fmt.Sprintf("is DAMAGED in %d places", uint64(len(r.Damage))+r.More)
	}
	fmt.Fprintf(w, "%s (disk %d) %s\n", path, r.Identity.Disk, verdict)
	fmt.Fprintf(w, "%d volumes, %d shards of %d MiB in all; %s of blocks compared; %d records in the journal\n", r.Volumes, r.Shards, r.Regions,
		humanize.IBytes(r.Blocks*raid.BlockBytes), r.Records)
	for i, d := range r.Damage {
		if i == damageShown {
			fmt.Fprintf(w, "and %d more: --json\n", uint64(len(r.Damage)-i)+r.More)
			return
		}
		fmt.Fprintln(w, wrap(fmt.Sprintf("! %s at %d: %s", d.Place, d.Offset, d.Text), "  ", outputColumns))
	}
}
