package raid

import (
	"fmt"

	"github.com/klauspost/reedsolomon"
)

// Coder encodes and rebuilds rows of one layout. Blocks are indexed by role: data first, then parity; each is BlockBytes long
// or, for whole regions, any equal length. A Coder is used by one goroutine; it starts none.
type Coder struct {
	k, m    int
	rs      reedsolomon.Encoder
	scratch [][]byte
	old     [][]byte // copies of old blocks for Delta
	need    []bool
}

// NewCoder returns the coder of a valid layout.
func NewCoder(l Layout) *Coder {
	c := &Coder{k: l.K, m: l.M, scratch: make([][]byte, l.Width()), need: make([]bool, l.Width()), old: make([][]byte, l.K)}
	if l.M == 0 {
		return c
	}
	rs, err := reedsolomon.New(l.K, l.M, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		panic(fmt.Sprintf("raid: layout %d+%d passed validation: %v", l.K, l.M, err))
	}
	c.rs = rs
	return c
}

// Encode fills the parity blocks shards[k:], which the caller has allocated, from the data blocks shards[:k], which it only
// reads.
func (c *Coder) Encode(shards [][]byte) {
	if c.m == 0 {
		return
	}
	if c.k*c.m <= oneByOneMax && len(shards[0]) == BlockBytes {
		c.encodeOneByOne(shards)
		return
	}
	if err := c.rs.Encode(shards); err != nil {
		panic(fmt.Sprintf("raid: encode: %v", err))
	}
}

// oneByOneMax is up to which k*m a row is encoded block by block: that costs no more time there, and no memory, of which Encode takes
// nearly a KiB each time.
const oneByOneMax = 8

// encodeOneByOne adds each data block to the parities by itself.
func (c *Coder) encodeOneByOne(shards [][]byte) {
	parity := shards[c.k:]
	for _, p := range parity {
		clear(p)
	}
	for i, data := range shards[:c.k] {
		if err := c.rs.EncodeIdx(data, i, parity); err != nil {
			panic(fmt.Sprintf("raid: encode: %v", err))
		}
	}
}

// Delta turns the old parity in parity (m blocks, changed in place) into the parity of the row in which data block i is
// fresh[i] instead of old[i], for every i with fresh[i] != nil. Only the owner adds deltas; what it sends are whole blocks.
func (c *Coder) Delta(old, fresh, parity [][]byte) {
	if c.m == 0 {
		return
	}
	for i := range c.k {
		c.scratch[i] = nil
		if fresh[i] != nil { // Update overwrites the old blocks it is given; ours are shared
			c.old[i] = append(c.old[i][:0], old[i]...)
			c.scratch[i] = c.old[i]
		}
	}
	copy(c.scratch[c.k:], parity)
	if err := c.rs.Update(c.scratch, fresh[:c.k]); err != nil {
		panic(fmt.Sprintf("raid: delta: %v", err))
	}
	clear(c.scratch)
}

// Rebuild computes the blocks of the roles in want from k or more present blocks. shards is indexed by role, nil = absent;
// present blocks are only read. The wanted entries are allocated and stored in shards. It needs at least k present blocks.
func (c *Coder) Rebuild(shards [][]byte, want roles) {
	if want == 0 {
		return
	}
	if c.m == 0 {
		panic("raid: rebuild without parity")
	}
	for i := range c.need {
		c.need[i] = want.has(i)
	}
	if err := c.rs.ReconstructSome(shards, c.need); err != nil {
		panic(fmt.Sprintf("raid: rebuild of roles %b: %v", want, err))
	}
}

// roles is a set of roles of a row.
type roles uint64

func (r roles) has(i int) bool   { return r&(1<<i) != 0 }
func (r roles) with(i int) roles { return r | 1<<i }
