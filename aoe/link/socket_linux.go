package link

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"clade/aoe"
)

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// openSocket returns a packet socket for one EtherType on one interface. It
// binds last: until then such a socket receives nothing, so no frame can come
// in that the filter has not seen or that has no time.
func openSocket(cfg *Config, ifindex int, etherType uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if err == unix.EPERM {
			return -1, fmt.Errorf("packet socket: %w (needs CAP_NET_RAW)", err)
		}
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	if err := setUpSocket(fd, cfg, ifindex, etherType); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUpSocket(fd int, cfg *Config, ifindex int, etherType uint16) error {
	var filter *Filter
	if etherType == EtherTypeAoE {
		filter = cfg.Filter
		growBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.RcvBufBytes)
		growBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SndBufBytes)
	}
	prog, err := assemble(ownVLAN(), filter)
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	if err := attachFilter(fd, prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1); err != nil {
		return fmt.Errorf("receive times (needs Linux 5.1): %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(etherType), Ifindex: ifindex}); err != nil {
		return fmt.Errorf("bind to interface %d: %w", ifindex, err)
	}
	return nil
}

// growBuffer asks for a buffer of n bytes, beyond the system's limit if this
// process may (CAP_NET_ADMIN). The kernel doubles what it is told and counts
// its overhead in; n means the doubled number. What came of it is read back for
// Stats: a small buffer loses frames but is no reason not to start.
func growBuffer(fd, force, plain, n int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, n/2) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, n/2)
	}
}

func attachFilter(fd int, prog []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(prog))
	for i, ins := range prog {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// boundIndex returns the interface a packet socket is bound to: -1 once that
// interface was removed, after which the socket is dead for ever.
func boundIndex(fd int) int {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return -1
	}
	ll, ok := sa.(*unix.SockaddrLinklayer)
	if !ok {
		return -1
	}
	return ll.Ifindex
}

// pendingError takes a socket's pending error back.
func pendingError(fd int) {
	_, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
}

// lookUp asks the kernel about interface ifindex, in the network namespace of
// the socket fd.
func lookUp(fd, ifindex int) (linkFacts, error) {
	var facts linkFacts
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return facts, err
	}
	ifr.SetUint32(uint32(ifindex))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return facts, err
	}
	facts.name = ifr.Name()
	if ifr, err = unix.NewIfreq(facts.name); err != nil {
		return facts, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr); err != nil {
		return facts, err
	}
	facts.mtu = int(ifr.Uint32())
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return facts, err
	}
	flags := ifr.Uint16()
	facts.up = flags&unix.IFF_UP != 0
	facts.lower = facts.up && carrier(fd, facts.name, flags&unix.IFF_RUNNING != 0)
	return facts, nil
}

// carrier asks the driver for the carrier. The flag IFF_RUNNING tells the same
// up to a second later (the kernel's link watch), and is only taken for drivers
// that do not know.
func carrier(fd int, name string, running bool) bool {
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_GLINK}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte // a union of 24 bytes on 64 bits, 16 on 32
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return running
	}
	return value.data != 0
}

// membership adds or drops one address, or promiscuous mode.
func membership(fd, op, ifindex int, kind uint16, mac aoe.MAC) error {
	mreq := unix.PacketMreq{Ifindex: int32(ifindex), Type: kind}
	if kind == unix.PACKET_MR_UNICAST {
		mreq.Alen = uint16(len(mac))
		copy(mreq.Address[:], mac[:])
	}
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, op, &mreq)
}

// joins are the addresses a port has joined. They hang on a socket of their
// own, so that replacing the sockets for frames does not touch them.
type joins struct {
	macs        []aoe.MAC
	promiscuous bool // promiscuous mode is on, for those that the card refused
}

// add joins mac on interface ifindex: by its address filter, else by
// promiscuous mode. That is never taken back while anything is joined.
func (j *joins) add(fd, ifindex int, mac aoe.MAC) error {
	if membership(fd, unix.PACKET_ADD_MEMBERSHIP, ifindex, unix.PACKET_MR_UNICAST, mac) == nil || j.promiscuous {
		return nil
	}
	if err := membership(fd, unix.PACKET_ADD_MEMBERSHIP, ifindex, unix.PACKET_MR_PROMISC, mac); err != nil {
		return err
	}
	j.promiscuous = true
	return nil
}

// drop leaves mac, and promiscuous mode with the last address. Errors mean that
// the kernel knows of no such membership: the interface is gone, or the address
// was received by promiscuous mode.
func (j *joins) drop(fd, ifindex int, mac aoe.MAC) {
	_ = membership(fd, unix.PACKET_DROP_MEMBERSHIP, ifindex, unix.PACKET_MR_UNICAST, mac)
	if j.promiscuous && len(j.macs) == 0 {
		_ = membership(fd, unix.PACKET_DROP_MEMBERSHIP, ifindex, unix.PACKET_MR_PROMISC, mac)
		j.promiscuous = false
	}
}

// move joins everything on another interface. The memberships on the old one
// are left; if it is gone, they went with it.
func (j *joins) move(fd, from, to int) error {
	for _, mac := range j.macs {
		_ = membership(fd, unix.PACKET_DROP_MEMBERSHIP, from, unix.PACKET_MR_UNICAST, mac)
	}
	if j.promiscuous {
		_ = membership(fd, unix.PACKET_DROP_MEMBERSHIP, from, unix.PACKET_MR_PROMISC, aoe.MAC{})
		j.promiscuous = false
	}
	for _, mac := range j.macs {
		if err := j.add(fd, to, mac); err != nil {
			return fmt.Errorf("join %v: %w", mac, err)
		}
	}
	return nil
}

// isGone reports whether an error of a socket or an ioctl means that the
// interface does not exist.
func isGone(errno syscall.Errno) bool { return errno == unix.ENXIO || errno == unix.ENODEV }

// syscallError gives an errno the shape of other errors.
func syscallError(name string, errno syscall.Errno) error { return os.NewSyscallError(name, errno) }
