package link

import (
	"sync/atomic"

	"clade/aoe"
)

// linkFacts is what the kernel says of an interface.
type linkFacts struct {
	name  string
	mac   aoe.MAC
	mtu   int
	up    bool // taken up by its administrator
	lower bool // and has a carrier
}

// counters are a port's Stats in the making. They are added to once a batch.
type counters struct {
	rxFrames, rxBytes, rxBatches, rxDropped, rxBad atomic.Uint64
	txFrames, txBytes, txDropped, txBad            atomic.Uint64
}

func (c *counters) received(frames, bytes, bad int) {
	if frames > 0 {
		c.rxFrames.Add(uint64(frames))
		c.rxBytes.Add(uint64(bytes))
		c.rxBatches.Add(1)
	}
	if bad > 0 {
		c.rxBad.Add(uint64(bad))
	}
}

func (c *counters) sent(frames, bytes, dropped, bad int) {
	if frames > 0 {
		c.txFrames.Add(uint64(frames))
		c.txBytes.Add(uint64(bytes))
	}
	if dropped > 0 {
		c.txDropped.Add(uint64(dropped))
	}
	if bad > 0 {
		c.txBad.Add(uint64(bad))
	}
}

func (c *counters) stats() Stats {
	return Stats{
		RxFrames: c.rxFrames.Load(), RxBytes: c.rxBytes.Load(), RxBatches: c.rxBatches.Load(),
		RxDropped: c.rxDropped.Load(), RxBad: c.rxBad.Load(),
		TxFrames: c.txFrames.Load(), TxBytes: c.txBytes.Load(),
		TxDropped: c.txDropped.Load(), TxBad: c.txBad.Load(),
	}
}

// queueFrames estimates how many frames of n bytes a receive queue of rcvBuf
// bytes holds. The kernel charges what a frame occupies, not what it is long:
// measured 13.1 KiB for 8228 bytes and 2.3 KiB for 1 KiB on veth, and network
// cards round buffers up to half pages and pages in the same way.
func queueFrames(rcvBuf, n int) int {
	const overhead, halfPage, page = 832, 2048, 4096
	cost := overhead + (n+page-1)/page*page
	if n+320 <= halfPage {
		cost = 256 + halfPage
	}
	return rcvBuf / cost
}
