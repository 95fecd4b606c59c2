package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
)

// fault is what the source does instead of answering a request for content.
type fault func(w http.ResponseWriter, r *http.Request, content http.HandlerFunc)

// source is a real web server over a directory that can be told to fail.
type source struct {
	dir  string
	srv  *httptest.Server
	sent atomic.Int64
	gets atomic.Int64
	// strong has it tell ETags.
	strong atomic.Bool
	mu     sync.Mutex
	fault  func(r *http.Request) fault // guarded by mu
}

func newSource(t *testing.T) *source {
	t.Helper()
	s := &source{dir: t.TempDir()}
	s.start(t, "127.0.0.1:0")
	return s
}

// start serves at an address, the former one after a stop.
func (s *source) start(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	s.srv.Start()
	t.Cleanup(s.stop)
}

func (s *source) stop() {
	s.srv.CloseClientConnections()
	s.srv.Close()
}

func (s *source) addr() string { return s.srv.Listener.Addr().String() }

func (s *source) setFault(f func(r *http.Request) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	files := http.FileServer(http.Dir(s.dir))
	if at, err := os.Stat(filepath.Join(s.dir, r.URL.Path)); err == nil && s.strong.Load() {
		w.Header().Set("ETag", fmt.Sprintf("%q", at.ModTime().Format(time.RFC3339Nano)))
	}
	// One byte is asked for once, to see whether HEAD tells what GET does: that is no read.
	if r.Method != http.MethodGet || strings.HasSuffix(r.URL.Path, "/") || r.Header.Get("Range") == "bytes=0-0" {
		files.ServeHTTP(w, r)
		return
	}
	s.gets.Add(1)
	content := func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(&countingWriter{ResponseWriter: w, n: &s.sent}, r)
	}
	s.mu.Lock()
	choose := s.fault
	s.mu.Unlock()
	if choose != nil {
		if f := choose(r); f != nil {
			f(w, r, content)
			return
		}
	}
	content(w, r)
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// heldWriter flushes, and then holds the handler until it may go on.
type heldWriter struct {
	http.ResponseWriter
	until <-chan struct{}
}

func (h *heldWriter) Flush() {
	_ = http.NewResponseController(h.ResponseWriter).Flush()
	<-h.until
}

// cutAfter lets n bytes of the body pass and breaks the connection.
func cutAfter(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, content http.HandlerFunc) {
		rec := httptest.NewRecorder()
		content(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
		_ = http.NewResponseController(w).Flush()
		if rec.Body.Len() > n {
			panic(http.ErrAbortHandler)
		}
	}
}

func status(code int, retryAfter string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, "no", code)
	}
}

// ignoreRange answers with the whole file.
func ignoreRange(w http.ResponseWriter, r *http.Request, content http.HandlerFunc) {
	r.Header.Del("Range")
	content(w, r)
}

// stall sends n bytes of the body and then nothing until the client goes; a body that has no more is sent whole.
func stall(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, content http.HandlerFunc) {
		rec := httptest.NewRecorder()
		content(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
		_ = http.NewResponseController(w).Flush()
		if rec.Body.Len() > n || rec.Body.Len() == 0 {
			<-r.Context().Done()
		}
	}
}

// trickle sends n bytes of the body, and then one now and then until the client goes.
func trickle(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, content http.HandlerFunc) {
		rec := httptest.NewRecorder()
		content(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		for body := rec.Body.Bytes(); len(body) > 0; n = 1 {
			_, _ = w.Write(body[:min(n, len(body))])
			body = body[min(n, len(body)):]
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
}

func (s *source) write(t *testing.T, name string, data []byte) {
	t.Helper()
	s.writeAt(t, name, data, time.Now().Add(-48*time.Hour))
}

func (s *source) writeAt(t *testing.T, name string, data []byte, mod time.Time) {
	t.Helper()
	p := filepath.Join(s.dir, name)
	if err := os.WriteFile(p+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(p+".new", mod, mod); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p+".new", p); err != nil {
		t.Fatal(err)
	}
}

// client opens a cache over the source.
func (s *source) client(t *testing.T, cfg embedded.Config) *embedded.Cache {
	t.Helper()
	store, err := ufs.Open(t.Context(), "http://"+s.addr()+"/", ufs.Options{ResponseTimeout: cfg.Timeout})
	if err != nil {
		t.Fatal(err)
	}
	c, err := embedded.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func tier(dir string, quota int64) []embedded.LevelConfig {
	return []embedded.LevelConfig{{Dir: dir, Quota: quota}}
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func open(t *testing.T, c cacheclient.Client, path string) cacheclient.File {
	t.Helper()
	info, err := c.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func readAll(ctx context.Context, f cacheclient.File) ([]byte, error) {
	var buf bytes.Buffer
	for off := int64(0); off < f.Info().Size; {
		d, err := f.Read(ctx, off, 1<<20)
		if err != nil {
			return buf.Bytes(), err
		}
		for _, p := range d.Parts {
			buf.Write(p)
		}
		off += int64(d.Len())
		if d.Len() == 0 {
			return buf.Bytes(), io.ErrUnexpectedEOF
		}
		d.Release()
	}
	return buf.Bytes(), nil
}

// readFile opens, reads and closes.
func readFile(t *testing.T, c cacheclient.Client, path string) []byte {
	t.Helper()
	info, err := c.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := readAll(t.Context(), f)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return got
}

func numbered(i int) string { return "f" + strconv.Itoa(i) }
