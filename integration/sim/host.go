package sim

import (
	"encoding/binary"
	"fmt"

	"clade/aoe"
	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store/raftlog"
)

// host is a machine: clock, disks, ports and what is durable. Processes come and go on it.
type host struct {
	w     *world
	index int // from 0; the node's id is one more
	clock clock
	boot  raid.BootID
	boots int
	disks []*hostDisk
	log   *raftlog.Memory
	// The state file, which the process holds the lock of: the term that it last wrote and under which kernel.
	fileTerm raid.Term
	fileBoot raid.BootID
	ports    []*etherPort
	macs     []aoe.MAC
	proc     *process
	downs    int  // restarts that are planned: only the newest counts
	off      bool // no member yet, or not any more
	witness  bool
	spare    spareState
	drained  bool // as the operator wants it
	draining bool // he is still at it
	frozen   bool
	stoodNs  int64      // when its clock last stood
	staleNs  int64      // until when it may believe in a lease that it has lost, because its clock stood still for longer
	nic      []nicFrame // what came while the host was frozen
}

// spareState is where a host is that may join and leave, once.
type spareState int

const (
	spareWaits spareState = iota
	spareJoins
	spareMember
	spareLeaves
)

func newHost(w *world, index int) *host {
	h := &host{w: w, index: index, log: raftlog.NewMemory()}
	h.clock = clock{rate: w.shape.driftOf(index), baseNs: int64(index+1) * 100 * second}
	h.newBoot()
	for p := range w.shape.paths {
		mac := aoe.MAC{0x02, 0x0E, 0, byte(p), 0, byte(index + 1)}
		h.macs = append(h.macs, mac)
		h.ports = append(h.ports, w.switches[p].plug(fmt.Sprintf("node %d", index+1),
			func(dst aoe.MAC) bool { return h.proc != nil && h.proc.accepts(p, dst) },
			func(frame []byte) { h.frame(p, frame) }))
	}
	h.off, h.witness = w.isSpare(index), w.isWitness(index) || w.isSpare(index) && index%2 == 1
	if !h.off && !h.witness {
		for d := range w.shape.disksPerNode {
			h.disks = append(h.disks, newHostDisk(h, index*w.shape.disksPerNode+d+1))
		}
	}
	return h
}

func (h *host) id() raid.NodeID { return raid.NodeID(h.index + 1) }

func (h *host) newBoot() {
	h.boots++
	binary.BigEndian.PutUint64(h.boot[:], uint64(h.index+1))
	binary.BigEndian.PutUint64(h.boot[8:], uint64(h.boots))
}

// start begins a new process. With the lock of the state file in hand it can prove the end of the former one, if that ran
// under this kernel.
func (h *host) start() {
	if h.proc != nil || h.off {
		return
	}
	proof := raid.Term(0)
	if h.fileBoot == h.boot {
		proof = h.fileTerm
	}
	h.w.procs++
	p, err := newProcess(h, h.w.procs, proof)
	if err != nil {
		h.w.fail("node %d does not start: %v", h.index+1, err)
	}
	h.proc = p
	p.note("process %d starts, proof for term %d", p.number, proof)
	p.open()
}

// revoked reads what the voter has durably revoked.
func (h *host) revoked() []membership.Revoked {
	var out []membership.Revoked
	for n := range h.w.hosts {
		if b, ok := h.log.Meta(revokedKey(raid.NodeID(n + 1))); ok && len(b) == 8 {
			out = append(out, membership.Revoked{Node: raid.NodeID(n + 1), Term: raid.Term(binary.BigEndian.Uint64(b))})
		}
	}
	return out
}

func revokedKey(n raid.NodeID) string { return fmt.Sprintf("revoked/%d", n) }

// crash kills the process: at once, at a write in the midst of a disk's work, or between the effects of its next Ready. A
// guardian that lives proves the death to the others.
func (h *host) crash(guardian bool, backNs int64) {
	p := h.proc
	p.onDeath = func() {
		if guardian {
			h.proveDeath(p.bootedTerm)
		}
		h.startIn(backNs)
	}
	switch p.rnd.IntN(3) {
	case 0:
		h.crashNow()
	case 1:
		p.crashInEffects = true
		h.w.sched.after(20*ms, func() { h.crashIf(p) })
	case 2:
		if len(h.disks) == 0 {
			h.crashNow()
			return
		}
		h.disks[p.rnd.IntN(len(h.disks))].gate.left = p.rnd.IntN(12)
		h.w.sched.after(30*ms, func() { h.crashIf(p) })
	}
}

// crashIf ends a process that did not meet its end as planned.
func (h *host) crashIf(p *process) {
	if h.frozen {
		h.w.sched.after(20*ms, func() { h.crashIf(p) })
		return
	}
	if h.proc == p {
		h.crashNow()
	}
}

// crashNow ends the process. The kernel lives: what was written to disks stays, connections are reset.
func (h *host) crashNow() {
	p := h.proc
	if p == nil {
		return
	}
	h.endProcess(true)
	h.log = h.log.Crash(p.rnd.IntN(h.log.Pending() + 1))
	for _, d := range h.disks {
		d.processGone()
		d.check()
	}
	if p.onDeath != nil {
		p.onDeath()
	} else {
		h.startIn(p.rnd.between(10, 500) * ms)
	}
}

func (h *host) endProcess(kernelAlive bool) {
	p := h.proc
	p.note("process %d ends", p.number)
	p.dead = true
	h.proc = nil
	h.w.peers.processGone(p, kernelAlive)
	h.w.checks.processEnded(p)
}

// powerLoss ends the host: unsynced sectors are kept, dropped or torn, connections just fall silent.
func (h *host) powerLoss(backNs int64) {
	r := h.w.rnd
	if h.nic = nil; h.frozen {
		h.frozen = false
		h.w.cutAll(h.index, false)
	}
	if h.proc != nil {
		h.endProcess(false)
		h.log = h.log.Crash(r.IntN(h.log.Pending() + 1))
	}
	for _, d := range h.disks {
		d.processGone()
		d.powerLoss()
		d.check()
	}
	h.newBoot()
	h.startIn(backNs)
}

func (h *host) startIn(ns int64) {
	h.downs++
	mine := h.downs
	h.w.sched.after(ns, func() {
		if h.downs == mine {
			h.start()
		}
	})
}

// pause stops the process for a while: it takes no step, its sockets fill, its kernel goes on stamping.
func (h *host) pause(ns int64) {
	p := h.proc
	if p == nil || p.paused {
		return
	}
	p.pauseFor(ns)
}

// carrier plugs a SAN cable in or out.
func (h *host) carrier(path int, up bool) {
	h.ports[path].setUp(up)
	if h.proc != nil {
		h.proc.pathState(path, up)
	}
}

// heal repairs what is still broken.
func (h *host) heal() {
	h.thaw()
	if h.proc != nil && h.proc.paused {
		h.proc.resume()
	}
	if h.proc == nil {
		h.startIn(0)
	}
	for _, d := range h.disks {
		d.slow = 1
	}
}

// switchOff takes a host that is no member any more away for good.
func (h *host) switchOff() {
	h.off = true
	if h.proc != nil {
		h.endProcess(false)
	}
}

// nicFrame is a frame that no kernel has seen yet.
type nicFrame struct {
	path int
	data []byte
}

const nicFramesMax = 256

// frame is a frame at the network interface.
func (h *host) frame(path int, b []byte) {
	switch {
	case !h.frozen:
		h.proc.frame(path, b)
	case len(h.nic) < nicFramesMax:
		h.nic = append(h.nic, nicFrame{path, b})
	}
}

// freeze stops the whole machine, as a hypervisor does that moves a guest or has no time for it: nothing runs, not even the kernel.
// Frames wait in the ring and are stamped only afterwards, so their age does not show. CLOCK_BOOTTIME counts the pause, unless lost
// says that the guest is not told of it (B: C18).
func (h *host) freeze(ns int64, lost bool) {
	if h.frozen || h.off {
		return
	}
	h.frozen = true
	local := h.clock.at(h.w.sched.nowNs)
	p := h.proc
	if p != nil && !p.paused {
		p.stop(forever / 2)
	}
	h.w.cutAll(h.index, true)
	h.w.sched.after(ns, func() {
		if lost && h.frozen {
			h.clock.fromNs, h.clock.baseNs = h.w.sched.nowNs, local
		}
		h.thaw()
	})
}

// thaw lets a frozen machine go on.
func (h *host) thaw() {
	if !h.frozen {
		return
	}
	h.frozen = false
	h.w.cutAll(h.index, false)
	nic := h.nic
	h.nic = nil
	if h.proc == nil {
		return
	}
	for _, f := range nic {
		h.proc.frame(f.path, f.data)
	}
	if h.proc.paused {
		h.proc.resume()
	}
}

// proveDeath is the guardian's word: it holds the pidfd and the lock, and tells everybody it can reach.
func (h *host) proveDeath(term raid.Term) {
	if term == 0 || h.fileTerm != term || h.fileBoot != h.boot {
		return
	}
	w := h.w
	for _, o := range w.hosts {
		if o == h || w.peers.links[h.index][o.index].cut || w.peers.links[o.index][h.index].cut {
			continue
		}
		w.sched.after(w.rnd.delay(3*ms), func() {
			if o.proc != nil {
				o.proc.input(func(now int64) {
					o.proc.node.Peer(now, h.id(), &cluster.PeerMessage{Dead: &membership.NodeTerm{Node: h.id(), Term: term}})
				})
			}
		})
	}
}
