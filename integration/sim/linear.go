package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"sort"
	"strings"
)

// linOp is one operation on one register, at the boundary of the target: it took effect at one instant of [start, end].
type linOp struct {
	start, end int64
	optional   bool // may also never take effect (a delivered copy that nobody saw answered)
	write      bool
	value      uint64
	edit       func(state uint64) uint64 // a write that depends on what it finds; then value does not count
	pre        func(state uint64) bool   // what must hold where it takes effect; a read with pre asserts nothing else
	unread     bool                      // a write whose value no later read returns: prepare
	label      string                    // for the report
}

// apply returns the state after o takes effect, and whether it can take effect there.
func (o *linOp) apply(state uint64) (uint64, bool) {
	switch {
	case o.pre != nil && !o.pre(state):
		return state, false
	case o.edit != nil:
		return o.edit(state), true
	case o.write:
		return o.value, true
	case o.pre == nil && o.value != state:
		return state, false
	}
	return state, true
}

// linConfig is a possible state: the register's value and which of the open operations have taken effect. Open operations
// sit in slots that are used again.
type linConfig struct {
	value uint64
	done  linSet
}

// linSet is a set of slots.
type linSet [linOpenMax / 64]uint64

func (c *linSet) has(slot int) bool { return c[slot/64]>>(slot%64)&1 != 0 }
func (c *linSet) set(slot int)      { c[slot/64] |= 1 << (slot % 64) }
func (c *linSet) clear(slot int)    { c[slot/64] &^= 1 << (slot % 64) }

func (c *linSet) minus(d *linSet) linSet {
	var out linSet
	for i := range c {
		out[i] = c[i] &^ d[i]
	}
	return out
}

// within reports c ⊆ d.
func (c *linSet) within(d *linSet) bool {
	for i := range c {
		if c[i]&^d[i] != 0 {
			return false
		}
	}
	return true
}

func (c *linSet) count() int {
	n := 0
	for _, w := range c {
		n += bits.OnesCount64(w)
	}
	return n
}

// sortedConfigs returns those that have used the least first: they dominate.
func sortedConfigs(set map[linConfig]bool) []linConfig {
	out := slices.Collect(maps.Keys(set))
	slices.SortFunc(out, func(a, b linConfig) int {
		return cmp.Or(cmp.Compare(a.done.count(), b.done.count()), cmp.Compare(a.value, b.value), slices.Compare(a.done[:], b.done[:]))
	})
	return out
}

// linOpenMax bounds the operations open at once on one register; more is reported as "unknown", which fails.
const linOpenMax = 512

// linConfigsMax bounds the search.
const linConfigsMax = 1 << 18

// linearize reports why no order of the operations explains what was read, or "" when one does. A register starts as
// initial. It keeps all possible states and, whenever an operation ends, lets it and whatever must come before it take
// effect ("just in time" linearization). An exhausted search is a failure, never a pass.
func linearize(initial uint64, ops []linOp) string {
	ops = prepare(ops)
	type edge struct {
		at    int64
		end   bool
		index int
	}
	edges := make([]edge, 0, 2*len(ops))
	for i, o := range ops {
		if o.end < o.start {
			return fmt.Sprintf("%s ended at %d before it began at %d", o.label, o.end, o.start)
		}
		edges = append(edges, edge{o.start, false, i}, edge{o.end, true, i})
	}
	// At one instant starts come before ends: intervals are closed, operations that touch may be in any order.
	sort.SliceStable(edges, func(i, j int) bool {
		a, b := edges[i], edges[j]
		return a.at < b.at || a.at == b.at && !a.end && b.end
	})
	slotOf := make([]int, len(ops))
	var open [linOpenMax]int
	for i := range open {
		open[i] = -1
	}
	configs := map[linConfig]bool{{value: initial}: true}
	for _, e := range edges {
		if !e.end {
			slot := -1
			for i, o := range open {
				if o < 0 {
					slot = i
					break
				}
			}
			if slot < 0 {
				return fmt.Sprintf("unknown: more than %d operations open at once", linOpenMax)
			}
			open[slot], slotOf[e.index] = e.index, slot
			continue
		}
		slot := slotOf[e.index]
		next, ok := closeOp(configs, ops, &open, slot)
		if !ok {
			return "unknown: too many possible states" + dump(ops, &open)
		}
		if len(next) == 0 {
			return explain(initial, ops, e.index, configs, &open)
		}
		open[slot] = -1
		configs = next
	}
	return ""
}

// closeOp returns the states possible after the operation in slot has ended.
func closeOp(configs map[linConfig]bool, ops []linOp, open *[linOpenMax]int, slot int) (map[linConfig]bool, bool) {
	op := ops[open[slot]]
	top := len(open)
	for top > 0 && open[top-1] < 0 {
		top--
	}
	var optional linSet // slots of optional operations
	for s, i := range open[:top] {
		if i >= 0 && ops[i].optional {
			optional.set(s)
		}
	}
	next := make(map[linConfig]bool, len(configs))
	// What differs only in the optional operations that have taken effect is dominated by what has used fewer of them.
	seen := make(map[linConfig][]linSet, len(configs))
	states := 0
	work := make([]linConfig, 0, len(configs))
	push := func(c linConfig) {
		// A read changes nothing, so it takes effect as soon as it can: only the order of writes is searched.
		for s, i := range open[:top] {
			if i >= 0 && !ops[i].write && !c.done.has(s) {
				if _, ok := ops[i].apply(c.value); ok {
					c.done.set(s)
				}
			}
		}
		key := linConfig{c.value, c.done.minus(&optional)}
		used := c.done.minus(&key.done)
		for _, u := range seen[key] {
			if u.within(&used) {
				return
			}
		}
		seen[key] = append(seen[key], used)
		states++
		work = append(work, c)
	}
	for _, c := range sortedConfigs(configs) {
		push(c)
	}
	for len(work) > 0 {
		c := work[0]
		work = work[1:]
		if c.done.has(slot) {
			c.done.clear(slot)
			next[c] = true
			continue
		}
		if op.optional { // it may end without ever having taken effect
			next[c] = true
		}
		for s, i := range open[:top] {
			if i < 0 || c.done.has(s) || !ops[i].write || ops[i].unread && s != slot || !ops[i].unread && idle(&c, ops, open[:top], s) {
				continue
			}
			if value, ok := ops[i].apply(c.value); ok {
				n := c
				n.value = value
				n.done.set(s)
				for t, j := range open[:top] { // what nobody reads comes right before it
					if j >= 0 && ops[j].unread {
						n.done.set(t)
					}
				}
				push(n)
			}
		}
		if states > linConfigsMax {
			return nil, false
		}
	}
	return next, true
}

// idle reports whether letting the write in slot s take effect now can be left out: it may as well never do so and would change
// nothing, or another copy of the same write does the same now and is worth less later: it ends sooner, or as soon and must take effect
// anyway.
func idle(c *linConfig, ops []linOp, open []int, s int) bool {
	o := &ops[open[s]]
	hides := false // something that nobody reads, which can come right before it
	for t, i := range open {
		hides = hides || i >= 0 && ops[i].unread && !c.done.has(t)
	}
	if value, _ := o.apply(c.value); o.optional && value == c.value && !hides {
		return true
	}
	if o.edit != nil || o.pre != nil {
		return false
	}
	for t, i := range open {
		if i < 0 || t == s || c.done.has(t) {
			continue
		}
		p := &ops[i]
		if !p.write || p.unread || p.value != o.value || p.edit != nil || p.pre != nil {
			continue
		}
		switch {
		case p.end > o.end || p.optional && !o.optional:
		case o.optional && !p.optional, p.end < o.end || t < s:
			return true
		}
	}
	return false
}

// prepare leaves out what cannot matter, without changing the answer. In a history of plain reads and writes an optional write counts
// only while some read that ends later may still return it. A write that must take effect and that no read returns can be thought to
// happen right before another write, if one takes effect while it is open: it need not be tried in all other places.
func prepare(ops []linOp) []linOp {
	last := make(map[uint64]int64, len(ops)) // by value: end of the last read that returns it
	for i := range ops {
		o := &ops[i]
		if o.pre != nil || o.edit != nil {
			return ops
		}
		if !o.write {
			if end, ok := last[o.value]; !ok || o.end > end {
				last[o.value] = o.end
			}
		}
	}
	out := make([]linOp, 0, len(ops))
	for _, o := range ops {
		if o.write {
			end, read := last[o.value]
			read = read && end >= o.start
			switch {
			case o.optional && !read:
				continue
			case o.optional:
				o.end = min(o.end, end)
			default:
				o.unread = !read
			}
		}
		out = append(out, o)
	}
	return out
}

// explain describes the operation that nothing explains, with its neighbours.
func explain(initial uint64, ops []linOp, bad int, configs map[linConfig]bool, open *[linOpenMax]int) string {
	var b strings.Builder
	values := map[uint64]bool{}
	for c := range configs {
		values[c.value] = true
	}
	var sorted []uint64
	for v := range values {
		sorted = append(sorted, v)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	fmt.Fprintf(&b, "no order explains %s\n    possible values before it: %s (initially %s)\n    history around it:", ops[bad], valueNames(sorted), valueName(initial))
	var near []linOp
	for _, o := range ops {
		if o.start <= ops[bad].end && o.end >= ops[bad].start-5*second {
			near = append(near, o)
		}
	}
	sort.SliceStable(near, func(i, j int) bool { return near[i].start < near[j].start })
	if n := len(near); n > 40 {
		near = near[n-40:]
	}
	for _, o := range near {
		fmt.Fprintf(&b, "\n      %s", o)
	}
	return b.String()
}

func (o linOp) String() string {
	kind := "read "
	if o.write {
		kind = "write"
	}
	opt := ""
	if o.optional {
		opt = " (optional copy)"
	}
	end := fmt.Sprintf("%.6f", float64(o.end)/1e9)
	if o.end >= forever {
		end = "open"
	}
	return fmt.Sprintf("%s %s in [%.6f, %s]%s %s", kind, valueName(o.value), float64(o.start)/1e9, end, opt, o.label)
}

// forever ends what never ended.
const forever = int64(1) << 62

// A value names the write that made it: initiator, its write number. Zero is a sector never written.
func valueName(v uint64) string {
	switch {
	case v == 0:
		return "zeros"
	case v == valueTorn:
		return "TORN"
	}
	return fmt.Sprintf("i%d#%d", v>>48, v&(1<<48-1))
}

func valueNames(vs []uint64) string {
	var s []string
	for _, v := range vs {
		s = append(s, valueName(v))
	}
	return strings.Join(s, ", ")
}

func dump(ops []linOp, open *[linOpenMax]int) string {
	var b strings.Builder
	for _, i := range open {
		if i >= 0 {
			fmt.Fprintf(&b, "\n    %s", ops[i])
		}
	}
	return b.String()
}
