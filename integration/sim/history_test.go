package sim

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"clade/aoe"
)

// scriptedHistory feeds the history with frames by hand, to show that it notices.
type scriptedHistory struct {
	*history
	failures []string
}

func newScripted() *scriptedHistory {
	s := &scriptedHistory{}
	s.history = newHistory(1, func(f string, a ...any) { s.failures = append(s.failures, fmt.Sprintf(f, a...)) })
	return s
}

func (s *scriptedHistory) delivered(at int64, proc int, epoch uint64, eligible bool, b []byte) {
	s.history.delivered(at, place{proc, 1, epoch}, eligible, b)
}

func (s *scriptedHistory) emitted(at int64, proc int, epoch uint64, b []byte) {
	s.history.emitted(at, place{proc, 1, epoch}, b)
}

var (
	macX = aoe.MAC{2, 0x1A, 0, 0, 0, 1}
	macY = aoe.MAC{2, 0x1A, 0, 0, 0, 2}
	macT = aoe.MAC{2, 0xC1, 0, 0, 0, 9}
)

func request(src aoe.MAC, tag uint32, ataCommand byte, lba uint64, value uint64) []byte {
	b := make([]byte, 36)
	copy(b, macT[:])
	copy(b[6:], src[:])
	b[12], b[13], b[14], b[17], b[19] = 0x88, 0xA2, 0x10, simShelf, 0
	binary.BigEndian.PutUint32(b[20:], tag)
	b[26], b[27], b[28] = 1, ataCommand, byte(lba)
	if ataCommand == ataWrite {
		b = append(b, make([]byte, sectorBytes)...)
		fillSector(b[36:], value, 0, lba)
	}
	return b
}

func answer(dst aoe.MAC, tag uint32, lba, value uint64, read bool) []byte {
	b := request(macT, tag, 0x40, lba, 0)
	copy(b, dst[:])
	copy(b[6:], macT[:])
	b[14] |= flagResponse
	if read {
		b = append(b, make([]byte, sectorBytes)...)
		if value != 0 {
			fillSector(b[36:], value, 0, lba)
		}
	}
	return b
}

func reserveFrame(mac aoe.MAC, tag uint32, response bool, list ...aoe.MAC) []byte {
	b := request(mac, tag, 0, 0, 0)[:24]
	b[19] = cmdReserve
	b = append(b, 2, byte(len(list)))
	for _, m := range list {
		b = append(b, m[:]...)
	}
	if response {
		copy(b, mac[:])
		b[14] |= flagResponse
	}
	return b
}

func (s *scriptedHistory) want(t *testing.T, text string) {
	t.Helper()
	s.judge()
	got := strings.Join(s.failures, "\n")
	if text == "" && got != "" || !strings.Contains(got, text) {
		t.Errorf("want a failure with %q, got %q", text, got)
	}
}

func TestHistoryNoticesALostAcknowledgedWrite(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataWrite, 5, 100))
	s.emitted(20, 1, 1, answer(macX, 1, 5, 0, false))
	s.delivered(30, 2, 2, true, request(macX, 2, ataRead, 5, 0))
	s.emitted(40, 2, 2, answer(macX, 2, 5, 0, true))
	s.want(t, "not linearizable")
}

func TestHistoryAcceptsARetransmissionExecutedTwice(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataWrite, 5, 100))
	s.delivered(11, 1, 1, true, request(macX, 2, ataWrite, 5, 100))
	s.emitted(20, 1, 1, answer(macX, 1, 5, 0, false))
	s.delivered(30, 1, 1, true, request(macY, 2, ataRead, 5, 0))
	s.emitted(40, 1, 1, answer(macY, 2, 5, 100, true))
	s.want(t, "")
}

func TestHistoryNoticesALateCopyThatUndoesANewerWrite(t *testing.T) {
	for _, eligible := range []bool{false, true} {
		s := newScripted()
		s.delivered(10, 1, 1, true, request(macX, 1, ataWrite, 5, 100))
		s.delivered(11, 2, 1, eligible, request(macX, 1, ataWrite, 5, 100)) // flooded to the next owner
		s.emitted(20, 1, 1, answer(macX, 1, 5, 0, false))
		s.delivered(30, 1, 1, true, request(macX, 2, ataWrite, 5, 101))
		s.emitted(40, 1, 1, answer(macX, 2, 5, 0, false))
		s.delivered(50, 2, 2, true, request(macX, 3, ataRead, 5, 0))
		s.emitted(60, 2, 2, answer(macX, 3, 5, 100, true))
		if eligible {
			s.want(t, "")
		} else {
			s.want(t, "not linearizable")
		}
	}
}

func TestHistoryNoticesTwoOwners(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataRead, 5, 0))
	s.delivered(10, 2, 2, true, request(macX, 1, ataRead, 5, 0))
	s.emitted(20, 2, 2, answer(macX, 1, 5, 0, true))
	s.emitted(21, 1, 1, answer(macX, 1, 5, 0, true))
	s.want(t, "I8")
}

func TestHistoryNoticesAWriteAfterTheReservationThatExcludesIt(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataWrite, 5, 100))
	s.delivered(11, 1, 1, true, reserveFrame(macY, 7, false, macY))
	s.emitted(20, 1, 1, reserveFrame(macY, 7, true, macY)) // answered while X's write is in flight
	s.delivered(21, 1, 1, true, request(macY, 8, ataRead, 5, 0))
	s.emitted(22, 1, 1, answer(macY, 8, 5, 0, true))
	s.delivered(31, 1, 1, true, request(macY, 9, ataRead, 5, 0))
	s.emitted(32, 1, 1, answer(macY, 9, 5, 100, true))
	s.want(t, "not linearizable")
}

func TestHistoryNoticesAnExecutedWriteOfAnExcludedInitiator(t *testing.T) {
	s := newScripted()
	s.delivered(11, 1, 1, true, reserveFrame(macY, 7, false, macY))
	s.emitted(20, 1, 1, reserveFrame(macY, 7, true, macY))
	s.delivered(30, 1, 1, true, request(macX, 1, ataWrite, 5, 100))
	s.emitted(40, 1, 1, answer(macX, 1, 5, 0, false))
	s.want(t, "reservation")
}

func configFrame(mac aoe.MAC, tag uint32, ccmd byte, text string, response, failed bool) []byte {
	b := request(mac, tag, 0, 0, 0)[:24]
	b[19] = cmdConfig
	b = append(b, 0, 0, 0, 0, 0, 0x10|ccmd)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, text...)
	if response {
		copy(b, mac[:])
		b[14] |= flagResponse
	}
	if failed {
		b[14] |= flagError
		b[15] = errConfigPresent
	}
	return b
}

func TestHistoryNoticesTwoWinners(t *testing.T) {
	for _, second := range []bool{false, true} {
		s := newScripted()
		s.delivered(10, 1, 1, true, configFrame(macX, 1, 3, "x", false, false))
		s.delivered(10, 1, 1, true, configFrame(macY, 1, 3, "y", false, false))
		s.emitted(20, 1, 1, configFrame(macX, 1, 3, "x", true, false))
		if second {
			s.emitted(30, 1, 1, configFrame(macY, 1, 3, "y", true, false))
			s.want(t, "config string is not linearizable")
		} else {
			s.emitted(30, 1, 1, configFrame(macY, 1, 3, "x", true, true))
			s.want(t, "")
		}
	}
}

func TestHistoryNoticesAChangedVerdict(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, configFrame(macY, 9, 3, "y", false, false))
	s.emitted(11, 1, 1, configFrame(macY, 9, 3, "y", true, false))
	s.delivered(12, 1, 1, true, configFrame(macX, 1, 3, "x", false, false))
	s.delivered(13, 1, 1, true, configFrame(macX, 1, 3, "x", false, false))
	s.emitted(14, 1, 1, configFrame(macX, 1, 3, "y", true, true))
	s.delivered(15, 1, 1, true, configFrame(macY, 10, 4, "", false, false))
	s.emitted(16, 1, 1, configFrame(macY, 10, 4, "", true, false))
	s.emitted(17, 1, 1, configFrame(macX, 1, 3, "x", true, false))
	s.want(t, "told that it won after it was told that it lost")
}
