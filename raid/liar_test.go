package raid_test

import (
	"testing"
)

// TestADiskThatLosesItsTailWhileItIsAwayIsFoundOut: C is stale as of 2. While it is away its drive drops what it has acknowledged,
// which nothing that is asked of a returner by S would copy. Only the owner knows that C's chain has gone back (A.4 acked, C15, C26).
func TestADiskThatLosesItsTailWhileItIsAwayIsFoundOut(t *testing.T) {
	tr, _ := leftC(t)
	tr.disk(diskC).LoseTail(1)
	tr.restore(diskC)
	tr.heal()
}
