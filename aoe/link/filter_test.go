package link

import (
	"bytes"
	"testing"

	"golang.org/x/net/bpf"
)

// verdict runs the filter's program on a frame.
func verdict(t testing.TB, f *Filter, frame []byte) bool {
	t.Helper()
	vm, err := bpf.NewVM(f.Instructions())
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 && n < len(frame) {
		t.Fatalf("the program cuts %d bytes to %d", len(frame), n)
	}
	return n != 0
}

func aoeHeader(dst0, flags byte, shelf uint16) []byte {
	b := make([]byte, 60)
	b[0] = dst0
	b[12], b[13] = 0x88, 0xa2
	b[14] = 0x10 | flags
	b[16], b[17] = byte(shelf>>8), byte(shelf)
	return b
}

func TestFilter(t *testing.T) {
	other := aoeHeader(2, 0, 7)
	other[13] = 0xb5
	tests := []struct {
		name     string
		frame    []byte
		requests bool // for Filter{Shelf: 7}
		announce bool // with Announcements
	}{
		{"request for the shelf", aoeHeader(2, 0, 7), true, true},
		{"request for all shelves", aoeHeader(2, 0, 0xffff), true, true},
		{"broadcast request", aoeHeader(0xff, 0, 7), true, true},
		{"request for another shelf", aoeHeader(2, 0, 8), false, false},
		{"request with bytes of the shelf swapped", aoeHeader(2, 0, 7<<8), false, false},
		{"response", aoeHeader(2, 8, 7), false, false},
		{"error response", aoeHeader(2, 12, 7), false, false},
		{"announcement", aoeHeader(0xff, 8, 7), false, true},
		{"announcement to a group", aoeHeader(1, 8, 7), false, true},
		{"announcement of another shelf", aoeHeader(0xff, 8, 9), false, false},
		{"reserved flags", aoeHeader(2, 7, 7), true, true},
		{"other type", other, false, false},
		{"header only", aoeHeader(2, 0, 7)[:24], true, true},
		{"header cut off", aoeHeader(2, 0, 7)[:23], false, false},
		{"only the beginning", aoeHeader(2, 0, 7)[:13], false, false},
		{"nothing", nil, false, false},
		{"jumbo", append(aoeHeader(2, 0, 7), make([]byte, 9000)...), true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, f := range []Filter{{Shelf: 7}, {Shelf: 7, Announcements: true}} {
				want := test.requests
				if f.Announcements {
					want = test.announce
				}
				if got := verdict(t, &f, test.frame); got != want {
					t.Errorf("program of %+v: %v", f, got)
				}
				if got := f.Accepts(test.frame); got != want {
					t.Errorf("Accepts of %+v: %v", f, got)
				}
			}
		})
	}
}

// TestOwnVLANProgram checks the guard by feeding it the kernel's packet type as
// a byte of the frame: the extension it reads exists in kernels only.
func TestOwnVLANProgram(t *testing.T) {
	prog := ownVLAN()
	if _, ok := prog[2].(bpf.LoadExtension); !ok {
		t.Fatalf("does not ask for the packet type but %v", prog[2])
	}
	prog[2] = bpf.LoadAbsolute{Off: 1, Size: 1}
	vm, err := bpf.NewVM(append(prog, bpf.RetConstant{Val: 1}))
	if err != nil {
		t.Fatal(err)
	}
	for frame, want := range map[[2]byte]int{
		{2, 0}: 1, {2, 3}: 1, {0xff, 1}: 1, {1, 2}: 1, {0xff, 3}: 0, {1, 3}: 0,
	} {
		if got, err := vm.Run(frame[:]); got != want || err != nil {
			t.Errorf("address %#x, type %d: %d, %v", frame[0], frame[1], got, err)
		}
	}
}

// FuzzFilter: the program and Accepts say the same of any bytes.
func FuzzFilter(f *testing.F) {
	f.Add(aoeHeader(2, 0, 7), uint16(7), false)
	f.Add(aoeHeader(0xff, 8, 0xffff), uint16(7), true)
	f.Add(bytes.Repeat([]byte{0x88, 0xa2}, 12), uint16(0x88a2), true)
	f.Add([]byte{1, 2, 3}, uint16(0), false)
	f.Fuzz(func(t *testing.T, frame []byte, shelf uint16, announcements bool) {
		filter := &Filter{Shelf: shelf, Announcements: announcements}
		if p, a := verdict(t, filter, frame), filter.Accepts(frame); p != a {
			t.Errorf("%+v of % x: program %v, Accepts %v", filter, frame, p, a)
		}
	})
}
