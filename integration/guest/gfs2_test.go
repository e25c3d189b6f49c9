package guest

import (
	"fmt"
	"strings"
	"testing"

	"clade/integration/lab"
)

// corosyncConf is the cluster of two guests whose messages go over the SAN's wire. A token that is lost for 20 s instead of 3 means a
// death: an emulated guest on a busy machine may stand still for some seconds. The interval of pings would follow from it, and be long.
const corosyncConf = `totem {
  version: 2
  cluster_name: clade
  transport: knet
  crypto_cipher: none
  crypto_hash: none
  token: 20000
  interface {
    linknumber: 0
    knet_ping_interval: 500
    knet_ping_timeout: 10000
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

// gfs2Stack starts what GFS2 needs in a guest: corosync for who is there, and dlm_controld, which tells the kernel's lock manager. Nobody
// dies in the test, so nobody has to be fenced.
func (s *site) gfs2Stack(m *Machine, number int) {
	s.t.Helper()
	s.run(m, fmt.Sprintf(`set -e
hostname g%[1]d
ip link set lo up
ip addr add 10.9.0.%[1]d/24 dev eth0
echo root:x:0:0:root:/:/bin/sh > /etc/passwd
echo root:x:0: > /etc/group
mkdir -p /dev/shm /dev/misc /etc/corosync /var/lib/corosync /var/lib/dlm /var/log
mount -t tmpfs tmpfs /dev/shm
mount -t configfs configfs /sys/kernel/config
for n in dlm-control dlm-monitor dlm_plock; do ln -s ../$n /dev/misc/$n; done
cat > /etc/corosync/corosync.conf <<'end'
%[2]send
corosync
echo > /dev/etherd/discover
for i in $(seq 10); do [ -b /dev/etherd/e7.1 ] && break; sleep 0.3; done
[ -b /dev/etherd/e7.1 ]`, number, corosyncConf))
}

// gfs2Join waits until a guest's corosync has a quorum of two, and starts its dlm_controld.
func (s *site) gfs2Join(m *Machine) {
	s.t.Helper()
	s.run(m, `for i in $(seq 300); do corosync-quorumtool -s | grep -q 'Total votes: *2' && break; sleep 0.2; done
corosync-quorumtool -s | grep -q 'Total votes: *2' || { corosync-quorumtool -s; tail -20 /var/log/corosync.log; exit 1; }
dlm_controld --enable_fencing=0 --enable_startup_fencing=0 --enable_quorum_lockspace=0
for i in $(seq 300); do dlm_tool status | grep -q 'quorate 1' && exit; sleep 0.2; done
dlm_tool status
exit 1`)
}

// membership returns which guests a guest's cluster and lockspace have, and which change of the members this is.
func (s *site) membership(m *Machine) string {
	s.t.Helper()
	return s.run(m, "dlm_tool status | grep -v ^daemon; dlm_tool ls")
}

// TestTwoGuestsShareGFS2 is the same as TestTwoGuestsShareOCFS2 for GFS2.
func TestTwoGuestsShareGFS2(t *testing.T) {
	if !*long {
		t.Skip("takes minutes: -guest.long")
	}
	s := newSite(t, lab.Spec{Nodes: 3, SizeBytes: 512 << 20})
	guests := []*Machine{s.boot("g1", Features{GFS2: true}), s.boot("g2", Features{GFS2: true})}
	for i, m := range guests {
		s.gfs2Stack(m, i+1)
	}
	for _, m := range guests {
		s.gfs2Join(m)
	}
	s.run(guests[0], "mkfs.gfs2 -q -O -p lock_dlm -t clade:vol -j 2 -J 32 /dev/etherd/e7.1")
	for _, m := range guests {
		s.run(m, "mount -t gfs2 -o noatime /dev/etherd/e7.1 /mnt && echo 0 > /mnt/count")
	}
	var before []string
	for i, m := range guests {
		before = append(before, s.membership(m))
		if !strings.Contains(before[i], "members       1 2") {
			t.Errorf("%s does not share its locks:\n%s", m.spec.Name, before[i])
		}
	}
	s.share(guests)
	for i, m := range guests {
		if after := s.membership(m); after != before[i] {
			t.Errorf("%s's cluster was\n%s\nand has become\n%s\n%s", m.spec.Name, before[i], after, s.run(m, "tail -30 /var/log/corosync.log"))
		}
	}
	for _, m := range guests {
		s.run(m, "umount /mnt")
	}
	t.Log(s.run(guests[0], "fsck.gfs2 -n /dev/etherd/e7.1"))
}
