package link_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"clade/aoe/link"
)

// A poller sleeps on other descriptors besides its ports, and says which of them has something.
func TestAPollerWatchesOtherDescriptors(t *testing.T) {
	p, err := link.NewHoldingPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.Watches() {
		t.Fatal("it watches nothing")
	}
	pairs := make([][2]int, 2)
	sources := make([]*link.Source, 2)
	for i := range pairs {
		if pairs[i], err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pairs[i][0])
		defer unix.Close(pairs[i][1])
		sources[i] = &link.Source{FD: pairs[i][0]}
		p.Watch(sources[i])
	}
	look := func(timeoutNs int64, first, second bool) {
		t.Helper()
		if port, err := p.Wait(timeoutNs); port || err != nil {
			t.Fatalf("wait: %v, %v", port, err)
		}
		if sources[0].Readable != first || sources[1].Readable != second {
			t.Fatalf("readable %v and %v, want %v and %v", sources[0].Readable, sources[1].Readable, first, second)
		}
	}
	look(0, false, false)
	go func() { _, _ = unix.Write(pairs[1][1], []byte{1}) }() // a full socket is met below
	look(-1, false, true)
	look(0, false, true) // until it is read
	if n, err := unix.Read(pairs[1][0], make([]byte, 8)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	look(1e6, false, false)
	sources[0].Write = true
	look(-1, false, false)
	if !sources[0].Writable || sources[1].Writable {
		t.Fatal("only the first one was asked whether it can be written to")
	}
	sources[0].Write = false
	p.Wake()
	look(-1, false, false)
	if err := unix.Shutdown(pairs[0][1], unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	look(-1, true, false) // the end of a stream
	p.Unwatch(sources[0])
	look(1e6, false, false)
}
