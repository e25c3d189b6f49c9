package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"clade/aoe"
)

// headerChecks are about the 24 bytes that all commands share, who answers, and the size of frames.
var headerChecks = []Check{
	{Name: "header/tag", Source: "AoEr11 2; Linux aoecmd.c: newtag; aoetools: bit 31",
		Breaks: "answers are not matched with their requests: all initiators hang", Run: checkTags},
	{Name: "header/version", Source: "AoEr11 2; iPXE aoe.c",
		Breaks: "iPXE drops answers whose version is not 1", Run: each(func(_ *Probe, _ frame, r reply) error {
			if r[14]>>4 != 1 {
				return fmt.Errorf("version %d in the answer", r[14]>>4)
			}
			return nil
		})},
	{Name: "header/flags", Source: "AoEr11 2",
		Breaks: "a later revision's flags would be misread; E on success makes Linux retry for ever", Run: checkFlags},
	{Name: "header/command", Source: "AoEr11 2; Linux aoecmd.c: dispatch on command",
		Breaks: "Linux takes the answer for that of another command", Run: each(func(_ *Probe, f frame, r reply) error {
			if r[19] != f[19] {
				return fmt.Errorf("command %d in the answer", r[19])
			}
			return nil
		})},
	{Name: "header/address", Source: "AoEr11 2; Linux aoecmd.c: device by shelf and slot",
		Breaks: "Linux refuses answers from shelf 65535 or slot 255 and finds no device for others", Run: each(func(p *Probe, _ frame, r reply) error {
			if r.shelf() != p.shelf || r.slot() != p.slot {
				return fmt.Errorf("the answer comes from shelf %d, slot %d", r.shelf(), r.slot())
			}
			return nil
		})},
	{Name: "header/source-mac", Source: "AoEr11 2; Linux aoecmd.c: one path per source MAC; facts M1",
		Breaks: "each MAC that answers is one more path to Linux: a second one stalls I/O for 10 s when it goes silent", Run: each(func(p *Probe, _ frame, r reply) error {
			if src := aoe.MAC(r[6:]); src != p.target {
				return fmt.Errorf("answered from %s, discovery was answered from %s", src, p.target)
			}
			return nil
		})},
	{Name: "header/destination-mac", Source: "AoEr11 2",
		Breaks: "the answer floods the network, or reaches another initiator", Run: each(func(_ *Probe, f frame, r reply) error {
			if aoe.MAC(r[:]) != aoe.MAC(f[6:]) {
				return fmt.Errorf("the answer to %s went to %s", aoe.MAC(f[6:]), aoe.MAC(r[:]))
			}
			return nil
		})},
	{Name: "header/error-byte", Source: "AoEr11 2", Choice: true,
		Breaks: "nobody: the byte counts only with E", Run: checkErrorByte},
	{Name: "header/minimum", Source: "trap 7; aoetools: frames below 60 bytes are thrown away",
		Breaks: "aoeping and aoecfg see nothing on links that do not pad", Run: each(func(_ *Probe, _ frame, r reply) error {
			if len(r) < 60 {
				return fmt.Errorf("an answer of %d bytes", len(r))
			}
			return nil
		})},
	{Name: "header/wildcards", Source: "AoEr11 2; Linux aoecmd.c: aoecmd_cfg",
		Breaks: "discovery finds nothing", Run: checkWildcards},
	{Name: "header/unicast", Source: "Linux aoecmd.c: ata_rw_frameinit",
		Breaks: "Linux finds the device and cannot use it", Run: func(p *Probe) error {
			_, err := p.askOK(p.config(configRead, nil).padded(60))
			return err
		}},
	{Name: "header/broadcast", Source: "AoEr11 2; aoecfg, aoeping",
		Breaks: "aoeping and aoecfg, which broadcast to a named volume, see nothing", Run: func(p *Probe) error {
			_, err := p.askOK(p.config(configRead, nil).to(aoe.Broadcast).padded(60))
			return err
		}},
	{Name: "header/other-address", Source: "AoEr11 2",
		Breaks: "two volumes answer one request: an initiator reads and writes the wrong disk", Run: checkOtherAddress},
	{Name: "header/other-mac", Source: "trap 24", Choice: true,
		Breaks: "nobody with one target; in a cluster a flooded frame is answered by the wrong node", Run: checkOtherMAC},
	{Name: "header/responses", Source: "AoEr11 2; trap 8; coreos/torus #384",
		Breaks: "two targets on one segment answer each other's answers for ever", Run: checkResponses},
	{Name: "header/unknown-command", Source: "AoEr11 2, error 1",
		Breaks: "a tool that tries a newer command waits for a time-out instead of falling back", Run: checkUnknownCommand},
	{Name: "header/unknown-command-effect", Source: "AoEr11 2, error 1; facts 1.6: command 4", Choice: true,
		Breaks: "nobody: unknown commands to all volumes, and those of vendors, get silence from Clade", Run: checkVendorCommand},
	{Name: "header/short", Source: "facts 1.2: fixed part of each command",
		Breaks: "a damaged frame is executed with bytes of an older one", Run: checkShort},
	{Name: "header/truncated", Source: "AoEr11 2",
		Breaks: "a damaged frame kills the target", Run: checkTruncated},
	{Name: "header/unpadded", Source: "trap 6; Linux aoecmd.c: frames of 32 and 36 bytes on veth",
		Breaks: "Linux in a virtual machine does not find the volume", Run: checkUnpadded},
	{Name: "header/nmap", Source: "trap 5; nmap broadcast-ataoe-discover: the header alone", Choice: true,
		Breaks: "nmap does not list the volume on links that do not pad", Run: func(p *Probe) error {
			r, err := p.askOK(p.request(1).wild())
			if err != nil {
				return err
			}
			if _, ok := r.text(); !ok {
				return errors.New("the answer holds no config string")
			}
			return nil
		}},
	{Name: "header/trailing", Source: "facts M11; traps 2 and 3; aoe-sancheck, aoeping",
		Breaks: "aoeping and aoe-sancheck report a network that loses large frames", Run: checkTrailing},
	{Name: "header/reserved-bits", Source: "AoEr11 2: reserved bits are to be ignored",
		Breaks: "an initiator of a later revision is not served", Run: checkReservedBits},
	{Name: "header/error-in-request", Source: "AoEr11 2", Choice: true,
		Breaks: "nobody: no initiator sends one", Run: func(p *Probe) error {
			_, err := p.askOK(p.config(configRead, nil).set(15, 3).padded(60))
			return err
		}},
	{Name: "header/other-version", Source: "AoEr11 2: error 5", Choice: true,
		Breaks: "nobody: all initiators send 1", Run: checkOtherVersion},
	{Name: "header/duplicate", Source: "AoEr11 1.1: messages may be duplicated",
		Breaks: "a duplicate of a request harms the next one", Run: checkDuplicateRead},
}

// samples are requests of all kinds that change nothing, each with an answer.
func (p *Probe) samples() []frame {
	return []frame{
		p.config(configRead, nil).padded(60), p.config(configRead, nil).wild(), p.config(configRead, nil).to(aoe.Broadcast),
		p.config(configPrefix, nil).padded(60), p.ata(ataIdentify, 0, 1), p.ata(ataIdentify, 0, 1).padded(60), p.ata(0, 0, 0),
		p.ata(p.readCommand(), 0, 1), p.ata(p.readCommand(), 1<<48-2, 1).padded(60), p.maskRead(), p.reserve(0), p.request(0x7F).padded(60),
	}
}

// each makes a check of what has to hold for every answer.
func each(holds func(p *Probe, f frame, r reply) error) func(*Probe) error {
	return func(p *Probe) error {
		for _, f := range p.samples() {
			r, err := p.ask(f)
			if err == nil {
				err = holds(p, f, r)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", describe(f), err)
			}
		}
		return nil
	}
}

func checkTags(p *Probe) error {
	for _, tag := range []uint32{1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01020304, 0xFF000000, 0} {
		for _, f := range []frame{p.config(configRead, nil).padded(60), p.ata(ataIdentify, 0, 1).padded(60), p.maskRead().padded(60), p.reserve(0).padded(60)} {
			if _, err := p.ask(f.tagged(tag)); err != nil {
				return fmt.Errorf("tag %#08x: %w", tag, err)
			}
		}
	}
	return nil
}

func checkFlags(p *Probe) error {
	return each(func(_ *Probe, f frame, r reply) error {
		switch {
		case r[14]&3 != 0:
			return fmt.Errorf("reserved flags set: %#02x", r[14])
		case r.failed() != (f[19] == 0x7F):
			return fmt.Errorf("flag E is %v", r.failed())
		}
		return nil
	})(p)
}

func checkErrorByte(p *Probe) error {
	return each(func(_ *Probe, _ frame, r reply) error {
		if !r.failed() && r[15] != 0 {
			return fmt.Errorf("error byte %d without E", r[15])
		}
		return nil
	})(p)
}

func checkWildcards(p *Probe) error {
	for _, f := range []frame{
		p.config(configRead, nil).wild(),
		p.config(configRead, nil).wild().at(0xFFFF, p.slot),
		p.config(configRead, nil).wild().at(p.shelf, 0xFF),
		p.config(configRead, nil).at(0xFFFF, 0xFF).padded(60), // unicast
	} {
		r, err := p.askOK(f)
		if err != nil {
			return err
		}
		if r.shelf() != p.shelf || r.slot() != p.slot {
			return fmt.Errorf("%s: answered from shelf %d, slot %d", describe(f), r.shelf(), r.slot())
		}
	}
	return nil
}

func checkOtherAddress(p *Probe) error {
	var frames []frame
	for _, a := range []struct {
		shelf uint16
		slot  uint8
	}{{p.shelf ^ 1, p.slot}, {p.shelf, p.slot ^ 1}, {p.shelf ^ 0x100, p.slot}, {p.shelf ^ 1, 0xFF}, {0xFFFF, p.slot ^ 1}} {
		frames = append(frames, p.config(configRead, nil).at(a.shelf, a.slot).padded(60), p.ata(ataIdentify, 0, 1).at(a.shelf, a.slot).padded(60))
	}
	return p.silent(frames...)
}

func checkOtherMAC(p *Probe) error {
	other := p.target
	other[5] ^= 0x55
	return p.silent(p.config(configRead, nil).to(other).padded(60), p.ata(ataIdentify, 0, 1).to(other).padded(60))
}

func checkResponses(p *Probe) error {
	var frames []frame
	for _, f := range p.samples() {
		f[14] |= 8
		frames = append(frames, f)
	}
	return p.silent(frames...)
}

func checkUnknownCommand(p *Probe) error {
	for _, command := range []uint8{0x04, 0x7F, 0xEF} {
		for _, n := range []int{60, 200} {
			if _, err := p.refused(p.request(command).padded(n), codeCommand); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkVendorCommand(p *Probe) error {
	return p.silent(p.request(0xF0).padded(60), p.request(0xFF).padded(60), p.request(0x7F).wild().padded(60))
}

// checkShort sends frames that end before the fixed part of their command does. A network card pads them with zeros, which
// makes other requests of them: so the answer to that is as good as silence.
func checkShort(p *Probe) error {
	full := map[uint8]frame{0: p.ata(ataIdentify, 0, 1), 1: p.config(configRead, nil), 2: p.maskRead(), 3: p.reserve(0)}
	for command := range uint8(4) {
		for n := 25; n < len(full[command]); n++ {
			f := slices.Clone(full[command][:n]).tagged(p.wire.nextTag())
			got, err := p.once(f)
			if err != nil {
				return err
			}
			if got == nil || got.failed() {
				continue
			}
			want, err := p.once(slices.Clone(f).padded(60).tagged(p.wire.nextTag()))
			if err != nil {
				return err
			}
			if want == nil || !bytes.Equal(got[24:], want[24:]) {
				return fmt.Errorf("%s: answered (%s), and otherwise than when padded with zeros", describe(f), describeReply(got))
			}
		}
	}
	return nil
}

// checkTruncated sends frames that end within the header.
func checkTruncated(p *Probe) error {
	for n := 14; n < 24; n++ {
		if err := p.wire.send(p.config(configRead, nil)[:n]); err != nil {
			return err
		}
	}
	_, err := p.askOK(p.config(configRead, nil).padded(60))
	return err
}

func checkUnpadded(p *Probe) error {
	for _, f := range []frame{p.config(configRead, nil).wild(), p.ata(ataIdentify, 0, 1), p.ata(p.readCommand(), 0, 1), p.maskRead(), p.reserve(0)} {
		if _, err := p.askOK(f); err != nil {
			return err
		}
	}
	return nil
}

func checkTrailing(p *Probe) error {
	for _, n := range []int{1, 28, 100, 1024, p.mtu + 14 - 36} {
		for _, f := range []frame{p.config(configRead, nil).garbage(n), p.maskRead().garbage(n), p.reserve(0).garbage(n), p.ata(ataCheckPower, 0, 0).garbage(n),
			p.ata(p.readCommand(), 0, 1).garbage(n)} {
			if _, err := p.ask(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkReservedBits(p *Probe) error {
	config := p.config(configRead, nil).padded(60)
	copy(config[24:], []byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF}) // counts and firmware are the target's to say
	for _, f := range []frame{
		config,
		p.config(configRead, nil).padded(60).set(14, 0x11),
		p.config(configRead, nil).padded(60).set(14, 0x12),
		p.maskRead().padded(60).set(24, 0xFF),
		p.maskRead().padded(60).set(26, 0xFF),
	} {
		if _, err := p.askOK(f); err != nil {
			return err
		}
	}
	for _, f := range []frame{p.ata(ataIdentify, 0, 1).padded(60), p.ata(p.readCommand(), 0, 1).padded(60)} {
		f[24] |= 0x10 | 0xA0 | 0x0C // D, and the bits without a name
		f[34], f[35] = 0xFF, 0xFF
		if _, err := p.askATA(f); err != nil {
			return fmt.Errorf("reserved bits set: %w", err)
		}
	}
	return nil
}

func checkOtherVersion(p *Probe) error {
	for _, v := range []uint8{0, 2, 15} {
		r, err := p.ask(p.config(configRead, nil).padded(60).set(14, v<<4))
		if err != nil {
			return fmt.Errorf("version %d: %w", v, err)
		}
		if c := r.code(); c != 0 && c != codeVersion {
			return fmt.Errorf("version %d: AoE error %d, want %d or none", v, c, codeVersion)
		}
	}
	return nil
}

func checkDuplicateRead(p *Probe) error {
	for _, f := range []frame{p.ata(p.readCommand(), 0, 1).padded(60), p.config(configRead, nil).padded(60)} {
		first, err := p.ask(f)
		if err != nil {
			return err
		}
		got, err := p.burst(f, f, f)
		if err != nil {
			return err
		}
		last, err := p.ask(f)
		if err != nil {
			return fmt.Errorf("the fifth copy: %w", err)
		}
		for _, r := range append(got, last) {
			if !bytes.Equal(r, first) {
				return fmt.Errorf("%s: copies are answered differently", describe(f))
			}
		}
	}
	return nil
}
