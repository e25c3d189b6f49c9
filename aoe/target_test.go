package aoe

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

var (
	self = MAC{0x02, 0, 0, 0, 0, 1}
	host = MAC{0x52, 0x54, 0, 0, 0, 9}
	peer = MAC{0x52, 0x54, 0, 0, 0, 10}
)

func newTarget() *Target {
	return &Target{Identity: Identity{Shelf: 7, Slot: 1, Sectors: 2048, Serial: "0123456789abcdef", Model: "Clade", Firmware: "1",
		BufCount: 64, FirmwareWord: 1, SectorCount: 16}}
}

func to(dst MAC, tag byte) Header {
	return Header{Dst: dst, Src: host, Shelf: 7, Slot: 1, Tag: [4]byte{0, 0, 0, tag}}
}

func ata(h Header, a ATA, data []byte) []byte { return append(AppendATARequest(nil, h, a), data...) }

func handle(t *testing.T, tg *Target, frame []byte) Action {
	t.Helper()
	var r Request
	if err := ParseRequest(frame, &r); err != nil {
		return drop
	}
	return tg.Handle(&r, self, nil)
}

// answer checks that an action is a well-formed reply to the frame, and returns it parsed.
func answer(t *testing.T, frame []byte, act Action) Response {
	t.Helper()
	if act.Kind != ActionReply {
		t.Fatalf("action %d, want a reply", act.Kind)
	}
	var resp Response
	if err := ParseResponse(act.Reply, &resp); err != nil {
		t.Fatal(err)
	}
	if len(act.Reply) < FrameBytesMin {
		t.Errorf("reply of %d bytes is not padded (trap 7)", len(act.Reply))
	}
	if resp.Dst != MAC(frame[6:12]) || resp.Src != self || resp.Tag != [4]byte(frame[20:24]) || resp.Shelf != 7 || resp.Slot != 1 {
		t.Errorf("reply header %+v does not answer the request", resp)
	}
	if act.Reply[14]>>4 != 1 {
		t.Errorf("version %d in the reply (trap 10)", act.Reply[14]>>4)
	}
	return resp
}

func TestTransfers(t *testing.T) {
	two := make([]byte, 1024)
	for _, c := range []struct {
		name     string
		a        ATA
		data     []byte
		kind     ActionKind
		lba      uint64
		n        int
		aoe      uint8
		status   uint8
		register uint8
	}{
		{name: "read ext", a: ATA{AFlags: AFlagExtended, Sectors: 2, Command: ATAReadExt, LBA: 5}, kind: ActionRead, lba: 5, n: 2},
		{name: "write ext", a: ATA{AFlags: AFlagExtended | AFlagWrite, Sectors: 2, Command: ATAWriteExt, LBA: 6}, data: two, kind: ActionWrite, lba: 6, n: 2},
		{name: "trap 1: a read that carries a payload is a read", a: ATA{AFlags: AFlagExtended, Sectors: 2, Command: ATAReadExt}, data: two, kind: ActionRead, n: 2},
		{name: "trap 12: LBA28 has 0xE in the top nibble", a: ATA{Sectors: 1, Command: ATARead, LBA: 0xE0000003}, kind: ActionRead, lba: 3, n: 1},
		{name: "trap 12: LBA28 write with 0xA", a: ATA{AFlags: AFlagWrite, Sectors: 1, Command: ATAWrite, LBA: 0xA0000003}, data: two, kind: ActionWrite, lba: 3, n: 1},
		{name: "trap 11: LBA is little-endian", a: ATA{AFlags: AFlagExtended, Sectors: 1, Command: ATAReadExt, LBA: 0x0000000007FF}, kind: ActionRead, lba: 0x7FF, n: 1},
		{name: "trailing garbage", a: ATA{AFlags: AFlagExtended | AFlagWrite, Sectors: 1, Command: ATAWriteExt}, data: two, kind: ActionWrite, n: 1},
		{name: "verify", a: ATA{Sectors: 200, Command: ATAVerifyExt}, kind: ActionVerify, n: 200},
		{name: "past the end", a: ATA{Sectors: 2, Command: ATAReadExt, LBA: 2047}, kind: ActionReply, status: StatusError, register: ErrRegNotFound},
		{name: "far past the end", a: ATA{Sectors: 1, Command: ATAWriteExt, LBA: 1<<48 - 1}, data: two, kind: ActionReply, status: StatusError, register: ErrRegNotFound},
		{name: "count 0", a: ATA{Command: ATAReadExt}, kind: ActionReply, aoe: ErrorArgument},
		{name: "more than advertised", a: ATA{Sectors: 17, Command: ATAReadExt}, kind: ActionReply, aoe: ErrorArgument},
		{name: "write with too little payload", a: ATA{Sectors: 3, Command: ATAWriteExt}, data: two, kind: ActionReply, aoe: ErrorArgument},
		{name: "unknown ATA command", a: ATA{Sectors: 1, Command: 0x99}, kind: ActionReply, status: StatusError, register: ErrRegAbort},
		{name: "flush", a: ATA{Command: ATAFlush}, kind: ActionFlush},
		{name: "flush ext", a: ATA{Command: ATAFlushExt}, kind: ActionFlush},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := ata(to(self, 1), c.a, c.data)
			act := handle(t, newTarget(), f)
			if act.Kind != c.kind || act.LBA != c.lba || act.Kind != ActionReply && act.Sectors != c.n {
				t.Fatalf("got %+v", act)
			}
			if act.Kind == ActionWrite && len(act.Data) != c.n*SectorBytes {
				t.Errorf("%d bytes to write, want %d sectors", len(act.Data), c.n)
			}
			if act.Kind != ActionReply {
				return
			}
			resp := answer(t, f, act)
			if resp.Error != c.aoe {
				t.Errorf("AoE error %d, want %d", resp.Error, c.aoe)
			}
			if c.aoe == 0 && (act.Reply[27] != c.status || act.Reply[25] != c.register) {
				t.Errorf("status %#x error %#x, want %#x %#x", act.Reply[27], act.Reply[25], c.status, c.register)
			}
		})
	}
}

// TestSilence lists what must get no answer at all.
func TestSilence(t *testing.T) {
	tg := newTarget()
	read := ATA{Sectors: 1, Command: ATAReadExt}
	other := to(MAC{2, 9, 9, 9, 9, 9}, 1)
	shelf := to(self, 1)
	shelf.Shelf = 8
	all := to(Broadcast, 1)
	all.Shelf, all.Slot = ShelfWildcard, SlotWildcard
	response := ata(to(self, 1), read, nil)
	response[14] |= flagResponse
	group := to(self, 1)
	group.Src = MAC{1, 0, 0x5e, 0, 0, 1}
	nobody := to(self, 1)
	nobody.Src = MAC{}
	for name, f := range map[string][]byte{
		"trap 24: flooded unicast for another MAC": ata(other, read, nil),
		"another shelf":                       ata(shelf, read, nil),
		"trap 8: a response":                  response,
		"write by wildcard":                   ata(all, ATA{AFlags: AFlagWrite, Sectors: 1, Command: ATAWriteExt}, make([]byte, 512)),
		"read by wildcard":                    ata(all, read, nil),
		"config set by wildcard":              AppendConfigRequest(nil, all, ConfigSet, []byte("x")),
		"reserve by wildcard":                 AppendReserveRequest(nil, all, ReserveForce, []MAC{host}),
		"mask edit by wildcard":               AppendMaskRequest(nil, all, MaskEdit, []Directive{{MaskAdd, host}}),
		"trap 19: a failed test":              AppendConfigRequest(nil, to(self, 1), ConfigTest, []byte("x")),
		"trap 19: a failed prefix":            AppendConfigRequest(nil, to(self, 1), ConfigPrefix, []byte("x")),
		"config string longer than the frame": append(AppendRequestHeader(nil, to(self, 1), CommandConfig), 0, 0, 0, 0, 0, ConfigSet, 4, 1),
		"ATA shorter than its header":         AppendRequestHeader(nil, to(self, 1), CommandATA),
		"source is a group address":           ata(group, read, nil),
		"source is no address":                ata(nobody, read, nil),
		"shorter than a header":               ata(to(self, 1), read, nil)[:23],
		"vendor command":                      AppendRequestHeader(nil, to(self, 1), 0xF0),
	} {
		if act := handle(t, tg, f); act.Kind != ActionDrop {
			t.Errorf("%s: action %d, want silence", name, act.Kind)
		}
	}
}

func TestDiscovery(t *testing.T) {
	tg := newTarget()
	tg.Control.Config = []byte("owner=a")
	all := to(Broadcast, 0)
	all.Shelf, all.Slot = ShelfWildcard, SlotWildcard
	linux := append(AppendRequestHeader(nil, all, CommandConfig), 0, 0, 0, 0, 0, 0, 0, 0) // 32 bytes, not padded (trap 6)
	aoeping := append(linux[:24:24], bytes.Repeat([]byte{0xED}, 1032)...)
	aoeping[29], aoeping[30], aoeping[31] = ConfigRead, 4, 0
	for name, f := range map[string][]byte{
		"linux":                       linux,
		"trap 5: nmap's header alone": AppendRequestHeader(nil, all, CommandConfig),
		"trap 3: aoeping's garbage":   aoeping,
		"unicast":                     AppendConfigRequest(nil, to(self, 3), ConfigRead, nil),
		"test that holds":             AppendConfigRequest(nil, to(self, 3), ConfigTest, []byte("owner=a")),
		"prefix that holds":           AppendConfigRequest(nil, all, ConfigPrefix, []byte("owner=")),
		"empty prefix matches":        AppendConfigRequest(nil, all, ConfigPrefix, nil),
	} {
		t.Run(name, func(t *testing.T) {
			act := handle(t, tg, f)
			answer(t, f, act)
			c, ok := ParseConfig(act.Reply)
			if !ok || c.BufCount != 64 || c.SectorCount != 16 || c.Version != 1 || string(c.String) != "owner=a" {
				t.Errorf("config %+v %q", c, c.String)
			}
		})
	}
}

func TestIdentify(t *testing.T) {
	tg := newTarget()
	tg.Identity.Sectors = 1 << 33
	tg.Control.Reserved = []MAC{peer}
	all := to(Broadcast, 0)
	all.Shelf, all.Slot = ShelfWildcard, SlotWildcard
	for name, f := range map[string][]byte{
		"linux":                               ata(to(self, 1), ATA{Sectors: 1, Command: ATAIdentify, LBA: 0xA0 << 24}, nil),
		"trap 4: WinAoE by wildcard":          ata(all, ATA{Sectors: 1, Command: ATAIdentify}, nil),
		"trap 2: sancheck's padded with data": ata(to(self, 1), ATA{Sectors: 1, Command: ATAIdentify}, make([]byte, 8192)),
	} {
		act := handle(t, tg, f)
		answer(t, f, act)
		if len(act.Reply) != ATAHeaderBytes+SectorBytes {
			t.Fatalf("%s: %d bytes", name, len(act.Reply))
		}
		id, ok := ParseIdentify(act.Reply[ATAHeaderBytes:])
		if !ok || !id.LBA48 || id.Sectors != 1<<33 || id.Serial != "0123456789abcdef" || id.Model != "Clade" {
			t.Errorf("%s: %+v", name, id)
		}
		if w := act.Reply[ATAHeaderBytes+120 : ATAHeaderBytes+124]; !bytes.Equal(w, []byte{0xFF, 0xFF, 0xFF, 0x0F}) {
			t.Errorf("%s: LBA28 capacity % x is not capped", name, w)
		}
	}
	f := ata(to(self, 1), ATA{Sectors: 2, Command: ATAIdentify}, nil)
	if resp := answer(t, f, handle(t, tg, f)); resp.Error != ErrorArgument {
		t.Errorf("IDENTIFY of two sectors: error %d", resp.Error)
	}
}

// TestSmart: aoeping -S takes an answer without a sector behind the registers for a failure, whatever the command.
func TestSmart(t *testing.T) {
	tg := newTarget()
	for _, feature := range []uint8{smartReadData, smartReadThresholds, smartEnable, smartDisable, smartReturnStatus} {
		f := ata(to(self, 1), ATA{Command: ATASmart, Feature: feature, LBA: smartLow<<8 | smartHigh<<16}, nil)
		r := answer(t, f, handle(t, tg, f))
		a, ok := ParseATA(r.Frame)
		if !ok || a.Command != StatusReady || a.Feature != 0 || len(a.Data) != SectorBytes || r.Frame[29] != smartLow || r.Frame[30] != smartHigh {
			t.Errorf("SMART %#x: %d bytes, status %#x", feature, len(r.Frame), a.Command)
		}
	}
	f := ata(to(self, 1), ATA{Command: ATASmart, Feature: smartReturnStatus}, nil) // no signature
	if r := answer(t, f, handle(t, tg, f)); r.Frame[27] != StatusError {
		t.Errorf("without signature: status %#x", r.Frame[27])
	}
}

func TestReservationAndMask(t *testing.T) {
	tg := newTarget()
	tg.Control.Reserved = []MAC{peer}
	for _, cmd := range []uint8{ATARead, ATAReadExt, ATAWrite, ATAWriteExt, ATAFlush, ATAFlushExt, ATAVerify} {
		f := ata(to(self, 1), ATA{Sectors: 1, Command: cmd}, make([]byte, 512))
		if resp := answer(t, f, handle(t, tg, f)); resp.Error != ErrorReserved {
			t.Errorf("command %#x by the excluded: error %d, want 6", cmd, resp.Error)
		}
	}
	f := AppendConfigRequest(nil, to(self, 1), ConfigSet, []byte("x"))
	if act := handle(t, tg, f); act.Kind != ActionControl {
		t.Error("trap 21: a reservation does not stop config")
	}
	f = AppendReserveRequest(nil, to(self, 1), ReserveRead, nil)
	if _, macs, ok := ParseReserve(handle(t, tg, f).Reply); !ok || len(macs) != 1 || macs[0] != peer {
		t.Errorf("reservation read by the excluded: %v", macs)
	}
	tg = newTarget()
	tg.Control.Mask = []MAC{peer}
	for _, f := range [][]byte{AppendConfigRequest(nil, to(Broadcast, 1), ConfigRead, nil), ata(to(self, 1), ATA{Sectors: 1, Command: ATAIdentify}, nil)} {
		if act := handle(t, tg, f); act.Kind != ActionDrop {
			t.Errorf("trap 20: the masked out got action %d", act.Kind)
		}
	}
}

func TestControlApply(t *testing.T) {
	set := func(kind ControlKind, src MAC, s string) ControlRequest {
		return ControlRequest{Kind: kind, Src: src, Config: []byte(s)}
	}
	var c Control
	c, res := c.Apply(set(ControlConfigSet, host, "a"))
	if !res.OK() || string(c.Config) != "a" || c.Setter != host || c.Mutation != 1 {
		t.Fatalf("%+v %+v", c, res)
	}
	if _, res = c.Apply(set(ControlConfigSet, peer, "b")); res.AoEError != ErrorStringPresent {
		t.Errorf("second set: %+v", res)
	}
	if d, res := c.Apply(set(ControlConfigSet, peer, "a")); !res.OK() || d.Setter != host || d.Mutation != 1 {
		t.Errorf("identical set: %+v %+v", d, res)
	}
	d, res := c.Apply(set(ControlConfigForce, peer, ""))
	if !res.OK() || len(d.Config) != 0 || string(c.Config) != "a" {
		t.Errorf("force clears, and never changes the old value: %+v %q", d, c.Config)
	}
	if _, res = c.Apply(set(ControlConfigForce, peer, strings.Repeat("x", 1025))); res.AoEError != ErrorArgument {
		t.Errorf("long string: %+v", res)
	}
	edit := ControlRequest{Kind: ControlMaskEdit, Directives: []Directive{{MaskAdd, host}, {MaskAdd, host}, {MaskDelete, peer}, {9, peer}}}
	if m, res := c.Apply(edit); res.MaskError != MaskErrDirective || res.Failed != 3 || len(m.Mask) != 0 {
		t.Errorf("all or nothing: %+v %+v", m, res)
	}
	var many ControlRequest
	many.Kind = ControlMaskEdit
	for i := range MaskMax + 1 {
		many.Directives = append(many.Directives, Directive{MaskAdd, MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}})
	}
	if _, res := c.Apply(many); res.MaskError != MaskErrFull || res.Failed != MaskMax {
		t.Errorf("full list: %+v", res)
	}
	r, res := c.Apply(ControlRequest{Kind: ControlReserveSet, Src: host, MACs: []MAC{host}})
	if !res.OK() {
		t.Fatalf("reserve: %+v", res)
	}
	if _, res = r.Apply(ControlRequest{Kind: ControlReserveSet, Src: peer, MACs: []MAC{peer}}); res.AoEError != ErrorReserved {
		t.Errorf("reserve by another: %+v", res)
	}
	if r, res = r.Apply(ControlRequest{Kind: ControlReserveForce, Src: peer, MACs: []MAC{peer}}); !res.OK() || r.Reserved[0] != peer {
		t.Errorf("force: %+v", res)
	}
	if _, res = c.Apply(ControlRequest{Kind: 99}); res.OK() {
		t.Error("an unknown kind succeeded")
	}
}

func TestControlReplies(t *testing.T) {
	tg := newTarget()
	c := Control{Config: []byte("mine"), Reserved: []MAC{peer}, Mask: []MAC{host, peer}}
	f := AppendConfigRequest(nil, to(self, 1), ConfigSet, []byte("yours"))
	reply := AppendControlReply(nil, f, self, &tg.Identity, &c, ControlResult{AoEError: ErrorStringPresent})
	if reply[14] != 0x1c || reply[15] != 4 {
		t.Errorf("refused set: flags %#x error %d", reply[14], reply[15])
	}
	if got, ok := ParseConfig(reply); !ok || string(got.String) != "mine" {
		t.Errorf("a refused set carries the string in force, got %q", got.String)
	}
	f = AppendReserveRequest(nil, to(self, 1), ReserveSet, []MAC{host})
	reply = AppendControlReply(nil, f, self, &tg.Identity, &c, ControlResult{AoEError: ErrorReserved})
	if _, macs, ok := ParseReserve(reply); !ok || len(macs) != 1 || macs[0] != peer || reply[15] != 6 {
		t.Errorf("a refused reservation carries the list in force: %v, error %d", macs, reply[15])
	}
	f = AppendMaskRequest(nil, to(self, 1), MaskEdit, []Directive{{MaskAdd, host}})
	reply = AppendControlReply(nil, f, self, &tg.Identity, &c, ControlResult{})
	if m, ok := ParseMask(reply); !ok || len(m.MACs) != 2 || m.MACs[0] != host || reply[14] != 0x18 {
		t.Errorf("mask reply %+v flags %#x", m, reply[14])
	}
}

func TestBeacon(t *testing.T) {
	tg := newTarget()
	b := AppendBeacon(nil, self, Broadcast, &tg.Identity, &Control{Config: []byte("x")})
	want := "ffffffffffff02000000000188a2180000070101000000000040000110100001" + "78"
	if got := hex.EncodeToString(b[:33]); got != want || len(b) != FrameBytesMin {
		t.Errorf("beacon\n got %s\nwant %s (tag 0: trap 9, version 1: trap 10)", got, want)
	}
	n := NodeBeacon{Cluster: [16]byte{1, 2}, Node: 77, Path: 3, Seq: 9}
	if got, ok := ParseNodeBeacon(AppendNodeBeacon(nil, self, n)); !ok || got != n {
		t.Errorf("node beacon %+v", got)
	}
}

func TestServingMACs(t *testing.T) {
	seen := map[MAC]bool{}
	for slot := range 255 {
		for path := range 4 {
			m := ServingMAC([16]byte{1}, 7, uint8(slot), uint8(path))
			if seen[m] || m.IsGroup() || m[0]&2 == 0 {
				t.Fatalf("slot %d path %d: %v", slot, path, m)
			}
			seen[m] = true
		}
	}
	if ServingMAC([16]byte{1}, 7, 1, 0) == ServingMAC([16]byte{2}, 7, 1, 0) {
		t.Error("two clusters share a MAC")
	}
}

func TestAddressesThatNobodyMayHave(t *testing.T) {
	for _, c := range []struct {
		shelf uint16
		slot  uint8
		ok    bool
	}{{7, 1, true}, {0, 0, true}, {4095, 1, false}, {65535, 1, false}, {7, 255, false}, {65534, 254, true}} {
		if err := ValidateAddress(c.shelf, c.slot); (err == nil) != c.ok {
			t.Errorf("e%d.%d: %v (trap 22)", c.shelf, c.slot, err)
		}
	}
}

func TestSectorCounts(t *testing.T) {
	for mtu, want := range map[int]uint8{1500: 2, 4132: 8, 8228: 16, 9000: 16, 600: 1, 100: 0} {
		if got := MaxSectors(mtu); got != want {
			t.Errorf("MTU %d: %d sectors, want %d (trap 14)", mtu, got, want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	tg := newTarget()
	write := ata(to(self, 1), ATA{AFlags: AFlagExtended | AFlagWrite, Sectors: 16, Command: ATAWriteExt}, make([]byte, 8192))
	read := ata(to(self, 1), ATA{AFlags: AFlagExtended, Sectors: 16, Command: ATAReadExt}, nil)
	buf := make([]byte, 0, 64)
	n := testing.AllocsPerRun(100, func() {
		for _, f := range [][]byte{write, read} {
			var r Request
			if ParseRequest(f, &r) != nil || tg.Handle(&r, self, buf).Kind == ActionDrop {
				t.Fatal("dropped")
			}
			AppendATAReply(buf, (*ATAHeader)(f), self, &tg.Identity, StatusReady, 0, false)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a write and a read", n)
	}
}

func FuzzHandle(f *testing.F) {
	f.Add(ata(to(self, 1), ATA{AFlags: AFlagExtended | AFlagWrite, Sectors: 1, Command: ATAWriteExt}, make([]byte, 512)))
	f.Add(AppendConfigRequest(nil, to(Broadcast, 1), ConfigSet, []byte("x")))
	f.Add(AppendMaskRequest(nil, to(self, 1), MaskEdit, []Directive{{MaskAdd, host}}))
	f.Add(AppendReserveRequest(nil, to(self, 1), ReserveForce, []MAC{host}))
	f.Add(ata(to(self, 1), ATA{Sectors: 1, Command: ATASmart, Feature: smartReadData, LBA: smartLow<<8 | smartHigh<<16}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		if ParseRequest(b, &r) != nil {
			return
		}
		tg := newTarget()
		act := tg.Handle(&r, self, nil)
		switch act.Kind {
		case ActionReply:
			var resp Response
			if err := ParseResponse(act.Reply, &resp); err != nil || len(act.Reply) < FrameBytesMin || resp.Shelf != 7 || resp.Slot != 1 {
				t.Errorf("reply % x: %v", act.Reply, err)
			}
		case ActionRead, ActionWrite, ActionVerify:
			if act.Sectors <= 0 || act.LBA+uint64(act.Sectors) > tg.Identity.Sectors || act.Kind == ActionWrite && len(act.Data) != act.Sectors*SectorBytes {
				t.Errorf("transfer %+v", act)
			}
		case ActionControl:
			c, res := tg.Control.Apply(act.Control)
			AppendControlReply(nil, b, self, &tg.Identity, &c, res)
		case ActionDrop, ActionFlush:
		default:
			t.Errorf("action %d", act.Kind)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	tg := newTarget()
	f.Add(AppendBeacon(nil, self, Broadcast, &tg.Identity, &Control{Config: []byte("x")}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var r Response
		if ParseResponse(b, &r) != nil {
			return
		}
		ParseConfig(b)
		ParseMask(b)
		ParseReserve(b)
		if a, ok := ParseATA(b); ok {
			ParseIdentify(a.Data)
		}
	})
}

func BenchmarkHandleWrite(b *testing.B) {
	tg := newTarget()
	f := ata(to(self, 1), ATA{AFlags: AFlagExtended | AFlagWrite, Sectors: 16, Command: ATAWriteExt}, make([]byte, 8192))
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		var r Request
		_ = ParseRequest(f, &r)
		tg.Handle(&r, self, buf)
		AppendATAReply(buf, (*ATAHeader)(f), self, &tg.Identity, StatusReady, 0, false)
	}
}
