package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"clade/aoe/initiator"
	"clade/integration/lab"
)

// makeImage makes an ext4 image of real files.
func (d *demo) makeImage() error {
	d.image = filepath.Join(d.dir, "image")
	tree := filepath.Join(d.dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	from, err := copyFiles(tree)
	if err != nil {
		return err
	}
	if err := fillFile(filepath.Join(tree, "noise"), demoImageBytes*5/8); err != nil {
		return err
	}
	out, err := d.tool("mkfs.ext4", "-q", "-d", tree, d.image, fmt.Sprintf("%dk", demoImageBytes>>10))
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w\n%s", err, out)
	}
	f, err := os.Open(d.image)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	copy(d.sum[:], h.Sum(nil))
	d.say("an ext4 image of %s from the files in %s, SHA-256 %x...", sizeText(demoImageBytes), from, d.sum[:8])
	return os.RemoveAll(tree)
}

// copyFiles copies the sources and documents of this checkout, or, somewhere else, of the machine's documentation. It
// returns where they are from.
func copyFiles(to string) (string, error) {
	from, keep := "/usr/share/doc", func(name string) bool { return true }
	if mod, err := os.ReadFile("go.mod"); err == nil && strings.HasPrefix(string(mod), "module clade") {
		from, keep = ".", func(name string) bool {
			ext := filepath.Ext(name)
			return ext == ".go" || ext == ".md" || name == "Makefile"
		}
	}
	const filesMax, bytesMax = 2000, demoImageBytes / 8
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // it vanished, or is not for us
		case files >= filesMax || bytes >= bytesMax:
			return fs.SkipAll
		case e.IsDir() && path != from && strings.HasPrefix(e.Name(), "."):
			return fs.SkipDir
		case !e.Type().IsRegular() || !keep(e.Name()):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil || len(data) > 1<<20 {
			return nil // it vanished, or is too large to be worth it
		}
		target := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		files, bytes = files+1, bytes+int64(len(data))
		return os.WriteFile(target, data, 0o644)
	})
	if from == "." {
		from = "this checkout"
	}
	return from, err
}

// fillFile writes bytes that no compression and no luck gets right.
func fillFile(path string, bytes int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{7}), bytes)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// newBar returns a function that shows how many bytes are done.
func (d *demo) newBar(title string, total int64) func(n int64) {
	if !d.bar {
		return func(int64) {}
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("          "+title),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30))
	var mu sync.Mutex
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		_ = bar.Add64(n) // a bar that cannot be drawn is no reason to stop
	}
}

// client starts an initiator and warms it up.
func (d *demo) client() (*initiator.Client, error) {
	c, err := d.host.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: d.shelf(), Slot: d.slot})
	if err != nil {
		return nil, err
	}
	scratch := make([]byte, 4096)
	for range lab.WarmUpWrites {
		if err := c.WriteAt(d.ctx, scratch, demoVolumeBytes-4<<20); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// stallGauge notes, over writes that run side by side, for how long none was answered, and how long any waited in its queue
// of retransmissions.
type stallGauge struct {
	mu           sync.Mutex
	last         time.Time // of an answer
	gap, longest time.Duration
	done         int64
}

// answered notes a write that began at from; true once, when half of the image is written.
func (g *stallGauge) answered(from time.Time, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.gap = max(g.gap, now.Sub(g.last))
	g.longest = max(g.longest, now.Sub(from))
	g.last = now
	before := g.done
	g.done += int64(n)
	return before < demoImageBytes/2 && g.done >= demoImageBytes/2
}

// writeWithDeath writes the image, and kills the node that serves the volume when half of it is written.
func (d *demo) writeWithDeath() (err error) {
	c, err := d.client()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	f, err := os.Open(d.image)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	node, err := d.owner()
	if err != nil {
		return err
	}
	var gauge stallGauge
	half := make(chan struct{})
	killed := make(chan error, 1)
	go func() {
		select {
		case <-half:
			d.say("half is written: %s of %s, which serves the volume", d.killing(), node)
			killed <- d.site.Do(lab.FaultKill, node)
		case <-d.ctx.Done():
			killed <- d.ctx.Err()
		}
	}()
	bar := d.newBar("writing", demoImageBytes)
	began := time.Now()
	gauge.last = began
	err = eachChunk(d.ctx, 0, demoImageBytes, demoChunkBytes, demoDepth, func(ctx context.Context, off int64, p []byte) error {
		if _, err := f.ReadAt(p, off); err != nil {
			return err
		}
		from := time.Now()
		if err := c.WriteAt(ctx, p, off); err != nil {
			return err
		}
		if gauge.answered(from, len(p)) {
			close(half)
		}
		bar(int64(len(p)))
		return nil
	})
	if err == nil {
		err = <-killed
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	d.say("%s written in %.1f s (%.0f MB/s); nothing was answered for %s; the longest that any write waited: %s", sizeText(demoImageBytes), took.Seconds(),
		demoImageBytes/1e6/took.Seconds(), inMs(gauge.gap), inMs(gauge.longest))
	d.timeRow("stall: "+d.killing()+" while writing at full speed", fmt.Sprintf("%s (longest wait of a write: %s)", inMs(gauge.gap), inMs(gauge.longest)),
		d.killLimit(), gauge.gap < d.killLimit())
	return d.returnOf(node)
}

// returnOf starts a killed node again.
func (d *demo) returnOf(node string) error {
	if err := d.restart(node); err != nil {
		return err
	}
	d.say("%s is started again", node)
	return nil
}

// comeBack shows the resync of the node that was away.
func (d *demo) comeBack() error {
	ctx, cancel := context.WithTimeout(d.ctx, 2*time.Minute)
	defer cancel()
	began, last := time.Now(), ""
	shape := d.site.Shape()
	seen := uint64(0)
	err := lab.Await(ctx, d.site, "resync", func(s *lab.NodeStatus) bool {
		for i := range s.Volumes {
			for _, r := range s.Volumes[i].Resync {
				seen = max(seen, uint64(r.Total))
				if now := fmt.Sprintf("resync: disk %d, %d of %d MiB", r.Disk, r.Done, r.Total); now != last {
					last = now
					if d.bar {
						fmt.Fprintf(os.Stderr, "\r          %s   ", now)
					}
				}
			}
		}
		return lab.IsHealthy(shape, s)
	})
	if d.bar && last != "" {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
	if err != nil {
		return err
	}
	d.say("it has caught up by itself in %.1f s (%d MiB to copy) and holds everything again", time.Since(began).Seconds(), seen)
	d.row("the node that came back is in sync", fmt.Sprintf("%.1f s", time.Since(began).Seconds()), "by itself", true)
	return nil
}

// readBack kills another node for good and reads everything from the rest.
func (d *demo) readBack() (err error) {
	node, err := d.owner()
	if err != nil {
		return err
	}
	if err := d.site.Do(lab.FaultKill, node); err != nil {
		return err
	}
	d.dead = node
	d.say("%s of %s; it stays dead while everything is read back from the other two", d.killing(), node)
	for _, p := range d.probes {
		if err := p.Close(); err != nil {
			return err
		}
	}
	c, err := d.host.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: d.shelf(), Slot: d.slot})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	back := filepath.Join(d.dir, "back")
	f, err := os.Create(back)
	if err != nil {
		return err
	}
	bar := d.newBar("reading", demoImageBytes)
	h := sha256.New()
	began := time.Now()
	err = orderedChunks(d.ctx, 0, demoImageBytes, demoChunkBytes, demoDepth, func(ctx context.Context, off, n int64) ([]byte, error) {
		p := make([]byte, n)
		return p, c.ReadAt(ctx, p, off)
	}, func(p []byte) error {
		bar(int64(len(p)))
		_, _ = h.Write(p) // a hash takes everything
		_, err := f.Write(p)
		return err
	})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	same := [sha256.Size]byte(h.Sum(nil)) == d.sum
	d.say("%s read in %.1f s (%.0f MB/s)", sizeText(demoImageBytes), took.Seconds(), demoImageBytes/1e6/took.Seconds())
	d.row("SHA-256 of what came back", fmt.Sprintf("%x...", h.Sum(nil)[:8]), fmt.Sprintf("%x...", d.sum[:8]), same)
	out, err := d.tool("e2fsck", "-fn", back)
	if err != nil {
		d.say("e2fsck: %v\n%s", err, out)
	}
	d.row("e2fsck -fn of what came back", lastLine(out), "clean", err == nil)
	return nil
}

// lastLine returns what e2fsck sums up, without the file's name.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	_, text, _ := strings.Cut(lines[len(lines)-1], ": ")
	return text
}

// lookTool finds a program, also where root's programs are: these are not in everybody's PATH.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, serr := exec.LookPath(filepath.Join(dir, name)); serr == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: it is part of the package e2fsprogs: %w", name, err)
}
