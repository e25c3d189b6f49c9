package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// writeChecks are about writes. All of them are destructive.
var writeChecks = []Check{
	{Name: "write/48", Source: "AoEr11 3.1; ATA: WRITE SECTORS EXT; Linux aoecmd.c", Destructive: true,
		Breaks: "Linux cannot write", Run: func(p *Probe) error { return p.checkWrite(ataWriteExt, 0) }},
	{Name: "write/28", Source: "AoEr11 3.1; ATA: WRITE SECTORS", Destructive: true,
		Breaks: "old initiators cannot write", Run: func(p *Probe) error { return p.checkWrite(ataWrite, 0) }},
	{Name: "write/async", Source: "AoEr11 3.1: A flag", Destructive: true,
		Breaks: "an initiator that allows a late write is refused, or reads old data", Run: func(p *Probe) error {
			return p.checkWrite(p.writeCommand(), 0x02)
		}},
	{Name: "write/counts", Source: "AoEr11 3.1, 3.2: Sector Count", Destructive: true,
		Breaks: "data is lost, or that of neighbours is", Run: checkWriteCounts},
	{Name: "write/28-top-nibble", Source: "trap 12", Destructive: true,
		Breaks: "old initiators overwrite another place", Run: checkWriteTopNibble},
	{Name: "write/beyond", Source: "ATA: IDNF; AoEr11 3.1", Destructive: true,
		Breaks: "a write of nowhere is believed, or lands elsewhere", Run: checkWriteBeyond},
	{Name: "write/short", Source: "facts 1.3: AoE error 2; VSX writes stale bytes", Destructive: true,
		Breaks: "bytes that nobody sent are on the disk", Run: checkWriteShort},
	{Name: "write/none", Source: "facts 1.3", Destructive: true, Choice: true,
		Breaks: "nobody: no initiator sends it", Run: func(p *Probe) error {
			return p.untouched(func() error { return p.checkNone(p.writeCommand()) })
		}},
	{Name: "write/too-many", Source: "AoEr11 3.2: Sector Count", Destructive: true,
		Breaks: "a write is believed that the target cut short", Run: checkWriteTooMany},
	{Name: "write/trailing", Source: "facts M11: trailing bytes", Destructive: true,
		Breaks: "the padding of a frame overwrites the neighbours", Run: checkWriteTrailing},
	{Name: "write/flag-missing", Source: "facts 1.3: the command byte alone decides", Destructive: true, Choice: true,
		Breaks: "nobody: all initiators set W on writes", Run: checkWriteWithoutFlag},
	{Name: "write/duplicate", Source: "AoEr11 1.1; iPXE and WinAoE retransmit under the same tag", Destructive: true,
		Breaks: "iPXE hangs after one lost answer", Run: checkWriteDuplicate},
	{Name: "write/order", Source: "facts M8b, M9: arrival order", Destructive: true,
		Breaks: "an older write overwrites a newer one", Run: checkWriteOrder},
	{Name: "write/read-own", Source: "facts 2.2: no cache is declared", Destructive: true,
		Breaks: "another host, or the same by another path, reads old data", Run: checkWriteSeenByOthers},
	{Name: "write/wildcard", Source: "facts 1.2; vblade and VSX execute it", Destructive: true, Choice: true,
		Breaks: "nobody: no initiator writes to all volumes at once", Run: func(p *Probe) error {
			if err := p.alone(); err != nil {
				return err
			}
			return p.untouched(func() error {
				return p.silent(p.ata(p.writeCommand(), p.saved.scratch.lba, 1, pattern(9, 1)...).at(0xFFFF, p.slot))
			})
		}},
}

// alone skips a check of wildcard commands with an effect if another volume behind the same MAC would obey them too: these
// checks name the slot, leave the shelf open and go to the volume's MAC.
func (p *Probe) alone() error {
	got, err := p.burst(p.config(configRead, nil).at(0xFFFF, p.slot).padded(60))
	if err != nil {
		return err
	}
	for _, r := range got {
		if r.shelf() != p.shelf || r.slot() != p.slot {
			return skipped(fmt.Sprintf("e%d.%d answers from the same MAC and might take harm", r.shelf(), r.slot()))
		}
	}
	return nil
}

// canWrite says whether a frame of ours carries a command of n sectors.
func (p *Probe) canWrite(n int) bool { return 36+n*512 <= p.mtu+14 }

// untouched wants the scratch sectors as they were when try has ended.
func (p *Probe) untouched(try func() error) error {
	lba, n := p.saved.scratch.lba, p.scratchSectors()
	want := pattern(3, n)
	if err := p.writeSectors(lba, want); err != nil {
		return err
	}
	tried := try()
	got, err := p.readSectors(lba, n)
	if err != nil {
		return errors.Join(tried, err)
	}
	if !bytes.Equal(got, want) {
		return errors.Join(fmt.Errorf("sectors were written from %d on", lba+uint64(differ(got, want)/512)), tried)
	}
	return tried
}

// differ returns where two slices of the same length begin to differ.
func differ(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// wantData compares sectors with what should be there.
func (p *Probe) wantData(lba uint64, want []byte) error {
	got, err := p.readSectors(lba, len(want)/512)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("sector %d reads otherwise than it should", lba+uint64(differ(got, want)/512))
	}
	return err
}

func (p *Probe) checkWrite(command, flags uint8) error {
	lba := p.saved.scratch.lba
	for seed := range byte(2) { // the second certainly changes something
		data := pattern(10+seed, 1)
		f := p.ata(command, lba, 1, data...)
		f[24] |= flags
		r, err := p.askATA(f)
		switch {
		case err != nil:
			return err
		case r.status() != 0x40 || r.errReg() != 0:
			return fmt.Errorf("%s: status %#02x, error register %#02x, want 0x40 and 0", describe(f), r.status(), r.errReg())
		}
		if err := p.wantData(lba, data); err != nil {
			return fmt.Errorf("%s: %w", describe(f), err)
		}
	}
	return nil
}

// checkWriteCounts writes commands of all sizes into the midst of other data.
func checkWriteCounts(p *Probe) error {
	lba, n := p.saved.scratch.lba, p.scratchSectors()
	all := pattern(4, n)
	if err := p.writeSectors(lba, all); err != nil {
		return err
	}
	for k := 1; k <= p.perFrame(); k++ {
		at := 1 + k%7
		data := pattern(byte(20+k), k)
		copy(all[at*512:], data)
		if _, err := p.askATA(p.ata(p.writeCommand(), lba+uint64(at), k, data...)); err != nil {
			return err
		}
		if err := p.wantData(lba, all); err != nil {
			return fmt.Errorf("after a write of %d sectors at %d: %w", k, lba+uint64(at), err)
		}
	}
	return nil
}

func checkWriteTopNibble(p *Probe) error {
	lba := p.saved.scratch.lba
	for i, top := range []uint8{0x00, 0xA0, 0xE0, 0xF0} {
		data := pattern(byte(40+i), 1)
		f := p.ata(ataWrite, lba, 1, data...)
		f[31] = f[31]&0x0F | top
		if _, err := p.askATA(f); err != nil {
			return fmt.Errorf("top nibble %#02x: %w", top, err)
		}
		if err := p.wantData(lba, data); err != nil {
			return fmt.Errorf("top nibble %#02x: %w", top, err)
		}
	}
	return nil
}

func checkWriteBeyond(p *Probe) error {
	end := p.saved.end.lba
	before := pattern(5, endSectors)
	if err := p.writeSectors(end, before); err != nil {
		return err
	}
	for _, at := range []struct {
		lba uint64
		n   int
	}{{p.sectors, 1}, {p.sectors - 1, 2}, {1<<48 - 1, 1}, {1<<48 - 1, 2}} {
		if !p.canWrite(at.n) || at.n > p.sectorCount {
			continue
		}
		f := p.ata(p.writeCommand(), at.lba, at.n, pattern(6, at.n)...)
		r, err := p.ask(f)
		if err != nil {
			return err
		}
		if !r.failed() && r.status()&1 == 0 {
			return fmt.Errorf("%s: ATA status %#02x without ERR; the volume ends at %d", describe(f), r.status(), p.sectors)
		}
	}
	return p.wantData(end, before)
}

func checkWriteShort(p *Probe) error {
	return p.untouched(func() error {
		lba := p.saved.scratch.lba
		frames := []frame{p.ata(p.writeCommand(), lba, 1), p.ata(p.writeCommand(), lba, 1, pattern(7, 1)[:511]...)}
		if p.perFrame() >= 2 {
			frames = append(frames, p.ata(p.writeCommand(), lba, 2, pattern(7, 1)...), p.ata(p.writeCommand(), lba, 2, pattern(7, 2)[:1023]...))
		}
		for _, f := range frames {
			r, err := p.once(f)
			if err != nil {
				return err
			}
			if r != nil && !r.failed() && r.status()&1 == 0 {
				return fmt.Errorf("%s: answered with success", describe(f))
			}
		}
		return nil
	})
}

func checkWriteTooMany(p *Probe) error {
	if p.sectorCount >= 255 {
		return skipped("the volume takes any count")
	}
	return p.untouched(func() error {
		n := p.sectorCount + 1
		data := pattern(8, n)
		if !p.canWrite(n) {
			data = data[:p.perFrame()*512]
		}
		f := p.ata(p.writeCommand(), p.saved.scratch.lba, n, data...)
		r, err := p.once(f)
		if err == nil && r != nil && !r.failed() && r.status()&1 == 0 {
			err = fmt.Errorf("%s: answered with success", describe(f))
		}
		return err
	})
}

func checkWriteTrailing(p *Probe) error {
	lba := p.saved.scratch.lba
	want := pattern(11, 8)
	if err := p.writeSectors(lba, want); err != nil {
		return err
	}
	copy(want, pattern(12, 1))
	if _, err := p.askATA(p.ata(p.writeCommand(), lba, 1, want[:512]...).garbage(p.mtu + 14 - 36 - 512)); err != nil {
		return err
	}
	return p.wantData(lba, want)
}

func checkWriteWithoutFlag(p *Probe) error {
	lba, data := p.saved.scratch.lba, pattern(13, 1)
	f := p.ata(p.writeCommand(), lba, 1, data...)
	f[24] &^= 1
	if _, err := p.askATA(f); err != nil {
		return fmt.Errorf("without W: %w", err)
	}
	if err := p.wantData(lba, data); err != nil {
		return fmt.Errorf("without W: answered with success, and %w", err)
	}
	return nil
}

// checkWriteDuplicate sends copies of a write under one tag, at once and after the answer.
func checkWriteDuplicate(p *Probe) error {
	lba, data := p.saved.scratch.lba, pattern(14, 1)
	f := p.ata(p.writeCommand(), lba, 1, data...)
	got, err := p.burst(f, f, f)
	if err != nil {
		return err
	}
	for range 2 {
		again, err := p.ask(f)
		if err != nil {
			return fmt.Errorf("one more copy: %w", err)
		}
		got = append(got, again)
	}
	for _, r := range got {
		if r.failed() || r.status()&statusBad != 0 {
			return fmt.Errorf("%s: a copy was answered with %s", describe(f), describeReply(r))
		}
	}
	return p.wantData(lba, data)
}

// checkWriteOrder lets writes of the same sector follow each other without waiting.
func checkWriteOrder(p *Probe) error {
	lba := p.saved.scratch.lba
	for round := range byte(4) {
		var frames []frame
		var last []byte
		for i := range byte(8) {
			last = pattern(50+round*8+i, 1)
			frames = append(frames, p.ata(p.writeCommand(), lba, 1, last...))
		}
		got, err := p.burst(frames...)
		if err != nil {
			return err
		}
		end := frames[len(frames)-1]
		if !slices.ContainsFunc(got, func(r reply) bool { return isAnswer(end, r) }) { // lost, or slow
			if _, err := p.askATA(end); err != nil {
				return err
			}
		}
		if err := p.wantData(lba, last); err != nil {
			return fmt.Errorf("8 writes of one sector in a row, the last one answered: %w", err)
		}
	}
	return nil
}

func checkWriteSeenByOthers(p *Probe) error {
	lba, data := p.saved.scratch.lba, pattern(15, 1)
	if err := p.writeSectors(lba, data); err != nil {
		return err
	}
	r, err := p.askATA(p.ata(p.readCommand(), lba, 1).from(p.macs[1]).padded(60))
	if err == nil && !bytes.Equal(r.data()[:min(512, len(r.data()))], data) {
		err = errors.New("an answered write is not what another initiator reads")
	}
	return err
}
