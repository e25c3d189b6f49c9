package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func w(start, end int64, v uint64) linOp {
	return linOp{start: start, end: end, write: true, value: v, label: "w"}
}
func r(start, end int64, v uint64) linOp { return linOp{start: start, end: end, value: v, label: "r"} }
func opt(o linOp) linOp                  { o.optional = true; return o }

func TestLinearize(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []linOp
		bad  bool
	}{
		{"nothing", nil, false},
		{"zeros before any write", []linOp{r(0, 1, 0)}, false},
		{"read your write", []linOp{w(0, 1, 1), r(2, 3, 1)}, false},
		{"acknowledged write lost", []linOp{w(0, 1, 1), r(2, 3, 0)}, true},
		{"concurrent read sees either", []linOp{w(0, 9, 1), r(1, 2, 0), r(3, 4, 1)}, false},
		{"concurrent read goes back", []linOp{w(0, 9, 1), r(1, 2, 1), r(3, 4, 0)}, true},
		{"an unanswered write may appear late", []linOp{opt(w(0, forever, 1)), r(5, 6, 0), r(7, 8, 1)}, false},
		{"but not disappear again", []linOp{opt(w(0, forever, 1)), r(5, 6, 1), r(7, 8, 0)}, true},
		{"late copy undoes a newer write while it may", []linOp{w(0, 1, 1), opt(w(0, 10, 1)), w(2, 3, 2), r(4, 5, 2), r(6, 7, 1)}, false},
		{"late copy after its end", []linOp{w(0, 1, 1), opt(w(0, 3, 1)), w(4, 5, 2), r(6, 7, 1)}, true},
		{"one copy, one execution", []linOp{opt(w(0, 20, 1)), w(2, 3, 2), r(4, 5, 1), w(6, 7, 2), r(8, 9, 1)}, true},
		{"a write that must have happened between", []linOp{w(0, 9, 1), w(1, 8, 2), r(10, 11, 1), r(12, 13, 2)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if why := linearize(0, c.ops); (why != "") != c.bad {
				t.Errorf("got %q, bad wanted: %v", why, c.bad)
			}
		})
	}
}

func TestLinearizeUnknownIsNoPass(t *testing.T) {
	var ops []linOp
	for i := range linOpenMax + 1 {
		ops = append(ops, opt(w(0, forever, uint64(i+1))), r(10, 20, uint64(i+1)))
	}
	if why := linearize(0, ops); !strings.HasPrefix(why, "unknown") {
		t.Fatalf("got %q", why)
	}
}

// TestLinearizeDecidesWhatManyClientsDo: many writes open at once, most of them never read, with copies that may come late.
func TestLinearizeDecidesWhatManyClientsDo(t *testing.T) {
	for _, bad := range []bool{false, true} {
		var ops []linOp
		at := int64(0)
		for round := range 50 {
			for i := range 40 {
				v := uint64(round*100 + i + 1)
				ops = append(ops, w(at+int64(i), at+100, v), opt(w(at+int64(i), forever, v)))
			}
			seen := uint64(round*100 + 8)
			ops = append(ops, r(at+100, at+101, seen), r(at+102, at+103, seen))
			at += 200
		}
		if bad {
			ops = append(ops, w(at, at+1, 1_000_000), r(at+2, at+3, 999_999))
		}
		why := linearize(0, ops)
		if strings.HasPrefix(why, "unknown") || (why != "") != bad {
			t.Fatalf("bad %v: %.200s", bad, why)
		}
	}
}

// TestLinearizeAgainstBruteForce compares with trying all orders of small histories.
func TestLinearizeAgainstBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	bad := 0
	for n := range 60000 {
		var ops []linOp
		for i := range 1 + rnd.IntN(6+n%2) {
			start := int64(rnd.IntN(12))
			o := linOp{start: start, end: start + int64(rnd.IntN(8)), write: rnd.IntN(2) == 0, value: uint64(rnd.IntN(3)), label: "x"}
			o.optional = o.write && rnd.IntN(3) == 0
			if o.write {
				o.value = uint64(i%(3+n%3) + 1)
			} else if n%3 == 2 {
				o.value = uint64(rnd.IntN(5))
			}
			ops = append(ops, o)
		}
		want := bruteForce(ops, 0, 0, 0)
		if got := linearize(0, ops) == ""; got != want {
			t.Fatalf("linearize says %v, all orders say %v: %v %q", got, want, raw(ops), linearize(0, ops))
		}
		if !want {
			bad++
		}
	}
	if bad < 6000 || bad > 54000 {
		t.Errorf("only one answer exercised: %d bad of 60000", bad)
	}
}

// bruteForce: is there an order of the operations not in done, from value, that respects real time?
func bruteForce(ops []linOp, done uint, value uint64, depth int) bool {
	if depth == len(ops) {
		return true
	}
	for i, o := range ops {
		if done>>i&1 == 1 {
			continue
		}
		first := true
		for j, p := range ops {
			if done>>j&1 == 0 && j != i && p.end < o.start {
				first = false
			}
		}
		if !first {
			continue
		}
		n := done | 1<<i
		if o.optional && bruteForce(ops, n, value, depth+1) {
			return true
		}
		if o.write && bruteForce(ops, n, o.value, depth+1) {
			return true
		}
		if !o.write && o.value == value && bruteForce(ops, n, value, depth+1) {
			return true
		}
	}
	return false
}

// raw shows operations with their times as they are.
func raw(ops []linOp) string {
	var b strings.Builder
	for _, o := range ops {
		fmt.Fprintf(&b, "{%d %d write %v %d optional %v} ", o.start, o.end, o.write, o.value, o.optional)
	}
	return b.String()
}
