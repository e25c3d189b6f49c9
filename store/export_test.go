package store

// JournalHead returns where the next group begins.
func (d *Disk) JournalHead() int64 { return d.jrn.head.off }

// PinnedMaxOf returns the most that all quotas of a journal of size bytes may be in sum.
func PinnedMaxOf(size int64) int64 { return (&journal{size: size}).pinnedBytesMax() }
