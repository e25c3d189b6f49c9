package runtime

import (
	"io"
	"net/http/httptest"
	"regexp"
	"strconv"
	"testing"
	"time"
)

func TestMetricsSayWhatTheOwnerDid(t *testing.T) {
	l := newLab(t, 3, 3)
	l.withDisks(3)
	l.create(1, layout21, 8<<20)
	data := pattern(1<<20, 1)
	if err := l.open(1).WriteAt(l.within(20*time.Second), data, 0); err != nil {
		t.Fatal(err)
	}
	owner := l.nodes[volumeIn(l.nodes[0].status(), 1).Owner-1]
	w := httptest.NewRecorder()
	owner.r.stats.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v: %s", w.Code, err, text)
	}
	value := func(metric string) float64 {
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(metric) + ` (\S+)$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in:\n%s", metric, text)
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	writes := value(`clade_io_total{kind="write"}`)
	if writes < 1 || value(`clade_io_bytes_total{kind="write"}`) < float64(len(data)) {
		t.Errorf("%v writes are counted for %d bytes", writes, len(data))
	}
	if n := value(`clade_io_seconds_count{kind="write"}`); n < 1 || n > writes {
		t.Errorf("%v latencies of %v writes", n, writes)
	}
	if sum := value(`clade_io_seconds_sum{kind="write"}`); sum <= 0 {
		t.Errorf("the writes took %v s", sum)
	}
	peer := strconv.Itoa(int(owner.r.id.Node)%3 + 1)
	if n, sum := value(`clade_peer_heartbeat_gap_seconds_count{peer="`+peer+`"}`), value(`clade_peer_heartbeat_gap_seconds_sum{peer="`+peer+`"}`); n < 1 || sum <= 0 {
		t.Errorf("%v gaps of %v s between the heartbeats of node %s", n, sum, peer)
	}
	if value("clade_lease_valid") != 1 {
		t.Error("the owner holds no lease")
	}
}
