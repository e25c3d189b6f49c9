package cluster

import "clade/raid"

// EventKind names an event.
type EventKind uint8

// What a node reports.
const (
	EventBooted    EventKind = iota + 1 // NodeBoot has applied: a lease term is ours
	EventTermEnded                      // our lease term has been taken away
	EventLease                          // the lease became valid or invalid: Text
	EventLeader                         // another node leads, or none
	EventTakeover                       // this node takes a volume over
	EventVolume                         // what a volume's owner says: Text
	EventRaft                           // Raft says: Text
	EventDecision                       // the leader decided: Text
	EventDropped                        // bad input: Text
	EventDisk                           // a local disk came or went
)

// Event is something for the log and for tests. Fields that do not apply are zero.
type Event struct {
	Kind   EventKind
	Node   raid.NodeID
	Volume raid.VolumeID
	Slot   uint8
	Epoch  raid.Epoch
	Disk   raid.DiskID
	Text   string
}
