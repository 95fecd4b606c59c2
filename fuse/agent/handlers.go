package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"os"
	"path"
	"strings"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// maxBody is the largest request body in bytes; a path is at most 4096.
	maxBody = 64 << 10
	// usersShown is how many processes a sentence about a busy mount names.
	usersShown = 3
)

// route is one line of the table that handler serves.
type route struct {
	method, path string
	handle       func(http.ResponseWriter, *http.Request) error
}

func (s *Server) routes() []route {
	return []route{
		{http.MethodGet, pathMounts, s.mountsHandler},
		{http.MethodGet, pathBlocks, s.blocksHandler},
		{http.MethodGet, pathTrace, s.traceHandler},
		{http.MethodGet, pathSlowest, s.slowestHandler},
		{http.MethodGet, pathLost, s.lostHandler},
		{http.MethodPost, pathWarm, s.warmHandler},
		{http.MethodPost, pathFree, s.freeHandler},
		{http.MethodPost, pathUnmount, s.unmountHandler},
		{http.MethodGet, pathHealth, s.healthHandler},
		{http.MethodGet, pathMetrics, plain(metricsHandler(s.list))},
		{http.MethodGet, pathPprof + "cmdline", plain(http.HandlerFunc(pprof.Cmdline))},
		{http.MethodGet, pathPprof + "profile", plain(http.HandlerFunc(pprof.Profile))},
		{http.MethodGet, pathPprof + "symbol", plain(http.HandlerFunc(pprof.Symbol))},
		{http.MethodGet, pathPprof + "trace", plain(http.HandlerFunc(pprof.Trace))},
	}
}

// plain makes a route of a handler that writes its own errors.
func plain(h http.Handler) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

// handler is the whole API: callers that may ask, what exists, and errors as JSON.
func (s *Server) handler() http.Handler {
	table := map[string]route{}
	for _, rt := range s.routes() {
		table[rt.path] = rt
	}
	serve := func(w http.ResponseWriter, r *http.Request) error {
		if err := admit(r); err != nil {
			return err
		}
		rt, ok := table[r.URL.Path]
		if !ok && strings.HasPrefix(r.URL.Path, pathPprof) {
			rt, ok = route{method: http.MethodGet, handle: plain(http.HandlerFunc(pprof.Index))}, true
		}
		if !ok {
			return errStatus(http.StatusNotFound, "there is no %s here", r.URL.Path)
		}
		if r.Method != rt.method && (r.Method != http.MethodHead || rt.method != http.MethodGet) {
			w.Header().Set("Allow", rt.method)
			return errStatus(http.StatusMethodNotAllowed, "%s takes %s, not %s", r.URL.Path, rt.method, r.Method)
		}
		return rt.handle(w, r)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			s.log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "error", err)
			writeJSON(w, statusOf(err), ErrorAnswer{Error: err.Error()})
		}
	})
}

// admit lets in the user that owns the process and root, and no browser.
func admit(r *http.Request) error {
	if err := checkPeer(r.Context()); err != nil {
		return err
	}
	for _, h := range []string{"Origin", "Referer"} {
		if r.Header.Get(h) != "" {
			return errStatus(http.StatusForbidden, "requests with the header %s are refused: they come from a browser",
				h)
		}
	}
	return nil
}

func (s *Server) mountsHandler(w http.ResponseWriter, _ *http.Request) error {
	all := []MountStatus{}
	s.mu.RLock()
	socket := s.socket
	s.mu.RUnlock()
	for _, m := range s.list() {
		st := statusOfMount(m)
		st.Socket = socket
		all = append(all, st)
	}
	writeJSON(w, http.StatusOK, all)
	return nil
}

// statusOfMount asks the mount's client and session, which answer from memory.
func statusOfMount(m Mount) MountStatus {
	counters, capacity := m.Client.Counters(), m.Client.Capacity()
	session := m.Stats()
	condition := ConditionOf(session, capacity, counters)
	var keeper *Keeper
	if m.Keeper != nil {
		keeper = m.Keeper()
	}
	return MountStatus{
		Dir: m.Dir, Source: m.Source, Name: m.Name,
		State: StateServing, PID: os.Getpid(), Started: m.Started.UTC().Truncate(time.Second),
		Condition: &condition, Counters: &counters, Capacity: &capacity, Session: &session, Keeper: keeper,
	}
}

func (s *Server) blocksHandler(w http.ResponseWriter, r *http.Request) error {
	if !r.URL.Query().Has("path") {
		return errStatus(http.StatusBadRequest, "%s needs ?path=, a file in a mount", pathBlocks)
	}
	m, rel, err := s.find(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	blocks, err := m.Client.Blocks(r.Context(), rel)
	if errors.Is(err, cacheclient.ErrIsDir) {
		return errStatus(http.StatusBadRequest, "%s is a directory; accepted is a file in a mount",
			r.URL.Query().Get("path"))
	}
	if err != nil {
		return fmt.Errorf("blocks of %s: %w", rel, err)
	}
	for i := range blocks {
		if blocks[i].Where == nil {
			blocks[i].Where = []string{}
		}
	}
	if blocks == nil {
		blocks = []cacheclient.Block{}
	}
	writeJSON(w, http.StatusOK, blocks)
	return nil
}

func (s *Server) freeHandler(w http.ResponseWriter, r *http.Request) error {
	var req FreeRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	m, rel, err := s.find(req.Path)
	if err != nil {
		return err
	}
	freed, err := m.Client.Free(r.Context(), rel)
	if err != nil {
		return fmt.Errorf("free %s: %w", req.Path, err)
	}
	s.log.Info("freed", "mount", m.Dir, "path", rel, "bytes", freed)
	writeJSON(w, http.StatusOK, FreeAnswer{Freed: freed})
	return nil
}

func (s *Server) unmountHandler(w http.ResponseWriter, r *http.Request) error {
	var req UnmountRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	m, rel, err := s.find(req.Dir)
	if err != nil {
		return err
	}
	if rel != "" {
		return errStatus(http.StatusBadRequest, "%s is inside the mount %s, not a mount", req.Dir, m.Dir)
	}
	if err := m.Unmount(req.Force); err != nil {
		if errors.Is(err, mountpoint.ErrBusy) {
			return errStatus(http.StatusConflict, "%s", BusySentence(m.Dir, Users(m.Dir, usersShown)))
		}
		return fmt.Errorf("unmount %s: %w", m.Dir, err)
	}
	writeJSON(w, http.StatusOK, UnmountAnswer{Dir: m.Dir})
	return nil
}

func (s *Server) healthHandler(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, Health{Status: "ok", Mounts: len(s.list())})
	return nil
}

// find gives the mount that a PATH of the API belongs to, and the path in it as a
// cacheclient wants it.
func (s *Server) find(p string) (Mount, string, error) {
	mounts := s.list()
	if strings.ContainsRune(p, 0) {
		return Mount{}, "", errStatus(http.StatusBadRequest, "the path %q has a zero byte", p)
	}
	if !path.IsAbs(p) {
		if len(mounts) != 1 {
			return Mount{}, "", errStatus(http.StatusBadRequest,
				"the path %q must be absolute: this process serves %d mounts", p, len(mounts))
		}
		return mounts[0], relative(p), nil
	}
	var best Mount
	for _, m := range mounts {
		if Within(m.Dir, path.Clean(p)) && len(m.Dir) > len(best.Dir) {
			best = m
		}
	}
	if best.Dir == "" {
		return Mount{}, "", errStatus(http.StatusNotFound, "%s is in no mount that this process serves", p)
	}
	return best, relative(strings.TrimPrefix(path.Clean(p), best.Dir)), nil
}

// relative is p below a root, without leaving it; "" is the root.
func relative(p string) string {
	return strings.TrimPrefix(path.Clean("/"+p), "/")
}

// Within reports whether the clean path p is dir or below it.
func Within(dir, p string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// readJSON decodes a body; an empty one is the zero value.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return errStatus(http.StatusBadRequest, "the body of %s is not what it takes: %w", r.URL.Path, err)
	}
	if d.More() {
		return errStatus(http.StatusBadRequest, "the body of %s has more than one JSON object", r.URL.Path)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that has gone cannot be told so.
	_ = json.NewEncoder(w).Encode(v)
}
