package conformance

import (
	"bytes"
	"fmt"
)

// readChecks are about reads.
var readChecks = []Check{
	{Name: "read/48", Source: "AoEr11 3.1; ATA: READ SECTORS EXT; Linux aoecmd.c",
		Breaks: "Linux cannot read", Run: func(p *Probe) error { return p.checkRead(ataReadExt) }},
	{Name: "read/28", Source: "AoEr11 3.1; ATA: READ SECTORS",
		Breaks: "old initiators cannot read", Run: func(p *Probe) error { return p.checkRead(ataRead) }},
	{Name: "read/28-top-nibble", Source: "trap 12; Linux aoecmd.c: lba3 is 0xE0 and bits 24-27",
		Breaks: "old initiators read another place, or an error", Run: checkTopNibble},
	{Name: "read/counts", Source: "AoEr11 3.1, 3.2: Sector Count",
		Breaks: "Linux calls a short answer a runt and fails the read", Run: checkReadCounts},
	{Name: "read/last", Source: "ATA: READ SECTORS EXT",
		Breaks: "the end of the disk cannot be read: partition tables are kept there", Run: sized(func(p *Probe) error {
			_, err := p.askATA(p.ata(p.readCommand(), p.sectors-1, 1).padded(60))
			return err
		})},
	{Name: "read/beyond", Source: "ATA: IDNF; AoEr11 3.1",
		Breaks: "data of nowhere is taken for the disk's", Run: sized(checkReadBeyond)},
	{Name: "read/beyond-register", Source: "ATA: IDNF is bit 4 of the error register", Choice: true,
		Breaks: "nobody: no initiator looks at the register", Run: sized(func(p *Probe) error {
			_, err := p.aborted(p.ata(p.readCommand(), p.sectors, 1).padded(60), 0x10)
			return err
		})},
	{Name: "read/too-many", Source: "AoEr11 3.2: Sector Count; WinAoE finds its size by reading ever more",
		Breaks: "WinAoE takes a truncated answer for a whole one", Run: checkReadTooMany},
	{Name: "read/none", Source: "facts 1.3: no target takes 0 for 256", Choice: true,
		Breaks: "nobody: no initiator sends it; success would claim 256 sectors", Run: func(p *Probe) error { return p.checkNone(p.readCommand()) }},
	{Name: "read/payload", Source: "trap 1; Linux aoecmd.c: probe", Destructive: true,
		Breaks: "a path probe of Linux, a read that carries a payload, overwrites the disk", Run: func(p *Probe) error { return p.checkReadWithPayload(0) }},
	{Name: "read/write-flag", Source: "facts 1.3: the command byte alone decides", Destructive: true, Choice: true,
		Breaks: "nobody: initiators set the W flag on writes only", Run: func(p *Probe) error { return p.checkReadWithPayload(1) }},
	{Name: "read/extended-flag", Source: "facts 1.3: the command decides the width, not the flag", Choice: true,
		Breaks: "nobody: all initiators send both consistently", Run: checkExtendedFlag},
	{Name: "read/wildcard", Source: "facts 1.2", Choice: true,
		Breaks: "nobody: no initiator reads from all volumes at once", Run: func(p *Probe) error {
			return p.silent(p.ata(p.readCommand(), 0, 1).wild().padded(60))
		}},
}

// sized makes a check of what needs the volume's size.
func sized(check func(*Probe) error) func(*Probe) error {
	return func(p *Probe) error {
		if p.sectors == 0 {
			return skipped("the size of the volume is not known")
		}
		return check(p)
	}
}

func (p *Probe) checkRead(command uint8) error {
	f := p.ata(command, 0, 1).padded(60)
	r, err := p.askATA(f)
	switch {
	case err != nil:
		return err
	case len(r) != 36+512:
		return fmt.Errorf("%s: %d bytes, want %d", describe(f), len(r), 36+512)
	case r.status() != 0x40 || r.errReg() != 0:
		return fmt.Errorf("%s: status %#02x, error register %#02x, want 0x40 and 0", describe(f), r.status(), r.errReg())
	}
	return nil
}

// checkTopNibble reads the same sector with all that initiators leave above 28 bits.
func checkTopNibble(p *Probe) error {
	plain, err := p.readSectors(0, 1)
	if err != nil {
		return err
	}
	for _, top := range []uint8{0x00, 0xA0, 0xE0, 0xF0} {
		r, err := p.askATA(p.ata(ataRead, 0, 1).set(31, top).padded(60))
		if err != nil {
			return fmt.Errorf("top nibble %#02x: %w", top, err)
		}
		if !bytes.Equal(r.data(), plain) {
			return fmt.Errorf("top nibble %#02x: other data", top)
		}
	}
	return nil
}

func checkReadCounts(p *Probe) error {
	n := p.perFrame()
	if p.sectors > 0 {
		n = int(min(uint64(n), p.sectors))
	}
	var single []byte
	for i := range n {
		r, err := p.askATA(p.ata(p.readCommand(), uint64(i), 1).padded(60))
		if err != nil {
			return err
		}
		single = append(single, r.data()...)
	}
	for k := 1; k <= n; k++ {
		f := p.ata(p.readCommand(), 0, k).padded(60)
		r, err := p.askATA(f)
		if err != nil {
			return err
		}
		if !bytes.Equal(r.data(), single[:min(k*512, len(single))]) {
			return fmt.Errorf("%s: %d bytes that are not those of %d reads of one sector", describe(f), len(r.data()), k)
		}
	}
	return nil
}

// checkReadBeyond also finds a target that drops bits of the LBA.
func checkReadBeyond(p *Probe) error {
	type place struct {
		lba uint64
		n   int
	}
	places := []place{{p.sectors, 1}, {p.sectors - 1, 2}, {1<<48 - 1, 1}, {1<<48 - 1, 2}}
	for _, bit := range []int{32, 39, 40, 47} {
		if lba := uint64(1) << bit; lba >= p.sectors && p.lba48() {
			places = append(places, place{lba, 1})
		}
	}
	for _, at := range places {
		if at.n > p.perFrame() {
			continue
		}
		f := p.ata(p.readCommand(), at.lba, at.n).padded(60)
		r, err := p.ask(f)
		switch {
		case err != nil:
			return err
		case !r.failed() && r.status()&1 == 0:
			return fmt.Errorf("%s: ATA status %#02x without ERR; the volume ends at %d", describe(f), r.status(), p.sectors)
		case len(r) > 60:
			return fmt.Errorf("%s: an error with %d bytes of data", describe(f), len(r.data()))
		}
	}
	return nil
}

func checkReadTooMany(p *Probe) error {
	if p.sectorCount >= 255 {
		return skipped("the volume takes any count")
	}
	for _, n := range []int{p.sectorCount + 1, 255} {
		f := p.ata(p.readCommand(), 0, n).padded(60)
		r, err := p.once(f)
		switch {
		case err != nil:
			return err
		case r != nil && !r.failed() && r.status()&1 == 0 && len(r.data()) != n*512:
			return fmt.Errorf("%s: answered with success and %d bytes of data", describe(f), len(r.data()))
		}
	}
	return nil
}

// checkNone wants a command over zero sectors to be refused.
func (p *Probe) checkNone(command uint8) error {
	f := p.ata(command, 0, 0).padded(60)
	r, err := p.ask(f)
	if err == nil && !r.failed() && r.status()&1 == 0 {
		err = fmt.Errorf("%s: answered with success (status %#02x)", describe(f), r.status())
	}
	return err
}

func (p *Probe) checkReadWithPayload(flags byte) error {
	lba, n := p.saved.scratch.lba, p.perFrame()
	want := pattern(1, n)
	if err := p.writeSectors(lba, want); err != nil {
		return err
	}
	f := p.ata(p.readCommand(), lba, n, make([]byte, n*512)...)
	f[24] |= flags
	r, err := p.ask(f)
	if err != nil {
		return err
	}
	got, err := p.readSectors(lba, n)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return fmt.Errorf("%s with a payload: it was written", describe(f))
	case r.failed() || r.status()&statusBad != 0 || !bytes.Equal(r.data(), want):
		return fmt.Errorf("%s with a payload: not answered with the data (%s)", describe(f), describeReply(r))
	}
	return nil
}

func checkExtendedFlag(p *Probe) error {
	want, err := p.readSectors(0, 1)
	if err != nil {
		return err
	}
	for _, f := range []frame{p.ata(ataReadExt, 0, 1).padded(60).set(24, 0), p.ata(ataRead, 0, 1).padded(60).set(24, 0x40)} {
		r, err := p.askATA(f)
		if err != nil {
			return err
		}
		if !bytes.Equal(r.data(), want) {
			return fmt.Errorf("%s, flags %#02x: other data", describe(f), f[24])
		}
	}
	return nil
}

// pattern is n sectors that no other seed makes.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n*512)
	for i := range b {
		b[i] = seed*31 + byte(i/512)*7 + byte(i)
	}
	return b
}
