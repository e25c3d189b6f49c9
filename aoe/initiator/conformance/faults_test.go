package conformance

import "bytes"

func headerFaults() []fault {
	dead, odd := false, 0
	return []fault{
		{check: "header/tag", found: "no answer", mute: true, answer: answered(every, func(a []byte) []byte { a[20] &= 0x7F; return a })},
		{check: "header/version", found: "version 2", answer: answered(ata(0xEC), func(a []byte) []byte { a[14] = a[14]&15 | 0x20; return a })},
		{check: "header/flags", found: "reserved flags", answer: answered(command(2), func(a []byte) []byte { a[14] |= 2; return a })},
		{check: "header/flags", found: "flag E is true", answer: answered(command(3), failing(0))},
		{check: "header/command", found: "no answer", mute: true, answer: answered(command(3), put(19, 2))},
		{check: "header/address", found: "comes from shelf 65535", answer: answered(match(wild).and(command(1)), put(16, 0xFF, 17, 0xFF))},
		{check: "header/source-mac", found: "answered from", answer: answered(ata(0xEC), put(11, 0x77))},
		{check: "header/destination-mac", found: "went to ff:ff", answer: answered(command(1), put(0, 255, 1, 255, 2, 255, 3, 255, 4, 255, 5, 255))},
		{check: "header/error-byte", found: "error byte 1", answer: answered(command(1), put(15, 1))},
		{check: "header/minimum", found: "answer of 32 bytes", answer: answered(command(1), cut(32))},
		{check: "header/wildcards", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return every(f) && f[18] == 0xFF && f[16] != 0xFF })},
		{check: "header/wildcards", found: "from shelf 7, slot 255", answer: answered(match(wild), put(18, 0xFF))},
		{check: "header/unicast", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return f[0] != 0xFF })},
		{check: "header/broadcast", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return f[0] == 0xFF })},
		{check: "header/other-address", found: "want silence", request: rewritten(func(f []byte) bool { return every(f) && f[18] == 0 }, named)},
		{check: "header/other-address", found: "want silence", request: rewritten(func(f []byte) bool { return every(f) && f[18] == 0xFF }, named)},
		{check: "header/other-mac", found: "want silence", request: rewritten(every, put(5, 1))},
		{check: "header/responses", found: "want silence", request: rewritten(every, func(f []byte) []byte { f[14] &^= 8; return f })},
		{check: "header/unknown-command", found: "no answer", mute: true, request: deaf(command(4))},
		{check: "header/unknown-command", found: "AoE error 2", answer: answered(command(0x7F), failing(2))},
		{check: "header/unknown-command-effect", found: "want silence", request: rewritten(command(0xF0), put(19, 0x7F)), answer: answered(command(0xF0), put(19, 0xF0))},
		{check: "header/short", found: "otherwise than when padded", request: rewritten(func(f []byte) bool { return command(0)(f) && len(f) < 36 }, func(f []byte) []byte {
			return put(26, 1, 27, 0xEC)(append(f, make([]byte, 36)...))
		})},
		{check: "header/truncated", found: "no answer", mute: true, request: deaf(func(f []byte) bool { dead = dead || len(f) < 24; return dead })},
		{check: "header/unpadded", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return len(f) < 60 })},
		{check: "header/nmap", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return len(f) < 32 })},
		{check: "header/trailing", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return len(f) > 1000 })},
		{check: "header/reserved-bits", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return f[14]&2 != 0 })},
		{check: "header/reserved-bits", found: "reserved bits set", answer: answered(func(f []byte) bool { return ata(0x24)(f) && f[34] != 0 }, put(25, 4, 27, 0x41))},
		{check: "header/error-in-request", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return f[15] != 0 })},
		{check: "header/other-version", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return f[14]>>4 != 1 })},
		{check: "header/other-version", found: "AoE error 2", answer: answered(func(f []byte) bool { return f[14]>>4 != 1 }, failing(2))},
		{check: "header/duplicate", found: "differently", answer: answered(ata(0x24), func(a []byte) []byte { odd++; a[40] = byte(odd); return a })},
	}
}

func configFaults() []fault {
	return []fault{
		{check: "config/read-ignores-string", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return ccmd(0)(f) && len(f) == 1056 })},
		{check: "config/read-ignores-string", found: "the string is", answer: answered(func(f []byte) bool { return ccmd(0)(f) && f[31] == 1 }, put(31, 1))},
		{check: "config/buffer-count", found: "buffer count 1", answer: answered(ccmd(0), put(24, 0, 25, 1))},
		{check: "config/sector-count", found: "sector count 0", answer: answered(ccmd(0), put(28, 0))},
		{check: "config/version", found: "byte 29 is 0x00", answer: answered(ccmd(0), put(29, 0))},
		{check: "config/length", found: "too short for its string", answer: answered(ccmd(0), put(30, 2))},
		{check: "config/test", found: "want silence", request: rewritten(ccmd(1), put(29, 0))},
		{check: "config/test", found: "no answer", mute: true, request: deaf(ccmd(1))},
		{check: "config/prefix", found: "want silence", request: rewritten(func(f []byte) bool { return ccmd(2)(f) && f[31] > 0 }, put(29, 0))},
		{check: "config/match-truncated", found: "answered as a match", request: rewritten(ccmd(1), put(30, 0, 31, 0))},
		{check: "config/match-truncated", found: "answered as a match", request: rewritten(ccmd(2), put(30, 0, 31, 0))},
		{check: "config/unknown", found: "without an AoE error", request: rewritten(ccmd(6), put(29, 0))},
		{check: "config/unknown", found: "no answer", mute: true, request: deaf(ccmd(5))},
		{check: "config/match-wildcard", found: "no answer", mute: true, request: deaf(match(wild).and(ccmd(2)))},
	}
}

func identifyFaults() []fault {
	n := 0
	return []fault{
		{check: "identify/answer", found: "60 bytes", answer: answered(ata(0xEC), cut(60))},
		{check: "identify/size-48", found: "0 sectors", answer: answered(ata(0xEC), func(a []byte) []byte { clear(a[36+200 : 36+208]); return a })},
		{check: "identify/size-48", found: "no LBA48", answer: answered(ata(0xEC), put(36+167, 0x70))},
		{check: "identify/size-28", found: "words 60-61", answer: answered(ata(0xEC), put(36+120, 9))},
		{check: "identify/valid", found: "word 49", answer: answered(ata(0xEC), put(36+99, 0))},
		{check: "identify/valid", found: "word 87", answer: answered(ata(0xEC), put(36+175, 0))},
		{check: "identify/strings", found: "serial holds the byte 0x00", answer: answered(ata(0xEC), put(36+30, 0))},
		{check: "identify/strings", found: "begins with a space", answer: answered(ata(0xEC), put(36+55, ' '))},
		{check: "identify/declared", found: "ATA status 0x41", answer: answered(ata(0xE7), put(27, 0x41))},
		{check: "identify/declares-flush", found: "both kinds of flush", answer: answered(ata(0xEC), put(36+167, 0x54))},
		{check: "identify/stable", found: "differ", answer: answered(ata(0xEC), func(a []byte) []byte { n++; a[36+30] = byte('a' + n); return a })},
		{check: "identify/payload", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return ata(0xEC)(f) && len(f) > 600 })},
		{check: "identify/wildcard", found: "no answer", mute: true, request: deaf(match(wild).and(command(0)))},
		{check: "identify/wildcard", found: "slot 255", answer: answered(match(wild).and(command(0)), put(18, 255))},
		{check: "identify/lba-ignored", found: "AoE error 2", answer: answered(func(f []byte) bool { return ata(0xEC)(f) && f[28] != 0 }, failing(2))},
		{check: "identify/count", found: "without an AoE error", request: rewritten(ata(0xEC), put(26, 1))},
	}
}

func readFaults() []fault {
	beyond := func(f []byte) bool { return len(f) >= 36 && f[19] == 0 && lbaOf(f) >= 2048 }
	asWrite := func(f []byte) []byte { return put(24, 0x41, 27, 0x34)(f) }
	return []fault{
		{check: "read/48", found: "ATA status 0x41", answer: answered(ata(0x24), put(27, 0x41))},
		{check: "read/48", found: "547 bytes", answer: answered(ata(0x24), cut(547))},
		{check: "read/28", found: "status 0x50", answer: answered(ata(0x20), put(27, 0x50))},
		{check: "read/28-top-nibble", found: "top nibble 0xa0", request: rewritten(func(f []byte) bool { return ata(0x20)(f) && f[31] == 0xA0 }, put(31, 0x0A))},
		{check: "read/28-top-nibble", found: "other data", request: rewritten(func(f []byte) bool { return ata(0x20)(f) && f[31] == 0xF0 }, put(28, 1))},
		{check: "read/counts", found: "that are not those", answer: answered(func(f []byte) bool { return ata(0x24)(f) && f[26] > 1 }, cut(36+512))},
		{check: "read/last", found: "ATA status 0x41", request: rewritten(func(f []byte) bool { return ata(0x24)(f) && lbaOf(f) == 2047 }, put(28, 0, 29, 8))},
		{check: "read/beyond", found: "without ERR", request: rewritten(beyond, put(29, 0, 30, 0, 31, 0, 32, 0, 33, 0))},
		{check: "read/beyond", found: "without ERR", request: rewritten(func(f []byte) bool { return beyond(f) && f[33] != 0 }, put(28, 0, 29, 0, 30, 0, 31, 0, 32, 0, 33, 0))},
		{check: "read/beyond", found: "without ERR", request: rewritten(func(f []byte) bool { return ata(0x24)(f) && lbaOf(f) == 2047 && f[26] == 2 }, put(26, 1))},
		{check: "read/beyond-register", found: "error register 0x04", answer: answered(beyond, put(25, 4))},
		{check: "read/too-many", found: "success and 1024 bytes", request: rewritten(func(f []byte) bool { return ata(0x24)(f) && f[26] > 2 }, put(26, 2))},
		{check: "read/none", found: "with success", request: rewritten(func(f []byte) bool { return ata(0x24)(f) && f[26] == 0 }, put(26, 1))},
		{check: "read/payload", found: "it was written", request: before(func(f []byte) bool { return ata(0x24)(f) && len(f) >= 36+512 }, asWrite)},
		{check: "read/payload", found: "not answered with the data", answer: answered(func(f []byte) bool { return ata(0x24)(f) && len(f) > 500 }, func(a []byte) []byte { a[len(a)-1]++; return a })},
		{check: "read/write-flag", found: "it was written", request: before(func(f []byte) bool { return ata(0x24)(f) && f[24]&1 != 0 }, asWrite)},
		{check: "read/extended-flag", found: "other data", request: rewritten(func(f []byte) bool { return ata(0x24)(f) && f[24] == 0 }, put(28, 5))},
		{check: "read/wildcard", found: "want silence", request: rewritten(match(wild), named)},
	}
}

func ataFaults() []fault {
	return []fault{
		{check: "ata/verify", found: "ATA status 0x41", answer: answered(ata(0x42), put(27, 0x41))},
		{check: "ata/verify-beyond", found: "without ERR", answer: answered(ata(0x42), put(27, 0x40))},
		{check: "ata/verify-none", found: "with success", request: rewritten(ata(0x40), put(26, 1))},
		{check: "ata/flush", found: "status 0x00", answer: answered(ata(0xE7), put(27, 0))},
		{check: "ata/flush-ext", found: "ATA status 0x41", answer: answered(ata(0xEA), put(25, 4, 27, 0x41))},
		{check: "ata/check-power", found: "count register 0x00", answer: answered(ata(0xE5), put(26, 0))},
		{check: "ata/smart", found: "a threshold is exceeded", answer: answered(ata(0xB0), put(29, 0xF4))},
		{check: "ata/smart", found: "24 bytes behind the registers", answer: answered(ata(0xB0), cut(60))},
		{check: "ata/smart", found: "checksum", answer: answered(func(f []byte) bool { return ata(0xB0)(f) && f[25] == 0xD1 }, put(100, 1))},
		{check: "ata/smart-refused", found: "without ERR", answer: answered(ata(0xB0), put(27, 0x40))},
		{check: "ata/unknown", found: "without ERR", answer: answered(ata(0x8F), put(27, 0x40))},
		{check: "ata/unknown", found: "no answer", mute: true, request: deaf(ata(0x55))},
	}
}

func writeFaults() []fault {
	var held []byte
	var writer [6]byte
	beyond := func(f []byte) bool { return isWrite(f) && lbaOf(f) >= 2048 }
	short := func(f []byte) bool { return isWrite(f) && len(f) < 36+512*int(f[26]) }
	return []fault{
		{check: "write/48", found: "reads otherwise", request: rewritten(ata(0x34), put(27, 0xEA))},
		{check: "write/48", found: "status 0x50", answer: answered(ata(0x34), put(27, 0x50))},
		{check: "write/28", found: "reads otherwise", request: rewritten(ata(0x30), put(27, 0xE7))},
		{check: "write/async", found: "reads otherwise", request: rewritten(func(f []byte) bool { return isWrite(f) && f[24]&2 != 0 }, put(27, 0xEA))},
		{check: "write/counts", found: "after a write of 2 sectors", request: rewritten(func(f []byte) bool { return isWrite(f) && f[26] == 2 && lbaOf(f)%8 == 3 }, put(26, 1))},
		{check: "write/28-top-nibble", found: "top nibble 0xf0", request: rewritten(func(f []byte) bool { return ata(0x30)(f) && f[31] == 0xF0 }, put(28, 255))},
		{check: "write/beyond", found: "without ERR", request: rewritten(beyond, put(28, 0xFF, 29, 7, 30, 0, 31, 0, 32, 0, 33, 0))},
		{check: "write/beyond", found: "reads otherwise", request: before(func(f []byte) bool { return isWrite(f) && lbaOf(f) == 2047 && f[26] == 2 }, func(f []byte) []byte {
			return put(26, 1)(f)[:36+512]
		})},
		{check: "write/short", found: "answered with success", request: rewritten(short, grown(36+1024))},
		{check: "write/short", found: "sectors were written", request: before(short, grown(36+1024))},
		{check: "write/none", found: "answered with success", request: rewritten(func(f []byte) bool { return ata(0x34)(f) && f[26] == 0 }, put(27, 0xEA))},
		{check: "write/none", found: "sectors were written", request: before(func(f []byte) bool { return ata(0x34)(f) && f[26] == 0 }, func(f []byte) []byte {
			return put(26, 1, 28, 0xC0, 29, 7)(grown(36 + 512)(f))
		})},
		{check: "write/too-many", found: "answered with success", request: rewritten(func(f []byte) bool { return isWrite(f) && f[26] > 2 }, put(26, 2))},
		{check: "write/trailing", found: "reads otherwise", request: rewritten(func(f []byte) bool { return isWrite(f) && len(f) >= 36+1024 }, put(26, 2))},
		{check: "write/flag-missing", found: "without W", answer: answered(func(f []byte) bool { return isWrite(f) && f[24]&1 == 0 }, put(25, 4, 27, 0x41))},
		{check: "write/duplicate", found: "AoE error 2", answer: answered(match(isWrite).again(), failing(2))},
		{check: "write/duplicate", found: "no answer", mute: true, request: deaf(match(isWrite).again())},
		{check: "write/order", found: "8 writes of one sector", request: func(f []byte) [][]byte {
			if !isWrite(f) {
				return [][]byte{f}
			}
			if held == nil {
				held = f
				return nil
			}
			first := held
			held = nil
			return [][]byte{f, first}
		}},
		{check: "write/read-own", found: "another initiator reads", answer: answered(func(f []byte) bool {
			if isWrite(f) {
				writer = [6]byte(f[6:])
			}
			return ata(0x24)(f) && [6]byte(f[6:]) != writer
		}, put(100, 1, 101, 1))},
		{check: "write/wildcard", found: "sectors were written", request: rewritten(match(wild), named)},
	}
}

func configSetFaults() []fault {
	nul := func(f []byte) []byte {
		n := int(f[30])<<8 | int(f[31])
		if at := bytes.IndexByte(f[32:32+n], 0); at >= 0 {
			f[30], f[31] = byte(at>>8), byte(at)
		}
		return f
	}
	sets := ccmd(3).or(ccmd(4))
	tooLong := func(f []byte) bool { return len(f) >= 32 && f[19] == 1 && (f[30] > 4 || f[30] == 4 && f[31] > 0) }
	n := 0
	return []fault{
		{check: "config/set-empty", found: "want what was set", request: rewritten(ccmd(3), put(29, 0))},
		{check: "config/set-empty", found: "command 4 in the answer", request: rewritten(ccmd(3), put(29, 4))},
		{check: "config/set-present", found: "without an AoE error", request: rewritten(match(func(f []byte) bool { return ccmd(3)(f) && f[32] != 'w' }), put(29, 4))},
		{check: "config/set-present", found: "refused with \"\"", answer: answered(func(f []byte) bool { return ccmd(3)(f) && f[32] != 'w' }, put(31, 0))},
		{check: "config/set-same", found: "AoE error 4", answer: answered(func(f []byte) bool {
			if ccmd(3)(f) {
				n++
			}
			return ccmd(3)(f) && n > 1
		}, failing(4))},
		{check: "config/set-nothing", found: "without an AoE error", request: rewritten(func(f []byte) bool { return ccmd(3)(f) && f[31] == 0 }, put(29, 0)), answer: answered(ccmd(3), put(29, 0x13))},
		{check: "config/force", found: "AoE error 4", request: rewritten(ccmd(4), put(29, 3)), answer: answered(ccmd(4), put(29, 0x14))},
		{check: "config/clear", found: "want what was set", request: rewritten(func(f []byte) bool { return ccmd(4)(f) && f[31] == 0 }, put(29, 0))},
		{check: "config/lengths", found: "(1023 bytes), want what was set", request: rewritten(func(f []byte) bool { return ccmd(4)(f) && f[30] == 4 }, put(30, 3, 31, 255))},
		{check: "config/bytes", found: "want what was set", request: rewritten(ccmd(4), nul)},
		{check: "config/match-lengths", found: "want silence", request: rewritten(ccmd(1), put(29, 2)), answer: answered(ccmd(1), put(29, 0x11))},
		{check: "config/match-lengths", found: "no answer", mute: true, request: deaf(func(f []byte) bool { return ccmd(2)(f) && f[31] == 0 && f[30] == 0 })},
		{check: "config/too-long", found: "answered with success", request: rewritten(tooLong, put(30, 4, 31, 0))},
		{check: "config/too-long", found: "the string in force is", request: before(func(f []byte) bool { return tooLong(f) && ccmd(4)(f) }, put(30, 4, 31, 0))},
		{check: "config/longer-than-frame", found: "answered with success", request: rewritten(sets, grown(60+1024))},
		{check: "config/longer-than-frame", found: "the string in force is", request: before(sets, grown(60+1024))},
		{check: "config/trailing", found: "the string in force is", request: rewritten(sets, put(30, 4, 31, 0))},
		{check: "config/unknown-effect", found: "without an AoE error", request: rewritten(ccmd(8), put(29, 4))},
		{check: "config/unknown-effect", found: "the string in force is", request: before(ccmd(5), put(29, 4, 32, 'x'))},
		{check: "config/set-wildcard", found: "want silence", request: rewritten(match(wild).and(ccmd(3)), named)},
		{check: "config/duplicate", found: "AoE error 4", answer: answered(ccmd(3).again(), failing(4))},
		{check: "config/late-duplicate", found: "late copy", request: rewritten(ccmd(3).again(), put(29, 0))},
		{check: "config/late-duplicate", found: "the string in force is", request: instead(ccmd(3).again(), put(29, 4))},
	}
}

func maskFaults() []fault {
	reversed := func(f []byte) []byte {
		n := int(f[27])
		g := bytes.Clone(f)
		for i := range n {
			copy(f[28+8*i:36+8*i], g[28+8*(n-1-i):])
		}
		return f
	}
	granting := func(f []byte) []byte {
		for i := range int(f[27]) {
			if f[28+8*i+1] == 0 {
				f[28+8*i+1] = 1
			}
		}
		return f
	}
	return []fault{
		{check: "mask/read", found: "too short for 200 MACs", answer: answered(mcmd(0), put(27, 200))},
		{check: "mask/read", found: "mask error 1", answer: answered(mcmd(0), put(26, 1))},
		{check: "mask/read-wildcard", found: "no answer", mute: true, request: deaf(wild)},
		{check: "mask/unknown", found: "without an AoE error", request: rewritten(mcmd(3), put(25, 0))},
		{check: "mask/edit", found: "answered with []", answer: answered(mcmd(1), put(27, 0))},
		{check: "mask/edit", found: "mask error 1", answer: answered(func(f []byte) bool { return mcmd(1)(f) && f[29] == 2 }, put(26, 1))},
		{check: "mask/order", found: "want [", request: rewritten(mcmd(1), reversed)},
		{check: "mask/none", found: "want [", request: rewritten(mcmd(1), granting)},
		{check: "mask/silence", found: "want silence", request: rewritten(every, asFirst())},
		{check: "mask/admits", found: "no answer", mute: true, request: deaf(ata(0x24).and(fromOthers()))},
		{check: "mask/bad-directive", found: "2 at directive 9", answer: answered(mcmd(1), put(27, 9))},
		{check: "mask/bad-directive", found: "AoE error 2", answer: answered(mcmd(1), failing(2))},
		{check: "mask/all-or-nothing", found: "the mask is 1 MACs", request: before(mcmd(1), put(27, 1))},
		{check: "mask/full", found: "the list grew from", answer: answered(mcmd(0), func(a []byte) []byte { a[27] = min(a[27], 10); return a })},
		{check: "mask/capacity", found: "the list holds", answer: answered(func(f []byte) bool { return mcmd(1)(f) && f[30] == 2 && f[31] == 0xC0 }, put(26, 3))},
		{check: "mask/truncated", found: "answered with success", request: rewritten(func(f []byte) bool { return mcmd(1)(f) && f[27] == 5 }, func(f []byte) []byte { return append(f, make([]byte, 8)...) })},
		{check: "mask/truncated", found: "the mask is 1 MACs", request: before(mcmd(1), put(27, 1))},
		{check: "mask/own-exclusion", found: "no answer", mute: true, answer: func(req, a []byte) [][]byte {
			if mcmd(1)(req) {
				return nil
			}
			return [][]byte{a}
		}},
		{check: "mask/edit-wildcard", found: "want silence", request: rewritten(match(wild), named)},
		{check: "mask/duplicate", found: "AoE error 2", answer: answered(mcmd(1).again(), failing(2))},
		{check: "mask/duplicate", found: "no answer", mute: true, request: deaf(mcmd(1).again())},
	}
}

func reserveFaults() []fault {
	others := func(edit match) func([]byte) [][]byte {
		change := asFirst()
		return rewritten(rcmd(1).or(edit), change) // the reservation itself comes from the first
	}
	flushes := ata(0xE7).or(ata(0xEA))
	return []fault{
		{check: "reserve/read", found: "200 MACs", answer: answered(rcmd(0), put(25, 200))},
		{check: "reserve/read-wildcard", found: "no answer", mute: true, request: deaf(wild)},
		{check: "reserve/unknown", found: "without an AoE error", request: rewritten(rcmd(4), put(24, 0))},
		{check: "reserve/set", found: "answered with command 0", request: rewritten(rcmd(1), put(24, 0))},
		{check: "reserve/set", found: "reserved for []", request: rewritten(rcmd(1), put(24, 0)), answer: func(req, a []byte) [][]byte {
			if rcmd(1)(req) {
				copy(a[24:], req[24:32])
			}
			return [][]byte{a}
		}},
		{check: "reserve/release", found: "want []", request: rewritten(func(f []byte) bool { return rcmd(1)(f) && f[25] == 0 }, put(24, 0)), answer: answered(rcmd(1), put(24, 1))},
		{check: "reserve/fences", found: "without an AoE error", request: others(ata(0x24).and(func(f []byte) bool { return lbaOf(f) == 0 }))},
		{check: "reserve/fences", found: "was refused, and done", request: before(rcmd(1).or(isWrite), asFirst())},
		{check: "reserve/fences-others", found: "without an AoE error", request: others(flushes)},
		{check: "reserve/identify", found: "AoE error 6", answer: answered(ata(0xEC), failing(6))},
		{check: "reserve/config", found: "AoE error 6", answer: answered(ccmd(4), failing(6))},
		{check: "reserve/refused", found: "without an AoE error", request: rewritten(rcmd(1).and(fromOthers()), put(24, 2))},
		{check: "reserve/refused", found: "refused with []", answer: answered(rcmd(1).and(fromOthers()), put(25, 0))},
		{check: "reserve/force", found: "AoE error 6", request: rewritten(rcmd(2), put(24, 1))},
		{check: "reserve/several", found: "want [", request: rewritten(rcmd(1), put(25, 1))},
		{check: "reserve/for-others", found: "AoE error 2", answer: answered(rcmd(1), failing(2))},
		{check: "reserve/truncated", found: "answered with success", request: rewritten(rcmd(2), grown(2000))},
		{check: "reserve/truncated", found: "reserved for [", request: before(rcmd(1), put(25, 1))},
		{check: "reserve/capacity", found: "no answer", mute: true, request: deaf(rcmd(1))},
		{check: "reserve/set-wildcard", found: "want silence", request: rewritten(match(wild).and(rcmd(1)), named)},
		{check: "reserve/duplicate", found: "AoE error 6", answer: answered(rcmd(1).again(), failing(6))},
		{check: "reserve/late-duplicate", found: "late copy", request: rewritten(rcmd(1).again(), put(24, 0))},
		{check: "reserve/late-duplicate", found: "reserved for [", request: instead(rcmd(1).again(), put(24, 2))},
	}
}
