package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// identifyChecks are about IDENTIFY DEVICE, from which every initiator learns the size.
var identifyChecks = []Check{
	{Name: "identify/answer", Source: "AoEr11 3.1; ATA: IDENTIFY DEVICE; Linux aoecmd.c: ataid_complete",
		Breaks: "no device appears", Run: func(p *Probe) error {
			f := p.ata(ataIdentify, 0, 1).padded(60)
			r, err := p.askATA(f)
			switch {
			case err != nil:
				return err
			case len(r) < 36+512:
				return fmt.Errorf("%s: %d bytes, want %d", describe(f), len(r), 36+512)
			case r.status() != 0x40 || r.errReg() != 0:
				return fmt.Errorf("%s: status %#02x, error register %#02x, want 0x40 and 0", describe(f), r.status(), r.errReg())
			}
			return nil
		}},
	{Name: "identify/size-48", Source: "ATA: words 83, 86, 100-103; Linux aoecmd.c: ataid_complete; WinAoE",
		Breaks: "Linux, iPXE and WinAoE see a disk of another size", Run: identified(func(p *Probe) error {
			size := binary.LittleEndian.Uint64(p.identify[200:])
			switch {
			case p.word(83)&(1<<10) == 0 || p.word(86)&(1<<10) == 0:
				return fmt.Errorf("words 83 and 86 are %#04x and %#04x: no LBA48", p.word(83), p.word(86))
			case size == 0 || size >= 1<<48:
				return fmt.Errorf("words 100-103 say %d sectors", size)
			}
			return nil
		})},
	{Name: "identify/size-28", Source: "ATA: words 60-61",
		Breaks: "old initiators see a disk of another size", Run: identified(func(p *Probe) error {
			if got, want := uint64(binary.LittleEndian.Uint32(p.identify[120:])), min(p.sectors, 0x0FFFFFFF); got != want {
				return fmt.Errorf("words 60-61 say %d sectors, want %d", got, want)
			}
			return nil
		})},
	{Name: "identify/valid", Source: "ATA: words 49, 83, 84, 87: LBA, valid signature 01",
		Breaks: "an initiator that trusts the signature takes the words for not reported", Run: identified(func(p *Probe) error {
			if p.word(49)&0x0200 == 0 {
				return fmt.Errorf("word 49 is %#04x: no LBA", p.word(49))
			}
			for _, n := range []int{83, 84, 87} {
				if p.word(n)>>14 != 1 {
					return fmt.Errorf("word %d is %#04x: its top bits are not 01", n, p.word(n))
				}
			}
			return nil
		})},
	{Name: "identify/strings", Source: "ATA: words 10-19, 23-26, 27-46: swapped ASCII, padded with spaces",
		Breaks: "aoe-stat and hdparm print rubbish, Plan 9 compares it", Run: identified(checkStrings)},
	{Name: "identify/declared", Source: "ATA: word 82 bit 0, word 83 bits 12 and 13",
		Breaks: "a tool is refused the command that the disk said it has", Run: identified(checkDeclared)},
	{Name: "identify/declares-flush", Source: "ATA: word 83 bits 12 and 13; facts 2.2", Choice: true,
		Breaks: "nobody: no AoE initiator flushes, so answered writes have to be durable", Run: identified(func(p *Probe) error {
			if p.word(83)&0x3000 != 0x3000 {
				return fmt.Errorf("word 83 is %#04x: not both kinds of flush", p.word(83))
			}
			return nil
		})},
	{Name: "identify/stable", Source: "Plan 9 devaoe: identity compared; facts M3",
		Breaks: "Plan 9 says media changed", Run: identified(func(p *Probe) error {
			for _, f := range []frame{p.ata(ataIdentify, 0, 1), p.ata(ataIdentify, 0, 1).to([6]byte{255, 255, 255, 255, 255, 255}), p.ata(ataIdentify, 0, 1).from(p.macs[1])} {
				r, err := p.askATA(f)
				if err != nil {
					return err
				}
				if !bytes.Equal(r.data()[:min(512, len(r.data()))], p.identify) {
					return errors.New("two IDENTIFYs differ")
				}
			}
			return nil
		})},
	{Name: "identify/payload", Source: "trap 2; aoe-sancheck: IDENTIFY carrying 1 to all sectors; aoeping -i: 1060 bytes",
		Breaks: "aoe-sancheck reports that the network loses large frames", Run: func(p *Probe) error {
			for n := 1; n <= (p.mtu-36)/512; n++ {
				if _, err := p.askATA(p.ata(ataIdentify, 0, 1).padded(36 + 512*n)); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "identify/wildcard", Source: "trap 4; WinAoE discovers by a broadcast IDENTIFY to all",
		Breaks: "Windows finds nothing", Run: func(p *Probe) error {
			f := p.ata(ataIdentify, 0, 1).wild().padded(60)
			r, err := p.askATA(f)
			if err == nil && (r.shelf() != p.shelf || r.slot() != p.slot) {
				err = fmt.Errorf("%s: answered from shelf %d, slot %d", describe(f), r.shelf(), r.slot())
			}
			return err
		}},
	{Name: "identify/lba-ignored", Source: "Linux aoecmd.c: aoecmd_ata_id sends 0xA0 in lba3",
		Breaks: "Linux does not learn the size", Run: func(p *Probe) error {
			_, err := p.askATA(p.ata(ataIdentify, 0x123456, 1).set(33, 7).padded(60))
			return err
		}},
	{Name: "identify/count", Source: "AoEr11 2: error 2; vblade", Choice: true,
		Breaks: "nobody: all initiators ask for one sector", Run: func(p *Probe) error {
			for _, n := range []int{0, 2, 255} {
				if _, err := p.refused(p.ata(ataIdentify, 0, n).padded(60), codeArgument); err != nil {
					return err
				}
			}
			return nil
		}},
}

// identified makes a check of what needs the IDENTIFY block.
func identified(check func(*Probe) error) func(*Probe) error {
	return func(p *Probe) error {
		if p.identify == nil {
			return skipped("IDENTIFY was not answered with 512 bytes")
		}
		return check(p)
	}
}

func checkStrings(p *Probe) error {
	for _, s := range []struct {
		what     string
		from, to int
	}{{"serial", 20, 40}, {"firmware", 46, 54}, {"model", 54, 94}} {
		b := p.identify[s.from:s.to]
		text := make([]byte, len(b))
		for i := range b {
			text[i^1] = b[i]
			if b[i] < ' ' || b[i] > '~' {
				return fmt.Errorf("%s holds the byte %#02x", s.what, b[i])
			}
		}
		if text[0] == ' ' {
			return fmt.Errorf("%s %q begins with a space: not given, or not swapped", s.what, text)
		}
	}
	return nil
}

func checkDeclared(p *Probe) error {
	var frames []frame
	if p.word(82)&1 != 0 {
		frames = append(frames, p.smart(0xDA, 0x4F, 0xC2).padded(60))
	}
	if p.word(83)&(1<<12) != 0 {
		frames = append(frames, p.ata(ataFlush, 0, 0).padded(60))
	}
	if p.word(83)&(1<<13) != 0 {
		frames = append(frames, p.ata(ataFlushExt, 0, 0).padded(60))
	}
	if p.word(83)&(1<<10) != 0 {
		frames = append(frames, p.ata(ataReadExt, 0, 1).padded(60))
	}
	for _, f := range frames {
		if _, err := p.askATA(f); err != nil {
			return err
		}
	}
	return nil
}
