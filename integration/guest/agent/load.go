package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadJob describes a load.
type loadJob struct {
	Name string `json:"name"`
	// Kind is "probe": one O_DIRECT write of 4 KiB after the other over a file or device of so many bytes; or "files": files
	// of up to 1 MiB that are written, synced, read from the disk again and compared, in a directory, Bytes at most in all.
	Kind  string `json:"kind"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Seed  uint64 `json:"seed"`
}

// measure is what a load saw since it was asked last.
type measure struct {
	Operations int      `json:"operations"` // since the beginning
	Bytes      int64    `json:"bytes"`      // since the beginning
	LongestMs  float64  `json:"longest_ms"` // longest operation, one that is still waiting included
	Errors     []string `json:"errors,omitempty"`
}

// load is a load under way.
type load struct {
	job  loadJob
	mu   sync.Mutex
	m    measure
	from time.Time // of the operation that waits
	quit chan struct{}
	done chan struct{}
}

func startLoad(j loadJob) (*load, error) {
	l := &load{job: j, quit: make(chan struct{}), done: make(chan struct{})}
	body := l.files
	switch j.Kind {
	case "probe":
		f, err := os.OpenFile(j.Path, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			return nil, err
		}
		body = func() { l.probe(f) }
	case "files":
		if err := os.MkdirAll(j.Path, 0o755); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("no load of kind %q", j.Kind)
	}
	go func() {
		defer close(l.done)
		body()
	}()
	return l, nil
}

func (l *load) stop() {
	close(l.quit)
	<-l.done
}

func (l *load) stopped() bool {
	select {
	case <-l.quit:
		return true
	default:
		return false
	}
}

// take returns the measurement and begins a new one.
func (l *load) take() measure {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.m
	if !l.from.IsZero() {
		m.LongestMs = max(m.LongestMs, float64(time.Since(l.from))/1e6)
	}
	l.m.LongestMs, l.m.Errors = 0, nil
	return m
}

// timed does one operation.
func (l *load) timed(bytes int, op func() error) bool {
	l.mu.Lock()
	l.from = time.Now()
	l.mu.Unlock()
	err := op()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m.LongestMs = max(l.m.LongestMs, float64(time.Since(l.from))/1e6)
	l.from = time.Time{}
	l.m.Operations++
	l.m.Bytes += int64(bytes)
	if err != nil && len(l.m.Errors) < 20 {
		l.m.Errors = append(l.m.Errors, err.Error())
	}
	return err == nil
}

const blockBytes = 4096

// aligned returns a buffer that O_DIRECT takes.
func aligned(n int) []byte {
	b := make([]byte, n+blockBytes)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (blockBytes - 1)
	return b[skip : skip+n]
}

// probe writes blocks that say which write they are, reads each eighth back, and all of them in the end.
func (l *load) probe(f *os.File) {
	defer f.Close() //nolint:errcheck // O_DIRECT: nothing waits to be written
	blocks := l.job.Bytes / blockBytes
	newest := make([]uint64, blocks)
	b := aligned(blockBytes)
	check := func(at int64) error {
		if _, err := f.ReadAt(b, at*blockBytes); err != nil {
			return err
		}
		if got := binary.LittleEndian.Uint64(b); got != newest[at] {
			return fmt.Errorf("block %d holds write %d instead of %d", at, got, newest[at])
		}
		return nil
	}
	for n := uint64(1); !l.stopped(); n++ {
		at := int64(n) % blocks
		binary.LittleEndian.PutUint64(b, n)
		if l.timed(blockBytes, func() error { _, err := f.WriteAt(b, at*blockBytes); return err }) {
			newest[at] = n
		}
		if n%8 == 0 {
			l.timed(0, func() error { return check(at) })
		}
	}
	for at, n := range newest {
		if n != 0 {
			l.timed(0, func() error { return check(int64(at)) })
		}
	}
}

// files writes files and compares them, the oldest make room for new ones.
func (l *load) files() {
	rnd := rand.New(rand.NewPCG(l.job.Seed, 1))
	type file struct {
		path string
		sum  [32]byte
		size int
	}
	var all []file
	var sum int64
	for n := 0; !l.stopped(); n++ {
		size := 1 + rnd.IntN(1<<20)
		body := make([]byte, size)
		for i := 0; i+8 <= size; i += 8 {
			binary.LittleEndian.PutUint64(body[i:], rnd.Uint64())
		}
		f := file{filepath.Join(l.job.Path, fmt.Sprintf("f%06d", n)), sha256.Sum256(body), size}
		if !l.timed(size, func() error { return writeSynced(f.path, body) }) {
			continue
		}
		all = append(all, f)
		sum += int64(size)
		old := all[rnd.IntN(len(all))]
		l.timed(0, func() error { return compare(old.path, old.sum) })
		for sum > l.job.Bytes && len(all) > 1 {
			l.timed(0, func() error { return os.Remove(all[0].path) })
			sum -= int64(all[0].size)
			all = all[1:]
		}
	}
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // what cannot be dropped was just written
	for _, f := range all {
		l.timed(0, func() error { return compare(f.path, f.sum) })
	}
}

func writeSynced(path string, body []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // the next reader asks the disk
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func compare(path string, want [32]byte) error {
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if sha256.Sum256(body) != want {
		return fmt.Errorf("%s: other bytes than were written", path)
	}
	return nil
}
