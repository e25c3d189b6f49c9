package conformance

import (
	"errors"
	"fmt"

	"clade/aoe"
)

// reserveChecks are about Reserve/Release. Each destructive one begins without a reservation.
var reserveChecks = []Check{
	{Name: "reserve/read", Source: "AoEr11 3.4: RCmd 0",
		Breaks: "nobody sees who holds the volume", Run: func(p *Probe) error {
			f := p.reserve(0).padded(60)
			r, err := p.askOK(f)
			if err != nil {
				return err
			}
			if _, ok := r.reserved(); !ok || r.u8(24) != 0 {
				return fmt.Errorf("%s: command %d, %d MACs in an answer of %d bytes", describe(f), r.u8(24), r.u8(25), len(r))
			}
			return nil
		}},
	{Name: "reserve/read-wildcard", Source: "AoEr11 2", Choice: true,
		Breaks: "nobody: tools name the volume", Run: func(p *Probe) error {
			_, err := p.askOK(p.reserve(0).wild().padded(60))
			return err
		}},
	{Name: "reserve/unknown", Source: "AoEr11 2, error 2; 3.4: RCmd", Destructive: true, // VSX has one that reserves
		Breaks: "a tool believes that it holds the volume", Run: func(p *Probe) error {
			for _, rcmd := range []uint8{3, 4, 0xFF} {
				if _, err := p.refused(p.reserve(rcmd, p.macs[0]).padded(60), codeArgument); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "reserve/set", Source: "AoEr11 3.4: RCmd 1", Destructive: true,
		Breaks: "nobody can reserve", Run: func(p *Probe) error { return p.reserves(1, p.macs[0]) }},
	{Name: "reserve/release", Source: "AoEr11 3.4: RCmd 1 with no MAC", Destructive: true,
		Breaks: "a volume is never free again", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[0]); err != nil {
				return err
			}
			if err := p.reserves(1); err != nil {
				return err
			}
			return p.writesAs(1, true)
		}},
	{Name: "reserve/fences", Source: "AoEr11 3.4: error 6", Destructive: true,
		Breaks: "a cluster file system that fenced a host is overwritten by it", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[0]); err != nil {
				return err
			}
			if err := p.writesAs(0, true); err != nil {
				return err
			}
			if _, err := p.refused(p.ata(p.readCommand(), 0, 1).from(p.macs[1]).padded(60), codeReserved); err != nil {
				return err
			}
			return p.writesAs(1, false)
		}},
	{Name: "reserve/fences-others", Source: "facts 1.6: vblade refuses all but IDENTIFY, VSX and ggaoed only reads and writes", Destructive: true, Choice: true,
		Breaks: "nobody", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[0]); err != nil {
				return err
			}
			for _, command := range []uint8{ataVerify, ataFlush, ataFlushExt} {
				if _, err := p.refused(p.ata(command, 0, 1).from(p.macs[1]).padded(60), codeReserved); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "reserve/identify", Source: "facts 1.6: IDENTIFY is never blocked", Destructive: true,
		Breaks: "a fenced Linux does not find the device, and nobody sees why", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[0]); err != nil {
				return err
			}
			_, err := p.askATA(p.ata(ataIdentify, 0, 1).from(p.macs[1]).padded(60))
			return err
		}},
	{Name: "reserve/config", Source: "facts 1.6; trap 21: a reservation does not stop config and mask", Destructive: true,
		Breaks: "a fenced host does not find the device, and nobody can resolve it", Run: checkReserveConfig},
	{Name: "reserve/refused", Source: "AoEr11 3.4: error 6", Destructive: true,
		Breaks: "two hosts both believe that they hold the volume", Run: checkReserveRefused},
	{Name: "reserve/force", Source: "AoEr11 3.4: RCmd 2", Destructive: true,
		Breaks: "a dead host's reservation stays for ever", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[1]); err != nil {
				return err
			}
			if err := p.reserves(2, p.macs[0]); err != nil {
				return err
			}
			if err := p.writesAs(1, false); err != nil {
				return err
			}
			if err := p.reserves(2); err != nil {
				return err
			}
			return p.writesAs(1, true)
		}},
	{Name: "reserve/several", Source: "AoEr11 3.4: one client with several ports", Destructive: true,
		Breaks: "a host with two interfaces fences itself", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[0], p.macs[1]); err != nil {
				return err
			}
			for who, may := range []bool{true, true, false} {
				if err := p.writesAs(who, may); err != nil {
					return err
				}
			}
			_, err := p.askOK(p.reserve(1).from(p.macs[1]).padded(60)) // any of them may release
			return err
		}},
	{Name: "reserve/for-others", Source: "AoEr11 3.4: the list need not hold the sender", Destructive: true,
		Breaks: "a manager cannot reserve for its hosts", Run: func(p *Probe) error {
			if err := p.reserves(1, p.macs[1]); err != nil {
				return err
			}
			if err := p.writesAs(0, false); err != nil {
				return err
			}
			return p.writesAs(1, true)
		}},
	{Name: "reserve/truncated", Source: "AoEr11 3.4: NMacs; 2: error 2", Destructive: true,
		Breaks: "bytes of another frame become holders", Run: checkReserveTruncated},
	{Name: "reserve/capacity", Source: "facts 1.6: 248 fit a frame of MTU 1500", Destructive: true, Choice: true,
		Breaks: "nobody: hosts have a few ports", Run: checkReserveCapacity},
	{Name: "reserve/set-wildcard", Source: "facts 1.2; vblade executes it", Destructive: true, Choice: true,
		Breaks: "nobody: tools name the volume", Run: func(p *Probe) error {
			if err := p.alone(); err != nil {
				return err
			}
			if err := p.silent(p.reserve(1, p.macs[0]).at(0xFFFF, p.slot).padded(60)); err != nil {
				return err
			}
			return p.wantReserved(0)
		}},
	{Name: "reserve/duplicate", Source: "AoEr11 1.1", Destructive: true,
		Breaks: "a holder whose answer was lost is told that it lost", Run: func(p *Probe) error {
			f := p.reserve(1, p.macs[0]).padded(60)
			for range 3 {
				r, err := p.askOK(f)
				if err != nil {
					return err
				}
				if got, ok := r.reserved(); !ok || !sameSet(got, p.macs[:1]) {
					return fmt.Errorf("%s: a copy was answered with %v", describe(f), got)
				}
			}
			return nil
		}},
	{Name: "reserve/late-duplicate", Source: "AoEr11 1.1; facts 1.7", Destructive: true,
		Breaks: "a host that was fenced off believes to hold the volume", Run: func(p *Probe) error {
			f := p.reserve(1, p.macs[0]).padded(60)
			if _, err := p.askOK(f); err != nil {
				return err
			}
			if _, err := p.askOK(p.reserve(2, p.macs[1]).from(p.macs[1]).padded(60)); err != nil {
				return err
			}
			r, err := p.once(f)
			if err == nil && r != nil && !r.failed() {
				err = fmt.Errorf("%s: a late copy was answered with success", describe(f))
			}
			return errors.Join(err, p.wantReserved(0, p.macs[1]))
		}},
}

func (p *Probe) wantReserved(who int, want ...aoe.MAC) error {
	got, err := p.readReserved(who)
	if err == nil && !sameSet(got, want) {
		err = fmt.Errorf("the volume is reserved for %v, want %v", got, want)
	}
	return err
}

// reserves wants the first initiator's request to succeed and the reservation to be as asked, in the answer and afterwards.
func (p *Probe) reserves(rcmd uint8, macs ...aoe.MAC) error {
	f := p.reserve(rcmd, macs...).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return err
	}
	if got, ok := r.reserved(); !ok || !sameSet(got, macs) || r.u8(24) != rcmd {
		return fmt.Errorf("%s: answered with command %d, %v; want %v", describe(f), r.u8(24), got, macs)
	}
	return p.wantReserved(0, macs...)
}

// writesAs wants a write of an initiator to be done, or to be refused and without effect. Some holder reads the outcome.
func (p *Probe) writesAs(who int, may bool) error {
	lba := p.saved.scratch.lba
	p.wire.tag++
	data := pattern(byte(p.wire.tag)|1, 1)
	f := p.ata(p.writeCommand(), lba, 1, data...).from(p.macs[who])
	if may {
		if _, err := p.askATA(f); err != nil {
			return fmt.Errorf("as initiator %d: %w", who, err)
		}
		r, err := p.askATA(p.ata(p.readCommand(), lba, 1).from(p.macs[who]).padded(60))
		if err == nil && string(r.data()) != string(data) {
			err = errors.New("an answered write is not there")
		}
		return err
	}
	if _, err := p.refused(f, codeReserved); err != nil {
		return fmt.Errorf("as initiator %d: %w", who, err)
	}
	holder, err := p.holder()
	if err != nil {
		return err
	}
	r, err := p.askATA(p.ata(p.readCommand(), lba, 1).from(p.macs[holder]).padded(60))
	if err == nil && string(r.data()) == string(data) {
		err = fmt.Errorf("a write of initiator %d was refused, and done", who)
	}
	return err
}

// holder is one of our initiators that may read.
func (p *Probe) holder() (int, error) {
	list, err := p.readReserved(0)
	if err != nil {
		return 0, err
	}
	for i, m := range p.macs {
		for _, h := range list {
			if h == m {
				return i, nil
			}
		}
	}
	return 0, errors.New("none of our MACs holds the reservation")
}

func checkReserveConfig(p *Probe) error {
	if err := p.reserves(1, p.macs[0]); err != nil {
		return err
	}
	b := p.macs[1]
	for _, f := range []frame{p.config(configRead, nil), p.config(configSet, []byte("x")), p.config(configForce, nil), p.maskRead(), p.reserve(0),
		p.maskEdit(directive{0, b})} {
		if _, err := p.askOK(f.from(b).padded(60)); err != nil {
			return err
		}
	}
	return nil
}

func checkReserveRefused(p *Probe) error {
	if err := p.reserves(1, p.macs[0]); err != nil {
		return err
	}
	for _, f := range []frame{p.reserve(1, p.macs[1]), p.reserve(1), p.reserve(1, p.macs[0], p.macs[1])} {
		r, err := p.refused(f.from(p.macs[1]).padded(60), codeReserved)
		if err != nil {
			return err
		}
		if got, ok := r.reserved(); !ok || !sameSet(got, p.macs[:1]) {
			return fmt.Errorf("%s: refused with %v, in force is %v", describe(f), got, p.macs[:1])
		}
	}
	return p.wantReserved(1, p.macs[0])
}

func checkReserveTruncated(p *Probe) error {
	for _, n := range []uint8{6, 100, 255} { // 5 fit
		for _, rcmd := range []uint8{1, 2} {
			f := p.reserve(rcmd, p.macs[0]).padded(60).set(25, n)
			r, err := p.once(f)
			if err != nil {
				return err
			}
			if r != nil && !r.failed() {
				return fmt.Errorf("%s: answered with success", describe(f))
			}
			if err := p.wantReserved(0); err != nil {
				return fmt.Errorf("%s: %w", describe(f), err)
			}
		}
	}
	return nil
}

func checkReserveCapacity(p *Probe) error {
	macs := []aoe.MAC{p.macs[0]}
	for i := 1; i < min(248, (p.mtu+14-26)/6); i++ {
		macs = append(macs, aoe.MAC{0x02, 0xC0, 0xFF, 0xEE, 1, byte(i)})
	}
	return p.reserves(1, macs...)
}
