// Package initiatortest has a small AoE target in memory for tests of
// initiators: one volume, the four commands of the protocol, and faults on
// demand. It is deliberately naive and shares no code with the real target, so
// that a common misreading of the protocol does not hide; with Real it decides by
// the real one instead.
package initiatortest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"clade/aoe"
	"clade/aoe/link"
)

// Target is one volume. The exported fields are set before Start.
type Target struct {
	Port        link.Port
	MAC         aoe.MAC // the serving MAC
	Shelf       uint16
	Slot        uint8
	Sectors     uint64
	BufferCount uint16
	SectorCount uint8
	// Fault is asked for each request and, with answer set, for each answer:
	// how often to treat it. 0 loses it, 1 is normal, 2 duplicates it. It is
	// called by one goroutine.
	Fault func(frame []byte, answer bool) int

	// Real decides with aoe.Target instead of the naive reading here.
	Real bool

	mu       sync.Mutex
	real     aoe.Target
	disk     []byte
	config   []byte
	mask     []aoe.MAC
	reserved []aoe.MAC
	answers  map[string][]byte // control requests by source, tag and body
	truth    map[string]string // the state that they left, for Real
	requests int
	poller   *link.Poller
	stop     bool
	done     sync.WaitGroup
}

// Start serves until Stop.
func (t *Target) Start() error {
	t.disk = make([]byte, t.Sectors*512)
	t.answers = make(map[string][]byte)
	t.truth = make(map[string]string)
	t.real.Identity = aoe.Identity{Shelf: t.Shelf, Slot: t.Slot, Sectors: t.Sectors, Serial: "serial-1", Model: "initiatortest",
		Firmware: "1.0", BufCount: t.BufferCount, FirmwareWord: 1, SectorCount: t.SectorCount}
	if t.Fault == nil {
		t.Fault = func([]byte, bool) int { return 1 }
	}
	if err := t.Port.Join(t.MAC); err != nil {
		return err
	}
	poller, err := link.NewPoller(t.Port)
	if err != nil {
		return err
	}
	t.poller = poller
	t.done.Add(1)
	go t.loop()
	return nil
}

// Stop ends the goroutine; the Port stays open. Stopping again does nothing.
func (t *Target) Stop() {
	t.mu.Lock()
	stopped := t.stop
	t.stop = true
	t.mu.Unlock()
	if stopped {
		return
	}
	t.poller.Wake()
	t.done.Wait()
	t.poller.Close()
}

// Disk returns a copy of the volume's contents.
func (t *Target) Disk() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.disk)
}

// Corrupt changes a byte of the volume behind everybody's back.
func (t *Target) Corrupt(at int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disk[at] ^= 0xff
}

// Requests is how many requests arrived, duplicates included.
func (t *Target) Requests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests
}

func (t *Target) loop() {
	defer t.done.Done()
	frames := make([]link.RxFrame, 64)
	for {
		t.mu.Lock()
		stop := t.stop
		t.mu.Unlock()
		if stop {
			return
		}
		n, _ := t.Port.Receive(frames)
		for i := range frames[:n] {
			t.take(frames[i].Data)
		}
		if n == 0 {
			_, _ = t.poller.Wait(100e6)
		}
	}
}

func (t *Target) take(req []byte) {
	dst := aoe.MAC(req[:6])
	if len(req) < 24 || req[14]&8 != 0 || dst != t.MAC && dst != (aoe.MAC{255, 255, 255, 255, 255, 255}) {
		return
	}
	shelf := binary.BigEndian.Uint16(req[16:])
	if shelf != t.Shelf && shelf != 0xFFFF || req[18] != t.Slot && req[18] != 0xFF {
		return
	}
	for n := t.Fault(req, false); n > 0; n-- {
		t.mu.Lock()
		t.requests++
		handle := t.handle
		if t.Real {
			handle = t.handleReal
		}
		answer := handle(req)
		t.mu.Unlock()
		if answer == nil {
			continue
		}
		for len(answer) < 60 {
			answer = append(answer, 0)
		}
		for k := t.Fault(answer, true); k > 0; k-- {
			_, _ = t.Port.Send([]link.TxFrame{{Header: answer}})
		}
	}
}

// handle executes a request and returns the answer, nil for silence.
func (t *Target) handle(req []byte) []byte {
	src := aoe.MAC(req[6:12])
	if len(t.mask) > 0 && !slices.Contains(t.mask, src) {
		return nil
	}
	head := slices.Clone(req[:24])
	copy(head, src[:])
	copy(head[6:], t.MAC[:])
	head[14] |= 8
	binary.BigEndian.PutUint16(head[16:], t.Shelf)
	head[18] = t.Slot
	body := req[24:]
	switch req[19] {
	case 0:
		return t.ata(head, src, body)
	case 1:
		if len(body) < 8 || body[5]&15 == 0 { // a read; nothing to remember
			return t.queryConfig(head, []byte{0, 0, 0, 0, 0, 0x10, 0, 0})
		}
	case 2, 3:
	default:
		return fail(head, 1, body)
	}
	key := string(src[:]) + string(req[19:])
	if known, ok := t.answers[key]; ok {
		return slices.Clone(known)
	}
	var answer []byte
	switch req[19] {
	case 1:
		answer = t.queryConfig(head, body)
	case 2:
		answer = t.macMask(head, body)
	case 3:
		answer = t.reserve(head, src, body)
	}
	if answer != nil {
		t.answers[key] = slices.Clone(answer)
	}
	return answer
}

func fail(head []byte, code byte, body []byte) []byte {
	head[14] |= 4
	head[15] = code
	return append(head, body...)
}

func (t *Target) ata(head []byte, src aoe.MAC, body []byte) []byte {
	if len(body) < 12 {
		return nil
	}
	count, command := uint64(body[2]), body[3]
	regs := slices.Clone(body[:12])
	regs[1], regs[3] = 0, 0x40
	if command != 0xEC && len(t.reserved) > 0 && !slices.Contains(t.reserved, src) {
		return fail(head, 6, body[:12])
	}
	var l [8]byte
	copy(l[:6], body[4:10])
	lba := binary.LittleEndian.Uint64(l[:])
	switch command {
	case 0xEC:
		return append(append(head, regs...), t.identity()...)
	case 0xE7, 0xEA:
		return append(head, regs...)
	case 0x24, 0x34:
		if lba+count > t.Sectors {
			regs[1], regs[3] = 0x10, 0x41
			return append(head, regs...)
		}
		at := t.disk[lba*512:][:count*512]
		if command == 0x34 {
			if len(body) < 12+len(at) {
				return fail(head, 2, body[:12])
			}
			copy(at, body[12:])
			return append(head, regs...)
		}
		return append(append(head, regs...), at...)
	}
	regs[1], regs[3] = 0x04, 0x41
	return append(head, regs...)
}

func (t *Target) identity() []byte {
	id := make([]byte, 512)
	put := func(at, n int, s string) {
		for i := 0; i < n; i++ {
			c := byte(' ')
			if i < len(s) {
				c = s[i]
			}
			id[at+(i^1)] = c
		}
	}
	put(20, 20, "serial-1")
	put(46, 8, "1.0")
	put(54, 40, "initiatortest")
	binary.LittleEndian.PutUint16(id[166:], 0x5400)
	binary.LittleEndian.PutUint64(id[200:], t.Sectors)
	return id
}

func (t *Target) queryConfig(head, body []byte) []byte {
	n := int(binary.BigEndian.Uint16(body[6:]))
	if n > len(body)-8 {
		return nil
	}
	text := body[8 : 8+n]
	code := byte(0)
	switch body[5] & 15 {
	case 0:
	case 1:
		if !bytes.Equal(text, t.config) {
			return nil
		}
	case 2:
		if !bytes.HasPrefix(t.config, text) {
			return nil
		}
	case 3:
		if len(t.config) > 0 && !bytes.Equal(text, t.config) {
			code = 4
			break
		}
		t.config = bytes.Clone(text)
	case 4:
		t.config = bytes.Clone(text)
	default:
		return fail(head, 2, body)
	}
	answer := binary.BigEndian.AppendUint16(nil, t.BufferCount)
	answer = append(answer, 0, 1, t.SectorCount, 0x10|body[5]&15)
	answer = binary.BigEndian.AppendUint16(answer, uint16(len(t.config)))
	answer = append(answer, t.config...)
	if code != 0 {
		return fail(head, code, answer)
	}
	return append(head, answer...)
}

func (t *Target) macMask(head, body []byte) []byte {
	if len(body) < 4 || len(body) < 4+8*int(body[3]) {
		return nil
	}
	if body[1] == 1 {
		for i := 0; i < int(body[3]); i++ {
			d := body[4+8*i:]
			mac := aoe.MAC(d[2:8])
			t.mask = slices.DeleteFunc(t.mask, func(m aoe.MAC) bool { return m == mac })
			if d[1] == 1 {
				t.mask = append(t.mask, mac)
			}
		}
	}
	answer := append(head, 0, body[1], 0, byte(len(t.mask)))
	for _, m := range t.mask {
		answer = append(append(answer, 0, 0), m[:]...)
	}
	return answer
}

func (t *Target) reserve(head []byte, src aoe.MAC, body []byte) []byte {
	if len(body) < 2 || len(body) < 2+6*int(body[1]) {
		return nil
	}
	code := byte(0)
	switch {
	case body[0] == 1 && len(t.reserved) > 0 && !slices.Contains(t.reserved, src):
		code = 6
	case body[0] == 1 || body[0] == 2:
		t.reserved = nil
		for i := 0; i < int(body[1]); i++ {
			t.reserved = append(t.reserved, aoe.MAC(body[2+6*i:][:6]))
		}
	}
	answer := []byte{body[0], byte(len(t.reserved))}
	for _, m := range t.reserved {
		answer = append(answer, m[:]...)
	}
	if code != 0 {
		return fail(head, code, answer)
	}
	return append(head, answer...)
}
