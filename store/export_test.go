package store

// JournalHead returns where the next group begins.
func (d *Disk) JournalHead() int64 { return d.jrn.head.off }
