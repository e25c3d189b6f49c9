// Package torture lets a nemesis loose on a lab of real processes while initiators read, write and verify, and says what came of
// it: every fault with the longest stall that an initiator saw, the throughput over time, and violations.
//
//	Run   faults at random for as long as is wanted (clade lab torture, make torture)
//	Calm  no faults at all, but busy processors and lost frames: nobody may lose a volume over that (clade lab calm, make calm)
//
// # What is random
//
// A seed makes the plan: which faults, in which order, for how long, which role is hit (a slot's owner, the Raft leader, any node).
// The same seed gives the same plan. When each frame arrives, and who is owner when a fault strikes, the machine decides: a run
// is repeated in kind, not to the letter.
//
// # What is checked
//
//   - every sector's history is linearizable (load.Check). The history is cut into slices of some seconds. A slice has a range of
//     the volume for itself; when the next slice is over, all late copies of its frames are dead, and its range is read as a whole.
//     What was read there is what the next slice of that range starts from. So an hour needs no more memory than a minute, and
//     still nothing that was ever acknowledged may be lost;
//   - no initiator is told of an error, and every operation is answered;
//   - IDENTIFY, the serving MAC, serial and config string stay what they were; what a config string was set to is what is read;
//     a race for one has one winner; a reservation keeps others out through all that happens;
//   - after each fault the cluster is healthy again by itself (`clade status --json`: complete, one living owner for each volume,
//     epochs that never go back), and no process has ended that was not killed.
package torture
