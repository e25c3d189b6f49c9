package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"clade/cluster/runtime"
	"clade/membership"
)

func newHandoffCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "handoff VOLUME NODE",
		Short: "Let another node serve a volume",
		Long: `Let another node serve a volume, and wait until it does. Initiators notice a
pause of some milliseconds.`,
		Example: "  clade handoff e7.1 n2",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			v, err := findVolume(s, args[0])
			if err != nil {
				return err
			}
			n, err := findNode(s, args[1])
			if err != nil {
				return err
			}
			began := time.Now()
			if _, err := t.propose(cmd.Context(), &membership.Handoff{Vol: v.ID, Epoch: v.Epoch, Target: n.ID}); err != nil {
				return err
			}
			_, err = t.waitFor(cmd.Context(), 10*time.Second, func(s *runtime.Status) bool {
				x, err := findVolume(s, v.Address)
				return err == nil && x.Owner == n.ID && x.Active
			})
			if err != nil {
				return failure(exitFailed, "See: clade status", "%s does not serve %s yet: %w", n.Name, v.Address, err)
			}
			out := map[string]any{"volume": v.Address, "node": n.Name}
			return t.print(cmd, out, func(w io.Writer) {
				fmt.Fprintf(w, "%s is served by %s (asked, waited and looked: %s)\n", v.Address, n.Name, time.Since(began).Round(time.Millisecond))
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}

func newDrainCommand() *cobra.Command {
	var t target
	var undo, wait bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move everything that a node serves elsewhere, before work on it",
		Long: `Move everything that a node serves elsewhere, before work on it, and wait until
it serves nothing. A node that is drained serves no volume and gets no new
shards; its disks keep what they hold. Undo it when the work is done.`,
		Example: "  clade drain n2\n  clade drain n2 --undo",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			n, err := findNode(s, args[0])
			if err != nil {
				return err
			}
			if _, err := t.propose(cmd.Context(), &membership.SetDraining{Node: n.ID, On: !undo}); err != nil {
				return err
			}
			if wait && !undo {
				if err := waitDrained(cmd.Context(), &t, n.Name); err != nil {
					return err
				}
			}
			return t.print(cmd, map[string]any{"node": n.Name, "draining": !undo}, func(w io.Writer) {
				switch {
				case undo:
					fmt.Fprintf(w, "node %s takes volumes again\n", n.Name)
				case wait:
					fmt.Fprintf(w, "node %s serves nothing any more; when the work is done: clade drain %s --undo\n", n.Name, n.Name)
				default:
					fmt.Fprintf(w, "node %s is draining; see clade status\n", n.Name)
				}
			})
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "let it serve again")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until it serves nothing; --wait=false only asks for it")
	return cmd
}

func waitDrained(ctx context.Context, t *target, name string) error {
	s, err := t.waitFor(ctx, 60*time.Second, func(s *runtime.Status) bool {
		n, err := findNode(s, name)
		return err == nil && n.Owns == 0
	})
	if err == nil {
		return nil
	}
	left := 0
	if n, ferr := findNode(s, name); ferr == nil {
		left = n.Owns
	}
	return failure(exitFailed, "Another node must be able to serve them. See: clade status. To let it serve again: clade drain "+name+" --undo", "node %s still serves %d volumes: %w", name, left, err)
}
