package initiator

import "clade/aoe"

// Mode is the initiator that a Device behaves like.
type Mode uint8

// The modes. The zero value is the library's own.
const (
	ModeLibrary Mode = iota // modern timing, see Config.RTOMinNs
	ModeLinux               // drivers/block/aoe, see LinuxTiming below
	ModeIPXE                // two sectors, one command at a time, same tag again
)

// Nanoseconds, for the constants below.
const (
	microsecond = int64(1000)
	millisecond = 1000 * microsecond
	second      = 1000 * millisecond
)

// never is a time that does not come.
const never = int64(1<<63 - 1)

// Config describes a Device. The zero value of everything but MAC, Shelf and
// Slot means the documented default.
type Config struct {
	MAC   aoe.MAC // source of all frames; frames for others are ignored
	Shelf uint16
	Slot  uint8
	Mode  Mode

	// MTUs has one entry per interface, in bytes without the Ethernet header.
	// Default: one interface of 1500.
	MTUs []int

	// LinuxTiming gives ModeLibrary the driver's timing (RTO = 2*avg + 8*dev
	// from 250 ms and 2 s, checked each 100 ms, no back-off) without its other
	// habits. ModeLinux implies it.
	LinuxTiming bool
	// KernelTags clears bit 31 of the tags. Tags with that bit are those of
	// user-land tools: a Linux driver on the same host ignores the answers.
	// ModeLinux implies it.
	KernelTags bool
	// IgnoreErrors drops AoE errors to data commands and goes on asking, as
	// the driver does. Otherwise every error but 3 (unavailable) is final.
	// ModeLinux implies it.
	IgnoreErrors bool
	// TagSeed is where the tags of config, mask and reserve commands start. A
	// target remembers (MAC, tag) for a minute or more, so a process must not
	// start where its former life did.
	TagSeed uint32

	MaxOut         int // frames in flight per path, at most; default 64
	MaxSectors     int // sectors per frame, at most; default what path and target allow
	RTOMinNs       int64
	RTOStartNs     int64
	RTOMaxNs       int64 // limit of the back-off, and of the estimate
	DeadNs         int64 // silence after which the device goes down; 0 never (ModeLinux: 180 s is the driver's default)
	DiscoverEachNs int64 // while no path is known or none answers; default 250 ms (ModeLinux: 60 s after the first)

	// OnSend is told of every frame that leaves for an operation: one call is
	// one copy that the target may execute. It must not call the Device.
	OnSend func(Copy)
}

// Copy is one frame that left.
type Copy struct {
	Op        *Op
	Tag       uint32
	LBA       uint64 // of this frame
	Sectors   int
	Number    int // 1 for the first copy of this frame, 2 for its first retransmission
	SentNs    int64
	Interface int
	Dst       aoe.MAC
}

func (c *Config) fill() {
	if len(c.MTUs) == 0 {
		c.MTUs = []int{1500}
	}
	if c.Mode == ModeLinux {
		c.LinuxTiming, c.KernelTags, c.IgnoreErrors = true, true, true
	}
	setDefault(&c.RTOMinNs, 20*millisecond)
	setDefault(&c.RTOStartNs, 250*millisecond)
	setDefault(&c.RTOMaxNs, 500*millisecond)
	if c.MaxOut <= 0 {
		c.MaxOut = 64
	}
	if c.Mode == ModeIPXE {
		c.MaxOut = 1
		if c.MaxSectors <= 0 || c.MaxSectors > 2 {
			c.MaxSectors = 2
		}
	}
	each := 250 * millisecond
	if c.Mode == ModeLinux {
		each = 60 * second
	}
	setDefault(&c.DiscoverEachNs, each)
}

func setDefault(v *int64, d int64) {
	if *v <= 0 {
		*v = d
	}
}
