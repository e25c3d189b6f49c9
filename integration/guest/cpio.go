package guest

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// archive writes an initramfs: the "newc" format of Linux' Documentation/driver-api/early-userspace/buffer-format.rst.
type archive struct {
	w     *bufio.Writer
	inode int
	at    int64
	dirs  []string
	err   error
}

func newArchive(w io.Writer) *archive { return &archive{w: bufio.NewWriterSize(w, 1<<20)} }

// entry writes one header, name and contents; name is relative to the root.
func (a *archive) entry(name string, mode uint32, size int64, body io.Reader) {
	if a.err != nil {
		return
	}
	a.inode++
	h := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	a.write(strings.NewReader(h + name + "\x00"))
	a.pad()
	a.write(body)
	a.pad()
}

func (a *archive) write(r io.Reader) {
	if a.err == nil {
		var n int64
		n, a.err = io.Copy(a.w, r)
		a.at += n
	}
}

func (a *archive) pad() {
	if n := -a.at & 3; n > 0 {
		a.write(strings.NewReader("\x00\x00\x00"[:n]))
	}
}

// parents makes the directories above name.
func (a *archive) parents(name string) {
	dir := path.Dir(name)
	if dir == "." || slices.Contains(a.dirs, dir) {
		return
	}
	a.parents(dir)
	a.dirs = append(a.dirs, dir)
	a.entry(dir, 0o040755, 0, strings.NewReader(""))
}

func (a *archive) dir(name string) { a.parents(name + "/x") }

func (a *archive) text(name, body string) {
	a.parents(name)
	a.entry(name, 0o100755, int64(len(body)), strings.NewReader(body))
}

func (a *archive) link(name, target string) {
	a.parents(name)
	a.entry(name, 0o120777, int64(len(target)), strings.NewReader(target))
}

// file copies a file of the host.
func (a *archive) file(name, from string) {
	if a.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "archive", Path: from, Err: fs.ErrInvalid}
	}
	if err != nil {
		a.err = err
		return
	}
	a.parents(name)
	a.entry(name, 0o100755, info.Size(), f)
}

// close ends the archive.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, strings.NewReader(""))
	if a.err == nil {
		a.err = a.w.Flush()
	}
	if a.err != nil {
		return fmt.Errorf("guest: initramfs: %w", a.err)
	}
	return nil
}
