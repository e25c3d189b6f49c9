package store

import (
	"errors"
	"fmt"

	"clade/raid"
)

// Damage is one thing that does not fit.
type Damage struct {
	Place  string        `json:"place"` // superblock, image, journal, page or block
	Volume raid.VolumeID `json:"volume,omitempty"`
	Extent uint32        `json:"extent,omitempty"`
	Region uint32        `json:"region,omitempty"`
	Block  uint32        `json:"block,omitempty"` // in the shard
	Offset int64         `json:"offset"`          // on the device
	Text   string        `json:"text"`
}

// CheckReport is what a check has found.
type CheckReport struct {
	Identity    Identity `json:"identity"`
	Volumes     int      `json:"volumes"`
	Shards      int      `json:"shards"`
	Regions     uint64   `json:"regions"`
	Blocks      uint64   `json:"blocks"`  // written ones, read and compared
	Records     int      `json:"records"` // in the journal
	JournalUsed int64    `json:"journal_used"`
	Damage      []Damage `json:"damage"`
	More        uint64   `json:"more"` // damages beyond those listed
}

// damageMax bounds the list of a report.
const damageMax = 1000

func (r *CheckReport) add(d Damage) {
	if len(r.Damage) < damageMax {
		r.Damage = append(r.Damage, d)
	} else {
		r.More++
	}
}

// Check reads a disk that nobody has open and compares every structure and every block with its checksum. It writes nothing. An
// error means that it could not go on; what does not fit is in the report. Blocks that the journal will write again at the next
// Open are not judged in place. progress is called with the regions done and in all.
func Check(dev Device, progress func(done, total uint64)) (CheckReport, error) {
	var rep CheckReport
	checkSupers(dev, &rep)
	d, img, err := load(dev, Config{CacheBytes: 1 << 20})
	if err != nil {
		return rep, fmt.Errorf("store: check: %w", err)
	}
	rep.Identity, rep.Volumes = d.super.Identity, len(d.vols)
	alive := len(img.alive)
	pending := d.scan(img, &rep)
	if rep.Records < alive {
		rep.add(Damage{Place: "journal", Offset: d.jrn.base + d.jrn.tail.off, Text: fmt.Sprintf("%d records that the checkpoint counts on are missing", alive-rep.Records)})
	}
	total := uint64(0)
	for _, v := range d.vols {
		for _, s := range v.shards {
			total += uint64(s.Regions)
		}
	}
	for _, v := range d.vols {
		for _, s := range v.shards {
			rep.Shards++
			for i := range s.Regions {
				d.checkRegion(&rep, v, s, i, pending)
				rep.Regions++
				if progress != nil {
					progress(rep.Regions, total)
				}
			}
		}
	}
	return rep, nil
}

// checkSupers reports superblocks and images that are not whole. One of two may be torn by a power cut; both are damage.
func checkSupers(dev Device, rep *CheckReport) {
	valid := 0
	for i := range int64(2) {
		b := make([]byte, pageBytes)
		if err := readFull(dev, b, i*pageBytes); err != nil {
			rep.add(Damage{Place: "superblock", Offset: i * pageBytes, Text: err.Error()})
		} else if _, err := decodeSuper(b); err == nil {
			valid++
		} else if !errors.Is(err, ErrNotFormatted) {
			rep.add(Damage{Place: "superblock", Offset: i * pageBytes, Text: err.Error()})
		}
	}
	if valid == 0 {
		rep.add(Damage{Place: "superblock", Text: "neither copy is whole"})
	}
}

// scan follows the journal without executing it, and returns the blocks that it holds newer versions of.
func (d *Disk) scan(img *imageState, rep *CheckReport) map[blockKey]bool {
	pending := map[blockKey]bool{}
	p, lost := d.jrn.tail, false
	for {
		entries, _, next, ok, err := d.jrn.read(p)
		if lost = err != nil; lost || !ok {
			break
		}
		for i := range entries {
			e := &entries[i]
			if e.rec != nil {
				rep.Records++
			}
			if e.kind == entryShards && p.lsn > img.lsn {
				d.addVolume(e.vol) // its shards are made anew at Open: nothing to judge
			}
			if v := d.volume(e.vol); e.kind == entryWipe && p.lsn > img.lsn && v != nil {
				v.shards = nil // likewise
			}
			for _, b := range e.data() {
				pending[blockKey{e.vol, idOf(&b)}] = true
			}
		}
		p = next
	}
	d.jrn.head = p
	rep.JournalUsed = d.jrn.used()
	later, unread := d.jrn.laterThan(p.lsn)
	if unread > 0 {
		rep.add(Damage{Place: "journal", Offset: d.jrn.base, Text: fmt.Sprintf("%d pages cannot be read: they are free, and cured when they are written", unread)})
	}
	if lost || later || p.lsn <= img.lsn {
		rep.add(Damage{Place: "journal", Offset: d.jrn.base + p.off, Text: fmt.Sprintf("group %d is damaged: all volumes of the disk will resync", p.lsn)})
	}
	return pending
}

type blockKey struct {
	vol raid.VolumeID
	id  blockID
}

func (d *Disk) checkRegion(rep *CheckReport, v *volume, s shard, region uint32, pending map[blockKey]bool) {
	slot := s.slot + uint64(region)
	torn := false // the next Open writes it anew
	for at := range uint32(raid.BlocksPerRegion) {
		torn = torn || pending[blockKey{v.id, blockID{s.Gen, s.Extent, region*raid.BlocksPerRegion + at}}]
	}
	p := readPage(d.dev, d.super, slot, pageID{v.id, s.Extent, s.Gen, region}, torn)
	if p.bad {
		rep.add(Damage{Place: "page", Volume: v.id, Extent: s.Extent, Region: region, Offset: d.super.pageOffset(slot, 0),
			Text: "no whole page of checksums: the region's blocks are read from other disks"})
		return
	}
	b := d.oneByOneOrAll(slot)
	for at := range uint32(raid.BlocksPerRegion) {
		no := region*raid.BlocksPerRegion + at
		if !p.has(at) || pending[blockKey{v.id, blockID{s.Gen, s.Extent, no}}] {
			continue
		}
		rep.Blocks++
		if crcOf(b[at*raid.BlockBytes:(at+1)*raid.BlockBytes]) != p.crc[at] {
			rep.add(Damage{Place: "block", Volume: v.id, Extent: s.Extent, Region: region, Block: no,
				Offset: d.super.dataOffset(slot) + int64(at)*raid.BlockBytes, Text: "checksum: the block is rebuilt when it is read"})
		}
	}
}

// oneByOneOrAll reads a region, block by block where a read of all fails.
func (d *Disk) oneByOneOrAll(slot uint64) []byte {
	b := make([]byte, raid.RegionBytes)
	if err := readFull(d.dev, b, d.super.dataOffset(slot)); err != nil {
		return d.oneByOne(slot, 0, raid.BlocksPerRegion)
	}
	return b
}
