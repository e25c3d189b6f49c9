// Package load is a verifying load generator for AoE volumes: it writes blocks
// that say who wrote them, reads them back, and keeps a history of every
// operation from which Check decides whether the volume behaved like one disk.
//
// # What is checked
//
// Each sector is a register. A history is good if there is, for each sector, an
// order of its reads and writes that agrees with real time and in which each
// read returns what was written last: linearizability, decided by porcupine.
// What makes AoE special is that it has no sequence numbers: a retransmission is
// a new request to the target. So
//
//   - every delivered copy of a write is an execution of its own that may or may
//     not happen, at any time between its sending and its delivery;
//   - a write that was answered has been executed at least once before that;
//   - a write that was not answered stays open for ever, unless a reservation is
//     known to have excluded it (Recorder.CloseWrites);
//   - anything later is a violation: a late duplicate that undoes a newer write
//     is found.
//
// The simulator knows each delivery (Recorder.Delivered); on a real network only
// the sending is known, and Options.CopyLifeNs says how long a copy may live.
//
// A result of Unknown (the search was given up) is not a pass.
package load
