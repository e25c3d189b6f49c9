package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"clade/aoe/initiator"
	"clade/aoe/initiator/load"
)

// TestRaceWhileOwnerDies: 64 initiators want 64 config strings at the moment at which the owner is killed. One wins, all are
// told so, and the string in force is the winner's.
func TestRaceWhileOwnerDies(t *testing.T) {
	slots := rounds(4, 24)
	l := newLab(t, Spec{Nodes: 3, Slots: slots, SizeBytes: 16 * mib})
	h := openHost(t, l)
	for slot := 1; slot <= slots; slot++ {
		// Before, during and after the first answers; and once without proof of the death.
		delay := time.Duration(slot%4) * 2 * time.Millisecond
		fault := FaultKill
		if slot%4 == 0 {
			fault = FaultKillAll
		}
		name := owner(t, l, uint8(slot))
		res := raceAndHurt(t, l, h, uint8(slot), func() error {
			time.Sleep(delay) // what is varied, not what is waited for
			return l.Do(fault, name)
		})
		if err := res.Check(); err != nil {
			t.Errorf("slot %d, %s after %s: %v", slot, fault, delay, err)
		}
		must(t, l.AwaitExit(name, 10*time.Second))
		must(t, l.Do(FaultRestart, name))
		healthyAgain(t, l)
	}
}

// raceAndHurt is Host.Race with something that happens at the start.
func raceAndHurt(t *testing.T, l *Lab, h *Host, slot uint8, hurt func() error) *initiator.RaceResult {
	t.Helper()
	ctx := within(t, 30*time.Second)
	res := &initiator.RaceResult{Contenders: make([]initiator.Contender, 64)}
	clients := make([]*initiator.Client, len(res.Contenders))
	for i := range clients {
		clients[i] = clientOf(t, h, l, slot)
		if _, err := clients[i].Config(ctx, initiator.ConfigRead, nil); err != nil { // makes the path known
			t.Fatal(err)
		}
		res.Contenders[i] = initiator.Contender{MAC: clients[i].MAC(), Wanted: fmt.Sprintf("host-%d", i)}
	}
	start := make(chan struct{})
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Go(func() {
			<-start
			r := &res.Contenders[i]
			told, err := c.Config(ctx, initiator.ConfigSet, []byte(r.Wanted))
			r.Told = string(told)
			r.Won = err == nil
			if err != nil && !errors.Is(err, initiator.ErrConfigPresent) {
				r.Err = err
			}
		})
	}
	wait.Go(func() {
		<-start
		if err := hurt(); err != nil {
			t.Error(err)
		}
	})
	close(start)
	wait.Wait()
	for i := range res.Contenders {
		if res.Contenders[i].Won {
			res.Winners++
		}
	}
	final, err := clients[0].Config(ctx, initiator.ConfigRead, nil)
	must(t, err)
	res.Final = string(final)
	return res
}

// TestReservationIsAFence: while several initiators write, another one takes the volume by a forced reservation. From its
// answer on, no write of theirs is ever executed: what it reads then stays, also through the death of the owner.
func TestReservationIsAFence(t *testing.T) {
	l := newLab(t, Spec{Nodes: 3})
	h := openHost(t, l)
	for round := range rounds(3, 30) {
		must(t, clearRange(h, l))
		v := startLoad(t, h, l, 1, func(c *load.RunConfig) {
			c.Clients, c.Depth, c.OpTimeout = 6, 8, 3*time.Second
			c.Workload = load.WorkloadConfig{Sectors: 2048, MaxSectors: 16, ReadPercent: 5, HotPercent: -1}
		})
		v.progress(500)
		c := clientOf(t, h, l, 1)
		ctx := within(t, 30*time.Second)
		list, err := c.Reserve(ctx, initiator.ReserveForceSet, c.MAC())
		if err != nil || len(list) != 1 || list[0] != c.MAC() {
			t.Fatalf("forced reservation: %v, %v", list, err)
		}
		now := initiator.BootNs()
		for client := range 6 {
			v.rec.CloseWrites(now, client)
		}
		first := make([]byte, 2048*initiator.SectorBytes)
		must(t, c.ReadAt(ctx, first, 0))
		if round%3 == 2 { // a new owner keeps the fence, too
			name := owner(t, l, 1)
			must(t, l.Do(FaultKill, name))
			must(t, l.AwaitExit(name, 10*time.Second))
			must(t, l.Do(FaultRestart, name))
			healthyAgain(t, l)
		}
		again := make([]byte, len(first))
		for range 20 { // the storm goes on: its retransmissions are still arriving
			must(t, c.ReadAt(ctx, again, 0))
			if !bytes.Equal(first, again) {
				t.Fatalf("round %d: a write of an excluded initiator was executed after the reservation was answered", round)
			}
		}
		v.cancel()
		<-v.done
		must(t, v.err)
		t.Logf("load: %d writes, %d refused (%v), %d open", v.sum.Writes, v.sum.Failed, v.sum.FirstError, v.sum.Open)
		if v.sum.Failed > 0 && !errors.Is(v.sum.FirstError, initiator.ErrReserved) {
			t.Errorf("writes failed with %v, want %v", v.sum.FirstError, initiator.ErrReserved)
		}
		recordRead(v.rec, 6, first, now)
		if err := load.Check(v.rec.Records(), load.Options{}).Err(); err != nil {
			t.Error(err)
		}
		if _, err := c.Reserve(ctx, initiator.ReserveForceSet); err != nil {
			t.Fatalf("release: %v", err)
		}
	}
}

// recordRead adds a read of the whole range that was made by other means to a history.
func recordRead(rec *load.Recorder, client int, data []byte, beganNs int64) {
	for off := 0; off < len(data); off += 64 * initiator.SectorBytes {
		n := min(64, (len(data)-off)/initiator.SectorBytes)
		r := rec.Begin(beganNs, client, false, uint64(off/initiator.SectorBytes), n, 0)
		rec.End(initiator.BootNs(), r, load.OK, data[off:off+n*initiator.SectorBytes])
	}
}

// readAll reads the load's range and puts it into the history.
func readAll(ctx context.Context, c *initiator.Client, rec *load.Recorder, client int, sectors int) error {
	began := initiator.BootNs()
	data := make([]byte, sectors*initiator.SectorBytes)
	if err := c.ReadAt(ctx, data, 0); err != nil {
		return err
	}
	recordRead(rec, client, data, began)
	return nil
}
