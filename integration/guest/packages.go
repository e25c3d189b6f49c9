package guest

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tree is an unpacked set of Debian packages with all that they depend on. It is never installed.
type tree struct {
	root   string
	kernel string // version, as in /lib/modules
}

// unpack returns the tree of some packages and of the kernel behind linux-image-amd64, from the cache or from Debian.
func unpack(ctx context.Context, cache string, packages []string) (*tree, error) {
	kernel, err := kernelPackage(ctx)
	if err != nil {
		return nil, err
	}
	all, err := closure(ctx, packages)
	if err != nil {
		return nil, err
	}
	all = append(all, kernel)
	slices.Sort(all)
	versions, err := output(ctx, "", "apt-cache", append([]string{"show", "--no-all-versions"}, all...)...)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(versions))
	t := &tree{root: filepath.Join(cache, "tree-"+hex.EncodeToString(sum[:8])), kernel: strings.TrimPrefix(kernel, "linux-image-")}
	if _, err := os.Stat(t.root); err == nil {
		return t, nil
	}
	tmp, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // what stays is swept with the cache
	debs, root := filepath.Join(tmp, "debs"), filepath.Join(tmp, "root")
	if err := errors.Join(os.Mkdir(debs, 0o755), os.Mkdir(root, 0o755)); err != nil {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	if _, err := output(ctx, debs, "apt-get", append([]string{"-q", "download"}, all...)...); err != nil {
		return nil, err
	}
	list, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	for _, deb := range list {
		if _, err := output(ctx, "", "dpkg-deb", "-x", deb, root); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(root, t.root); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	return t, nil
}

// kernelPackage returns the package behind linux-image-amd64. The cloud flavour lacks the driver.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "apt-cache", "depends", "linux-image-amd64")
	if err != nil {
		return "", err
	}
	for _, f := range strings.Fields(out) {
		if strings.HasPrefix(f, "linux-image-") && f != "linux-image-amd64" {
			return f, nil
		}
	}
	return "", fmt.Errorf("guest: linux-image-amd64 depends on no kernel: run apt-get update")
}

// closure returns the packages and all that they depend on.
func closure(ctx context.Context, packages []string) ([]string, error) {
	args := []string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"}
	out, err := output(ctx, "", "apt-cache", append(args, packages...)...)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(out) {
		// A package stands at the beginning of a line; <x> is a virtual one.
		if name := strings.TrimSpace(line); !strings.HasPrefix(line, " ") && !strings.HasPrefix(name, "<") && !strings.Contains(name, ":") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(p string) bool { return p == "debconf" || p == "cdebconf" || strings.HasPrefix(p, "perl") }), nil
}

// modules returns the files of some modules and of all that they need, in the order of loading.
func (t *tree) modules(ctx context.Context, names []string) ([]string, error) {
	if _, err := output(ctx, "", "depmod", "-b", t.root, t.kernel); err != nil {
		return nil, err
	}
	var files []string
	for _, m := range names {
		out, err := output(ctx, "", "modprobe", "-d", t.root, "-S", t.kernel, "--show-depends", m)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "insmod" && !slices.Contains(files, f[1]) {
				files = append(files, f[1])
			}
		}
	}
	return files, nil
}

// binDirs and libDirs are where Debian puts programs and libraries.
var (
	binDirs = []string{"sbin", "bin", "usr/sbin", "usr/bin"}
	libDirs = []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib"}
)

// find returns the path, relative to the root, of a file in one of some directories.
func (t *tree) find(name string, dirs []string) (string, error) {
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(t.root, d, name)); err == nil {
			return filepath.Join(d, name), nil
		}
	}
	return "", fmt.Errorf("guest: no %s in %s", name, t.root)
}

// addProgram puts a program, its libraries and its loader into an archive.
func (t *tree) addProgram(a *archive, name string, have map[string]bool) error {
	at, err := t.find(name, binDirs)
	if err != nil {
		return err
	}
	return t.addELF(a, at, have)
}

func (t *tree) addELF(a *archive, at string, have map[string]bool) error {
	if have[at] {
		return nil
	}
	have[at] = true
	real, err := filepath.EvalSymlinks(filepath.Join(t.root, at))
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	a.file(at, real)
	f, err := elf.Open(real)
	if err != nil {
		return nil //nolint:nilerr // a script
	}
	defer f.Close() //nolint:errcheck // only read
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("guest: %s: %w", at, err)
	}
	if f.Section(".interp") != nil {
		a0, err := t.find("ld-linux-x86-64.so.2", append([]string{"lib64"}, libDirs...))
		if err != nil {
			return err
		}
		if !have["loader"] {
			have["loader"] = true
			real, err := filepath.EvalSymlinks(filepath.Join(t.root, a0))
			if err != nil {
				return fmt.Errorf("guest: %w", err)
			}
			a.file("lib64/ld-linux-x86-64.so.2", real)
		}
	}
	for _, l := range libs {
		lib, err := t.find(l, libDirs)
		if err != nil {
			return err
		}
		if err := t.addELF(a, lib, have); err != nil {
			return err
		}
	}
	return nil
}

// output runs a command and returns what it prints.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", fmt.Errorf("guest: %s %s: %w\n%s", name, strings.Join(args, " "), err, exit.Stderr)
		}
		return "", fmt.Errorf("guest: %s: %w", name, err)
	}
	return string(out), nil
}
