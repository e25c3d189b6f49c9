package cluster

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"clade/aoe"
	"clade/membership"
	"clade/raid"
)

func block(fill byte) []byte { return bytes.Repeat([]byte{fill}, raid.BlockBytes) }

// samples is one message of each kind, with every field set that the kind carries.
func samples() []*PeerMessage {
	rec := &raid.Record{Epoch: 3, Seq: 9, Prev: 8, BID: 1 << 60, Commit: 7, Parts: raid.DiskSet{1, 2, 5},
		Reqs:   []raid.ReqHeader{{Path: 1, AgeUs: 250, Header: [36]byte{1, 2, 3}}},
		Blocks: []raid.Block{{Extent: 1, Gen: 4, No: 77, Data: block(0xAA)}, {Extent: 1, Gen: 4, No: 78, Data: block(0xBB)}}}
	return []*PeerMessage{
		{Raft: &raftpb.Message{To: new(uint64(2)), From: new(uint64(1))}},
		{Request: &raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 7, Disk: 5, Epoch: 3, Stream: 2, ID: 11, Rec: rec, Commit: 7, Touch: 6}},
		{Request: &raid.DiskRequest{Kind: raid.ReqFence, Vol: 7, Disk: 5, Epoch: 4, Since: 3, Shards: []raid.ShardRef{{Extent: 0, Gen: 1, Regions: 9}}}},
		{Request: &raid.DiskRequest{Kind: raid.ReqStart, Vol: 7, Disk: 5, Epoch: 4, Stream: 1, Acked: 3, End: 9, Forced: true,
			Hist: []raid.HistRange{{From: 1, To: 3, End: 9}}}},
		{Request: &raid.DiskRequest{Kind: raid.ReqFill, Vol: 7, Disk: 5, Epoch: 4, Stream: 1, ID: 3, S: 8, R: 6, Last: true, Extent: 2, Gen: 1, Region: 4,
			Blocks: []raid.Block{{Extent: 2, Gen: 1, No: 1025, Data: block(1)}}}},
		{Request: &raid.DiskRequest{Kind: raid.ReqRead, Vol: 7, Disk: 5, Epoch: 4, Stream: 1, ID: 3, S: 8, Touch: 7, Extent: 2, Gen: 1, First: 5, Count: 3}},
		{Reply: &raid.DiskReply{Kind: raid.RepRead, Vol: 7, Disk: 5, Epoch: 4, Stream: 1, ID: 3, To: 2, R: 8, Blocks: [][]byte{block(3), nil, block(4)}}},
		{Reply: &raid.DiskReply{Kind: raid.RepReport, Vol: 7, Disk: 5, Epoch: 4, To: 1, Report: &raid.Report{Start: 3, Commit: 8, Applied: 7, EndSeq: 9, Base: 2,
			Damaged: true, BootStart: raid.BootID{1}, BootNow: raid.BootID{2},
			Records: []raid.RecordID{{Epoch: 3, Seq: 9, BID: 5, Parts: raid.DiskSet{1, 5}, Reqs: rec.Reqs}}}}},
		{Reply: &raid.DiskReply{Kind: raid.RepNack, Nack: raid.NackRefused, Vol: 7, Disk: 5, Epoch: 4, Err: "no room", EndSeq: 4, Fence: 6}},
		{Reply: &raid.DiskReply{Kind: raid.RepRegions, Vol: 7, Disk: 5, Epoch: 4, ID: 8, Extent: 1, Regions: []raid.Seq{0, 5, 9}, Quota: 99, Commit: 3, Seq: 2, Damaged: true}},
		{Heartbeat: &Heartbeat{Heartbeat: membership.Heartbeat{Node: 1, Term: 2, ID: 3, LV: 4}, Disks: raid.DiskSet{1}, Reach: raid.DiskSet{1, 2}, Peers: []raid.NodeID{2, 3},
			Paths: []PathReport{{Carrier: true, BeaconAge: -1}}, Volumes: []VolumeReport{{Vol: 7, Epoch: 4, Suspended: "needs disk 2"}}}},
		{HeartbeatAck: &membership.HeartbeatAck{From: 2, Node: 1, Term: 2, ID: 3, PromiseNs: 5e8, ClockNs: 77}},
		{Revoke: &membership.RevokeRequest{Node: 1, Term: 2}},
		{RevokeReply: &membership.RevokeReply{From: 2, Node: 1, Term: 2, Yes: true}, Relay: &Relay{From: 2, To: 3}},
		{Dead: &membership.NodeTerm{Node: 1, Term: 9}},
		{Admin: &AdminRequest{ID: 4, Kind: "delete", Vol: 7}},
		{AdminReply: &AdminReply{ID: 4, Err: "no"}},
		{ReleaseVolume: &ReleaseVolume{Vol: 7, Epoch: 4}},
	}
}

// wire is a message's frame as it goes over a connection.
func wire(t testing.TB, m *PeerMessage) []byte {
	head, payload, err := EncodeMessage(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(head), bytes.Join(payload, nil)...)
}

func unwire(b []byte) (*PeerMessage, error) {
	if len(b) < FrameHeaderBytes {
		return nil, ErrMalformed
	}
	n, err := FrameLength(b)
	if err != nil {
		return nil, err
	}
	if n != len(b)-FrameHeaderBytes {
		return nil, ErrMalformed
	}
	if err := CheckFrame(b, b[FrameHeaderBytes:]); err != nil {
		return nil, err
	}
	return DecodeMessage(b[FrameHeaderBytes:])
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for i, m := range samples() {
		got, err := unwire(wire(t, m))
		if err != nil {
			t.Errorf("message %d: %v", i, err)
			continue
		}
		if m.Raft != nil {
			if got.Raft.GetTo() != 2 || got.Raft.GetFrom() != 1 {
				t.Errorf("raft message: %v", got.Raft)
			}
			continue
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("message %d:\n got %+v\nwant %+v", i, got, m)
		}
	}
}

func TestATornOrChangedMessageIsRefused(t *testing.T) {
	for i, m := range samples() {
		b := wire(t, m)
		for _, at := range []int{0, 5, 8, 9, len(b) / 2, len(b) - 1} {
			c := bytes.Clone(b)
			c[at] ^= 0x40
			if _, err := unwire(c); !errors.Is(err, ErrMalformed) {
				t.Errorf("message %d with byte %d changed: %v", i, at, err)
			}
		}
		if _, err := unwire(b[:len(b)-1]); err == nil {
			t.Errorf("message %d without its last byte is taken", i)
		}
	}
}

func TestWhatOnlyOurselvesMaySayIsRefusedFromPeers(t *testing.T) {
	m := &PeerMessage{Request: &raid.DiskRequest{Kind: raid.ReqShards, Vol: 7, Disk: 1}}
	if _, err := unwire(wire(t, m)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a peer deleted a volume: %v", err)
	}
}

func TestADisksMessageIsNotRelayed(t *testing.T) {
	l := newLab(t, 3)
	l.found()
	b := l.box(2)
	bad := b.node.stats.BadPeer
	m := &PeerMessage{Relay: &Relay{From: 1, To: 2}, Request: &raid.DiskRequest{Kind: raid.ReqVerify, Vol: 1, Disk: b.disks[0], Epoch: 1}}
	b.input(func(now int64) { b.node.Peer(now, 3, m) })
	l.pass(ms)
	if b.node.stats.BadPeer != bad+1 {
		t.Error("it was taken")
	}
}

// FuzzDecodeMessage feeds bodies whose checksum is right: no panic, and what is taken can be sent again.
func FuzzDecodeMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(wire(f, m)[FrameHeaderBytes:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again, err := DecodeMessage(wire(t, m)[FrameHeaderBytes:])
		if err != nil || m.Raft == nil && !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v does not survive the wire: %v\n%+v", m, err, again)
		}
	})
}

// FuzzInputs feeds a node that owns a volume with messages and frames that parse, whatever they say: it must neither panic nor stop.
func FuzzInputs(f *testing.F) {
	for _, m := range samples() {
		f.Add(wire(f, m)[FrameHeaderBytes:], false)
	}
	l := newLab(f, 3)
	l.found()
	l.create(1, 2, 1)
	s := l.station(1)
	s.put(1, 0, 1)
	for _, frame := range [][]byte{s.write(1, 0, 2), s.readRequest(1, 8), aoe.AppendConfigRequest(nil, s.header(1), aoe.ConfigSet, []byte("x")),
		aoe.AppendMaskRequest(nil, s.header(1), aoe.MaskEdit, []aoe.Directive{{Command: aoe.MaskAdd, MAC: s.mac}}),
		aoe.AppendReserveRequest(nil, s.header(1), aoe.ReserveForce, []aoe.MAC{s.mac}),
		aoe.AppendNodeBeacon(nil, s.mac, aoe.NodeBeacon{Cluster: labCluster, Node: 2})} {
		f.Add(frame, true)
	}
	owner := l.server(1)
	f.Fuzz(func(t *testing.T, b []byte, frame bool) {
		n := owner.node
		if frame {
			n.Frames(l.now, []SANFrame{{RxNs: l.now, Data: b}})
		} else if m, err := DecodeMessage(b); err == nil {
			from := raid.NodeID(2)
			if owner.id == 2 {
				from = 3
			}
			if m.Raft != nil && m.Raft.GetType() == raftpb.MsgApp {
				return // a leader is believed: what it sends was checked before it was proposed
			}
			n.Peer(l.now, from, m)
		}
		if r := n.Ready(l.now); r.Stop != nil {
			t.Fatal(r.Stop)
		}
		n.Tick(l.now)
	})
}

func BenchmarkEncodePrepare(b *testing.B) {
	m := samples()[1]
	var buf []byte
	b.SetBytes(2 * raid.BlockBytes)
	b.ReportAllocs()
	for b.Loop() {
		head, _, err := EncodeMessage(buf[:0], m)
		if err != nil {
			b.Fatal(err)
		}
		buf = head
	}
}
