// Package bench measures the speed of any AoE target: Run keeps a fixed number of operations going from one or many initiator
// MACs and says how many were answered, how late, and what processor time that took.
//
// The measuring process shares the machine with the target in most labs, so it has to be cheap: one goroutine on one thread,
// frames in batches, and nothing allocated for an operation once the warm-up is over.
//
// Null is the other end of the scale: a target that answers at once and stores nothing. What it reaches is what the wire, the
// kernel and the initiator allow; no storage can be faster.
package bench
