package conformance

import (
	"errors"
	"fmt"
	"slices"

	"clade/aoe"
)

// maskChecks are about the MAC Mask List. Each destructive one begins with an empty list.
var maskChecks = []Check{
	{Name: "mask/read", Source: "AoEr11 3.3: MCmd 0",
		Breaks: "an operator does not see who may talk to the volume", Run: checkMaskRead},
	{Name: "mask/read-wildcard", Source: "AoEr11 2", Choice: true,
		Breaks: "nobody: tools name the volume", Run: func(p *Probe) error {
			_, err := p.askOK(p.maskRead().wild().padded(60))
			return err
		}},
	{Name: "mask/unknown", Source: "AoEr11 2, error 2; 3.3: MCmd",
		Breaks: "a tool believes that an edit was made", Run: func(p *Probe) error {
			for _, mcmd := range []uint8{2, 3, 0xFF} {
				if _, err := p.refused(p.maskRead().padded(60).set(25, mcmd), codeArgument); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "mask/edit", Source: "AoEr11 3.3: MCmd 1, DCmd 1 and 2", Destructive: true,
		Breaks: "access cannot be granted or taken", Run: checkMaskEdit},
	{Name: "mask/order", Source: "AoEr11 3.3: directives in order", Destructive: true,
		Breaks: "an edit that replaces the list leaves another one", Run: checkMaskOrder},
	{Name: "mask/none", Source: "AoEr11 3.3: DCmd 0", Destructive: true,
		Breaks: "an empty directive grants access", Run: func(p *Probe) error {
			if err := p.edits([]aoe.MAC{p.macs[0]}, directive{1, p.macs[0]}, directive{0, p.macs[1]}); err != nil {
				return err
			}
			return p.edits([]aoe.MAC{p.macs[0]}, directive{0, p.macs[0]})
		}},
	{Name: "mask/silence", Source: "AoEr11 3.3; trap 20", Destructive: true,
		Breaks: "who was shut out still reads, writes or sees the volume", Run: checkMaskSilence},
	{Name: "mask/admits", Source: "AoEr11 3.3", Destructive: true,
		Breaks: "who was let in is not served", Run: func(p *Probe) error {
			if err := p.edits([]aoe.MAC{p.macs[0], p.macs[1]}, directive{1, p.macs[0]}, directive{1, p.macs[1]}); err != nil {
				return err
			}
			for _, m := range p.macs[:2] {
				if _, err := p.askATA(p.ata(p.readCommand(), 0, 1).from(m).padded(60)); err != nil {
					return err
				}
			}
			return p.silent(p.config(configRead, nil).from(p.macs[2]).padded(60))
		}},
	{Name: "mask/bad-directive", Source: "AoEr11 3.3: MError 2", Destructive: true,
		Breaks: "a tool does not learn which directive failed", Run: checkMaskBad},
	{Name: "mask/all-or-nothing", Source: "facts 1.5: the list stays as before after a failure", Destructive: true, Choice: true,
		Breaks: "nobody yet: a tool has to read the list after a failure", Run: func(p *Probe) error {
			if _, err := p.askOK(p.maskEdit(directive{1, p.macs[0]}, directive{3, p.macs[1]}).padded(60)); err != nil {
				return err
			}
			return p.wantMask(0)
		}},
	{Name: "mask/full", Source: "AoEr11 3.3: MError 3", Destructive: true,
		Breaks: "a MAC that was added is not on the list", Run: checkMaskFull},
	{Name: "mask/capacity", Source: "AoEr11 3.3: Dir Count is a byte; facts 1.5: 185 fit a frame of MTU 1500", Destructive: true, Choice: true,
		Breaks: "large sites: more hosts than the list holds", Run: checkMaskCapacity},
	{Name: "mask/truncated", Source: "AoEr11 3.3: Dir Count", Destructive: true,
		Breaks: "bytes of another frame become MACs", Run: checkMaskTruncated},
	{Name: "mask/own-exclusion", Source: "facts 1.5: vblade answers before the edit counts", Destructive: true, Choice: true,
		Breaks: "an operator does not know whether the edit was made", Run: func(p *Probe) error {
			f := p.maskEdit(directive{1, p.macs[1]}).padded(60)
			p.listener = 1
			got, err := p.burst(f)
			if err == nil && len(got) == 0 {
				_, err = p.ask(f)
			}
			return err
		}},
	{Name: "mask/edit-wildcard", Source: "facts 1.2; vblade executes it", Destructive: true, Choice: true,
		Breaks: "nobody: tools name the volume", Run: func(p *Probe) error {
			if err := p.alone(); err != nil {
				return err
			}
			if err := p.silent(p.maskEdit(directive{1, p.macs[0]}).at(0xFFFF, p.slot).padded(60)); err != nil {
				return err
			}
			return p.wantMask(0)
		}},
	{Name: "mask/duplicate", Source: "AoEr11 1.1", Destructive: true,
		Breaks: "an edit whose answer was lost cannot be repeated", Run: func(p *Probe) error {
			f := p.maskEdit(directive{1, p.macs[0]}).padded(60)
			for range 3 {
				r, err := p.askOK(f)
				if err != nil {
					return err
				}
				if list, ok := r.mask(); !ok || r.u8(26) != 0 || len(list) != 1 {
					return fmt.Errorf("%s: a copy was answered with mask error %d, %d MACs", describe(f), r.u8(26), len(list))
				}
			}
			return p.wantMask(0, p.macs[0])
		}},
}

// sameSet compares lists whose order means nothing.
func sameSet(a, b []aoe.MAC) bool {
	order := func(x, y aoe.MAC) int { return slices.Compare(x[:], y[:]) }
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, order)
	slices.SortFunc(b, order)
	return slices.Equal(a, b)
}

func (p *Probe) wantMask(who int, want ...aoe.MAC) error {
	got, err := p.readMask(who)
	if err == nil && !sameSet(got, want) {
		err = fmt.Errorf("the mask is %d MACs, %v, want %v", len(got), got[:min(len(got), 4)], want)
	}
	return err
}

// edits wants an edit to succeed and the list to be as wanted, in its answer and afterwards.
func (p *Probe) edits(want []aoe.MAC, list ...directive) error {
	f := p.maskEdit(list...).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return err
	}
	if r.u8(25) != 1 || r.u8(26) != 0 {
		return fmt.Errorf("%s: answered with command %d, mask error %d", describe(f), r.u8(25), r.u8(26))
	}
	if got, ok := r.mask(); !ok || !sameSet(got, want) {
		return fmt.Errorf("%s: answered with %v, want %v", describe(f), got, want)
	}
	return p.wantMask(0, want...)
}

func checkMaskRead(p *Probe) error {
	f := p.maskRead().padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return err
	}
	list, ok := r.mask()
	if !ok {
		return fmt.Errorf("%s: the answer of %d bytes is too short for %d MACs", describe(f), len(r), r.u8(27))
	}
	if r.u8(25) != 0 || r.u8(26) != 0 {
		return fmt.Errorf("%s: command %d, mask error %d in the answer", describe(f), r.u8(25), r.u8(26))
	}
	for i := range list {
		if r[28+8*i+1] != 0 {
			return fmt.Errorf("%s: entry %d has directive %d", describe(f), i, r[28+8*i+1])
		}
	}
	return nil
}

func checkMaskEdit(p *Probe) error {
	a, b := p.macs[0], p.macs[1]
	for _, step := range []struct {
		want []aoe.MAC
		list []directive
	}{
		{nil, nil},
		{nil, []directive{{2, b}}}, // delete what is not there
		{[]aoe.MAC{a}, []directive{{1, a}}},
		{[]aoe.MAC{a}, []directive{{1, a}}}, // add what is there
		{[]aoe.MAC{a, b}, []directive{{1, b}}},
		{[]aoe.MAC{a}, []directive{{2, b}, {2, b}}},
		{nil, []directive{{2, a}}},
	} {
		if err := p.edits(step.want, step.list...); err != nil {
			return err
		}
	}
	return nil
}

func checkMaskOrder(p *Probe) error {
	a, b := p.macs[0], p.macs[1]
	if err := p.edits([]aoe.MAC{a}, directive{1, a}, directive{1, b}, directive{2, b}); err != nil {
		return err
	}
	return p.edits([]aoe.MAC{a, b}, directive{2, a}, directive{2, b}, directive{1, b}, directive{1, a})
}

func checkMaskSilence(p *Probe) error {
	if err := p.edits([]aoe.MAC{p.macs[0]}, directive{1, p.macs[0]}); err != nil {
		return err
	}
	lba := p.saved.scratch.lba
	want := pattern(30, 1)
	if err := p.writeSectors(lba, want); err != nil {
		return err
	}
	b := p.macs[1]
	err := p.silent(p.config(configRead, nil).from(b).padded(60), p.config(configRead, nil).wild().from(b).padded(60), p.ata(ataIdentify, 0, 1).from(b).padded(60),
		p.ata(p.readCommand(), lba, 1).from(b).padded(60), p.ata(p.writeCommand(), lba, 1, pattern(31, 1)...).from(b), p.maskRead().from(b).padded(60),
		p.maskEdit(directive{1, b}).from(b).padded(60), p.reserve(0).from(b).padded(60), p.reserve(2, b).from(b).padded(60), p.config(configForce, []byte("x")).from(b).padded(60),
		p.request(0x7F).from(b).padded(60))
	return errors.Join(err, p.wantMask(0, p.macs[0]), p.wantData(lba, want), p.wantConfig(nil), p.wantReserved(0))
}

func checkMaskBad(p *Probe) error {
	for at := range 3 {
		list := []directive{{1, p.macs[0]}, {1, p.macs[0]}, {1, p.macs[0]}}
		list[at].command = 3 + uint8(at)*100
		f := p.maskEdit(list...).padded(60)
		r, err := p.askOK(f) // MError is a field of its own
		if err != nil {
			return err
		}
		if r.u8(26) != 2 || int(r.u8(27)) != at {
			return fmt.Errorf("%s: mask error %d at directive %d, want 2 at %d", describe(f), r.u8(26), r.u8(27), at)
		}
	}
	return nil
}

// fill adds MACs, many and then one at a time, until the target says that the list is full or it has most, and returns how long
// it is.
func (p *Probe) fill(most int) (n int, full bool, err error) {
	if err := p.edits([]aoe.MAC{p.macs[0]}, directive{1, p.macs[0]}); err != nil {
		return 0, false, err
	}
	for chunk, n := 16, 1; n < most; {
		var list []directive
		for i := n; i < min(n+chunk, most); i++ {
			list = append(list, directive{1, aoe.MAC{0x02, 0xC0, 0xFF, 0xEE, 0, byte(i)}})
		}
		f := p.maskEdit(list...).padded(60)
		r, err := p.askOK(f)
		if err != nil {
			return n, false, err
		}
		got, err := p.readMask(0)
		switch {
		case err != nil:
			return n, false, err
		case r.u8(26) == 0 && len(got) != n+len(list):
			return n, false, fmt.Errorf("%s: answered with success, and the list grew from %d to %d", describe(f), n, len(got))
		case r.u8(26) == 3 && chunk == 1:
			return len(got), true, nil
		case r.u8(26) == 3:
			chunk = 1
		case r.u8(26) != 0:
			return n, false, fmt.Errorf("%s: mask error %d", describe(f), r.u8(26))
		}
		n = len(got)
	}
	return most, false, nil
}

func checkMaskFull(p *Probe) error {
	most := min(255, p.maskFrame())
	n, full, err := p.fill(most)
	switch {
	case err != nil:
		return err
	case !full:
		f := p.maskEdit(directive{1, aoe.MAC{0x02, 0xC0, 0xFF, 0xEE, 1, 0}}).padded(60)
		r, err := p.askOK(f)
		if err != nil {
			return err
		}
		if r.u8(26) != 3 && most < 255 {
			return skipped(fmt.Sprintf("the list holds more than the %d MACs that a frame of ours tells", most))
		}
		if r.u8(26) != 3 {
			return fmt.Errorf("%s: mask error %d with %d MACs on the list", describe(f), r.u8(26), n)
		}
	}
	got, err := p.readMask(0)
	if err == nil && len(got) != n {
		err = fmt.Errorf("the list was full with %d MACs, and has %d", n, len(got))
	}
	return err
}

func checkMaskCapacity(p *Probe) error {
	n, full, err := p.fill(100)
	if err == nil && full {
		err = fmt.Errorf("the list holds %d MACs", n)
	}
	return err
}

func checkMaskTruncated(p *Probe) error {
	for _, count := range []uint8{5, 100, 255} { // 4 fit
		f := p.maskEdit(directive{1, p.macs[0]}).padded(60).set(27, count)
		r, err := p.once(f)
		if err != nil {
			return err
		}
		if r != nil && r.code() == 0 && r.u8(26) == 0 {
			return fmt.Errorf("%s: answered with success", describe(f))
		}
		if err := p.wantMask(0); err != nil {
			return fmt.Errorf("%s: %w", describe(f), err)
		}
	}
	return nil
}
