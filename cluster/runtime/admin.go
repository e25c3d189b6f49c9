package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"sync"
	"time"

	"clade/cluster"
	"clade/raid"
)

const (
	adminBodyMax  = 1 << 20
	adminTimeout  = 15 * time.Second
	statusTimeout = 3 * time.Second
)

// The admin API: HTTP with JSON, on a unix socket and where configured on TCP.
//
//	GET  /v1/status    Status
//	POST /v1/request   cluster.AdminRequest -> cluster.AdminReply
//	POST /v1/disk      DiskAddRequest -> DiskAddReply
//	POST /v1/fault     FaultRequest -> {} (labs only)
//	GET  /metrics      Prometheus
//	GET  /debug/pprof/
//
// What fails answers 4xx or 5xx with APIError.
const (
	PathStatus  = "/v1/status"
	PathRequest = "/v1/request"
	PathDisk    = "/v1/disk"
	PathFault   = "/v1/fault"
)

// APIError is the body of an answer that is not 200.
type APIError struct {
	Err     string `json:"err"`
	Refused bool   `json:"refused"` // nothing was done, and trying again alone will not help
}

// Status is cluster.Status with what only this node's process knows.
type Status struct {
	*cluster.Status
	NowMs      int64       `json:"now_ms"` // CLOCK_REALTIME
	Dir        string      `json:"dir"`
	Pid        int         `json:"pid"`
	StartedMs  int64       `json:"started_ms"`
	LocalDisks []LocalDisk `json:"local_disks"`
	// AttachGens are the disks' attach generations, which commands about a disk must name.
	AttachGens map[raid.DiskID]uint64 `json:"attach_gens"`
	SAN        []LocalPath            `json:"san"`
	SinceMs    map[string]int64       `json:"since_ms"` // Problem.Key -> since when this node has seen it
	Events     []HistoryEvent         `json:"events"`
}

// LocalPath is one of the node's SAN paths.
type LocalPath struct {
	Path      int    `json:"path"`
	Interface string `json:"interface"`        // as configured
	Device    string `json:"device,omitempty"` // the interface that it means now
	MTU       int    `json:"mtu"`
	Err       string `json:"err,omitempty"`
}

// adminServer serves the admin API.
type adminServer struct {
	r         *Runtime
	http      *http.Server
	listeners []net.Listener
	started   int64

	mu    sync.Mutex
	since map[string]int64 // Problem.Key -> CLOCK_REALTIME in ms
}

// SocketPath returns where a node's admin socket is.
func SocketPath(dir string, c Config) string {
	switch {
	case c.Admin.Socket == "":
		return filepath.Join(dir, socketFileName)
	case filepath.IsAbs(c.Admin.Socket):
		return c.Admin.Socket
	}
	return filepath.Join(dir, c.Admin.Socket)
}

func newAdminServer(r *Runtime) (*adminServer, error) {
	a := &adminServer{r: r, started: realNs() / 1e6, since: map[string]int64{}}
	path := SocketPath(r.opt.Dir, r.cfg)
	// The lock on the state file is ours, so a socket that is there is a dead process's.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runtime: admin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("runtime: admin socket (set admin.socket in %s to a shorter path if it is too long): %w", configFileName, err)
	}
	a.listeners = append(a.listeners, l)
	if err := os.Chmod(path, 0o600); err != nil {
		a.close()
		return nil, fmt.Errorf("runtime: admin socket: %w", err)
	}
	if r.cfg.Admin.TCP != "" {
		l, err := net.Listen("tcp", r.cfg.Admin.TCP)
		if err != nil {
			a.close()
			return nil, fmt.Errorf("runtime: admin.tcp: %w", err)
		}
		a.listeners = append(a.listeners, l)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathStatus, a.status)
	mux.HandleFunc("POST "+PathRequest, a.request)
	mux.HandleFunc("POST "+PathDisk, a.disk)
	if r.opt.FaultSocket {
		mux.HandleFunc("POST "+PathFault, a.fault)
	}
	mux.Handle("GET /metrics", r.stats.handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	a.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug)}
	return a, nil
}

func (a *adminServer) start() {
	for _, l := range a.listeners {
		a.r.wg.Go(func() {
			if err := a.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				a.r.log.Error("the admin API ended", "addr", l.Addr().String(), "err", err)
			}
		})
	}
}

func (a *adminServer) close() {
	if a.http != nil {
		_ = a.http.Close() // what is under way is cut off
	}
	for _, l := range a.listeners {
		_ = l.Close() // closed already when it was served
	}
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}

func refuse(w http.ResponseWriter, code int, err error) {
	answer(w, code, APIError{Err: err.Error(), Refused: code == http.StatusConflict || code == http.StatusBadRequest})
}

// read parses a body; it has answered already when it returns false.
func read(w http.ResponseWriter, req *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, req.Body, adminBodyMax))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("request: %w", err))
		return false
	}
	return true
}

// Status returns the cluster as this node sees it.
func (r *Runtime) Status(ctx context.Context) (*Status, error) {
	s := &Status{NowMs: realNs() / 1e6, Dir: r.opt.Dir, Pid: os.Getpid(), StartedMs: r.admin.started}
	err := r.inspect(ctx, func(r *Runtime) {
		s.Status = r.node.Status(bootNs())
		s.LocalDisks = r.disks.list()
		s.AttachGens = map[raid.DiskID]uint64{}
		for i := range r.node.State().Disks {
			d := &r.node.State().Disks[i]
			s.AttachGens[d.ID] = d.AttachGen
		}
		for _, p := range r.ports {
			x := LocalPath{Path: p.path, Interface: p.spec, Err: p.why}
			if p.port != nil {
				x.Device, x.MTU = p.port.Name(), p.port.MTU()
			}
			s.SAN = append(s.SAN, x)
		}
	})
	if err != nil {
		return nil, err
	}
	if s.Name == "" { // a new member that has not heard of the leader yet
		s.Name, s.Shelf, s.SectorCount = r.id.ClusterName, r.id.Shelf, r.id.SectorCount
	}
	// In JSON nothing is [], not null.
	if s.Volumes == nil {
		s.Volumes = []cluster.VolumeStatus{}
	}
	if s.Disks == nil {
		s.Disks = []cluster.DiskStatus{}
	}
	if s.Nodes == nil {
		s.Nodes = []cluster.NodeStatus{}
	}
	for _, d := range s.LocalDisks {
		if d.Err != "" {
			s.Problems = append(s.Problems, cluster.Problem{Key: "local-disk-" + d.Path, What: fmt.Sprintf("disk %s of this node: %s", d.Path, d.Err), Do: d.Do})
		}
	}
	for _, p := range s.SAN {
		if p.Err != "" {
			s.Problems = append(s.Problems, cluster.Problem{Key: fmt.Sprintf("local-san-%d", p.Path),
				What: fmt.Sprintf("SAN path %d (%s) of this node: %s", p.Path, p.Interface, p.Err), Do: "look at the interface: ip link"})
		}
	}
	if len(s.Problems) > 0 && s.Health == "healthy" {
		s.Health = "degraded"
	}
	s.SinceMs = r.admin.sinceWhen(s.Problems, s.NowMs)
	s.Events = r.history.list()
	return s, nil
}

// sinceWhen remembers when each problem was first seen.
func (a *adminServer) sinceWhen(problems []cluster.Problem, nowMs int64) map[string]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]int64, len(problems))
	for _, p := range problems {
		at, ok := a.since[p.Key]
		if seen := nowMs - p.AgeNs/1e6; !ok || p.AgeNs > 0 && seen < at {
			at = seen
		}
		out[p.Key] = at
	}
	a.since = out
	copied := make(map[string]int64, len(out))
	for k, v := range out {
		copied[k] = v
	}
	return copied
}

func (a *adminServer) status(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), statusTimeout)
	defer cancel()
	s, err := a.r.Status(ctx)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, http.StatusOK, s)
}

func (a *adminServer) request(w http.ResponseWriter, req *http.Request) {
	var q cluster.AdminRequest
	if !read(w, req, &q) {
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), adminTimeout)
	defer cancel()
	reply, err := a.r.Admin(ctx, q)
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, err)
	case reply.Err != "":
		refuse(w, http.StatusConflict, errors.New(reply.Err))
	default:
		answer(w, http.StatusOK, reply)
	}
}

func (a *adminServer) disk(w http.ResponseWriter, req *http.Request) {
	var q DiskAddRequest
	if !read(w, req, &q) {
		return
	}
	reply, err := a.r.AddDisk(req.Context(), q)
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		refuse(w, http.StatusConflict, err)
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		answer(w, http.StatusOK, reply)
	}
}
