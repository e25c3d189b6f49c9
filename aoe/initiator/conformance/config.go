package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// configChecks are those of Query Config that change nothing; they work with the string that is there.
var configChecks = []Check{
	{Name: "config/read-ignores-string", Source: "AoEr11 3.2; trap 3; aoeping sends 1024 bytes of 0xED",
		Breaks: "aoeping says that the volume is not there", Run: checkReadIgnoresString},
	{Name: "config/buffer-count", Source: "AoEr11 3.2; Linux aoecmd.c: aoetgt starts with half of it; OpenAoE/aoe#7",
		Breaks: "below 2 Linux never sends anything, and nobody sees why", Run: func(p *Probe) error {
			r, err := p.askOK(p.config(configRead, nil).padded(60))
			if err == nil && (r.u8(24) == 0 && r.u8(25) < 2) {
				err = fmt.Errorf("buffer count %d", r.u8(25))
			}
			return err
		}},
	{Name: "config/sector-count", Source: "AoEr11 3.2; Linux aoecmd.c: payload is the least of MTU and sector count",
		Breaks: "0 means 2 to new initiators and puzzles old ones; more than a frame holds makes large reads fail", Run: checkSectorCount},
	{Name: "config/version", Source: "AoEr11 3.2: version in the high nibble",
		Breaks: "Plan 9 takes a nonzero low nibble for no discovery", Run: func(p *Probe) error {
			r, err := p.askOK(p.config(configRead, nil).padded(60))
			if err == nil && r.u8(29) != 0x10 {
				err = fmt.Errorf("byte 29 is %#02x, want 0x10", r.u8(29))
			}
			return err
		}},
	{Name: "config/length", Source: "AoEr11 3.2",
		Breaks: "aoecfg prints what is no string", Run: func(p *Probe) error {
			_, err := p.readConfig()
			return err
		}},
	{Name: "config/test", Source: "AoEr11 3.2: CCmd 1; trap 19",
		Breaks: "a claim on a volume is seen where there is none, or the reverse", Run: checkTest},
	{Name: "config/prefix", Source: "AoEr11 3.2: CCmd 2",
		Breaks: "aoecfg -c prefix lists the wrong volumes", Run: checkPrefix},
	{Name: "config/match-truncated", Source: "AoEr11 3.2; vblade compares with the frame's whole length",
		Breaks: "bytes of another frame decide who wins a claim", Run: checkMatchTruncated},
	{Name: "config/unknown", Source: "AoEr11 2, error 2; 3.2: CCmd",
		Breaks: "a tool that tries Coraid's test-and-replace believes that it has won", Run: checkUnknownConfig},
	{Name: "config/match-wildcard", Source: "AoEr11 2, 3.2; aoecfg -c prefix without a volume",
		Breaks: "volumes are not found by their string", Run: func(p *Probe) error {
			text, err := p.readConfig()
			if err == nil {
				_, err = p.askOK(p.config(configTest, text).wild().padded(60))
			}
			if err == nil {
				_, err = p.askOK(p.config(configPrefix, text[:len(text)/2]).wild().padded(60))
			}
			return err
		}},
}

func checkReadIgnoresString(p *Probe) error {
	want, err := p.readConfig()
	if err != nil {
		return err
	}
	for _, f := range []frame{
		p.config(configRead, bytes.Repeat([]byte{0xED}, 1024)),
		p.config(configRead, nil).padded(60).set(30, 0xFF).set(31, 0xFF),
		p.config(configRead, nil).padded(60).set(30, 0x04), // 1024 that are not there
		p.config(configRead, []byte("x")).padded(60),
	} {
		r, err := p.askOK(f)
		if err != nil {
			return err
		}
		if got, ok := r.text(); !ok || !bytes.Equal(got, want) {
			return fmt.Errorf("%s: answered with %q, the string is %q", describe(f), got, want)
		}
	}
	return nil
}

func checkSectorCount(p *Probe) error {
	r, err := p.askOK(p.config(configRead, nil).padded(60))
	switch n := int(r.u8(28)); {
	case err != nil:
		return err
	case n == 0:
		return errors.New("sector count 0")
	case n > (p.mtu-36)/512:
		return skipped(fmt.Sprintf("sector count %d needs a larger MTU than the %d of this interface to be tried", n, p.mtu))
	}
	return nil
}

// near are strings that differ from s a little, within the length limit.
func near(s []byte) [][]byte {
	var out [][]byte
	if len(s) < 1024 {
		out = append(out, append(slices.Clone(s), 'x'), append(slices.Clone(s), 0))
	}
	if len(s) > 0 {
		first, last := slices.Clone(s), slices.Clone(s)
		first[0] ^= 1
		last[len(last)-1] ^= 0x80
		out = append(out, first, last)
	}
	return out
}

func checkTest(p *Probe) error {
	text, err := p.readConfig()
	if err != nil {
		return err
	}
	return p.matches(configTest, text, text, near(text))
}

func checkPrefix(p *Probe) error {
	text, err := p.readConfig()
	if err != nil {
		return err
	}
	for _, n := range []int{0, len(text) / 2, max(len(text)-1, 0), len(text)} {
		if err := p.matches(configPrefix, text, text[:n], nil); err != nil {
			return err
		}
	}
	return p.matches(configPrefix, text, text, near(text))
}

// matches wants silence for the others, and an answer with the string in force for the one.
func (p *Probe) matches(ccmd uint8, inForce, one []byte, others [][]byte) error {
	var frames []frame
	for _, s := range others {
		if len(s)+32 <= p.mtu+14 {
			frames = append(frames, p.config(ccmd, s).padded(60))
		}
	}
	if len(frames) > 0 {
		if err := p.silent(frames...); err != nil {
			return err
		}
	}
	f := p.config(ccmd, one).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return err
	}
	if got, ok := r.text(); !ok || !bytes.Equal(got, inForce) {
		return fmt.Errorf("%s: answered with %q, the string is %q", describe(f), got, inForce)
	}
	if r.u8(29)&15 != ccmd {
		return fmt.Errorf("%s: command %d in the answer", describe(f), r.u8(29)&15)
	}
	return nil
}

func checkMatchTruncated(p *Probe) error {
	for _, ccmd := range []uint8{configTest, configPrefix} {
		for _, n := range []int{29, 100, 1024, 1025, 0xFFFF} { // of 28 bytes
			f := p.config(ccmd, nil).padded(60).set(30, byte(n>>8)).set(31, byte(n))
			r, err := p.once(f)
			if err != nil {
				return err
			}
			if r != nil && !r.failed() {
				return fmt.Errorf("%s: answered as a match", describe(f))
			}
		}
	}
	return nil
}

func checkUnknownConfig(p *Probe) error {
	// To a target that knows it, 5 is test-and-replace: nothing is to match.
	never := []byte("no string of anybody's: clade initiator conformance")
	for _, ccmd := range []uint8{5, 6, 15} {
		if _, err := p.refused(p.config(ccmd, never).padded(60), codeArgument); err != nil {
			return err
		}
	}
	return nil
}
