package guest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"clade/aoe/initiator"
	"clade/integration/lab"
)

// firmware is Debian's iPXE as a kernel, of the package ipxe.
const firmware = "/usr/lib/ipxe/ipxe.lkrn"

// TestIPXEBootsFromAVolume: a machine without a disk boots Linux over AoE with iPXE, again after the volume has moved, and once
// more with the owner dying in the middle.
func TestIPXEBootsFromAVolume(t *testing.T) {
	if !*long {
		t.Skip("takes minutes: -guest.long")
	}
	if _, err := os.Stat(firmware); err != nil {
		lacking(t, "Debian package ipxe")
	}
	if need := missing(bootTools); len(need) > 0 {
		lacking(t, "Debian packages "+need[0])
	}
	const size = 64 << 20
	s := newSite(t, lab.Spec{Nodes: 3, MTU: 1500, SizeBytes: size})
	img, err := BuildImage(within(t, 10*time.Minute), cacheDir(t), Features{})
	if err != nil {
		lacking(t, err.Error())
	}
	disk := filepath.Join(s.dir, "boot")
	must(t, BuildBootDisk(within(t, time.Minute), img, disk, size))
	s.write(disk)
	script := filepath.Join(s.dir, "script.ipxe")
	must(t, os.WriteFile(script, []byte("#!ipxe\nifopen net0\nsanboot aoe:e7.1\n"), 0o600))
	w := &work{site: s}
	boot := func(what string, meanwhile func()) {
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			meanwhile()
		}()
		m, err := Boot(within(t, 4*time.Minute), Spec{Image: img, Dir: s.dir, Name: "pxe", Space: s.lab.SANNamespace(),
			Nics: []Nic{{s.lab.SANBridge(0), 1500}}, Firmware: firmware, Script: script})
		<-done
		must(t, err)
		t.Logf("| iPXE (Debian) | MTU 1500 | %s | up after %.0f s: Linux %s |", what, time.Since(began).Seconds(), s.run(m, "uname -r"))
		must(t, m.Close())
	}
	boot("boots", func() {})
	n := w.owner()
	must(t, s.lab.Drain(within(t, 20*time.Second), n, false))
	boot("boots after the volume has moved", func() {})
	must(t, s.lab.Drain(within(t, 20*time.Second), n, true))
	w.healthy()
	boot("boots while the owner dies", func() {
		time.Sleep(4 * time.Second)
		n := w.owner()
		if err := s.lab.Do(lab.FaultKill, n); err != nil {
			t.Error(err)
		}
	})
}

// write writes a file to the volume.
func (s *site) write(path string) {
	s.t.Helper()
	body, err := os.ReadFile(path)
	must(s.t, err)
	h, err := s.lab.OpenHost()
	must(s.t, err)
	defer h.Close()
	c, err := h.NewClient(initiator.Config{MAC: initiator.NewMAC(), Shelf: s.lab.Spec.Shelf, Slot: 1})
	must(s.t, err)
	const chunk = 1 << 20
	for at := 0; at < len(body); at += chunk {
		must(s.t, c.WriteAt(within(s.t, time.Minute), body[at:min(at+chunk, len(body))], int64(at)))
	}
}
