package link

import (
	"errors"
	"fmt"

	"clade/aoe"
)

// EtherTypes that a port carries.
const (
	// EtherTypeAoE is ATA over Ethernet (AoEr11 section 2).
	EtherTypeAoE = 0x88A2
	// EtherTypeBeacon is the first local experimental EtherType (IEEE 802),
	// which carries the beacons between the nodes of a cluster.
	EtherTypeBeacon = 0x88B5
)

const (
	// HeaderBytes is the size of an untagged Ethernet header, the least that
	// can be sent. MTU does not count it.
	HeaderBytes = 14
	// FrameBytesMin is the least size on a real wire, without checksum. Network
	// cards pad up to it, virtual devices do not.
	FrameBytesMin = 60

	// tagBytes leaves room for what a driver might keep of an 802.1Q tag.
	tagBytes           = 4
	batchFramesDefault = 64
	batchFramesMax     = 1024
	rcvBufBytesDefault = 8 << 20
	sndBufBytesDefault = 4 << 20
	mtuMin             = 68
	mtuMax             = 65535
)

// What Receive, Send and Reopen report besides frames. Errors are wrapped with
// the interface's name: compare with errors.Is.
var (
	// ErrDown: the interface was taken down. Reported once for each time; the
	// port goes on by itself when the interface comes up again.
	ErrDown = errors.New("interface is down")
	// ErrGone: the interface was removed. The port stays silent until Reopen
	// succeeds.
	ErrGone = errors.New("interface is gone")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("port is closed")
)

// RxFrame is one received frame.
type RxFrame struct {
	// Data is the frame from its destination address on, with whatever padding
	// or garbage followed it on the wire. It belongs to the port and is valid
	// until the next Receive on that port.
	Data []byte
	// TimeNs is when the kernel received the frame, CLOCK_REALTIME in
	// nanoseconds. See OpenRaw for what the portable port can promise.
	TimeNs int64
	// Type is the frame's EtherType: EtherTypeAoE or EtherTypeBeacon.
	Type uint16
}

// TxFrame is one frame to send: Header followed by the slices of Payload.
// Header starts with the Ethernet header; either may hold more or less of what
// follows. All slices stay the caller's, who may change them when Send returns.
type TxFrame struct {
	Header  []byte
	Payload [][]byte
}

// Bytes returns the size of the whole frame.
func (f *TxFrame) Bytes() int {
	n := len(f.Header)
	for _, p := range f.Payload {
		n += len(p)
	}
	return n
}

// appendTo gathers the frame behind dst.
func (f *TxFrame) appendTo(dst []byte) []byte {
	dst = append(dst, f.Header...)
	for _, p := range f.Payload {
		dst = append(dst, p...)
	}
	return dst
}

// State is what is known about a port's interface.
type State uint8

// States. The zero value is none of them.
const (
	// StateUp: the interface is up and has a carrier.
	StateUp State = iota + 1
	// StateDown: the interface exists but is down or has no carrier.
	StateDown
	// StateGone: the interface the port was opened on exists no more, even if
	// another one of the same name does. Reopen is needed.
	StateGone
)

// String returns the state in one word.
func (s State) String() string {
	switch s {
	case StateUp:
		return "up"
	case StateDown:
		return "down"
	case StateGone:
		return "gone"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Stats counts since the port was opened; Reopen does not reset it.
type Stats struct {
	RxFrames  uint64 // handed out by Receive
	RxBytes   uint64
	RxBatches uint64 // calls of Receive that handed out anything
	RxDropped uint64 // did not fit the receive queue, or waited there through a stall (OpenRaw)
	RxBad     uint64 // longer than the MTU allows, or without a receive time
	TxFrames  uint64 // accepted by the interface
	TxBytes   uint64
	TxDropped uint64 // no room, or no link
	TxBad     uint64 // shorter than an Ethernet header or longer than the MTU allows

	RcvBufBytes    int // what the kernel granted; 0 where that is unknown
	SndBufBytes    int
	RxQueueFrames  int  // how many frames of full MTU the receive queue holds, about
	JoinedMACs     int  // addresses now joined
	Promiscuous    bool // some joined address needed promiscuous mode
	InterfaceIndex int
}

// Config says how to open a port. The zero value of each field but Interface
// is the default.
type Config struct {
	// Interface says which interface: its name ("eth1"), its MAC address
	// ("02:42:0a:01:00:02"), or an IP prefix in which it has an address
	// ("10.7.0.0/16"): names of container interfaces change when a network is
	// attached again. Looked up by Open and by every Reopen.
	Interface string
	// Filter lets only requests for one shelf through, as a target wants; nil
	// lets every AoE frame through, as an initiator needs.
	Filter *Filter
	// Beacons also receives frames of EtherTypeBeacon. Sending them needs no
	// option.
	Beacons bool
	// BatchFrames is the most that one Receive returns and one system call
	// sends. Default 64, at most 1024.
	BatchFrames int
	// RcvBufBytes and SndBufBytes size the kernel's queues, counted as the
	// kernel does, with its overhead. Default 8 MiB and 4 MiB. What was granted
	// is in Stats: an unprivileged process gets no more than twice
	// net.core.rmem_max.
	RcvBufBytes int
	SndBufBytes int
}

// withDefaults returns the configuration with defaults filled in, or what is
// wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Interface == "" {
		return c, errors.New("link: no interface named")
	}
	if c.BatchFrames == 0 {
		c.BatchFrames = batchFramesDefault
	}
	if c.BatchFrames < 0 || c.BatchFrames > batchFramesMax {
		return c, fmt.Errorf("link: %s: batch of %d frames, want 1 to %d", c.Interface, c.BatchFrames, batchFramesMax)
	}
	if c.RcvBufBytes == 0 {
		c.RcvBufBytes = rcvBufBytesDefault
	}
	if c.SndBufBytes == 0 {
		c.SndBufBytes = sndBufBytesDefault
	}
	if c.RcvBufBytes < 0 || c.SndBufBytes < 0 || c.RcvBufBytes > 1<<30 || c.SndBufBytes > 1<<30 {
		return c, fmt.Errorf("link: %s: socket buffers of %d and %d bytes, want at most 1 GiB", c.Interface, c.RcvBufBytes, c.SndBufBytes)
	}
	return c, nil
}

// Port is one Ethernet port. See the package comment for goroutines.
type Port interface {
	// Receive fills frames with what has arrived and returns how many; 0 and
	// no error when there is nothing. It never waits. What the previous call
	// returned is overwritten. At most Config.BatchFrames are returned; the
	// queue is only known to be empty when none is.
	// Errors: ErrDown, ErrGone (each once), ErrClosed.
	Receive(frames []RxFrame) (int, error)

	// Send passes the frames on in their order and returns how many were
	// accepted. It never waits: what does not fit is dropped and counted, which
	// is no error, and so is a frame of an impossible size. When Send returns,
	// nothing of frames is referred to any more.
	// Errors: ErrDown, ErrGone, ErrClosed; the rest of frames was dropped then.
	Send(frames []TxFrame) (int, error)

	// Join makes the interface accept unicast frames for mac, besides its own
	// address. Joining again does nothing. A join outlives link loss and Reopen.
	Join(mac aoe.MAC) error
	// Leave undoes Join; leaving what was never joined does nothing.
	Leave(mac aoe.MAC) error

	// State looks the interface up and returns its state; it also brings MTU
	// up to date. Ask a few times a second: an interface can vanish without
	// Receive ever hearing of it. Costs a few system calls.
	State() State
	// Reopen looks Config.Interface up again and starts afresh on what it
	// finds, with all joined addresses. Frames queued until then are lost.
	// Harmless when nothing is wrong.
	Reopen() error

	// Name is the interface's name, MAC its own address, MTU the largest
	// payload behind the Ethernet header: as of the last Open, Reopen or State.
	Name() string
	MAC() aoe.MAC
	MTU() int

	// Stats returns the counters.
	Stats() Stats
	// Close releases the port. A Poller that sleeps on it wakes up.
	Close() error

	// readable appends the descriptors to sleep on, if the port has any, and
	// says whether Receive has something already. For Poller.
	readable(fds []int) ([]int, bool)
	// watch sets what the port calls when something arrived at a port without
	// descriptors, or when its descriptors changed. nil stops that.
	watch(ring func())
}
