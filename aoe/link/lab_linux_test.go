package link_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"clade/aoe/link"
	"clade/aoe/link/linktest"
)

// wire is a veth pair whose ends, both named "san0", are in network namespaces
// of their own. The namespaces have no name: they vanish with their last
// descriptor, also when the test is killed.
type wire struct {
	spaces  [2]netns.NsHandle
	handles [2]*netlink.Handle
	mtu     int
}

// missing skips the test for lack of a capability; in CI that is a failure.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI lacks %s", what)
	}
	t.Skipf("needs %s", what)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside runs do on a thread that is in namespace ns, and ends that thread if
// it cannot be brought back.
func inside(ns netns.NsHandle, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			panic(err)
		}
		defer home.Close()
		if err := netns.Set(ns); err != nil {
			panic(err)
		}
		defer func() {
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}()
		do()
	}()
	<-done
}

func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, e := netns.Get()
		if e != nil {
			err = e
			return
		}
		defer home.Close()
		if ns, err = netns.New(); err == nil && netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	if errors.Is(err, unix.EPERM) {
		missing(t, "CAP_SYS_ADMIN and CAP_NET_ADMIN for network namespaces")
	}
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	return ns
}

func newWire(t testing.TB, mtu int) *wire {
	t.Helper()
	w := &wire{mtu: mtu}
	for end := range w.spaces {
		w.spaces[end] = newNamespace(t)
		h, err := netlink.NewHandleAt(w.spaces[end])
		must(t, err)
		t.Cleanup(h.Close)
		w.handles[end] = h
	}
	w.plug(t)
	return w
}

// plug makes the veth pair.
func (w *wire) plug(t testing.TB) {
	t.Helper()
	must(t, w.handles[0].LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "san0", MTU: w.mtu},
		PeerName:      "san0",
		PeerNamespace: netlink.NsFd(w.spaces[1]),
		PeerMTU:       uint32(w.mtu),
	}))
	for end := range w.handles {
		must(t, w.handles[end].LinkSetUp(w.link(t, end, "san0")))
	}
}

func (w *wire) link(t testing.TB, end int, name string) netlink.Link {
	t.Helper()
	l, err := w.handles[end].LinkByName(name)
	must(t, err)
	return l
}

type openFunc func(link.Config) (link.Port, error)

// open opens a port at one end; cfg.Interface may name another one than san0.
func (w *wire) open(t testing.TB, end int, open openFunc, cfg link.Config) link.Port {
	t.Helper()
	if cfg.Interface == "" {
		cfg.Interface = "san0"
	}
	var port link.Port
	var err error
	inside(w.spaces[end], func() { port, err = open(cfg) })
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return port
}

func (w *wire) segment(open openFunc) *linktest.Segment {
	return &linktest.Segment{
		Open: func(t *testing.T, end int, cfg link.Config) link.Port {
			return w.open(t, end, open, cfg)
		},
		SetUp: func(t *testing.T, end int, up bool) {
			if up {
				must(t, w.handles[end].LinkSetUp(w.link(t, end, "san0")))
			} else {
				must(t, w.handles[end].LinkSetDown(w.link(t, end, "san0")))
			}
		},
		Remove:  func(t *testing.T, end int) { must(t, w.handles[end].LinkDel(w.link(t, end, "san0"))) },
		Restore: func(t *testing.T, end int) { w.plug(t) },
		At:      func(end int, do func()) { inside(w.spaces[end], do) },
	}
}

func TestConformanceSockets(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprintf("mtu=%d", mtu), func(t *testing.T) {
			linktest.Run(t, func(t *testing.T) *linktest.Segment {
				seg := newWire(t, mtu).segment(link.Open)
				seg.KernelTime, seg.NoAllocations = true, true
				return seg
			})
		})
	}
}

func TestConformanceRaw(t *testing.T) {
	linktest.Run(t, func(t *testing.T) *linktest.Segment {
		return newWire(t, 9000).segment(link.OpenRaw)
	})
}
