package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Options are the limits of a server; the zero value has none.
type Options struct {
	// BytesPerSecond bounds the bodies of all connections together; 0 is unlimited.
	BytesPerSecond int64
	// PerConnBytesPerSecond bounds the bodies of each connection; 0 is unlimited. It holds for
	// connections accepted by Start; under another http.Server each request counts as one.
	PerConnBytesPerSecond int64
	// DelayPerRequest is waited before each response.
	DelayPerRequest time.Duration
}

// Stats are sums since the server was made.
type Stats struct {
	// Requests counts all requests, Heads those with the method HEAD, Lists those answered with a
	// directory or a redirect to one.
	Requests int64 `json:"requests"`
	Heads    int64 `json:"heads"`
	Lists    int64 `json:"lists"`
	// BodyBytes counts the bytes of file contents handed to the kernel, headers and listings
	// not included.
	BodyBytes int64 `json:"bodyBytes"`
}

// Sub is what happened between an earlier reading and this one.
func (s Stats) Sub(earlier Stats) Stats {
	return Stats{
		Requests:  s.Requests - earlier.Requests,
		Heads:     s.Heads - earlier.Heads,
		Lists:     s.Lists - earlier.Lists,
		BodyBytes: s.BodyBytes - earlier.BodyBytes,
	}
}

// Server serves one directory. It is an http.Handler, and listens by itself with Start.
type Server struct {
	root  *os.Root
	opts  Options
	total *rate.Limiter // nil without a limit

	requests, heads, lists, bodyBytes atomic.Int64

	// mu guards http.
	mu   sync.Mutex
	http *http.Server // nil while stopped
}

// New makes a server for the directory; symbolic links that leave it are not followed.
func New(dir string, opts Options) (*Server, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the directory to serve: %w", err)
	}
	return &Server{
		root:  root,
		opts:  opts,
		total: newLimiter(opts.BytesPerSecond),
	}, nil
}

// Start listens on the address ("127.0.0.1:0" picks a port) and serves until Stop. It returns
// the address it got, which a later Start may be given again.
func (s *Server) Start(addr string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return "", errors.New("the server runs already")
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return "", err
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connLimiter{}, newLimiter(s.opts.PerConnBytesPerSecond))
		},
	}
	// Serve ends with Stop, which closes the listener.
	go func(h *http.Server) { _ = h.Serve(l) }(s.http)
	return l.Addr().String(), nil
}

// Stop closes the listener and cuts every connection, as a crash would. It may be called when
// the server does not run.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http == nil {
		return nil
	}
	err := s.http.Close()
	s.http = nil
	return err
}

// Close is Stop, and lets go of the directory.
func (s *Server) Close() error {
	return errors.Join(s.Stop(), s.root.Close())
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Requests:  s.requests.Load(),
		Heads:     s.heads.Load(),
		Lists:     s.lists.Load(),
		BodyBytes: s.bodyBytes.Load(),
	}
}

// ServeHTTP answers GET and HEAD for every file and directory.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if r.Method == http.MethodHead {
		s.heads.Add(1)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "only GET and HEAD are served", http.StatusMethodNotAllowed)
		return
	}
	if !sleep(r.Context(), s.opts.DelayPerRequest) {
		return
	}
	switch {
	case s.serveFile(w, r):
	case s.serveDir(w, r):
		s.lists.Add(1)
	default:
		http.NotFound(w, r)
	}
}

// serveFile answers if the path is a regular file, and reports whether it was.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) bool {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" || strings.HasSuffix(name, "/") {
		return false
	}
	f, err := s.root.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	h := w.Header()
	h.Set("Etag", fmt.Sprintf(`"%x-%x"`, st.ModTime().UnixNano(), st.Size()))
	// Named, so that ServeContent need not read the file's beginning to guess it.
	h.Set("Content-Type", "application/octet-stream")
	http.ServeContent(s.sender(w, r), r, "", st.ModTime(), f)
	return true
}

// sleep waits, and reports whether the context outlived the wait.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
