package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// TestABadFileTakesNothingFromOthers has the source fail for one file, in each way in which it answers. Another file
// has its retries after that, and the source is not called down.
func TestABadFileTakesNothingFromOthers(t *testing.T) {
	for name, bad := range map[string]fault{
		"500": status(http.StatusInternalServerError, ""), "501": status(http.StatusNotImplemented, ""),
		"503, later": status(http.StatusServiceUnavailable, "3600"), "429": status(http.StatusTooManyRequests, "1"),
		"403": status(http.StatusForbidden, ""), "a body that breaks": cutAfter(0), "a body that stops": stall(0),
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t)
			want := random(1, 3<<20)
			src.write(t, "bad", want)
			src.write(t, "good", want)
			c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20), Timeout: 500 * time.Millisecond})
			var broken atomic.Bool
			src.setFault(func(r *http.Request) fault {
				switch {
				case strings.HasSuffix(r.URL.Path, "bad"):
					return bad
				case broken.CompareAndSwap(false, true):
					return cutAfter(1000)
				}
				return nil
			})
			if _, err := open(t, c, "bad").Read(t.Context(), 0, 10); err == nil ||
				errors.Is(err, cacheclient.ErrStale) {
				t.Errorf("the bad file: %v", err)
			}
			if n := c.Counters(); n.SourceDown || n.LastSourceError == "" {
				t.Errorf("down %v, last error %q", n.SourceDown, n.LastSourceError)
			}
			if got := readFile(t, c, "good"); !bytes.Equal(got, want) {
				t.Error("the good file: wrong bytes")
			}
			src.setFault(nil)
			if got := readFile(t, c, "bad"); !bytes.Equal(got, want) {
				t.Error("the bad file when it is good again: wrong bytes")
			}
		})
	}
}

// TestSilenceIsDown has a source vanish: that is no file's trouble.
func TestSilenceIsDown(t *testing.T) {
	src := newSource(t)
	src.write(t, "a", random(1, 3<<20))
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20), Timeout: 300 * time.Millisecond})
	f := open(t, c, "a")
	src.stop()
	if _, err := f.Read(t.Context(), 0, 10); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Fatal(err)
	}
	if !c.Counters().SourceDown {
		t.Error("a source that is gone is not down")
	}
}

// TestRetryAfter is kept where it ends within the reader's patience; one that does not is an error at once.
func TestRetryAfter(t *testing.T) {
	src := newSource(t)
	want := random(1, 1<<20)
	src.write(t, "soon", want)
	src.write(t, "late", want)
	var asked atomic.Int64
	var last atomic.Int64
	src.setFault(func(r *http.Request) fault {
		if strings.HasSuffix(r.URL.Path, "late") {
			return status(http.StatusTooManyRequests, "29")
		}
		if now := time.Now().UnixNano(); asked.Add(1) == 1 {
			last.Store(now)
			return status(http.StatusServiceUnavailable, "1")
		} else if now-last.Load() < int64(time.Second) {
			t.Error("it is asked again before the time")
		}
		return nil
	})
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20), Timeout: 20 * time.Second})
	if got := readFile(t, c, "soon"); !bytes.Equal(got, want) || asked.Load() != 2 {
		t.Errorf("%d bytes after %d requests", len(got), asked.Load())
	}
	begun := time.Now()
	if _, err := open(t, c, "late").Read(t.Context(), 0, 10); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("a file that is to come after all patience: %v", err)
	}
	pace.Within(t, "its error", time.Since(begun), 5*time.Second)
}

// TestRetriesHoldNobodyUp has more readers wait for files that the server is too busy for than there are connections.
func TestRetriesHoldNobodyUp(t *testing.T) {
	const connections = 2
	src := newSource(t)
	want := random(1, 1<<20)
	src.write(t, "good", want)
	for i := range 2 * connections {
		src.write(t, numbered(i), want)
	}
	var refused atomic.Int64
	src.setFault(func(r *http.Request) fault {
		if strings.HasSuffix(r.URL.Path, "good") {
			return nil
		}
		refused.Add(1)
		return status(http.StatusServiceUnavailable, "25")
	})
	c := src.client(t, embedded.Config{
		Levels: tier(t.TempDir(), 64<<20), Timeout: time.Minute,
		Connections: connections,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 2 * connections {
		f := open(t, c, numbered(i))
		wg.Go(func() {
			if _, err := f.Read(ctx, 0, 10); !errors.Is(err, context.Canceled) {
				t.Errorf("a file that the server is too busy for: %v", err)
			}
		})
	}
	for refused.Load() < 2*connections {
		time.Sleep(time.Millisecond)
	}
	if got := readFile(t, c, "good"); !bytes.Equal(got, want) {
		t.Error("wrong bytes")
	}
	cancel()
	wg.Wait()
}

// TestOneEntryTakesNoAttributesFromOthers lists a directory one of whose files the source cannot describe.
func TestOneEntryTakesNoAttributesFromOthers(t *testing.T) {
	store := newFakeStore()
	const files = 40
	store.list = func(_ string, fn func(cacheclient.Info) error) error {
		for i := range files {
			if err := fn(cacheclient.Info{Path: numbered(i), Size: cacheclient.UnknownSize}); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range files {
		store.put(numbered(i), []byte("x"), "v")
	}
	store.failing[numbered(0)] = &ufs.StatusError{Code: http.StatusInternalServerError, URL: "http://x/f0"}
	c := cacheOf(t, store, embedded.Config{Timeout: 100 * time.Millisecond, Connections: 2})
	page, err := c.List(t.Context(), "", cacheclient.Cursor{}, 100, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		if (e.ID == 0) != (e.Path == numbered(0)) {
			t.Errorf("%+v", e)
		}
	}
	if c.Counters().SourceDown {
		t.Error("the source is down for one file")
	}
}
