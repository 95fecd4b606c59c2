package serve_test

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
)

// start serves a new directory with the files given by name and content.
func start(t *testing.T, opts serve.Options, files map[string][]byte) (*serve.Server, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := serve.New(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	addr, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return s, addr
}

// get asks for a path, with a Range header where one is given.
func get(t *testing.T, method, addr, path, ranges string) (*http.Response, []byte) {
	t.Helper()
	u := url.URL{Scheme: "http", Host: addr, Path: path}
	req, err := http.NewRequestWithContext(t.Context(), method, u.String(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestEveryFileIsServed(t *testing.T) {
	names := []string{
		"index.html", "a b/100%.txt", "d/index.html", "-x", "q?#&;=.txt", "ünï/日本", "colon:x", "empty",
		"e/index.html/inside",
	}
	files := map[string][]byte{}
	for _, n := range names {
		files[n] = []byte("content of " + n)
	}
	files["empty"] = nil
	_, addr := start(t, serve.Options{}, files)
	for name, want := range files {
		resp, body := get(t, http.MethodGet, addr, "/"+name, "")
		if resp.StatusCode != http.StatusOK || string(body) != string(want) {
			t.Errorf("%q: status %d, body %q", name, resp.StatusCode, body)
		}
		if resp.Header.Get("Etag") == "" || resp.Header.Get("Last-Modified") == "" {
			t.Errorf("%q: no ETag or no Last-Modified", name)
		}
	}
	listings := map[string]string{
		"/":             `<a href="index.html">`,
		"/d":            `<a href="index.html">`,
		"/d/":           `<a href="index.html">`,
		"/e":            `<a href="index.html/">`,
		"/e/index.html": `<a href="inside">`,
		"/a b/":         `<a href="100%25.txt">`,
	}
	for dir, want := range listings {
		resp, body := get(t, http.MethodGet, addr, dir, "")
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("listing of %q: status %d, body %s", dir, resp.StatusCode, body)
		}
	}
	if resp, _ := get(t, http.MethodGet, addr, "/no such", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a missing file: status %d", resp.StatusCode)
	}
}

func TestCountersAreExact(t *testing.T) {
	content := make([]byte, 9<<20+17)
	_, _ = rand.Read(content)
	for name, opts := range map[string]serve.Options{
		"unlimited": {},
		"limited":   {BytesPerSecond: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			s, addr := start(t, opts, map[string][]byte{"f": content})
			if _, body := get(t, http.MethodGet, addr, "/f", ""); string(body) != string(content) {
				t.Error("the body is not the file")
			}
			if _, body := get(t, http.MethodGet, addr, "/f",
				"bytes=4194300-4194399"); string(body) != string(content[4194300:4194400]) {
				t.Error("the range is not the file's")
			}
			get(t, http.MethodHead, addr, "/f", "")
			get(t, http.MethodGet, addr, "/", "")
			want := serve.Stats{Requests: 4, Heads: 1, Lists: 1, BodyBytes: int64(len(content)) + 100}
			if got := s.Stats(); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	const size = 4 << 20
	files := map[string][]byte{"f": make([]byte, size)}
	tests := map[string]struct {
		opts    serve.Options
		streams int
		want    time.Duration
	}{
		"total":          {serve.Options{BytesPerSecond: 16 << 20}, 2, 500 * time.Millisecond},
		"per connection": {serve.Options{PerConnBytesPerSecond: 8 << 20}, 2, 500 * time.Millisecond},
		"delay":          {serve.Options{DelayPerRequest: 300 * time.Millisecond}, 2, 300 * time.Millisecond},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, tc.opts, files)
			begin := time.Now()
			var wg sync.WaitGroup
			for range tc.streams {
				wg.Go(func() {
					// A transport of its own makes a connection of its own.
					c := &http.Client{Transport: &http.Transport{}}
					defer c.CloseIdleConnections()
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/f", http.NoBody)
					resp, err := c.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					defer func() { _ = resp.Body.Close() }()
					if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
				})
			}
			wg.Wait()
			took := time.Since(begin)
			// Early is a broken limit; late is a busy machine, within reason.
			if took < tc.want*9/10 {
				t.Errorf("took %v, the limit makes it %v", took, tc.want)
			}
			pace.Within(t, "a transfer under a limit", took, tc.want*3)
		})
	}
}

func TestStopAndStartOnTheSameAddress(t *testing.T) {
	s, addr := start(t, serve.Options{}, map[string][]byte{"f": []byte("x")})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/f", http.NoBody)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Fatal("a stopped server answers")
	}
	if again, err := s.Start(addr); err != nil || again != addr {
		t.Fatalf("started again on %q: %v", again, err)
	}
	if _, body := get(t, http.MethodGet, addr, "/f", ""); string(body) != "x" {
		t.Errorf("body %q after the restart", body)
	}
}
