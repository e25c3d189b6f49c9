// Package aoe is ATA over Ethernet as bytes and rules: the wire formats of AoEr11 and what a target answers to one frame. It
// is pure: it neither sends nor stores anything, and the path of a frame through it allocates nothing.
//
// # A frame (offsets from its start, all fields big-endian but the LBA)
//
//	 0  destination[6]  source[6]  0x88A2
//	14  version:4 flags:4 (R response, E error)   15  error
//	16  shelf ("major", 2 bytes)   18  slot ("minor")   19  command   20  tag[4], opaque
//	24  argument, by command:
//	    0 ATA             aflags  err/feature  sectors  command/status  lba[6] little-endian  reserved[2]  data...
//	    1 Query Config    bufcnt[2] firmware[2] sectors  version:4 ccmd:4  length[2]  string...
//	    2 MAC Mask List   reserved  mcmd  merror  count  count x {reserved dcmd mac[6]}
//	    3 Reserve/Release rcmd  nmacs  nmacs x mac[6]
//
// A request is handled by the slot it names, or by every slot whose shelf and slot its wildcards match; Ethernet addresses
// are no part of AoE addressing, but a clustered target must look at the destination: only frames to the serving MAC of the
// path they came by, or to broadcast, are its own.
package aoe
