// Package guest runs Linux machines with the kernel's own AoE driver, in QEMU, on the SAN of a lab: what counts is what a real
// initiator makes of Clade.
//
// A guest is a Debian kernel, busybox, the file system tools and the agent (in agent/), which is the guest's first process. All
// of it comes from the host's Debian packages and is kept in a cache; a guest boots in about ten seconds without hardware
// help. The host speaks with the agent over a serial port, a JSON line for each job: [Machine.Run] runs a shell script,
// [Machine.Start] a load that measures its own stalls, since a clock outside would measure the emulation.
//
// Everything but loads is for behaviour: throughput in an emulated machine says nothing.
package guest
