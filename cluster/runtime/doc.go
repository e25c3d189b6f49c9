// Package runtime runs one cluster.Node: it owns every goroutine, clock, socket, file and lock of a node, and executes the
// effects that the pure packages ask for. No rule of the protocol is decided here but these four, which only a shell can
// keep:
//
//   - Time. All of it is CLOCK_BOOTTIME in nanoseconds; frames carry the kernel's receive time, converted (link.Clock). A
//     jump of CLOCK_REALTIME against it is reported to the node (B: C18).
//   - Fresh clock. Ready is asked with a clock reading taken after the last input (A.2 Serving rule), and no check stands
//     between it and the send.
//   - Intake. A turn of the core takes the frames of all SAN ports that the kernel received before the turn began, merged by
//     receive time; younger ones wait for the next turn (A.4.1).
//   - FIFO or broken. What goes to a disk or a peer arrives in order, or the node hears that the stream broke, before it
//     hears of the next one (raid contract: Connected).
//
// # Goroutines
//
// All belong to a Runtime and have ended when its Done is closed. They, and the bounds of their queues:
//
//	core       owns cluster.Node. Sleeps in a link.Poller over all SAN ports and, where those are plain TCP, its peers' connections,
//	           which it reads itself; every queue below wakes it.
//	storage    Raft log and small durable values: one bbolt transaction for all that has queued. Raft's own limit of
//	           uncommitted bytes bounds the queue.
//	disk       one per disk: drains its queue into one store.Disk.Step. Bounded by the owners' credit (A.3 Quota); a queue
//	           beyond queueRequestsMax fails the disk's stream.
//	sync       two per disk: store.SyncJob.Run, while disk goes on with the next Step, of what the device cannot do by itself: a
//	           checkpoint's sync, or all where there is no O_DIRECT. What it does by itself rings the core's bell.
//	listener   accepts peers, at most handshakesMax in the handshake at once.
//	dialer     one per peer: keeps one connection. The node with the larger id dials at once, the other one after a while.
//	reader     one per peer connection that the core does not read, such as one that Transport has wrapped; blocks when the core
//	           does not keep up (TCP then holds the peer back).
//	writer     one per peer connection: what is too much for the core to send it takes in one writev. A queue beyond
//	           peerQueueBytesMax breaks the connection.
//	admin      net/http's own, per socket. A request waits for the core's answer; the node takes 256 of them at once.
//	watch      looks at carrier and MTU a few times a second, opens interfaces that were missing, keeps the peers' addresses
//	           for the guardian. The clocks are compared by the core itself.
//	probe      short-lived: one reads a disk's identity, one recovers a disk, one tells the cluster of a disk's state.
//
// # Processes
//
// `clade serve` is two processes. The guardian starts the worker with a pidfd and waits on it. When the worker is gone, its
// lock on the state file is free: whoever gets it and finds the worker's own term in it holds proof of death (A.2), and the
// guardian tells all peers. See guardian.go.
package runtime
