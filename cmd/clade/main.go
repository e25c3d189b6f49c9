// Command clade runs and controls a clustered ATA-over-Ethernet target.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of all commands but serve, which adds 10: its worker died.
const (
	exitOK          = 0
	exitUnreachable = 3 // no answer from the node, or no such thing
)

// outputColumns is how wide what commands print may be; scripts in tests are not wrapped, since their paths vary.
var outputColumns = 100

// cliError is an error with the exit code that scripts see and the next step for people.
type cliError struct {
	code int
	err  error
	next string
}

func (e *cliError) Error() string {
	if e.next == "" {
		return e.err.Error()
	}
	return e.err.Error() + "\n" + e.next
}

func (e *cliError) Unwrap() error { return e.err }

// ExitCode is what the process should exit with.
func (e *cliError) ExitCode() int { return e.code }

func failure(code int, next, format string, args ...any) error {
	return &cliError{code, fmt.Errorf(format, args...), next}
}

// wrongUsage is an error that --help resolves.
func wrongUsage(cmd *cobra.Command, format string, args ...any) error {
	return failure(exitUsage, "See: "+cmd.CommandPath()+" --help", format, args...)
}

// exactArgs is cobra.ExactArgs with the exit code of wrong usage.
func exactArgs(n int) cobra.PositionalArgs { return checkedArgs(cobra.ExactArgs(n)) }

func checkedArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return wrongUsage(cmd, "%w", err)
		}
		return nil
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "clade",
		Short: "A clustered ATA-over-Ethernet target",
		Long: `Clade presents one ATA-over-Ethernet shelf from several nodes. Every volume is
erasure coded across the nodes' disks, and moves to another node when its node
fails, so fast that an initiator sees a slow disk and never a lost one.

A first cluster:
  n1$ clade init --dir /var/lib/clade --cluster lab --shelf 7 --node n1 \
        --advertise 10.0.0.1:7770 --san eth1 --disk /dev/sdb
  n1$ clade serve --dir /var/lib/clade
  n2$ clade join 10.0.0.1:7770 --dir /var/lib/clade --node n2 \
        --advertise 10.0.0.2:7770 --san eth1 --disk /dev/sdb
  n2$ clade serve --dir /var/lib/clade
  n1$ clade volume create --slot 1 --size 10GiB --layout 2+1

Exit codes:
  0  done, healthy
  1  failed
  2  wrong usage
  3  unreachable: no answer from the node
  4  refused by the cluster, or unhealthy
 10  serve: the worker died and --restart was not given`,
		SilenceUsage: true, SilenceErrors: true,
		Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return wrongUsage(cmd, "%w", err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newInitCommand(), newJoinCommand(), newServeCommand(), newStatusCommand(), newNodeCommand(), newDiskCommand(),
		newVolumeCommand(), newHandoffCommand(), newDrainCommand(), newCheckCommand(), newVersionCommand(), newInitiatorCommand(), newBenchCommand(), newLabCommand())
	return root
}

// run executes one command line and returns the exit code.
func run(root *cobra.Command) int {
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	var coder interface{ ExitCode() int }
	code := exitFailed
	switch {
	case errors.As(err, &coder):
		code = coder.ExitCode()
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"): // cobra's own
		code = exitUsage
	}
	if msg := err.Error(); msg != "" {
		for _, line := range strings.Split("clade: "+msg, "\n") {
			fmt.Fprintln(root.ErrOrStderr(), wrap(line, "  ", outputColumns))
		}
	}
	return code
}

func main() { os.Exit(run(newRootCommand())) }
