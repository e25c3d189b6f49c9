package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// feed is the demo's data on its way into the client's container. When half of it is read, a node begins to be killed; until
// it is dead, the data comes slowly, so that it dies while data is written.
type feed struct {
	data   *rand.ChaCha8
	done   int
	half   chan struct{} // closed at half
	killed <-chan error  // the node is dead
	dead   bool
	err    error
}

// Read never gives more than a piece.
func (f *feed) Read(p []byte) (int, error) {
	n := min(len(p), feedPiece, demoBytes-f.done)
	if n == 0 {
		return 0, io.EOF
	}
	if f.done < demoBytes/2 && f.done+n >= demoBytes/2 {
		close(f.half)
	}
	if f.done >= demoBytes/2 && !f.dead {
		pause := time.After(feedPause)
		if f.done >= demoBytes*3/4 {
			pause = nil // this much is written after the death
		}
		select {
		case f.err = <-f.killed:
			f.dead = true
		case <-pause:
		}
		if f.err != nil {
			return 0, f.err
		}
	}
	n, err := f.data.Read(p[:n])
	f.done += n
	return n, err
}

// newData returns the demo's data from its beginning: bytes that no compression and no luck gets right.
func newData() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{7}) }

// writeWithDeath writes the data through the client and kills the node that serves the volume when half of it is written.
func (d *demo) writeWithDeath() error {
	h := sha256.New()
	if _, err := io.CopyN(h, newData(), demoBytes); err != nil {
		return err
	}
	copy(d.sum[:], h.Sum(nil))
	node, err := d.owner()
	if err != nil {
		return err
	}
	killed := make(chan error, 1)
	f := &feed{data: newData(), half: make(chan struct{}), killed: killed}
	go func() {
		select {
		case <-f.half:
			_, err := d.docker(d.ctx, "kill", d.ids[node])
			d.say("half is written: docker kill of %s, which serves the volume", node)
			killed <- err
		case <-d.ctx.Done():
			killed <- d.ctx.Err()
		}
	}()
	var out bytes.Buffer
	if err := d.stream(d.ctx, clientName, f, &out, d.initiator("write", volumeName)...); err != nil {
		return err
	}
	var r struct {
		Bytes   int64   `json:"bytes"`
		Seconds float64 `json:"seconds"`
		Longest float64 `json:"longest_stall_ms"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return err
	}
	longest := time.Duration(r.Longest * float64(time.Millisecond))
	d.say("%d MiB written over AoE in %.1f s; the longest that any write waited: %s", r.Bytes>>20, r.Seconds, inMs(longest))
	d.rows = append(d.rows, row{what: "stall: docker kill while writing", measured: inMs(longest), limit: "< " + inMs(limitDeath), ok: longest < limitDeath, time: true})
	if r.Bytes != demoBytes || !f.dead {
		return fmt.Errorf("%d of %d bytes were written, and the node is dead: %t", r.Bytes, demoBytes, f.dead)
	}
	_, err = d.docker(d.ctx, "start", d.ids[node])
	d.say("%s is started again", node)
	return err
}

// comeBack waits until the node that was away holds everything again.
func (d *demo) comeBack() error {
	began := time.Now()
	if err := d.healthy(); err != nil {
		return err
	}
	took := fmt.Sprintf("%.1f s", time.Since(began).Seconds())
	d.say("it has caught up by itself in %s", took)
	d.row("the node that came back is in sync", took, "by itself", true)
	return nil
}

// readBack kills another node, leaves it dead, and reads everything from the rest.
func (d *demo) readBack() error {
	node, err := d.owner()
	if err != nil {
		return err
	}
	if _, err := d.docker(d.ctx, "kill", d.ids[node]); err != nil {
		return err
	}
	d.dead = node
	d.say("docker kill of %s; it stays dead while everything is read back from the other two", node)
	h := sha256.New()
	began := time.Now()
	if err := d.stream(d.ctx, clientName, nil, h, "initiator", "read", "-i", d.san, volumeName, "--length", fmt.Sprint(demoBytes)); err != nil {
		return err
	}
	d.say("%d MiB read in %.1f s", demoBytes>>20, time.Since(began).Seconds())
	got := h.Sum(nil)
	d.row("SHA-256 of what came back", fmt.Sprintf("%x...", got[:8]), fmt.Sprintf("%x...", d.sum[:8]), bytes.Equal(got, d.sum[:]))
	return nil
}
