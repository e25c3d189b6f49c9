package runtime

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/aoe/link"
	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store"
)

// create makes volume e7.<slot> and waits until it is served and healthy.
func (l *lab) create(slot uint8, layout raid.Layout, sizeBytes uint64) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	_, err := l.nodes[0].r.proposeCommand(ctx, &membership.Create{Slot: slot, Name: "v" + string(rune('0'+slot)), SizeBytes: sizeBytes, Layout: layout})
	if err != nil {
		l.t.Fatalf("create: %v", err)
	}
	l.nodes[0].until("the volume is healthy", func(s *Status) bool { return volumeIn(s, slot) != nil && volumeIn(s, slot).Health == "healthy" })
}

func volumeIn(s *Status, slot uint8) *cluster.VolumeStatus {
	for i := range s.Volumes {
		if s.Volumes[i].Slot == slot {
			return &s.Volumes[i]
		}
	}
	return nil
}

// open returns an initiator's session with volume e7.<slot>.
func (l *lab) open(slot uint8) *initiator.Client {
	l.t.Helper()
	mac := aoe.MAC{2, 0, 0, 0, 9, byte(len(l.t.Name())<<3) | slot}
	port, err := l.sw.NewPort(link.SwitchPortConfig{MAC: mac})
	if err != nil {
		l.t.Fatal(err)
	}
	h, err := initiator.NewHost(initiator.HostConfig{Ports: []link.Port{port}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(h.Close)
	c, err := h.NewClient(initiator.Config{MAC: mac, Shelf: 7, Slot: slot})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *lab) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(l.t.Context(), d)
	l.t.Cleanup(cancel)
	return ctx
}

func pattern(n int, seed uint64) []byte {
	p := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	return p
}

// withDisks waits until all nodes with disks have them open.
func (l *lab) withDisks(n int) {
	l.t.Helper()
	l.allUp()
	l.nodes[0].until("all disks open", func(s *Status) bool {
		ok := 0
		for _, d := range s.Disks {
			if d.State == "ok" {
				ok++
			}
		}
		return ok == n
	})
}

var layout21 = raid.Layout{K: 2, M: 1, UnitBytes: 64 << 10}

func TestAVolumeSurvivesTheLossOfItsOwnerAndOfEachNodeInTurn(t *testing.T) {
	l := newLab(t, 3, 3)
	l.withDisks(3)
	l.create(1, layout21, 8<<20)
	c := l.open(1)
	data := pattern(1<<20, 1)
	if err := c.WriteAt(l.within(20*time.Second), data, 4096); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		owner := l.nodes[0].status()
		n := l.nodes[volumeIn(owner, 1).Owner-1]
		n.kill()
		got := make([]byte, len(data))
		if err := c.ReadAt(l.within(30*time.Second), got, 4096); err != nil {
			t.Fatalf("round %d: read after the owner's death: %v", round, err)
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("round %d: the data differ after a takeover", round)
		}
		data = pattern(1<<20, uint64(round)+2)
		if err := c.WriteAt(l.within(30*time.Second), data, 4096); err != nil {
			t.Fatalf("round %d: write without the former owner: %v", round, err)
		}
		n.start()
		l.withDisks(3)
		l.nodes[0].until("in sync again", func(s *Status) bool {
			v := volumeIn(s, 1)
			return v != nil && v.Health == "healthy" && len(v.InSync) == 3
		})
	}
}

func TestAllNodesRestartAndTheDataAreThere(t *testing.T) {
	l := newLab(t, 3, 3)
	l.withDisks(3)
	l.create(1, layout21, 8<<20)
	c := l.open(1)
	data := pattern(3<<20, 7)
	if err := c.WriteAt(l.within(20*time.Second), data, 512); err != nil {
		t.Fatal(err)
	}
	l.stopAll()
	for _, n := range l.nodes {
		n.start()
	}
	got := make([]byte, len(data))
	if err := c.ReadAt(l.within(40*time.Second), got, 512); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("the data differ after a restart of all nodes")
	}
}

func TestADrainedNodeHandsItsVolumesOverBeforeItStopsAndTakesThemAgainLater(t *testing.T) {
	l := newLab(t, 3, 3)
	l.withDisks(3)
	l.create(1, layout21, 4<<20)
	s := l.nodes[0].status()
	n := l.nodes[volumeIn(s, 1).Owner-1]
	if err := n.r.Drain(l.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if v := volumeIn(n.status(), 1); v.Owner == n.r.id.Node {
		t.Fatalf("node %d still owns the volume after its drain", n.index+1)
	}
	n.kill()
	n.start()
	l.allUp()
	n.until("the drain is undone", func(s *Status) bool { return !s.Nodes[n.index].Draining })
}

// slowDevice delays its syncs while it is told to.
type slowDevice struct {
	store.Device
	mu    sync.Mutex
	delay time.Duration
}

func (d *slowDevice) set(delay time.Duration) {
	d.mu.Lock()
	d.delay = delay
	d.mu.Unlock()
}

func (d *slowDevice) wait() {
	d.mu.Lock()
	delay := d.delay
	d.mu.Unlock()
	time.Sleep(delay)
}

func (d *slowDevice) Sync() error {
	d.wait()
	return d.Device.Sync()
}

func (d *slowDevice) WriteThrough(p []byte, off int64) (int, error) {
	d.wait()
	return d.Device.WriteThrough(p, off)
}

func TestASlowDiskIsLeftOutAndComesBack(t *testing.T) {
	slow := make(chan *slowDevice, 8)
	l := &lab{t: t, sw: link.NewSwitch(link.SwitchConfig{MTU: 9000})}
	l.wrap = func(node int, _ string, dev store.Device) store.Device {
		if node != 2 {
			return dev
		}
		d := &slowDevice{Device: dev}
		slow <- d
		return d
	}
	l.stopsAtTheEnd()
	for range 3 {
		l.add(true)
	}
	l.withDisks(3)
	l.create(1, layout21, 4<<20)
	dev := <-slow
	c := l.open(1)
	dev.set(5 * time.Second) // longer than the owner waits
	data := pattern(64<<10, 3)
	if err := c.WriteAt(l.within(30*time.Second), data, 0); err != nil {
		t.Fatalf("write with a slow disk: %v", err)
	}
	l.nodes[0].until("the slow disk is stale", func(s *Status) bool { return len(volumeIn(s, 1).Stale) == 1 })
	dev.set(0)
	l.nodes[0].until("it is in sync again", func(s *Status) bool { return volumeIn(s, 1).Health == "healthy" })
	got := make([]byte, len(data))
	if err := c.ReadAt(l.within(20*time.Second), got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read: %v, equal %t", err, bytes.Equal(got, data))
	}
}

func TestAFailedDiskIsReportedAndItsVolumeGoesOn(t *testing.T) {
	l := newLab(t, 3, 3)
	l.withDisks(3)
	l.create(1, layout21, 4<<20)
	c := l.open(1)
	victim := l.nodes[1]
	path := victim.status().LocalDisks[0].Path
	if err := victim.r.SetFault(FaultRequest{Path: path, Write: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	data := pattern(256<<10, 5)
	if err := c.WriteAt(l.within(30*time.Second), data, 0); err != nil {
		t.Fatalf("write with a failed disk: %v", err)
	}
	victim.until("the failure is reported", func(s *Status) bool {
		return s.LocalDisks[0].State == "failed" && s.Disks[1].State == "failed" && len(s.Problems) > 0
	})
	got := make([]byte, len(data))
	if err := c.ReadAt(l.within(20*time.Second), got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read: %v, equal %t", err, bytes.Equal(got, data))
	}
}

func TestOverloadDropsFramesAndNothingElse(t *testing.T) {
	l := newLab(t, 3, 3)
	l.withDisks(3)
	l.create(1, layout21, 16<<20)
	var wg sync.WaitGroup
	c := l.open(1)
	errs := make(chan error, 32)
	for w := range 16 {
		wg.Go(func() {
			data := pattern(256<<10, uint64(w))
			for range 4 {
				if err := c.WriteAt(l.within(60*time.Second), data, int64(w)<<20); err != nil {
					errs <- err
					return
				}
			}
			got := make([]byte, len(data))
			if err := c.ReadAt(l.within(60*time.Second), got, int64(w)<<20); err != nil {
				errs <- err
			} else if !bytes.Equal(got, data) {
				t.Errorf("writer %d reads something else", w)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if s := l.nodes[0].status(); volumeIn(s, 1).Health != "healthy" {
		t.Fatalf("after the load: %+v", s.Problems)
	}
}

// TestALostDiskIsReplacedByAnEmptyOneOfAnotherNode: it takes over number and shards, is filled from the others, and the lost one is
// refused when it comes back.
func TestALostDiskIsReplacedByAnEmptyOneOfAnotherNode(t *testing.T) {
	l := newLab(t, 4, 4)
	l.withDisks(4)
	_, err := l.nodes[0].r.proposeCommand(l.within(20*time.Second), &membership.Create{Slot: 1, Name: "v", SizeBytes: 8 << 20, Layout: layout21, Disks: raid.NewDiskSet(1, 2, 3)})
	if err != nil {
		t.Fatal(err)
	}
	l.nodes[0].until("the volume is healthy", func(s *Status) bool { return volumeIn(s, 1) != nil && volumeIn(s, 1).Health == "healthy" })
	c := l.open(1)
	data := pattern(1<<20, 7)
	if err := c.WriteAt(l.within(20*time.Second), data, 8192); err != nil {
		t.Fatal(err)
	}
	spare := l.nodes[3]
	path := filepath.Join(t.TempDir(), "new")
	q := DiskAddRequest{Path: path, SizeBytes: 128 << 20, Replace: 3}
	if _, err := spare.r.AddDisk(l.within(20*time.Second), q); err == nil {
		t.Fatal("a disk that is in sync was replaced")
	}
	l.nodes[2].kill()
	l.nodes[0].until("its disk is stale", func(s *Status) bool {
		v := volumeIn(s, 1)
		return v != nil && v.Health == "degraded" && len(v.InSync) == 2 && s.Nodes[2].State == "down"
	})
	spare.until("its node's term is over", func(*Status) bool {
		held := true
		err := spare.r.inspect(l.within(10*time.Second), func(r *Runtime) { held = r.node.State().Node(3).Held })
		return err == nil && !held
	})
	reply, err := spare.r.AddDisk(l.within(20*time.Second), q)
	if err != nil || reply.Disk != 3 {
		t.Fatalf("%+v, %v", reply, err)
	}
	l.nodes[0].until("the new disk is in sync", func(s *Status) bool { return len(volumeIn(s, 1).InSync) == 3 })
	l.nodes[2].start()
	l.nodes[2].until("the lost disk is refused", func(s *Status) bool {
		return len(s.LocalDisks) == 1 && s.LocalDisks[0].State != "open" && s.LocalDisks[0].Err != ""
	})
	l.nodes[0].kill()
	got := make([]byte, len(data))
	if err := c.ReadAt(l.within(30*time.Second), got, 8192); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read with what was rebuilt: %v, equal %t", err, bytes.Equal(got, data))
	}
}
