package bench

import (
	"errors"
	"fmt"
	"slices"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
)

// Op is what is measured. Zero is invalid.
type Op uint8

// The operations.
const (
	Read Op = iota + 1
	Write
	Mixed // reads and writes, see Config.ReadPercent
)

func (o Op) String() string {
	names := [...]string{"invalid", "read", "write", "mixed"}
	if int(o) < len(names) {
		return names[o]
	}
	return "invalid"
}

// ParseOp returns the operation of a name.
func ParseOp(s string) (Op, error) {
	for _, o := range []Op{Read, Write, Mixed} {
		if o.String() == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("--op %q: choose read, write or mixed", s)
}

// Writes says whether the operation destroys what a volume holds.
func (o Op) Writes() bool { return o == Write || o == Mixed }

// Bounds of a run.
const (
	SizeBytesMax = 1 << 20
	depthMax     = 1024
	macsMax      = 1024
	volumesMax   = 256
	sessionsMax  = 4096
	buffersMax   = 1 << 30 // bytes of all operations in flight together
	secondNs     = int64(1e9)
)

// Volume is where a volume is found.
type Volume struct {
	Shelf uint16
	Slot  uint8
}

func (v Volume) String() string { return fmt.Sprintf("e%d.%d", v.Shelf, v.Slot) }

// Config says what to measure. Zero fields have the documented defaults.
type Config struct {
	Ports []link.Port // at least one; they stay the caller's
	Shelf uint16
	Slot  uint8
	// Also are further volumes. Every initiator uses all volumes, each with a session and a window of its own, and of each the same
	// span; operations in flight are those of each initiator on each volume.
	Also []Volume
	// MACs are the initiators, each with a session and a window of its own. Default: the first port's address.
	MACs []aoe.MAC

	Op          Op
	ReadPercent int // of Mixed; default 50
	SizeBytes   int // of an operation; default 4096
	Depth       int // operations in flight per MAC; default 1
	// TotalDepth, if not 0, is how many operations are in flight in all, instead of Depth: whatever ends, the next initiator and volume
	// in turn get the next operation.
	TotalDepth int
	Sequential bool
	StartBytes uint64 // where the span begins
	SpanBytes  uint64 // default: to the end of the volume
	Fill       bool   // write all of the span once before anything is measured
	// Places, if not 0, is how many places of the span are used, one at random in each of so many equal parts: what a small share of
	// a large volume looks like that is spread over all of it. Filling writes these only.
	Places uint64
	Seed   uint64 // of the places; runs of one seed go to the same ones, so that a second one meets warm caches

	WarmUpNs  int64 // not counted; default 0
	MeasureNs int64 // default 10 s
	TimeoutNs int64 // an operation that takes longer fails the run; default 30 s
	MaxOut    int   // frames in flight per MAC and path; default 64, as Linux' aoe_maxout
	// RTOMinNs is the least time after which a frame is sent again; default 100 ms, the tick of Linux' driver. A target that is
	// merely busy then gets no copies to answer as well.
	RTOMinNs int64

	// Pids are processes of the target whose processor time is to be measured.
	Pids []int
	// Tell, if not nil, is told about once a second how far the run is. The run waits for it.
	Tell func(Progress)
	// Stop, if not nil, ends the run early, with an error, once it is closed.
	Stop <-chan struct{}
}

// Progress is how far a run is.
type Progress struct {
	Phase   string // "fill", "warm-up", "measure"
	Seconds float64
	Ops     uint64 // ended in the last second or so
	IOPS    float64
	Done    float64 // share of the phase, 0..1
}

// withDefaults returns the configuration with defaults filled in.
func (c Config) withDefaults() Config {
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	setInt(&c.SizeBytes, 4096)
	setInt(&c.Depth, 1)
	setInt(&c.ReadPercent, 50)
	setInt(&c.MaxOut, 64)
	if c.MeasureNs == 0 {
		c.MeasureNs = 10 * secondNs
	}
	if c.RTOMinNs == 0 {
		c.RTOMinNs = secondNs / 10
	}
	if c.TimeoutNs == 0 {
		c.TimeoutNs = 30 * secondNs
	}
	if len(c.MACs) == 0 && len(c.Ports) > 0 {
		c.MACs = []aoe.MAC{c.Ports[0].MAC()}
	}
	return c
}

// Validate says what is wrong with a configuration, in the words of the command's flags.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(f string, a ...any) { errs = append(errs, fmt.Errorf(f, a...)) }
	if c.Op < Read || c.Op > Mixed {
		bad("--op: choose read, write or mixed")
	}
	if c.SizeBytes < initiator.SectorBytes || c.SizeBytes > SizeBytesMax || c.SizeBytes%initiator.SectorBytes != 0 {
		bad("--size: %d bytes: choose a multiple of 512, up to 1MiB", c.SizeBytes)
	}
	if c.Depth < 1 || c.Depth > depthMax {
		bad("--depth %d: choose 1 to %d", c.Depth, depthMax)
	}
	if c.TotalDepth < 0 || c.TotalDepth > depthMax {
		bad("--total-depth %d: choose 1 to %d", c.TotalDepth, depthMax)
	}
	if n := len(c.volumes()); n > volumesMax {
		bad("%d volumes: choose 1 to %d", n, volumesMax)
	}
	for i, v := range c.volumes() {
		if slices.Contains(c.volumes()[:i], v) {
			bad("%v is named twice", v)
		}
	}
	if n := len(c.MACs); n > macsMax {
		bad("--macs %d: choose 1 to %d", n, macsMax)
	}
	if c.ReadPercent < 1 || c.ReadPercent > 99 {
		bad("--read-percent %d: choose 1 to 99", c.ReadPercent)
	}
	if c.MaxOut < 1 || c.MaxOut > 65535 {
		bad("--max-out %d: choose 1 to 65535", c.MaxOut)
	}
	if c.StartBytes%initiator.SectorBytes != 0 {
		bad("--start %d: choose a multiple of 512", c.StartBytes)
	}
	if c.MeasureNs < 0 || c.WarmUpNs < 0 || c.TimeoutNs < 0 {
		bad("--seconds, --warm-up, --timeout: a time cannot be negative")
	}
	if n := len(c.MACs) * len(c.volumes()); n > sessionsMax {
		bad("--macs x volumes: %d are more than %d", n, sessionsMax)
	} else if len(errs) == 0 && int64(n)*int64(c.Depth)*int64(c.SizeBytes) > buffersMax {
		bad("--macs x --depth x --size: %d operations of %d bytes are more than 1GiB in flight", n*c.Depth, c.SizeBytes)
	}
	return errors.Join(errs...)
}

// volumes returns all volumes, the first one first.
func (c *Config) volumes() []Volume { return append([]Volume{{c.Shelf, c.Slot}}, c.Also...) }
