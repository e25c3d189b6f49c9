package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"clade/aoe/initiator/conformance"
)

// conformed is conformance's result.
type conformed struct {
	Volume  string `json:"volume"`
	Pass    int    `json:"pass"`
	Fail    int    `json:"fail"`
	Differs int    `json:"differs"`
	Skip    int    `json:"skip"`
	*conformance.Report
}

// conformanceFlags are what conformance can be told.
type conformanceFlags struct {
	destructive, all, list bool
	silence                time.Duration
	only                   []string
}

func (o *initiatorOptions) conformanceCommand() *cobra.Command {
	var f conformanceFlags
	cmd := &cobra.Command{
		Use:   "conformance e<shelf>.<slot>",
		Short: "Check a target against AoEr11 and the needs of real initiators",
		Long: `Check a target, of any make, against AoEr11 and the needs of real initiators.

Verdicts:
  PASS     the target does what the rule says
  FAIL     it does not, and AoEr11 or a real initiator needs it
  DIFFERS  it does otherwise than Clade where AoEr11 leaves a choice and no
           known initiator is harmed
  SKIP     the check could not be made

Without --destructive nothing on the volume is changed. With it, config string,
mask, reservation and some of the last sectors are, and are put back at the end.
Nobody else may use the volume meanwhile: it is open to everybody, and nobody
else's reservation is in force.

The exit code is 1 if any check failed.`,
		Example: "  clade initiator conformance -i eth1 e7.1\n  clade initiator conformance -i eth1 e7.1 --destructive --all\n  clade initiator conformance --list",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.conformance(cmd, args, &f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.destructive, "destructive", false, "also make the checks that change the volume; what was there is put back")
	fs.BoolVar(&f.all, "all", false, "list the checks that passed, too")
	fs.BoolVar(&f.list, "list", false, "list the checks, without making them")
	fs.StringSliceVar(&f.only, "only", nil, "make only checks whose name begins so, as in mask/ (repeat for several)")
	fs.DurationVar(&f.silence, "silence", 0, "how long a target that keeps silent is listened to (default 150ms)")
	return cmd
}

func (o *initiatorOptions) conformance(cmd *cobra.Command, args []string, f *conformanceFlags) error {
	checks := conformance.All()
	if len(f.only) > 0 {
		checks = slices.DeleteFunc(checks, func(c conformance.Check) bool {
			return !slices.ContainsFunc(f.only, func(s string) bool { return strings.HasPrefix(c.Name, s) })
		})
		if len(checks) == 0 {
			return usageError("no check begins with %s: see --list", strings.Join(f.only, ", "))
		}
	}
	if f.list {
		return o.listChecks(cmd, checks)
	}
	at, err := o.volumeArg(args)
	if err != nil {
		return err
	}
	if len(o.interfaces) > 1 {
		return usageError("conformance looks at one path: give one --interface")
	}
	ports, mac, err := o.openPorts()
	if err != nil {
		return err
	}
	port := ports[0]
	defer func() { _ = port.Close() }() // the process ends
	opt := conformance.Options{Port: port, Shelf: at.shelf, Slot: at.slot, MAC: mac, Destructive: f.destructive, Checks: checks, Silence: f.silence}
	if cmd.Flags().Changed("timeout") {
		opt.Timeout, opt.Resend = o.timeout, min(o.timeout, 500*time.Millisecond)
	}
	if w := cmd.ErrOrStderr(); o.progress || o.isTerminal(w) {
		done := 0
		opt.Tell = func(r conformance.Result) {
			done++
			fmt.Fprintf(w, "\r%d of %d checks, %-30s", done, len(checks), r.Name)
			if done == len(checks) {
				fmt.Fprintf(w, "\r%*s\r", 60, "")
			}
		}
	}
	// An interrupted run, too, puts back what was on the volume.
	ctx, stop := signal.NotifyContext(commandContext(cmd), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := conformance.Run(ctx, opt)
	if report == nil {
		return explain(err)
	}
	r := conformed{Volume: at.String(), Pass: report.Count(conformance.Pass), Fail: report.Count(conformance.Fail),
		Differs: report.Count(conformance.Differs), Skip: report.Count(conformance.Skip), Report: report}
	if perr := o.print(cmd, r, func(w io.Writer) { printConformed(w, &r, f.all) }); perr != nil {
		return perr
	}
	if err == nil && r.Fail > 0 {
		err = fmt.Errorf("%s fails %d of %d checks", r.Volume, r.Fail, len(report.Results))
	}
	return explain(err)
}

func (o *initiatorOptions) listChecks(cmd *cobra.Command, checks []conformance.Check) error {
	type listed struct {
		Name        string `json:"name"`
		Source      string `json:"source"`
		Breaks      string `json:"breaks"`
		Destructive bool   `json:"destructive"`
		Choice      bool   `json:"choice"`
	}
	lines := make([]listed, len(checks))
	for i, c := range checks {
		lines[i] = listed{c.Name, c.Source, c.Breaks, c.Destructive, c.Choice}
	}
	return o.print(cmd, lines, func(w io.Writer) {
		t := checkTable(w)
		t.AppendHeader(table.Row{"CHECK", "SOURCE", "WHAT A TARGET THAT FAILS IT BREAKS"})
		for _, l := range lines {
			t.AppendRow(table.Row{l.Name, l.Source, l.Breaks})
		}
		t.Render()
	})
}

// checkTable is a table that folds its second and third column.
func checkTable(w io.Writer) table.Writer {
	t := plainTable(w)
	t.SetColumnConfigs([]table.ColumnConfig{
		{Number: 2, WidthMax: 30, WidthMaxEnforcer: text.WrapSoft},
		{Number: 3, WidthMax: 36, WidthMaxEnforcer: text.WrapSoft},
	})
	return t
}

func printConformed(w io.Writer, r *conformed, all bool) {
	t := plainTable(w)
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 3, WidthMax: 58, WidthMaxEnforcer: text.WrapSoft}})
	t.AppendHeader(table.Row{"CHECK", "VERDICT", "FOUND"})
	for _, x := range r.Results {
		if x.Verdict == conformance.Pass && !all || x.Verdict == conformance.Skip && !all && r.Skip > 10 {
			continue // a run without --destructive skips half of them, for one reason
		}
		found := x.Found
		if x.Verdict == conformance.Fail {
			found += "\nbreaks: " + x.Breaks
		}
		t.AppendRow(table.Row{x.Name, x.Verdict, found})
	}
	if t.Length() > 0 {
		t.Render()
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s at %s: %d passed, %d failed, %d differ, %d skipped\n", r.Volume, r.MAC, r.Pass, r.Fail, r.Differs, r.Skip)
}
