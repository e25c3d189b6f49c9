package raid

import "testing"

// A cache that is told to be smaller forgets what was used least lately, but not what somebody holds.
func TestCacheShrinksToItsBound(t *testing.T) {
	c := newCache(Layout{K: 2, M: 1, UnitBytes: BlockBytes}, 300*BlockBytes)
	for no := range uint32(200) {
		r := c.get(rowKey{no: no})
		for role := range 3 {
			c.install(r, role, make([]byte, BlockBytes))
		}
	}
	held := c.rows[rowKey{no: 0}]
	held.refs++
	c.shrink(0)
	if c.blocks != 300 || c.rows[rowKey{no: 0}] != held || c.rows[rowKey{no: 1}] != nil || c.rows[rowKey{no: 199}] == nil {
		t.Fatalf("%d blocks in %d rows within a bound of 300", c.blocks, len(c.rows))
	}
	c.bound(150 * BlockBytes)
	c.shrink(0)
	if c.blocks != 150 || c.rows[rowKey{no: 0}] != held || c.rows[rowKey{no: 150}] != nil || c.rows[rowKey{no: 199}] == nil {
		t.Errorf("%d blocks in %d rows within a bound of 150", c.blocks, len(c.rows))
	}
	held.refs--
	c.bound(0) // it keeps some
	c.shrink(0)
	if c.blocks == 0 || c.blocks > 64 || c.rows[rowKey{no: 0}] != nil {
		t.Errorf("%d blocks in %d rows within the least bound", c.blocks, len(c.rows))
	}
}
