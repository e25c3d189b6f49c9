package conformance

import (
	"bytes"
	"errors"
	"fmt"
)

// configSetChecks are those of Query Config that change the string. Each begins with none.
var configSetChecks = []Check{
	{Name: "config/set-empty", Source: "AoEr11 3.2: CCmd 3", Destructive: true,
		Breaks: "nobody can claim the volume", Run: func(p *Probe) error { return p.stores(configSet, []byte("first")) }},
	{Name: "config/set-present", Source: "AoEr11 3.2: CCmd 3; 2: error 4", Destructive: true,
		Breaks: "two hosts both believe that they own the volume", Run: checkSetPresent},
	{Name: "config/set-same", Source: "facts 1.4: vblade, VSX, ggaoed", Destructive: true,
		Breaks: "a winner whose answer was lost is told that it lost", Run: func(p *Probe) error {
			if err := p.stores(configSet, []byte("mine")); err != nil {
				return err
			}
			return p.stores(configSet, []byte("mine"))
		}},
	{Name: "config/set-nothing", Source: "AoEr11 3.2: CCmd 3", Destructive: true, Choice: true,
		Breaks: "nobody: to clear, tools force", Run: func(p *Probe) error {
			if err := p.stores(configSet, nil); err != nil {
				return err
			}
			if err := p.stores(configSet, []byte("x")); err != nil {
				return err
			}
			if _, err := p.refused(p.config(configSet, nil).padded(60), codePresent); err != nil {
				return err
			}
			return p.wantConfig([]byte("x"))
		}},
	{Name: "config/force", Source: "AoEr11 3.2: CCmd 4", Destructive: true,
		Breaks: "aoecfg -c fset cannot take a volume over", Run: func(p *Probe) error {
			for _, s := range []string{"one", "another", "one"} {
				if err := p.stores(configForce, []byte(s)); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "config/clear", Source: "AoEr11 3.2: CCmd 4 with length 0", Destructive: true,
		Breaks: "a volume is never free again", Run: func(p *Probe) error {
			if err := p.stores(configForce, []byte("x")); err != nil {
				return err
			}
			if err := p.stores(configForce, nil); err != nil {
				return err
			}
			return p.stores(configSet, []byte("y"))
		}},
	{Name: "config/lengths", Source: "AoEr11 3.2: at most 1024 bytes", Destructive: true,
		Breaks: "long strings, as cluster file systems use them, are cut", Run: func(p *Probe) error {
			for _, n := range []int{1, 2, 27, 28, 29, 255, 256, 257, 1023, 1024} {
				if err := p.stores(configForce, pattern(byte(n), 2)[:n]); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "config/bytes", Source: "AoEr11 3.2: arbitrary bytes; trap 18", Destructive: true,
		Breaks: "strings end at a NUL, or are changed", Run: func(p *Probe) error {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			for _, s := range [][]byte{all, {0}, {0, 0}, []byte("a\x00b"), []byte("\xff\xfe"), []byte("x ")} {
				if err := p.stores(configForce, s); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "config/match-lengths", Source: "AoEr11 3.2: CCmd 1 and 2; trap 19; QAOED, VSX", Destructive: true,
		Breaks: "a claim on a volume is seen where there is none, or the reverse", Run: checkMatchLengths},
	{Name: "config/too-long", Source: "AoEr11 3.2: at most 1024 bytes", Destructive: true,
		Breaks: "a string that no answer can carry is in force", Run: checkTooLong},
	{Name: "config/longer-than-frame", Source: "AoEr11 3.2; vblade stores up to 32 stray bytes", Destructive: true,
		Breaks: "bytes of another frame are stored", Run: checkLongerThanFrame},
	{Name: "config/trailing", Source: "aoecfg: 1056-byte frames with garbage behind the string", Destructive: true,
		Breaks: "aoecfg stores rubbish", Run: func(p *Probe) error {
			for _, ccmd := range []uint8{configSet, configForce} {
				f := p.config(ccmd, []byte("abc"))
				if _, err := p.askOK(f.garbage(1056 - len(f))); err != nil {
					return err
				}
				if err := p.wantConfig([]byte("abc")); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "config/unknown-effect", Source: "AoEr11 2, error 2; facts 1.4: Coraid's test-and-replace", Destructive: true,
		Breaks: "a tool that tries Coraid's test-and-replace believes that it has won", Run: func(p *Probe) error {
			if err := p.stores(configSet, []byte("kept")); err != nil {
				return err
			}
			for _, ccmd := range []uint8{5, 8, 15} {
				if _, err := p.refused(p.config(ccmd, []byte("kept")).padded(60), codeArgument); err != nil {
					return err
				}
			}
			return p.wantConfig([]byte("kept"))
		}},
	{Name: "config/set-wildcard", Source: "facts 1.2; vblade executes it", Destructive: true, Choice: true,
		Breaks: "aoecfg -c set without a volume changes every volume, or with Clade none", Run: func(p *Probe) error {
			if err := p.alone(); err != nil {
				return err
			}
			if err := p.silent(p.config(configSet, []byte("wild")).padded(60).at(0xFFFF, p.slot)); err != nil {
				return err
			}
			return p.wantConfig(nil)
		}},
	{Name: "config/duplicate", Source: "AoEr11 1.1; the initiator's own retransmissions", Destructive: true,
		Breaks: "a winner whose answer was lost is told that it lost", Run: checkConfigDuplicate},
	{Name: "config/late-duplicate", Source: "AoEr11 1.1; facts 1.7", Destructive: true,
		Breaks: "somebody believes to own a volume that was taken over", Run: checkConfigLate},
}

// wantConfig wants a string to be in force.
func (p *Probe) wantConfig(want []byte) error {
	got, err := p.readConfig()
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("the string in force is %.40q (%d bytes), want %.40q (%d bytes)", got, len(got), want, len(want))
	}
	return err
}

// stores wants a set to succeed, its answer to hold the new string, and so a read.
func (p *Probe) stores(ccmd uint8, text []byte) error {
	f := p.config(ccmd, text).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return err
	}
	if got, ok := r.text(); !ok || !bytes.Equal(got, text) {
		return fmt.Errorf("%s: answered with %.40q (%d bytes), want what was set", describe(f), got, len(got))
	}
	if r.u8(29)&15 != ccmd {
		return fmt.Errorf("%s: command %d in the answer", describe(f), r.u8(29)&15)
	}
	return p.wantConfig(text)
}

func checkSetPresent(p *Probe) error {
	if err := p.stores(configSet, []byte("winner")); err != nil {
		return err
	}
	for _, s := range []string{"loser", "winner2", "winne", "Winner"} {
		f := p.config(configSet, []byte(s)).from(p.macs[1]).padded(60)
		r, err := p.refused(f, codePresent)
		if err != nil {
			return err
		}
		if got, ok := r.text(); !ok || string(got) != "winner" {
			return fmt.Errorf("%s: refused with %q, in force is %q", describe(f), got, "winner")
		}
	}
	return p.wantConfig([]byte("winner"))
}

func checkMatchLengths(p *Probe) error {
	for _, n := range []int{0, 1, 28, 29, 32, 256, 1024} {
		text := pattern(byte(n), 2)[:n]
		if _, err := p.askOK(p.config(configForce, text).padded(60)); err != nil {
			return err
		}
		others := near(text)
		if n > 1 {
			others = append(others, text[:n-1], text[:1], text[1:])
		}
		if n > 0 {
			others = append(others, nil)
		}
		if err := p.matches(configTest, text, text, others); err != nil {
			return fmt.Errorf("a string of %d bytes: %w", n, err)
		}
		for _, k := range []int{0, 1, n / 2, n - 1, n} {
			if k < 0 || k > n {
				continue
			}
			if err := p.matches(configPrefix, text, text[:k], nil); err != nil {
				return fmt.Errorf("a string of %d bytes: %w", n, err)
			}
		}
		if err := p.matches(configPrefix, text, text, near(text)); err != nil {
			return fmt.Errorf("a string of %d bytes: %w", n, err)
		}
	}
	return nil
}

func checkTooLong(p *Probe) error {
	if err := p.stores(configSet, []byte("kept")); err != nil {
		return err
	}
	for _, ccmd := range []uint8{configSet, configForce, configTest} {
		for _, n := range []int{1025, 1300} {
			f := p.config(ccmd, bytes.Repeat([]byte{'k'}, n))
			r, err := p.once(f)
			if err != nil {
				return err
			}
			if r != nil && !r.failed() {
				return fmt.Errorf("%s: answered with success", describe(f))
			}
		}
	}
	return p.wantConfig([]byte("kept"))
}

func checkLongerThanFrame(p *Probe) error {
	for _, ccmd := range []uint8{configSet, configForce} {
		for _, n := range []int{29, 40, 60, 61, 200, 1024} { // of 28 bytes
			f := p.config(ccmd, nil).padded(60).set(30, byte(n>>8)).set(31, byte(n))
			r, err := p.once(f)
			if err != nil {
				return err
			}
			if r != nil && !r.failed() {
				return errors.Join(fmt.Errorf("%s: answered with success", describe(f)), p.wantConfig(nil))
			}
			if err := p.wantConfig(nil); err != nil {
				return fmt.Errorf("%s: %w", describe(f), err)
			}
		}
	}
	return nil
}

func checkConfigDuplicate(p *Probe) error {
	f := p.config(configSet, []byte("once")).padded(60)
	got, err := p.burst(f, f, f)
	if err != nil {
		return err
	}
	for range 2 {
		r, err := p.ask(f)
		if err != nil {
			return err
		}
		got = append(got, r)
	}
	for _, r := range got {
		if text, ok := r.text(); r.failed() || !ok || string(text) != "once" {
			return fmt.Errorf("%s: a copy was answered with %s and %q", describe(f), describeReply(r), text)
		}
	}
	return p.wantConfig([]byte("once"))
}

// checkConfigLate lets a copy of a set arrive when another has taken the volume over.
func checkConfigLate(p *Probe) error {
	f := p.config(configSet, []byte("early")).padded(60)
	if _, err := p.askOK(f); err != nil {
		return err
	}
	if _, err := p.askOK(p.config(configForce, []byte("later")).from(p.macs[1]).padded(60)); err != nil {
		return err
	}
	r, err := p.once(f)
	if err != nil {
		return err
	}
	if r != nil && !r.failed() {
		return fmt.Errorf("%s: a late copy was answered with success", describe(f))
	}
	return p.wantConfig([]byte("later"))
}
