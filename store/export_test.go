package store

// StateRoom returns how many volumes without shards, or shards of 256 volumes, a checkpoint of a disk has room for.
func StateRoom(dev Device) (volumes, shards uint64, err error) {
	all, err := readSupers(dev)
	if err != nil {
		return 0, 0, err
	}
	n := all[0].imageBytes - all[0].journalBytes/pageBytes*recordStateBytes - imageHeaderBytes
	return n / volumeStateBytes, (n - 256*volumeStateBytes) / shardStateBytes, nil
}

// JournalHead returns where the next group begins.
func (d *Disk) JournalHead() int64 { return d.jrn.head.off }

// PinnedMaxOf returns the most that all quotas of a journal of size bytes may be in sum.
func PinnedMaxOf(size int64) int64 { return (&journal{size: size}).pinnedBytesMax() }

// On returns the job as it would be done on another device: a copy of the disk's, for a power cut in the midst of it.
func (j *SyncJob) On(dev Device) *SyncJob {
	return &SyncJob{dev: dev, g: j.g, bytes: j.bytes, off: j.off}
}

// What a device says of a write that was started and has not ended.
var (
	ErrUnderWay = errUnderWay
	ErrAgain    = errAgain
)
