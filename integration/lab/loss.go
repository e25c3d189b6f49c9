package lab

import (
	native "encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a switch's port drops by chance is decided by a program of a few instructions in the kernel's traffic control: frames that
// come in from the node (ingress of the switch's end) and those that go out to it (egress). Dropping everything that comes in
// makes a node that cannot be heard. The kernel has no need of netem for this.

const (
	bpfSchedCls = 3 // BPF_PROG_TYPE_SCHED_CLS

	opCall     = 0x85 // call helper imm
	opJge32    = 0x36 // if the low half of dst >= imm goto +off
	opMov      = 0xb7 // dst = imm
	opExit     = 0x95
	helperRand = 7 // bpf_get_prandom_u32

	actShot   = 2  // TC_ACT_SHOT: drop
	actUnspec = -1 // go on as if there was no filter
)

// lossMax is a share of all.
const lossMax = 1 << 32

// instruction returns one eBPF instruction on register 0.
func instruction(op byte, off int16, imm int32) []byte {
	return native.NativeEndian.AppendUint32(native.NativeEndian.AppendUint16([]byte{op, 0}, uint16(off)), uint32(imm))
}

// lossProgram loads a program that drops share/2^32 of what it sees. The caller closes the descriptor.
func lossProgram(share uint64) (int, error) {
	var code []byte
	add := func(op byte, off int16, imm int32) { code = append(code, instruction(op, off, imm)...) }
	if share < lossMax {
		add(opCall, 0, helperRand)
		add(opJge32, 2, int32(uint32(share)))
	}
	add(opMov, 0, actShot)
	add(opExit, 0, 0)
	if share < lossMax {
		add(opMov, 0, actUnspec)
		add(opExit, 0, 0)
	}
	license := []byte("Dual MIT/GPL\x00")
	var pinned runtime.Pinner // the kernel gets the addresses as numbers
	defer pinned.Unpin()
	pinned.Pin(&code[0])
	pinned.Pin(&license[0])
	// The head of union bpf_attr for BPF_PROG_LOAD.
	attr := struct {
		kind, count       uint32
		code, license     uint64
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
	}{kind: bpfSchedCls, count: uint32(len(code) / 8), code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return 0, fmt.Errorf("load a program that drops frames: %w", errno)
	}
	return int(fd), nil
}

// dropSome lets a switch's port drop a share of what comes in from the node and of what goes out to it.
func dropSome(s *space, link netlink.Link, in, out uint64) error {
	index := link.Attrs().Index
	err := s.handle.QdiscReplace(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
	if err != nil {
		return err
	}
	for _, d := range []struct {
		parent uint32
		share  uint64
	}{{netlink.HANDLE_MIN_INGRESS, in}, {netlink.HANDLE_MIN_EGRESS, out}} {
		if d.share == 0 {
			continue
		}
		fd, err := lossProgram(d.share)
		if err != nil {
			return err
		}
		err = s.handle.FilterReplace(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: d.parent, Handle: 1,
			Protocol: unix.ETH_P_ALL, Priority: 1}, Fd: fd, Name: "clade-lab-loss", DirectAction: true})
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}

// muteCable lets the switch drop, silently, everything that comes from the node: it hears, and cannot be heard.
func muteCable(s *space, link netlink.Link) error { return dropSome(s, link, lossMax, 0) }

// Lose lets a share (0 to 1) of all frames be lost from now on, until FaultHeal: of those between a node and an initiator, in each
// direction, and of those from one node to another on the cluster network. On that one the kernel may hand over several frames of
// TCP as one, which is then lost as one.
func (l *Lab) Lose(share float64) error {
	if share < 0 || share > 1 {
		return fmt.Errorf("lab: lose %v of all frames: choose 0 to 1", share)
	}
	lost := uint64(share * lossMax)
	san := func(s *space, link netlink.Link) error { return dropSome(s, link, lost, lost) }
	// A frame of the cluster network passes the cables of two nodes: it is lost on the first or not at all.
	cluster := func(s *space, link netlink.Link) error { return dropSome(s, link, lost, 0) }
	for i := range l.Nodes {
		if err := errors.Join(l.eachCable(i, true, false, san), l.eachCable(i, false, true, cluster)); err != nil {
			return err
		}
	}
	return nil
}
