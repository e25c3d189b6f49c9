package torture

import (
	"reflect"
	"testing"

	"clade/integration/lab"
)

func everything() lab.Spec {
	return lab.Spec{Nodes: 5, Layout: "3+2", SANPaths: 2, DiskFaults: true, SmallFS: 1, Slots: 3}
}

// TestPlanKeepsToItsBudget: never more nodes out at a time than the layout bears, nothing beside what hits all, and every kind
// comes up.
func TestPlanKeepsToItsBudget(t *testing.T) {
	for m := 1; m <= 2; m++ {
		p := newPlan(5, everything(), m)
		seen := map[Kind]int{}
		overlaps := 0
		for range 5000 {
			r := p.next()
			out := 0
			for _, a := range r.acts {
				seen[a.kind]++
				if a.out {
					out++
				}
				if a.all && len(r.acts) > 1 {
					t.Fatalf("%s beside another fault: %+v", a.kind, r)
				}
				if a.hold < holdMin || a.hold > holdMax || r.pause > pauseMax {
					t.Fatalf("beyond the bounds: %+v", r)
				}
			}
			if out > m {
				t.Fatalf("%d nodes out, %d parity: %+v", out, m, r)
			}
			if len(r.acts) > 1 {
				overlaps++
			}
			checkSteps(t, &r)
		}
		for _, k := range Kinds() {
			if seen[k] == 0 {
				t.Errorf("m=%d: %q never happens", m, k)
			}
		}
		if overlaps < 500 {
			t.Errorf("m=%d: %d of 5000 rounds have two faults", m, overlaps)
		}
	}
}

// checkSteps: each act begins once, ends once, and not before.
func checkSteps(t *testing.T, r *round) {
	t.Helper()
	begun, ended := map[int]bool{}, map[int]bool{}
	for _, s := range r.steps() {
		switch {
		case !s.end && !begun[s.act]:
			begun[s.act] = true
		case s.end && begun[s.act] && !ended[s.act]:
			ended[s.act] = true
		default:
			t.Fatalf("steps out of order: %+v", r.steps())
		}
	}
	if len(begun) != len(r.acts) || len(ended) != len(r.acts) {
		t.Fatalf("steps are missing: %+v of %+v", r.steps(), r.acts)
	}
}

func TestPlanFollowsFromItsSeed(t *testing.T) {
	rounds := func(seed uint64) []round {
		p := newPlan(seed, everything(), 2)
		var out []round
		for range 50 {
			out = append(out, p.next())
		}
		return out
	}
	if !reflect.DeepEqual(rounds(7), rounds(7)) {
		t.Error("the same seed makes two plans")
	}
	if reflect.DeepEqual(rounds(7), rounds(8)) {
		t.Error("two seeds make the same plan")
	}
}

// TestPlanLeavesOutWhatTheLabCannot: no path is cut where there is one only, no node is lost where none may be.
func TestPlanLeavesOutWhatTheLabCannot(t *testing.T) {
	p := newPlan(1, lab.Spec{Nodes: 3, SANPaths: 1, Slots: 1}, 0)
	for range 1000 {
		for _, a := range p.next().acts {
			if a.out || a.kind == CutSANPath {
				t.Fatalf("%q in a lab that does not bear it", a.kind)
			}
		}
	}
}
