package initiator

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"clade/aoe"
)

// Found is a volume that answered a discovery, by one of its paths.
type Found struct {
	Shelf       uint16
	Slot        uint8
	MAC         aoe.MAC
	Interface   int
	BufferCount uint16
	Firmware    uint16
	SectorCount uint8
	Config      []byte // the config string
}

// maxFound bounds what a flood of answers makes Discover keep.
const maxFound = 4096

// Discover broadcasts a Query Config from a MAC, asking for a shelf and slot
// (0xFFFF and 0xFF for all), again after each third of the context's time (one
// second if it has no deadline), and returns who answered until then, ordered by
// address. It is no error if nobody did. With one shelf and slot asked for it
// returns at the first answer.
func (h *Host) Discover(ctx context.Context, mac aoe.MAC, shelf uint16, slot uint8) ([]Found, error) {
	each := time.Second / 3
	if until, ok := ctx.Deadline(); ok {
		each = max(time.Until(until)/3, time.Millisecond)
	}
	tag := userTag | randomSeed()
	var mu sync.Mutex
	var found []Found
	first := make(chan struct{}, 1)
	t := &tap{mac: mac, take: func(iface int, frame []byte) {
		f, ok := parseFound(frame, mac, tag)
		f.Interface = iface
		if !ok || shelf != shelfAll && f.Shelf != shelf || slot != slotAll && f.Slot != slot {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range found {
			if o := &found[i]; o.Shelf == f.Shelf && o.Slot == f.Slot && o.MAC == f.MAC && o.Interface == iface {
				*o = f
				return
			}
		}
		if len(found) < maxFound {
			found = append(found, f)
		}
		select {
		case first <- struct{}{}:
		default:
		}
	}}
	if err := h.addTap(t); err != nil {
		return nil, err
	}
	defer h.removeTap(t)

	one := shelf != shelfAll && slot != slotAll
	request := appendDiscover(nil, broadcast, mac, shelf, slot, tag)
	for round := 0; round < 3; round++ {
		for i := range h.ports {
			h.send([]Frame{{Interface: i, Header: request}})
		}
		timer := time.NewTimer(each)
		for waiting := true; waiting; {
			select {
			case <-first:
				waiting = !one
			case <-timer.C:
				waiting = false
			case <-ctx.Done():
				waiting = false
			}
		}
		timer.Stop()
		mu.Lock()
		done := one && len(found) > 0
		mu.Unlock()
		if done || ctx.Err() != nil {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	slices.SortFunc(found, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Shelf, b.Shelf), cmp.Compare(a.Slot, b.Slot), slices.Compare(a.MAC[:], b.MAC[:]), cmp.Compare(a.Interface, b.Interface))
	})
	return found, nil
}

func parseFound(frame []byte, self aoe.MAC, tag uint32) (Found, bool) {
	var r reply
	if !parseReply(frame, self, &r) || r.command != commandConfig || r.failed || r.tag != tag {
		return Found{}, false
	}
	c, err := ParseConfigReply(r.body)
	if err != nil {
		return Found{}, false
	}
	return Found{Shelf: r.shelf, Slot: r.slot, MAC: r.src, BufferCount: c.BufferCount, Firmware: c.Firmware,
		SectorCount: c.SectorCount, Config: slices.Clone(c.Text)}, true
}

func (h *Host) addTap(t *tap) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.join(t.mac); err != nil {
		return err
	}
	h.change(func(r *routeTable) { r.taps = append(r.taps, t) })
	return nil
}

func (h *Host) removeTap(t *tap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change(func(r *routeTable) { r.taps = without(r.taps, t) })
	_ = h.leave(t.mac) // a port that is gone has forgotten the MAC anyhow
}
