package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/link"
)

// fault breaks a good target on the wire, while one check runs.
type fault struct {
	check string
	found string // must be part of what the check says
	mute  bool   // the fault is silence: it is not waited for long

	request func(f []byte) [][]byte      // what the target gets instead of a request
	answer  func(req, a []byte) [][]byte // what the wire gets instead of an answer
}

// bentPort is the target's port with a fault.
type bentPort struct {
	link.Port
	fault  *fault
	active *atomic.Bool
	asked  map[uint32][]byte // requests by tag, as they came
	rest   [][]byte          // what did not fit the last Receive
}

func (p *bentPort) Receive(frames []link.RxFrame) (int, error) {
	if len(p.rest) == 0 {
		n, err := p.Port.Receive(frames)
		if err != nil || n == 0 {
			return n, err
		}
		for _, f := range frames[:n] {
			req := append([]byte(nil), f.Data...)
			if len(req) >= 24 {
				p.asked[binary.BigEndian.Uint32(req[20:])] = append([]byte(nil), req...)
			}
			if p.active.Load() && p.fault.request != nil {
				p.rest = append(p.rest, p.fault.request(req)...)
			} else {
				p.rest = append(p.rest, req)
			}
		}
	}
	n := min(len(p.rest), len(frames))
	for i, f := range p.rest[:n] {
		frames[i] = link.RxFrame{Data: f, Type: aoe.EtherType}
	}
	p.rest = p.rest[n:]
	return n, nil
}

func (p *bentPort) Send(frames []link.TxFrame) (int, error) {
	for i := range frames {
		out := [][]byte{frames[i].Header}
		if req := p.asked[binary.BigEndian.Uint32(frames[i].Header[20:])]; p.active.Load() && p.fault.answer != nil && req != nil {
			out = p.fault.answer(req, frames[i].Header)
		}
		for _, a := range out {
			if _, err := p.Port.Send([]link.TxFrame{{Header: a}}); err != nil {
				return i, err
			}
		}
	}
	return len(frames), nil
}

// TestEachCheckCanFail proves for every check that it notices a target that breaks its rule, and only then.
func TestEachCheckCanFail(t *testing.T) {
	proven := map[string]bool{}
	checks := map[string]Check{}
	for _, c := range All() {
		if _, twice := checks[c.Name]; twice {
			t.Errorf("two checks are called %s", c.Name)
		}
		checks[c.Name] = c
	}
	for _, f := range faults() {
		proven[f.check] = true
		c, ok := checks[f.check]
		if !ok {
			t.Errorf("a fault for %s, which is no check", f.check)
			continue
		}
		t.Run(f.check, func(t *testing.T) {
			t.Parallel()
			r := runBroken(t, c, &f)
			want := Fail
			if c.Choice {
				want = Differs
			}
			if r.Verdict != want || !strings.Contains(r.Found, f.found) {
				t.Errorf("%s: %s; want %s with %q", r.Verdict, r.Found, want, f.found)
			}
		})
	}
	for name := range checks {
		if !proven[name] {
			t.Errorf("nothing shows that %s can fail", name)
		}
	}
}

// runBroken makes one check of a target with a fault, which is there only while the check itself runs.
func runBroken(t *testing.T, c Check, f *fault) Result {
	var active atomic.Bool
	b := newBench(t, 1500, func(p link.Port) link.Port {
		return &bentPort{Port: p, fault: f, active: &active, asked: map[uint32][]byte{}}
	})
	b.target.Corrupt(7) // so that the first sector is like no other
	o := b.options(t)
	run := c.Run
	c.Run = func(p *Probe) error {
		active.Store(true)
		defer active.Store(false)
		if f.mute {
			p.wire.timeout, p.wire.resend = 50*time.Millisecond, 50*time.Millisecond
			defer func() { p.wire.timeout, p.wire.resend = o.Timeout, o.Resend }()
		}
		if strings.HasPrefix(c.Name, "identify/") {
			if err := p.discover(); err != nil {
				return err
			}
		}
		return run(p)
	}
	o.Checks = []Check{c}
	report, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report.Results[0]
}

// The parts of faults.

type match func(f []byte) bool

func command(n byte) match { return func(f []byte) bool { return len(f) >= 24 && f[19] == n } }

func ata(c byte) match {
	return func(f []byte) bool { return len(f) >= 36 && f[19] == 0 && f[27] == c }
}

func ccmd(n byte) match {
	return func(f []byte) bool { return len(f) >= 32 && f[19] == 1 && f[29]&15 == n }
}

func mcmd(n byte) match {
	return func(f []byte) bool { return len(f) >= 28 && f[19] == 2 && f[25] == n }
}

func rcmd(n byte) match {
	return func(f []byte) bool { return len(f) >= 26 && f[19] == 3 && f[24] == n }
}

func wild(f []byte) bool { return len(f) >= 24 && (f[16] == 0xFF && f[17] == 0xFF || f[18] == 0xFF) }

func every(f []byte) bool { return len(f) >= 24 }

func isWrite(f []byte) bool { return ata(0x34)(f) || ata(0x30)(f) }

func (m match) and(n match) match { return func(f []byte) bool { return m(f) && n(f) } }

func (m match) or(n match) match { return func(f []byte) bool { return m(f) || n(f) } }

// again matches what a frame of the same tag has matched before.
func (m match) again() match {
	seen := map[uint32]bool{}
	return func(f []byte) bool {
		if !m(f) {
			return false
		}
		tag := binary.BigEndian.Uint32(f[20:])
		before := seen[tag]
		seen[tag] = true
		return before
	}
}

// fromOthers matches frames that do not come from the first source.
func fromOthers() match {
	var first []byte
	return func(f []byte) bool {
		if len(f) < 24 {
			return false
		}
		if first == nil {
			first = append(first, f[6:12]...)
		}
		return string(first) != string(f[6:12])
	}
}

// rewritten changes requests.
func rewritten(m match, edit func(f []byte) []byte) func([]byte) [][]byte {
	return func(f []byte) [][]byte {
		if m(f) {
			f = edit(f)
		}
		if f == nil {
			return nil
		}
		return [][]byte{f}
	}
}

// deaf loses requests.
func deaf(m match) func([]byte) [][]byte {
	return rewritten(m, func([]byte) []byte { return nil })
}

// before gives the target one more request, whose answer nobody hears.
func before(m match, change func(f []byte) []byte) func([]byte) [][]byte {
	return func(f []byte) [][]byte {
		if !m(f) {
			return [][]byte{f}
		}
		extra := change(bytes.Clone(f))
		copy(extra[20:], []byte{0, 0, 0, 0})
		return [][]byte{extra, f}
	}
}

// instead gives the target another request, whose answer nobody hears.
func instead(m match, change func(f []byte) []byte) func([]byte) [][]byte {
	return rewritten(m, func(f []byte) []byte { return put(20, 0, 21, 0, 22, 0, 23, 0)(change(f)) })
}

// asFirst gives requests the first source.
func asFirst() func([]byte) []byte {
	var first []byte
	return func(f []byte) []byte {
		if first == nil {
			first = bytes.Clone(f[6:12])
		}
		copy(f[6:12], first)
		return f
	}
}

// answered changes the answers to some requests.
func answered(m match, edit func(a []byte) []byte) func(req, a []byte) [][]byte {
	return func(req, a []byte) [][]byte {
		if m(req) {
			a = edit(a)
		}
		return [][]byte{a}
	}
}

// put sets bytes: pairs of offset and value.
func put(pairs ...int) func([]byte) []byte {
	return func(f []byte) []byte {
		for i := 0; i < len(pairs); i += 2 {
			f[pairs[i]] = byte(pairs[i+1])
		}
		return f
	}
}

func cut(n int) func([]byte) []byte { return func(f []byte) []byte { return f[:n] } }

// grown pads with bytes of another frame.
func grown(n int) func([]byte) []byte {
	return func(f []byte) []byte {
		for len(f) < n {
			f = append(f, 'k')
		}
		return f
	}
}

// failing makes an AoE error of an answer.
func failing(code byte) func([]byte) []byte {
	return func(a []byte) []byte {
		a[14] |= 4
		a[15] = code
		return a
	}
}

// named makes a wildcard request one for the volume.
var named = put(16, 0, 17, 7, 18, 1)

// faults are at least one for each check.
func faults() []fault {
	var all []fault
	for _, list := range [][]fault{headerFaults(), configFaults(), identifyFaults(), readFaults(), ataFaults(), writeFaults(), configSetFaults(), maskFaults(), reserveFaults()} {
		all = append(all, list...)
	}
	return all
}

func lbaOf(f []byte) uint64 {
	return uint64(f[28]) | uint64(f[29])<<8 | uint64(f[30])<<16 | uint64(f[31])<<24 | uint64(f[32])<<32 | uint64(f[33])<<40
}

func TestFaultsSayWhatIsFound(t *testing.T) {
	for _, f := range faults() {
		if f.found == "" || f.mute != (f.found == "no answer") {
			t.Errorf("%s: %s", f.check, fmt.Sprintf("found %q, mute %v", f.found, f.mute))
		}
	}
}
