package runtime

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"

	"clade/cluster"
	"clade/membership"
	"clade/raid"
	"clade/store/raftlog"
)

// revokedPrefix is where the lease terms that this node's voter has revoked are kept: "revoked/<node>" -> term, BE64.
const revokedPrefix = "revoked/"

// storageWork is what the core queues: writes of the Raft log and small durable values, in order.
type storageWork struct {
	writes []membership.StorageWrite
	meta   []cluster.MetaWrite
}

// storageDone is what the storage worker tells the core; err is final.
type storageDone struct {
	seq   uint64   // all StorageWrites up to here are durable; 0: none new
	meta  []uint64 // these MetaWrites are durable
	tookN int64
	err   error
}

// storage is the worker that makes the node's own state durable: one transaction, and so one commit, for all that has queued.
type storage struct {
	log   *raftlog.Log
	state *stateFile
	id    Identity
	put   func(any) bool

	mu      sync.Mutex
	queued  storageWork
	stopped bool
	bell    chan struct{}
	done    chan struct{}
}

func newStorage(log *raftlog.Log, state *stateFile, id Identity, put func(any) bool) *storage {
	return &storage{log: log, state: state, id: id, put: put, bell: make(chan struct{}, 1), done: make(chan struct{})}
}

// enqueue queues writes. Raft's limit of uncommitted bytes bounds what can wait.
func (s *storage) enqueue(writes []membership.StorageWrite, meta []cluster.MetaWrite) {
	s.mu.Lock()
	s.queued.writes = append(s.queued.writes, writes...)
	s.queued.meta = append(s.queued.meta, meta...)
	s.mu.Unlock()
	s.ring()
}

func (s *storage) ring() {
	select {
	case s.bell <- struct{}{}:
	default: // it rings already
	}
}

// stop ends the worker after what is queued now.
func (s *storage) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.ring()
	<-s.done
}

// run is the worker's goroutine.
func (s *storage) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		work, stopped := s.queued, s.stopped
		s.queued = storageWork{}
		s.mu.Unlock()
		if len(work.writes) == 0 && len(work.meta) == 0 {
			if stopped {
				return
			}
			<-s.bell
			continue
		}
		began := nearBootNs()
		done := s.write(work)
		done.tookN = nearBootNs() - began
		s.put(done)
		if done.err != nil {
			return
		}
	}
}

// write makes all of work durable.
func (s *storage) write(work storageWork) storageDone {
	var batches []raftlog.Batch
	var done storageDone
	for _, w := range work.writes {
		if w.Append != nil {
			batches = append(batches, raftlog.BatchOf(w.Append))
		} else {
			batches = append(batches, raftlog.Batch{Snapshot: w.Snapshot, Compact: w.CompactTo})
		}
		done.seq = w.Seq
	}
	var meta raftlog.Batch
	var term raid.Term
	for _, m := range work.meta {
		done.meta = append(done.meta, m.ID)
		if m.Revoked != nil {
			meta.Meta = append(meta.Meta, revokedKV(*m.Revoked))
		}
		term = max(term, m.Term)
	}
	if len(meta.Meta) > 0 {
		batches = append(batches, meta)
	}
	if len(batches) > 0 {
		if err := s.log.Write(batches...); err != nil {
			done.err = err
			return done
		}
	}
	if term != 0 {
		done.err = s.state.write(s.id.Cluster, s.id.Node, term)
	}
	return done
}

func revokedKV(r membership.Revoked) raftlog.KV {
	return raftlog.KV{Key: revokedPrefix + strconv.FormatUint(uint64(r.Node), 10), Value: binary.BigEndian.AppendUint64(nil, uint64(r.Term))}
}

// loadRevoked returns what this node's voter has revoked in earlier lives.
func loadRevoked(log *raftlog.Log) ([]membership.Revoked, error) {
	var out []membership.Revoked
	for _, kv := range log.MetaPrefix(revokedPrefix) {
		node, err := strconv.ParseUint(kv.Key[len(revokedPrefix):], 10, 64)
		if err != nil || len(kv.Value) != 8 {
			return nil, fmt.Errorf("runtime: stored revocation %q of %d bytes: %w", kv.Key, len(kv.Value), raftlog.ErrCorrupt)
		}
		out = append(out, membership.Revoked{Node: raid.NodeID(node), Term: raid.Term(binary.BigEndian.Uint64(kv.Value))})
	}
	return out, nil
}
