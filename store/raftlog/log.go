package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	formatVersion   = 1
	lockTimeout     = 2 * time.Second
	initialMapBytes = 64 << 20 // room to grow before a write has to wait for readers and map anew
)

var (
	bucketFormat = []byte("format")
	bucketLog    = []byte("log")
	bucketState  = []byte("state")
	bucketMeta   = []byte("meta")
	keyVersion   = []byte("version")
	keyHard      = []byte("hard")
	keyBase      = []byte("base")
	keySnapshot  = []byte("snapshot")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// ErrCorrupt says that the file holds what no Log wrote. The node must not start: a Raft vote or log entry that is forgotten can
// cost data that a majority has acknowledged.
var ErrCorrupt = errors.New("corrupt")

// Log is the durable Raft log of a node.
type Log struct {
	reader
	db  *bbolt.DB
	err error // first failure; final
}

// Open opens the file at path, or makes it, and reads it whole. Another process that has it open is an error.
func Open(path string) (*Log, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, InitialMmapSize: initialMapBytes})
	if err != nil {
		return nil, fmt.Errorf("raftlog: open %s: %w", path, err)
	}
	l := &Log{db: db}
	if err = l.prepare(); err == nil {
		err = db.View(l.load)
	}
	if err != nil {
		_ = db.Close() // the first error says more
		return nil, fmt.Errorf("raftlog: %s: %w", path, err)
	}
	return l, nil
}

// prepare makes the buckets of a new file; an existing one is not written to.
func (l *Log) prepare() error {
	fresh := false
	err := l.db.View(func(tx *bbolt.Tx) error {
		fresh = tx.Bucket(bucketFormat) == nil
		return nil
	})
	if err != nil || !fresh {
		return err
	}
	return l.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketFormat, bucketLog, bucketState, bucketMeta} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketFormat).Put(keyVersion, []byte{formatVersion})
	})
}

// load reads the whole file into the image.
func (l *Log) load(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketFormat, bucketLog, bucketState, bucketMeta} {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("bucket %s is missing: %w", name, ErrCorrupt)
		}
	}
	if v := tx.Bucket(bucketFormat).Get(keyVersion); len(v) != 1 || v[0] != formatVersion {
		return fmt.Errorf("format version %v, this binary knows %d", v, formatVersion)
	}
	st, im := tx.Bucket(bucketState), &l.im
	if raw := st.Get(keyHard); raw != nil {
		im.hard = &raftpb.HardState{}
		if err := unsealProto(raw, im.hard); err != nil {
			return fmt.Errorf("hard state: %w", err)
		}
	}
	if raw := st.Get(keySnapshot); raw != nil {
		im.snapshot = &raftpb.Snapshot{}
		if err := unsealProto(raw, im.snapshot); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	if raw := st.Get(keyBase); raw != nil {
		b, err := unseal(raw)
		if err != nil || len(b) != 16 {
			return fmt.Errorf("base: %w", ErrCorrupt)
		}
		im.base = entryID{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	}
	err := tx.Bucket(bucketLog).ForEach(func(k, v []byte) error {
		e := &raftpb.Entry{}
		if err := unsealProto(v, e); err != nil {
			return fmt.Errorf("entry %x: %w", k, err)
		}
		if len(k) != 8 || binary.BigEndian.Uint64(k) != e.GetIndex() || e.GetIndex() != im.last()+1 {
			return fmt.Errorf("entry %x where %d belongs: %w", k, im.last()+1, ErrCorrupt)
		}
		im.ents = append(im.ents, e)
		return nil
	})
	if err != nil {
		return err
	}
	if i := im.snapshot.GetMetadata().GetIndex(); i < im.base.index || i > im.last() {
		return fmt.Errorf("snapshot at %d, log %d..%d: %w", i, im.base.index+1, im.last(), ErrCorrupt)
	}
	return tx.Bucket(bucketMeta).ForEach(func(k, v []byte) error {
		b, err := unseal(v)
		if err != nil {
			return fmt.Errorf("meta %q: %w", k, err)
		}
		im.meta = append(im.meta, KV{string(k), append([]byte{}, b...)})
		return nil
	})
}

// Write makes the batches durable together, in one transaction, and then visible to readers. After an error the node must
// stop: every further Write fails as well. One goroutine at a time.
func (l *Log) Write(batches ...Batch) error {
	if l.err != nil {
		return l.err
	}
	l.mu.Lock()
	im := l.im
	l.mu.Unlock()
	next, changes, err := im.applyAll(batches)
	if err == nil {
		err = l.db.Update(func(tx *bbolt.Tx) error {
			for i := range changes {
				if err := put(tx, &batches[i], &changes[i]); err != nil {
					return err
				}
			}
			return putBase(tx, next.base)
		})
	}
	if err != nil {
		l.err = fmt.Errorf("raftlog: write %d batches: %w", len(batches), err)
		return l.err
	}
	l.mu.Lock()
	l.im = next
	l.mu.Unlock()
	return nil
}

// Failed returns the error of the write that failed, or nil.
func (l *Log) Failed() error { return l.err }

// Close closes the file.
func (l *Log) Close() error {
	if err := l.db.Close(); err != nil {
		return fmt.Errorf("raftlog: close: %w", err)
	}
	return nil
}

// put repeats one change in the file.
func put(tx *bbolt.Tx, b *Batch, c *change) error {
	log, st := tx.Bucket(bucketLog), tx.Bucket(bucketState)
	if c.reset {
		if err := drop(log, 0, ^uint64(0)); err != nil {
			return err
		}
	}
	if c.snapshot {
		if err := putProto(st, keySnapshot, b.Snapshot); err != nil {
			return err
		}
	}
	if c.from != 0 {
		if err := drop(log, c.from, ^uint64(0)); err != nil {
			return err
		}
	}
	for _, e := range c.put {
		if err := putProto(log, indexKey(e.GetIndex()), e); err != nil {
			return err
		}
	}
	if c.hard {
		if err := putProto(st, keyHard, b.HardState); err != nil {
			return err
		}
	}
	if c.compact != 0 {
		if err := drop(log, 0, c.compact); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	for _, kv := range c.meta {
		var err error
		if kv.Value == nil {
			err = meta.Delete([]byte(kv.Key))
		} else {
			err = meta.Put([]byte(kv.Key), seal(kv.Value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func putBase(tx *bbolt.Tx, id entryID) error {
	b := binary.BigEndian.AppendUint64(nil, id.index)
	want := seal(binary.BigEndian.AppendUint64(b, id.term))
	st := tx.Bucket(bucketState)
	if string(st.Get(keyBase)) == string(want) {
		return nil
	}
	return st.Put(keyBase, want)
}

// drop deletes the entries from..to.
func drop(log *bbolt.Bucket, from, to uint64) error {
	var keys [][]byte
	c := log.Cursor()
	for k, _ := c.Seek(indexKey(from)); k != nil && binary.BigEndian.Uint64(k) <= to; k, _ = c.Next() {
		keys = append(keys, append([]byte{}, k...))
	}
	for _, k := range keys { // not through the cursor: deleting moves it
		if err := log.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func indexKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

func seal(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), crc32.Checksum(b, castagnoli)), b...)
}

func unseal(raw []byte) ([]byte, error) {
	if len(raw) < 4 || crc32.Checksum(raw[4:], castagnoli) != binary.BigEndian.Uint32(raw) {
		return nil, fmt.Errorf("checksum: %w", ErrCorrupt)
	}
	return raw[4:], nil
}

func putProto(b *bbolt.Bucket, key []byte, m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return b.Put(key, seal(raw))
}

func unsealProto(raw []byte, m proto.Message) error {
	b, err := unseal(raw)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}
