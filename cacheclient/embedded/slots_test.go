package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// slowServer has /good, and sends n bytes of any other file each 20 ms, for ever. It tells of each such body.
func slowServer(t *testing.T, n int) (url string, begun <-chan struct{}) {
	t.Helper()
	bodies := make(chan struct{}, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		if r.URL.Path == "/good" {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("content"))
			return
		}
		content := bytes.NewReader(make([]byte, 64<<20))
		if r.Method == http.MethodHead || r.Header.Get("Range") == "bytes=0-0" {
			http.ServeContent(w, r, "", time.Time{}, content)
			return
		}
		bodies <- struct{}{}
		http.ServeContent(&slowWriter{w, r.Context(), n}, r, "", time.Time{}, content)
	}))
	t.Cleanup(server.Close)
	return server.URL, bodies
}

// slowWriter writes some bytes at a time.
type slowWriter struct {
	http.ResponseWriter

	ctx context.Context //nolint:containedctx // of the request
	n   int
}

func (w *slowWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(p[:min(w.n, len(p))])
		written, p = written+m, p[m:]
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		select {
		case <-w.ctx.Done():
			return written, w.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return written, err
}

// TestSlowBodiesKeepNoOtherOut has bodies that drip, or that take long, hold all connections: a read of another file
// gets its bytes.
func TestSlowBodiesKeepNoOtherOut(t *testing.T) {
	for name, bytesEach := range map[string]int{"drip": 1, "long": 8 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, begun := slowServer(t, bytesEach)
			store, err := ufs.Open(t.Context(), url, ufs.Options{MaxConns: 2, Deferred: true})
			if err != nil {
				t.Fatal(err)
			}
			c := cacheOf(t, store, embedded.Config{
				Levels: tier(t.TempDir(), 256<<20), Connections: 2, Timeout: pace.Limit(time.Second),
			})
			ctx, cancel := context.WithCancel(t.Context())
			var readers sync.WaitGroup
			defer readers.Wait()
			defer cancel()
			for i := range 2 {
				info, err := c.Stat(t.Context(), fmt.Sprintf("slow%d", i))
				if err != nil {
					t.Fatal(err)
				}
				readers.Go(func() { _, _ = readVersion(ctx, c, info, 1<<20) })
				<-begun
			}
			good, err := c.Stat(t.Context(), "good")
			if err != nil {
				t.Fatal(err)
			}
			wait, end := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
			defer end()
			if got, err := readVersion(wait, c, good, 7); err != nil || string(got) != "content" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// readVersion reads the beginning of a version.
func readVersion(ctx context.Context, c *embedded.Cache, info cacheclient.Info, n int) ([]byte, error) {
	f, err := c.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	got := make([]byte, n)
	_, err = cacheclient.ReadAt(ctx, f, got, 0)
	return got, err
}

// TestWaitForAConnectionEnds has requests that end by nothing hold all connections: a read that waits for one fails.
func TestWaitForAConnectionEnds(t *testing.T) {
	s := newFakeStore()
	release, begun := make(chan struct{}), make(chan struct{}, 2)
	s.put("held", make([]byte, embedded.BlockSize), "1")
	s.put("good", []byte("content"), "1")
	s.opened = func(_ context.Context, info cacheclient.Info, data []byte) ([]byte, error) {
		if info.Path == "held" {
			begun <- struct{}{}
			<-release
		}
		return data, nil
	}
	c := cacheOf(t, s, embedded.Config{
		Levels: tier(t.TempDir(), 64<<20), Connections: 1,
		Timeout: 200 * time.Millisecond,
	})
	var reader sync.WaitGroup
	defer reader.Wait()
	defer close(release)
	held, err := c.Stat(t.Context(), "held")
	if err != nil {
		t.Fatal(err)
	}
	reader.Go(func() { _, _ = readVersion(t.Context(), c, held, 1000) })
	<-begun
	good, err := c.Stat(t.Context(), "good")
	if err != nil {
		t.Fatal(err)
	}
	wait, end := context.WithTimeout(t.Context(), pace.Limit(20*time.Second))
	defer end()
	_, err = readVersion(wait, c, good, 7)
	if !errors.Is(err, cacheclient.ErrUnavailable) || !strings.Contains(err.Error(), "all 1 connections are busy") {
		t.Errorf("%v", err)
	}
}
