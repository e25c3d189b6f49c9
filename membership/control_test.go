package membership

import (
	"errors"
	"testing"

	"clade/aoe"
	"clade/raid"
)

var (
	macX = aoe.MAC{2, 0, 0, 0, 0, 1}
	macY = aoe.MAC{2, 0, 0, 0, 0, 2}
)

func setReq(kind aoe.ControlKind, src aoe.MAC, tag byte, config string) aoe.ControlRequest {
	return aoe.ControlRequest{Kind: kind, Src: src, Tag: [4]byte{tag}, Digest: [16]byte{byte(kind), byte(len(config)), append([]byte(config), 0)[0]}, Config: []byte(config)}
}

func reserveReq(kind aoe.ControlKind, src aoe.MAC, tag byte, macs ...aoe.MAC) aoe.ControlRequest {
	d := [16]byte{byte(kind), byte(len(macs))}
	for _, m := range macs {
		d[2] ^= m[5]
	}
	return aoe.ControlRequest{Kind: kind, Src: src, Tag: [4]byte{tag}, Digest: d, MACs: macs}
}

// control applies a request at the owner and returns "won", "lost" or "silent".
func (m *machine) control(req aoe.ControlRequest) string {
	m.t.Helper()
	v := m.s.Volume(1).Data
	r := m.must(v.Owner, &Control{Vol: 1, Epoch: v.Epoch, Req: req})
	switch {
	case r.Control.Silent:
		return "silent"
	case r.Control.Result.OK():
		return "won"
	}
	return "lost"
}

func (m *machine) config() string { return string(m.s.Volume(1).Control.Config) }

// pass lets s seconds of log time pass.
func (m *machine) pass(seconds int64) {
	for range seconds/10 + 1 {
		m.clock += 10_000
		m.must(1, &SetDraining{Node: 3})
	}
}

func TestSetIfEmptyHasOneWinner(t *testing.T) {
	const set, force = aoe.ControlConfigSet, aoe.ControlConfigForce
	type step struct {
		req  aoe.ControlRequest
		want string
	}
	for name, steps := range map[string][]step{
		"two contenders": {
			{setReq(set, macX, 7, "X"), "won"}, {setReq(set, macY, 7, "Y"), "lost"},
			{setReq(set, macX, 7, "X"), "won"}, {setReq(set, macY, 7, "Y"), "lost"},
		},
		"a winner that was replaced is not told again that it won": {
			{setReq(set, macX, 7, "X"), "won"}, {setReq(force, macY, 1, ""), "won"}, {setReq(set, macY, 2, "Y"), "won"},
			{setReq(set, macX, 7, "X"), "lost"}, {setReq(set, macY, 2, "Y"), "won"},
		},
		"a late copy of a losing request does not win after a clear": {
			{setReq(set, macX, 7, "X"), "won"}, {setReq(set, macY, 7, "Y"), "lost"}, {setReq(force, macX, 9, ""), "won"},
			{setReq(set, macY, 7, "Y"), "lost"},
		},
		"a winner's copy after a clear is met with silence": {
			{setReq(set, macX, 7, "X"), "won"}, {setReq(force, macY, 9, ""), "won"}, {setReq(set, macX, 7, "X"), "silent"},
		},
		"a late copy of a forced set does not undo what came after it": {
			{setReq(force, macX, 7, "X"), "won"}, {setReq(force, macX, 7, "X"), "won"}, {setReq(force, macY, 8, "Y"), "won"}, {setReq(force, macX, 7, "X"), "silent"},
		},
		"an operator is told how his request ended, whatever came after it": {
			{setReq(force, aoe.MAC{}, 7, "X"), "won"}, {setReq(force, macY, 8, "Y"), "won"}, {setReq(force, aoe.MAC{}, 7, "X"), "won"},
			{setReq(set, macX, 9, "X"), "lost"},
		},
		"another tag is another request": {
			{setReq(set, macX, 7, "X"), "won"}, {setReq(force, macY, 9, ""), "won"}, {setReq(set, macX, 8, "X"), "won"},
		},
	} {
		m := served(t)
		for i, s := range steps {
			before := m.config()
			if got := m.control(s.req); got != s.want {
				t.Errorf("%s, step %d: %s, want %s (string %q)", name, i, got, s.want, m.config())
			}
			if s.want != "won" && m.config() != before {
				t.Errorf("%s, step %d: string %q became %q", name, i, before, m.config())
			}
		}
	}
}

func TestReservationsAndMasksAreExecutedOnce(t *testing.T) {
	const set, force = aoe.ControlReserveSet, aoe.ControlReserveForce
	m := served(t)
	for i, s := range []struct {
		req  aoe.ControlRequest
		want string
	}{
		{reserveReq(set, macX, 1, macX), "won"},
		{reserveReq(set, macY, 1, macY), "lost"},
		{reserveReq(set, macX, 1, macX), "won"},
		{reserveReq(force, macY, 2, macY), "won"},
		{reserveReq(set, macX, 1, macX), "lost"},
		{reserveReq(force, macY, 2, macY), "won"},
		{reserveReq(set, macY, 3), "won"}, // release
		{reserveReq(force, macY, 2, macY), "silent"},
		{reserveReq(set, macX, 1, macX), "silent"},
	} {
		if got := m.control(s.req); got != s.want {
			t.Errorf("step %d: %s, want %s (%v)", i, got, s.want, m.s.Volume(1).Control.Reserved)
		}
	}
	add := aoe.ControlRequest{Kind: aoe.ControlMaskEdit, Src: macX, Tag: [4]byte{9}, Directives: []aoe.Directive{{Command: aoe.MaskAdd, MAC: macX}}}
	del := aoe.ControlRequest{Kind: aoe.ControlMaskEdit, Src: macX, Tag: [4]byte{10}, Directives: []aoe.Directive{{Command: aoe.MaskDelete, MAC: macX}}}
	for i, s := range []struct {
		req  aoe.ControlRequest
		want string
	}{{add, "won"}, {add, "won"}, {del, "won"}, {add, "silent"}} {
		if got := m.control(s.req); got != s.want {
			t.Errorf("mask step %d: %s, want %s", i, got, s.want)
		}
	}
}

func TestTheTableOutlivesTheOwnerAndForgetsAfterAMinute(t *testing.T) {
	m := served(t)
	m.control(setReq(aoe.ControlConfigSet, macX, 7, "X"))
	m.control(setReq(aoe.ControlConfigForce, macX, 8, ""))
	old := m.s.Volume(1).Control
	m.must(2, &NodeDead{Node: 1, Term: 1})
	m.must(2, &Takeover{Vol: 1, Epoch: 1, Next: 2, Node: 2, Term: 1})
	req := setReq(aoe.ControlConfigSet, macX, 7, "X")
	if r := m.apply(1, &Control{Vol: 1, Epoch: 1, Req: req}); !errors.Is(r.Err, raid.ErrEpoch) {
		t.Errorf("the former owner: %v", r.Err)
	}
	if r := m.apply(2, &Control{Vol: 1, Epoch: 2, Req: req}); !errors.Is(r.Err, raid.ErrNotActive) {
		t.Errorf("before Activate: %v", r.Err)
	}
	m.must(2, volCmd(raid.VolumeCommand{Kind: raid.CmdActivate, Vol: 1, Epoch: 2, Ver: 3, F: raid.NewDiskSet(1, 2, 3)}))
	if r := m.apply(3, &Control{Vol: 1, Epoch: 2, Req: req}); !errors.Is(r.Err, ErrNotOwner) {
		t.Errorf("another node: %v", r.Err)
	}
	if got := m.control(req); got != "silent" {
		t.Errorf("at the next owner: %s, want silent", got)
	}
	m.must(3, &NodeBoot{Node: 1, Term: 2, Info: testInfo(1)})
	m.pass(50)
	if got := m.control(req); got != "silent" {
		t.Errorf("50 s later: %s, want silent", got)
	}
	m.pass(50)
	if got := m.control(req); got != "won" || m.config() != "X" {
		t.Errorf("100 s later: %s %q, want a new request that wins", got, m.config())
	}
	if len(old.Config) != 0 {
		t.Error("a control state that had been handed out has changed")
	}
}

func TestANoisyHostFillsItsOwnQuotaOnly(t *testing.T) {
	m := served(t)
	for i := range maxDedupePerMAC {
		if got := m.control(setReq(aoe.ControlConfigForce, macX, byte(i), "X")); got != "won" {
			t.Fatalf("request %d: %s", i, got)
		}
	}
	if got := m.control(setReq(aoe.ControlConfigForce, macX, 200, "Z")); got != "silent" || m.config() != "X" {
		t.Errorf("beyond the quota: %s, string %q; it must not be executed", got, m.config())
	}
	if got := m.control(setReq(aoe.ControlConfigForce, macX, 5, "X")); got != "won" {
		t.Errorf("a retransmission while the table is full: %s", got)
	}
	if got := m.control(setReq(aoe.ControlConfigForce, macY, 1, "Y")); got != "won" {
		t.Errorf("another host: %s", got)
	}
	for i := range 2 * maxDedupePerMAC {
		if got := m.control(setReq(aoe.ControlConfigForce, aoe.MAC{}, byte(i), "O")); got != "won" {
			t.Fatalf("request %d of an operator's script: %s", i, got)
		}
	}
	m.pass(100)
	if got := m.control(setReq(aoe.ControlConfigForce, macX, 200, "Z")); got != "won" {
		t.Errorf("when the entries are old: %s", got)
	}
}
