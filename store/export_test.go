package store

// JournalHead returns where the next group begins.
func (d *Disk) JournalHead() int64 { return d.jrn.head.off }

// QuotaOf returns the quota that a journal of size bytes tells the owner of one of so many volumes.
func QuotaOf(size int64, volumes int) uint64 { return (&journal{size: size}).quota(volumes) }

// PinnedMaxOf returns the most that all quotas of a journal of size bytes may be in sum.
func PinnedMaxOf(size int64) int64 { return (&journal{size: size}).pinnedBytesMax() }
