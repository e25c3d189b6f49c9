package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"clade/cluster/runtime"
	"clade/membership"
)

func newNodeCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "node",
		Short: "List nodes, or take one out of the cluster",
		Args:  checkedArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	t.addFlags(cmd)
	cmd.AddCommand(nodeListCommand(&t), nodeRemoveCommand(&t))
	return cmd
}

func nodeListCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the nodes", Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			return t.print(cmd, s.Nodes, func(w io.Writer) { printNodes(w, s, 0) })
		},
	}
}

func nodeRemoveCommand(t *target) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a node out of the cluster for good",
		Long: `Take a node out of the cluster for good.

Its disks must not hold shards of any volume. The leader takes it out of the
voters first; stop it when this command is done.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			n, err := findNode(s, args[0])
			if err != nil {
				return err
			}
			if err := confirm(cmd, yes, "Node %s and its disks leave cluster %s for good.", n.Name, s.Name); err != nil {
				return err
			}
			if _, err := t.propose(cmd.Context(), &membership.NodeLeave{Node: n.ID}); err != nil {
				return err
			}
			if n.ID != s.Self { // it cannot see its own removal
				_, err = t.waitFor(cmd.Context(), 30*time.Second, func(s *runtime.Status) bool {
					for _, x := range s.Nodes {
						if x.ID == n.ID {
							return false
						}
					}
					return true
				})
				if err != nil {
					return err
				}
			}
			return t.print(cmd, map[string]any{"node": n.ID, "removed": true}, func(w io.Writer) {
				fmt.Fprintf(w, "node %s has left the cluster; stop it, and remove its data directory\n", n.Name)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
