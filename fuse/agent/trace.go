package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse"
)

const (
	// traceBuffer is how many events wait for a client that does not keep up; what comes after them is lost.
	traceBuffer = 4096
	// traceWrite is how long a client may leave its lines unread before it counts as gone.
	traceWrite = 30 * time.Second
	// slowestShown bounds the answer of slowestHandler.
	slowestShown = 32
)

// traceHandler streams events until the client goes or the server ends.
func (s *Server) traceHandler(w http.ResponseWriter, r *http.Request) error {
	mounts, prefix, err := s.chosen(r.URL.Query())
	if err != nil {
		return err
	}
	keep, err := traceFilter(r.URL.Query(), prefix)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	events := make(chan fuse.Event, traceBuffer)
	for _, m := range mounts {
		m.Trace(ctx, keep, events)
	}
	s.log.Info("tracing", "path", prefix, "mounts", len(mounts))
	streamTrace(ctx, w, events)
	s.log.Info("traced", "path", prefix)
	return nil
}

// streamTrace writes events line by line as they come. The header goes out first: a client that has it misses nothing.
func streamTrace(ctx context.Context, w http.ResponseWriter, events <-chan fuse.Event) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, control := json.NewEncoder(w), http.NewResponseController(w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	for err := control.Flush(); err == nil; {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			err = errors.Join(control.SetWriteDeadline(time.Now().Add(traceWrite)), out.Encode(traceEvent(e)))
			if err == nil && len(events) == 0 {
				err = control.Flush()
			}
		}
	}
}

func (s *Server) slowestHandler(w http.ResponseWriter, r *http.Request) error {
	mounts, prefix, err := s.chosen(r.URL.Query())
	if err != nil {
		return err
	}
	all := []TraceEvent{}
	for _, m := range mounts {
		for _, e := range m.Slowest() {
			if prefix == "" || Within(prefix, e.Path) {
				all = append(all, traceEvent(e))
			}
		}
	}
	slices.SortFunc(all, func(a, b TraceEvent) int { return cmp.Compare(b.LatencyNs, a.LatencyNs) })
	writeJSON(w, http.StatusOK, all[:min(len(all), slowestShown)])
	return nil
}

// chosen are the mounts that the query's path lies in, and the path as events show it; all mounts and "" where the
// query has none. A mount that cannot be traced is left out.
func (s *Server) chosen(query url.Values) (mounts []Mount, prefix string, err error) {
	mounts = s.list()
	if query.Get("path") != "" {
		m, rel, err := s.find(query.Get("path"))
		if err != nil {
			return nil, "", err
		}
		mounts, prefix = []Mount{m}, path.Join(m.Dir, rel)
	}
	return slices.DeleteFunc(mounts, func(m Mount) bool { return m.Trace == nil || m.Slowest == nil }), prefix, nil
}

// traceFilter is what the query wants to be told of, at and below prefix.
func traceFilter(query url.Values, prefix string) (func(fuse.Event) bool, error) {
	var ops []string
	if list := query.Get("op"); list != "" {
		ops = strings.Split(list, ",")
	}
	for _, op := range ops {
		if !slices.Contains(fuse.Ops(), op) {
			return nil, errStatus(http.StatusBadRequest, "op %q is not one of %s", op, strings.Join(fuse.Ops(), ", "))
		}
	}
	var slower time.Duration
	if text := query.Get("slower"); text != "" {
		var err error
		if slower, err = time.ParseDuration(text); err != nil || slower < 0 {
			return nil, errStatus(http.StatusBadRequest,
				"slower %q is not a time: accepted are numbers with a unit such as 10ms or 1.5s", text)
		}
	}
	return func(e fuse.Event) bool {
		return e.Took >= slower && (ops == nil || slices.Contains(ops, e.Op)) &&
			(prefix == "" || Within(prefix, e.Path))
	}, nil
}

// traceEvent is the event as the socket tells it.
func traceEvent(e fuse.Event) TraceEvent {
	t := TraceEvent{
		Time: e.Time.UTC(), Mount: e.Mount, Op: e.Op, Path: e.Path, Offset: e.Offset, Bytes: e.Bytes,
		LatencyNs: e.Took.Nanoseconds(), Source: e.Source, Reader: e.Reader, Dropped: e.Dropped,
	}
	if e.Errno != 0 {
		if t.Errno = unix.ErrnoName(e.Errno); t.Errno == "" {
			t.Errno = e.Errno.Error()
		}
	}
	return t
}
