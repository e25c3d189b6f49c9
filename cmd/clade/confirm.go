package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// confirm asks before something that cannot be taken back. Without a terminal to ask at, --yes is needed.
func confirm(cmd *cobra.Command, yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), format+" Go on? [y/N] ", args...)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(cmd.ErrOrStderr())
		return failure(exitRefused, "In a script, say --yes.", "not confirmed; nothing was done")
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return failure(exitRefused, "", "not confirmed; nothing was done")
	}
	return nil
}
