package runtime

import (
	"errors"
	"net/http"
)

// FaultRequest asks for a fault in a disk, for labs.
type FaultRequest struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
}

func (a *adminServer) fault(w http.ResponseWriter, req *http.Request) {
	var q FaultRequest
	if !read(w, req, &q) {
		return
	}
	refuse(w, http.StatusNotImplemented, errors.New("no faults yet"))
}
