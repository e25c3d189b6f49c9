package conformance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
)

// Probe is what a check works with: three initiators before one volume, and what is known of it.
type Probe struct {
	ctx     context.Context
	wire    *wire
	silence time.Duration
	shelf   uint16
	slot    uint8
	macs    [3]aoe.MAC // the initiators; requests come from the first if not said otherwise
	target  aoe.MAC    // that the volume answers from
	mtu     int        // of our port

	sectorCount int    // sectors a command, as the volume says
	sectors     uint64 // size of the volume; 0 if IDENTIFY failed
	identify    []byte // 512 bytes; nil if it failed
	listener    int    // index of an initiator that the volume answers, for silence

	saved      *saved
	cannotSave error
	stuck      error // why no further check makes sense
}

// discover finds the volume and asks what it is.
func (p *Probe) discover() error {
	r, err := p.ask(p.config(configRead, nil).to(aoe.Broadcast).padded(60))
	if errors.Is(err, errNoAnswer) {
		return fmt.Errorf("e%d.%d: %w", p.shelf, p.slot, initiator.ErrTimeout)
	}
	if err != nil {
		return err
	}
	p.target = aoe.MAC(r[6:])
	p.sectorCount = max(int(r.u8(28)), 1)
	r, err = p.askATA(p.ata(ataIdentify, 0, 1).padded(60))
	if err == nil && len(r.data()) >= 512 {
		p.identify = slices.Clone(r.data()[:512])
		p.sectors = binary.LittleEndian.Uint64(p.identify[200:]) & (1<<48 - 1)
		if p.word(83)&(1<<10) == 0 {
			p.sectors = uint64(binary.LittleEndian.Uint32(p.identify[120:]))
		}
	}
	if p.ctx.Err() != nil {
		return errInterrupted
	}
	return nil // IDENTIFY has checks of its own
}

// word is a word of the IDENTIFY block.
func (p *Probe) word(n int) uint16 { return binary.LittleEndian.Uint16(p.identify[2*n:]) }

// ours says whether an answer comes from the volume, not from another one that a wildcard reached.
func (p *Probe) ours(f []byte) bool {
	return reply(f).shelf() == p.shelf && reply(f).slot() == p.slot || aoe.MAC(f[6:]) == p.target
}

// ask wants an answer, of any content.
func (p *Probe) ask(f frame) (reply, error) {
	a, err := p.wire.ask(p.ctx, f, p.ours, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", describe(f), err)
	}
	return a, nil
}

// askOK wants an answer without the E flag.
func (p *Probe) askOK(f frame) (reply, error) {
	r, err := p.ask(f)
	if err == nil && r.failed() {
		return r, fmt.Errorf("%s: AoE error %d", describe(f), r.code())
	}
	return r, err
}

// askATA wants an ATA command to succeed.
func (p *Probe) askATA(f frame) (reply, error) {
	r, err := p.askOK(f)
	switch {
	case err != nil:
		return r, err
	case len(r) < 36:
		return r, fmt.Errorf("%s: the answer has %d bytes, not even the ATA registers", describe(f), len(r))
	case r.status()&statusBad != 0:
		return r, fmt.Errorf("%s: ATA status %#02x, error register %#02x", describe(f), r.status(), r.errReg())
	}
	return r, nil
}

// refused wants an AoE error, one of some codes.
func (p *Probe) refused(f frame, codes ...uint8) (reply, error) {
	r, err := p.ask(f)
	switch {
	case err != nil:
		return r, err
	case !r.failed():
		return r, fmt.Errorf("%s: answered without an AoE error, want error %d", describe(f), codes[0])
	case !slices.Contains(codes, r.code()):
		return r, fmt.Errorf("%s: AoE error %d, want %d", describe(f), r.code(), codes[0])
	}
	return r, nil
}

// aborted wants an ATA error, with a bit in the error register.
func (p *Probe) aborted(f frame, bit uint8) (reply, error) {
	r, err := p.askOK(f)
	switch {
	case err != nil:
		return r, err
	case r.status()&1 == 0:
		return r, fmt.Errorf("%s: ATA status %#02x without ERR", describe(f), r.status())
	case r.errReg()&bit == 0:
		return r, fmt.Errorf("%s: error register %#02x, want %#02x", describe(f), r.errReg(), bit)
	}
	return r, nil
}

// burst sends frames once, one right after the other, and returns all answers to them. It ends when the volume has answered
// something asked later and then kept silent for a while.
func (p *Probe) burst(frames ...frame) ([]reply, error) {
	var got []reply
	collect := func(f []byte) {
		if !p.ours(f) {
			return
		}
		for _, req := range frames {
			if isAnswer(req, f) {
				got = append(got, slices.Clone(f))
				return
			}
		}
	}
	for _, f := range frames {
		if err := p.wire.send(f); err != nil {
			return nil, err
		}
	}
	after := p.config(configRead, nil).from(p.macs[p.listener]).padded(60)
	_, err := p.wire.ask(p.ctx, after, p.ours, collect)
	if err != nil {
		return nil, fmt.Errorf("config read after %s: %w", describe(frames[0]), err)
	}
	err = p.wire.collect(p.ctx, p.silence, func(f []byte) bool { collect(f); return false })
	return got, err
}

// once sends a frame once and returns the answer, nil for silence.
func (p *Probe) once(f frame) (reply, error) {
	got, err := p.burst(f)
	if err != nil || len(got) == 0 {
		return nil, err
	}
	return got[0], nil
}

// silent wants no answer to any of the frames.
func (p *Probe) silent(frames ...frame) error {
	got, err := p.burst(frames...)
	if err != nil || len(got) == 0 {
		return err
	}
	for _, f := range frames {
		if isAnswer(f, got[0]) {
			return fmt.Errorf("%s: answered (%s), want silence", describe(f), describeReply(got[0]))
		}
	}
	return nil
}

// describe names a request for people.
func describe(f frame) string {
	if len(f) < 24 {
		return fmt.Sprintf("frame of %d bytes", len(f))
	}
	u8 := func(at int) uint8 { return reply(f).u8(at) }
	what := ""
	switch f[19] {
	case 0:
		lba := uint64(u8(28)) | uint64(u8(29))<<8 | uint64(u8(30))<<16 | uint64(u8(31))<<24 | uint64(u8(32))<<32 | uint64(u8(33))<<40
		what = fmt.Sprintf("ATA %#02x, count %d, LBA bytes %#x", u8(27), u8(26), lba)
	case 1:
		names := []string{"read", "test", "prefix", "set", "force set"}
		what = fmt.Sprintf("config command %d", u8(29)&15)
		if n := int(u8(29) & 15); n < len(names) {
			what = "config " + names[n]
		}
		what += fmt.Sprintf(", length %d", int(u8(30))<<8|int(u8(31)))
	case 2:
		what = fmt.Sprintf("mask command %d, %d directives", u8(25), u8(27))
	case 3:
		what = fmt.Sprintf("reserve command %d, %d MACs", u8(24), u8(25))
	default:
		what = fmt.Sprintf("command %#02x", f[19])
	}
	if f[18] == 0xFF || f[16] == 0xFF && f[17] == 0xFF {
		what += ", wildcard"
	}
	return fmt.Sprintf("%s (%d bytes)", what, len(f))
}

func describeReply(r reply) string {
	switch {
	case r.failed():
		return fmt.Sprintf("AoE error %d", r.code())
	case r[19] == 0:
		return fmt.Sprintf("ATA status %#02x", r.status())
	}
	return fmt.Sprintf("%d bytes", len(r))
}
