// Package raid is the data plane of one volume as pure state machines: the
// arithmetic of extents, rows and regions, Reed-Solomon coding over the
// caller's buffers, the owner that orders a volume's I/O, and the rules by
// which a disk accepts what an owner sends.
//
// Nothing here starts a goroutine, reads a clock or touches a socket or a
// file: events and the time go in, messages and proposals come out, so that
// production and the simulator drive the same code.
//
// # Words
//
// A volume is cut into extents; an extent has k+m shards on as many disks; a
// shard is a whole number of 1 MiB regions. A row is the k+m blocks of 4 KiB
// that have one block number in an extent's shards. Encoding, old bytes and
// rebuild go by row; locks go by region; the stripe unit only maps addresses.
//
//	volume  |<------- extent 0 ------->|<------- extent 1 ------->| ...
//	extent   unit0 unit1 .. unit(k-1) | unit k ...               (data, striped)
//	shard p |region 0|region 1| ...      each 1 MiB = 256 blocks of 4 KiB
//
// In region r the shard at position p plays the role (p - r) mod (k+m): roles
// below k carry data, the others parity, so that parity is spread over all
// disks of an extent while a region keeps one assignment.
//
// The rules named here (A.1 ... A.4, I1 ... I12) are those of docs/protocol.md.
package raid
