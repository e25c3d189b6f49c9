package main

import (
	"github.com/spf13/cobra"
)

func (o *labOptions) demoCommand() *cobra.Command {
	return &cobra.Command{Use: "demo"}
}
