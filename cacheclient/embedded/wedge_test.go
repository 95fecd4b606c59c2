package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// behave is what a wedged server does with a connection until ctx ends.
type behave func(ctx context.Context, conn net.Conn)

// silent reads and never answers.
func silent(ctx context.Context, _ net.Conn) { <-ctx.Done() }

// dribble answers with so many bytes at once, and the rest byte by byte for ever, ten a second.
func dribble(answer string, atOnce int) behave {
	return func(ctx context.Context, conn net.Conn) {
		buf := make([]byte, 4096)
		if _, err := conn.Read(buf); err != nil {
			return
		}
		if _, err := conn.Write([]byte(answer[:atOnce])); err != nil {
			return
		}
		for rest := answer[atOnce:]; ctx.Err() == nil; rest = rest[min(1, len(rest)):] {
			next := "x"
			if rest != "" {
				next = rest[:1]
			}
			if _, err := conn.Write([]byte(next)); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// wedged is a TCP server that takes connections and does not do what it should.
func wedged(t *testing.T, b behave) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = conn.Close() }()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				b(ctx, conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// wedges are the ways to be wedged, by the scheme to reach the server by.
var wedges = map[string]struct {
	source string
	b      behave
}{
	"http silent":       {"http", silent},
	"https silent":      {"https", silent},
	"s3 silent":         {"s3", silent},
	"http slow head":    {"http", dribble("HTTP/1.1 200 OK\r\nX-Slow: ", 0)},
	"s3 slow head":      {"s3", dribble("HTTP/1.1 200 OK\r\nX-Slow: ", 20)},
	"http interim only": {"http", interim},
	"http slow body":    {"http", dribble(answerHead, len(answerHead))},
}

const answerHead = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1048576\r\nLast-Modified: Thu, 01 " +
	"Jan 1970 00:00:01 GMT\r\n\r\n"

// interim sends interim answers for ever, which are no answer.
func interim(ctx context.Context, conn net.Conn) {
	for ctx.Err() == nil {
		if _, err := fmt.Fprint(conn, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// deferred opens a cache over a source that does not answer.
func deferred(t *testing.T, scheme, address string, cfg embedded.Config) *embedded.Cache {
	t.Helper()
	source, opts := scheme+"://"+address+"/", ufs.Options{Deferred: true, ResponseTimeout: cfg.Timeout}
	if scheme == "s3" {
		t.Setenv("WEDGE_SECRET", "x")
		source = "s3://bucket/prefix"
		opts.Values = map[string]string{
			"endpoint": "http://" + address, "access_key_id": "env:WEDGE_SECRET",
			"secret_access_key": "env:WEDGE_SECRET",
		}
	}
	began := time.Now()
	store, err := ufs.Open(t.Context(), source, opts)
	if err != nil {
		t.Fatal(err)
	}
	c, err := embedded.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > pace.Limit(2*time.Second) {
		t.Errorf("opening without asking the source took %v", took)
	}
	return c
}

// wedgedInfo is of a file that the source may have.
var wedgedInfo = cacheclient.Identify(cacheclient.Info{Path: "f", Size: 1 << 20, ModTime: time.Unix(1, 0)})

// requests are all that waits for the source.
func requests(ctx context.Context, c *embedded.Cache) map[string]func() error {
	read := func(open func(context.Context, cacheclient.Info) (cacheclient.File, error)) error {
		f, err := open(ctx, wedgedInfo)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		d, err := f.Read(ctx, 500_000, 500_000)
		d.Release()
		return err
	}
	return map[string]func() error{
		"stat":   func() error { _, err := c.Stat(ctx, "some/path"); return err },
		"list":   func() error { _, err := c.List(ctx, "", cacheclient.Cursor{}, 10, true); return err },
		"read":   func() error { return read(c.Open) },
		"resume": func() error { return read(c.Resume) },
		"warm":   func() error { return c.Warm(ctx, "f", nil) },
		"blocks": func() error { _, err := c.Blocks(ctx, "g"); return err },
	}
}

// TestWedgedSourceFailsInTime makes every request to a source that takes connections and does not answer.
func TestWedgedSourceFailsInTime(t *testing.T) {
	pace.Long(t)
	const timeout = 500 * time.Millisecond
	for name, w := range wedges {
		if name == "http slow body" {
			// As long as bytes come there is no deadline but the caller's.
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := deferred(t, w.source, wedged(t, w.b), embedded.Config{
				Timeout: timeout,
				Levels:  tier(t.TempDir(), 64<<20),
			})
			defer func() { _ = c.Close() }()
			var all sync.WaitGroup
			for what, f := range requests(t.Context(), c) {
				all.Go(func() {
					began := time.Now()
					err := f()
					if took := time.Since(began); took > pace.Limit(10*timeout) {
						t.Errorf("%s took %v", what, took)
					}
					if !errors.Is(err, cacheclient.ErrUnavailable) {
						t.Errorf("%s: %v, want %v", what, err, cacheclient.ErrUnavailable)
					}
				})
			}
			all.Wait()
			n := c.Counters()
			if !n.SourceDown || time.Since(n.SourceDownSince) > pace.Limit(time.Minute) || n.LastSourceError == "" {
				t.Errorf("the counters tell %v since %v: %q", n.SourceDown, n.SourceDownSince, n.LastSourceError)
			}
		})
	}
}

// TestWedgedSourceHeedsItsCaller does the same with a long timeout and a caller that has less patience.
func TestWedgedSourceHeedsItsCaller(t *testing.T) {
	pace.Long(t)
	for name, w := range wedges {
		t.Run(name, func(t *testing.T) {
			c := deferred(t, w.source, wedged(t, w.b), embedded.Config{
				Timeout: time.Minute,
				Levels:  tier(t.TempDir(), 64<<20),
			})
			defer func() { _ = c.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			var all sync.WaitGroup
			for what, f := range requests(ctx, c) {
				all.Go(func() {
					began := time.Now()
					err := f()
					if took := time.Since(began); took > pace.Limit(3*time.Second) {
						t.Errorf("%s took %v", what, took)
					}
					if err != nil && !errors.Is(err, context.DeadlineExceeded) && name != "http slow body" {
						t.Errorf("%s: %v, want %v", what, err, context.DeadlineExceeded)
					}
				})
			}
			all.Wait()
		})
	}
}

// TestCloseWhileTheSourceIsWedged closes under requests that wait.
func TestCloseWhileTheSourceIsWedged(t *testing.T) {
	for name, w := range wedges {
		t.Run(name, func(t *testing.T) {
			c := deferred(t, w.source, wedged(t, w.b), embedded.Config{
				Timeout: time.Minute,
				Levels:  tier(t.TempDir(), 64<<20),
			})
			var all sync.WaitGroup
			for what, f := range requests(t.Context(), c) {
				all.Go(func() {
					if err := f(); err == nil && name != "http slow body" {
						t.Errorf("%s ends without an error", what)
					}
				})
			}
			waitUntil(t, func() bool { return c.Counters().SourceRequests >= 3 })
			began := time.Now()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > pace.Limit(2*time.Second) {
				t.Errorf("close took %v", took)
			}
			all.Wait()
			if took := time.Since(began); took > pace.Limit(4*time.Second) {
				t.Errorf("the requests ended %v after close began", took)
			}
		})
	}
}

// waitUntil waits for a condition.
func waitUntil(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(pace.Limit(20 * time.Second)); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// TestRestartWhileTheSourceIsDown starts over what is cached of a source that no server has any more.
func TestRestartWhileTheSourceIsDown(t *testing.T) {
	src := newSource(t)
	want := random(1, 3<<20)
	src.write(t, "f", want)
	dir := t.TempDir()
	cfg := embedded.Config{Levels: tier(dir, 64<<20), Timeout: 300 * time.Millisecond}
	c := src.client(t, cfg)
	_ = readFile(t, c, "f")
	info, err := c.Stat(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	src.stop()
	c = deferred(t, "http", src.addr(), cfg)
	defer func() { _ = c.Close() }()
	began := time.Now()
	f, err := c.Resume(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(t.Context(), f)
	if err != nil || string(got) != string(want) {
		t.Errorf("a resumed file: %d bytes, %v", len(got), err)
	}
	if _, ok := f.Local(); !ok {
		t.Error("a resumed file that is cached whole has no local file")
	}
	if took := time.Since(began); took > pace.Limit(time.Second) {
		t.Errorf("what is cached took %v", took)
	}
	_ = f.Close()
	if n := c.Counters(); n.SourceRequests != 0 || n.SourceDown {
		t.Errorf("the source was asked %d times for what is cached", n.SourceRequests)
	}
	if now, err := c.Stat(t.Context(), "f"); err != nil || now.ID != info.ID {
		t.Errorf("stat of a cached file while the source is down: %v", err)
	}
	if _, err := c.Stat(t.Context(), "other"); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("stat of an unknown file while the source is down: %v", err)
	}
	if n := c.Counters(); !n.SourceDown || !strings.Contains(n.LastSourceError, "refuses the connection") {
		t.Errorf("the counters tell down %v, %q", n.SourceDown, n.LastSourceError)
	}
	src.start(t, src.addr())
	if _, err := c.Stat(t.Context(), "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the source came back: %v", err)
	}
	if n := c.Counters(); n.SourceDown || !n.SourceDownSince.IsZero() {
		t.Errorf("the source is told to be down since %v", n.SourceDownSince)
	}
}

// TestErrorsOfTheSourceAreTold has the source refuse everything: it answers, and something is wrong with it.
func TestErrorsOfTheSourceAreTold(t *testing.T) {
	address := cachetest.FreeAddress(t)
	c := deferred(t, "http", address, embedded.Config{Timeout: 200 * time.Millisecond})
	defer func() { _ = c.Close() }()
	if _, err := c.List(t.Context(), "", cacheclient.Cursor{}, 1, false); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
	if n := c.Counters(); !n.SourceDown {
		t.Error("a source that refuses connections is not told to be down")
	}
	src := newSource(t)
	src.write(t, "f", random(1, 1000))
	other := src.client(t, embedded.Config{})
	f := open(t, other, "f")
	src.setFault(func(*http.Request) fault { return status(http.StatusForbidden, "") })
	if _, err := f.Read(t.Context(), 0, 10); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a refused read: %v", err)
	}
	if n := other.Counters(); n.SourceDown || !strings.Contains(n.LastSourceError, "403") {
		t.Errorf("the counters tell down %v, %q", n.SourceDown, n.LastSourceError)
	}
}
