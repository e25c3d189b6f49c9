// Package membership is Clade's control plane: what the cluster has agreed on, how it agrees, who may serve for how long, and
// what the leader does about it. It is pure: no goroutine, clock, socket or file. Time enters as nanoseconds since boot
// (CLOCK_BOOTTIME), effects come out of Take-like methods. One goroutine at a time may use a value of this package.
//
//   - State is the replicated state machine of PROTOCOL A.1: nodes, disks, volumes, lease voters, the table of recent AoE
//     control requests. Apply is total and deterministic; a command is a compare-and-set with its own guard, and whoever
//     proposed it acts on the Result of apply, never on having proposed (B: C7).
//   - Voter and Holder are the two halves of the node lease (A.2), Revocations is the leader's side of taking one away.
//     The lease is the only place where time is a safety argument.
//   - Group runs State under Raft: etcd's RawNode with AsyncStorageWrites, as Step, Tick, Propose and Take.
//   - Planner holds the leader's decisions: whom to suspect, who gets a volume without a living owner, what to move.
//
// # Copy on write
//
// A *Volume (and the *raid.Volume in it) that has been handed out never changes: a command replaces it. Everything else
// reachable from State belongs to State and may change at the next Apply or Restore.
//
// # What stops a node
//
// A command whose type this binary does not know, or which carries fields it does not know, must not be skipped: the replicas
// would diverge (B: L8). Apply then returns a Result with Stop set, and the node ends. A type is proposed only when the
// feature level in State allows it, so that happens only to a binary older than the cluster.
package membership
