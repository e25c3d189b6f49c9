package runtime

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"clade/membership"
)

// retransmitMin returns the least retransmission time-out of a connection in µs.
func retransmitMin(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	us := 0
	if cerr := raw.Control(func(fd uintptr) { us, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MIN_US) }); cerr != nil {
		t.Fatal(cerr)
	}
	if errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip("this kernel has no TCP_RTO_MIN_US (Linux 6.11)")
	}
	if err != nil {
		t.Fatal(err)
	}
	return us
}

func TestALostHeartbeatIsRepeatedBeforeTheNextOne(t *testing.T) {
	id := Identity{Node: 1, Cluster: newUUID()}
	conns := make(chan *peerConn, 1)
	m := newTestMesh(t, id, func(x any) bool {
		if up, ok := x.(connUp); ok {
			conns <- up.conn
		}
		return true
	})
	dialled, err := Transport{}.dial(context.Background(), m.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	if _, err := greet(dialled, hello{Hello: newHello(purposePeer, Identity{Node: 2, Cluster: id.Cluster}), To: 1}); err != nil {
		t.Fatal(err)
	}
	accepted := <-conns
	for side, c := range map[string]net.Conn{"dialled": dialled, "accepted": accepted.c} {
		if us := retransmitMin(t, c); int64(us)*1000 >= membership.DefaultHeartbeatNs || us == 0 {
			t.Errorf("%s: a lost segment is repeated after %d µs at the earliest", side, us)
		}
	}
}

func TestAPeersConnectionIsNotPaced(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set, got error
	var name string
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr")
	}); err != nil {
		t.Fatal(err)
	}
	if set != nil {
		t.Skip("this kernel has no BBR (or does not let us choose it)")
	}
	tune(c)
	if err := raw.Control(func(fd uintptr) {
		name, got = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); err != nil || got != nil {
		t.Fatal(err, got)
	}
	if name == "bbr" {
		t.Error("the connection is paced by BBR")
	}
}
