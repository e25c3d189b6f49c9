package load

import (
	"strings"
	"testing"
)

// Histories in short: w(client, call, return, value, copies...), r(...).

func w(client int, call, ret int64, v Value, copies ...CopyRecord) *Record {
	status := OK
	if ret == 0 {
		status = Open
	}
	for i := range copies {
		copies[i].LBA, copies[i].Sectors = 10, 1
	}
	return &Record{Client: client, Write: true, LBA: 10, Sectors: 1, CallNs: call, ReturnNs: ret, Status: status, Value: v, Copies: copies}
}

func r(client int, call, ret int64, v Value) *Record {
	return &Record{Client: client, LBA: 10, Sectors: 1, CallNs: call, ReturnNs: ret, Status: OK, Values: []Value{v}}
}

func sent(at int64, delivered ...int64) CopyRecord {
	return CopyRecord{SentNs: at, DeliveredNs: delivered}
}

func closed(at int64, rec *Record) *Record { rec.ClosedNs = at; return rec }

func failed(rec *Record) *Record { rec.Status = Failed; return rec }

func TestCheckKnownHistories(t *testing.T) {
	a, b := MakeValue(0, 1), MakeValue(1, 1)
	known := Options{DeliveriesKnown: true}
	for _, tc := range []struct {
		name string
		want Verdict
		opt  Options
		recs []*Record
	}{
		{"a read after a write sees it", Linearizable, Options{}, []*Record{w(0, 1, 2, a), r(1, 3, 4, a)}},
		{"a stale read after an answered write", Violated, Options{}, []*Record{w(0, 1, 2, a), r(1, 3, 4, Zeros)}},
		{"a read beside a write sees either", Linearizable, Options{}, []*Record{w(0, 1, 9, a), r(1, 3, 4, Zeros), r(1, 5, 6, a)}},
		{"reads go back in time", Violated, Options{}, []*Record{w(0, 1, 9, a), r(1, 3, 4, a), r(2, 5, 6, Zeros)}},
		{"an answered write that is lost", Violated, Options{}, []*Record{w(0, 1, 2, a), w(1, 3, 4, b), r(0, 5, 6, a)}},
		{"an unanswered write may appear late", Linearizable, Options{}, []*Record{w(0, 1, 0, a), w(1, 3, 4, b), r(1, 5, 6, b), r(1, 900, 901, a)}},
		{"an unanswered write may never appear", Linearizable, Options{}, []*Record{w(0, 1, 0, a), r(1, 900, 901, Zeros)}},
		{"an unanswered write of one copy is executed at most once", Violated, Options{},
			[]*Record{w(0, 1, 0, a, sent(1)), r(1, 3, 4, a), w(1, 5, 6, b), r(1, 7, 8, b), r(1, 9, 10, a)}},
		{"two copies are two executions", Linearizable, Options{},
			[]*Record{w(0, 1, 0, a, sent(1), sent(2)), r(1, 3, 4, a), w(1, 5, 6, b), r(1, 7, 8, b), r(1, 9, 10, a)}},
		{"a reservation closes what is open", Violated, Options{},
			[]*Record{closed(5, w(0, 1, 0, a)), r(1, 6, 7, Zeros), r(1, 8, 9, a)}},
		{"what the reservation met may have been executed", Linearizable, Options{},
			[]*Record{closed(5, w(0, 1, 0, a)), r(1, 6, 7, a), r(1, 8, 9, a)}},
		{"a failed write may have been executed", Linearizable, Options{}, []*Record{failed(w(0, 1, 2, a)), r(1, 3, 4, a)}},
		{"a failed write may not have been executed", Linearizable, Options{}, []*Record{failed(w(0, 1, 2, a)), r(1, 3, 4, Zeros)}},

		{"a late duplicate before its delivery is inherent", Linearizable, known,
			[]*Record{w(0, 1, 3, a, sent(1, 2), sent(2, 50)), w(1, 10, 12, b, sent(10, 11)), r(1, 20, 21, b), r(1, 60, 61, a)}},
		{"a late duplicate after its last delivery undoes a write", Violated, known,
			[]*Record{w(0, 1, 3, a, sent(1, 2), sent(2, 5)), w(1, 10, 12, b, sent(10, 11)), r(1, 20, 21, b), r(1, 60, 61, a)}},
		{"a duplicate that was lost is not executed", Violated, known,
			[]*Record{w(0, 1, 3, a, sent(1, 2), sent(2)), w(1, 10, 12, b, sent(10, 11)), r(1, 60, 61, a)}},
		{"a frame duplicated by the network", Linearizable, known,
			[]*Record{w(0, 1, 3, a, sent(1, 2, 30)), w(1, 10, 12, b, sent(10, 11)), r(1, 20, 21, b), r(1, 40, 41, a)}},
		{"answered though nothing was delivered", Violated, known, []*Record{w(0, 1, 3, a, sent(1))}},
		{"a copy's life is over", Violated, Options{CopyLifeNs: 20},
			[]*Record{w(0, 1, 3, a, sent(1), sent(2)), w(1, 10, 12, b, sent(10)), r(1, 30, 31, b), r(1, 60, 61, a)}},
		{"a copy's life is not over", Linearizable, Options{CopyLifeNs: 20},
			[]*Record{w(0, 1, 3, a, sent(1), sent(2)), w(1, 10, 12, b, sent(10)), r(1, 13, 14, b), r(1, 20, 61, a)}},
		{"one answered copy has no second life", Violated, Options{},
			[]*Record{w(0, 1, 3, a, sent(1)), w(1, 10, 12, b, sent(10)), r(1, 13, 14, a)}},

		{"damage", Violated, Options{}, []*Record{w(0, 1, 2, a), r(0, 3, 4, Damaged)}},
		{"a block of another place", Violated, Options{}, []*Record{w(0, 1, 2, a), r(0, 3, 4, Foreign)}},
		{"a value nobody wrote", Violated, Options{}, []*Record{w(0, 1, 2, a), r(0, 3, 4, b)}},
		{"a value from the future", Violated, Options{}, []*Record{r(0, 1, 2, a), w(0, 3, 4, a)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := Check(tc.recs, tc.opt)
			if res.Verdict != tc.want {
				t.Fatalf("%v, want %v (%v)", res.Verdict, tc.want, res.Violations)
			}
			if err := res.Err(); (err == nil) != (tc.want == Linearizable) {
				t.Errorf("Err() = %v", err)
			}
			if tc.want == Violated && (len(res.Violations) != 1 || res.Violations[0].LBA != 10 || res.Violations[0].Text == "") {
				t.Errorf("the violation is not explained: %+v", res.Violations)
			}
		})
	}
}

func TestCheckNamesTheFirstBadRead(t *testing.T) {
	var recs []*Record
	at := int64(0)
	for i := uint64(1); i <= 50; i++ {
		recs = append(recs, w(0, at+1, at+2, MakeValue(0, i)), r(1, at+3, at+4, MakeValue(0, i)))
		at += 10
	}
	recs[61].Values[0] = MakeValue(0, 30) // the 31st read is one write behind
	recs[81].Values[0] = MakeValue(0, 7)
	res := Check(recs, Options{})
	if res.Verdict != Violated || !strings.HasPrefix(res.Violations[0].Text, recs3(recs[61])) {
		t.Fatalf("%v: %v, want the read %s", res.Verdict, res.Violations, recs3(recs[61]))
	}
}

func recs3(rec *Record) string {
	e := event{read: true, value: rec.Values[0], fromNs: rec.CallNs, toNs: rec.ReturnNs, client: rec.Client}
	return e.String()
}

// A dumb model: a register that executes each copy of each write at a random
// moment of its life. Its histories must pass; with one old value put into a
// late read they must not.
func TestCheckAgreesWithAModel(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		recs := modelHistory(seed)
		opt := Options{DeliveriesKnown: true, SectorTimeout: 1e10}
		if res := Check(recs, opt); res.Verdict != Linearizable {
			t.Fatalf("seed %d: a real history is %v: %v %v", seed, res.Verdict, res.Violations, res.Unknown)
		}
		// A read that starts after everything has ended returns what a write
		// before the last answered ones left: a lost write.
		end := int64(1 << 40)
		recs = append(recs, w(9, end, end+1, MakeValue(9, 1), sent(end, end)), r(0, end+2, end+3, MakeValue(0, 1)))
		if res := Check(recs, opt); res.Verdict != Violated {
			t.Fatalf("seed %d: a lost write is %v", seed, res.Verdict)
		}
	}
}

// modelHistory runs 4 clients with 40 operations each against one register.
func modelHistory(seed uint64) []*Record {
	x := seed
	below := func(n uint64) int64 { x++; return int64(mix(x*7919) % n) }
	type effect struct {
		at  int64
		rec *Record
	}
	var recs []*Record
	var effects []effect
	for c := 0; c < 4; c++ {
		at := below(50)
		for i := uint64(1); i <= 40; i++ {
			rec := &Record{Client: c, LBA: 10, Sectors: 1, CallNs: at, Status: OK}
			rec.ReturnNs = at + 1 + below(40)
			if rec.Write = below(2) == 0 || i == 1; rec.Write {
				rec.Value = MakeValue(c, i)
				first := at + below(uint64(rec.ReturnNs-at))
				effects = append(effects, effect{first, rec})
				rec.Copies = append(rec.Copies, CopyRecord{LBA: 10, Sectors: 1, SentNs: at, DeliveredNs: []int64{first}})
				for below(4) == 0 { // late duplicates
					s := at + below(uint64(rec.ReturnNs-at))
					d := s + below(150)
					rec.Copies = append(rec.Copies, CopyRecord{LBA: 10, Sectors: 1, SentNs: s, DeliveredNs: []int64{d}})
					effects = append(effects, effect{d, rec})
				}
			} else {
				effects = append(effects, effect{at + below(uint64(rec.ReturnNs-at)), rec})
			}
			recs = append(recs, rec)
			at = rec.ReturnNs + 1 + below(20)
		}
	}
	value := Zeros
	for len(effects) > 0 { // in order of time
		k := 0
		for i := range effects {
			if effects[i].at < effects[k].at {
				k = i
			}
		}
		if rec := effects[k].rec; rec.Write {
			value = rec.Value
		} else {
			rec.Values = []Value{value}
		}
		effects = append(effects[:k], effects[k+1:]...)
	}
	return recs
}

func TestUnknownIsNoPass(t *testing.T) {
	// Many open writes that are all seen, in an impossible last order, with no
	// time to search.
	var recs []*Record
	for i := uint64(1); i <= 40; i++ {
		recs = append(recs, w(int(i), 1, 1000, MakeValue(int(i), 1)), r(100+int(i), 1, 1000, MakeValue(int(i), 1)))
	}
	recs = append(recs, r(0, 2000, 2001, MakeValue(1, 1)), r(0, 2002, 2003, MakeValue(2, 1)))
	res := Check(recs, Options{SectorTimeout: 1})
	if res.Verdict == Linearizable || res.Err() == nil {
		t.Fatalf("given no time, the verdict is %v", res.Verdict)
	}
}

func TestBlocks(t *testing.T) {
	p := make([]byte, 3*SectorBytes)
	v := MakeValue(3, 77)
	Fill(p, v, 500)
	for i := uint64(0); i < 3; i++ {
		b := p[i*SectorBytes:]
		if got := Parse(b, 500+i); got != v || got.Client() != 3 || got.Seq() != 77 {
			t.Errorf("sector %d parses as %v", i, got)
		}
		if got := Parse(b, 499+i); got != Foreign {
			t.Errorf("sector %d at another place parses as %v", i, got)
		}
	}
	for bit := 0; bit < SectorBytes*8; bit += 37 {
		p[bit/8] ^= 1 << (bit % 8)
		if got := Parse(p, 500); got != Damaged {
			t.Errorf("with bit %d flipped it parses as %v", bit, got)
		}
		p[bit/8] ^= 1 << (bit % 8)
	}
	if got := Parse(make([]byte, SectorBytes), 1); got != Zeros {
		t.Errorf("zeros parse as %v", got)
	}
}

func TestWorkloadIsDeterministicAndInRange(t *testing.T) {
	cfg := WorkloadConfig{BaseLBA: 1000, Sectors: 256, MaxSectors: 32, AlignTo: 8}
	x, y := NewWorkload(cfg, 2, 9), NewWorkload(cfg, 2, 9)
	seen := map[Value]bool{}
	writes := 0
	for i := 0; i < 5000; i++ {
		op := x.Next()
		if op != y.Next() {
			t.Fatal("the same seed gives other operations")
		}
		if op.LBA < 1000 || op.LBA+uint64(op.Sectors) > 1256 || op.Sectors < 1 || op.Sectors > 32 || op.LBA%8 != 0 || op.Sectors%8 != 0 {
			t.Fatalf("out of range: %+v", op)
		}
		if op.Write {
			writes++
			if seen[op.Value] {
				t.Fatalf("value %v twice", op.Value)
			}
			seen[op.Value] = true
		}
	}
	if writes < 2200 || writes > 2800 {
		t.Errorf("%d of 5000 are writes, want about half", writes)
	}
}
