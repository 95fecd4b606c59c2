package ufs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// readPart reads and confirms the last half of a version.
func readPart(t *testing.T, store Store, info cacheclient.Info) ([]byte, error) {
	t.Helper()
	off := info.Size / 2
	body, err := store.Open(testContext(t), info, off, info.Size-off)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if _, err := io.CopyN(io.Discard, body, off-body.Start); err != nil {
		return nil, err
	}
	got, err := io.ReadAll(body)
	if err == nil && body.Confirm != nil {
		err = body.Confirm(testContext(t))
	}
	return got, err
}

// TestOddFileWeakensNoOther has files whose marks mean nothing beside one with a strong ETag: a change of that is
// seen, and it is described by its ETag alone.
func TestOddFileWeakensNoOther(t *testing.T) {
	for name, odd := range map[string]func(n int64) (marked, time.Time){
		"clock": func(n int64) (marked, time.Time) {
			at := long.Add(time.Duration(n) * time.Second)
			return marked{"", at, "odd"}, at
		},
		"one use": func(n int64) (marked, time.Time) {
			return marked{fmt.Sprintf(`"use%d"`, n), long, "odd"},
				time.Now()
		},
		"two servers": func(n int64) (marked, time.Time) {
			return marked{fmt.Sprintf(`"%d"`, n%2), long.Add(time.Duration(n%2) * time.Hour), "odd"}, time.Now()
		},
		"two of times": func(n int64) (marked, time.Time) {
			return marked{"", long.Add(time.Duration(n%2) * time.Hour), "odd"}, time.Now()
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "clock" {
				pace.Long(t) // Each read waits until the file is two seconds old by its own clock.
			}
			before := bytes.Repeat([]byte("o"), 5<<20)
			after := bytes.Clone(before)
			after[3<<19] = 'N'
			var now atomic.Pointer[marked]
			now.Store(&marked{`"1"`, long, string(before)})
			var n atomic.Int64
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/":
					page(w, "f", "odd1")
				case "/f":
					now.Load().serve(w, r)
				default:
					r.Header.Del("If-Match")
					m, at := odd(n.Add(1))
					w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
					m.serve(w, r)
				}
			})
			store := opened(t, o, nil)
			for i := range 8 {
				path := fmt.Sprintf("odd%d", i%4)
				if got, err := readConfirmed(t, store, statOf(t, store, path)); err != nil || got != "odd" {
					t.Errorf("%s: %q, %v", path, got, err)
				}
				n.Add(1)
			}
			if len(noted(t, store)) == 0 {
				t.Error("nothing was noticed")
			}
			was := statOf(t, store, "f")
			if was.Version != `"1"` {
				t.Errorf("the version of the other is %q", was.Version)
			}
			// The size and the time stay.
			now.Store(&marked{`"2"`, long, string(after)})
			if _, err := readPart(t, store, was); !errors.Is(err, cacheclient.ErrStale) {
				t.Errorf("what was before: %v", err)
			}
			is := statOf(t, store, "f")
			if cacheclient.Identify(is) == cacheclient.Identify(was) {
				t.Error("another ETag is the same version")
			}
			if got, err := readConfirmed(t, store, is); err != nil || got != string(after) {
				t.Errorf("what is now: %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestMarksThatVanish has a file change into one of the same size that tells nothing: its bytes are of no version
// before.
func TestMarksThatVanish(t *testing.T) {
	strong := marked{`"1"`, long, ""}
	for name, c := range map[string]struct {
		was, is  marked
		validate string
		stale    bool
	}{
		"all":                 {was: strong, stale: true},
		"the time":            {was: marked{modTime: long}, stale: true},
		"the weak ETag":       {was: marked{etag: `W/"1"`}, stale: true},
		"all, by ETag":        {was: strong, validate: validateETag, stale: true},
		"all, by time":        {was: strong, validate: validateTime, stale: true},
		"nothing, by time":    {was: marked{}, validate: validateTime, stale: true},
		"nothing, by ETag":    {was: marked{}, validate: validateETag, stale: true},
		"the strength":        {was: strong, is: marked{`W/"1"`, long, ""}, stale: true},
		"the ETag alone":      {was: strong, is: marked{modTime: long}},
		"the time alone":      {was: strong, is: marked{etag: `"1"`}},
		"all, by size":        {was: strong, validate: validateSize},
		"the ETag, by time":   {was: strong, is: marked{modTime: long}, validate: validateTime},
		"of ranges, HEAD has": {was: strong, is: marked{etag: "of ranges"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.was.content, c.is.content = strings.Repeat("A", 1000), strings.Repeat("B", 1000)
			var changed atomic.Bool
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				r.Header.Del("If-Match")
				described := r.Method == http.MethodHead || r.Header.Get("Range") == "bytes=0-0"
				switch {
				case r.URL.Path == "/":
					page(w, "f")
				case !changed.Load(), c.is.etag == "of ranges" && described:
					c.was.serve(w, r)
				case c.is.etag == "of ranges":
					marked{content: c.is.content}.serve(w, r)
				default:
					c.is.serve(w, r)
				}
			})
			store := opened(t, o, map[string]string{"validate": c.validate})
			was := statOf(t, store, "f")
			compared(t, store)
			changed.Store(true)
			if _, err := readPart(t, store, was); errors.Is(err, cacheclient.ErrStale) != c.stale ||
				err != nil && !c.stale {
				t.Errorf("%v", err)
			}
			if c.stale {
				if got, err := readPart(t, store, statOf(t, store, "f")); err != nil ||
					string(got) != c.is.content[500:] {
					t.Errorf("described anew: %d bytes, %v", len(got), err)
				}
			}
		})
	}
}

// TestYoungFileIsReadWhenItHasGrown has a file be written again in its second, after it was described: no byte is
// taken until two seconds have passed, by the server's clock, where its marks are made of its time.
func TestYoungFileIsReadWhenItHasGrown(t *testing.T) {
	for name, c := range map[string]struct {
		etag  string
		age   time.Duration
		waits bool
	}{
		"made of time and size": {etag: `"663212a0-7"`, waits: true},
		"attributes, hashed":    {etag: `"3124234234"`, waits: true},
		"time":                  {age: time.Second, waits: true},
		"of content":            {etag: `"9a0364b9e99bb480dd25e1f0284c8555"`},
		"of content, in Base64": {etag: `"mgNkuemTtIDdJeHwKEyFVQ"`},
		"of the far future":     {age: -time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bodies atomic.Int64
			var first atomic.Int64
			begun := time.Now()
			o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					page(w, "f")
					return
				}
				age := c.age + time.Since(begun)
				if r.Method == http.MethodGet && r.Header.Get("Range") != "bytes=0-0" && bodies.Add(1) == 1 {
					first.Store(int64(age))
				}
				w.Header().Set("Date", long.Add(age).Format(http.TimeFormat))
				marked{c.etag, long, "content"}.serve(w, r)
			})
			store := opened(t, o, nil)
			if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
				t.Errorf("%q, %v", got, err)
			}
			if age := time.Duration(first.Load()); c.waits && age < youngest {
				t.Errorf("it was read at an age of %v", age)
			}
			if n := bodies.Load(); n != 1 {
				t.Errorf("%d bodies", n)
			}
		})
	}
}

// TestETagsThatTellNoTime has ETags of attributes among which the time is, and others that stay when a file is
// overwritten.
func TestETagsThatTellNoTime(t *testing.T) {
	const size = 3_000_000
	at := time.Unix(1714557600, 0)
	for etag, is := range map[string]bool{
		`"2dc6c0"`: true, `"1a2b-2dc6c0"`: true, `"3000000"`: true, `"12:2dc6c0"`: true,
		`"663212a0-2dc6c0"`:                          false, // nginx
		`"2dc6c0-617618cb1e800"`:                     false, // Apache httpd
		`"1:2dc6c0:663212a0:0"`:                      false, // actix
		`"17cb550d96f24000-2dc6c0"`:                  false, // aiohttp
		`"scsx401satc"`:                              false, // Caddy
		`"3124234234"`:                               false, // lighttpd
		`"9a0364b9e99bb480dd25e1f0284c8555-3000000"`: false, // S3, of that many parts
		`"9a0364b9e99bb480dd25e1f0284c8555"`:         false, `"v1"`: false, `"0x8DC69B2F4A2C0E1"`: false,
	} {
		if timeless(etag, size, at) != is {
			t.Errorf("%s", etag)
		}
	}
}

// TestOverwrittenBesideItsETag overwrites a file whose ETag is made of its inode and size.
func TestOverwrittenBesideItsETag(t *testing.T) {
	was := marked{`"1a2b-3e8"`, long, strings.Repeat("A", 1000)}
	is := marked{was.etag, long.Add(time.Hour), strings.Repeat("B", 1000)}
	var changed atomic.Bool
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			page(w, "f")
		case changed.Load():
			is.serve(w, r)
		default:
			was.serve(w, r)
		}
	})
	store := opened(t, o, nil)
	before := statOf(t, store, "f")
	if got, err := readConfirmed(t, store, before); err != nil || got != was.content {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	changed.Store(true)
	after := statOf(t, store, "f")
	if cacheclient.Identify(before) == cacheclient.Identify(after) {
		t.Error("both are one version")
	}
	if _, err := readPart(t, store, before); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("what was before: %v", err)
	}
	if got, err := readConfirmed(t, store, after); err != nil || got != is.content {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestYoungFileOfNoClock has a server tell the time of a file that is written just now, and no time of its own.
func TestYoungFileOfNoClock(t *testing.T) {
	t.Parallel()
	written := time.Now()
	var first atomic.Int64
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		if r.Method == http.MethodGet && r.Header.Get("Range") != "bytes=0-0" {
			first.CompareAndSwap(0, int64(time.Since(written)))
		}
		marked{"", written, "content"}.serve(w, r)
	})
	store := opened(t, o, nil)
	if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "content" {
		t.Errorf("%q, %v", got, err)
	}
	if age := time.Duration(first.Load()); age < youngest-time.Second {
		t.Errorf("it was read at an age of %v", age)
	}
}

// TestYoungAnswerIsNotTaken has a file become young after it was described, in an answer of the same marks.
func TestYoungAnswerIsNotTaken(t *testing.T) {
	var bodies atomic.Int64
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		m, date := marked{"", long, "CONTENT"}, long.Add(time.Hour)
		if r.Method == http.MethodGet && r.Header.Get("Range") != "bytes=0-0" && bodies.Add(1) == 1 {
			m.content, date = "content", long
		}
		w.Header().Set("Date", date.Format(http.TimeFormat))
		m.serve(w, r)
	})
	store := opened(t, o, nil)
	if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != "CONTENT" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestHeadOfAnotherLength has HEAD tell another size than the bodies have, whose length is not told.
func TestHeadOfAnotherLength(t *testing.T) {
	content := strings.Repeat("0123456789", 5000)
	for _, told := range []int{1000, 99_999} {
		o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/":
				page(w, "f", "good")
			case r.URL.Path == "/good":
				marked{`"1"`, long, "content"}.serve(w, r)
			case r.Method == http.MethodHead:
				marked{`"1"`, long, strings.Repeat("x", told)}.serve(w, r)
			default:
				w.Header().Set("Etag", `"1"`)
				w.Header().Set("Last-Modified", long.Format(http.TimeFormat))
				_ = http.NewResponseController(w).Flush()
				_, _ = io.WriteString(w, content)
			}
		})
		store := opened(t, o, nil)
		statOf(t, store, "good")
		compared(t, store)
		info := statOf(t, store, "f")
		if info.Size != int64(told) {
			t.Fatalf("HEAD is not believed: %+v", info)
		}
		if got, err := readConfirmed(t, store, info); err == nil {
			t.Errorf("%d: %d bytes", told, len(got))
		}
		if got, err := readConfirmed(t, store, info); !errors.Is(err, cacheclient.ErrStale) {
			t.Errorf("%d: again: %d bytes, %v", told, len(got), err)
		}
		if got, err := readConfirmed(t, store, statOf(t, store, "f")); err != nil || got != content {
			t.Errorf("%d: described anew: %d bytes, %v", told, len(got), err)
		}
	}
}

// TestNoContentIsEmpty has an empty file be answered 204.
func TestNoContentIsEmpty(t *testing.T) {
	o := newOdd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			page(w, "f")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if info, err := opened(t, o, nil).Stat(testContext(t), "f"); err != nil || info.Size != 0 || info.Dir {
		t.Errorf("%+v, %v", info, err)
	}
}
