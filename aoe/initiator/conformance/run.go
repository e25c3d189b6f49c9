package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
)

// Check is one rule.
type Check struct {
	Name        string // group/rule
	Source      string // where the rule comes from
	Breaks      string // what a target that breaks the rule does to a real initiator
	Destructive bool   // changes the volume
	Choice      bool   // AoEr11 leaves it open and no known initiator is harmed: breaking it is DIFFERS, not FAIL
	// Run makes the check: nil if the target keeps the rule, an error that says what it did instead if not.
	Run func(p *Probe) error
}

// Verdict is how a check ended.
type Verdict string

// The verdicts; the package comment says what they mean.
const (
	Pass    Verdict = "PASS"
	Fail    Verdict = "FAIL"
	Differs Verdict = "DIFFERS"
	Skip    Verdict = "SKIP"
)

// Result is the end of one check.
type Result struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Source  string  `json:"source"`
	Breaks  string  `json:"breaks"`
	Found   string  `json:"found,omitempty"` // what the target did instead, or why the check was skipped
}

// Report is the end of a run.
type Report struct {
	Shelf   uint16   `json:"shelf"`
	Slot    uint8    `json:"slot"`
	MAC     string   `json:"mac"` // of the target
	Sectors uint64   `json:"sectors"`
	Results []Result `json:"results"`
}

// Count returns how many checks ended with a verdict.
func (r *Report) Count(v Verdict) int {
	n := 0
	for i := range r.Results {
		if r.Results[i].Verdict == v {
			n++
		}
	}
	return n
}

// Options say what is checked and how. The zero value of each field but Port, Shelf and Slot is the documented default.
type Options struct {
	Port  link.Port // on the volume's network; the caller's, who must not use it meanwhile
	Shelf uint16
	Slot  uint8
	MAC   aoe.MAC // first source address; default the port's own. Two more are random

	// Destructive also makes the checks that change the volume.
	Destructive bool
	// Checks are those to make; default All().
	Checks []Check

	Timeout time.Duration // for one answer; default 5 s
	Resend  time.Duration // between copies of a request without an answer; default 500 ms
	// Silence is how long the target is listened to, after it has answered a later request, before it is taken to have kept
	// silent; default 150 ms. Too short a time misses faults and never invents one.
	Silence time.Duration
	TagSeed uint32 // where tags start; default random

	Tell func(Result) // called after each check
}

func (o *Options) withDefaults() {
	if o.MAC == (aoe.MAC{}) {
		o.MAC = o.Port.MAC()
	}
	if o.Checks == nil {
		o.Checks = All()
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Resend == 0 {
		o.Resend = 500 * time.Millisecond
	}
	if o.Silence == 0 {
		o.Silence = 150 * time.Millisecond
	}
	if o.TagSeed == 0 {
		m := initiator.NewMAC()
		o.TagSeed = uint32(m[2])<<24 | uint32(m[3])<<16 | uint32(m[4])<<8 | uint32(m[5])
	}
	if o.Tell == nil {
		o.Tell = func(Result) {}
	}
}

// All returns all checks, in the order in which they are best made. The slice is the caller's.
func All() []Check {
	return slices.Concat(headerChecks, configChecks, identifyChecks, readChecks, commandChecks, writeChecks, configSetChecks, maskChecks, reserveChecks)
}

// skipped is the reason why a check cannot be made.
type skipped string

func (s skipped) Error() string { return string(s) }

// Run makes the checks one after the other. An error means that the run could not be finished, or that the volume could not
// be put back as it was; the report holds what was found until then, and is nil if the volume never answered: then the error
// is initiator.ErrTimeout.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.withDefaults()
	w, err := newWire(o.Port, &o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	p := &Probe{ctx: ctx, shelf: o.Shelf, slot: o.Slot, silence: o.Silence, mtu: o.Port.MTU(), macs: [3]aoe.MAC{o.MAC, initiator.NewMAC(), initiator.NewMAC()}}
	leave, err := w.join(p.macs[:]...)
	if err != nil {
		return nil, err
	}
	defer leave()
	p.wire = w
	if err := p.discover(); err != nil {
		return nil, err
	}
	report := &Report{Shelf: o.Shelf, Slot: o.Slot, MAC: p.target.String(), Sectors: p.sectors}
	if o.Destructive {
		p.saved, err = p.save()
		if err == nil {
			if err = p.clean(); err == nil {
				err = p.runAll(&o, report)
			}
			return report, errors.Join(err, p.restore(err))
		}
		if errors.Is(err, errInterrupted) {
			return report, err
		}
		p.cannotSave = err
	}
	return report, p.runAll(&o, report)
}

func (p *Probe) runAll(o *Options, report *Report) error {
	for i := range o.Checks {
		c := &o.Checks[i]
		r := Result{Name: c.Name, Source: c.Source, Breaks: c.Breaks, Verdict: Pass}
		err := p.run(c, o.Destructive)
		var skip skipped
		switch {
		case p.ctx.Err() != nil:
			return fmt.Errorf("conformance: %s: %w", c.Name, errInterrupted)
		case err == nil:
		case errors.As(err, &skip):
			r.Verdict, r.Found = Skip, err.Error()
		case errors.Is(err, link.ErrDown), errors.Is(err, link.ErrGone), errors.Is(err, link.ErrClosed):
			return fmt.Errorf("conformance: %s: %w", c.Name, err)
		case c.Choice:
			r.Verdict, r.Found = Differs, err.Error()
		default:
			r.Verdict, r.Found = Fail, err.Error()
		}
		report.Results = append(report.Results, r)
		o.Tell(r)
		if p.stuck == nil && err != nil && !errors.As(err, &skip) {
			p.stuck = p.alive()
		}
		if p.stuck != nil {
			return fmt.Errorf("conformance: stopped after %s: %w", c.Name, p.stuck)
		}
	}
	return nil
}

// alive wants any answer at all.
func (p *Probe) alive() error {
	_, err := p.ask(p.config(configRead, nil).padded(60))
	if errors.Is(err, errNoAnswer) {
		return fmt.Errorf("has the target died? %w", initiator.ErrTimeout)
	}
	return err
}

// run makes one check, on a volume without config string, mask and reservation if it is a destructive one.
func (p *Probe) run(c *Check, destructive bool) error {
	if !c.Destructive {
		return c.Run(p)
	}
	if !destructive {
		return skipped("changes the volume: not asked for")
	}
	if p.saved == nil {
		return skipped(fmt.Sprintf("what is on the volume cannot be saved: %v", p.cannotSave))
	}
	// A target remembers how the control requests of a MAC ended, so that a retransmission gets the same answer, and may bound how
	// many it remembers: Clade is silent after 64 a minute. So each of these checks speaks as initiators of its own.
	first := p.macs
	defer func() { p.macs = first }()
	macs := [3]aoe.MAC{initiator.NewMAC(), initiator.NewMAC(), initiator.NewMAC()}
	leave, err := p.wire.join(macs[:]...)
	if err != nil {
		return err
	}
	defer leave()
	p.macs = macs
	err = c.Run(p)
	if cleaned := p.clean(); cleaned != nil && p.ctx.Err() == nil {
		p.stuck = fmt.Errorf("mask, reservation and config string cannot be taken away: %w", cleaned)
	}
	return err
}
