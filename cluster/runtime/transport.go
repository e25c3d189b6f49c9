package runtime

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = time.Second
	// userTimeout is how long sent bytes may stay unacknowledged before the kernel breaks a connection.
	userTimeout = 2 * time.Second
	// rtoMin is the least retransmission time-out. The kernel's own, 200 ms, is half a lease for one lost heartbeat whose repetition
	// is lost as well, or that nothing followed. It also bounds how long the peer delays its acknowledgements. Since Linux 6.11.
	rtoMin = 40 * time.Millisecond
	// unsentMax keeps bulk data out of the kernel's queue, where no heartbeat could overtake it.
	unsentMax = 256 << 10
)

// Transport is the one place where peers' connections are made; whoever wants TLS wraps both functions. The zero value is
// plain TCP.
type Transport struct {
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Listen func(addr string) (net.Listener, error)
}

func (t Transport) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if t.Dial != nil {
		return t.Dial(ctx, addr)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tune(c)
	return c, nil
}

func (t Transport) listen(addr string) (net.Listener, error) {
	if t.Listen != nil {
		return t.Listen(addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("runtime: cluster address: %w", err)
	}
	return l, nil
}

// tune sets what a peer's connection needs: no delay, early notice of a peer that is gone, and a short queue in the kernel.
// All of it is an optimisation, so what a kernel refuses is not an error.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMax)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MIN_US, int(rtoMin/time.Microsecond))
		dontPace(int(fd))
	})
}

// dontPace leaves BBR where that is the system's congestion control: it holds back what a peer waits for while it measures (for 0.2 s of
// each 10 s it has four segments under way) and paces what a cluster's network takes at once. Other choices of the administrator stay.
func dontPace(fd int) {
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil || !strings.HasPrefix(name, "bbr") {
		return
	}
	if unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic") != nil { // not loaded, or not allowed here
		_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	}
}
