// Package lab makes whole clusters of real processes on one machine, hurts them, and takes them away again.
//
// A lab is a set of network namespaces joined by bridges: one namespace per node, one that holds the SAN's switch (a bridge
// per path), one that holds the switch of the cluster network, and one for initiators. Every interface lives inside these, so
// a lab touches neither the machine's own network nor another lab. In each node's namespace runs `clade serve`: the very
// program that serves people's data, with sparse files for disks.
//
//	Up      builds a lab, founds the cluster, and waits until all volumes are healthy
//	Down    takes it away; Sweep does so for labs whose maker was killed
//	Status  what runs, who owns what
//	Fault   kill, stop, cut, heal, power loss
//	OpenHost  initiators inside the lab, as a library
//
// # What belongs to a lab
//
// Each process of a lab carries the lab's mark (a random number) in its environment, inherited by whatever it starts. A
// process is signalled only through a pidfd, and only after its mark was read through /proc while the pidfd was held: a pid
// that was reused, or a process of somebody else, cannot be hit. Namespaces and directories are those named in lab.json,
// which is written before the first of them is made.
package lab
