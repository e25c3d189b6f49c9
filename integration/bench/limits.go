package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"clade/aoe/initiator/bench"
)

// The disk's own limits, by what a target would have to do on it.
const (
	limitAppend1  = "append1"
	limitAppend3  = "append3"
	limitPlace3   = "place3"
	limitDsync16  = "dsync16"
	limitRead1    = "read1"
	limitRead16   = "read16"
	limitRead64   = "read64"
	limitBigWrite = "bigwrite"
	limitBigRead  = "bigread"
)

const (
	pageBytes  = 4096
	probeBytes = 512 << 20 // of the file that random operations go to
)

// diskProbe is one way to use a disk: workers that do the same for a while, each in its own file or all in the one that exists.
type diskProbe struct {
	name, title string
	workers     int
	bytes       int
	flags       int  // of open
	own         bool // a file of its own for each worker, new and empty
	sync        bool // fdatasync after each
	append      bool // at the end; otherwise at random
	read        bool
}

var diskProbes = []diskProbe{
	{name: limitAppend1, title: "4 KiB append + fdatasync, one file", workers: 1, bytes: pageBytes, own: true, sync: true, append: true},
	{name: limitAppend3, title: "4 KiB append + fdatasync, three files in parallel, all together", workers: 3, bytes: pageBytes, own: true, sync: true, append: true},
	{name: limitPlace3, title: "4 KiB random overwrite + fdatasync, three in parallel, all together", workers: 3, bytes: pageBytes, sync: true},
	{name: limitDsync16, title: "4 KiB random overwrite, O_DIRECT, O_DSYNC, qd 16", workers: 16, bytes: pageBytes, flags: unix.O_DIRECT | unix.O_DSYNC},
	{name: limitRead1, title: "4 KiB random read, O_DIRECT, qd 1", workers: 1, bytes: pageBytes, flags: unix.O_DIRECT, read: true},
	{name: limitRead16, title: "4 KiB random read, O_DIRECT, qd 16", workers: 16, bytes: pageBytes, flags: unix.O_DIRECT, read: true},
	{name: limitRead64, title: "4 KiB random read, O_DIRECT, qd 64", workers: 64, bytes: pageBytes, flags: unix.O_DIRECT, read: true},
	{name: limitBigWrite, title: "1 MiB random overwrite, O_DIRECT, O_DSYNC, qd 4", workers: 4, bytes: 1 << 20, flags: unix.O_DIRECT | unix.O_DSYNC},
	{name: limitBigRead, title: "1 MiB random read, O_DIRECT, qd 4", workers: 4, bytes: 1 << 20, flags: unix.O_DIRECT, read: true},
}

// measureLimits measures what the disk below a directory can do, in some ways. The first call makes the file that it needs; whoever removes the
// directory removes it.
func measureLimits(dir string, each time.Duration, probes []diskProbe) ([]limit, error) {
	big := filepath.Join(dir, "limits")
	if err := makeProbeFile(big); err != nil {
		return nil, fmt.Errorf("limits of the disk: %w", err)
	}
	var out []limit
	for i := range probes {
		l, err := probes[i].run(dir, big, each)
		if err != nil {
			return nil, fmt.Errorf("limits of the disk: %s: %w", probes[i].title, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// makeProbeFile makes a file without holes.
func makeProbeFile(path string) error {
	if st, err := os.Stat(path); err == nil && st.Size() == probeBytes {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := alignedBytes(1 << 20)
	for n := 0; n < probeBytes && err == nil; n += len(block) {
		_, err = f.Write(block)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// alignedBytes returns noise at an address that O_DIRECT takes.
func alignedBytes(n int) []byte {
	b := make([]byte, n+pageBytes)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (pageBytes - 1)
	b = b[skip : skip+n : skip+n]
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rand.Uint64())
	}
	return b
}

// run lets all workers go at once, for a while.
func (p *diskProbe) run(dir, big string, each time.Duration) (limit, error) {
	type worker struct {
		f    *os.File
		buf  []byte
		hist bench.Histogram
		err  error
	}
	workers := make([]*worker, p.workers)
	defer func() {
		for _, w := range workers {
			if w != nil && w.f != nil {
				_ = w.f.Close()
				if p.own {
					_ = os.Remove(w.f.Name())
				}
			}
		}
	}()
	for i := range workers {
		path, flags := big, os.O_RDWR|p.flags
		if p.own {
			path, flags = filepath.Join(dir, fmt.Sprintf("append%d", i)), flags|os.O_CREATE|os.O_TRUNC
		}
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return limit{}, err
		}
		workers[i] = &worker{f: f, buf: alignedBytes(p.bytes)}
	}
	var wg sync.WaitGroup
	began := time.Now()
	for _, w := range workers {
		wg.Go(func() {
			runtime.LockOSThread() // and never unlocked: a thread that was raised ends with its work
			if w.err = raiseThread(); w.err == nil || errors.Is(w.err, unix.EACCES) || errors.Is(w.err, unix.EPERM) {
				w.err = p.work(w.f, w.buf, began.Add(each), &w.hist)
			}
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	var all bench.Histogram
	for _, w := range workers {
		if w.err != nil {
			return limit{}, w.err
		}
		all.Merge(&w.hist)
	}
	n := float64(all.Count())
	return limit{Name: p.name, Title: p.title, PerSecond: n / took, MBps: n * float64(p.bytes) / took / 1e6, MeanUs: float64(all.MeanNs()) / 1e3,
		P50Us: float64(all.QuantileNs(0.5)) / 1e3, P99Us: float64(all.QuantileNs(0.99)) / 1e3}, nil
}

// work is one worker. It does one operation at least.
func (p *diskProbe) work(f *os.File, buf []byte, until time.Time, hist *bench.Histogram) error {
	for at := int64(0); ; at += int64(p.bytes) {
		began := time.Now()
		if at > 0 && began.After(until) {
			return nil
		}
		off := at
		if !p.append {
			off = rand.Int64N(probeBytes/int64(p.bytes)) * int64(p.bytes)
		}
		var err error
		if p.read {
			_, err = f.ReadAt(buf, off)
		} else {
			_, err = f.WriteAt(buf, off)
		}
		if err == nil && p.sync {
			err = unix.Fdatasync(int(f.Fd()))
		}
		if err != nil {
			return err
		}
		hist.Add(int64(time.Since(began)))
	}
}
