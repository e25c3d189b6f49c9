package raid

import "slices"

// readOut is one Read request that has not been answered.
type readOut struct {
	id      uint64
	x       *disk
	sentNs  int64
	late    bool // there was nobody else to ask: it keeps waiting
	ext     uint32
	first   uint32
	fetches []readWant // by block; none for a copy
	copy    *copyJob
	role    int
}

// readWant is one block that a fetch wants from a disk.
type readWant struct {
	f    *fetch // nil: no longer wanted
	x    *disk
	key  rowKey
	role int
}

// outs are the Reads under way, by id: those that are sent later have larger ones.
type outs struct {
	list []outRef
	live int
}

type outRef struct {
	id  uint64
	out *readOut // nil: taken out
}

// add adds a Read that was sent just now.
func (l *outs) add(out *readOut) {
	if len(l.list) == cap(l.list) && 2*l.live <= len(l.list) {
		l.list = slices.DeleteFunc(l.list, func(r outRef) bool { return r.out == nil })
	}
	l.list = append(l.list, outRef{out.id, out})
	l.live++
}

// find returns the place of the Read with an id that was sent to x, -1 if there is none.
func (l *outs) find(x *disk, id uint64) int {
	from, to := 0, len(l.list)
	for from < to {
		if mid := (from + to) / 2; l.list[mid].id < id {
			from = mid + 1
		} else {
			to = mid
		}
	}
	if from == len(l.list) || l.list[from].id != id || l.list[from].out == nil || l.list[from].out.x != x {
		return -1
	}
	return from
}

// take ends the wait for one Read; nil if none with that id was sent to x.
func (l *outs) take(x *disk, id uint64) *readOut {
	i := l.find(x, id)
	if i < 0 {
		return nil
	}
	out := l.list[i].out
	l.list[i].out = nil
	if l.live--; l.live == 0 {
		l.list = l.list[:0]
	}
	return out
}

// oldest returns the Read that was sent first; nil if there is none.
func (l *outs) oldest() *readOut {
	for i := range l.list {
		if out := l.list[i].out; out != nil {
			return out
		}
	}
	return nil
}

// all returns the Reads, in order of id, in memory of its own.
func (l *outs) all() []*readOut {
	all := make([]*readOut, 0, l.live)
	for _, r := range l.list {
		if r.out != nil {
			all = append(all, r.out)
		}
	}
	return all
}

// readFree is what reads are made of, to be used again. Nothing of it leaves the owner. What has ended stays as it is until the next turn
// begins: whoever goes through a list meanwhile may have it in there.
type readFree struct {
	outs, endedOuts       []*readOut
	fetches, endedFetches []*fetch
}

// readFreeMax bounds the Reads, and the fetches, that are kept.
const readFreeMax = 1024

// turn makes what has ended ready to be used again, with the room it has.
func (l *readFree) turn() {
	for i, out := range l.endedOuts {
		l.endedOuts[i] = nil
		if len(l.outs) < readFreeMax {
			clear(out.fetches)
			*out = readOut{fetches: out.fetches[:0]}
			l.outs = append(l.outs, out)
		}
	}
	for i, f := range l.endedFetches {
		l.endedFetches[i] = nil
		if len(l.fetches) < readFreeMax {
			clear(f.got)
			*f = fetch{got: f.got}
			l.fetches = append(l.fetches, f)
		}
	}
	l.endedOuts, l.endedFetches = l.endedOuts[:0], l.endedFetches[:0]
}

// out returns an empty Read.
func (l *readFree) out() *readOut {
	n := len(l.outs)
	if n == 0 {
		return &readOut{}
	}
	out := l.outs[n-1]
	l.outs = l.outs[:n-1]
	return out
}

// fetch returns an empty fetch of a row so wide.
func (l *readFree) fetch(width int) *fetch {
	n := len(l.fetches)
	if n == 0 {
		return &fetch{got: make([][]byte, width)}
	}
	f := l.fetches[n-1]
	l.fetches = l.fetches[:n-1]
	return f
}
