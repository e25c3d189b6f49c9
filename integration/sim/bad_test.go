package sim

import (
	"testing"

	"clade/aoe"
)

// Histories that must never be: each is as small as it can be, and the checker must name it.

func (s *scriptedHistory) write(at int64, proc int, mac aoe.MAC, tag uint32, lba, value uint64) {
	s.delivered(at, proc, uint64(proc), true, request(mac, tag, ataWrite, lba, value))
	s.emitted(at+5, proc, uint64(proc), answer(mac, tag, lba, 0, false))
}

func (s *scriptedHistory) read(at int64, proc int, mac aoe.MAC, tag uint32, lba, value uint64) {
	s.delivered(at, proc, uint64(proc), true, request(mac, tag, ataRead, lba, 0))
	s.emitted(at+5, proc, uint64(proc), answer(mac, tag, lba, value, true))
}

func TestHistoryNoticesAStaleRead(t *testing.T) {
	s := newScripted()
	s.write(10, 1, macX, 1, 5, 100)
	s.write(20, 1, macX, 2, 5, 101)
	s.read(30, 2, macY, 3, 5, 100)
	s.want(t, "not linearizable")
}

func TestHistoryNoticesAResurrectedWrite(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataWrite, 5, 100)) // never answered: the owner dies
	s.read(20, 2, macY, 2, 5, 0)                                    // the next has not rolled it forward
	s.read(30, 2, macY, 3, 5, 0)
	s.read(40, 3, macY, 4, 5, 100) // the one after that finds it again
	s.want(t, "not linearizable")
}

func TestHistoryNoticesAMixedSector(t *testing.T) {
	s := newScripted()
	s.write(10, 1, macX, 1, 5, 100)
	s.write(20, 1, macX, 2, 5, 101)
	s.delivered(30, 1, 1, true, request(macY, 3, ataRead, 5, 0))
	b, old := answer(macY, 3, 5, 101, true), answer(macY, 3, 5, 100, true)
	copy(b[offATAData+256:], old[offATAData+256:])
	s.emitted(35, 1, 1, b)
	s.want(t, "TORN")
}

func TestHistoryNoticesAValueOfAnotherSector(t *testing.T) {
	s := newScripted()
	s.write(10, 1, macX, 1, 5, 100)
	s.delivered(30, 1, 1, true, request(macY, 3, ataRead, 6, 0))
	b, other := answer(macY, 3, 6, 100, true), answer(macY, 3, 5, 100, true)
	copy(b[offATAData:], other[offATAData:])
	s.emitted(35, 1, 1, b)
	s.want(t, "TORN")
}

func TestHistoryNoticesDataOfADeletedVolume(t *testing.T) {
	s := newScripted()
	s.write(10, 1, macX, 1, 5, 100)
	s.history.delivered(20, place{1, 2, 1}, true, request(macX, 2, ataRead, 5, 0))
	s.history.emitted(25, place{1, 2, 1}, answer(macX, 2, 5, 100, true))
	s.want(t, "volume 2 sector 5 is not linearizable")
}

func TestHistoryNoticesAnAnswerOfADeletedVolume(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataRead, 5, 0))
	s.history.delivered(20, place{2, 2, 1}, true, request(macX, 2, ataRead, 5, 0))
	s.history.emitted(25, place{2, 2, 1}, answer(macX, 2, 5, 0, true))
	s.emitted(30, 1, 1, answer(macX, 1, 5, 0, true))
	s.want(t, "which was deleted")
}

func TestHistoryNoticesAFrameForTheFormerVolumeExecutedInTheNewOne(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, request(macX, 1, ataWrite, 5, 100))
	s.history.emitted(20, place{1, 2, 1}, answer(macX, 1, 5, 0, false))
	s.want(t, "an answer to nothing that was delivered")
}

func maskFrame(mac aoe.MAC, tag uint32, edit, response bool, list ...aoe.MAC) []byte {
	b := request(mac, tag, 0, 0, 0)[:24]
	b[19] = cmdMask
	b = append(b, 0, 0, 0, byte(len(list)))
	if edit {
		b[25] = maskEdit
	}
	for _, m := range list {
		b = append(append(b, 0, aoe.MaskAdd), m[:]...)
	}
	if response {
		copy(b, mac[:])
		b[14] |= flagResponse
	}
	return b
}

func TestHistoryNoticesAnExecutedWriteOfWhoTheMaskShutsOut(t *testing.T) {
	s := newScripted()
	s.delivered(10, 1, 1, true, maskFrame(macY, 7, true, false, macY))
	s.emitted(15, 1, 1, maskFrame(macY, 7, true, true, macY))
	s.write(20, 1, macX, 1, 5, 100)
	s.want(t, "mask is not linearizable")
}

func TestHistoryNoticesALostMaskEdit(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := newScripted()
		s.delivered(10, 1, 1, true, maskFrame(macY, 7, true, false, macY))
		s.delivered(10, 1, 1, true, maskFrame(macX, 8, true, false, macX))
		s.emitted(15, 1, 1, maskFrame(macY, 7, true, true, macY))
		if lost {
			s.emitted(16, 1, 1, maskFrame(macX, 8, true, true, macX))
			s.want(t, "mask is not linearizable")
		} else {
			s.emitted(16, 1, 1, maskFrame(macX, 8, true, true, macY, macX))
			s.want(t, "")
		}
	}
}

func TestHistoryNoticesTwoReservations(t *testing.T) {
	set := func(mac aoe.MAC, tag uint32, response bool) []byte {
		b := reserveFrame(mac, tag, response, mac)
		b[24] = 1
		return b
	}
	s := newScripted()
	s.delivered(10, 1, 1, true, set(macX, 1, false))
	s.delivered(10, 1, 1, true, set(macY, 2, false))
	s.emitted(15, 1, 1, set(macX, 1, true))
	s.emitted(16, 1, 1, set(macY, 2, true))
	s.want(t, "reservation is not linearizable")
}

func TestHistoryNoticesAnotherIdentity(t *testing.T) {
	s := newScripted()
	for i, size := range []byte{1, 2} {
		b := answer(macX, uint32(i), 0, 0, true)
		b[offATAData+200] = size
		s.delivered(int64(10*i), 1, 1, true, request(macX, uint32(i), ataIdentify, 0, 0))
		s.emitted(int64(10*i+5), 1, 1, b)
	}
	s.want(t, "IDENTIFY changed")
}
