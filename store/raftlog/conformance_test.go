package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// store is what both twins can do.
type store interface {
	raft.Storage
	Write(...Batch) error
	Meta(string) ([]byte, bool)
	MetaPrefix(string) []KV
}

// eachStore runs f with both twins. reopen ends the process and starts the next one.
func eachStore(t *testing.T, f func(t *testing.T, s store, reopen func(store) store)) {
	t.Run("memory", func(t *testing.T) {
		f(t, NewMemory(), func(s store) store { return s.(*Memory).Crash(0) })
	})
	t.Run("bbolt", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "raft.db")
		l, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		last := l
		t.Cleanup(func() { _ = last.Close() })
		f(t, l, func(s store) store {
			if err := s.(*Log).Close(); err != nil {
				t.Fatal(err)
			}
			if last, err = Open(path); err != nil {
				t.Fatal(err)
			}
			return last
		})
	})
}

func entry(i, term uint64) *raftpb.Entry {
	return &raftpb.Entry{Index: new(i), Term: new(term), Data: fmt.Appendf(nil, "e%d.%d", term, i)}
}

func entries(from, to, term uint64) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := from; i <= to; i++ {
		out = append(out, entry(i, term))
	}
	return out
}

func snapshot(i, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: fmt.Appendf(nil, "s%d", i), Metadata: &raftpb.SnapshotMetadata{
		Index: new(i), Term: new(term), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}}
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// dump describes everything a reader can see.
func dump(t *testing.T, s store) string {
	t.Helper()
	var b bytes.Buffer
	hs, cs, err := s.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "term %d vote %d commit %d voters %v\n", hs.GetTerm(), hs.GetVote(), hs.GetCommit(), cs.GetVoters())
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	base, err := s.Term(first - 1)
	fmt.Fprintf(&b, "log %d..%d base term %d %v:", first, last, base, err)
	if first <= last {
		ents, err := s.Entries(first, last+1, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ents {
			tm, _ := s.Term(e.GetIndex())
			fmt.Fprintf(&b, " %d.%d.%d=%s", tm, e.GetTerm(), e.GetIndex(), e.GetData())
		}
	}
	snap, _ := s.Snapshot()
	fmt.Fprintf(&b, "\nsnapshot %d.%d %s\n", snap.GetMetadata().GetTerm(), snap.GetMetadata().GetIndex(), snap.GetData())
	for _, kv := range s.MetaPrefix("") {
		fmt.Fprintf(&b, "%s=%x\n", kv.Key, kv.Value)
	}
	return b.String()
}

func TestStoreKeepsWhatItWasGiven(t *testing.T) {
	steps := []struct {
		name  string
		batch []Batch
		want  string
	}{
		{"bootstrap snapshot", []Batch{{Snapshot: snapshot(1, 1)}}, "term 1 vote 0 commit 1 voters [1 2]\nlog 2..1 base term 1 <nil>:\nsnapshot 1.1 s1\n"},
		{"append", []Batch{{Entries: entries(2, 4, 2), HardState: hard(2, 1, 1)}}, "term 2 vote 1 commit 1 voters [1 2]\nlog 2..4 base term 1 <nil>: 2.2.2=e2.2 2.2.3=e2.3 2.2.4=e2.4\nsnapshot 1.1 s1\n"},
		{"a new leader overwrites the tail", []Batch{{Entries: entries(3, 3, 3), HardState: hard(3, 2, 2)}}, "term 3 vote 2 commit 2 voters [1 2]\nlog 2..3 base term 1 <nil>: 2.2.2=e2.2 3.3.3=e3.3\nsnapshot 1.1 s1\n"},
		{"two batches at once", []Batch{{Entries: entries(4, 5, 3)}, {Entries: entries(5, 6, 4), HardState: hard(4, 0, 4)}}, "term 4 vote 0 commit 4 voters [1 2]\nlog 2..6 base term 1 <nil>: 2.2.2=e2.2 3.3.3=e3.3 3.3.4=e3.4 4.4.5=e4.5 4.4.6=e4.6\nsnapshot 1.1 s1\n"},
		{"own snapshot, compaction below it", []Batch{{Snapshot: snapshot(4, 3), Compact: 3}}, "term 4 vote 0 commit 4 voters [1 2]\nlog 4..6 base term 3 <nil>: 3.3.4=e3.4 4.4.5=e4.5 4.4.6=e4.6\nsnapshot 3.4 s4\n"},
		{"compaction never passes the snapshot", []Batch{{Compact: 6}}, "term 4 vote 0 commit 4 voters [1 2]\nlog 5..6 base term 3 <nil>: 4.4.5=e4.5 4.4.6=e4.6\nsnapshot 3.4 s4\n"},
		{"an older snapshot is ignored", []Batch{{Snapshot: snapshot(2, 2)}}, "term 4 vote 0 commit 4 voters [1 2]\nlog 5..6 base term 3 <nil>: 4.4.5=e4.5 4.4.6=e4.6\nsnapshot 3.4 s4\n"},
		{"the leader's snapshot replaces the log", []Batch{{Snapshot: snapshot(20, 5), HardState: hard(5, 0, 20)}}, "term 5 vote 0 commit 20 voters [1 2]\nlog 21..20 base term 5 <nil>:\nsnapshot 5.20 s20\n"},
		{"and the log goes on behind it", []Batch{{Entries: entries(21, 22, 6), Meta: []KV{{"revoked/2", []byte{7}}, {"revoked/1", []byte{9}}}}}, "term 5 vote 0 commit 20 voters [1 2]\nlog 21..22 base term 5 <nil>: 6.6.21=e6.21 6.6.22=e6.22\nsnapshot 5.20 s20\nrevoked/1=09\nrevoked/2=07\n"},
		{"meta changes and goes", []Batch{{Meta: []KV{{"revoked/1", []byte{}}, {"revoked/2", nil}, {"revoked/3", nil}}}}, "term 5 vote 0 commit 20 voters [1 2]\nlog 21..22 base term 5 <nil>: 6.6.21=e6.21 6.6.22=e6.22\nsnapshot 5.20 s20\nrevoked/1=\n"},
	}
	eachStore(t, func(t *testing.T, s store, reopen func(store) store) {
		for _, step := range steps {
			if err := s.Write(step.batch...); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if got := dump(t, s); got != step.want {
				t.Fatalf("%s:\n%s\nwant\n%s", step.name, got, step.want)
			}
			s = reopen(s)
			if got := dump(t, s); got != step.want {
				t.Fatalf("%s, after a restart:\n%s\nwant\n%s", step.name, got, step.want)
			}
		}
	})
}

func TestStoreRefusesReadsItCannotServe(t *testing.T) {
	eachStore(t, func(t *testing.T, s store, _ func(store) store) {
		if err := s.Write(Batch{Snapshot: snapshot(5, 1)}, Batch{Entries: entries(6, 9, 1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Entries(5, 7, 100); !errors.Is(err, raft.ErrCompacted) {
			t.Errorf("entries from 5: %v", err)
		}
		if _, err := s.Entries(6, 11, 100); !errors.Is(err, raft.ErrUnavailable) {
			t.Errorf("entries to 10: %v", err)
		}
		if _, err := s.Term(4); !errors.Is(err, raft.ErrCompacted) {
			t.Errorf("term of 4: %v", err)
		}
		if _, err := s.Term(10); !errors.Is(err, raft.ErrUnavailable) {
			t.Errorf("term of 10: %v", err)
		}
		if e, err := s.Entries(6, 10, 1); err != nil || len(e) != 1 {
			t.Errorf("size limit below one entry: %d entries, %v; want 1", len(e), err)
		}
	})
}

func TestEntriesHandedOutDoNotChange(t *testing.T) {
	eachStore(t, func(t *testing.T, s store, _ func(store) store) {
		if err := s.Write(Batch{Snapshot: snapshot(1, 1), Entries: entries(2, 5, 1)}); err != nil {
			t.Fatal(err)
		}
		old, err := s.Entries(2, 6, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		_ = append(old, entry(99, 9)) // raft may append to what it got
		if err := s.Write(Batch{Entries: entries(3, 4, 2)}); err != nil {
			t.Fatal(err)
		}
		if string(old[1].GetData()) != "e1.3" {
			t.Errorf("entry 3 became %q", old[1].GetData())
		}
		if now, _ := s.Entries(2, 5, 1<<20); string(now[1].GetData()) != "e2.3" || len(now) != 3 {
			t.Errorf("log holds %v", now)
		}
	})
}

func TestAWriteThatFailsIsFinal(t *testing.T) {
	eachStore(t, func(t *testing.T, s store, _ func(store) store) {
		if err := s.Write(Batch{Snapshot: snapshot(1, 1), Entries: entries(2, 3, 1)}); err != nil {
			t.Fatal(err)
		}
		before := dump(t, s)
		err := s.Write(Batch{Entries: entries(4, 4, 1)}, Batch{Entries: entries(9, 9, 1)})
		if err == nil {
			t.Fatal("a gap in the log was accepted")
		}
		if again := s.Write(Batch{Entries: entries(4, 4, 1)}); !reflect.DeepEqual(again, err) {
			t.Errorf("after the failure a write says %v, want the first error %v", again, err)
		}
		if got := dump(t, s); got != before {
			t.Errorf("half of a failed write is visible:\n%s", got)
		}
	})
}

func TestTwinsAgreeOnRandomHistories(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		path := filepath.Join(t.TempDir(), "raft.db")
		l, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		l.db.NoSync = true // this test is about contents
		m := NewMemory()
		for i := range 60 {
			var bs []Batch
			tmp := NewMemory()
			tmp.im = m.im
			for range 1 + r.IntN(3) {
				b := randomBatch(r, tmp)
				if err := tmp.Write(b); err != nil {
					t.Fatal(err)
				}
				bs = append(bs, b)
			}
			if err := errors.Join(l.Write(bs...), m.Write(bs...)); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, i, err)
			}
			if r.IntN(8) == 0 {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if l, err = Open(path); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, i, err)
				}
				l.db.NoSync = true
			}
			if a, b := dump(t, l), dump(t, m); a != b {
				t.Fatalf("seed %d step %d: file\n%s\nmemory\n%s", seed, i, a, b)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func randomBatch(r *rand.Rand, m *Memory) Batch {
	var b Batch
	first, last := m.im.base.index+1, m.im.last()
	switch r.IntN(5) {
	case 0:
		i := last + 1 + r.Uint64N(5)
		b.Snapshot = snapshot(i, 1+i/4)
	case 1:
		if last > first {
			i := first + r.Uint64N(last-first)
			t, _ := m.Term(i)
			b.Snapshot, b.Compact = snapshot(i, t), i-min(i, r.Uint64N(3))
		}
	case 2:
		b.Meta = []KV{{fmt.Sprint("k", r.IntN(4)), []byte{byte(r.IntN(9))}}}
		if r.IntN(3) == 0 {
			b.Meta[0].Value = nil
		}
	default:
		from := max(first, last+1-min(last, r.Uint64N(3)))
		b.Entries = entries(from, from+r.Uint64N(4), 1+last)
		b.HardState = hard(1+last, r.Uint64N(3), from)
	}
	return b
}

func TestMemoryCrashLosesWhatWasNotComplete(t *testing.T) {
	for survivors := range 4 {
		m := NewMemory()
		if err := m.Write(Batch{Snapshot: snapshot(1, 1)}); err != nil {
			t.Fatal(err)
		}
		for i := uint64(2); i <= 4; i++ {
			m.Begin(Batch{Entries: entries(i, i, 1)})
		}
		if last, _ := m.LastIndex(); last != 1 {
			t.Fatalf("a write that is not complete is visible: last index %d", last)
		}
		next := m.Crash(survivors)
		if last, _ := next.LastIndex(); last != uint64(1+survivors) {
			t.Errorf("%d survivors: last index %d", survivors, last)
		}
	}
	m := NewMemory()
	m.Fail(nil)
	if err := m.Write(Batch{Snapshot: snapshot(1, 1)}); err == nil {
		t.Error("a write succeeds after Fail")
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Write(Batch{Snapshot: snapshot(1, 1), Entries: entries(2, 9, 1), HardState: hard(1, 1, 2), Meta: []KV{{"revoked/1", []byte{1}}}}); err != nil {
		t.Fatal(err)
	}
	damage := []struct {
		name   string
		bucket []byte
		key    []byte
	}{
		{"entry", bucketLog, indexKey(5)}, {"hard state", bucketState, keyHard}, {"snapshot", bucketState, keySnapshot},
		{"base", bucketState, keyBase}, {"meta", bucketMeta, []byte("revoked/1")},
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	flip := func(bucket, key []byte) {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			v := bytes.Clone(tx.Bucket(bucket).Get(key))
			v[len(v)-1] ^= 1
			return tx.Bucket(bucket).Put(key, v)
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range damage {
		flip(d.bucket, d.key)
		if _, err := Open(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("damaged %s: %v", d.name, err)
		}
		flip(d.bucket, d.key)
	}
	l, err = Open(path)
	if err != nil {
		t.Fatalf("repaired file: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
