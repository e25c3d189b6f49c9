package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Image is what a guest boots: a kernel and an initramfs.
type Image struct {
	Kernel  string // path of the bzImage
	Initrd  string // path of the initramfs
	Version string // of the kernel
}

// Features is what an image has besides the AoE driver, ext4 and busybox.
type Features struct {
	OCFS2 bool // the cluster file system and its tools
	GFS2  bool // the cluster file system, its tools and its cluster stack, corosync and dlm_controld; and virtio disks
	FIO   bool // the load generator: 70 MB of libraries
}

// tools are the host's programs that an image and a machine need, and the Debian package of each.
var tools = map[string]string{"qemu-system-x86_64": "qemu-system-x86", "depmod": "kmod", "modprobe": "kmod", "dpkg-deb": "dpkg", "apt-get": "apt",
	"ip": "iproute2", "go": "golang"}

// Missing returns the Debian packages that this host lacks, sorted.
func Missing() []string { return missing(tools) }

func missing(programs map[string]string) []string {
	var out []string
	for program, pkg := range programs {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, pkg)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// BuildImage returns an image with some features. Debian packages are downloaded the first time; they, and images, stay in the
// cache directory, which is made if it is not there. Safe for one process at a time.
func BuildImage(ctx context.Context, cache string, f Features) (*Image, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	packages := []string{"busybox-static", "e2fsprogs", "aoetools", "util-linux"}
	modules := []string{"aoe", "ext4", "crc32c_generic", "crc32c_intel", "virtio_net", "virtio_pci", "af_packet"}
	programs := []string{"mkfs.ext4", "e2fsck", "aoe-discover", "aoe-stat", "aoeping", "aoecfg", "flock"}
	if f.OCFS2 {
		packages = append(packages, "ocfs2-tools")
		modules = append(modules, "ocfs2", "ocfs2_dlmfs", "ocfs2_stack_o2cb")
		programs = append(programs, "mkfs.ocfs2", "fsck.ocfs2", "mount.ocfs2", "o2cb", "o2hbmonitor")
	}
	if f.GFS2 {
		packages = append(packages, "gfs2-utils", "dlm-controld", "corosync")
		modules = append(modules, "gfs2", "dlm", "virtio_blk")
		programs = append(programs, "mkfs.gfs2", "fsck.gfs2", "corosync", "corosync-quorumtool", "dlm_controld", "dlm_tool")
	}
	if f.FIO {
		packages = append(packages, "fio")
		programs = append(programs, "fio")
	}
	t, err := unpack(ctx, cache, packages)
	if err != nil {
		return nil, err
	}
	agent := filepath.Join(cache, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", agent, "clade/integration/guest/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("guest: agent: %w\n%s", err, out)
	}
	program, err := os.ReadFile(agent)
	if err != nil {
		return nil, fmt.Errorf("guest: agent: %w", err)
	}
	h := sha256.New()
	fmt.Fprintln(h, t.root, t.kernel, packages, modules, programs)
	_, _ = h.Write(program) // a hash takes everything
	img := &Image{Kernel: filepath.Join(t.root, "boot", "vmlinuz-"+t.kernel), Version: t.kernel,
		Initrd: filepath.Join(cache, "initrd-"+hex.EncodeToString(h.Sum(nil)[:8]))}
	if _, err := os.Stat(img.Initrd); err == nil {
		return img, nil
	}
	files, err := t.modules(ctx, modules)
	if err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(cache, "initrd-new-")
	if err != nil {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // renamed, or of no use
	err = t.pack(tmp, agent, files, programs)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp.Name(), img.Initrd); err != nil {
		return nil, fmt.Errorf("guest: cache: %w", err)
	}
	return img, nil
}

// pack writes an initramfs.
func (t *tree) pack(w io.Writer, agent string, modules, programs []string) error {
	a := newArchive(w)
	for _, d := range []string{"proc", "sys", "dev", "tmp", "mnt", "bin", "sbin", "usr/bin", "usr/sbin", "etc", "var/run", "run"} {
		a.dir(d + "/.")
	}
	a.file("init", agent)
	busybox, err := t.find("busybox", binDirs)
	if err != nil {
		return err
	}
	a.file("bin/busybox", filepath.Join(t.root, busybox))
	a.link("bin/sh", "/bin/busybox")
	a.link("etc/mtab", "/proc/mounts")
	var names []string
	for _, m := range modules {
		name := filepath.Base(m)
		names = append(names, name)
		a.file("modules/"+name, m)
	}
	a.text("modules/list", strings.Join(names, "\n")+"\n")
	have := map[string]bool{}
	for _, p := range programs {
		if err := t.addProgram(a, p, have); err != nil {
			return err
		}
	}
	return a.close()
}

// bootTools are the host's programs that BuildBootDisk needs, and the Debian package of each.
var bootTools = map[string]string{"syslinux": "syslinux", "mcopy": "mtools", "mkfs.vfat": "dosfstools"}

// BuildBootDisk writes a disk that a BIOS boots: a FAT file system with syslinux, and the kernel and initramfs of an image. size
// is in bytes, path must not exist.
func BuildBootDisk(ctx context.Context, img *Image, path string, size int64) error {
	if need := missing(bootTools); len(need) > 0 {
		return fmt.Errorf("guest: a boot disk needs Debian packages %s", strings.Join(need, " "))
	}
	config := path + ".cfg"
	text := "DEFAULT linux\nLABEL linux\n  KERNEL vmlinuz\n  INITRD initrd\n  APPEND " + kernelArgs + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("guest: boot disk: %w", err)
	}
	defer os.Remove(config) //nolint:errcheck // beside a disk that is thrown away
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		return fmt.Errorf("guest: boot disk: %w", err)
	}
	for _, c := range [][]string{
		{"mkfs.vfat", "-F", "32", path},
		{"syslinux", "--install", path},
		{"mcopy", "-i", path, img.Kernel, "::vmlinuz"},
		{"mcopy", "-i", path, img.Initrd, "::initrd"},
		{"mcopy", "-i", path, config, "::syslinux.cfg"},
	} {
		if _, err := output(ctx, "", c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}
