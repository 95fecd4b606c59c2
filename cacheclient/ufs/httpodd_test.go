package ufs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// odd is a web server that answers as a test has it, and counts.
type odd struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request)
	mu     sync.Mutex
	asked  map[string]int // guarded by mu: by method and path
}

func newOdd(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *odd {
	t.Helper()
	o := &odd{answer: answer, asked: map[string]int{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.asked[r.Method+" "+r.URL.Path]++
		o.mu.Unlock()
		o.answer(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

// count is how often a method was used for a path since the last count, for any path where it is "".
func (o *odd) count(method, path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for key, asked := range o.asked {
		if key == method+" "+path || path == "" && strings.HasPrefix(key, method+" ") {
			n += asked
			delete(o.asked, key)
		}
	}
	return n
}

// page writes an index.
func page(w http.ResponseWriter, links ...string) {
	w.Header().Set("Content-Type", "text/html")
	var b strings.Builder
	b.WriteString("<html><head><title>Index of /</title></head><body><pre>")
	for _, link := range links {
		fmt.Fprintf(&b, "<a href=%q>x</a>\n", link)
	}
	_, _ = io.WriteString(w, b.String()+"</pre></body></html>")
}

// marked is a file with validators.
type marked struct {
	etag    string
	modTime time.Time
	content string
}

func (m marked) serve(w http.ResponseWriter, r *http.Request) {
	if m.etag != "" {
		w.Header().Set("Etag", m.etag)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", m.modTime, strings.NewReader(m.content))
}

func opened(t *testing.T, o *odd, values map[string]string) Store {
	t.Helper()
	return mustOpen(t, o.URL, Options{Values: values})
}

func statOf(t *testing.T, store Store, path string) cacheclient.Info {
	t.Helper()
	info, err := store.Stat(testContext(t), path)
	if err != nil {
		t.Fatalf("stat %q: %v", path, err)
	}
	return info
}

// readConfirmed reads all of a file and confirms it.
func readConfirmed(t *testing.T, store Store, info cacheclient.Info) (string, error) {
	t.Helper()
	body, err := store.Open(testContext(t), info, 0, info.Size)
	if err != nil {
		return "", err
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err == nil && body.Confirm != nil {
		err = body.Confirm(testContext(t))
	}
	return string(got), err
}

var long = time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)

// TestConfirmation tells which bodies need one: none whose answer proves the version.
func TestConfirmation(t *testing.T) {
	for name, c := range map[string]struct {
		file    marked
		young   bool
		confirm bool
	}{
		"strong":              {file: marked{etag: `"v1"`, modTime: long}},
		"strong, no time":     {file: marked{etag: `"v1"`}},
		"strong, young":       {file: marked{etag: `"9a0364b9e99bb480dd25e1f0284c8555"`}, young: true},
		"made of size, young": {file: marked{etag: `"663212a0-7"`}, young: true, confirm: true},
		"made of size":        {file: marked{etag: `"663212a0-7"`, modTime: long}},
		"weak":                {file: marked{etag: `W/"v1"`, modTime: long}, confirm: true},
		"no quotes":           {file: marked{etag: `v1`, modTime: long}, confirm: true},
		"empty":               {file: marked{etag: `""`, modTime: long}, confirm: true},
		"time":                {file: marked{modTime: long}, confirm: true},
		"nothing":             {file: marked{}, confirm: true},
	} {
		c.file.content = "content"
		if c.young {
			c.file.modTime = time.Now()
		}
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				page(w, "f")
				return
			}
			if c.young {
				w.Header().Set("Date", c.file.modTime.UTC().Format(http.TimeFormat))
			}
			if c.file.etag == "v1" {
				w.Header().Set("Etag", "v1")
				w.Header().Set("Last-Modified", long.Format(http.TimeFormat))
				_, _ = io.WriteString(w, c.file.content)
				return
			}
			c.file.serve(w, r)
		})
		store := opened(t, o, nil)
		info := statOf(t, store, "f")
		body, err := store.Open(testContext(t), info, 0, info.Size)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if (body.Confirm != nil) != c.confirm {
			t.Errorf("%s: the body has a confirmation: %v", name, body.Confirm != nil)
		}
		got, err := io.ReadAll(body)
		if err == nil && body.Confirm != nil {
			err = body.Confirm(testContext(t))
		}
		_ = body.Close()
		if err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestMixInOneBody overwrites a file in place while its body comes.
func TestMixInOneBody(t *testing.T) {
	for name, etags := range map[string][2]string{"time": {"", ""}, "weak": {`W/"1"`, `W/"2"`}} {
		half, goOn := make(chan struct{}), make(chan struct{})
		var turn sync.Once
		file := marked{etag: etags[0], modTime: long, content: strings.Repeat("A", 1000)}
		var now atomic.Pointer[marked]
		now.Store(&file)
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				page(w, "f")
				return
			}
			if r.Header.Get("Range") != "bytes=0-999" {
				now.Load().serve(w, r)
				return
			}
			w.Header().Set("Etag", file.etag)
			w.Header().Set("Last-Modified", long.Format(http.TimeFormat))
			w.Header().Set("Content-Range", "bytes 0-999/1000")
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, file.content[:500])
			_ = http.NewResponseController(w).Flush()
			turn.Do(func() { close(half); <-goOn })
			_, _ = io.WriteString(w, now.Load().content[500:])
		})
		store := opened(t, o, nil)
		info := statOf(t, store, "f")
		go func() {
			<-half
			now.Store(&marked{etag: etags[1], modTime: long.Add(time.Hour), content: strings.Repeat("B", 1000)})
			close(goOn)
		}()
		if got, err := readConfirmed(t, store, info); !errors.Is(err, cacheclient.ErrStale) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestConfirmationInABody confirms in the middle of bodies that hold all connections for files.
func TestConfirmationInABody(t *testing.T) {
	for name, file := range map[string]marked{"weak": {etag: `W/"v1"`, modTime: long}, "nothing": {}} {
		file.content = strings.Repeat("0123456789", 1<<20)
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				page(w, "f")
				return
			}
			file.serve(w, r)
		})
		store := mustOpen(t, o.URL, Options{MaxConns: 2})
		info := statOf(t, store, "f")
		compared(t, store)
		other, err := store.Open(testContext(t), info, 0, info.Size)
		if err != nil {
			t.Fatal(err)
		}
		body, err := store.Open(testContext(t), info, 0, info.Size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(testContext(t), pace.Limit(3*time.Second))
		if err := body.Confirm(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if got, err := io.ReadAll(body); err != nil || len(got)+1000 != len(file.content) {
			t.Errorf("%s: %d bytes more, %v", name, len(got), err)
		}
		if err := body.Confirm(testContext(t)); err != nil {
			t.Errorf("%s: at the end: %v", name, err)
		}
		_, _ = body.Close(), other.Close()
	}
}

// TestBodyWithoutLength sends bodies whose length is not told: what is longer or shorter than the version is none.
func TestBodyWithoutLength(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		want error
	}{
		"as described": {strings.Repeat("A", 100), nil},
		"longer":       {strings.Repeat("B", 200), cacheclient.ErrStale},
		"by a byte":    {strings.Repeat("B", 101), cacheclient.ErrStale},
		"shorter":      {strings.Repeat("B", 99), io.ErrUnexpectedEOF},
	} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				page(w, "f")
				return
			}
			w.Header().Set("Etag", `"v1"`)
			if r.Method == http.MethodHead || r.Header.Get("Range") == "bytes=0-0" {
				http.ServeContent(w, r, "", long, strings.NewReader(strings.Repeat("A", 100)))
				return
			}
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, c.sent)
		})
		store := opened(t, o, nil)
		got, err := readAll(testContext(t), store, statOf(t, store, "f"), 0, 100)
		if !errors.Is(err, c.want) || c.want == nil && string(got) != c.sent {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestBackends reads through a name behind which two servers take turns.
func TestBackends(t *testing.T) {
	content := strings.Repeat("0123456789", 30_000)
	for name, c := range map[string]struct {
		second marked
		values map[string]string
		err    error
		note   string
	}{
		"other ETags":           {marked{`"bbb2"`, long, content}, nil, nil, "validate=time"},
		"other ETags and times": {marked{`"bbb2"`, long.Add(3 * time.Second), content}, nil, nil, "validate=content"},
		"other times":           {marked{"", long.Add(3 * time.Second), content}, nil, nil, "validate=content"},
		"other content": {
			marked{`"bbb2"`, long, strings.ToUpper(strings.Repeat("abcdefghij", 30_000))},
			nil,
			cacheclient.ErrStale, "",
		},
		"by name": {
			marked{`"bbb2"`, long, content},
			map[string]string{"validate": "etag"},
			cacheclient.ErrStale, "",
		},
		"time, by name": {marked{`"bbb2"`, long, content}, map[string]string{"validate": "time"}, nil, ""},
		"size, by name": {
			marked{`"bbb2"`, long.Add(time.Hour), content},
			map[string]string{"validate": "size"},
			nil, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := marked{`"aaa1"`, long, content}
			if c.second.etag == "" {
				first.etag = ""
			}
			var turn atomic.Int64
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					page(w, "f", "g")
					return
				}
				r.Header.Del("If-Match")
				[]marked{first, c.second}[turn.Add(1)%2].serve(w, r)
			})
			store := opened(t, o, c.values)
			failed, early := 0, statOf(t, store, "f")
			for range 6 {
				got, err := readConfirmed(t, store, statOf(t, store, "f"))
				if err != nil && !errors.Is(err, cacheclient.ErrStale) || err == nil && c.err == nil && got != content {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if err != nil {
					failed++
				}
				// Turns and requests are out of step.
				turn.Add(1)
			}
			if failed > 0 && c.err == nil || failed == 0 && c.err != nil {
				t.Errorf("%d of 6 reads failed", failed)
			}
			// It was compared whole, and reads on under its former name.
			if got, err := readConfirmed(t, store, early); c.err == nil && (err != nil || got != content) {
				t.Errorf("what was described before: %d bytes, %v", len(got), err)
			}
			told := strings.Join(noted(t, store), "\n")
			if !strings.Contains(told, c.note) || c.note == "" && told != "" {
				t.Errorf("it is told: %q", told)
			}
		})
	}
}

// TestBackendsOfOtherEnds has two servers tell one size, and other bytes where no beginning shows them.
func TestBackendsOfOtherEnds(t *testing.T) {
	for name, off := range map[string]int{"middle": 5 << 19, "between": 3 << 19, "end": 5<<20 - 1} {
		for _, later := range []time.Duration{0, 3 * time.Second} {
			one := bytes.Repeat([]byte("x"), 5<<20)
			other := bytes.Clone(one)
			other[off] = 'y'
			files := []marked{{`"aaa1"`, long, string(one)}, {`"bbb2"`, long.Add(later), string(other)}}
			var turn atomic.Int64
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					page(w, "f")
					return
				}
				r.Header.Del("If-Match")
				files[turn.Add(1)%2].serve(w, r)
			})
			store := opened(t, o, nil)
			for range 4 {
				info := statOf(t, store, "f")
				if got, err := readConfirmed(t, store, info); err == nil &&
					got[off] != files[turn.Load()%2].content[off] {
					t.Errorf("%s: bytes of another version", name)
				} else if err != nil && !errors.Is(err, cacheclient.ErrStale) {
					t.Errorf("%s: %v", name, err)
				}
				turn.Add(1)
			}
			if told := noted(t, store); len(told) != 0 {
				t.Errorf("%s: %q", name, told)
			}
		}
	}
}

// TestETagsOfOneUse is for servers whose ETag is another in each answer, and for a file that changes all the time.
func TestETagsOfOneUse(t *testing.T) {
	for name, c := range map[string]struct{ rotates, young, fails bool }{
		"another ETag": {}, "another content": {rotates: true, fails: true}, "young": {young: true, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			var answers atomic.Int64
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					page(w, "f")
					return
				}
				n := answers.Add(1)
				r.Header.Del("If-Match")
				m := marked{fmt.Sprintf("%q", fmt.Sprint("use", n)), long, "content"}
				if c.rotates {
					m.content = fmt.Sprintf("%07d", n)
				}
				if c.young {
					w.Header().Set("Date", long.Format(http.TimeFormat))
				}
				m.serve(w, r)
			})
			store := opened(t, o, nil)
			for range 3 {
				_, err := readConfirmed(t, store, statOf(t, store, "f"))
				if errors.Is(err, cacheclient.ErrStale) != c.fails || err != nil && !c.fails {
					t.Errorf("%v", err)
				}
			}
			if told := strings.Join(noted(t, store), "\n"); strings.Contains(told, "validate=time") == c.fails {
				t.Errorf("%q", told)
			}
		})
	}
}

func noted(t *testing.T, store Store) []string {
	t.Helper()
	n, ok := store.(Noted)
	if !ok {
		t.Fatal("the store has no notes")
	}
	return n.Notes()
}

// TestChangedIsNoBackend changes a file, also back, which is no sign of two servers while the content differs.
func TestChangedIsNoBackend(t *testing.T) {
	var now atomic.Pointer[marked]
	now.Store(&marked{`"1"`, long, "old-content"})
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		now.Load().serve(w, r)
	})
	store := opened(t, o, nil)
	info := statOf(t, store, "f")
	now.Store(&marked{`"2"`, long.Add(time.Hour), "new-content"})
	if got, err := readConfirmed(t, store, info); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "new-content" {
		t.Errorf("%q, %v", got, err)
	}
	if told := noted(t, store); len(told) != 0 {
		t.Errorf("%q", told)
	}
}

// TestNoValidators changes files of which nothing but the content tells, small and large, with and without a length.
func TestNoValidators(t *testing.T) {
	for name, c := range map[string]struct {
		size    int
		chunked bool
		values  map[string]string
		changed int
		whole   bool
	}{
		"small":          {size: 12, changed: 5},
		"no length":      {size: 3000, chunked: true, changed: 1500},
		"begin of large": {size: wholeContent + 10, changed: 3},
		"end of large":   {size: wholeContent + 10, changed: wholeContent + 9},
		"no ranges":      {size: wholeContent + 10, changed: wholeContent / 3, whole: true},
		"middle, by name": {
			size: wholeContent + 10, changed: wholeContent / 3,
			values: map[string]string{"validate": "content"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			old := bytes.Repeat([]byte("o"), c.size)
			changed := bytes.Clone(old)
			changed[c.changed] = 'N'
			var now atomic.Pointer[[]byte]
			now.Store(&old)
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					page(w, "f")
					return
				}
				w.Header().Set("Content-Type", "application/octet-stream")
				if c.chunked {
					_ = http.NewResponseController(w).Flush()
					_, _ = w.Write(*now.Load())
					return
				}
				if c.whole {
					r.Header.Del("Range")
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(*now.Load()))
			})
			store := opened(t, o, c.values)
			was := statOf(t, store, "f")
			if got, err := readConfirmed(t, store, was); err != nil || got != string(old) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if cacheclient.Identify(statOf(t, store, "f")) != cacheclient.Identify(was) {
				t.Error("the same content is another version")
			}
			now.Store(&changed)
			is := statOf(t, store, "f")
			if cacheclient.Identify(is) == cacheclient.Identify(was) {
				t.Error("another content is the same version")
			}
			if _, err := readConfirmed(t, store, was); !errors.Is(err, cacheclient.ErrStale) {
				t.Errorf("the old version: %v", err)
			}
			if got, err := readConfirmed(t, store, is); err != nil || got != string(changed) {
				t.Errorf("the new version: %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestContentIsHeard has each part of a file that is read to describe it be heard by those that wait for that.
func TestContentIsHeard(t *testing.T) {
	const parts = 5
	heard := make(chan struct{}, 10*parts)
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		for part := range parts {
			_, _ = io.WriteString(w, "content")
			_ = http.NewResponseController(w).Flush()
			if r.Header.Get("Range") != "" || part == parts-1 {
				continue
			}
			// The next part comes when this one was heard.
			select {
			case <-heard:
			case <-r.Context().Done():
			}
		}
	})
	store := opened(t, o, map[string]string{"validate": "content", "no_head": "true"})
	ctx := cacheclient.OnHeard(testContext(t), func() { heard <- struct{}{} })
	if info, err := store.Stat(ctx, "f"); err != nil || info.Size != parts*7 {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestTimeIsNow is for servers whose Last-Modified is the present.
func TestTimeIsNow(t *testing.T) {
	var clock atomic.Int64
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		at := long.Add(time.Duration(clock.Add(1)) * time.Second)
		w.Header().Set("Date", at.Format(http.TimeFormat))
		marked{modTime: at, content: "content"}.serve(w, r)
	})
	store := opened(t, o, nil)
	for range 4 {
		if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if told := strings.Join(noted(t, store), "\n"); !strings.Contains(told, "the present") {
		t.Errorf("%q", told)
	}
}

// compared waits until HEAD was compared with GET.
func compared(t *testing.T, store Store) {
	t.Helper()
	g, _ := store.(*guarded)
	s, ok := g.Store.(*httpStore)
	if !ok {
		t.Fatal("it is no web server")
	}
	s.heads.work.Wait()
}

// TestHeads is for servers whose HEAD is not what GET is. It is noticed before it is believed, and remembered.
func TestHeads(t *testing.T) {
	content := strings.Repeat("x", 5000)
	length := func(n int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.Header().Set("Content-Length", strconv.Itoa(n)) }
	}
	status := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	marks := func(header ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		}
	}
	for name, c := range map[string]struct {
		head func(http.ResponseWriter)
		note string
	}{
		"zero": {length(0), "another size"}, "smaller": {length(1234), "another size"},
		"larger": {length(1 << 40), "another size"},
		"400":    {status(400), "Bad Request"}, "403": {status(403), "Forbidden"}, "404": {status(404), "Not Found"},
		"other ETag": {marks("Etag", `"0"`), ""}, "no ETag": {marks("Last-Modified", long.Format(http.TimeFormat)), ""},
		"other time": {marks("Etag", `"1"`, "Last-Modified", long.Add(time.Second).Format(http.TimeFormat)), ""},
		"gzip": {
			marks("Etag", `"1"`, "Last-Modified", long.Format(http.TimeFormat), "Content-Encoding", "gzip"),
			"compressed",
		},
		"405": {status(405), "Method Not Allowed"}, "500": {status(500), "Internal"},
		"501": {status(501), "Not Implemented"},
	} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/":
				page(w, "empty", "f", "g")
			case r.Method == http.MethodHead:
				c.head(w)
			case strings.HasPrefix(r.URL.Path, "/none"):
				http.NotFound(w, r)
			case r.URL.Path == "/empty":
				marked{`"0"`, long, ""}.serve(w, r)
			default:
				marked{`"1"`, long, content}.serve(w, r)
			}
		})
		store := opened(t, o, nil)
		if _, err := store.Stat(testContext(t), "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: what is not there: %v", name, err)
		}
		if info := statOf(t, store, "empty"); info.Size != 0 {
			t.Errorf("%s: %+v", name, info)
		}
		for _, path := range []string{"f", "g"} {
			if got, err := readConfirmed(t, store, statOf(t, store, path)); err != nil || got != content {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		compared(t, store)
		o.count(http.MethodHead, "")
		statOf(t, store, "f")
		if n := o.count(http.MethodHead, ""); n != 0 {
			t.Errorf("%s: HEAD is asked for %d times more", name, n)
		}
		if told := strings.Join(noted(t, store), "\n"); !strings.Contains(told, c.note) {
			t.Errorf("%s: %q", name, told)
		}
	}
}

// TestHeadsOfBefore has a HEAD that agreed tell later what was before, as one that a proxy keeps, or that is
// compressed.
func TestHeadsOfBefore(t *testing.T) {
	for name, later := range map[string]func(w http.ResponseWriter, r *http.Request, before marked){
		"kept": func(w http.ResponseWriter, r *http.Request, before marked) { before.serve(w, r) },
		"compressed": func(w http.ResponseWriter, r *http.Request, before marked) {
			w.Header().Set("Content-Encoding", "gzip")
			before.serve(w, r)
		},
	} {
		before, after := marked{`"1"`, long, "content"}, marked{`"2"`, long.Add(time.Hour), "CONTENT"}
		var changed atomic.Bool
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/":
				page(w, "f")
			case !changed.Load():
				before.serve(w, r)
			case r.Method == http.MethodHead:
				later(w, r, before)
			default:
				after.serve(w, r)
			}
		})
		store := opened(t, o, nil)
		statOf(t, store, "f")
		compared(t, store)
		changed.Store(true)
		got, err := readConfirmed(t, store, statOf(t, store, "f"))
		if errors.Is(err, cacheclient.ErrStale) {
			got, err = readConfirmed(t, store, statOf(t, store, "f"))
		}
		if err != nil || got != after.content {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestEpoch changes a file of a server whose times are all the epoch, so that its ETags are sizes.
func TestEpoch(t *testing.T) {
	for seconds, etag := range map[int64]string{0: `"0-7"`, 1: `"1-7"`} {
		var now atomic.Pointer[string]
		content := "content"
		now.Store(&content)
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				page(w, "f")
				return
			}
			w.Header().Set("Last-Modified", time.Unix(seconds, 0).UTC().Format(http.TimeFormat))
			marked{etag, time.Time{}, *now.Load()}.serve(w, r)
		})
		store := opened(t, o, nil)
		was := statOf(t, store, "f")
		other := "CONTENT"
		now.Store(&other)
		if got, err := readConfirmed(t, store, was); !errors.Is(err, cacheclient.ErrStale) {
			t.Errorf("%s: %q, %v", etag, got, err)
		}
		if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != other {
			t.Errorf("%s: %q, %v", etag, got, err)
		}
	}
}

// TestHeadsAgree counts what a server that behaves is asked: a HEAD for each file, and one GET to compare the first.
func TestHeadsAgree(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			page(w, "a", "b", "c")
		case "/none":
			http.NotFound(w, r)
		default:
			marked{`"1"`, long, "content"}.serve(w, r)
		}
	})
	store := opened(t, o, nil)
	statOf(t, store, "a")
	compared(t, store)
	o.count(http.MethodGet, "")
	for _, path := range []string{"a", "b", "c"} {
		statOf(t, store, path)
	}
	if n := o.count(http.MethodGet, ""); n != 0 {
		t.Errorf("%d more", n)
	}
	for range 3 {
		if _, err := readConfirmed(t, store, statOf(t, store, "b")); err != nil {
			t.Error(err)
		}
	}
	if heads, gets := o.count(http.MethodHead, "/b"), o.count(http.MethodGet, "/b"); heads != 1+3 || gets != 3 {
		t.Errorf("3 cold reads cost %d HEADs and %d GETs", heads, gets)
	}
}

// TestDirectoryForms is for servers that answer a directory's address without a slash by anything but a redirect.
func TestDirectoryForms(t *testing.T) {
	for name, bare := range map[string]func(http.ResponseWriter, *http.Request){
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"/", http.StatusMovedPermanently)
		},
		"200": func(w http.ResponseWriter, _ *http.Request) { page(w, "g") },
		"400": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"403": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"404": http.NotFound,
		"405": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) },
	} {
		for _, slash := range []string{"/", ""} {
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/":
					page(w, "f", "dir"+slash, "shut/")
				case "/dir/":
					page(w, "g")
				case "/dir", "/shut":
					bare(w, r)
				case "/shut/":
					w.WriteHeader(http.StatusForbidden)
				case "/f", "/dir/g":
					marked{`"1"`, long, "content"}.serve(w, r)
				default:
					http.NotFound(w, r)
				}
			})
			store := opened(t, o, nil)
			check := func(when string) {
				if info, err := store.Stat(testContext(t), "dir"); err != nil || !info.Dir {
					t.Errorf("%s, link %q, %s: %+v, %v", name, "dir"+slash, when, info, err)
				}
				if info, err := store.Stat(testContext(t), "dir/g"); err != nil || info.Dir {
					t.Errorf("%s, %s: %+v, %v", name, when, info, err)
				}
			}
			check("first")
			listNames(t, store, "")
			listNames(t, store, "dir")
			check("listed")
			if info, err := store.Stat(testContext(t), "shut"); err != nil || !info.Dir {
				t.Errorf("%s: a directory that may not be listed: %+v, %v", name, info, err)
			}
			if _, err := store.Stat(testContext(t), "none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: what is not there: %v", name, err)
			}
		}
	}
}

// TestDirectoryFormsDiffer has one server answer for its directories in several ways: that it redirects one says
// nothing of those in another.
func TestDirectoryFormsDiffer(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/", "/a/", "/a/d/", "/b/", "/b/d/":
			page(w, "d/", "f")
		case "/a", "/a/d", "/b":
			http.Redirect(w, r, r.URL.Path+"/", http.StatusMovedPermanently)
		case "/b/d/f":
			marked{`"1"`, long, "content"}.serve(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	store := opened(t, o, nil)
	for _, path := range []string{"a", "a/d", "b", "b/d"} {
		if info, err := store.Stat(testContext(t), path); err != nil || !info.Dir {
			t.Errorf("%s: %+v, %v", path, info, err)
		}
	}
	if info, err := store.Stat(testContext(t), "b/d/f"); err != nil || info.Dir {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := store.Stat(testContext(t), "a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if n := o.count(http.MethodGet, "/a/none/"); n != 0 {
		t.Errorf("what is not there is asked for %d times with a slash, where the server redirects", n)
	}
}

// TestCompressedIndex has a server compress its indexes, although that is not asked for.
func TestCompressedIndex(t *testing.T) {
	plain := "<html><head><title>Index of /</title></head><a href=\"f\">f</a></html>"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, plain)
	_ = z.Close()
	var long bytes.Buffer
	z = gzip.NewWriter(&long)
	_, _ = io.WriteString(z, "<html><title>Index of /</title>"+strings.Repeat(" ", 2*maxToken))
	_ = z.Close()
	for name, c := range map[string]struct {
		coding, body string
		is           error
	}{
		"gzip":        {"gzip", packed.String(), nil},
		"x-gzip":      {"X-GZIP", packed.String(), nil},
		"cut":         {"gzip", packed.String()[:packed.Len()-12], io.ErrUnexpectedEOF},
		"no gzip":     {"gzip", plain, errNoIndex},
		"a long text": {"gzip", long.String(), errNoIndex},
		"another one": {"br", plain, errEncoded},
	} {
		o := newOdd(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Encoding", c.coding)
			_, _ = io.WriteString(w, c.body)
		})
		store := mustOpen(t, o.URL, Options{Deferred: true})
		var names []string
		add := func(i cacheclient.Info) error { names = append(names, i.Path); return nil }
		err := store.List(testContext(t), "", add)
		if !errors.Is(err, c.is) || c.is == nil && !slices.Equal(names, []string{"f"}) {
			t.Errorf("%s: %q, %v", name, names, err)
		}
	}
}

// TestRangeOfUnknownTotal has ranges tell no size of the whole, which is told without a range.
func TestRangeOfUnknownTotal(t *testing.T) {
	const size = mostCounted + 1
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("Range") == "bytes=0-0" {
			w.Header().Set("Content-Range", "bytes 0-0/*")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte{0})
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(make([]byte, 1000))
	})
	if info := statOf(t, opened(t, o, nil), "f"); info.Size != size {
		t.Errorf("%+v", info)
	}
}

// TestMissingForms is for servers that answer what is not there by anything but 404.
func TestMissingForms(t *testing.T) {
	for name, missing := range map[string]func(http.ResponseWriter){
		"403": func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
		"401": func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
		"410": func(w http.ResponseWriter) { w.WriteHeader(http.StatusGone) },
		"200 and words": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<p>No such page")
		},
	} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/":
				page(w, "f", "secret", "site")
			case "/f":
				marked{`"1"`, long, "content"}.serve(w, r)
			case "/site":
				w.Header().Set("Content-Type", "text/html")
				_, _ = io.WriteString(w, "<p>A page without an extension")
			case "/secret":
				w.WriteHeader(http.StatusForbidden)
			default:
				missing(w)
			}
		})
		store := opened(t, o, nil)
		if info, err := store.Stat(testContext(t), "none"); !errors.Is(err, fs.ErrNotExist) ||
			errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %+v, %v", name, info, err)
		} else if retry, _ := Retryable(err); retry {
			t.Errorf("%s: %v is to be retried", name, err)
		}
		if _, err := store.Stat(testContext(t), "secret"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: what is there and refused: %v", name, err)
		}
		if info, err := store.Stat(testContext(t), "site"); err != nil || info.Dir {
			t.Errorf("%s: a page: %+v, %v", name, info, err)
		}
		// Its directory is listed for it once.
		o.count(http.MethodGet, "/")
		if info, err := store.Stat(testContext(t), "site"); err != nil || info.Dir ||
			o.count(http.MethodGet, "/") != 0 {
			t.Errorf("%s: a page again: %+v, %v", name, info, err)
		}
	}
}

// TestHugeSizes has one file claim a size that no file has, in each way that servers tell sizes.
func TestHugeSizes(t *testing.T) {
	for _, size := range []string{
		"1125899906842625", "4611686018427387904", "9223372036854775807",
		"9223372036854775808", "99999999999999999999999",
	} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/":
				page(w, "f", "huge")
			case r.URL.Path == "/f":
				marked{`"1"`, long, "content"}.serve(w, r)
			case r.Method == http.MethodHead:
				hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: "+size+"\r\nEtag: \"1\"\r\n\r\n", nil)
			default:
				w.Header().Set("Content-Range", "bytes 0-0/"+size)
				w.WriteHeader(http.StatusPartialContent)
				_, _ = io.WriteString(w, "x")
			}
		})
		store := opened(t, o, nil)
		for range 2 {
			_, err := store.Stat(testContext(t), "huge")
			if !errors.Is(err, cacheclient.ErrTooLarge) || errors.Is(err, cacheclient.ErrUnavailable) {
				t.Errorf("%s: %v", size, err)
			}
			if retry, _ := Retryable(err); retry {
				t.Errorf("%s: it is to be retried", size)
			}
			if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
				t.Errorf("%s: the other file: %q, %v", size, got, err)
			}
		}
		if names, _ := listNames(t, store, ""); !slices.Equal(names, []string{"f", "huge"}) {
			t.Errorf("%s: %q", size, names)
		}
	}
}

// TestMalformedHeads has one file be answered by a head that HTTP does not have: the source is not down for that.
func TestMalformedHeads(t *testing.T) {
	for name, head := range map[string]string{
		"negative": "Content-Length: -1", "two": "Content-Length: 7\r\nContent-Length: 8",
		"word":    "Content-Length: many",
		"no name": "what is this", "coding": "Transfer-Encoding: zip",
		"long": "X: " + strings.Repeat("x", mostHeader+1),
	} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/":
				page(w, "f", "odd")
			case "/odd":
				hijack(w, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n", []byte("content"))
			default:
				marked{`"1"`, long, "content"}.serve(w, r)
			}
		})
		store := opened(t, o, nil)
		_, err := store.Stat(testContext(t), "odd")
		again, _ := Retryable(err)
		if err == nil || again || errors.Is(err, cacheclient.ErrUnavailable) || len(err.Error()) > 400 {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
			t.Errorf("%s: the other file: %q, %v", name, got, err)
		}
	}
}

// TestRedirectsOfDirectories mounts servers that lead a directory elsewhere before they list it.
func TestRedirectsOfDirectories(t *testing.T) {
	to := func(target string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, http.StatusFound) }
	}
	list := func(links ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { page(w, links...) }
	}
	file := func(w http.ResponseWriter, r *http.Request) { marked{`"1"`, long, "content"}.serve(w, r) }
	words := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<title>Words</title><pre><a href="other">x</a></pre>`)
	}
	for name, answers := range map[string]map[string]func(http.ResponseWriter, *http.Request){
		"to a page in it": {
			"/": list("dir/"), "/dir": to("/dir/"), "/dir/": to("/dir/index.html"),
			"/dir/index.html": list("f", "sub/", "/dir/g", "/elsewhere"),
		},
		"to its other name": {
			"/": list("dir/"), "/dir": to("/dir/"), "/dir/": to("/other/dir"),
			"/other/dir": list("dir/f", "/other/dir/sub/", "/other/dir/g"),
		},
		"to its bare address": {"/": list("dir"), "/dir/": to("/dir"), "/dir": list("dir/f", "dir/sub/", "/dir/g")},
	} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			if answer := answers[r.URL.Path]; answer != nil {
				answer(w, r)
				return
			}
			switch plain := strings.TrimSuffix(r.URL.Path, "/"); {
			case plain == "/words" && plain != r.URL.Path, plain == "/dir/f" && plain != r.URL.Path:
				to(plain)(w, r)
			case plain == "/words":
				words(w, r)
			case plain == "/dir/f":
				file(w, r)
			default:
				http.NotFound(w, r)
			}
		})
		store := opened(t, o, nil)
		if info, err := store.Stat(testContext(t), "dir"); err != nil || !info.Dir {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if names, _ := listNames(t, store, "dir"); !slices.Equal(names, []string{"f", "g", "sub/"}) {
			t.Errorf("%s: %q", name, names)
		}
		for _, path := range []string{"dir/f", "words"} {
			err := store.List(testContext(t), path, func(cacheclient.Info) error { return nil })
			if !errors.Is(err, cacheclient.ErrNotDir) {
				t.Errorf("%s: %s is listed: %v", name, path, err)
			}
		}
	}
	// A server may lead to another host without a slash there.
	u, err := url.Parse("http://h/")
	if err != nil {
		t.Fatal(err)
	}
	if tellsKind(u, "https://www.h") {
		t.Error("a root is taken for a file")
	}
}

// TestNoSlashOddEntries lists a directory whose entries are each asked for, some of which answer otherwise.
func TestNoSlashOddEntries(t *testing.T) {
	var busy atomic.Bool
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		status := map[string]int{"/broken": http.StatusInternalServerError, "/secret": http.StatusForbidden}[r.URL.Path]
		switch {
		case r.URL.Path == "/":
			page(w, "broken", "f", "gone", "long", "secret")
		case r.URL.Path == "/f" && busy.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case status != 0:
			w.WriteHeader(status)
		case r.URL.Path == "/long":
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", nil)
		case r.URL.Path == "/f":
			marked{`"1"`, long, "content"}.serve(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	store := opened(t, o, map[string]string{"no_slash": "true"})
	names, infos := listNames(t, store, "")
	if !slices.Equal(names, []string{"broken", "f", "long", "secret"}) {
		t.Fatalf("%q", names)
	}
	for _, info := range infos {
		if unknown := info.Size == cacheclient.UnknownSize; unknown != (info.Path != "f") {
			t.Errorf("%+v", info)
		}
	}
	busy.Store(true)
	err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil })
	if again, _ := Retryable(err); !again {
		t.Errorf("a server that is busy: %v", err)
	}
}

// TestPlusSigns asks for names with a plus sign as they are, also of servers that read one as a space.
func TestPlusSigns(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			page(w, "a+b", "/c+d/")
		case strings.Contains(r.URL.EscapedPath(), "+"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, "/"):
			page(w, "e+f", r.URL.Path+"g")
		default:
			marked{`"1"`, long, r.URL.Path}.serve(w, r)
		}
	})
	store := opened(t, o, nil)
	listNames(t, store, "")
	if names, _ := listNames(t, store, "c+d"); !slices.Equal(names, []string{"e+f", "g"}) {
		t.Errorf("%q", names)
	}
	if got, err := readConfirmed(t, store, statOf(t, store, "a+b")); err != nil || got != "/a+b" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLinkForms links entries in several forms, and directories by what is in them. That each name is there once is
// seen to by the keeper of the listing. The server knows no directory x.
func TestLinkForms(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "b.iso", "a%20b", "./a%20b", "z", "x", "%7a", "build/100/i586/", "build/101/i586/", "x/", "/z",
				"//"+r.Host+"/b.iso", "http:"+r.Host, "12:30.log", "")
			return
		}
		http.NotFound(w, r)
	})
	names, _ := listNames(t, opened(t, o, nil), "")
	if names = slices.Compact(names); !slices.Equal(names, []string{"12:30.log", "a b", "b.iso", "build/", "x", "z"}) {
		t.Errorf("%q", names)
	}
}

// TestHoldsItself walks a tree that holds itself: it ends.
func TestHoldsItself(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			page(w, "f", "self/", "again/")
			return
		}
		marked{`"1"`, long, "content"}.serve(w, r)
	})
	store := opened(t, o, nil)
	files, deepest := 0, 0
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		deepest = max(deepest, depth)
		if depth > 4*sameAbove {
			t.Fatal("it does not end")
		}
		_, infos := listNames(t, store, dir)
		for _, info := range infos {
			if info.Dir && (info.Name() == "self" || depth == 0) {
				walk(info.Path, depth+1)
			} else if !info.Dir {
				files++
			}
		}
	}
	walk("", 0)
	if deepest != sameAbove || files != 1+2*sameAbove {
		t.Errorf("%d deep, %d files", deepest, files)
	}
	if told := strings.Join(noted(t, store), "\n"); !strings.Contains(told, "holds itself") {
		t.Errorf("%q", told)
	}
	// Directories that look alike are none above each other.
	deep := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if n := strings.Count(r.URL.Path, "/"); n < 3*sameAbove {
			page(w, "x/", "f"+strconv.Itoa(n))
			return
		}
		page(w, "leaf")
	})
	store = opened(t, deep, nil)
	dir := ""
	for range 3*sameAbove - 1 {
		listNames(t, store, dir)
		dir = join(dir, "x")
	}
	if names, _ := listNames(t, store, dir); !slices.Equal(names, []string{"leaf"}) || len(noted(t, store)) != 0 {
		t.Errorf("%q, %q", names, noted(t, store))
	}
}

// TestTiles walks a tree of map tiles, which has files at its leaves alone.
func TestTiles(t *testing.T) {
	tiles := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		switch n := strings.Count(r.URL.Path, "/"); {
		case n < 3*sameAbove:
			page(w, "0/", "1/", "2/", "3/")
		case strings.HasSuffix(r.URL.Path, "/"):
			page(w, "tile.png")
		default:
			page(w)
		}
	})
	store := opened(t, tiles, nil)
	tile := ""
	for range 3*sameAbove - 1 {
		if names, _ := listNames(t, store, tile); !slices.Equal(names, []string{"0/", "1/", "2/", "3/"}) {
			t.Fatalf("%q has %q", tile, names)
		}
		tile = join(tile, "3")
	}
	if names, _ := listNames(t, store, tile); !slices.Equal(names, []string{"tile.png"}) || len(noted(t, store)) != 0 {
		t.Errorf("%q, %q", names, noted(t, store))
	}
	// One of directories alone ends as well, later.
	store = opened(t, newOdd(t, func(w http.ResponseWriter, _ *http.Request) { page(w, "a/") }), nil)
	levels, inner := 0, ""
	for names := []string{""}; len(names) > 0 && levels <= 2*sameDirsAbove; inner = join(inner, "a") {
		names, _ = listNames(t, store, inner)
		levels++
	}
	if levels != sameDirsAbove+1 {
		t.Errorf("%d directories in each other", levels)
	}
}

// TestHeldBackIsBounded keeps so many bytes of names back until a directory is compared, and no more.
func TestHeldBackIsBounded(t *testing.T) {
	s := &httpStore{shapes: newShapes()}
	passed := 0
	hold, end := s.heldBack("d", newShape(), func(cacheclient.Info) error { passed++; return nil })
	const entries = 20
	for range entries {
		if err := hold(cacheclient.Info{Path: "d/" + strings.Repeat("n", maxToken)}); err != nil {
			t.Fatal(err)
		}
	}
	if held := entries - passed; held > mostHeldBytes/maxToken {
		t.Errorf("%d names of a megabyte are held back", held)
	}
	if err := end(); err != nil || passed != entries {
		t.Errorf("%d entries, %v", passed, err)
	}
}

// TestListingForms lists directories in each form that servers have, and what is none.
func TestListingForms(t *testing.T) {
	answers := map[string]func(w http.ResponseWriter, r *http.Request){
		"nginx json": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_,
				_ = io.WriteString(w,
				`[{"name":"d","type":"directory"},{"name":"f","type":"file","size":4611686018427387904}]`)
		},
		"nginx xml": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			_,
				_ = io.WriteString(w,
				`<?xml version="1.0"?><list><directory>d</directory><file size="-1">f</file></list>`)
		},
		"caddy": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && !strings.Contains(r.Header.Get("Accept"), "application/json") {
				t.Errorf("Accept is %q", r.Header.Get("Accept"))
			}
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_,
				_ = io.WriteString(w,
				`[{"name":"d/","url":"./d/","is_dir":true},{"name":"f","url":"./f","is_dir":false}]`)
		},
		"dufs": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "json" {
				w.Header().Set("Content-Type", "text/html")
				_, _ = io.WriteString(w, `<html><script>DATA = {"paths":[]}</script></html>`)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_,
				_ = io.WriteString(w,
				`{"href":"/","paths":[{"path_type":"Dir","name":"d"},{"path_type":"File","name":"f"}]}`)
		},
		"other json, and a page": func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.Header.Get("Accept"), "json") {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"children":[]}`)
				return
			}
			page(w, "d/", "f")
		},
		"no such type": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept") != "" {
				w.WriteHeader(http.StatusNotAcceptable)
				return
			}
			page(w, "d/", "f")
		},
	}
	for name, answer := range answers {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/":
				answer(w, r)
			case "/f":
				if strings.Contains(r.Header.Get("Accept"), "json") {
					t.Errorf("%s: a file is asked for with Accept %q", name, r.Header.Get("Accept"))
				}
				marked{`"1"`, long, "content"}.serve(w, r)
			default:
				page(w)
			}
		})
		store := opened(t, o, nil)
		if names, _ := listNames(t, store, ""); !slices.Equal(names, []string{"d/", "f"}) {
			t.Errorf("%s: %q", name, names)
		}
		statOf(t, store, "f")
	}
	for name, body := range map[string]string{
		"application/json": `[{"name":"a","type":"file"},{"name":"b"}]`,
		"application/xml":  "<rss></rss>", "text/plain": "a",
	} {
		o := newOdd(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", name)
			_, _ = io.WriteString(w, body)
		})
		if _, err := Open(testContext(t), o.URL, Options{Deferred: false}); name != "application/json" &&
			!errors.Is(err, errNoIndex) {
			t.Errorf("%s: %v", name, err)
		}
		store := mustOpen(t, o.URL, Options{Deferred: true})
		if err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil }); !errors.Is(err,
			errNoIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestXMLNameInPieces has a name come in many pieces, each of which costs what it is long.
func TestXMLNameInPieces(t *testing.T) {
	const pieces = 1 << 15
	page := "<list><file>" + strings.Repeat("a<!---->", pieces) + "</file></list>"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	root := &url.URL{Scheme: "http", Host: "h", Path: "/"}
	i := index{base: root, entry: func(name string, _ bool) error {
		if name != strings.Repeat("a", pieces) {
			t.Errorf("the name has %d bytes", len(name))
		}
		return nil
	}}
	err := i.parseXML(strings.NewReader(page))
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; err != nil || i.entries != 1 || took > 32 {
		t.Errorf("%d entries, %v, and %d MiB are taken", i.entries, err, took)
	}
}

// TestPartsAreTold shows indexes of which only a part is understood.
func TestPartsAreTold(t *testing.T) {
	for note, body := range map[string]string{
		"goes on":        `<title>Index of /</title><a href="a">a</a><a href="?page=2">more</a>`,
		"shown as empty": `<title>Index of /</title><a href="https://cdn.example/a">a</a><a href="https://cdn.example/b">b</a>`,
		"left out":       `<title>Index of /</title><a href="a%2Fb">a</a><a href="c">c</a>`,
	} {
		o := newOdd(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, body)
		})
		store := opened(t, o, nil)
		listNames(t, store, "")
		if told := strings.Join(noted(t, store), "\n"); !strings.Contains(told, note) {
			t.Errorf("%s: %q", note, told)
		}
	}
	// Without a length only the page itself tells that it was cut.
	for body, whole := range map[string]bool{
		`<html><title>Index of /</title><body><a href="a">a</a></body></html>`: true,
		`<html><title>Index of /</title><body><a href="a">a</a>`:               false,
		`<title>Index of /</title><pre><a href="a">a</a>`:                      true,
	} {
		o := newOdd(t, func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n", []byte(body))
		})
		store := opened(t, o, nil)
		err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil })
		if retry, _ := Retryable(err); retry == whole || (err == nil) != whole {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestRootWithoutSlash mounts an index whose address has no slash.
func TestRootWithoutSlash(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/repo/HEAD":
			page(w, "HEAD/sub/", "/repo/HEAD/f", "../elsewhere")
		case "/repo/HEAD/f":
			marked{`"1"`, long, "content"}.serve(w, r)
		case "/repo/HEAD/sub/":
			page(w, "g")
		default:
			http.NotFound(w, r)
		}
	})
	store := mustOpen(t, o.URL+"/repo/HEAD", Options{})
	if names, _ := listNames(t, store, ""); !slices.Equal(names, []string{"f", "sub/"}) {
		t.Errorf("%q", names)
	}
	if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Open(testContext(t), o.URL+"/repo/NONE", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestOwnHeaders has the user's headers win over ours, and others sent beside.
func TestOwnHeaders(t *testing.T) {
	t.Setenv("UFS_TEST_HEADERS", "User-Agent,Mozilla/5.0,Accept-Encoding,gzip,accept,text/odd,X-Twice,1,X-Twice,2")
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		for name, want := range map[string]string{
			"User-Agent": "Mozilla/5.0", "Accept-Encoding": "gzip", "Accept": "text/odd", "X-Twice": "1 2",
		} {
			if got := strings.Join(r.Header.Values(name), " "); got != want {
				t.Errorf("%s of %s is %q", name, r.URL.Path, got)
			}
		}
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		marked{`"1"`, long, "content"}.serve(w, r)
	})
	store := opened(t, o, map[string]string{"headers": "env:UFS_TEST_HEADERS"})
	if _, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil {
		t.Error(err)
	}
}

// TestProxy reads through a proxy that an option names, and around one that the environment names.
func TestProxy(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		marked{`"1"`, long, "content of " + r.Host}.serve(w, r)
	})
	store := mustOpen(t, "http://nowhere.invalid/", Options{Values: map[string]string{"proxy": o.URL}})
	if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content of nowhere.invalid" {
		t.Errorf("%q, %v", got, err)
	}
	mustOpen(t, o.URL, Options{Values: map[string]string{"proxy": "none"}})
	for value, want := range map[string]string{
		"nonsense": "is no proxy", "ftp://h:1": "accepted are http", "http://me:hunter2@h:1": "options " +
			"file", "http://me:hunter2@": "options file",
	} {
		_, err := Open(testContext(t), o.URL, Options{Values: map[string]string{"proxy": value}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// TestRedirectInside has a source lead to addresses that only this machine reaches.
func TestRedirectInside(t *testing.T) {
	inner := newOdd(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	_, port, err := net.SplitHostPort(strings.TrimPrefix(inner.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0",
		"[::ffff:127.0.0.1]",
	} {
		source := &httptest.Server{
			Listener: l,
			Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					page(w, "leak")
					return
				}
				http.Redirect(w, r, "http://"+host+":"+port+"/secret", http.StatusFound)
			})},
		}
		source.Start()
		store := mustOpen(t, source.URL, Options{})
		if info, err := store.Stat(testContext(t), "leak"); !errors.Is(err, errInside) {
			t.Errorf("%s: %+v, %v", host, info, err)
		} else if retry, _ := Retryable(err); retry {
			t.Errorf("%s: it is to be retried", host)
		}
		address := l.Addr().String()
		source.Close()
		if l, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	_ = l.Close()
	if n := inner.count(http.MethodHead, "") + inner.count(http.MethodGet, ""); n != 0 {
		t.Errorf("what is inside was asked %d times", n)
	}
}

// TestRedirectByName has a name hide an address inside.
func TestRedirectByName(t *testing.T) {
	w, err := newWay(proxyOptions{Proxy: "none"}, Options{ResponseTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := w.dial(away(testContext(t), true), "tcp", "localhost:1"); !errors.Is(err, errInside) {
		t.Errorf("%v, %v", conn, err)
	}
	if _, err := w.dial(away(testContext(t), false), "tcp", "localhost:1"); errors.Is(err, errInside) {
		t.Error(err)
	}
}

// TestOneConnection is a server that serves one connection at a time, and keeps it while it is idle.
func TestOneConnection(t *testing.T) {
	pace.Long(t)
	var one sync.Mutex
	o := newOdd(t, nil)
	o.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		marked{`"1"`, long, "content"}.serve(w, r)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				one.Lock()
				defer one.Unlock()
				defer conn.Close()
				to, err := net.Dial("tcp", o.Listener.Addr().String())
				if err != nil {
					return
				}
				defer to.Close()
				go func() { _, _ = io.Copy(conn, to); _ = conn.Close() }()
				_, _ = io.Copy(to, conn)
			}()
		}
	}()
	store := mustOpen(t, "http://"+l.Addr().String()+"/", Options{ResponseTimeout: pace.Limit(4 * time.Second)})
	for range 2 {
		if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
			t.Errorf("%q, %v", got, err)
		}
		listNames(t, store, "")
	}
}

// TestValidators reads what headers tell, and gives it back from a version.
func TestValidators(t *testing.T) {
	for name, h := range map[string]http.Header{
		"strong": {"Etag": {`"a"`}}, "weak": {"Etag": {`W/"a"`}, "Last-Modified": {long.Format(http.TimeFormat)}},
		"long": {"Etag": {`"` + strings.Repeat("e", 1<<20) + `"`}}, "digest": {"Repr-Digest": {"sha-256=:x:"}},
		"both": {"Etag": {"odd\ttag"}, "Digest": {"md5=y"}}, "none": {},
		"time":         {"Last-Modified": {"Thu, 01 Jan 1970 00:00:01 GMT"}},
		"made of both": {"Etag": {`"1-7"`}, "Last-Modified": {"Thu, 01 Jan 1970 00:00:01 GMT"}},
		"of content":   {"Etag": {`"c0ffee"`}, "Last-Modified": {"Thu, 01 Jan 1970 00:00:01 GMT"}},
		"of a time":    {"Etag": {`"663212a0-7"`}, "Last-Modified": {long.Format(http.TimeFormat)}},
	} {
		v := readValidators(h)
		info := cacheclient.Info{Size: 1, ModTime: v.modTime, Version: v.version(trustAll)}
		if how := v.differ(recorded(info), trustAll); how != "" {
			t.Errorf("%s: %s", name, how)
		}
		if len(info.Version) > 1024 {
			t.Errorf("%s: a version of %d bytes", name, len(info.Version))
		}
		none := name == "none" || name == "time" || name == "made of both"
		if (head{validators: v, size: 7}).none() != none {
			t.Errorf("%s: none is not %v", name, none)
		}
		for _, other := range []validators{{etag: `"b"`, digest: "Digest:z", modTime: long.Add(time.Hour)}} {
			if got := other.differ(recorded(info), trustAll) != ""; got == (name == "none") {
				t.Errorf("%s: another differs: %v", name, got)
			}
		}
	}
}

// TestBusy tells what is busy from what is down.
func TestBusy(t *testing.T) {
	for code, busy := range map[int]bool{429: true, 503: true, 500: false, 502: false, 404: false} {
		if got := (&StatusError{Code: code}).Busy(); got != busy {
			t.Errorf("%d: %v", code, got)
		}
	}
}

// TestParentGone ends with the context while a listing is asked for a kind.
func TestParentGone(t *testing.T) {
	blocked := make(chan struct{})
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/d/" {
			<-blocked
		}
		if r.URL.Path == "/" {
			page(w, "d/")
			return
		}
		w.WriteHeader(http.StatusForbidden)
	})
	t.Cleanup(func() { close(blocked) })
	store := opened(t, o, nil)
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if _, err := store.Stat(ctx, "d/x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
