package guest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"clade/integration/lab"
)

// o2cb joins a guest to a cluster of two, whose heartbeat is on the volume and whose locks go over the SAN's wire.
func (s *site) o2cb(m *Machine, number int) {
	s.t.Helper()
	conf := "cluster:\n\tnode_count = 2\n\tname = clade\n"
	for i := range 2 {
		conf += fmt.Sprintf("node:\n\tip_port = 7777\n\tip_address = 10.9.0.%d\n\tnumber = %d\n\tname = g%d\n\tcluster = clade\n", i+1, i, i)
	}
	s.run(m, fmt.Sprintf(`set -e
hostname g%d
ip addr add 10.9.0.%d/24 dev eth0
mkdir -p /etc/ocfs2 /dlm
printf '%s' > /etc/ocfs2/cluster.conf
mount -t configfs configfs /sys/kernel/config
mount -t ocfs2_dlmfs ocfs2_dlmfs /dlm
echo o2cb > /sys/fs/ocfs2/cluster_stack
o2cb register-cluster clade
echo > /dev/etherd/discover
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/etherd/e7.1 ] && break; sleep 0.3; done
[ -b /dev/etherd/e7.1 ]`, number, number+1, strings.ReplaceAll(strings.ReplaceAll(conf, "\n", `\n`), "\t", `\t`)))
}

// TestTwoGuestsShareOCFS2: OCFS2 on one volume, mounted by two guests that write at the same time while the volume's
// owner dies. Neither fences itself, locks hold, and both see the same.
func TestTwoGuestsShareOCFS2(t *testing.T) {
	if !*long {
		t.Skip("takes minutes: -guest.long")
	}
	s := newSite(t, lab.Spec{Nodes: 3, SizeBytes: 512 << 20})
	guests := []*Machine{s.boot("g0", Features{OCFS2: true}), s.boot("g1", Features{OCFS2: true})}
	for i, m := range guests {
		s.o2cb(m, i)
	}
	s.run(guests[0], "mkfs.ocfs2 -q -F -x -N 2 -b 4096 -C 4096 --cluster-stack=o2cb --cluster-name=clade /dev/etherd/e7.1")
	for _, m := range guests {
		s.run(m, "mount.ocfs2 /dev/etherd/e7.1 /mnt && echo 0 > /mnt/count")
	}
	s.share(guests)
	for _, m := range guests {
		s.run(m, "umount /mnt")
	}
	t.Log(s.run(guests[0], "fsck.ocfs2 -fn /dev/etherd/e7.1"))
}

// share has guests that have mounted a volume at /mnt write there at the same time, each its own files and all one counter under a
// lock, while the volume's owner dies and comes back. In the end they have to see the same, and nobody's log may know of it.
func (s *site) share(guests []*Machine) {
	s.t.Helper()
	const rounds = 25
	counted := make([]error, len(guests))
	var wg sync.WaitGroup
	for i, m := range guests {
		must(s.t, m.Start(within(s.t, time.Minute), Load{Name: "files", Kind: "files", Path: fmt.Sprintf("/mnt/of%d", i), Bytes: 16 << 20, Seed: uint64(i)}))
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, counted[i] = m.Run(within(s.t, 4*time.Minute), fmt.Sprintf(
				`for i in $(seq %d); do flock /mnt/lock sh -c 'read n < /mnt/count; echo $((n+1)) > /mnt/count' || exit 1; done`, rounds))
		}()
	}
	w := &work{site: s}
	time.Sleep(3 * time.Second)
	n := w.owner()
	must(s.t, s.lab.Do(lab.FaultKill, n))
	time.Sleep(5 * time.Second)
	must(s.t, s.lab.Do(lab.FaultRestart, n))
	wg.Wait()
	for i, m := range guests {
		must(s.t, counted[i])
		r, err := m.Stop(within(s.t, 3*time.Minute), "files")
		must(s.t, err)
		s.t.Logf("%s: %d operations, %d MiB written, longest %.0f ms", m.spec.Name, r.Operations, r.Bytes>>20, r.LongestMs)
		for _, e := range r.Errors {
			s.t.Errorf("%s: %s", m.spec.Name, e)
		}
		if r.Operations < 20 {
			s.t.Errorf("%s did only %d operations", m.spec.Name, r.Operations)
		}
	}
	var seen []string
	for _, m := range guests {
		s.run(m, "sync; echo 3 > /proc/sys/vm/drop_caches")
		seen = append(seen, s.run(m, "cd /mnt && cat count && find . -type f | sort | xargs sha256sum"))
	}
	if seen[0] != seen[1] {
		s.t.Errorf("the guests see different files:\n%s\n\n%s", seen[0], seen[1])
	}
	if count, _, _ := strings.Cut(seen[0], "\n"); count != fmt.Sprint(len(guests)*rounds) {
		s.t.Errorf("the counter that both raised under a lock is %s instead of %d", count, len(guests)*rounds)
	}
	for _, m := range guests {
		if log := s.run(m, "dmesg"); strings.Contains(log, "I/O error") || strings.Contains(log, "fenc") || strings.Contains(log, "withdr") {
			s.t.Errorf("%s's log:\n%s", m.spec.Name, log)
		}
	}
}
