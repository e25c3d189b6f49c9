// Package sim runs whole clusters in one goroutine: the production state machines (cluster.Node, store.Disk over crashable
// memory devices, the memory twin of store/raftlog) under a virtual clock, a virtual Ethernet, virtual peer connections and
// initiators that behave like real ones.
//
// # One seed, one history
//
// A seed chooses the shape of the cluster (nodes, disks, layout, volumes, initiators), the load and the rate of every fault.
// The same seed gives the same history, byte for byte: a test runs seeds twice and compares the hash of all effects. Raft's
// election jitter comes from crypto/rand, so the simulator is a test binary under testing/cryptotest and runs one seed at a
// time.
//
// # Two phases
//
// In the safety phase anything may fail, within what the layout survives for data that must survive (see atlas). Then the
// faults stop, everything is healed, and the liveness phase gives the cluster ten virtual seconds: every volume must be served
// and in-sync and all load must complete.
//
// # What is checked
//
// At every frame that a node emits, with the knowledge of all deliveries, the history per sector must be linearizable, each
// delivered copy of a write being one more, optional execution (PROTOCOL part C; see history.go). Control requests have
// their own model. A slot may have several volumes, one after the other, each with its own history. Invariants I1..I12 are read
// from the state machines themselves (invariants.go, invariants_disk.go, invariants_held.go). After a crash the disks must pass
// store.Check. At the end all parity must agree.
//
// # Reading order
//
// sched.go is time; world.go builds and runs; process.go is one node's process, drive.go its disks; ether.go and peers.go
// are the networks; client.go is the load; faults.go and lie.go break things; operator.go changes the cluster; history.go, linear.go,
// control.go, mask.go and invariants*.go judge.
package sim
