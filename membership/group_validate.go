package membership

import (
	"bytes"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"clade/raid"
)

const (
	maxIndex       = 1 << 62 // so that no sum of indexes can overflow
	maxTermStep    = 1 << 32 // nobody is that far ahead of us
	maxStepEntries = 1 << 16
)

// validate refuses every message on which Raft would panic, or which no correct peer can send. Messages from nodes that this
// one does not know as members are not refused as such: a follower that lags learns of a new leader only from its messages.
func (g *Group) validate(from raid.NodeID, m *raftpb.Message) error {
	switch {
	case m == nil:
		return fmt.Errorf("no message: %w", ErrInvalid)
	case from == 0 || from == g.opt.Node || raft.IsLocalMsgTarget(uint64(from)) || m.GetFrom() != uint64(from):
		return fmt.Errorf("sender %d: %w", m.GetFrom(), ErrInvalid)
	case m.GetTo() != uint64(g.opt.Node):
		return fmt.Errorf("addressed to %d: %w", m.GetTo(), ErrInvalid)
	case m.GetIndex() > maxIndex || m.GetCommit() > maxIndex || m.GetRejectHint() > maxIndex || m.GetLogTerm() > maxIndex:
		return fmt.Errorf("index out of range: %w", ErrInvalid)
	case len(m.GetResponses()) > 0 || len(m.GetEntries()) > maxStepEntries:
		return fmt.Errorf("%d responses, %d entries: %w", len(m.GetResponses()), len(m.GetEntries()), ErrInvalid)
	case m.GetType() != raftpb.MsgSnap && !raft.IsEmptySnap(m.GetSnapshot()):
		return fmt.Errorf("a snapshot where none belongs: %w", ErrInvalid)
	}
	if m.GetType() == raftpb.MsgProp {
		return validateProposal(m)
	}
	st := g.rn.BasicStatus()
	if t := m.GetTerm(); t == 0 || t > st.HardState.GetTerm()+maxTermStep {
		return fmt.Errorf("raft term %d: %w", t, ErrInvalid)
	}
	if m.GetType() != raftpb.MsgApp && len(m.GetEntries()) > 0 {
		return fmt.Errorf("entries where none belong: %w", ErrInvalid)
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		return validateAppend(m)
	case raftpb.MsgSnap:
		return g.validateSnapshot(m)
	case raftpb.MsgHeartbeat:
		if m.GetTerm() >= st.HardState.GetTerm() && m.GetCommit() > g.last {
			return fmt.Errorf("commit %d beyond the log's end %d: %w", m.GetCommit(), g.last, ErrInvalid)
		}
	case raftpb.MsgAppResp:
		if st.RaftState == raft.StateLeader && m.GetTerm() == st.HardState.GetTerm() && m.GetIndex() > g.last {
			return fmt.Errorf("acknowledges %d beyond the log's end %d: %w", m.GetIndex(), g.last, ErrInvalid)
		}
	case raftpb.MsgHeartbeatResp:
		if len(m.GetContext()) > 0 {
			return fmt.Errorf("a read context, which this node never sends: %w", ErrInvalid)
		}
	case raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
	default:
		return fmt.Errorf("not a message between peers: %w", ErrInvalid)
	}
	return nil
}

// validateProposal checks what a follower forwards: unlike an entry of the log it may still be refused, so poison stops here.
func validateProposal(m *raftpb.Message) error {
	if m.GetTerm() != 0 || len(m.GetEntries()) == 0 || len(m.GetEntries()) > maxPending {
		return fmt.Errorf("term %d, %d entries: %w", m.GetTerm(), len(m.GetEntries()), ErrInvalid)
	}
	for _, e := range m.GetEntries() {
		switch e.GetType() {
		case raftpb.EntryNormal:
			if _, _, err := Decode(e.GetData()); err != nil {
				return err
			}
		case raftpb.EntryConfChangeV2:
			if decodeConfChange(e) == nil {
				return fmt.Errorf("configuration change: %w", ErrInvalid)
			}
		default:
			return fmt.Errorf("entry type %d: %w", e.GetType(), ErrInvalid)
		}
	}
	return nil
}

// validateAppend checks that the entries follow one another and belong to terms that lie between the two ends.
func validateAppend(m *raftpb.Message) error {
	term := m.GetLogTerm()
	if term > m.GetTerm() {
		return fmt.Errorf("log term %d in term %d: %w", term, m.GetTerm(), ErrInvalid)
	}
	for i, e := range m.GetEntries() {
		if e == nil || e.GetIndex() != m.GetIndex()+1+uint64(i) || e.GetTerm() < term || e.GetTerm() == 0 || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("entry %d (index %d, term %d) after index %d: %w", i, e.GetIndex(), e.GetTerm(), m.GetIndex(), ErrInvalid)
		}
		if t := e.GetType(); t != raftpb.EntryNormal && t != raftpb.EntryConfChange && t != raftpb.EntryConfChangeV2 {
			return fmt.Errorf("entry type %d: %w", t, ErrInvalid)
		}
		term = e.GetTerm()
	}
	return nil
}

func (g *Group) validateSnapshot(m *raftpb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	if meta.GetIndex() == 0 || meta.GetIndex() > maxIndex || meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm() || !confStateOK(meta.GetConfState()) {
		return fmt.Errorf("snapshot at index %d, term %d: %w", meta.GetIndex(), meta.GetTerm(), ErrInvalid)
	}
	if meta.GetIndex() <= g.applied {
		return nil // Raft only tells the leader how far we are
	}
	st, err := Restore(m.GetSnapshot().GetData())
	if err != nil {
		return err
	}
	if st.Applied > meta.GetIndex() {
		return fmt.Errorf("snapshot at index %d holds the state of %d: %w", meta.GetIndex(), st.Applied, ErrInvalid)
	}
	return nil
}

// confStateOK reports whether a configuration is one that this package makes: never joint, voters and learners disjoint.
func confStateOK(cs *raftpb.ConfState) bool {
	if cs == nil || len(cs.GetVoters()) == 0 || len(cs.GetVotersOutgoing()) > 0 || len(cs.GetLearnersNext()) > 0 || cs.GetAutoLeave() {
		return false
	}
	all := append(slices.Clone(cs.GetVoters()), cs.GetLearners()...)
	slices.Sort(all)
	return len(all) <= maxLeaseNodes && all[0] != 0 && !raft.IsLocalMsgTarget(all[len(all)-1]) && !raft.IsLocalMsgTarget(all[max(len(all)-2, 0)]) &&
		len(slices.Compact(all)) == len(cs.GetVoters())+len(cs.GetLearners())
}

func confChange(k ConfKind, n raid.NodeID) *raftpb.ConfChangeV2 {
	var t raftpb.ConfChangeType
	var meant []byte
	switch k {
	case ConfAddLearner:
		t = raftpb.ConfChangeAddLearnerNode
	case ConfDemote:
		t, meant = raftpb.ConfChangeAddLearnerNode, demotion
	case ConfPromote:
		t = raftpb.ConfChangeAddNode
	case ConfRemove:
		t = raftpb.ConfChangeRemoveNode
	default:
		return nil
	}
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: t.Enum(), NodeId: new(uint64(n))}}, Context: meant}
}

// demotion is the context of a ConfDemote: Raft writes it like the adding of a learner, and a late copy of that must not take a vote
// away.
var demotion = []byte("demote")

func decodeConfChange(e *raftpb.Entry) *raftpb.ConfChangeV2 {
	switch e.GetType() {
	case raftpb.EntryConfChange:
		var cc raftpb.ConfChange
		if proto.Unmarshal(e.GetData(), &cc) == nil {
			return cc.AsV2()
		}
	case raftpb.EntryConfChangeV2:
		var cc raftpb.ConfChangeV2
		if proto.Unmarshal(e.GetData(), &cc) == nil {
			return &cc
		}
	}
	return nil
}

// confChangeOK reports whether a change of one node applies to a configuration; Raft panics on some that do not. It decides by
// its arguments alone, so every node decides alike.
func confChangeOK(cs *raftpb.ConfState, cc *raftpb.ConfChangeV2) bool {
	if cc.GetTransition() != raftpb.ConfChangeTransitionAuto || len(cc.GetChanges()) != 1 || cc.GetChanges()[0] == nil || !confStateOK(cs) {
		return false
	}
	c := cc.GetChanges()[0]
	id := c.GetNodeId()
	voter, learner := slices.Contains(cs.GetVoters(), id), slices.Contains(cs.GetLearners(), id)
	switch c.GetType() {
	case raftpb.ConfChangeAddLearnerNode:
		if bytes.Equal(cc.GetContext(), demotion) {
			return voter && len(cs.GetVoters()) > 1
		}
		return id != 0 && !raft.IsLocalMsgTarget(id) && !voter && !learner && len(cs.GetVoters())+len(cs.GetLearners()) < maxLeaseNodes
	case raftpb.ConfChangeAddNode:
		return learner
	case raftpb.ConfChangeRemoveNode:
		return learner || voter && len(cs.GetVoters()) > 1
	}
	return false
}

// nextConf returns the configuration after a change that confChangeOK has accepted.
func nextConf(cs *raftpb.ConfState, cc *raftpb.ConfChangeV2) *raftpb.ConfState {
	out := proto.Clone(cs).(*raftpb.ConfState)
	c := cc.GetChanges()[0]
	without := func(ids []uint64) []uint64 {
		return slices.DeleteFunc(ids, func(id uint64) bool { return id == c.GetNodeId() })
	}
	out.Voters, out.Learners = without(out.Voters), without(out.Learners)
	switch c.GetType() {
	case raftpb.ConfChangeAddLearnerNode:
		out.Learners = append(out.Learners, c.GetNodeId())
	case raftpb.ConfChangeAddNode:
		out.Voters = append(out.Voters, c.GetNodeId())
	}
	return out
}
