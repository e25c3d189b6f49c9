package main

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"clade/cluster"
	"clade/membership"
)

// versionInfo is what version prints.
type versionInfo struct {
	Revision   string `json:"revision"`
	Modified   bool   `json:"modified"`
	Go         string `json:"go"`
	FeatureMin int    `json:"feature_min"`
	FeatureMax int    `json:"feature_max"`
	Protocol   int    `json:"protocol"`
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Say which version this binary is, and what it understands", Args: checkedArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionInfo{Revision: "unknown", FeatureMin: membership.MinFeatureLevel, FeatureMax: membership.MaxFeatureLevel, Protocol: cluster.ProtocolVersion}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Go = info.GoVersion
				for _, s := range info.Settings {
					switch s.Key {
					case "vcs.revision":
						v.Revision = s.Value
					case "vcs.modified":
						v.Modified = s.Value == "true"
					}
				}
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(v)
			}
			modified := ""
			if v.Modified {
				modified = " (modified)"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "clade %.12s%s, %s\nfeature levels %d to %d, peer protocol %d\n", v.Revision, modified, v.Go, v.FeatureMin, v.FeatureMax, v.Protocol)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}
