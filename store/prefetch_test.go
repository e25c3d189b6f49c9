package store_test

import (
	"testing"

	"clade/raid"
	"clade/store"
	"clade/store/disktest"
)

// aheadDevice notes what is read before anybody has said that it will be.
type aheadDevice struct {
	*disktest.Device
	said map[int64]bool
	cold int // reads in place of which nothing was said
	told int
}

func (d *aheadDevice) Prefetch(off, n int64) {
	d.told++
	for at := off; at < off+n; at += raid.BlockBytes {
		d.said[at] = true
	}
}

func (d *aheadDevice) ReadAt(p []byte, off int64) (int, error) {
	if !d.said[off] {
		d.cold++
	}
	return d.Device.ReadAt(p, off)
}

// A device is told of all that a Step will read in place before it has to read the first of it, and of nothing that needs no reading.
func TestReadsOfAStepAreUnderWayTogether(t *testing.T) {
	u := newNowDisk(t)
	rec := &raid.Record{Epoch: 1, Seq: 1, BID: 1, Parts: raid.DiskSet{3}}
	for no := range uint32(40) {
		rec.Blocks = append(rec.Blocks, raid.Block{Gen: 1, No: 2 * no, Data: make([]byte, raid.BlockBytes)})
	}
	stream := raid.Stream(1)
	request := func(r *raid.DiskRequest) *raid.DiskRequest {
		r.Vol, r.Disk, r.From, r.Epoch, r.Stream = 7, 3, 1, 1, stream
		return r
	}
	u.Step(1, []*raid.DiskRequest{request(&raid.DiskRequest{Kind: raid.ReqPrepare, Rec: rec}), request(&raid.DiskRequest{Kind: raid.ReqCommit, Commit: 1})})
	u.sync()
	for now := int64(1e9); u.Status().Applied == 0 || u.Status().Checkpoints < 2; now += 1e9 {
		if _, err := u.Background(now); err != nil || now > 1e11 {
			t.Fatal(now, err, u.Status())
		}
		u.sync()
	}
	dev := &aheadDevice{Device: u.dev.Device, said: map[int64]bool{}}
	var err error
	if u.Disk, err = store.Open(dev, store.Config{}); err != nil {
		t.Fatal(err)
	}
	step := func(reqs ...*raid.DiskRequest) []raid.DiskReply {
		out := u.Step(2, reqs)
		return append(out, u.sync()...)
	}
	stream++
	step(request(&raid.DiskRequest{Kind: raid.ReqStart}))
	read := func(no uint32) *raid.DiskRequest {
		return request(&raid.DiskRequest{Kind: raid.ReqRead, S: 1, Gen: 1, First: no, Count: 1})
	}
	step(read(0)) // the region's page is known from now on
	dev.cold = 0
	var reqs []*raid.DiskRequest
	for no := range uint32(60) { // every other one was never written
		reqs = append(reqs, read(no+2))
	}
	reqs = append(reqs, read(1<<20)) // there is none
	if out := step(reqs...); len(out) != len(reqs) || out[0].Kind != raid.RepRead {
		t.Fatalf("%d answers to %d Reads: %+v", len(out), len(reqs), out[0])
	}
	if dev.cold > 0 || dev.told != 30 {
		t.Errorf("%d blocks were read without a word before, %d were told of; of 30", dev.cold, dev.told)
	}
}
