package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/faultproxy"
	"millrace.io/millrace/sanity/pace"
)

// proxied is a worker behind a proxy that passes everything on until it is told otherwise.
func proxied(tb testing.TB, c *Cluster, s *cluster.Server) (*Worker, *faultproxy.Proxy) {
	tb.Helper()
	p := faulty(tb, s)
	host, port := splitPort(tb, p.Address())
	w, err := c.At(workerAddress(host, port))
	if err != nil {
		tb.Fatal(err)
	}
	return w, p
}

// faulty is a proxy in front of a server.
func faulty(tb testing.TB, s *cluster.Server) *faultproxy.Proxy {
	tb.Helper()
	p, err := faultproxy.Start(tb.Context(), "127.0.0.1:0", s.Address())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// cache has the worker cache block k of a source.
func (s *source) cache(tb testing.TB, w *Worker, k int) {
	tb.Helper()
	if err := w.Cache(within(tb, 30*time.Second), s.block(k), s.under(k).Length, *s.under(k), false); err != nil {
		tb.Fatal(err)
	}
}

func TestReadBlock(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	w := workerAt(t, m, c.Workers()[0])
	s := newSource(t, c, m, 10<<20+77)
	const whole = 8 << 20
	if _, err := w.ReadBlock(within(t, 10*time.Second), s.block(0), 0, whole, nil); !NotCached(err) {
		t.Errorf("a block that is not cached: %v", err)
	}
	// The first of these reads it from the under store, and it is cached then.
	for _, r := range []struct{ off, n int64 }{
		{0, whole},
		{0, whole},
		{0, 1},
		{whole - 1, 1},
		{1, whole - 1},
		{4095, 4098},
		{whole - 3<<20 - 5, 3 << 20},
		{2 << 20, 2 << 20},
	} {
		var under *UnderStore
		if r.off == 0 {
			under = s.under(0)
		}
		reader, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), r.off, r.n, under)
		if err != nil {
			t.Errorf("%d bytes at %d: %v", r.n, r.off, err)
			continue
		}
		if reader.At() != r.off {
			t.Errorf("%d bytes at %d begin at %d", r.n, r.off, reader.At())
		}
		if got, err := readAll(reader); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.content[r.off:r.off+r.n]) {
			t.Errorf("%d bytes at %d: %d bytes, or others, and %v", r.n, r.off, len(got), err)
		}
	}
	reader, err := w.ReadBlock(within(t, 20*time.Second), s.block(1), 0, s.under(1).Length, s.under(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(reader); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.bytes(1)) {
		t.Errorf("the last block: %d bytes, and %v", len(got), err)
	}
	readBeyond(t, w, s)
}

// readBeyond asks for what no block has.
func readBeyond(t *testing.T, w *Worker, s *source) {
	t.Helper()
	const whole = 8 << 20
	if _, err := w.ReadBlock(within(t, 10*time.Second), s.block(0), whole, 1, nil); !errors.Is(err, ErrShort) {
		t.Errorf("a byte behind the end: %v", err)
	}
	reader, err := w.ReadBlock(within(t, 10*time.Second), s.block(0), whole-10, 11, nil)
	if err == nil {
		var got []byte
		got, err = readAll(reader)
		if !bytes.Equal(got, s.content[whole-10:whole]) {
			t.Errorf("a range that goes beyond the end: %q", got)
		}
	}
	if !errors.Is(err, ErrShort) {
		t.Errorf("a range that goes beyond the end: %v", err)
	}
	for _, r := range []struct{ off, n int64 }{{0, 0}, {0, -1}, {-1, 5}} {
		if _, err := w.ReadBlock(within(t, 10*time.Second), s.block(0), r.off, r.n, nil); !errors.Is(err,
			fs.ErrInvalid) {
			t.Errorf("%d bytes at %d: %v", r.n, r.off, err)
		}
	}
}

// TestDamagedBlock has a worker cache blocks of wrong lengths: it serves them and says that all is well.
func TestDamagedBlock(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	w := workerAt(t, m, c.Workers()[0])
	for _, length := range []int64{0, 1, 3<<20 + 1} {
		s := newSource(t, c, m, 4<<20)
		if err := w.Cache(within(t, 20*time.Second), s.block(0), length, *s.under(0), false); err != nil {
			t.Fatal(err)
		}
		read := func() ([]byte, error) {
			r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, 4<<20, s.under(0))
			if err != nil {
				return nil, err
			}
			return readAll(r)
		}
		if got, err := read(); !errors.Is(err, ErrShort) || errors.Is(err, cacheclient.ErrUnavailable) ||
			!bytes.Equal(got, s.content[:length]) {
			t.Errorf("a block that was cached with %d bytes: %d bytes, and %v", length, len(got), err)
		}
		if err := w.Remove(within(t, 20*time.Second), s.block(0)); err != nil {
			t.Errorf("removing it: %v", err)
		}
		if got, err := read(); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.content) {
			t.Errorf("the block after it was removed: %d bytes, and %v", len(got), err)
		}
	}
}

// TestSlowReader leaves a stream of a large block alone: what is in memory meanwhile is bounded by the transport's
// window.
func TestSlowReader(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	const size, most = 128 << 20, 40 << 20
	dir, path := mountBlocks(t, m, size)
	if err := os.WriteFile(filepath.Join(dir, "large"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "large"), size); err != nil {
		t.Fatal(err)
	}
	info, err := m.Status(within(t, 20*time.Second), path+"/large", AlwaysSync)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{info: info}
	w, p := proxied(t, m, c.Workers()[0])
	s.cache(t, workerAt(t, m, c.Workers()[0]), 0)
	before := p.Stats().Down
	r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, size, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Some of it fast, so that the window grows.
	received := int64(0)
	next := func() error {
		c, err := r.Next()
		if err == nil {
			received += int64(c.Len())
			c.Free()
		}
		return err
	}
	for received < 32<<20 {
		if err := next(); err != nil {
			t.Fatal(err)
		}
	}
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	heap := stats.HeapInuse
	time.Sleep(time.Second)
	runtime.GC()
	runtime.ReadMemStats(&stats)
	waiting, grown := p.Stats().Down-before-received, int64(stats.HeapInuse)-int64(heap)
	t.Logf("a reader that pauses has %.1f MiB waiting, and the heap has grown by %.1f MiB", float64(waiting)/(1<<20),
		float64(grown)/(1<<20))
	if waiting > most || grown > most {
		t.Errorf("%d bytes wait for a slow reader, and the heap has grown by %d, wanted at most %d", waiting, grown,
			most)
	}
	for err == nil {
		err = next()
	}
	if !errors.Is(err, io.EOF) || received != size {
		t.Errorf("%d bytes in all, and %v", received, err)
	}
	r.Close()
}

// TestReadEndsEarly ends reads before their ends: the worker has nothing to complain of, and keeps no lock.
func TestReadEndsEarly(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	server := c.Workers()[0]
	w := workerAt(t, m, server)
	logged := logSize(t, server)
	var sources []*source
	for range 8 {
		s := newSource(t, c, m, 8<<20)
		s.cache(t, w, 0)
		sources = append(sources, s)
	}
	var readers sync.WaitGroup
	for _, s := range sources {
		readers.Go(func() {
			r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, 8<<20, nil)
			if err != nil {
				t.Error(err)
				return
			}
			chunk, err := r.Next()
			if err != nil {
				t.Error(err)
			}
			chunk.Free()
			r.Close()
		})
	}
	readers.Wait()
	for _, s := range sources {
		begin := time.Now()
		if err := w.Remove(within(t, 20*time.Second), s.block(0)); err != nil ||
			time.Since(begin) > pace.Limit(2*time.Second) {
			t.Errorf("the block cannot be removed after its reader is gone: %v after %v", err, time.Since(begin))
		}
	}
	for line := range strings.Lines(logSince(t, server, logged)) {
		if strings.Contains(line, " ERROR ") || strings.Contains(line, "BlockReadHandler") {
			t.Errorf("the worker complains: %s", line)
		}
	}
}

// TestAbort ends a read that waits for a worker that has stopped sending.
func TestAbort(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	s := newSource(t, c, m, 8<<20)
	w, p := proxied(t, m, c.Workers()[0])
	s.cache(t, w, 0)
	r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, 8<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(faultproxy.Faults{StallDown: true})
	aborted := make(chan time.Time, 1)
	time.AfterFunc(300*time.Millisecond, func() {
		aborted <- time.Now()
		r.Abort()
	})
	for err == nil {
		var chunk *Chunk
		chunk, err = r.Next()
		chunk.Free()
	}
	if !errors.Is(err, context.Canceled) {
		// All of it may have been here before the worker was stopped.
		t.Errorf("a read that was aborted ends with %v", err)
	}
	if took := time.Since(<-aborted); took > pace.Limit(time.Second) {
		t.Errorf("it ends %v after that", took)
	}
	r.Close()
	p.Set(faultproxy.Faults{})
	// The connection is as good as before.
	r, err = w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, 8<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.content) {
		t.Errorf("the next read: %d bytes, %v", len(got), err)
	}
}

// TestContextBoundsTheStartOnly cancels the context of a start before and after it.
func TestContextBoundsTheStartOnly(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	s := newSource(t, c, m, 8<<20)
	w, p := proxied(t, m, c.Workers()[0])
	s.cache(t, w, 0)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := w.ReadBlock(ctx, s.block(0), 0, 8<<20, nil)
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.content) {
		t.Errorf("a read whose start's context has ended: %d bytes, %v", len(got), err)
	}
	p.Set(faultproxy.Faults{StallDown: true})
	for name, start := range map[string]func(context.Context) error{
		"ReadBlock": func(ctx context.Context) error {
			_,
				err := w.ReadBlock(ctx, s.block(0), 0, 8<<20, nil)
			return err
		},
		"Locate":      func(ctx context.Context) error { _, err := w.Locate(ctx, s.block(0)); return err },
		"CreateLocal": func(ctx context.Context) error { _, err := w.CreateLocal(ctx, s.block(0)+1, 1); return err },
		"WriteBlock":  func(ctx context.Context) error { _, err := w.WriteBlock(ctx, s.block(0)+2, 1); return err },
		"Cache":       func(ctx context.Context) error { return w.Cache(ctx, s.block(0), 8<<20, *s.under(0), false) },
	} {
		begin := time.Now()
		if err := start(endingAfter(t, 200*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(begin) > pace.Limit(time.Second) {
			t.Errorf("%s at a worker that does not answer: %v after %v", name, err, time.Since(begin))
		}
	}
	if !w.Broken() {
		t.Error("a worker that answered nothing five times is not left alone")
	}
}
