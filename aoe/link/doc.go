// Package link is one Ethernet port as a batch interface: receive many
// frames, send many frames, never wait inside either. It is the only place
// where Clade touches a raw socket.
//
// Three implementations stand behind Port, and all of them pass the suite in
// linktest:
//
//	Open       Linux: AF_PACKET sockets, recvmmsg and sendmmsg, kernel
//	           receive times, a BPF filter. The default wherever it exists.
//	OpenRaw    portable: mdlayher/raw, one frame a system call.
//	Switch     an Ethernet switch in memory, with ports that behave like the
//	           others. Its core, Fabric, has no lock, queue or clock and serves
//	           a simulator that runs in one goroutine.
//
// A Poller sleeps until one of several ports has something, a time-out
// passes, or another goroutine calls Wake.
//
// # Frames and their time
//
// A frame begins with its destination address (14 bytes of Ethernet header,
// never a VLAN tag: a VLAN is its own interface, named in Config). RxFrame
// carries the time at which the kernel took the frame from the wire. A paused
// process finds frames in its socket that are seconds old; only this time can
// tell them from fresh ones, and a stale write executed late destroys data
// (docs of the cluster: intake age). Kernel times are CLOCK_REALTIME; Clock
// turns them into CLOCK_BOOTTIME, on which all else runs, and notices when
// somebody set the wall clock in between.
//
// # Addresses
//
// A serving MAC is joined with Join before it is announced. Frames for other
// addresses may still be delivered (a switch floods what it does not know, and
// a virtual Ethernet device filters nothing), so the receiver always compares
// the destination itself.
//
// # Losing frames
//
// Nothing here blocks or retries. A frame that does not fit a queue is dropped
// and counted in Stats: AoE retransmits.
//
// # Goroutines
//
// Receive is for one goroutine at a time and so is Send; the two may run at
// the same time. Everything else may be called from anywhere.
package link
