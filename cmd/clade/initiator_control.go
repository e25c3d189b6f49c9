package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"clade/aoe"
	"clade/aoe/initiator"
)

// configured is config's result.
type configured struct {
	Volume  string `json:"volume"`
	Config  string `json:"config"`  // the string in force
	Outcome string `json:"outcome"` // read, set, refused, matches, differs
}

// configFlags are the things that config can do; one of them.
type configFlags struct {
	test, prefix, set, forceSet string
	clear, reset                bool
	race                        int
	raceText                    string
}

func (o *initiatorOptions) configCommand() *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use:   "config e<shelf>.<slot>",
		Short: "Read, test or set a volume's config string",
		Long: `Read, test or set a volume's config string.

The string is the protocol's means of arbitration: --set succeeds only while the
string is empty (or the same), so of several hosts that set different strings
exactly one wins. --race N shows it: N initiators with MAC addresses of their
own set N different strings at the same moment.`,
		Example: `  clade initiator config -i eth1 e7.1
  clade initiator config -i eth1 e7.1 --set host-a || echo somebody was first
  clade initiator config -i eth1 e7.1 --race 8 --reset`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("race") {
				return o.race(cmd, args, &f)
			}
			return o.config(cmd, args, &f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.test, "test", "", "exit with 0 if the string equals this, with 1 if not")
	fs.StringVar(&f.prefix, "prefix", "", "exit with 0 if the string begins with this, with 1 if not")
	fs.StringVar(&f.set, "set", "", "set the string if it is empty; exit with 4 if it is not")
	fs.StringVar(&f.forceSet, "force-set", "", "set the string whatever it is")
	fs.BoolVar(&f.clear, "clear", false, "make the string empty, whatever it is")
	fs.IntVar(&f.race, "race", 0, "let so many initiators set different strings at once")
	fs.StringVar(&f.raceText, "race-text", "contender-", "what the strings of a race begin with")
	fs.BoolVar(&f.reset, "reset", false, "with --race: make the string empty first")
	cmd.Args = oneOf(cmd.Args, "test", "prefix", "set", "force-set", "clear", "race")
	return cmd
}

func (o *initiatorOptions) config(cmd *cobra.Command, args []string, f *configFlags) error {
	return o.withClient(args, func(_ *session, c *initiator.Client) error {
		ctx, cancel := o.within(cmd)
		defer cancel()
		shelf, slot := c.Address()
		r := configured{Volume: address{shelf, slot}.String()}
		var text []byte
		var err error
		changed := cmd.Flags().Changed
		switch {
		case changed("test"), changed("prefix"):
			var same bool
			same, err = c.TestConfig(ctx, changed("prefix"), []byte(f.test+f.prefix))
			if err != nil {
				return err
			}
			if r.Outcome = "matches"; !same {
				r.Outcome = "differs"
			}
			text, err = c.Config(ctx, initiator.ConfigRead, nil)
		case changed("set"):
			r.Outcome = "set"
			text, err = c.Config(ctx, initiator.ConfigSet, []byte(f.set))
		case changed("force-set"), f.clear:
			r.Outcome = "set"
			text, err = c.Config(ctx, initiator.ConfigForceSet, []byte(f.forceSet))
		default:
			r.Outcome = "read"
			text, err = c.Config(ctx, initiator.ConfigRead, nil)
		}
		if err != nil && !errors.Is(err, initiator.ErrConfigPresent) {
			return err
		}
		if err != nil {
			r.Outcome = "refused"
			err = fmt.Errorf("%w: %s", err, printable(string(text)))
		}
		r.Config = string(text)
		if perr := o.print(cmd, r, func(w io.Writer) {
			if err == nil {
				fmt.Fprintln(w, printable(r.Config))
			}
		}); perr != nil {
			return perr
		}
		if r.Outcome == "differs" {
			return fmt.Errorf("the string of %s is %s", r.Volume, printable(r.Config))
		}
		return err
	})
}

// raced is the result of config --race.
type raced struct {
	Volume     string      `json:"volume"`
	Before     string      `json:"before"`
	Final      string      `json:"final"`
	Winners    int         `json:"winners"`
	Winner     string      `json:"winner,omitempty"` // its MAC
	Contenders []contender `json:"contenders"`
}

type contender struct {
	MAC     string  `json:"mac"`
	Wanted  string  `json:"wanted"`
	Outcome string  `json:"outcome"` // won, lost, or an error
	Told    string  `json:"told"`
	TookMs  float64 `json:"took_ms"`
}

func (o *initiatorOptions) race(cmd *cobra.Command, args []string, f *configFlags) error {
	if f.race < 1 || f.race > 1024 {
		return usageError("--race %d: want 1 to 1024 initiators", f.race)
	}
	return o.withClient(args, func(s *session, c *initiator.Client) error {
		ctx, cancel := o.within(cmd)
		defer cancel()
		if f.reset {
			if _, err := c.Config(ctx, initiator.ConfigForceSet, nil); err != nil {
				return err
			}
		}
		shelf, slot := c.Address()
		res, err := s.host.Race(ctx, shelf, slot, f.race, f.raceText)
		if err != nil {
			return err
		}
		r := raced{Volume: address{shelf, slot}.String(), Before: res.Before, Final: res.Final, Winners: res.Winners}
		for i := range res.Contenders {
			n := &res.Contenders[i]
			line := contender{MAC: macText(n.MAC), Wanted: n.Wanted, Outcome: "lost", Told: n.Told, TookMs: ms(n.TookNs)}
			if n.Won {
				line.Outcome, r.Winner = "won", line.MAC
			}
			if n.Err != nil {
				line.Outcome = n.Err.Error()
			}
			r.Contenders = append(r.Contenders, line)
		}
		if err := o.print(cmd, r, func(w io.Writer) { printRace(w, &r) }); err != nil {
			return err
		}
		if res.Winners == 0 && res.Before != "" {
			return &initiatorError{exitRefused, fmt.Errorf("nobody could win: %s had the string %s before", r.Volume, printable(r.Before)),
				"Make it empty first: --reset"}
		}
		return res.Check()
	})
}

func printRace(w io.Writer, r *raced) {
	t := plainTable(w)
	t.AppendHeader(table.Row{"MAC", "WANTED", "OUTCOME", "TOLD", "MS"})
	for _, c := range r.Contenders {
		t.AppendRow(table.Row{c.MAC, c.Wanted, c.Outcome, printable(c.Told), fmt.Sprintf("%.1f", c.TookMs)})
	}
	t.Render()
	fmt.Fprintf(w, "%d of %d won; %s now has the string %s\n", r.Winners, len(r.Contenders), r.Volume, printable(r.Final))
}

// reserved is reserve's result.
type reserved struct {
	Volume   string   `json:"volume"`
	Reserved []string `json:"reserved"` // MACs; none = free
	Source   string   `json:"source"`   // who asked
	Outcome  string   `json:"outcome"`  // read, set, released, refused
}

func (o *initiatorOptions) reserveCommand() *cobra.Command {
	var set, force, release bool
	var macs []string
	cmd := &cobra.Command{
		Use:   "reserve e<shelf>.<slot>",
		Short: "Show, take, take over or release a volume's reservation",
		Long: `Show, take, take over or release a volume's reservation.

While a volume is reserved, only the listed MAC addresses may read and write it.
The answer to --set comes when no write of anybody else is in flight any more: a
reservation is a fence.`,
		Example: `  clade initiator reserve -i eth1 e7.1
  clade initiator reserve -i eth1 e7.1 --set
  clade initiator reserve -i eth1 e7.1 --set --force --mac 02:00:00:00:00:07
  clade initiator reserve -i eth1 e7.1 --release`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if force && !set && !release || len(macs) > 0 && !set {
				return usageError("--force goes with --set or --release, --mac with --set")
			}
			list, err := parseMACs(macs)
			if err != nil {
				return err
			}
			return o.withClient(args, func(s *session, c *initiator.Client) error {
				if set && len(list) == 0 {
					list = []aoe.MAC{s.mac}
				}
				command, outcome := initiator.ReserveRead, "read"
				switch {
				case set:
					command, outcome = initiator.ReserveSet, "set"
				case release:
					command, outcome = initiator.ReserveSet, "released"
				}
				if force {
					command = initiator.ReserveForceSet
				}
				return o.reserve(cmd, c, command, list, outcome)
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&set, "set", false, "reserve for the source MAC, or for those of --mac; exit with 4 if somebody else holds it")
	fs.BoolVar(&release, "release", false, "release it")
	fs.BoolVar(&force, "force", false, "also if somebody else holds it")
	fs.StringSliceVar(&macs, "mac", nil, "a MAC to reserve for, instead of the source (repeat for several)")
	cmd.Args = oneOf(cmd.Args, "set", "release")
	return cmd
}

func (o *initiatorOptions) reserve(cmd *cobra.Command, c *initiator.Client, command initiator.ReserveCommand, list []aoe.MAC, outcome string) error {
	ctx, cancel := o.within(cmd)
	defer cancel()
	now, err := c.Reserve(ctx, command, list...)
	if err != nil && !errors.Is(err, initiator.ErrReserved) {
		return err
	}
	shelf, slot := c.Address()
	r := reserved{Volume: address{shelf, slot}.String(), Reserved: macTexts(now), Source: macText(c.MAC()), Outcome: outcome}
	if err != nil {
		r.Outcome = "refused"
	}
	if perr := o.print(cmd, r, func(w io.Writer) {
		if len(now) == 0 {
			fmt.Fprintf(w, "%s is not reserved\n", r.Volume)
		} else {
			fmt.Fprintf(w, "%s is reserved for %s\n", r.Volume, strings.Join(r.Reserved, ", "))
		}
	}); perr != nil {
		return perr
	}
	return err
}

// masked is mask's result.
type masked struct {
	Volume string   `json:"volume"`
	Mask   []string `json:"mask"` // MACs that may talk to the volume; none = everybody
}

func (o *initiatorOptions) maskCommand() *cobra.Command {
	var add, remove []string
	cmd := &cobra.Command{
		Use:   "mask e<shelf>.<slot>",
		Short: "Show or edit the list of MACs that may talk to a volume",
		Long: `Show or edit the list of MACs that may talk to a volume. An empty list admits
everybody; a volume with a list says nothing at all to others, not even to
discover. Take care to add yourself first.`,
		Example: "  clade initiator mask -i eth1 e7.1 --add 02:00:00:00:00:01",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var edit []initiator.MaskDirective
			for i, list := range [][]string{add, remove} {
				macs, err := parseMACs(list)
				if err != nil {
					return err
				}
				for _, m := range macs {
					edit = append(edit, initiator.MaskDirective{Delete: i == 1, MAC: m})
				}
			}
			return o.withClient(args, func(_ *session, c *initiator.Client) error {
				ctx, cancel := o.within(cmd)
				defer cancel()
				list, err := c.Mask(ctx, edit...)
				if err != nil {
					return err
				}
				shelf, slot := c.Address()
				r := masked{Volume: address{shelf, slot}.String(), Mask: macTexts(list)}
				return o.print(cmd, r, func(w io.Writer) {
					if len(list) == 0 {
						fmt.Fprintf(w, "%s talks to everybody\n", r.Volume)
					}
					for _, m := range r.Mask {
						fmt.Fprintln(w, m)
					}
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&add, "add", nil, "a MAC to add (repeat for several)")
	cmd.Flags().StringSliceVar(&remove, "delete", nil, "a MAC to take away (repeat for several)")
	return cmd
}

func parseMACs(list []string) ([]aoe.MAC, error) {
	var macs []aoe.MAC
	for _, s := range list {
		m, err := parseMAC(s)
		if err != nil {
			return nil, err
		}
		macs = append(macs, m)
	}
	return macs, nil
}

// firstContact is how long a command waits for a volume that never answered.
func (o *initiatorOptions) firstContact(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(commandContext(cmd), min(o.timeout, 5*time.Second))
}

func ms(ns int64) float64 { return float64(ns/1000) / 1000 }
