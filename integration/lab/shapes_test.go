package lab

import (
	"testing"
	"time"
)

// TestShapes: each shape serves, m of its nodes die one after another under load, every answer is that of one disk, and the
// nodes come back into it without anybody telling them how.
func TestShapes(t *testing.T) {
	for _, c := range []struct {
		name      string
		spec      Spec
		tolerates int
	}{
		{"2+1 on 3", Spec{Nodes: 3, Layout: "2+1"}, 1},
		{"1+1 on 2 and a witness", Spec{Nodes: 2, Layout: "1+1", Witnesses: 1}, 1},
		{"3+2 on 5", Spec{Nodes: 5, Layout: "3+2"}, 2},
		{"4+2 on 6", Spec{Nodes: 6, Layout: "4+2"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.spec)
			h := openHost(t, l)
			for range rounds(1, 10) {
				loseAndReturn(t, l, h, c.tolerates)
			}
		})
	}
}

func loseAndReturn(t *testing.T, l *Lab, h *Host, tolerates int) {
	t.Helper()
	must(t, clearRange(h, l))
	v := startLoad(t, h, l, 1, nil)
	v.progress(300)
	var dead []string
	for i := range tolerates {
		name := owner(t, l, 1)
		fault := FaultKill
		if i%2 == 1 {
			fault = FaultKillAll // nobody proves this one
		}
		t.Logf("%s %s, which serves", fault, name)
		must(t, l.Do(fault, name))
		must(t, l.AwaitExit(name, 10*time.Second))
		dead = append(dead, name)
		v.progress(300)
	}
	for _, name := range dead {
		must(t, l.Do(FaultRestart, name))
	}
	healthyAgain(t, l)
	v.progress(100)
	v.stop()
}
