// Package raftlog keeps a node's Raft log, hard state, snapshot and a few small durable values (the lease terms that its voter
// has revoked) in one bbolt file. Log is the real one; Memory is its twin for the simulator, which can lose what was not yet
// durable. Both pass the same conformance suite.
//
// Reads, which are raft.Storage, are served from memory: the log is bounded by snapshots (membership.Group), and so is what is
// kept. A Batch becomes visible to reads only when it is durable. One goroutine writes; any goroutine may read.
//
// # Format
//
// A bbolt file with these buckets. Every value but those of "meta" begins with its CRC-32C, big endian; bbolt itself checks
// none of its data pages.
//
//	format  "version" -> one byte, 1 (no CRC)
//	log     index, BE64 -> raftpb.Entry
//	state   "hard" -> raftpb.HardState; "base" -> index BE64, term BE64 of the entry before the first one of the log
//	        "snapshot" -> raftpb.Snapshot
//	meta    key -> CRC-32C, value
//
// One Batch, or several given together, is one bbolt transaction: all of it is there after a crash, or nothing. bbolt syncs its
// data pages and then its meta page, so that is one commit, whatever number of entries it carries. A write that fails is
// final: what the file holds is unknown from then on, and every later write returns the first error.
package raftlog
