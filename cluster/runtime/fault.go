package runtime

import (
	"errors"
	"fmt"
	"net/http"

	"clade/store"
)

// FaultRequest asks for faults in a disk of this node, for labs. Those that it does not name end.
type FaultRequest struct {
	Path  string `json:"path"`
	Read  bool   `json:"read"`  // reads fail
	Write bool   `json:"write"` // writes fail
	Sync  bool   `json:"sync"`  // syncs fail
	From  int64  `json:"from"`  // reads and writes that touch [From, To) only; To = 0: all
	To    int64  `json:"to"`
}

// errInjected is what a disk with an injected fault reports.
var errInjected = errors.New("injected fault")

// fault puts a wrapper around a disk that SetFault finds by its path.
func (r *Runtime) fault(path string, dev store.Device) store.Device {
	f := store.NewFaultDevice(dev)
	r.faultMu.Lock()
	defer r.faultMu.Unlock()
	if r.faults == nil {
		r.faults = map[string]*store.FaultDevice{}
	}
	r.faults[path] = f
	return f
}

// SetFault makes a disk fail, or end to fail.
func (r *Runtime) SetFault(q FaultRequest) error {
	r.faultMu.Lock()
	defer r.faultMu.Unlock()
	f := r.faults[q.Path]
	if f == nil {
		return fmt.Errorf("no disk %s that takes faults: is it open, and the node started with --fault-socket?", q.Path)
	}
	x := store.Faults{From: q.From, To: q.To}
	if q.Read {
		x.Read = errInjected
	}
	if q.Write {
		x.Write = errInjected
	}
	if q.Sync {
		x.Sync = errInjected
	}
	f.Set(x)
	return nil
}

func (a *adminServer) fault(w http.ResponseWriter, req *http.Request) {
	var q FaultRequest
	if !read(w, req, &q) {
		return
	}
	if err := a.r.SetFault(q); err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}
