package guest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"clade/integration/lab"
)

// corosyncConf is the cluster of two guests whose messages go over the SAN's wire. That a token is lost for 10 s instead of 3 means a death:
// an emulated guest on a busy machine may stand still for some seconds. The interval of pings would follow from it, and be long.
const corosyncConf = `totem {
  version: 2
  cluster_name: clade
  transport: knet
  crypto_cipher: none
  crypto_hash: none
  token: 10000
  interface {
    linknumber: 0
    knet_ping_interval: 500
    knet_ping_timeout: 5000
  }
}
logging {
  to_stderr: no
  to_syslog: no
  to_logfile: yes
  logfile: /var/log/corosync.log
}
quorum {
  provider: corosync_votequorum
  two_node: 1
}
nodelist {
  node {
    ring0_addr: 10.9.0.1
    name: g1
    nodeid: 1
  }
  node {
    ring0_addr: 10.9.0.2
    name: g2
    nodeid: 2
  }
}
`

// fenceAgent is the program of docs/initiators.md that dlm_controld runs to fence a host: it is taken out of the reservation. Without
// --force, so that of two who fence each other only the first succeeds.
const fenceAgent = `#!/bin/sh
while read -r line; do case $line in node=*) victim=${line#node=} ;; esac; done
gone=$(sed -n "s/^$victim //p" /etc/dlm/macs)
[ -n "$gone" ] || exit 1
for mac in $(clade initiator reserve -i eth0 e7.1 | grep -oE '([0-9a-f]{2}:){5}[0-9a-f]{2}'); do
  case " $gone " in *" $mac "*) ;; *) keep="$keep --mac $mac" ;; esac
done
[ -n "$keep" ] || exit 1
exec clade initiator reserve -i eth0 e7.1 --set $keep
`

// reserveProgram is the other one: a host that was started, and has nothing to write from before, is added to the reservation.
const reserveProgram = `#!/bin/sh
have=$(clade initiator reserve -i eth0 e7.1) || exit 1
for mac in $(cat /sys/class/net/eth0/address) $(echo "$have" | grep -oE '([0-9a-f]{2}:){5}[0-9a-f]{2}'); do
  case " $all " in *" $mac "*) ;; *) all="$all --mac $mac" ;; esac
done
exec clade initiator reserve -i eth0 e7.1 --set --force $all
`

// gfs2Stack starts what GFS2 needs in a guest: a reservation, and corosync, which says who is there.
func (s *site) gfs2Stack(m *Machine, number int, macs []string) {
	s.t.Helper()
	s.run(m, fmt.Sprintf(`set -e
hostname g%[1]d
ip link set lo up
ip addr add 10.9.0.%[1]d/24 dev eth0
echo root:x:0:0:root:/:/bin/sh > /etc/passwd
echo root:x:0: > /etc/group
mkdir -p /dev/shm /dev/misc /etc/corosync /etc/dlm /var/lib/corosync /var/lib/dlm /var/log
mount -t tmpfs tmpfs /dev/shm
mount -t configfs configfs /sys/kernel/config
for n in dlm-control dlm-monitor dlm_plock; do ln -s ../$n /dev/misc/$n; done
cat /dev/vda > /bin/clade
cat > /etc/corosync/corosync.conf <<'end'
%[2]send
cat > /sbin/fence_clade <<'end'
%[3]send
cat > /sbin/reserve_clade <<'end'
%[4]send
chmod +x /bin/clade /sbin/fence_clade /sbin/reserve_clade
echo fence_all /sbin/fence_clade > /etc/dlm/dlm.conf
printf '1 %[5]s\n2 %[6]s\n' > /etc/dlm/macs
reserve_clade
corosync
echo > /dev/etherd/discover
for i in $(seq 10); do [ -b /dev/etherd/e7.1 ] && break; sleep 0.3; done
[ -b /dev/etherd/e7.1 ]`, number, corosyncConf, fenceAgent, reserveProgram, macs[0], macs[1]))
}

// gfs2Join waits until a guest's corosync counts two, and starts dlm_controld, which tells the kernel's lock manager who is there and
// who has been fenced.
func (s *site) gfs2Join(m *Machine) {
	s.t.Helper()
	s.run(m, `for i in $(seq 300); do corosync-quorumtool -s | grep -q 'Total votes: *2' && break; sleep 0.2; done
corosync-quorumtool -s | grep -q 'Total votes: *2' || { corosync-quorumtool -s; tail -20 /var/log/corosync.log; exit 1; }
dlm_controld
for i in $(seq 300); do dlm_tool status | grep -q 'quorate 1' && exit; sleep 0.2; done
dlm_tool status
exit 1`)
}

func (s *site) gfs2Mount(m *Machine) {
	s.t.Helper()
	s.run(m, "mount -t gfs2 -o noatime /dev/etherd/e7.1 /mnt || { cat /var/log/dlm_controld/*; dmesg | tail -20; exit 1; }")
}

// gfs2Pair returns two guests that have mounted one GFS2, and their MACs.
func gfs2Pair(t *testing.T) (s *site, guests []*Machine, macs []string) {
	t.Helper()
	if !*long {
		t.Skip("takes minutes: -guest.long")
	}
	s = newSite(t, lab.Spec{Nodes: 3, SizeBytes: 512 << 20})
	for _, name := range []string{"g1", "g2"} {
		m := s.boot(name, Features{GFS2: true})
		guests = append(guests, m)
		macs = append(macs, s.run(m, "cat /sys/class/net/eth0/address"))
	}
	for i, m := range guests {
		s.gfs2Stack(m, i+1, macs)
	}
	for _, m := range guests {
		s.gfs2Join(m)
	}
	s.run(guests[0], "mkfs.gfs2 -q -O -p lock_dlm -t clade:vol -j 2 -J 32 /dev/etherd/e7.1")
	for _, m := range guests {
		s.gfs2Mount(m)
	}
	return s, guests, macs
}

// members returns whom a guest's cluster and lockspace have, which change of the members this is, and who has been fenced.
func (s *site) members(m *Machine) string {
	s.t.Helper()
	return s.run(m, "dlm_tool status | grep -v ^daemon; dlm_tool ls; clade initiator reserve -i eth0 e7.1")
}

// TestTwoGuestsShareGFS2 is the same as TestTwoGuestsShareOCFS2 for GFS2.
func TestTwoGuestsShareGFS2(t *testing.T) {
	s, guests, macs := gfs2Pair(t)
	s.run(guests[0], "echo 0 > /mnt/count")
	var before []string
	for i, m := range guests {
		before = append(before, s.members(m))
		if !strings.Contains(before[i], "members       1 2") || !strings.Contains(before[i], macs[0]) || !strings.Contains(before[i], macs[1]) {
			t.Errorf("%s does not share locks and reservation:\n%s", m.spec.Name, before[i])
		}
	}
	s.share(guests)
	for i, m := range guests {
		if after := s.members(m); after != before[i] {
			t.Errorf("%s's cluster was\n%s\nand has become\n%s\n%s", m.spec.Name, before[i], after, s.run(m, "tail -30 /var/log/corosync.log"))
		}
	}
	for _, m := range guests {
		s.run(m, "umount /mnt")
	}
	t.Log(s.run(guests[0], "fsck.gfs2 -n /dev/etherd/e7.1"))
}

// awaitOperations waits until a guest's load of files has done n operations more.
func (s *site) awaitOperations(m *Machine, n int) (longestMs float64) {
	s.t.Helper()
	for first, limit := -1, time.Now().Add(2*time.Minute); ; time.Sleep(100 * time.Millisecond) {
		r, err := m.Take(within(s.t, time.Minute), "files")
		must(s.t, err)
		if first < 0 {
			first = r.Operations
		}
		longestMs = max(longestMs, r.LongestMs)
		if r.Operations >= first+n {
			return longestMs
		}
		if time.Now().After(limit) {
			s.t.Fatalf("%s has done %d operations in two minutes, %d are wanted", m.spec.Name, r.Operations-first, n)
		}
	}
}

const sums = "sync; echo 3 > /proc/sys/vm/drop_caches; cd /mnt && find . -type f | sort | xargs sha256sum"

// TestAHungGuestIsFenced: a guest that stands still while it writes is fenced by a reservation; the other replays its journal and goes
// on. When the former wakes up, nothing that it still writes arrives, also from an owner that was not there when it was fenced. It
// comes back by being restarted.
func TestAHungGuestIsFenced(t *testing.T) {
	s, guests, macs := gfs2Pair(t)
	one, two := guests[0], guests[1]
	for i, m := range guests {
		must(t, m.Start(within(t, time.Minute), Load{Name: "files", Kind: "files", Path: fmt.Sprintf("/mnt/of%d", i), Bytes: 16 << 20, Seed: uint64(i)}))
	}
	s.awaitOperations(one, 20)
	s.awaitOperations(two, 20)
	// From here on the other needs what the frozen one has a lock on.
	must(t, two.Freeze())
	began := time.Now()
	t.Log(s.run(one, "ls -l /mnt/of1 | wc -l"))
	t.Logf("the locks of the frozen guest were free after %.1f s", time.Since(began).Seconds())
	if now := s.members(one); !strings.HasSuffix(now, "e7.1 is reserved for "+macs[0]) {
		t.Errorf("the frozen guest is not fenced:\n%s", now)
	}
	w := &work{site: s}
	n := w.owner()
	must(t, s.lab.Do(lab.FaultKill, n))
	s.awaitOperations(one, 20)
	must(t, s.lab.Do(lab.FaultRestart, n))
	w.healthy()
	r, err := one.Stop(within(t, 3*time.Minute), "files")
	must(t, err)
	t.Logf("g1: %d operations, %d MiB written", r.Operations, r.Bytes>>20)
	for _, e := range r.Errors {
		t.Errorf("g1: %s", e)
	}
	before := s.run(one, sums)
	must(t, two.Thaw())
	s.run(two, "for i in $(seq 300); do dmesg | grep 'aoe: error packet from 7.1' && exit; sleep 0.2; done; dmesg; exit 1")
	if after := s.run(one, sums); after != before {
		t.Errorf("a fenced guest has changed something:\n%s\n\n%s", before, after)
	}
	must(t, two.Close())
	two = s.boot("g2", Features{GFS2: true})
	s.gfs2Stack(two, 2, macs)
	s.gfs2Join(two)
	s.gfs2Mount(two)
	if after := s.run(two, sums); after != before {
		t.Errorf("the guest that is back sees other files:\n%s\n\n%s", before, after)
	}
	if log := s.run(one, "dmesg"); strings.Contains(log, "I/O error") || strings.Contains(log, "withdr") {
		t.Errorf("g1's log:\n%s", log)
	}
	for _, m := range []*Machine{two, one} {
		s.run(m, "umount /mnt")
	}
	t.Log(s.run(one, "fsck.gfs2 -n /dev/etherd/e7.1"))
}
