package raid

// row is a row in the stripe cache. comm is the committed view, pend the newest version of each block among the batches
// above the commit point. Blocks are immutable once they are here: reads and messages share them.
type row struct {
	key     rowKey
	comm    [][]byte // by role; nil = not in the cache
	pend    [][]byte // by role; nil = as committed
	commSeq Seq      // last batch that was installed here; 0 = none since the row came into the cache
	pendSeq Seq      // newest batch that touches the row
	refs    int      // requests and fetches that hold the row
	fetch   *fetch   // old bytes under way
	lost    roles    // could not be had when a fetch last failed: what can do without them does

	queued []uint64 // admission numbers of the writes of this row that have no seq yet, ascending
	pass   uint64   // forming pass to which cover belongs
	cover  []uint8  // per data role: sectors that the pass's writes overwrite
	held   uint64   // forming pass in which an earlier write of this row had to wait
	fresh  [][]byte // new blocks while a batch is being formed

	prev, next *row // least recently used order; nil when out of the list
}

// latest returns the newest version of a role's block, pending or committed, or nil.
func (r *row) latest(role int) []byte {
	if r.pend[role] != nil {
		return r.pend[role]
	}
	return r.comm[role]
}

// cache is the stripe cache: bounded by blocks of committed data; rows that are pinned (refs, fetch or a pending batch) stay
// whatever the bound says, which the owner's queue limits bound in turn.
type cache struct {
	width  int
	k      int
	rows   map[rowKey]*row
	blocks int  // committed blocks held
	limit  int  // in blocks
	head   row  // sentinel of the list of all rows, most recent first
	free   *row // forgotten ones, to be used again, linked by next
}

// rowsTogether is how many rows are made at once: they have a few pieces of memory in common, so that there are not several for each row
// that the garbage collector has to look at.
const rowsTogether = 32

func newCache(l Layout, bytes int) *cache {
	c := &cache{width: l.Width(), k: l.K, rows: map[rowKey]*row{}}
	c.bound(bytes)
	c.head.prev, c.head.next = &c.head, &c.head
	return c
}

// bound says how large the cache may be; shrink makes it so.
func (c *cache) bound(bytes int) { c.limit = max(bytes/BlockBytes, 64) }

// get returns the row, which it makes if need be, as the most recently used.
func (c *cache) get(key rowKey) *row {
	r := c.rows[key]
	if r == nil {
		r = c.take()
		r.key = key
		c.rows[key] = r
	} else {
		r.prev.next, r.next.prev = r.next, r.prev
	}
	r.prev, r.next = &c.head, c.head.next
	r.prev.next, r.next.prev = r, r
	return r
}

// take returns an empty row.
func (c *cache) take() *row {
	if c.free == nil {
		rows, blocks, cover := make([]row, rowsTogether), make([][]byte, rowsTogether*2*c.width), make([]uint8, rowsTogether*c.k)
		for i := range rows {
			r := &rows[i]
			r.comm, r.pend, blocks = blocks[:c.width:c.width], blocks[c.width:2*c.width:2*c.width], blocks[2*c.width:]
			r.cover, cover = cover[:c.k:c.k], cover[c.k:]
			r.next, c.free = c.free, r
		}
	}
	r := c.free
	c.free, r.next = r.next, nil
	return r
}

// give keeps a row that nobody refers to any more, with the room it has.
func (c *cache) give(r *row) {
	clear(r.comm)
	clear(r.pend)
	*r = row{comm: r.comm, pend: r.pend, queued: r.queued[:0], cover: r.cover, next: c.free}
	c.free = r
}

// install stores a committed block.
func (c *cache) install(r *row, role int, block []byte) {
	if r.comm[role] == nil {
		c.blocks++
	}
	r.comm[role] = block
	r.lost &^= roles(0).with(role)
}

// shrink forgets the least recently used rows that nobody holds until the cache is within its bound.
func (c *cache) shrink(commit Seq) {
	for r := c.head.prev; r != &c.head && (c.blocks > c.limit || len(c.rows) > c.limit); {
		p := r.prev
		if r.refs == 0 && r.fetch == nil && r.pendSeq <= commit && len(r.queued) == 0 {
			for _, b := range r.comm {
				if b != nil {
					c.blocks--
				}
			}
			r.prev.next, r.next.prev = r.next, r.prev
			delete(c.rows, r.key)
			c.give(r)
		}
		r = p
	}
}
