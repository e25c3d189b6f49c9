package store

import "fmt"

// A checkpoint under load goes in pieces, so that no group waits for it: the state of the volumes is copied as of a group when that is
// formed; when it is durable, the pages that are dirty then are written, a few after each group; a job of its own empties the device's
// cache, which makes them durable, with all data in place before them; then the image and the superblock are written, and another such
// job lets them count (S4). What is applied meanwhile lies in the journal until the next checkpoint.

const (
	slicedPagesMin = 64 // pages written after one group
	slicedSteps    = 32 // groups after which all of them are, at the latest
)

type slicedPhase uint8

const (
	slicedCut   slicedPhase = iota // the group is not durable yet
	slicedPages                    // pages are being written
	slicedData                     // pages are written, not durable
	slicedImage                    // image and superblock are written, not durable
)

// sliced is a checkpoint under way.
type sliced struct {
	phase slicedPhase
	lsn   uint64 // of the group as of which the image is
	tail  position
	image []byte
	slice int
	next  *super
}

// beginSliced begins a checkpoint as of the group that was just written, if the journal has filled and it would free anything: what the
// volumes' state says is durable then was logged up to this group. Fills of the group are in place when it is durable.
func (d *Disk) beginSliced() {
	used := d.jrn.used()
	if d.cp != nil || used <= d.jrn.size/4 {
		return
	}
	tail := d.oldestStart()
	if d.jrn.distance(tail) > used/2 {
		return // records that may not be applied yet lie in the way
	}
	d.cp = &sliced{lsn: d.jrn.head.lsn - 1, tail: tail, image: encodeImage(&imageState{lsn: d.jrn.head.lsn - 1, vols: d.vols})}
}

// flushWanted reports whether a checkpoint waits for the device's cache, and no job empties it.
func (d *Disk) flushWanted() bool {
	return d.flushing == nil && (d.emptying || d.cp != nil && (d.cp.phase == slicedData || d.cp.phase == slicedImage))
}

// slicedOn gets on with a checkpoint after a job; covered is the phase in which it was when one began that has emptied the device's
// cache, slicedCut if it was a group's.
func (d *Disk) slicedOn(covered slicedPhase) error {
	switch cp := d.cp; {
	case cp == nil:
	case cp.phase == slicedPages:
		if err := d.writePages(cp.slice); err != nil {
			return err
		}
		if len(d.pages.writing) == 0 {
			cp.phase = slicedData
		}
	case cp.phase == slicedData && (covered == slicedData || mutated("GROUP_COVERS")):
		next, err := d.writeImage(cp.image, cp.tail)
		if err != nil {
			return err
		}
		cp.next, cp.phase = next, slicedImage
	case cp.phase == slicedImage && (covered == slicedImage || mutated("GROUP_COVERS")):
		d.slicedEnd()
	}
	return nil
}

// slicedDurable notes that the group g is durable: if it is the one of the checkpoint, all that it covers is in place now.
func (d *Disk) slicedDurable(g *group) {
	if cp := d.cp; cp != nil && cp.phase == slicedCut && g.lsn >= cp.lsn {
		cp.phase = slicedPages
		d.pages.begin()
		cp.slice = max(slicedPagesMin, len(d.pages.writing)/slicedSteps)
	}
}

// slicedEnd lets a checkpoint count whose superblock is durable.
func (d *Disk) slicedEnd() {
	cp := d.cp
	d.cp = nil
	d.counts(cp.next, cp.tail, cp.lsn)
}

// counts takes over a checkpoint that is durable.
func (d *Disk) counts(next *super, tail position, lsn uint64) {
	d.super = next
	d.jrn.trim(tail)
	d.checkpointed = lsn
	d.vouched = max(d.vouched, lsn)
	d.stats.Checkpoints++
}

// slicedStop ends a checkpoint under way before another one begins: pages that it has written are durable before they are written
// again (S5), and a superblock that it has written counts.
func (d *Disk) slicedStop() error {
	if d.cp == nil {
		return nil
	}
	if err := d.dev.Sync(); err != nil {
		return fmt.Errorf("checkpoint: sync: %w", err)
	}
	if d.cp.phase == slicedImage {
		d.slicedEnd()
	}
	d.cp = nil
	return nil
}
