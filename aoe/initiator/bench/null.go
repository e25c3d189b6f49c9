package bench

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"clade/aoe"
	"clade/aoe/link"
)

// nullSectorsMax is what a frame of an MTU of 9000 carries in whole pages: what Clade and others advertise there, since 17 sectors
// would make most frames begin in the middle of a page.
const nullSectorsMax = 16

// Null is a target that answers reads and writes at once, with bytes that mean nothing, and stores nothing. Over the same batches
// of frames as the real target it shows what the wire alone allows.
type Null struct {
	port   link.Port
	target aoe.Target
	data   []byte // what every read returns
	rx     []link.RxFrame
	tx     []link.TxFrame
	head   []byte   // headers of the answers of a batch
	views  [][]byte // backs the payload lists of tx

	stopping atomic.Bool
	poller   *link.Poller
	served   atomic.Uint64
}

// NewNull returns a target on a port, which stays the caller's. It answers as the port's own address.
func NewNull(port link.Port, shelf uint16, slot uint8, sizeBytes uint64) (*Null, error) {
	sectors := (port.MTU() - aoe.ATAHeaderBytes) / aoe.SectorBytes // AoE counts its header with the payload (facts of Linux: mtu - 36)
	if sectors < 1 {
		return nil, fmt.Errorf("bench: %s: an MTU of %d carries no sector", port.Name(), port.MTU())
	}
	n := &Null{port: port, data: make([]byte, nullSectorsMax*aoe.SectorBytes), rx: make([]link.RxFrame, 64), tx: make([]link.TxFrame, 0, 64),
		views: make([][]byte, 0, 64)}
	n.target.Identity = aoe.Identity{Shelf: shelf, Slot: slot, Sectors: sizeBytes / aoe.SectorBytes, Serial: fmt.Sprintf("null%d.%d", shelf, slot),
		Model: "Clade null target", Firmware: "null", BufCount: 1024, SectorCount: uint8(min(sectors, nullSectorsMax))}
	fillRandom(n.data, rand.NewPCG(1, 2))
	var err error
	if n.poller, err = link.NewPoller(port); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return n, nil
}

// Served returns how many requests were answered. Any goroutine may ask.
func (n *Null) Served() uint64 { return n.served.Load() }

// Stop makes Serve return. Any goroutine may call it.
func (n *Null) Stop() {
	n.stopping.Store(true)
	n.poller.Wake()
}

// Serve answers until Stop, or until the port fails. It may be called once.
func (n *Null) Serve() error {
	defer n.poller.Close()
	for !n.stopping.Load() {
		got, err := n.port.Receive(n.rx)
		if err != nil {
			return fmt.Errorf("bench: null target: %w", err)
		}
		if got == 0 {
			if _, err := n.poller.Wait(secondNs); err != nil {
				return fmt.Errorf("bench: null target: %w", err)
			}
			continue
		}
		n.answer(n.rx[:got])
		if _, err := n.port.Send(n.tx); err != nil {
			return fmt.Errorf("bench: null target: %w", err)
		}
	}
	return nil
}

// answer makes the answers to a batch of frames.
func (n *Null) answer(frames []link.RxFrame) {
	self := n.port.MAC()
	n.tx, n.head, n.views = n.tx[:0], n.head[:0], n.views[:0]
	id := &n.target.Identity
	for i := range frames {
		var r aoe.Request
		if aoe.ParseRequest(frames[i].Data, &r) != nil {
			continue
		}
		from := len(n.head)
		act := n.target.Handle(&r, self, n.head)
		var data []byte
		switch act.Kind {
		case aoe.ActionReply:
			n.head = act.Reply
		case aoe.ActionRead:
			n.head = aoe.AppendATAReply(n.head, (*aoe.ATAHeader)(r.Frame), self, id, aoe.StatusReady, 0, true)
			data = n.data[:act.Sectors*aoe.SectorBytes]
		case aoe.ActionWrite, aoe.ActionFlush, aoe.ActionVerify:
			n.head = aoe.AppendATAReply(n.head, (*aoe.ATAHeader)(r.Frame), self, id, aoe.StatusReady, 0, false)
		default: // what changes state is nothing for a target without any
			continue
		}
		// A buffer that grows moves, but what points into the old one stays as it was.
		tx := link.TxFrame{Header: n.head[from:len(n.head):len(n.head)]}
		if data != nil {
			n.views = append(n.views, data)
			tx.Payload = n.views[len(n.views)-1:]
		}
		n.tx = append(n.tx, tx)
	}
	n.served.Add(uint64(len(n.tx)))
}
