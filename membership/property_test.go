package membership

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"clade/aoe"
	"clade/raid"
)

// randomBody returns a command with small numbers, so that many guards hold.
func randomBody(r *rand.Rand, s *State) Body {
	node := func() raid.NodeID { return raid.NodeID(1 + r.IntN(5)) }
	disk := func() raid.DiskID { return raid.DiskID(1 + r.IntN(8)) }
	vol := raid.VolumeID(1 + r.Uint64N(uint64(s.NextVolume)+1))
	var e raid.Epoch
	var ver uint64
	if v := s.Volume(vol); v != nil {
		e, ver = v.Data.Epoch, v.Data.Ver
	}
	e -= min(e, raid.Epoch(r.IntN(8)/7))
	term := func(n raid.NodeID) raid.Term {
		if x := s.Node(n); x != nil && r.IntN(8) > 0 {
			return x.Term
		}
		return raid.Term(r.IntN(4))
	}
	n := node()
	switch r.IntN(16) {
	case 0:
		i := r.IntN(6)
		return &NodeJoin{Name: fmt.Sprint("n", i), Key: UUID{byte(i)}, Node: testInfo(i)}
	case 1:
		return &NodeBoot{Node: n, Term: term(n), Proof: r.IntN(2) == 0, Info: testInfo(int(n))}
	case 2:
		return &NodeDead{Node: n, Term: term(n)}
	case 3:
		return &NodeRevoke{Node: n, Term: term(n), Yes: []raid.NodeID{node(), node(), node()}}
	case 4:
		return &DiskAdd{Node: n, UUID: UUID{byte(r.IntN(8)), 1}, CapacityMiB: 5000, Label: "d"}
	case 5:
		return createCmd(uint8(r.IntN(4)), 1+r.IntN(2), r.IntN(2), uint64(1+r.IntN(3000)))
	case 6:
		return &Delete{Vol: vol, Epoch: e, Ver: ver}
	case 7, 8:
		return &Takeover{Vol: vol, Epoch: e, Next: e + 1 + raid.Epoch(r.IntN(3)/2), Node: n, Term: term(n)}
	case 9, 10:
		c := raid.VolumeCommand{Kind: raid.CmdActivate, Vol: vol, Epoch: e, Ver: ver}
		if v := s.Volume(vol); v != nil {
			c.F = v.Data.InSync()
			c.C0 = raid.Seq(r.IntN(5))
			c.End = c.C0 + raid.Seq(r.IntN(3))
		}
		return volCmd(c)
	case 11, 12:
		return volCmd(raid.VolumeCommand{Kind: raid.CommandKind(1 + r.IntN(6)), Vol: vol, Epoch: e, Ver: ver, Disk: disk(), S: raid.Seq(r.IntN(9))})
	case 13:
		return &VotersBegin{New: []raid.NodeID{node(), node()}, LV: s.Voters.LV}
	case 14:
		end := &VotersEnd{LV: s.Voters.LV}
		for i := range s.Nodes {
			end.Reported = append(end.Reported, NodeTerm{s.Nodes[i].ID, s.Nodes[i].Term})
		}
		return end
	}
	kind := aoe.ControlKind(1 + r.IntN(5))
	req := setReq(kind, aoe.MAC{2, 0, 0, 0, 0, byte(r.IntN(3))}, byte(r.IntN(4)), "s")
	req.MACs = []aoe.MAC{req.Src}
	return &Control{Vol: vol, Epoch: e, Req: req}
}

// Same log, same bytes, also through a snapshot anywhere; and what A.1 says never happens does not.
func TestRandomHistories(t *testing.T) {
	took := map[string]int{}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 4))
		m := newCluster(t, 3, 1)
		twin := &State{}
		for i, d := range m.log {
			twin.Apply(uint64(i+1), d)
		}
		for i := range 300 {
			before := slices.Clone(m.s.Volumes)
			pictures := make([]string, len(before))
			for j, v := range before {
				pictures[j] = fmt.Sprintf("%+v %+v", *v, *v.Data)
			}
			m.clock += r.Int64N(8000)
			by := raid.NodeID(1 + r.IntN(3))
			b := randomBody(r, m.s)
			if v, ok := b.(*VolumeCommand); ok && m.s.Volume(v.Vol) != nil && r.IntN(8) > 0 {
				by = m.s.Volume(v.Vol).Data.Owner
			}
			if c, ok := b.(*Control); ok && m.s.Volume(c.Vol) != nil {
				by = m.s.Volume(c.Vol).Data.Owner
			}
			if res := m.apply(by, b); res.OK() {
				took[b.CommandType()]++
			}
			for j, v := range before {
				if fmt.Sprintf("%+v %+v", *v, *v.Data) != pictures[j] {
					t.Fatalf("seed %d, %d: %s changed a volume that was handed out", seed, i, b.CommandType())
				}
				checkSuccessor(t, m.s, v, b)
			}
			if r.IntN(20) == 0 {
				restored, err := Restore(twin.Snapshot())
				if err != nil {
					t.Fatalf("seed %d, %d: %v", seed, i, err)
				}
				twin = restored
			}
			twin.Apply(uint64(len(m.log)), m.log[len(m.log)-1])
			if i%10 == 0 && !bytes.Equal(twin.Snapshot(), m.s.Snapshot()) {
				t.Fatalf("seed %d, %d: after %s the twin differs:\n%s\n%s", seed, i, b.CommandType(), twin.Snapshot(), m.s.Snapshot())
			}
		}
	}
	for _, typ := range []string{"node_join", "node_boot", "node_dead", "node_revoke", "disk_add", "create", "delete", "takeover", "volume", "control", "voters_begin", "voters_end"} {
		if took[typ] < 20 {
			t.Errorf("%s took effect %d times only: the histories test little", typ, took[typ])
		}
	}
}

// checkSuccessor compares a volume with what became of it.
func checkSuccessor(t *testing.T, s *State, old *Volume, by Body) {
	t.Helper()
	v := s.Volume(old.Data.ID)
	if v == nil {
		return
	}
	a, b := old.Data, v.Data
	switch {
	case b.Epoch < a.Epoch || b.Ver < a.Ver:
		t.Fatalf("%s: epoch or version fell", by.CommandType())
	case (b.Owner != a.Owner || b.OwnerTerm != a.OwnerTerm) && b.Epoch == a.Epoch:
		t.Fatalf("%s: another owner in the same epoch", by.CommandType())
	case b.Epoch > a.Epoch && b.Active:
		t.Fatalf("%s: active without Activate", by.CommandType())
	case !b.EveryExtentKeeps(b.InSync()):
		t.Fatalf("%s: an extent has fewer than k in-sync disks", by.CommandType())
	case len(a.InSync()) != len(b.InSync()) && a.Ver == b.Ver:
		t.Fatalf("%s: the in-sync set changed and the version did not", by.CommandType())
	case v.Identity != old.Identity || v.Slot != old.Slot || b.Size != a.Size:
		t.Fatalf("%s: the disk is another one to initiators", by.CommandType())
	}
}
