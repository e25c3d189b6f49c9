package link_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clade/aoe"
	"clade/aoe/link"
	"clade/aoe/link/linktest"
)

// sendAll sends whole frames.
func sendAll(t testing.TB, port link.Port, frames ...[]byte) {
	t.Helper()
	tx := make([]link.TxFrame, len(frames))
	for i := range frames {
		tx[i].Header = frames[i]
	}
	if n, err := port.Send(tx); n != len(tx) || err != nil {
		t.Fatalf("sent %d of %d: %v", n, len(tx), err)
	}
}

// next waits for one frame and returns a copy.
func next(t testing.TB, port link.Port) []byte {
	t.Helper()
	poller, err := link.NewPoller(port)
	must(t, err)
	defer poller.Close()
	batch := make([]link.RxFrame, 1)
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		n, err := port.Receive(batch)
		must(t, err)
		if n > 0 {
			return append([]byte(nil), batch[0].Data...)
		}
		_, err = poller.Wait(1e9)
		must(t, err)
	}
	t.Fatalf("no frame came: %+v", port.Stats())
	return nil
}

var openers = map[string]openFunc{"sockets": link.Open, "raw": link.OpenRaw}

// tagged puts an 802.1Q tag into a frame.
func tagged(frame []byte, vlan uint16) []byte {
	b := append([]byte(nil), frame[:12]...)
	b = append(b, 0x81, 0x00, byte(vlan>>8), byte(vlan))
	return append(b, frame[12:]...)
}

// TestForeignVLAN: the kernel strips tags and gives frames of a VLAN without a
// device to sockets of the parent. Its broadcasts must not be taken for ours;
// those with only a priority are ours.
func TestForeignVLAN(t *testing.T) {
	for name, open := range openers {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, 1500)
			a, b := w.open(t, 0, link.Open, link.Config{}), w.open(t, 1, open, link.Config{Filter: &link.Filter{Shelf: 7}})
			defer a.Close()
			defer b.Close()
			frame := func(n uint32) []byte { return linktest.Frame(aoe.Broadcast, a.MAC(), 0, 7, n, 64) }
			sendAll(t, a, tagged(frame(1), 100), tagged(frame(2), 0x6000), tagged(frame(3), 0x6001), frame(4))
			for _, want := range []uint32{2, 4} {
				if got := next(t, b); string(got) != string(frame(want)) {
					t.Fatalf("received % x instead of frame %d", got[:24], want)
				}
			}
		})
	}
}

// TestVLANDevice: a VLAN is an interface like others, tags are the kernel's
// business, and the parent sees none of it.
func TestVLANDevice(t *testing.T) {
	for name, open := range openers {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, 9000)
			var vlans, parents [2]link.Port
			for end := range vlans {
				parent := w.link(t, end, "san0").Attrs().Index
				err := w.handles[end].LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "san0.100", ParentIndex: parent}, VlanId: 100})
				if errors.Is(err, unix.EOPNOTSUPP) {
					// No package can install this: also in CI the test cannot run on such a kernel.
					t.Skip("this kernel has no VLAN devices (CONFIG_VLAN_8021Q)")
				}
				must(t, err)
				must(t, w.handles[end].LinkSetUp(w.link(t, end, "san0.100")))
				vlans[end] = w.open(t, end, open, link.Config{Interface: "san0.100"})
				defer vlans[end].Close()
				parents[end] = w.open(t, end, open, link.Config{})
				defer parents[end].Close()
			}
			if mtu := vlans[0].MTU(); mtu != 9000 {
				t.Fatalf("MTU %d", mtu)
			}
			frame := func(n uint32, size int) []byte {
				return linktest.Frame(vlans[1].MAC(), vlans[0].MAC(), 0, 7, n, size)
			}
			sendAll(t, vlans[0], frame(1, 60), frame(2, 9014))
			sendAll(t, parents[0], frame(3, 9014))
			if got := next(t, vlans[1]); string(got) != string(frame(1, 60)) {
				t.Errorf("first on the VLAN: % x", got[:24])
			}
			if got := next(t, vlans[1]); string(got) != string(frame(2, 9014)) {
				t.Errorf("second on the VLAN: % x, %d bytes", got[:24], len(got))
			}
			if got := next(t, parents[1]); string(got) != string(frame(3, 9014)) {
				t.Errorf("first on the parent: % x, %d bytes", got[:24], len(got))
			}
		})
	}
}

// TestMTUGrows: an administrator raises the MTU under an open port. What was
// too long for the buffers is lost and counted, the next frame is whole.
func TestMTUGrows(t *testing.T) {
	w := newWire(t, 1500)
	a, b := w.open(t, 0, link.Open, link.Config{}), w.open(t, 1, link.Open, link.Config{})
	defer a.Close()
	defer b.Close()
	for end := range w.handles {
		must(t, w.handles[end].LinkSetMTU(w.link(t, end, "san0"), 9000))
	}
	frame := func(n uint32, size int) []byte { return linktest.Frame(b.MAC(), a.MAC(), 0, 7, n, size) }
	sendAll(t, a, frame(1, 60), frame(2, 9014), frame(3, 60))
	for _, want := range []uint32{1, 3} {
		if got := next(t, b); string(got) != string(frame(want, 60)) {
			t.Fatalf("received % x instead of frame %d", got[:24], want)
		}
	}
	sendAll(t, a, frame(4, 9014))
	if got := next(t, b); string(got) != string(frame(4, 9014)) {
		t.Errorf("received %d bytes", len(got))
	}
	if s := b.Stats(); s.RxBad != 1 || s.RxFrames != 3 || b.MTU() != 9000 {
		t.Errorf("%d bad, %d frames, MTU %d", s.RxBad, s.RxFrames, b.MTU())
	}
}

// TestReceiveQueue: the queue asked for is granted, and holds at least as many
// frames as Stats claims.
func TestReceiveQueue(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		for _, rcvBuf := range []int{1 << 20, 4 << 20} {
			t.Run(fmt.Sprintf("mtu=%d/buffer=%d", mtu, rcvBuf), func(t *testing.T) {
				w := newWire(t, mtu)
				a, b := w.open(t, 0, link.Open, link.Config{}), w.open(t, 1, link.Open, link.Config{RcvBufBytes: rcvBuf})
				defer a.Close()
				defer b.Close()
				s := b.Stats()
				if s.RcvBufBytes != rcvBuf {
					t.Errorf("granted %d", s.RcvBufBytes)
				}
				for n := range s.RxQueueFrames {
					sendAll(t, a, linktest.Frame(b.MAC(), a.MAC(), 0, 7, uint32(n), mtu+link.HeaderBytes))
				}
				if dropped := b.Stats().RxDropped; dropped != 0 {
					t.Errorf("of %d frames that fit %d were dropped", s.RxQueueFrames, dropped)
				}
			})
		}
	}
}

// TestResolve: the three ways to name an interface, and what is no answer.
func TestResolve(t *testing.T) {
	w := newWire(t, 1500)
	san := w.link(t, 0, "san0")
	addr, err := netlink.ParseAddr("10.7.3.1/24")
	must(t, err)
	must(t, w.handles[0].AddrAdd(san, addr))
	must(t, w.handles[0].LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "other"}, PeerName: "other-peer"}))
	inside(w.spaces[0], func() {
		for _, spec := range []string{"san0", san.Attrs().HardwareAddr.String(), "10.7.0.0/16"} {
			if ifi, err := link.Resolve(spec); err != nil || ifi.Name != "san0" {
				t.Errorf("%s: %+v, %v", spec, ifi, err)
			}
		}
		for _, spec := range []string{"san9", "02:ae:00:00:00:99", "10.8.0.0/16", ""} {
			if ifi, err := link.Resolve(spec); !errors.Is(err, link.ErrGone) {
				t.Errorf("%s: %+v, %v", spec, ifi, err)
			}
		}
	})
	must(t, w.handles[0].AddrAdd(w.link(t, 0, "other"), &netlink.Addr{IPNet: addr.IPNet}))
	inside(w.spaces[0], func() {
		if ifi, err := link.Resolve("10.7.0.0/16"); err == nil {
			t.Errorf("two interfaces match, got %s", ifi.Name)
		}
	})
}

// TestReopenFindsRenamedInterface: a container's interface comes back under
// another name; the port finds it by its network.
func TestReopenFindsRenamedInterface(t *testing.T) {
	w := newWire(t, 1500)
	addr, err := netlink.ParseAddr("10.7.3.1/24")
	must(t, err)
	must(t, w.handles[1].AddrAdd(w.link(t, 1, "san0"), addr))
	port := w.open(t, 1, link.Open, link.Config{Interface: "10.7.3.0/24"})
	defer port.Close()
	old := port.Stats().InterfaceIndex
	must(t, w.handles[1].LinkDel(w.link(t, 1, "san0")))
	w.plug(t)
	san := w.link(t, 1, "san0")
	must(t, w.handles[1].LinkSetDown(san))
	must(t, w.handles[1].LinkSetName(san, "san5"))
	must(t, w.handles[1].LinkSetUp(san))
	must(t, w.handles[1].AddrAdd(san, addr))
	inside(w.spaces[1], func() { must(t, port.Reopen()) })
	if port.Name() != "san5" || port.State() != link.StateUp || port.Stats().InterfaceIndex == old {
		t.Errorf("on %s, %v, index %d (was %d)", port.Name(), port.State(), port.Stats().InterfaceIndex, old)
	}
	a := w.open(t, 0, link.Open, link.Config{})
	defer a.Close()
	frame := linktest.Frame(port.MAC(), a.MAC(), 0, 7, 1, 60)
	sendAll(t, a, frame)
	if got := next(t, port); string(got) != string(frame) {
		t.Errorf("received % x", got)
	}
}

// TestPeerUnplugged: the other end goes down; the carrier is lost at once, also
// in the eyes of State, and nothing is an error.
func TestPeerUnplugged(t *testing.T) {
	for name, open := range openers {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, 1500)
			a, b := w.open(t, 0, open, link.Config{}), w.open(t, 1, link.Open, link.Config{})
			defer a.Close()
			defer b.Close()
			must(t, w.handles[1].LinkSetDown(w.link(t, 1, "san0")))
			if state := a.State(); state != link.StateDown {
				t.Errorf("state %v", state)
			}
			if n, err := a.Receive(make([]link.RxFrame, 1)); n != 0 || err != nil {
				t.Errorf("receive: %d, %v", n, err)
			}
			if _, err := a.Send([]link.TxFrame{{Header: linktest.Frame(b.MAC(), a.MAC(), 0, 7, 1, 60)}}); err != nil {
				t.Errorf("send: %v", err)
			}
			must(t, w.handles[1].LinkSetUp(w.link(t, 1, "san0")))
			if state := a.State(); state != link.StateUp {
				t.Errorf("state %v", state)
			}
		})
	}
}

// TestJoinReachesInterface: a joined address is in the interface's filter, once,
// and leaves with Leave and with Close. Virtual devices have no filter and show
// it as promiscuity.
func TestJoinReachesInterface(t *testing.T) {
	w := newWire(t, 1500)
	port := w.open(t, 0, link.Open, link.Config{})
	promiscuity := func() int { return w.link(t, 0, "san0").Attrs().Promisc }
	if n := promiscuity(); n != 0 {
		t.Fatalf("promiscuity %d before", n)
	}
	one, two := aoe.MAC{2, 0xae, 0, 0, 0, 1}, aoe.MAC{2, 0xae, 0, 0, 0, 2}
	must(t, port.Join(one))
	must(t, port.Join(two))
	if n := promiscuity(); n == 0 {
		t.Error("joined addresses did not reach the interface")
	}
	must(t, port.Leave(one))
	if n := promiscuity(); n == 0 {
		t.Error("leaving one of two left both")
	}
	must(t, port.Leave(two))
	if n := promiscuity(); n != 0 {
		t.Errorf("promiscuity %d after leaving", n)
	}
	must(t, port.Join(one))
	inside(w.spaces[0], func() { must(t, port.Reopen()) })
	must(t, port.Leave(one))
	if n := promiscuity(); n != 0 {
		t.Errorf("promiscuity %d after reopening and leaving", n)
	}
	must(t, port.Join(one))
	must(t, port.Close())
	if n := promiscuity(); n != 0 {
		t.Errorf("promiscuity %d after closing", n)
	}
}

// TestOpenRefuses: what cannot be opened says why.
func TestOpenRefuses(t *testing.T) {
	w := newWire(t, 1500)
	for name, open := range openers {
		inside(w.spaces[0], func() {
			for _, cfg := range []link.Config{{}, {Interface: "san9"}, {Interface: "san0", BatchFrames: -1}, {Interface: "san0", RcvBufBytes: -1}} {
				if port, err := open(cfg); err == nil {
					port.Close()
					t.Errorf("%s: %+v was opened", name, cfg)
				}
			}
		})
	}
}
