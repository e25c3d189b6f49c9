//go:build linux

package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkRaw measures what the file system under TMPDIR can do at most: the figures that BenchmarkStream is to be compared with, of
// the same run. Each writer has a file of its own, as nodes on one machine have; ns/op is the time of one write of one of them.
func BenchmarkRaw(b *testing.B) {
	for _, c := range []struct {
		name  string
		flags int
		fill  bool // overwrite what has been written before, rather than append or fill what fallocate has reserved
		sync  bool // fdatasync after each write
	}{
		{"append+fdatasync", unix.O_APPEND, false, true},
		{"overwrite+fdatasync", 0, true, true},
		{"reserved+direct+dsync", unix.O_DIRECT | unix.O_DSYNC, false, false},
		{"overwrite+direct+dsync", unix.O_DIRECT | unix.O_DSYNC, true, false},
	} {
		for _, size := range []int{4 << 10, 8 << 10, 64 << 10, 256 << 10} {
			for _, writers := range []int{1, 3} {
				b.Run(fmt.Sprintf("%s/%dKiB/%dwriters", c.name, size>>10, writers), func(b *testing.B) {
					files := rawFiles(b, writers, c.flags, c.fill)
					benchRaw(b, files, size, c.sync, c.flags&unix.O_APPEND != 0)
				})
			}
		}
	}
}

const rawFileBytes = 64 << 20

func rawFiles(b *testing.B, n, flags int, fill bool) (files []*os.File) {
	b.Helper()
	dir := b.TempDir()
	for i := range n {
		path := filepath.Join(dir, fmt.Sprint(i))
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		switch {
		case fill:
			zeros := make([]byte, 1<<20)
			for at := int64(0); at < rawFileBytes; at += int64(len(zeros)) {
				if _, err := f.WriteAt(zeros, at); err != nil {
					b.Fatal(err)
				}
			}
		case flags&unix.O_APPEND == 0:
			if err := unix.Fallocate(int(f.Fd()), 0, 0, rawFileBytes); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
		if f, err = os.OpenFile(path, os.O_RDWR|flags, 0); err != nil {
			b.Skipf("%s: %v", path, err)
		}
		b.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	return files
}

func benchRaw(b *testing.B, files []*os.File, size int, fsync, appends bool) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.SetBytes(int64(size))
	cpu := cpuTime()
	b.ResetTimer()
	for _, f := range files {
		wg.Go(func() {
			buf := alignedBytes(size)
			at := int64(0)
			for left.Add(-1) >= 0 {
				if _, err := unix.Pwrite(int(f.Fd()), buf, at); err != nil {
					b.Error(err)
					return
				}
				if at += int64(size); at+int64(size) > rawFileBytes && !appends {
					at = 0
				}
				if fsync {
					if err := unix.Fdatasync(int(f.Fd())); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.Elapsed())*float64(len(files))/float64(b.N)/1e3, "us/write")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N)/1e3, "cpu-us/write")
}

// alignedBytes returns n bytes at an address that O_DIRECT takes.
func alignedBytes(n int) []byte {
	b := make([]byte, n+4096)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[skip : skip+n : skip+n]
}

// cpuTime is what the process has used, in and out of the kernel.
func cpuTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
