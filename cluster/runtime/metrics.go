package runtime

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"clade/aoe/link"
	"clade/cluster"
)

// latencyBuckets are seconds, from a page cache's sync to a disk in trouble.
var latencyBuckets = []float64{20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1, 2, 5}

// metrics is what the runtime counts itself; everything else is looked up in the node when somebody asks.
type metrics struct {
	registry   *prometheus.Registry
	turnSecs   prometheus.Histogram
	lateSecs   prometheus.Histogram
	commitSecs prometheus.Histogram
	beatSecs   *prometheus.HistogramVec // by peer
	stepSecs   *prometheus.HistogramVec // by disk
	syncSecs   *prometheus.HistogramVec
	requests   *prometheus.CounterVec
	events     *prometheus.CounterVec
	sanErrors  prometheus.Counter
}

// eventNames are the values of the label "kind" of clade_events_total.
var eventNames = map[cluster.EventKind]string{
	cluster.EventBooted: "booted", cluster.EventTermEnded: "term_ended", cluster.EventLease: "lease", cluster.EventLeader: "leader",
	cluster.EventTakeover: "takeover", cluster.EventVolume: "volume", cluster.EventRaft: "raft", cluster.EventDecision: "decision",
	cluster.EventDropped: "dropped", cluster.EventDisk: "disk",
}

func newMetrics(r *Runtime) metrics {
	hist := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: latencyBuckets}
	}
	m := metrics{
		registry:   prometheus.NewRegistry(),
		turnSecs:   prometheus.NewHistogram(hist("clade_core_turn_seconds", "Duration of one turn of the core loop.")),
		lateSecs:   prometheus.NewHistogram(hist("clade_core_late_seconds", "How much later than it wanted the core loop was woken: a busy host.")),
		beatSecs:   prometheus.NewHistogramVec(hist("clade_peer_heartbeat_gap_seconds", "Time between two heartbeats of a peer: a busy host, here or there, or lost frames."), []string{"peer"}),
		commitSecs: prometheus.NewHistogram(hist("clade_raft_commit_seconds", "Duration of one durable write of the Raft log.")),
		stepSecs:   prometheus.NewHistogramVec(hist("clade_disk_step_seconds", "Duration of one batch of requests to a disk, without its sync."), []string{"disk"}),
		syncSecs:   prometheus.NewHistogramVec(hist("clade_disk_sync_seconds", "Duration of one sync of a disk."), []string{"disk"}),
		requests:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clade_disk_requests_total", Help: "Requests to a disk."}, []string{"disk"}),
		events:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clade_events_total", Help: "What has happened, by kind."}, []string{"kind"}),
		sanErrors:  prometheus.NewCounter(prometheus.CounterOpts{Name: "clade_san_errors_total", Help: "Errors of SAN interfaces besides link loss."}),
	}
	m.registry.MustRegister(m.turnSecs, m.lateSecs, m.beatSecs, m.commitSecs, m.stepSecs, m.syncSecs, m.requests, m.events, m.sanErrors,
		collectors.NewGoCollector(), &nodeCollector{r})
	return m
}

func (m *metrics) turn(ns int64)   { m.turnSecs.Observe(float64(ns) / 1e9) }
func (m *metrics) late(ns int64)   { m.lateSecs.Observe(float64(ns) / 1e9) }
func (m *metrics) commit(ns int64) { m.commitSecs.Observe(float64(ns) / 1e9) }
func (m *metrics) event(e *cluster.Event) {
	m.events.WithLabelValues(eventNames[e.Kind]).Inc()
}

// disk returns the counters of one disk.
func (m *metrics) disk(id string) diskStats {
	return diskStats{m.stepSecs.WithLabelValues(id), m.syncSecs.WithLabelValues(id), m.requests.WithLabelValues(id)}
}

// diskStats is what a disk's worker counts.
type diskStats struct {
	step, sync prometheus.Observer
	requests   prometheus.Counter
}

func (s *diskStats) stepped(requests int, ns int64) {
	s.requests.Add(float64(requests))
	s.step.Observe(float64(ns) / 1e9)
}

func (s *diskStats) synced(ns int64) { s.sync.Observe(float64(ns) / 1e9) }

// handler serves /metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// nodeCollector looks the node's counters up at each scrape.
type nodeCollector struct{ r *Runtime }

// Describe is empty: which metrics there are depends on the node.
func (c *nodeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var ms []prometheus.Metric
	if err := c.r.inspect(ctx, func(r *Runtime) { ms = r.collect() }); err != nil {
		return // stopping: nothing to tell
	}
	for _, m := range ms {
		out <- m
	}
}

func counter(name, help string, v float64, labels ...string) prometheus.Metric {
	return constant(prometheus.CounterValue, name, help, v, labels)
}

func gauge(name, help string, v float64, labels ...string) prometheus.Metric {
	return constant(prometheus.GaugeValue, name, help, v, labels)
}

// constant makes a metric; labels are names and values in turn.
func constant(t prometheus.ValueType, name, help string, v float64, labels []string) prometheus.Metric {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), t, v, values...)
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collect reads the node's counters. In the core's goroutine.
func (r *Runtime) collect() []prometheus.Metric {
	s := r.node.Stats()
	drop := func(why string, v uint64) prometheus.Metric {
		return counter("clade_frames_dropped_total", "SAN frames dropped or answers withheld, by reason.", float64(v), "reason", why)
	}
	op := func(kind string, v uint64) prometheus.Metric {
		return counter("clade_io_total", "Requests of initiators, by kind.", float64(v), "kind", kind)
	}
	out := []prometheus.Metric{
		counter("clade_frames_total", "SAN frames.", float64(s.FramesIn), "direction", "in"),
		counter("clade_frames_total", "SAN frames.", float64(s.FramesOut), "direction", "out"),
		drop("old", s.DropOld), drop("other", s.DropOther), drop("closed", s.DropClosed), drop("initiator", s.DropInitiator), drop("lease", s.DropLease),
		op("read", s.Reads), op("write", s.Writes), op("flush", s.Flushes), op("control", s.Controls),
		counter("clade_io_bytes_total", "Bytes read and written by initiators.", float64(s.ReadBytes), "kind", "read"),
		counter("clade_io_bytes_total", "Bytes read and written by initiators.", float64(s.WriteBytes), "kind", "write"),
		counter("clade_takeovers_total", "Volumes taken over by this node.", float64(s.Takeovers)),
		counter("clade_rolled_forward_total", "Writes of a former owner answered by this node.", float64(s.RolledForward)),
		counter("clade_peer_bad_total", "Malformed or senseless peer messages.", float64(s.BadPeer)),
		gauge("clade_raft_leader", "1 on the node that leads.", b2f(r.node.Group().IsLeader())),
		gauge("clade_raft_applied", "Index of the last applied entry.", float64(r.node.Group().Applied())),
	}
	out = append(out, r.collectVolumes()...)
	out = append(out, collectLatencies(r.node.Latencies())...)
	for _, p := range r.ports {
		if p.port == nil {
			continue
		}
		out = append(out, collectPort(strconv.Itoa(p.path), p.port.Stats(), p.dropJump)...)
	}
	for id, c := range r.conns {
		peer := strconv.FormatUint(uint64(id), 10)
		out = append(out,
			gauge("clade_peer_queue_bytes", "Bytes that wait to be sent to a peer.", float64(c.out.queued()), "peer", peer),
			counter("clade_peer_bytes_total", "Bytes exchanged with a peer on this connection.", float64(c.rxBytes.Load()), "peer", peer, "direction", "in"),
			counter("clade_peer_bytes_total", "Bytes exchanged with a peer on this connection.", float64(c.txBytes.Load()), "peer", peer, "direction", "out"))
	}
	return append(out, r.disks.metrics()...)
}

func collectPort(path string, s link.Stats, jump uint64) []prometheus.Metric {
	frames := func(dir, what string, v uint64) prometheus.Metric {
		return counter("clade_san_frames_total", "Frames of a SAN path, by direction and fate.", float64(v), "path", path, "direction", dir, "fate", what)
	}
	return []prometheus.Metric{
		frames("in", "ok", s.RxFrames), frames("in", "queue_full", s.RxDropped), frames("in", "bad", s.RxBad), frames("in", "clock_jump", jump),
		frames("out", "ok", s.TxFrames), frames("out", "queue_full", s.TxDropped), frames("out", "bad", s.TxBad),
		gauge("clade_san_queue_frames", "Frames of full size that the receive queue holds.", float64(s.RxQueueFrames), "path", path),
	}
}

// historyMax bounds the events that status can show.
const historyMax = 256

// history is the newest events, for status.
type history struct {
	mu   sync.Mutex
	ring []HistoryEvent
	at   int
}

// HistoryEvent is an event with its time.
type HistoryEvent struct {
	TimeMs int64  `json:"time_ms"` // CLOCK_REALTIME
	Kind   string `json:"kind"`
	Volume uint64 `json:"volume,omitempty"`
	Slot   uint8  `json:"slot,omitempty"`
	Epoch  uint64 `json:"epoch,omitempty"`
	Disk   uint32 `json:"disk,omitempty"`
	Peer   uint64 `json:"peer,omitempty"`
	Text   string `json:"text,omitempty"`
}

func (h *history) add(e *cluster.Event) {
	if e.Kind == cluster.EventRaft || e.Kind == cluster.EventDropped {
		return
	}
	x := HistoryEvent{TimeMs: realNs() / 1e6, Kind: eventNames[e.Kind], Volume: uint64(e.Volume), Slot: e.Slot, Epoch: uint64(e.Epoch),
		Disk: uint32(e.Disk), Peer: uint64(e.Node), Text: e.Text}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < historyMax {
		h.ring = append(h.ring, x)
		return
	}
	h.ring[h.at] = x
	h.at = (h.at + 1) % historyMax
}

// list returns the events, oldest first.
func (h *history) list() []HistoryEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(append([]HistoryEvent{}, h.ring[h.at:]...), h.ring[:h.at]...)
}

// collectVolumes returns the metrics of the volumes that this node serves. In the core's goroutine.
func (r *Runtime) collectVolumes() []prometheus.Metric {
	s := r.node.Status(bootNs())
	out := []prometheus.Metric{gauge("clade_lease_valid", "1 while this node may serve.", b2f(s.LeaseValid))}
	states := map[string]int{"healthy": 0, "degraded": 0, "suspended": 0, "down": 0}
	for _, v := range s.Volumes {
		states[v.Health]++
		if v.Owner != s.Self {
			continue
		}
		out = append(out, gauge("clade_volume_epoch", "Epoch of a volume served here.", float64(v.Epoch), "volume", v.Address),
			gauge("clade_volume_commit", "Commit point of a volume served here.", float64(v.Commit), "volume", v.Address),
			gauge("clade_volume_stale_disks", "Disks of a volume that are not in sync.", float64(len(v.Stale)), "volume", v.Address))
		for _, x := range v.Resync {
			disk := strconv.FormatUint(uint64(x.Disk), 10)
			out = append(out, gauge("clade_resync_done_mib", "What a resync has copied.", float64(x.Done), "volume", v.Address, "disk", disk),
				gauge("clade_resync_total_mib", "What a resync has to copy or compare.", float64(x.Total), "volume", v.Address, "disk", disk))
		}
	}
	for _, health := range []string{"healthy", "degraded", "suspended", "down"} {
		out = append(out, gauge("clade_volumes", "Volumes of the cluster, by health as this node sees it.", float64(states[health]), "health", health))
	}
	return out
}
