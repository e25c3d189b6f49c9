package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"

	"clade/aoe/initiator"
)

// Result is what a run has measured. Times are in microseconds, since that is what AoE is about; rates are per second.
type Result struct {
	Address    string `json:"address"`
	Op         string `json:"op"`
	SizeBytes  int    `json:"size_bytes"`
	Depth      int    `json:"depth"`                 // per initiator
	TotalDepth int    `json:"total_depth,omitempty"` // of all together, instead of Depth
	Initiators int    `json:"initiators"`
	Volumes    int    `json:"volumes"`
	Places     uint64 `json:"places,omitempty"` // the parts of the span that were used; 0: all
	Sequential bool   `json:"sequential"`
	SpanBytes  uint64 `json:"span_bytes"`

	Seconds float64 `json:"seconds"`
	Ops     uint64  `json:"ops"`
	Reads   uint64  `json:"reads"`
	Writes  uint64  `json:"writes"`
	IOPS    float64 `json:"iops"`
	MBps    float64 `json:"mb_per_s"` // 10^6 bytes

	Latency      Latency `json:"latency_us"`
	LongestGapUs float64 `json:"longest_gap_us"` // in which nothing was answered

	FramesSent uint64 `json:"frames_sent"`
	Resent     uint64 `json:"frames_resent"`
	Unexpected uint64 `json:"answers_unexpected"` // to what had been sent again or given up
	AoEErrors  uint64 `json:"aoe_errors"`

	ClientUsPerIO float64  `json:"client_cpu_us_per_io"`
	TargetUsPerIO float64  `json:"target_cpu_us_per_io"` // all of Targets together; 0 if none was named
	Targets       []Target `json:"targets,omitempty"`
	// Others is how many processors were busy with something else than this process and Targets: the kernel's own threads, and
	// whoever else disturbs. It means something only if all processes of the target were named.
	Others float64 `json:"others_processors"`
	// What the target made its disks read and write for an operation. Pages that were in memory already are not read.
	DiskReadPerIO  float64 `json:"disk_read_bytes_per_io"`
	DiskWritePerIO float64 `json:"disk_written_bytes_per_io"`
}

// Latency is from the submission of an operation to its last answer, in microseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// Target is one process of the target.
type Target struct {
	Pid     int     `json:"pid"`
	Name    string  `json:"name"`
	UsPerIO float64 `json:"cpu_us_per_io"`
	Share   float64 `json:"cpu_share"` // of one processor
}

func us(ns int64) float64 { return float64(ns) / 1e3 }

func (e *engine) result(t *tally, tookNs int64, warm, now initiator.Stats, before, after usage) *Result {
	c := &e.cfg
	seconds := float64(tookNs) / 1e9
	per := func(ns int64) float64 {
		if t.ops == 0 {
			return 0
		}
		return us(ns) / float64(t.ops)
	}
	r := &Result{Address: fmt.Sprintf("e%d.%d", c.Shelf, c.Slot), Op: c.Op.String(), SizeBytes: c.SizeBytes, Depth: c.Depth,
		TotalDepth: c.TotalDepth, Initiators: len(c.MACs), Volumes: len(c.volumes()), Sequential: c.Sequential, SpanBytes: e.spanBytes,
		Seconds: seconds, Ops: t.ops, Reads: t.reads, Writes: t.writes, IOPS: float64(t.ops) / seconds,
		MBps: float64(t.ops) * float64(c.SizeBytes) / seconds / 1e6,
		Latency: Latency{Mean: us(t.latency.MeanNs()), P50: us(t.latency.QuantileNs(0.5)), P90: us(t.latency.QuantileNs(0.9)),
			P99: us(t.latency.QuantileNs(0.99)), P999: us(t.latency.QuantileNs(0.999)), Max: us(t.latency.MaxNs())},
		LongestGapUs: us(t.gapNs),
		FramesSent:   now.FramesSent - warm.FramesSent, Resent: now.Resent - warm.Resent,
		Unexpected: now.Unexpected - warm.Unexpected, AoEErrors: now.AoEErrors - warm.AoEErrors,
		ClientUsPerIO: per(after.clientNs - before.clientNs)}
	if e.strideBytes > 0 {
		r.Places = e.spanBytes / uint64(c.SizeBytes)
	}
	if n := len(c.Also); n > 0 {
		r.Address += fmt.Sprintf(" and %d more", n)
	}
	othersNs := after.busyNs - before.busyNs - (after.clientNs - before.clientNs)
	for i, a := range after.targets {
		b := &before.targets[i]
		ns := a.ns - b.ns
		othersNs -= ns
		if t.ops > 0 {
			r.DiskReadPerIO += float64(a.readBytes-b.readBytes) / float64(t.ops)
			r.DiskWritePerIO += float64(a.writeBytes-b.writeBytes) / float64(t.ops)
		}
		r.TargetUsPerIO += per(ns)
		r.Targets = append(r.Targets, Target{Pid: a.pid, Name: a.name, UsPerIO: per(ns), Share: float64(ns) / float64(tookNs)})
	}
	r.Others = float64(max(othersNs, 0)) / float64(tookNs)
	return r
}

// Title says what was measured in a few words.
func (r *Result) Title() string {
	pattern := "random"
	if r.Sequential {
		pattern = "sequential"
	}
	depth := fmt.Sprintf("depth %d", r.Depth)
	if r.TotalDepth > 0 {
		depth = fmt.Sprintf("depth %d in all", r.TotalDepth)
	}
	title := fmt.Sprintf("%s %s %s, %s", humanize.IBytes(uint64(r.SizeBytes)), pattern, r.Op, depth)
	if r.Initiators > 1 {
		title += fmt.Sprintf(", %d initiators", r.Initiators)
	}
	if r.Volumes > 1 {
		title += fmt.Sprintf(", %d volumes", r.Volumes)
	}
	return title
}

// WriteText writes the result for people.
func (r *Result) WriteText(w io.Writer) {
	took := func(us float64) string { return roundTime(time.Duration(us * 1e3)).String() }
	fmt.Fprintf(w, "%s: %s, over %s for %.1f s\n", r.Address, r.Title(), humanize.IBytes(r.SpanBytes), r.Seconds)
	fmt.Fprintf(w, "  rate         %s IOPS, %.1f MB/s\n", humanize.Comma(int64(r.IOPS+0.5)), r.MBps)
	if r.Op == Mixed.String() {
		fmt.Fprintf(w, "  of these     %s reads, %s writes\n", humanize.Comma(int64(r.Reads)), humanize.Comma(int64(r.Writes)))
	}
	l := &r.Latency
	fmt.Fprintf(w, "  latency      p50 %s, p90 %s, p99 %s, p99.9 %s, max %s, mean %s\n", took(l.P50), took(l.P90), took(l.P99), took(l.P999), took(l.Max), took(l.Mean))
	fmt.Fprintf(w, "  longest gap  %s without any answer\n", took(r.LongestGapUs))
	fmt.Fprintf(w, "  frames       %s sent, %s of them again; %s answers too late\n", humanize.Comma(int64(r.FramesSent)), humanize.Comma(int64(r.Resent)), humanize.Comma(int64(r.Unexpected)))
	fmt.Fprintf(w, "  CPU per I/O  client %.1f µs", r.ClientUsPerIO)
	if len(r.Targets) > 0 {
		fmt.Fprintf(w, ", target %.1f µs; others kept %.2f processors busy", r.TargetUsPerIO, r.Others)
	}
	fmt.Fprintln(w)
	if r.DiskReadPerIO > 0 || r.DiskWritePerIO > 0 {
		fmt.Fprintf(w, "  disk per I/O %s read, %s written\n", humanize.IBytes(uint64(r.DiskReadPerIO)), humanize.IBytes(uint64(r.DiskWritePerIO)))
	}
	for _, t := range r.Targets {
		fmt.Fprintf(w, "    %-8d %-16s %.1f µs, %.0f %% of a processor\n", t.Pid, t.Name, t.UsPerIO, 100*t.Share)
	}
}

// roundTime leaves three digits.
func roundTime(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}
