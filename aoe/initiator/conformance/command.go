package conformance

import (
	"errors"
	"fmt"
)

// commandChecks are about ATA commands that neither read nor write.
var commandChecks = []Check{
	{Name: "ata/verify", Source: "ATA: READ VERIFY SECTORS (EXT)", Choice: true,
		Breaks: "nobody: no AoE initiator sends it", Run: checkVerify},
	{Name: "ata/verify-beyond", Source: "ATA: IDNF", Choice: true,
		Breaks: "nobody: no AoE initiator sends it", Run: sized(func(p *Probe) error {
			if _, err := p.aborted(p.ata(ataVerifyExt, p.sectors, 1).padded(60), 0x14); err != nil {
				return err
			}
			_, err := p.aborted(p.ata(ataVerifyExt, p.sectors-1, 2).padded(60), 0x14)
			return err
		})},
	{Name: "ata/verify-none", Source: "facts 1.3: no target takes 0 for 256", Choice: true,
		Breaks: "nobody: no AoE initiator sends it", Run: func(p *Probe) error { return p.checkNone(ataVerify) }},
	{Name: "ata/flush", Source: "ATA: FLUSH CACHE 0xE7", Choice: true,
		Breaks: "nobody: no AoE initiator flushes; a tool that does gets an error", Run: func(p *Probe) error { return p.checkPlain(ataFlush) }},
	{Name: "ata/flush-ext", Source: "ATA: FLUSH CACHE EXT 0xEA", Choice: true,
		Breaks: "nobody: no AoE initiator flushes; a tool that does gets an error", Run: func(p *Probe) error { return p.checkPlain(ataFlushExt) }},
	{Name: "ata/check-power", Source: "ATA: CHECK POWER MODE 0xE5; vblade", Choice: true,
		Breaks: "nobody: hdparm and smartctl do not reach the disk over AoE", Run: func(p *Probe) error {
			r, err := p.askATA(p.ata(ataCheckPower, 0, 0).padded(60))
			if err == nil && (r.u8(26) != 0xFF || r.status() != 0x40) {
				err = fmt.Errorf("count register %#02x, status %#02x; want 0xFF (active or idle) and 0x40", r.u8(26), r.status())
			}
			return err
		}},
	{Name: "ata/smart", Source: "ATA: SMART 0xB0; aoeping -S", Choice: true,
		Breaks: "nobody if IDENTIFY does not declare it; else aoeping -S", Run: checkSmart},
	{Name: "ata/smart-refused", Source: "ATA: SMART needs LBA mid 0x4F and high 0xC2", Choice: true,
		Breaks: "nobody", Run: func(p *Probe) error {
			for _, f := range []frame{p.smart(0xDA, 0, 0), p.smart(0xDA, 0x4F, 0), p.smart(0x77, 0x4F, 0xC2)} {
				if _, err := p.aborted(f.padded(60), 0x04); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "ata/unknown", Source: "ATA: unknown commands end with ERR and ABRT; AoEr11 3.1",
		Breaks: "a tool believes that a command was done, or waits for a time-out", Run: func(p *Probe) error {
			// NOP, which always aborts, and codes that no command has: a real disk behind the target takes no harm.
			for _, command := range []uint8{0x00, 0x01, 0x0F, 0x1E, 0x55, 0x8F} {
				r, err := p.aborted(p.ata(command, 0, 1).padded(60), 0x04)
				if err == nil && len(r) > 60 {
					err = errors.New("an abort with data")
				}
				if err != nil {
					return err
				}
			}
			return nil
		}},
}

// checkPlain wants a command without data to succeed.
func (p *Probe) checkPlain(command uint8) error {
	f := p.ata(command, 0, 0).padded(60)
	r, err := p.askATA(f)
	if err == nil && (r.status() != 0x40 || r.errReg() != 0) {
		err = fmt.Errorf("%s: status %#02x, error register %#02x, want 0x40 and 0", describe(f), r.status(), r.errReg())
	}
	return err
}

func checkVerify(p *Probe) error {
	for _, command := range []uint8{ataVerify, ataVerifyExt} {
		for _, n := range []int{1, 8, 255} {
			if p.sectors > 0 && uint64(n) > p.sectors {
				continue
			}
			f := p.ata(command, 0, n).padded(60)
			r, err := p.askATA(f)
			if err != nil {
				return err
			}
			if len(r) > 60 {
				return fmt.Errorf("%s: %d bytes, want no data", describe(f), len(r))
			}
		}
	}
	return nil
}

func checkSmart(p *Probe) error {
	for _, feature := range []uint8{0xD8, 0xDA} {
		f := p.smart(feature, 0x4F, 0xC2).padded(36 + 1024) // as aoeping sends it
		r, err := p.askATA(f)
		if err != nil {
			return err
		}
		if len(r.data()) < 512 {
			return fmt.Errorf("SMART %#02x: %d bytes behind the registers: aoeping wants 512 also of a command without data", feature, len(r.data()))
		}
		if r.u8(29) != 0x4F || r.u8(30) != 0xC2 {
			return fmt.Errorf("SMART %#02x: signature %#02x %#02x: a threshold is exceeded", feature, r.u8(29), r.u8(30))
		}
	}
	for _, feature := range []uint8{0xD0, 0xD1} {
		r, err := p.askATA(p.smart(feature, 0x4F, 0xC2).padded(36 + 1024))
		if err != nil {
			return err
		}
		if len(r.data()) < 512 {
			return fmt.Errorf("SMART %#02x: %d bytes of data, want 512", feature, len(r.data()))
		}
		sum := byte(0)
		for _, b := range r.data()[:512] {
			sum += b
		}
		if sum != 0 {
			return fmt.Errorf("SMART %#02x: the data's checksum is wrong", feature)
		}
	}
	return nil
}
