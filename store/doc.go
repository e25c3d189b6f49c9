// Package store is one disk: a file or a block device that holds shards of volumes, with a journal that makes what it accepts
// durable and a checksum for every block. It keeps the rules of A.3 (docs/protocol.md): what a disk accepts from a volume's
// owner, and what it answers.
//
// A Disk has no goroutine and no clock. Step takes requests; BeginSync writes what has queued as one group and hands out a
// SyncJob, the only thing that another goroutine may run; EndSync releases the answers that had to be durable. Background
// applies, checkpoints and trims in bounded pieces. Given the same device contents and calls it does the same things.
//
// # Format, version 1 (all integers little-endian, all checksums CRC32C)
//
//	   0  superblock A   4 KiB
//	4096  superblock B   4 KiB    written alternately; the valid one with the larger seq counts, if its image is valid
//	8192  image A        imageBytes: the state of all volumes as of a checkpoint
//	      image B        imageBytes
//	      journal        journalBytes, circular
//	      pages          two slots of 4 KiB per region, written alternately
//	      data           1 MiB per region
//
// Superblock: magic[8] "CLADEDSK", crc u32 (of all that follows in the 4 KiB), version u32, seq u64, cluster[16], uuid[16], disk u32,
// attachGen u64, deviceBytes u64, imageBytes u64, journalBytes u64, regions u64, incarnation u64, image which u32, image length u32,
// image crc u32, tail offset u64, tail lsn u64, tail chain u32. The rest is zero.
//
// Group, at a multiple of 4 KiB in the journal, never across its end: header of 64 bytes {magic u32, crc u32 of the rest of the
// meta part, uuid[16], incarnation u64, lsn u64, chain u32 = crc of the group before, meta bytes u32, blocks u32, zero}, then the
// entries, padded with zeros to 4 KiB; then the blocks, 4 KiB each. Each entry's block descriptors carry the CRC32C of their block.
// A group that does not fit before the end of the journal begins at its start.
//
// Page: magic u32, crc u32 of the rest, version u64, volume u64, extent u32, generation u64, region u32, rseq u64, written[32] (a bit
// per block: never written blocks are zeros), crc[256] u32. Of two valid slots with the right identity the larger version counts.
//
// # Rules
//
//	S1  At most one group is unsynced, so an invalid group with a valid later one is damage, not a torn tail.
//	S2  Nothing is answered before the group that holds it is durable.
//	S3  A block is written in place only when its record is at or below the durable commit point (I5, B: C25).
//	S4  The tail moves only after a checkpoint: data, pages, then image and superblock are durable (B: C16a).
//	S5  A page is written to the slot that does not hold its newest durable version.
//	S6  An empty or lost page is damage, never zeros (B: C27).
//	S7  A failed write or sync is final: the disk answers NackGone to everything from then on.
package store
