package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"clade/aoe/initiator"
)

// discovered is one line of discover's result.
type discovered struct {
	Volume      string `json:"volume"`
	Shelf       uint16 `json:"shelf"`
	Slot        uint8  `json:"slot"`
	MAC         string `json:"mac"`
	Interface   string `json:"interface"`
	BufferCount uint16 `json:"buffer_count"`
	SectorCount uint8  `json:"sector_count"`
	Firmware    uint16 `json:"firmware_word"`
	Config      string `json:"config"`
}

func (o *initiatorOptions) discoverCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "discover [e<shelf>.<slot>]",
		Short:   "List the volumes that answer on the network",
		Example: "  clade initiator discover -i eth1\n  clade initiator discover -i eth1 --shelf 7 --wait 5s",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			shelf, slot, err := o.pattern(args)
			if err != nil {
				return err
			}
			s, err := o.open()
			if err != nil {
				return err
			}
			defer s.close()
			ctx, cancel := context.WithTimeout(commandContext(cmd), wait)
			defer cancel()
			found, err := s.host.Discover(ctx, s.mac, shelf, slot)
			if err != nil {
				return explain(err)
			}
			lines := make([]discovered, len(found))
			for i, f := range found {
				lines[i] = discovered{Volume: address{f.Shelf, f.Slot}.String(), Shelf: f.Shelf, Slot: f.Slot, MAC: macText(f.MAC),
					Interface: s.ports[f.Interface].Name(), BufferCount: f.BufferCount, SectorCount: f.SectorCount,
					Firmware: f.Firmware, Config: string(f.Config)}
			}
			if err := o.print(cmd, lines, func(w io.Writer) { printDiscovered(w, lines) }); err != nil {
				return err
			}
			if len(found) == 0 {
				return &initiatorError{exitNotFound, errors.New("no volume answered"),
					"Is this the right interface? Is a cluster serving (clade status)? A MAC mask silences a volume for others."}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", time.Second, "how long to collect answers")
	return cmd
}

// pattern is volumeArg with wildcards for what is not given.
func (o *initiatorOptions) pattern(args []string) (uint16, uint8, error) {
	if len(args) > 0 {
		at, err := o.volumeArg(args)
		return at.shelf, at.slot, err
	}
	at, err := checkAddress(max(o.shelf, 0), max(o.slot, 0))
	if err != nil {
		return 0, 0, err
	}
	shelf, slot := at.shelf, at.slot
	if o.shelf < 0 {
		shelf = 0xFFFF
	}
	if o.slot < 0 {
		slot = 0xFF
	}
	return shelf, slot, nil
}

func printDiscovered(w io.Writer, lines []discovered) {
	if len(lines) == 0 {
		return
	}
	t := plainTable(w)
	t.AppendHeader(table.Row{"VOLUME", "MAC", "INTERFACE", "BUFFERS", "SECTORS", "CONFIG"})
	for _, l := range lines {
		t.AppendRow(table.Row{l.Volume, l.MAC, l.Interface, l.BufferCount, l.SectorCount, printable(l.Config)})
	}
	t.Render()
}

// plainTable is a table without lines.
func plainTable(w io.Writer) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	return t
}

// printable shows a config string, which may hold any bytes.
func printable(s string) string {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == 0xFFFD {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}

// identified is identify's result.
type identified struct {
	Volume   string   `json:"volume"`
	Sectors  uint64   `json:"sectors"`
	Bytes    int64    `json:"bytes"`
	Model    string   `json:"model"`
	Serial   string   `json:"serial"`
	Firmware string   `json:"firmware"`
	LBA48    bool     `json:"lba48"`
	Paths    []string `json:"paths"`
}

func (o *initiatorOptions) identifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "identify e<shelf>.<slot>",
		Short:   "Show a volume's size and names",
		Example: "  clade initiator identify -i eth1 e7.1",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.withClient(args, func(s *session, c *initiator.Client) error {
				ctx, cancel := o.within(cmd)
				defer cancel()
				id, err := c.Identify(ctx)
				if err != nil {
					return err
				}
				shelf, slot := c.Address()
				r := identified{Volume: address{shelf, slot}.String(), Sectors: id.Sectors, Bytes: id.Bytes(), Model: id.Model,
					Serial: id.Serial, Firmware: id.Firmware, LBA48: id.LBA48}
				for _, p := range c.Paths() {
					r.Paths = append(r.Paths, macText(p.MAC)+" on "+s.ports[p.Interface].Name())
				}
				return o.print(cmd, r, func(w io.Writer) {
					fmt.Fprintf(w, "volume    %s\nsize      %s (%d sectors)\nmodel     %s\nserial    %s\nfirmware  %s\n",
						r.Volume, humanize.IBytes(uint64(r.Bytes)), r.Sectors, r.Model, r.Serial, r.Firmware)
					for _, p := range r.Paths {
						fmt.Fprintf(w, "path      %s\n", p)
					}
				})
			})
		},
	}
}
