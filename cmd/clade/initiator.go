package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
)

// initiatorOptions are the flags that all initiator commands share, and what
// tests replace.
type initiatorOptions struct {
	interfaces []string
	sourceMAC  string
	shelf      int
	slot       int
	timeout    time.Duration
	json       bool
	progress   bool

	openPort   func(name string) (link.Port, error)
	isTerminal func(w io.Writer) bool
}

func newInitiatorCommand() *cobra.Command {
	return newInitiatorCommandWith(&initiatorOptions{
		openPort:   func(name string) (link.Port, error) { return link.Open(link.Config{Interface: name}) },
		isTerminal: isTerminal,
	})
}

// newInitiatorCommandWith builds the command over other ports.
func newInitiatorCommandWith(o *initiatorOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "initiator",
		Short: "Talk to AoE volumes as a client, without a kernel driver",
		Long: `Talk to AoE volumes as a client, without a kernel driver.

A volume is named by its address, e<shelf>.<slot>, as in e7.1, or with --shelf
and --slot. Sending and receiving raw Ethernet frames needs root or the
capability CAP_NET_RAW.

Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  no such volume, or no answer in time
  4  refused: a config string is present already, or the volume is reserved`,
		Example: `  clade initiator discover -i eth1
  clade initiator copy -i eth1 disk.img e7.1 --verify
  clade initiator config -i eth1 e7.1 --set mine
  clade initiator reserve -i eth1 e7.1 --set`,
		SilenceUsage: true, SilenceErrors: true,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringSliceVarP(&o.interfaces, "interface", "i", nil, "network interface: a name, its MAC, or an IP prefix on it (repeat for several paths)")
	f.StringVar(&o.sourceMAC, "source-mac", "", "MAC address to speak as (default: the interface's own)")
	f.IntVar(&o.shelf, "shelf", -1, "shelf of the volume, instead of an address")
	f.IntVar(&o.slot, "slot", -1, "slot of the volume, instead of an address")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up when a single operation has no answer for so long")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.BoolVar(&o.progress, "progress", false, "show progress even if stderr is no terminal")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	cmd.AddCommand(o.discoverCommand(), o.identifyCommand(), o.readCommand(), o.writeCommand(),
		o.copyCommand(), o.probeCommand(), o.configCommand(), o.reserveCommand(), o.maskCommand(), o.conformanceCommand())
	return cmd
}

// Exit codes of the initiator commands.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4
)

// initiatorError is an error with the exit code that scripts see and, if there
// is one, the next step for people.
type initiatorError struct {
	code int
	err  error
	next string
}

func (e *initiatorError) Error() string {
	if e.next == "" {
		return e.err.Error()
	}
	return e.err.Error() + "\n" + e.next
}

func (e *initiatorError) Unwrap() error { return e.err }

// ExitCode is what the process should exit with.
func (e *initiatorError) ExitCode() int { return e.code }

func usageError(format string, args ...any) error {
	return &initiatorError{code: exitUsage, err: fmt.Errorf(format, args...), next: "See: clade initiator --help"}
}

// usageArgs makes a complaint about arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError("%w", err)
		}
		return nil
	}
}

// oneOf also complains when more than one of some flags is given.
func oneOf(check cobra.PositionalArgs, flags ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var given []string
		for _, name := range flags {
			if cmd.Flags().Changed(name) {
				given = append(given, "--"+name)
			}
		}
		if len(given) > 1 {
			return usageError("%s exclude each other", strings.Join(given, " and "))
		}
		return check(cmd, args)
	}
}

// explain gives an error of the initiator its exit code and its next step.
func explain(err error) error {
	var already *initiatorError
	switch {
	case err == nil || errors.As(err, &already):
		return err
	case errors.Is(err, initiator.ErrTimeout):
		return &initiatorError{exitNotFound, err, "Is the volume served, and is this the right interface? Try: clade initiator discover"}
	case errors.Is(err, initiator.ErrConfigPresent):
		return &initiatorError{exitRefused, err, "To replace the string in force, use --force-set."}
	case errors.Is(err, initiator.ErrReserved):
		return &initiatorError{exitRefused, err, "See who holds it: clade initiator reserve e<shelf>.<slot>. To take it over: --set --force."}
	}
	return &initiatorError{code: exitFailed, err: err}
}

// address is a volume's place.
type address struct {
	shelf uint16
	slot  uint8
}

func (a address) String() string { return fmt.Sprintf("e%d.%d", a.shelf, a.slot) }

// parseAddress reads e<shelf>.<slot>. 4095, 65535 and 255 are no addresses of
// volumes: initiators refuse the first or take the others for wildcards.
func parseAddress(s string) (address, error) {
	rest, ok := strings.CutPrefix(s, "e")
	major, minor, dot := strings.Cut(rest, ".")
	shelf, err1 := strconv.ParseUint(major, 10, 16)
	slot, err2 := strconv.ParseUint(minor, 10, 8)
	if !ok || !dot || err1 != nil || err2 != nil {
		return address{}, usageError("%q is no volume address: want e<shelf>.<slot>, as in e7.1", s)
	}
	return checkAddress(int(shelf), int(slot))
}

func checkAddress(shelf, slot int) (address, error) {
	if shelf < 0 || shelf >= 0xFFFF || shelf == 0xFFF || slot < 0 || slot >= 0xFF {
		return address{}, usageError("shelf %d, slot %d: want a shelf of 0 to 65534 but 4095, and a slot of 0 to 254", shelf, slot)
	}
	return address{uint16(shelf), uint8(slot)}, nil
}

// volumeArg takes the volume from the arguments or the flags.
func (o *initiatorOptions) volumeArg(args []string) (address, error) {
	if len(args) > 0 {
		if o.shelf >= 0 || o.slot >= 0 {
			return address{}, usageError("give either the address %s or --shelf and --slot, not both", args[0])
		}
		return parseAddress(args[0])
	}
	if o.shelf < 0 || o.slot < 0 {
		return address{}, usageError("which volume? Give its address, as in e7.1, or --shelf and --slot")
	}
	return checkAddress(o.shelf, o.slot)
}

func parseMAC(s string) (aoe.MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return aoe.MAC{}, usageError("%q is no MAC address: want six bytes, as in 02:00:00:00:00:01", s)
	}
	return aoe.MAC(hw), nil
}

// session is an open host with the address that it speaks as.
type session struct {
	host  *initiator.Host
	mac   aoe.MAC
	ports []link.Port
}

func (s *session) close() {
	s.host.Close()
	for _, p := range s.ports {
		_ = p.Close() // the process ends
	}
}

// openPorts opens the interfaces and finds out as whom to speak.
func (o *initiatorOptions) openPorts() ([]link.Port, aoe.MAC, error) {
	if len(o.interfaces) == 0 {
		return nil, aoe.MAC{}, usageError("which network? Name the interface that the storage is on: --interface NAME (see: ip link)")
	}
	var mac aoe.MAC
	if o.sourceMAC != "" {
		var err error
		if mac, err = parseMAC(o.sourceMAC); err != nil {
			return nil, aoe.MAC{}, err
		}
	}
	var ports []link.Port
	for _, name := range o.interfaces {
		p, err := o.openPort(name)
		if err != nil {
			for _, q := range ports {
				_ = q.Close()
			}
			next := "See the interfaces: ip link"
			if errors.Is(err, os.ErrPermission) {
				next = "Raw Ethernet needs root or CAP_NET_RAW. Try: sudo"
			}
			return nil, aoe.MAC{}, &initiatorError{exitFailed, err, next}
		}
		ports = append(ports, p)
	}
	if o.sourceMAC == "" {
		mac = ports[0].MAC()
	}
	return ports, mac, nil
}

// open opens the interfaces for a host.
func (o *initiatorOptions) open() (*session, error) {
	ports, mac, err := o.openPorts()
	if err != nil {
		return nil, err
	}
	s := &session{ports: ports, mac: mac}
	host, err := initiator.NewHost(initiator.HostConfig{Ports: s.ports})
	if err != nil {
		return nil, explain(err)
	}
	s.host = host
	return s, nil
}

// withClient runs work with a session for one volume.
func (o *initiatorOptions) withClient(args []string, work func(s *session, c *initiator.Client) error) error {
	at, err := o.volumeArg(args)
	if err != nil {
		return err
	}
	s, err := o.open()
	if err != nil {
		return err
	}
	defer s.close()
	c, err := s.host.NewClient(initiator.Config{MAC: s.mac, Shelf: at.shelf, Slot: at.slot})
	if err != nil {
		return explain(err)
	}
	return explain(work(s, c))
}

// within is the context of a single operation.
func (o *initiatorOptions) within(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(commandContext(cmd), o.timeout)
}

func commandContext(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

// print writes the result: as JSON, or as text for people.
func (o *initiatorOptions) print(cmd *cobra.Command, result any, text func(w io.Writer)) error {
	w := cmd.OutOrStdout()
	if !o.json {
		text(w)
		return nil
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(result)
}

// macText prints a MAC as people write it.
func macText(m aoe.MAC) string { return net.HardwareAddr(m[:]).String() }

func macTexts(macs []aoe.MAC) []string {
	out := make([]string, len(macs))
	for i, m := range macs {
		out[i] = macText(m)
	}
	return out
}
