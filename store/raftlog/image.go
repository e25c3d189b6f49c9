package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// KV is one small durable value. A nil Value deletes the key.
type KV struct {
	Key   string
	Value []byte
}

// Batch is what becomes durable together, in this order: Snapshot, Entries, HardState, Compact, Meta.
type Batch struct {
	// Snapshot replaces the stored one if it is newer. When the log holds the entry of its index and term, the log stays;
	// else the log is dropped and goes on behind the snapshot.
	Snapshot *raftpb.Snapshot
	// Entries are appended; entries of the same and later indexes are dropped first.
	Entries   []*raftpb.Entry
	HardState *raftpb.HardState // nil or empty: unchanged
	// Compact drops the log up to and with this index, at most up to the snapshot's; 0: nothing.
	Compact uint64
	Meta    []KV
}

// BatchOf returns what a MsgStorageAppend of raft asks for. Its messages and entries are shared, not copied.
func BatchOf(m *raftpb.Message) Batch {
	b := Batch{Entries: m.GetEntries()}
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		b.Snapshot = m.GetSnapshot()
	}
	hs := &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	if !raft.IsEmptyHardState(hs) {
		b.HardState = hs
	}
	return b
}

// Limits of what a Batch may carry.
const (
	maxKeyBytes   = 256
	maxValueBytes = 1 << 20
)

// errBatch marks a batch that does not fit the log: the caller's bug.
var errBatch = errors.New("raftlog: batch does not fit the log")

// image is the contents, immutable but for what is said to be durable. It is copied on write in its slices, so that entries
// handed out stay what they were.
type image struct {
	hard     *raftpb.HardState
	snapshot *raftpb.Snapshot
	base     entryID         // the entry before ents[0]
	ents     []*raftpb.Entry // dense
	meta     []KV            // sorted by key
}

type entryID struct{ index, term uint64 }

func (im *image) last() uint64 { return im.base.index + uint64(len(im.ents)) }

// change says what a batch did to an image, for the file to repeat.
type change struct {
	reset    bool // the log was dropped: base is the snapshot's
	put      []*raftpb.Entry
	from     uint64 // entries >= from were dropped before put; 0: none
	compact  uint64 // entries <= compact were dropped
	snapshot bool
	hard     bool
	meta     []KV
}

// apply returns the image after b and what has changed; im stays as it is.
func (im image) apply(b Batch) (image, change, error) {
	var c change
	if s := b.Snapshot; !raft.IsEmptySnap(s) && s.GetMetadata().GetIndex() > im.snapshot.GetMetadata().GetIndex() {
		id := entryID{s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()}
		if t, err := im.term(id.index); err != nil || t != id.term {
			im.base, im.ents, c.reset = id, nil, true
		}
		im.snapshot, c.snapshot = s, true
	}
	if len(b.Entries) > 0 {
		first := b.Entries[0].GetIndex()
		for i, e := range b.Entries {
			if e.GetIndex() != first+uint64(i) {
				return im, c, fmt.Errorf("%w: entry %d where %d belongs", errBatch, e.GetIndex(), first+uint64(i))
			}
		}
		if first <= im.base.index || first > im.last()+1 {
			return im, c, fmt.Errorf("%w: entries from %d, the log is %d..%d", errBatch, first, im.base.index+1, im.last())
		}
		if first <= im.last() {
			c.from = first
		}
		keep := first - im.base.index - 1
		im.ents = append(im.ents[:keep:keep], b.Entries...)
		c.put = b.Entries
	}
	if b.HardState != nil && !raft.IsEmptyHardState(b.HardState) {
		im.hard, c.hard = b.HardState, true
	}
	if to := min(b.Compact, im.snapshot.GetMetadata().GetIndex(), im.last()); to > im.base.index {
		n := to - im.base.index
		im.base = entryID{to, im.ents[n-1].GetTerm()}
		im.ents = slices.Clone(im.ents[n:])
		c.compact = to
	}
	for _, kv := range b.Meta {
		if kv.Key == "" || len(kv.Key) > maxKeyBytes || len(kv.Value) > maxValueBytes {
			return im, c, fmt.Errorf("%w: meta %q of %d bytes", errBatch, kv.Key, len(kv.Value))
		}
	}
	if len(b.Meta) > 0 {
		im.meta = putMeta(im.meta, b.Meta)
		c.meta = b.Meta
	}
	return im, c, nil
}

func putMeta(old, kvs []KV) []KV {
	out := slices.Clone(old)
	for _, kv := range kvs {
		i, ok := slices.BinarySearchFunc(out, kv.Key, func(o KV, k string) int { return bytes.Compare([]byte(o.Key), []byte(k)) })
		switch {
		case kv.Value == nil && ok:
			out = slices.Delete(out, i, i+1)
		case kv.Value == nil:
		case ok:
			out[i].Value = slices.Clone(kv.Value)
		default:
			out = slices.Insert(out, i, KV{kv.Key, slices.Clone(kv.Value)})
		}
	}
	return out
}

func (im *image) term(i uint64) (uint64, error) {
	switch {
	case i < im.base.index:
		return 0, raft.ErrCompacted
	case i == im.base.index:
		return im.base.term, nil
	case i > im.last():
		return 0, raft.ErrUnavailable
	}
	return im.ents[i-im.base.index-1].GetTerm(), nil
}

// reader serves raft.Storage from an image.
type reader struct {
	mu sync.Mutex
	im image
}

// InitialState returns the hard state and the configuration of the snapshot.
func (r *reader) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hs := &raftpb.HardState{}
	if r.im.hard != nil {
		hs = proto.Clone(r.im.hard).(*raftpb.HardState)
	}
	// The commit index may lag behind a snapshot that was written in the same batch or after it.
	meta := r.im.snapshot.GetMetadata()
	if hs.GetCommit() < meta.GetIndex() {
		hs.Commit = new(meta.GetIndex())
	}
	if hs.GetTerm() < meta.GetTerm() {
		hs.Term, hs.Vote = new(meta.GetTerm()), nil
	}
	return hs, proto.Clone(raftpb.EnsureConfState(meta.GetConfState())).(*raftpb.ConfState), nil
}

// Entries returns the entries lo <= i < hi, at least one, then as many as fit in maxBytes. They must not be changed.
func (r *reader) Entries(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	im := &r.im
	if lo <= im.base.index {
		return nil, raft.ErrCompacted
	}
	if hi > im.last()+1 || lo >= hi {
		return nil, raft.ErrUnavailable
	}
	ents := im.ents[lo-im.base.index-1 : hi-im.base.index-1]
	size := uint64(0)
	for i, e := range ents {
		if size += uint64(proto.Size(e)); i > 0 && size > maxBytes {
			ents = ents[:i]
			break
		}
	}
	return slices.Clone(ents), nil
}

// Term returns the term of entry i, FirstIndex-1 <= i <= LastIndex.
func (r *reader) Term(i uint64) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.im.term(i)
}

// LastIndex returns the index of the last entry.
func (r *reader) LastIndex() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.im.last(), nil
}

// FirstIndex returns the index of the first entry that Entries can return.
func (r *reader) FirstIndex() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.im.base.index + 1, nil
}

// Snapshot returns the newest snapshot; its data must not be changed.
func (r *reader) Snapshot() (*raftpb.Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.im.snapshot
	if s == nil {
		return &raftpb.Snapshot{}, nil
	}
	return &raftpb.Snapshot{Data: s.GetData(), Metadata: proto.Clone(s.GetMetadata()).(*raftpb.SnapshotMetadata)}, nil
}

// Meta returns a small durable value, or false. The value must not be changed.
func (r *reader) Meta(key string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, kv := range r.im.meta {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return nil, false
}

// MetaPrefix returns all small durable values whose keys begin with prefix, sorted by key.
func (r *reader) MetaPrefix(prefix string) []KV {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []KV
	for _, kv := range r.im.meta {
		if len(kv.Key) >= len(prefix) && kv.Key[:len(prefix)] == prefix {
			out = append(out, kv)
		}
	}
	return out
}

// applyAll returns the image after several batches and the changes they made.
func (im image) applyAll(batches []Batch) (image, []change, error) {
	changes := make([]change, 0, len(batches))
	for _, b := range batches {
		next, c, err := im.apply(b)
		if err != nil {
			return im, nil, err
		}
		im = next
		changes = append(changes, c)
	}
	return im, changes, nil
}
