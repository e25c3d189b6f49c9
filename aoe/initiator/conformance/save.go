package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
)

// extent is a copy of some sectors of the volume.
type extent struct {
	lba  uint64
	data []byte
}

// saved is what was on the volume before the destructive checks.
type saved struct {
	config   []byte
	mask     []aoe.MAC
	reserved []aoe.MAC
	scratch  extent // where checks write; below 2^28, so that both kinds of commands reach it
	end      extent // the last sectors, which a write beyond the end must leave alone
}

// endSectors is how many of the last sectors are saved.
const endSectors = 8

// restoreTimeout is how long putting things back may take after the caller has given up.
const restoreTimeout = 30 * time.Second

// scratchSectors is how many sectors checks write: some commands of the greatest size, with neighbours.
func (p *Probe) scratchSectors() int { return max(64, 2*p.sectorCount+16) }

// save reads what the destructive checks change.
func (p *Probe) save() (*saved, error) {
	n := uint64(p.scratchSectors())
	if p.sectors < n+endSectors {
		return nil, fmt.Errorf("the volume has %d sectors, the checks need %d", p.sectors, n+endSectors)
	}
	s := &saved{scratch: extent{lba: (min(p.sectors, 1<<28) - n) &^ 7}, end: extent{lba: p.sectors - endSectors}}
	r, err := p.askOK(p.config(configRead, nil).padded(60))
	if err != nil {
		return nil, err
	}
	text, ok := r.text()
	if !ok {
		return nil, errors.New("the answer to config read is malformed")
	}
	s.config = slices.Clone(text)
	if s.mask, err = p.readMask(0); err != nil {
		return nil, err
	}
	if len(s.mask) > p.maskFrame() {
		return nil, fmt.Errorf("a mask of %d MACs needs larger frames to be put back", len(s.mask))
	}
	if s.reserved, err = p.readReserved(0); err != nil {
		return nil, err
	}
	if s.scratch.data, err = p.readSectors(s.scratch.lba, int(n)); err != nil {
		return nil, err
	}
	if s.end.data, err = p.readSectors(s.end.lba, endSectors); err != nil {
		return nil, err
	}
	return s, nil
}

// readMask returns the mask list as one of the initiators is told it.
func (p *Probe) readMask(who int) ([]aoe.MAC, error) {
	f := p.maskRead().from(p.macs[who]).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return nil, err
	}
	list, ok := r.mask()
	if !ok {
		return nil, fmt.Errorf("%s: a list of %d MACs in an answer of %d bytes", describe(f), r.u8(27), len(r))
	}
	return list, nil
}

// readReserved returns the reservation as one of the initiators is told it.
func (p *Probe) readReserved(who int) ([]aoe.MAC, error) {
	f := p.reserve(0).from(p.macs[who]).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return nil, err
	}
	list, ok := r.reserved()
	if !ok {
		return nil, fmt.Errorf("%s: a list of %d MACs in an answer of %d bytes", describe(f), r.u8(25), len(r))
	}
	return list, nil
}

// readConfig returns the config string.
func (p *Probe) readConfig() ([]byte, error) {
	f := p.config(configRead, nil).padded(60)
	r, err := p.askOK(f)
	if err != nil {
		return nil, err
	}
	text, ok := r.text()
	if !ok {
		return nil, fmt.Errorf("%s: the answer of %d bytes is too short for its string", describe(f), len(r))
	}
	return text, nil
}

// readSectors reads with commands that a frame of ours can answer.
func (p *Probe) readSectors(lba uint64, n int) ([]byte, error) {
	var out []byte
	for n > 0 {
		k := min(n, p.perFrame())
		f := p.ata(p.readCommand(), lba, k).padded(60)
		r, err := p.askATA(f)
		if err != nil {
			return nil, err
		}
		if len(r.data()) < k*512 {
			return nil, fmt.Errorf("%s: %d bytes of data, want %d", describe(f), len(r.data()), k*512)
		}
		out = append(out, r.data()[:k*512]...)
		lba, n = lba+uint64(k), n-k
	}
	return out, nil
}

// writeSectors writes whole sectors.
func (p *Probe) writeSectors(lba uint64, data []byte) error {
	for len(data) > 0 {
		k := min(len(data)/512, p.perFrame())
		if _, err := p.askATA(p.ata(p.writeCommand(), lba, k, data[:k*512]...)); err != nil {
			return err
		}
		lba, data = lba+uint64(k), data[k*512:]
	}
	return nil
}

// perFrame is how many sectors fit a command and a frame.
func (p *Probe) perFrame() int { return max(1, min(p.sectorCount, (p.mtu-36)/512)) }

func (p *Probe) lba48() bool { return p.identify != nil && p.word(83)&(1<<10) != 0 }

func (p *Probe) readCommand() uint8 {
	if p.lba48() {
		return ataReadExt
	}
	return ataRead
}

func (p *Probe) writeCommand() uint8 {
	if p.lba48() {
		return ataWriteExt
	}
	return ataWrite
}

// clean takes config string, mask and reservation away.
func (p *Probe) clean() error { return p.putBack(&saved{}) }

// putBack brings mask, reservation and config string to what s says; the mask last, since it may exclude us.
func (p *Probe) putBack(s *saved) error {
	who := p.listener
	p.listener = 0
	mask, err := p.readMask(who)
	for i := 0; i < len(p.macs) && errors.Is(err, errNoAnswer); i++ { // shut out: somebody else may not be
		if i != who {
			if mask, err = p.readMask(i); err == nil {
				who = i
			}
		}
	}
	if err != nil {
		return err
	}
	if len(mask) > 0 {
		if err := p.editMask(who, mask, nil); err != nil {
			return err
		}
	}
	reserved, err := p.readReserved(0)
	if err != nil {
		return err
	}
	if !slices.Equal(reserved, s.reserved) {
		if _, err := p.askOK(p.reserve(2, s.reserved...).padded(60)); err != nil {
			return err
		}
	}
	config, err := p.readConfig()
	if err != nil {
		return err
	}
	if !bytes.Equal(config, s.config) {
		if _, err := p.askOK(p.config(configForce, s.config).padded(60)); err != nil {
			return err
		}
	}
	if len(s.mask) > 0 {
		return p.editMask(0, nil, s.mask)
	}
	return nil
}

// editMask takes MACs off the list and adds others, as many a frame as fit.
func (p *Probe) editMask(who int, remove, add []aoe.MAC) error {
	var list []directive
	for _, m := range remove {
		if m != p.macs[who] {
			list = append(list, directive{2, m})
		}
	}
	if slices.Contains(remove, p.macs[who]) { // last: what follows would not be heard
		list = append(list, directive{2, p.macs[who]})
	}
	for _, m := range add {
		list = append(list, directive{1, m})
	}
	for part := range slices.Chunk(list, p.maskFrame()) {
		f := p.maskEdit(part...).from(p.macs[who]).padded(60)
		r, err := p.askOK(f)
		if err != nil {
			return err
		}
		if r.u8(26) != 0 {
			return fmt.Errorf("%s: mask error %d at directive %d", describe(f), r.u8(26), r.u8(27))
		}
	}
	return nil
}

// maskFrame is how many directives fit a frame.
func (p *Probe) maskFrame() int { return min(255, (p.mtu+14-28)/8) }

// restore puts back what was saved, also when the caller's context has ended. It tries only once if the volume is silent.
func (p *Probe) restore(ended error) error {
	if errors.Is(ended, initiator.ErrTimeout) || errors.Is(ended, errNoAnswer) {
		if err := p.alive(); err != nil {
			return p.notRestored(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), restoreTimeout)
	defer cancel()
	p.ctx = ctx
	err := p.clean()
	for _, e := range []extent{p.saved.scratch, p.saved.end} {
		if err == nil {
			err = p.writeSectors(e.lba, e.data)
		}
	}
	if err == nil {
		err = p.putBack(p.saved)
	}
	return p.notRestored(err)
}

// notRestored says what people have to put back themselves.
func (p *Probe) notRestored(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("conformance: e%d.%d is not as it was before: config string %q, mask %v, reservation %v, sectors %d to %d: %w", p.shelf, p.slot,
		p.saved.config, p.saved.mask, p.saved.reserved, p.saved.scratch.lba, p.sectors-1, err)
}
