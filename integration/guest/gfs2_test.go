package guest

import (
	"fmt"
	"testing"

	"clade/integration/lab"
)

// A lock manager of GFS2 is told by dlm_controld, over corosync, who is there. With two nodes that come and go when the test says so,
// the test tells it by hand, as dlm_controld would: through configfs and sysfs.

// dlm prepares a guest's lock manager: nodes 1 and 2, whose locks go over the SAN's wire.
func (s *site) dlm(m *Machine, number int) {
	s.t.Helper()
	s.run(m, fmt.Sprintf(`set -e
hostname g%[1]d
ip addr add 10.9.0.%[1]d/24 dev eth0
mount -t configfs configfs /sys/kernel/config
mkdir /sys/kernel/config/dlm/cluster
cd /sys/kernel/config/dlm/cluster
printf clade > cluster_name
echo 1 > recover_callbacks
for n in 1 2; do
  mkdir comms/$n
  echo $n > comms/$n/nodeid
  { printf '\002\000\000\000\012\011\000'; printf "\\00$n"; head -c 120 /dev/zero; } > /tmp/addr
  dd if=/tmp/addr of=comms/$n/addr bs=128 count=1 2>/dev/null
done
echo 1 > comms/%[1]d/local
mkdir spaces/vol
echo > /dev/etherd/discover
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/etherd/e7.1 ] && break; sleep 0.3; done
[ -b /dev/etherd/e7.1 ]`, number))
}

const dlmMember = `mkdir /sys/kernel/config/dlm/cluster/spaces/vol/nodes/%[1]d
echo %[1]d > /sys/kernel/config/dlm/cluster/spaces/vol/nodes/%[1]d/nodeid
`

// gfs2Mount mounts the volume; members are the nodes that have it then. A mount waits until somebody has told the new lockspace whom
// it shares its locks with.
func (s *site) gfs2Mount(m *Machine, members ...int) {
	s.t.Helper()
	script := "set -e\n"
	for _, n := range members {
		script += fmt.Sprintf(dlmMember, n)
	}
	s.run(m, script+`mount -t gfs2 -o noatime /dev/etherd/e7.1 /mnt &
cd /sys/kernel/dlm
for i in $(seq 100); do [ -d vol ] && break; sleep 0.1; done
echo 1 > vol/id
echo 1 > vol/control
echo 0 > vol/event_done
wait $!
grep -q ' /mnt gfs2 ' /proc/mounts`)
}

// gfs2Unmount is the same for the end of a lockspace: the others are told before the one that leaves goes on.
func (s *site) gfs2Unmount(m *Machine, tellOthers func()) {
	s.t.Helper()
	s.run(m, `umount /mnt > /dev/null 2>&1 &
echo $! > /tmp/leaving
for i in $(seq 600); do grep -q uevent /proc/$!/stack && exit 0; sleep 0.1; done
cat /proc/$!/stack
exit 1`)
	tellOthers()
	s.run(m, `echo 0 > /sys/kernel/dlm/vol/event_done
for i in $(seq 600); do [ -d /sys/kernel/dlm/vol ] || exit 0; sleep 0.1; done
cat /proc/$(cat /tmp/leaving)/stack
exit 1`)
}

// TestTwoGuestsShareGFS2 is the same as TestTwoGuestsShareOCFS2 for GFS2.
func TestTwoGuestsShareGFS2(t *testing.T) {
	if !*long {
		t.Skip("takes minutes: -guest.long")
	}
	s := newSite(t, lab.Spec{Nodes: 3, SizeBytes: 512 << 20})
	guests := []*Machine{s.boot("g1", Features{GFS2: true}), s.boot("g2", Features{GFS2: true})}
	for i, m := range guests {
		s.dlm(m, i+1)
	}
	s.run(guests[0], "mkfs.gfs2 -q -O -p lock_dlm -t clade:vol -j 2 -J 32 /dev/etherd/e7.1")
	s.gfs2Mount(guests[0], 1)
	s.run(guests[0], "set -e\necho 0 > /sys/kernel/dlm/vol/control\n"+fmt.Sprintf(dlmMember, 2)+"echo 1 > /sys/kernel/dlm/vol/control")
	s.gfs2Mount(guests[1], 1, 2)
	s.run(guests[0], "echo 0 > /mnt/count")
	s.share(guests)
	s.gfs2Unmount(guests[1], func() {
		s.run(guests[0], `set -e
echo 0 > /sys/kernel/dlm/vol/control
rmdir /sys/kernel/config/dlm/cluster/spaces/vol/nodes/2
echo 1 > /sys/kernel/dlm/vol/control`)
	})
	s.gfs2Unmount(guests[0], func() {})
	t.Log(s.run(guests[0], "fsck.gfs2 -n /dev/etherd/e7.1"))
}
