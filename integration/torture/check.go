package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"clade/aoe"
	"clade/aoe/initiator"
	"clade/integration/lab"
)

// identity is what an initiator knows a volume by, and what must never change.
type identity struct {
	identify map[uint8][]byte // IDENTIFY DEVICE, by slot
	found    []initiator.Found
	serial   map[uint8]string
	macs     map[uint8][]aoe.MAC
}

const (
	discoverMax   = 200 * time.Millisecond
	discoverTries = 5
	statusMax     = 20 * time.Second
)

// identify asks what an initiator and an operator are told of all volumes.
func (r *run) identify(ctx context.Context) (*identity, error) {
	out := &identity{identify: map[uint8][]byte{}, serial: map[uint8]string{}, macs: map[uint8][]aoe.MAC{}}
	st, err := r.lab.AskCluster(ctx)
	if err != nil {
		return nil, err
	}
	for i := range st.Volumes {
		v := &st.Volumes[i]
		out.serial[v.Slot], out.macs[v.Slot] = v.Serial, v.ServingMACs
		if out.identify[v.Slot], err = r.identifyOne(ctx, v.Slot); err != nil {
			return nil, err
		}
	}
	out.found, err = r.discover(ctx, r.lab.Spec.Slots*r.lab.Spec.SANPaths)
	return out, err
}

func (r *run) identifyOne(ctx context.Context, slot uint8) ([]byte, error) {
	c, err := r.host.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: r.lab.Spec.Shelf, Slot: slot})
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	op := &initiator.Op{Kind: initiator.OpIdentify, Data: make([]byte, initiator.SectorBytes)}
	if err := c.Do(ctx, op); err != nil {
		return nil, fmt.Errorf("torture: IDENTIFY of slot %d: %w", slot, err)
	}
	r.counts.controls.Add(1)
	return op.Data, nil
}

// discover returns who answers a discovery, once as many do as there should be; a frame may be lost.
func (r *run) discover(ctx context.Context, want int) ([]initiator.Found, error) {
	var found []initiator.Found
	for range discoverTries {
		ctx, cancel := context.WithTimeout(ctx, discoverMax)
		list, err := r.host.Discover(ctx, initiator.NewMAC(), r.lab.Spec.Shelf, 0xFF)
		cancel()
		if err != nil {
			return nil, err
		}
		for i := range list {
			list[i].Config = nil // this one is changed
		}
		if found = list; len(found) == want {
			return found, nil
		}
	}
	return nil, fmt.Errorf("torture: a discovery finds %d ways to volumes, there are %d: %+v", len(found), want, found)
}

// check compares everything with what it was at first, and asks a node what `clade status --json` says.
func (r *run) check(ctx context.Context) error {
	now, err := r.identify(ctx)
	if err != nil {
		return err
	}
	for slot, want := range r.base.identify {
		switch {
		case !bytes.Equal(now.identify[slot], want):
			return fmt.Errorf("torture: IDENTIFY of slot %d: %x, at first %x", slot, now.identify[slot], want)
		case now.serial[slot] != r.base.serial[slot]:
			return fmt.Errorf("torture: serial of slot %d: %s, at first %s", slot, now.serial[slot], r.base.serial[slot])
		case !slices.Equal(now.macs[slot], r.base.macs[slot]):
			return fmt.Errorf("torture: serving MACs of slot %d: %s, at first %s", slot, now.macs[slot], r.base.macs[slot])
		}
	}
	if a, b := fmt.Sprint(now.found), fmt.Sprint(r.base.found); a != b {
		return fmt.Errorf("torture: a discovery finds %s, at first %s", a, b)
	}
	return r.status(ctx, r.lab.Nodes[r.rnd.IntN(len(r.lab.Nodes))].Name)
}

// status runs `clade status --json` at a node until it is as it should be. A node that does not lead is a little behind.
func (r *run) status(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	for {
		out, err := r.lab.StatusJSON(ctx, node)
		if err == nil {
			err = r.sane(out)
		}
		if err == nil {
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("torture: clade status --json of %s: %w", node, err)
		}
	}
}

// sane says what is wrong with a status of a cluster to which nothing happens.
func (r *run) sane(raw []byte) error {
	st := &lab.NodeStatus{}
	if err := json.Unmarshal(raw, st); err != nil {
		return err
	}
	if !lab.IsHealthy(r.lab.Spec, st) {
		return fmt.Errorf("not healthy: %s", lab.Summary(st))
	}
	up := map[string]bool{}
	for i := range st.Nodes {
		up[st.Nodes[i].Name] = st.Nodes[i].State == "up"
	}
	for i := range st.Volumes {
		v := &st.Volumes[i]
		switch {
		case !v.Active || !up[v.OwnerName]:
			return fmt.Errorf("%s: owner %q, active %v", v.Address, v.OwnerName, v.Active)
		case v.Layout != r.lab.Spec.Layout || v.SizeBytes != r.lab.Spec.SizeBytes:
			return fmt.Errorf("%s: layout %s, %d bytes", v.Address, v.Layout, v.SizeBytes)
		case uint64(v.Epoch) < r.epochs[v.Slot]:
			return fmt.Errorf("%s: epoch %d after epoch %d", v.Address, v.Epoch, r.epochs[v.Slot])
		case v.Slot <= loadedSlots && v.Config != "" || strings.ContainsAny(v.Config, "\n"):
			return fmt.Errorf("%s: config string %q, which nobody set", v.Address, v.Config)
		}
		r.epochs[v.Slot] = uint64(v.Epoch)
	}
	return nil
}
