package agent

import (
	"net/http"
	"slices"

	"millrace.io/millrace/fuse/handover"
)

// setLost replaces the pods that have to be restarted, as the driver knows them.
func (s *Server) setLost(pods []handover.LostPod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = pods
}

// lostHandler tells of the pods that have to be restarted, since they began with a mount that no process serves any
// more.
func (s *Server) lostHandler(w http.ResponseWriter, _ *http.Request) error {
	s.mu.RLock()
	pods := slices.Clone(s.lost)
	s.mu.RUnlock()
	if pods == nil {
		pods = []handover.LostPod{}
	}
	writeJSON(w, http.StatusOK, pods)
	return nil
}
