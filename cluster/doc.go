// Package cluster is one node as a pure state machine: it joins the AoE targets, the volumes' owners, the lease and the Raft
// group, routes what they want of disks and peers, and fails over. Production (cluster/runtime) and the simulator
// (integration/sim) drive the same code.
//
// # The contract between Node and its driver
//
//  1. One goroutine calls a Node. Inputs (Frames, Peer, PeerUp, PeerDown, DiskReplies, DiskState, RaftStored, MetaStored,
//     PathState, ClockJumped, Admin, Tick) never block, never fail and do bounded work. Bad input from outside becomes an Event
//     and a counter; a broken invariant of our own panics with the numbers.
//  2. Ready hands over all effects since the last call; it is valid until the next call of any method. Effects of one Ready
//     may be executed in any order and concurrently. If B must follow A, the node emits B only after A's completion came back
//     as an input. Per disk, Ready.Disk keeps its order, across calls too; per peer, Ready.Peers does.
//  3. Time enters only as nowNs, CLOCK_BOOTTIME. It never falls. Ready's nowNs must be read after the last input returned: the
//     serving rule (A.2) is evaluated there, when the content of every answer is complete.
//  4. A peer link is FIFO or broken: messages of an old connection are never delivered after its PeerDown, and PeerDown comes
//     before the next PeerUp. Messages may be lost only together with PeerDown. A local disk answers in order.
//  5. SANFrame.Data is valid during the call only. A PeerMessage and all it points to belongs to the receiver of the call and
//     is immutable from then on. Header of a TxFrame and the slices of a Ready are valid until the next call; its Payload is
//     immutable.
//  6. A RaftStored or MetaStored is said only when the write is durable. A write that fails ends the process.
//
// # The walk of one write frame
//
// Frames (intake.go: age and destination) -> aoe.Target.Handle (serve.go) -> raid.Owner.Write -> raid.Owner.Take: Prepare per
// disk -> route.go: local disk or peer -> the disk's journal -> DiskReplies or Peer: Ack -> raid.Owner commits -> serve.go: the
// reply is staged -> Ready: the lease is valid -> the frame leaves.
package cluster
