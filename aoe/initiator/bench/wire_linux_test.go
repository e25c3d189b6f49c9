package bench

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"clade/aoe/link"
)

// openCable opens both ends of a cable in a network namespace without a name, which ends with the two ports.
func openCable(t *testing.T, mtu int) (a, b link.Port) {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		defer ns.Close()
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a", MTU: mtu}, PeerName: "b", PeerMTU: uint32(mtu)})
		for _, name := range []string{"a", "b"} {
			l, lerr := netlink.LinkByName(name)
			if err = errors.Join(err, lerr); err == nil {
				err = netlink.LinkSetUp(l)
			}
		}
		if err == nil {
			a, err = link.Open(link.Config{Interface: "a"})
		}
		if err == nil {
			b, err = link.Open(link.Config{Interface: "b"})
		}
		failed <- err
	}()
	if err := <-failed; errors.Is(err, unix.EPERM) {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI lacks root, for network namespaces")
		}
		t.Skip("needs root, for network namespaces")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestNothingIsAllocatedForAnOperation runs both sides over real sockets.
func TestNothingIsAllocatedForAnOperation(t *testing.T) {
	for name, cfg := range map[string]Config{
		"small reads":     {Op: Read, Depth: 16},
		"small writes":    {Op: Write, Depth: 16, MACs: macs(4)},
		"large transfers": {Op: Mixed, Depth: 2, SizeBytes: 1 << 20, Sequential: true},
	} {
		t.Run(name, func(t *testing.T) {
			mine, its := openCable(t, 9000)
			null, err := NewNull(its, 9, 1, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- null.Serve() }()
			cfg.Ports, cfg.Shelf, cfg.Slot = []link.Port{mine}, 9, 1
			cfg = cfg.withDefaults()
			e, err := newEngine(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.close()
			if err := errors.Join(e.identify(), e.layOut()); err != nil {
				t.Fatal(err)
			}
			p := phase{op: cfg.Op, size: cfg.SizeBytes, random: !cfg.Sequential, submit: true}
			p.endNs = e.clock() + testNs
			e.begin(p)
			e.reset()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p.endNs = e.clock() + testNs
			e.begin(p)
			runtime.ReadMemStats(&after)
			frames := null.Served()
			if err := e.drain(); err != nil {
				t.Fatal(err)
			}
			null.Stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			allocated := after.Mallocs - before.Mallocs
			t.Logf("%d operations, %d frames since the beginning, %d allocations", e.ops, frames, allocated)
			// The runtime allocates a little of its own, for its timers and the collector.
			if e.ops == 0 || allocated > 200 && allocated*20 > e.ops {
				t.Errorf("%d allocations for %d operations", allocated, e.ops)
			}
		})
	}
}
