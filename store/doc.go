// Package store is one disk: a file or a block device that holds shards of volumes, with a journal that makes what it accepts
// durable and a checksum for every block. It keeps the rules of A.3 (docs/protocol.md): what a disk accepts from a volume's
// owner, and what it answers.
//
// A Disk has no goroutine and no clock. Step takes requests; BeginSync forms a group of what has queued and hands out a SyncJob that
// writes it; EndSync releases the answers that had to be durable. Background applies, checkpoints and trims in bounded pieces. Given the
// same device contents and calls it does the same things.
//
// A SyncJob is the only thing that another goroutine may run. Waking one takes about as long as many a device takes to write, so whoever
// holds the disk can do without: Start has the kernel write a group and ring an eventfd at the end, on a file or block device that is
// written past the page cache; and a group that is Quick, in memory, is run at once. What can be neither, and what the kernel gives back
// because somebody would have to wait, is run by a goroutine that may.
//
// A group is one write through all caches, and makes nothing else durable. All that is written elsewhere waits in the device's cache for
// a checkpoint's syncs; whatever of it a power cut takes, the journal since the last checkpoint makes again.
//
// # Format, version 2 (all integers little-endian, all checksums CRC32C)
//
//	   0  superblock A   4 KiB
//	4096  superblock B   4 KiB    written alternately; the valid one with the larger seq counts, if its image is valid
//	8192  image A        imageBytes: the state of all volumes as of a checkpoint
//	      image B        imageBytes
//	      journal        journalBytes, circular
//	      pages          two slots of 4 KiB per region, written alternately
//	      data           1 MiB per region
//
// Superblock; the rest of its 4 KiB is zero:
//
//	 0  magic "CLADEDSK"          60  attachGen u64        108  image u32: which copy
//	 8  crc u32 of 12..4095       68  deviceBytes u64      112  image length u32
//	12  format version u32        76  imageBytes u64       116  image crc u32
//	16  seq u64                   84  journalBytes u64     120  tail: offset in the journal u64
//	24  cluster [16]              92  regions u64          128  tail: lsn u64
//	40  uuid [16]                100  incarnation u64      136  tail: crc of the group before u32
//	56  disk u32
//
// Group, at a multiple of 4 KiB in the journal, never across its end: the meta part, which is a header and entries, padded with
// zeros to 4 KiB; then the blocks, 4 KiB each, whose CRC32C the entries carry. A group that does not fit before the end of the
// journal begins at its start. Header of 64 bytes:
//
//	0  magic "CLGR"              24  incarnation u64       44  meta bytes without padding u32
//	4  crc u32 of the meta part  32  lsn u64               48  blocks u32
//	   from 8 on                 40  crc of the group      52  zero
//	8  uuid [16]                     before u32
//
// Page:
//
//	0  magic "CLPG"              16  volume u64            40  rseq u64
//	4  crc u32 of 8..4095        24  extent u32            48  written [32]: a bit per block; 0: zeros
//	8  version u64               28  generation u64        80  stamp u64: seq of the superblock that its
//	                             36  region u32                checkpoint was to end with
//	                                                       88  crc u32 of 8..87
//	                                                       92  crc [256]u32
//	                                                     1116  zero
//
// Of two whole copies with the right identity the larger version counts. Both are whole, but for one that an unfinished checkpoint
// has torn, whose header says so, as a power cut does not tear a sector: then what it covers is in the journal.
//
// # Rules
//
//	S1  At most one group is unsynced, so an invalid group with a valid later one is damage, not a torn tail.
//	S2  Nothing is answered before the group that holds it is durable.
//	S3  A block is written in place only when its record is at or below the durable commit point (I5, B: C25), and left out only for
//	    that of a later record of which the same is true.
//	S4  The tail moves only after a checkpoint: data, pages, then image and superblock are durable (B: C16a). Under load that goes
//	    beside several groups, with syncs of its own (sliced.go).
//	S5  A page is written to the slot that does not hold its newest durable version.
//	S6  An empty or lost page is damage, never zeros (B: C27).
//	    A page of which one copy is lost, not torn, is lost: the other may be the older one.
//	S7  A failed write or sync is final: the disk answers NackGone to everything from then on.
//	S8  Room in the journal is promised before anything is logged; the quotas that owners were told are in sum less than the journal
//	    can hold back, whatever volumes came and went since (room.go, B: L4, L12).
//	S9  Before the first page of a Wipe is made anew the volume is damaged, durably; the Wipe's entry ends that.
//	S10 Every group after a checkpoint is of the life that wrote it; a life begins with a checkpoint before it appends anything.
//	S11 An idle disk appends a group without entries, which says that the group before it was durable.
//
// # What takes long
//
// Long work goes in pieces: making or reading the pages of shards 4 MiB at a time, 8 MiB within a Step, applying 1024 blocks at a time,
// checkpoints under load between groups. What is left is a journal that is full of records that nobody commits: in one call they are
// copied forward, a 32nd of the journal at a time, each with its sync, when the oldest lies further back than a quarter of it. That is at
// most what quotas allow, 5/16 of the journal: 11 syncs, and 320 MiB for a journal of 1 GiB, at most once for each quarter of a journal
// that other volumes write.
//
// # What cannot be told
//
// The journal's very last group, if it does not fit its checksum, is taken for one that a power cut has torn before anybody was
// answered. It may have been durable, and have rotted since: then what it acknowledged is lost without a word. A later group tells
// the two apart, and so does a checkpoint: on an idle disk S11 sees to it after half a second, or as much later as Background is
// called; a node looks at an idle disk each 50 ms. What is left is rot of what was written in the last moments before a power cut or a
// kill; against that stand the other disks' reports (B: C15). Where the next group would begin, a page that cannot be read may be that
// group: the disk calls itself damaged. The same page anywhere else in the free part of the journal costs nothing.
package store
