// Package initiator is a user-space AoE initiator: the client side of
// ATA-over-Ethernet for the command line, the benchmark, the labs and the
// simulator.
//
// It has two layers.
//
// # The core
//
// Device is the session of one initiator (one source MAC) with one volume, as
// a state machine without goroutine, clock or socket. Operations go in through
// Submit, received frames through Receive, time through Tick; Take hands out
// the frames to send and the operations that are done. It behaves like the
// Linux driver: a window of frames per path, a new tag on every
// retransmission, a round-trip estimate that rules the retransmission timer,
// one frame per time-out and path while nothing answers, silence until the
// caller's deadline. Three profiles (see Mode) choose the timing:
//
//   - ModeLibrary, the zero value: a modern estimate with a small minimum and a
//     capped back-off, so that a takeover is noticed within tens of
//     milliseconds;
//   - ModeLinux: the kernel driver's own arithmetic on its 100 ms ticks,
//     including its blindness for AoE errors and its long memory of dead paths;
//   - ModeIPXE: two sectors a command, one command at a time, doubling timers
//     and the SAME tag on each retransmission.
//
// Because each retransmission of a write is one more copy that a target may
// execute (late ones too), every copy that leaves is reported to
// Config.OnSend; the linearizability checker in package load needs them.
//
// # The shell
//
// Host drives any number of Devices with their own MACs over the link ports of
// this process. Client is one of them with a blocking interface: ReadAt,
// WriteAt, Flush, Identify, the config string, the MAC mask and the
// reservation. Commands with an effect that depends on the state they meet
// (config, mask, reserve) are retransmitted under the SAME tag, so that a
// target that remembers answers can give the first one again.
package initiator
