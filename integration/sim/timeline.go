package sim

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// column is where a timeline entry is printed: nodes have theirs, the rest share the left and right ones.
type column int

const (
	colFault  column = -1 // what the simulator did to the cluster
	colClient column = -2 // initiators
)

// entry is one line of the timeline. Text is made only when it is printed.
type entry struct {
	at     int64
	col    column
	format string
	args   []any
}

// timeline keeps the last entries of a run, and the hash of everything.
type timeline struct {
	ring []entry
	next int
	full bool
	hash uint64
	n    uint64 // effects hashed
	echo func(string)
	cols int
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newTimeline(entries, nodes int) *timeline {
	return &timeline{ring: make([]entry, entries), cols: nodes, hash: 0x9E3779B97F4A7C15}
}

// add records an entry. The arguments must not change afterwards.
func (t *timeline) add(at int64, col column, format string, args ...any) {
	e := entry{at, col, format, args}
	if t.echo != nil {
		t.echo(t.line(e))
	}
	t.ring[t.next] = e
	t.next++
	if t.next == len(t.ring) {
		t.next, t.full = 0, true
	}
}

// mix adds an effect to the hash: who, what kind, when, which bytes.
func (t *timeline) mix(at int64, who column, kind byte, data ...[]byte) {
	c := crc32.Update(0, castagnoli, []byte{kind})
	for _, b := range data {
		c = crc32.Update(c, castagnoli, b)
	}
	t.mixWord(uint64(at))
	t.mixWord(uint64(c)<<32 | uint64(uint16(who))<<8 | uint64(kind))
	t.n++
}

func (t *timeline) mixWord(w uint64) {
	h := (t.hash ^ w) * 0xD6E8FEB86659FD93
	t.hash = h ^ h>>32
}

const colWidth = 30

func (t *timeline) line(e entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%12.6f ", float64(e.at)/1e9)
	text := fmt.Sprintf(e.format, e.args...)
	switch {
	case e.col == colFault:
		b.WriteString("** " + text)
	case e.col == colClient:
		b.WriteString(strings.Repeat(" ", colWidth*t.cols) + "| " + text)
	default:
		b.WriteString(strings.Repeat(strings.Repeat(" ", colWidth-1)+"|", int(e.col)))
		b.WriteString(text)
	}
	return b.String()
}

// String returns the legend and the kept entries.
func (t *timeline) String() string {
	var b strings.Builder
	b.WriteString("   seconds   ")
	for i := range t.cols {
		fmt.Fprintf(&b, "%-*s", colWidth, fmt.Sprintf("node %d", i+1))
	}
	b.WriteString("| initiators     (** = fault injected)\n")
	emit := func(es []entry) {
		for _, e := range es {
			b.WriteString(t.line(e))
			b.WriteByte('\n')
		}
	}
	if t.full {
		emit(t.ring[t.next:])
	}
	emit(t.ring[:t.next])
	return b.String()
}
