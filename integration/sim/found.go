package sim

import (
	"encoding/json"
	"fmt"

	"clade/cluster"
	"clade/membership"
	"clade/store/raftlog"
)

var clusterID = membership.UUID{'c', 'l', 'a', 'd', 'e', ' ', 's', 'i', 'm'}

func (w *world) nodeInfo(index int) membership.NodeInfo {
	return membership.NodeInfo{Addr: fmt.Sprintf("node%d:7", index+1), Host: fmt.Sprintf("host%d", index+1),
		MaxFeature: membership.MaxFeatureLevel, SANPaths: w.shape.paths}
}

// found makes the cluster as an operator would: init on node 1, join, add disks, create volumes; then it waits until every
// volume is served.
func (w *world) found() {
	first := w.hosts[0]
	if err := first.log.Write(raftlog.Batch{Snapshot: membership.Bootstrap(first.id())}); err != nil {
		panic(err)
	}
	for _, h := range w.hosts { // spares are off
		h.start()
	}
	w.peers.start()
	w.operate("cluster_init", &membership.ClusterInit{Cluster: clusterID, Name: "sim", Shelf: simShelf, SectorCount: w.sectorCount(),
		Feature: membership.MaxFeatureLevel, NodeName: "n1", NodeKey: nodeKey(0), Witness: w.isWitness(0), Node: w.nodeInfo(0)})
	for n := 1; n < w.shape.nodes; n++ {
		r := w.operate("node_join", &membership.NodeJoin{Name: fmt.Sprintf("n%d", n+1), Key: nodeKey(n), Witness: w.isWitness(n), Node: w.nodeInfo(n)})
		if r.Node != w.hosts[n].id() {
			w.fail("node %d was admitted as %d", n+1, r.Node)
		}
	}
	w.await("all nodes have booted", 20*second, func() bool {
		for _, h := range w.hosts {
			if !h.off && (h.proc == nil || h.proc.bootedTerm == 0) {
				return false
			}
		}
		return true
	})
	for _, h := range w.hosts {
		for _, d := range h.disks {
			r := w.operate("disk_add", &membership.DiskAdd{Node: h.id(), UUID: d.uuid, CapacityMiB: d.capacityMiB, Label: fmt.Sprintf("disk%d", d.number)})
			if err := d.admit(r.Disk, r.Gen); err != nil {
				w.fail("disk %d: %v", d.number, err)
			}
		}
	}
	for _, v := range w.shape.volumes {
		w.operate("create", w.volumeOf(v))
	}
	w.await("every volume is served", 20*second, func() bool { return w.unserved() == "" })
	w.note("founded")
}

func nodeKey(n int) membership.UUID { return membership.UUID{'k', byte(n)} }

func (w *world) isWitness(n int) bool { return w.shape.witness && n == w.shape.nodes-1 }

// isSpare says that a host is no member in the beginning; it never has disks.
func (w *world) isSpare(n int) bool { return n >= w.shape.nodes }

// sectorCount is the largest request that the smallest frame size in use carries.
func (w *world) sectorCount() uint8 {
	mtu := 9000
	for _, i := range w.shape.initiators {
		mtu = min(mtu, i.mtu)
	}
	return uint8(min((mtu-36)/sectorBytes, 16))
}

// operate has an operator's command carried out by node 1 and returns the answer.
func (w *world) operate(kind string, body membership.Body) cluster.AdminReply {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	var got *cluster.AdminReply
	asked := int64(-1)
	w.await(kind, 20*second, func() bool {
		if got != nil && got.Err == "" {
			return true
		}
		if p := w.hosts[0].proc; p != nil && (asked < 0 || w.sched.nowNs-asked > 11*second || got != nil && w.sched.nowNs-asked > 100*ms) {
			asked, got = w.sched.nowNs, nil
			p.ask(cluster.AdminRequest{Kind: "propose", Type: kind, Body: b}, func(r cluster.AdminReply) {
				got = &r
				if r.Err != "" {
					w.note("%s: %s", kind, r.Err)
				}
			})
		}
		return false
	})
	return *got
}

// await runs until a condition holds, and fails the run when that takes too long.
func (w *world) await(what string, ns int64, done func() bool) {
	if done() {
		return
	}
	if !w.runUntil(w.sched.nowNs+ns, done) {
		w.fail("waited %.0f s in vain: %s", float64(ns)/1e9, what)
	}
}
