package ufs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/sanity/pace"
)

const indexOfFile = `<html><head><title>Index of /</title></head><body><a href="file">file</a></body></html>`

// faulty is a server of one file that a test makes misbehave.
type faulty struct {
	*httptest.Server
	content []byte
	etag    string
	// on answers a request for the file, and reports whether it did.
	on func(w http.ResponseWriter, r *http.Request) bool
	// requests counts those for the file.
	requests atomic.Int64
}

var faultyTime = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{content: bytes.Repeat([]byte("0123456789"), 100_000), etag: `"one"`}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, indexOfFile)
			return
		}
		f.requests.Add(1)
		if f.on != nil && f.on(w, r) {
			return
		}
		f.serve(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *faulty) serve(w http.ResponseWriter, r *http.Request) {
	if f.etag != "" {
		w.Header().Set("Etag", f.etag)
	}
	http.ServeContent(w, r, "", faultyTime, bytes.NewReader(f.content))
}

// openFaulty opens the store and describes its file while the server still behaves.
func openFaulty(t *testing.T, f *faulty, opts Options) (Store, cacheclient.Info) {
	t.Helper()
	store := mustOpen(t, f.URL, opts)
	on := f.on
	f.on = nil
	info, err := store.Stat(testContext(t), "file")
	if err != nil {
		t.Fatal(err)
	}
	compared(t, store)
	f.on = on
	return store, info
}

// hijack takes the connection from the server, to be cut.
func hijack(w http.ResponseWriter, head string, body []byte) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = buffered.WriteString(head)
	_, _ = buffered.Write(body)
	_ = buffered.Flush()
}

func TestFaults(t *testing.T) {
	partial := func(head string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			hijack(w, "HTTP/1.1 206 Partial Content\r\n"+head+"\r\n\r\n", bytes.Repeat([]byte("x"), 100))
			return true
		}
	}
	status := func(code int, retryAfter string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			w.WriteHeader(code)
			return true
		}
	}
	const span = "Content-Range: bytes 1000-1999/1000000\r\n"
	for name, c := range map[string]struct {
		on    func(http.ResponseWriter, *http.Request) bool
		is    error
		says  string
		retry bool
		after time.Duration
	}{
		"short body":       {on: partial(span + "Content-Length: 1000"), is: io.ErrUnexpectedEOF, retry: true},
		"short, no length": {on: partial(span + "Connection: close"), is: io.ErrUnexpectedEOF, retry: true},
		"short chunk":      {on: partial(span + "Transfer-Encoding: chunked"), retry: true},
		"closed": {
			on: func(w http.ResponseWriter, _ *http.Request) bool { hijack(w, "", nil); return true },
			is: cacheclient.ErrUnavailable, retry: true,
		},
		"404": {on: status(404, ""), is: fs.ErrNotExist},
		"410": {on: status(410, ""), is: fs.ErrNotExist},
		"401": {on: status(401, ""), is: fs.ErrPermission},
		"403": {on: status(403, ""), is: fs.ErrPermission},
		"400": {on: status(400, ""), says: "400 Bad Request"},
		"429": {on: status(429, "7"), is: cacheclient.ErrUnavailable, retry: true, after: 7 * time.Second},
		"429 for long": {
			on: status(429, "99999999999999999999"), is: cacheclient.ErrUnavailable, retry: true,
			after: maxRetryAfter,
		},
		"500": {on: status(500, ""), is: cacheclient.ErrUnavailable, retry: true},
		"502": {on: status(502, ""), is: cacheclient.ErrUnavailable, retry: true},
		"503": {on: status(503, "1"), is: cacheclient.ErrUnavailable, retry: true, after: time.Second},
		"501": {on: status(501, ""), is: cacheclient.ErrUnavailable},
		"another range": {
			on:   partial("Content-Range: bytes 0-999/1000000\r\nContent-Length: 1000"),
			says: "bytes 0-999 when asked for 1000-1999",
		},
		"a shorter range": {
			on:   partial("Content-Range: bytes 1000-1099/1000000\r\nContent-Length: 100"),
			says: "bytes 1000-1099",
		},
		"no range":       {on: partial("Content-Length: 1000"), says: "Content-Range"},
		"a wrong length": {on: partial(span + "Content-Length: 100"), says: "100 bytes for a range of 1000"},
		"another size": {
			on: partial("Content-Range: bytes 1000-1999/2000000\r\nContent-Length: 1000"),
			is: cacheclient.ErrStale,
		},
		"another ETag": {on: partial(span + "Etag: \"two\"\r\nContent-Length: 1000"), is: cacheclient.ErrStale},
		"several parts": {
			on:   partial("Content-Type: multipart/byteranges; boundary=x\r\nContent-Length: 1000"),
			says: "several parts",
		},
		"another whole": {on: func(w http.ResponseWriter, _ *http.Request) bool {
			_,
				_ = w.Write([]byte("new"))
			return true
		}, is: cacheclient.ErrStale},
		"a directory now": {on: func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/file/", http.StatusMovedPermanently)
			return true
		}, is: cacheclient.ErrStale},
		"redirects forever": {on: func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/other", http.StatusFound)
			return true
		}, says: "redirects more than 10 times"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			f.on = c.on
			store, info := openFaulty(t, f, Options{})
			before := f.requests.Load()
			got, err := readAll(testContext(t), store, info, 1000, 1000)
			if err == nil {
				t.Fatalf("%d bytes came", len(got))
			}
			if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v", err)
			}
			if retry, after := Retryable(err); retry != c.retry || after != c.after {
				t.Errorf("retry %v after %v for %v", retry, after, err)
			}
			if n := f.requests.Load() - before; n != 1 && name != "redirects forever" && name != "closed" &&
				!errors.Is(c.is, cacheclient.ErrStale) {
				// net/http asks once more when a connection is closed that was used before, and a change is looked at.
				t.Errorf("%d requests were made", n)
			}
		})
	}
}

func TestRangeIgnored(t *testing.T) {
	for name, chunked := range map[string]bool{"with length": false, "chunked": true} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			f.on = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Etag", f.etag)
				if !chunked {
					w.Header().Set("Content-Length", strconv.Itoa(len(f.content)))
				}
				_, _ = w.Write(f.content)
				return true
			}
			store, info := openFaulty(t, f, Options{})
			body, err := store.Open(testContext(t), info, 500, 100)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if err != nil || body.Start != 0 || body.End != info.Size || !bytes.Equal(got, f.content) {
				t.Errorf("%d bytes of %d-%d, %v", len(got), body.Start, body.End, err)
			}
		})
	}
}

func TestReset(t *testing.T) {
	f := newFaulty(t)
	f.on = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(f.content)-1, len(f.content)))
		w.Header().Set("Content-Length", strconv.Itoa(len(f.content)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(f.content[:200_000])
		panic(http.ErrAbortHandler)
	}
	store, info := openFaulty(t, f, Options{})
	got, err := readAll(testContext(t), store, info, 0, info.Size)
	if retry, _ := Retryable(err); !retry || !bytes.Equal(got, f.content[:len(got)]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestChangedHalfway changes the file between two ranges, with a strong ETag, a weak one, and the time alone.
func TestChangedHalfway(t *testing.T) {
	for _, etags := range [][2]string{{`"one"`, `"two"`}, {`W/"one"`, `W/"two"`}} {
		f := newFaulty(t)
		f.etag = etags[0]
		store, info := openFaulty(t, f, Options{})
		if !strings.Contains(info.Version, etags[0]) {
			t.Errorf("the version is %s", info.Version)
		}
		if _, err := readAll(testContext(t), store, info, 0, 1000); err != nil {
			t.Fatal(err)
		}
		f.etag = etags[1]
		if _, err := readAll(testContext(t), store, info, 1000, 1000); !errors.Is(err, cacheclient.ErrStale) {
			t.Errorf("%s: %v", etags[1], err)
		}
	}
	f := newFaulty(t)
	f.etag = ""
	store, info := openFaulty(t, f, Options{})
	info.ModTime = info.ModTime.Add(-time.Second)
	if _, err := readAll(testContext(t), store, info, 0, 1000); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("time: %v", err)
	}
	// Weak and strong forms of one tag are one version to a range.
	f.etag = `W/"one"`
	info.Version, info.ModTime = `"one"`, faultyTime
	if _, err := readAll(testContext(t), store, info, 0, 1000); err == nil {
		// Go's server compares If-Match strongly and answers 412; Stat then shows another mark.
		t.Log("read")
	} else if !errors.Is(err, cacheclient.ErrStale) {
		t.Error(err)
	}
}

// TestWrongIfMatch is for servers that refuse their own ETag in If-Match.
func TestWrongIfMatch(t *testing.T) {
	f := newFaulty(t)
	refused := 0
	f.on = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-Match") == "" {
			return false
		}
		refused++
		w.WriteHeader(http.StatusPreconditionFailed)
		return true
	}
	store, info := openFaulty(t, f, Options{})
	for range 3 {
		if got, err := readAll(testContext(t), store, info, 10, 20); err != nil || len(got) != 20 {
			t.Fatal(err)
		}
	}
	if refused != 1 {
		t.Errorf("refused %d times", refused)
	}
}

func TestStall(t *testing.T) {
	const timeout = 150 * time.Millisecond
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	f := newFaulty(t)
	var inBody atomic.Bool
	f.on = func(w http.ResponseWriter, r *http.Request) bool {
		if inBody.Load() {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(f.content)-1, len(f.content)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(f.content[:100])
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-ended:
		case <-r.Context().Done():
		}
		return true
	}
	store, info := openFaulty(t, f, Options{ResponseTimeout: timeout})
	for _, stall := range []string{"head", "body"} {
		inBody.Store(stall == "body")
		began := time.Now()
		got, err := readAll(testContext(t), store, info, 0, info.Size)
		took := time.Since(began)
		if retry, _ := Retryable(err); !retry || !errors.Is(err, cacheclient.ErrUnavailable) ||
			errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", stall, err)
		}
		if took < timeout || took > pace.Limit(timeout+3*time.Second) {
			t.Errorf("%s: %d bytes, ended after %v", stall, len(got), took)
		}
	}
	inBody.Store(false)
	if _, err := store.Stat(testContext(t), "file"); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("stat: %v", err)
	}
}

// TestSlow is a source that sends all the time and a reader that pauses: neither is a stall.
func TestSlow(t *testing.T) {
	const timeout = 200 * time.Millisecond
	f := newFaulty(t)
	f.on = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-999/%d", len(f.content)))
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusPartialContent)
		for i := range 10 {
			_, _ = w.Write(f.content[i*100:][:100])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(timeout / 4)
		}
		return true
	}
	store, info := openFaulty(t, f, Options{ResponseTimeout: timeout})
	body, err := store.Open(testContext(t), info, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	time.Sleep(3 * timeout)
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, f.content[:1000]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestGzipHappy(t *testing.T) {
	f := newFaulty(t)
	f.on = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding is %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(f.content)
		_ = z.Close()
		return true
	}
	store, info := openFaulty(t, f, Options{})
	_, err := readAll(testContext(t), store, info, 0, 100)
	if err == nil || !strings.Contains(err.Error(), "Content-Encoding gzip") {
		t.Errorf("%v", err)
	}
	if retry, _ := Retryable(err); retry {
		t.Error("it is to be retried")
	}
	if info, err := store.Stat(testContext(t), "file"); err == nil {
		t.Errorf("stat: %+v", info)
	}
}

// TestHeadRefused is for servers without HEAD, or without a length in it.
func TestHeadRefused(t *testing.T) {
	for _, code := range []int{403, 405, 501, 200} {
		f := newFaulty(t)
		f.on = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				return false
			}
			if code == 200 {
				_ = http.NewResponseController(w).Flush()
				return true
			}
			w.WriteHeader(code)
			return true
		}
		store := mustOpen(t, f.URL, Options{})
		info, err := store.Stat(testContext(t), "file")
		if err != nil || info.Size != int64(len(f.content)) || info.Version != f.etag ||
			!info.ModTime.Equal(faultyTime) {
			t.Errorf("%d: %+v, %v", code, info, err)
		}
		f.content = nil
		if info, err := store.Stat(testContext(t), "file"); err != nil || info.Size != 0 {
			t.Errorf("%d: empty: %+v, %v", code, info, err)
		}
	}
}

func TestRedirects(t *testing.T) {
	t.Setenv("UFS_TEST_HEADERS", "X-Token,secret,Cookie,a=b")
	t.Setenv("UFS_TEST_PASS", "word")
	opts := Options{Values: map[string]string{
		"headers": "env:UFS_TEST_HEADERS", "user": "me",
		"pass": "env:UFS_TEST_PASS",
	}}
	secrets := func(r *http.Request) string {
		return r.Header.Get("X-Token") + r.Header.Get("Cookie") + r.Header.Get("Authorization") +
			r.Header.Get("Referer")
	}
	mirror := newFaulty(t)
	mirror.on = func(_ http.ResponseWriter, r *http.Request) bool {
		if s := secrets(r); s != "" {
			t.Errorf("the mirror was told %q", s)
		}
		return false
	}
	f := newFaulty(t)
	f.on = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Token") != "secret" || r.Header.Get("Cookie") != "a=b" ||
			r.Header.Get("Authorization") == "" {
			t.Errorf("the source was told %v", r.Header)
		}
		http.Redirect(w, r, mirror.URL+"/file?signature=secret", http.StatusFound)
		return true
	}
	store := mustOpen(t, f.URL, opts)
	info, err := store.Stat(testContext(t), "file")
	if err != nil || info.Size != int64(len(mirror.content)) || info.Version != "" {
		t.Fatalf("%+v, %v", info, err)
	}
	// Another mirror has another ETag for the same file.
	mirror.etag = `"other"`
	if _, err := readAll(testContext(t), store, info, 100, 100); err != nil {
		t.Error(err)
	}
	mirror.Close()
	if _, err := store.Stat(testContext(t), "file"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestTLS(t *testing.T) {
	plain := newFaulty(t)
	var leave atomic.Bool
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("the protocol is %s", r.Proto)
		}
		if leave.Load() {
			http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
			return
		}
		plain.Config.Handler.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	t.Cleanup(server.Close)
	if _, err := Open(testContext(t), server.URL, Options{}); err == nil || !strings.Contains(err.Error(), "ca_cert") {
		t.Errorf("an unknown authority: %v", err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	store := mustOpen(t, server.URL, Options{Values: map[string]string{"ca_cert": file}})
	info, err := store.Stat(testContext(t), "file")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(testContext(t), store, info, 5, 10); err != nil || string(got) != "5678901234" {
		t.Errorf("%q, %v", got, err)
	}
	mustOpen(t, server.URL, Options{Values: map[string]string{"no_check_certificate": "true"}})
	leave.Store(true)
	if _, err := store.Stat(testContext(t), "file"); err == nil ||
		!strings.Contains(err.Error(), "from https to http") {
		t.Errorf("a downgrade: %v", err)
	}
}

// TestHugeListing reads a million entries and measures memory.
func TestHugeListing(t *testing.T) {
	pace.Long(t)
	const entries = 1_000_000
	var pause atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html><title>Index of /</title><pre>")
		var row []byte
		for i := range entries {
			for pause.Load() {
				time.Sleep(time.Millisecond)
			}
			row = fmt.Appendf(row[:0],
				"<a href=\"a-rather-long-name-of-a-file-%08d.bin\">a-rather-long-name</a> 2024-01-01 10:00 1234\n", i)
			_, _ = w.Write(row)
		}
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL, Options{})
	// The server of this test makes garbage, and so does the transport while there is something to receive: both are held
	// up, and the least of three counts.
	heap := func() uint64 {
		pause.Store(true)
		defer pause.Store(false)
		least := ^uint64(0)
		for range 3 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			least = min(least, m.HeapAlloc)
		}
		return least
	}
	before, peak, n := heap(), uint64(0), 0
	err := store.List(t.Context(), "", func(info cacheclient.Info) error {
		if want := fmt.Sprintf("a-rather-long-name-of-a-file-%08d.bin", n); info.Path != want {
			return fmt.Errorf("%q is not %q", info.Path, want)
		}
		n++
		if n%100_000 == 0 {
			peak = max(peak, heap())
		}
		return nil
	})
	if err != nil || n != entries {
		t.Fatalf("%d entries, %v", n, err)
	}
	t.Logf("live heap %d KiB before, %d KiB at most", before>>10, peak>>10)
	if peak > before+4<<20 {
		t.Errorf("the heap grew by %d KiB", (peak-before)>>10)
	}
}

// TestListingBroken cuts an index page, which must not look like its end.
func TestListingBroken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\n", []byte(indexOfFile))
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL, Options{})
	n := 0
	err := store.List(testContext(t), "", func(cacheclient.Info) error { n++; return nil })
	if retry, _ := Retryable(err); !retry || n != 1 {
		t.Errorf("%d entries, %v", n, err)
	}
}

func TestNoSlash(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/", "/dir", "/dir/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `<a href="dir">dir</a> <a href="file">file</a>`)
		case "/file":
			http.ServeContent(w, r, "file.bin", faultyTime, strings.NewReader("content"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL, Options{
		Values:   map[string]string{"no_slash": "true", "no_head": "true"},
		MaxConns: 1,
	})
	names, infos := listNames(t, store, "")
	if strings.Join(names, " ") != "dir/ file" || infos[1].Size != int64(len("content")) {
		t.Errorf("%q %+v", names, infos)
	}
}

// TestLocalOdd has what a local directory may hold besides files and directories.
func TestLocalOdd(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "content")
	if err := os.MkdirAll(filepath.Join(dir, "sub", "below"), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"dangling": "nowhere", "loop": "loop", "through": "file/below", "link": "file", "dirlink": "sub/below",
		"sub/up": "..", "sub/self": ".",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := mkfifo(filepath.Join(dir, "pipe")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "bytes\xff\xfe"), "x")
	store := mustOpen(t, dir, Options{})
	names, _ := listNames(t, store, "")
	if got := strings.Join(names, " "); got != "bytes\xff\xfe dirlink/ file link sub/" {
		t.Errorf("%q", got)
	}
	if names, _ := listNames(t, store, "sub"); strings.Join(names, " ") != "below/" {
		t.Errorf("%q", names)
	}
	for _, name := range []string{"dangling", "loop", "through", "pipe", "sub/up", strings.Repeat("x", 300)} {
		if info, err := store.Stat(testContext(t), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
	if info, err := store.Stat(testContext(t), "file"); err != nil || info.Mode != 0o600 || !info.ModeKnown {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := store.Open(testContext(t), cacheclient.Info{Path: "pipe", Size: 1}, 0, 1); !errors.Is(err,
		cacheclient.ErrStale) {
		t.Errorf("a pipe: %v", err)
	}
	store = mustOpen(t, dir, Options{Values: map[string]string{"copy_links": "false"}})
	if names, _ := listNames(t, store, ""); strings.Join(names, " ") != "bytes\xff\xfe file sub/" {
		t.Errorf("without links: %q", names)
	}
}

// TestLocalChange changes a file under its reader.
func TestLocalChange(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for what, change := range map[string]func() error{
		"written": func() error { return os.WriteFile(name, bytes.Repeat([]byte("b"), 1000), 0o600) },
		"cut":     func() error { return os.Truncate(name, 500) },
		"grown":   func() error { return os.Truncate(name, 2000) },
		"touched": func() error { return os.Chtimes(name, time.Now(), time.Now()) },
	} {
		write(t, name, strings.Repeat("a", 1000))
		if err := os.Chtimes(name, faultyTime, faultyTime); err != nil {
			t.Fatal(err)
		}
		store := mustOpen(t, filepath.Dir(name), Options{})
		info, err := store.Stat(testContext(t), "file")
		if err != nil {
			t.Fatal(err)
		}
		body, err := store.Open(testContext(t), info, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); !errors.Is(err, cacheclient.ErrStale) || len(got) != 0 {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
		_ = body.Close()
	}
}

// TestReadAllocates checks the data path: a large read is few calls and no allocation.
func TestReadAllocates(t *testing.T) {
	pace.Long(t)
	f := newFaulty(t)
	f.content = bytes.Repeat([]byte("x"), 64<<20)
	httpStore, httpInfo := openFaulty(t, f, Options{})
	name := filepath.Join(t.TempDir(), "file")
	write(t, name, string(f.content))
	localStore := mustOpen(t, filepath.Dir(name), Options{})
	localInfo, err := localStore.Stat(testContext(t), "file")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		store Store
		info  cacheclient.Info
	}{"http": {httpStore, httpInfo}, "local": {localStore, localInfo}} {
		body, err := c.store.Open(testContext(t), c.info, 0, c.info.Size)
		if err != nil {
			t.Fatal(err)
		}
		p, small := make([]byte, 256<<10), 0
		if _, err := io.ReadFull(body, p); err != nil {
			t.Fatal(err)
		}
		read := &body.ReadCloser
		allocs := testing.AllocsPerRun(50, func() {
			n, err := (*read).Read(p)
			if err != nil {
				t.Fatal(err)
			}
			if n < 8<<10 {
				small++
			}
		})
		_ = body.Close()
		// The server of this test allocates as well, in the same process.
		if allocs > 2 || small > 5 {
			t.Errorf("%s: %v allocations a read, %d small reads of 50", what, allocs, small)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "0": 0, "-5": 0, "soon": 0, "3600": maxRetryAfter,
		now.Add(12 * time.Second).Format(http.TimeFormat):  12 * time.Second,
		now.Add(-12 * time.Second).Format(http.TimeFormat): 0,
	} {
		h := http.Header{"Retry-After": {value}}
		if got := retryAfter(h, now); got != want {
			t.Errorf("%q is %v", value, got)
		}
	}
	h := http.Header{
		"Retry-After": {now.Add(5 * time.Second).Format(http.TimeFormat)},
		"Date":        {now.Format(http.TimeFormat)},
	}
	if got := retryAfter(h, now.Add(time.Hour)); got != 5*time.Second {
		t.Errorf("by the server's clock it is %v", got)
	}
}

func TestUnreachable(t *testing.T) {
	address := cachetest.FreeAddress(t)
	_, err := Open(testContext(t), "http://"+address+"/", Options{})
	if retry, _ := Retryable(err); !retry || !errors.Is(err, cacheclient.ErrUnavailable) ||
		!strings.Contains(err.Error(), "refuses the connection") {
		t.Errorf("%v", err)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		t.Errorf("%v has a URL", err)
	}
}

// TestSilenceElsewhere redirects to a host that does not answer: that says nothing of the source.
func TestSilenceElsewhere(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	f := newFaulty(t)
	store := mustOpen(t, f.URL, Options{})
	f.on = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, closed.URL+"/file", http.StatusFound)
		return true
	}
	if _, err := store.Stat(testContext(t), "file"); err == nil || !Elsewhere(err) {
		t.Errorf("after a redirect: %v", err)
	}
	f.Close()
	if _, err := store.Stat(testContext(t), "file"); err == nil || Elsewhere(err) {
		t.Errorf("of the source itself: %v", err)
	}
}
