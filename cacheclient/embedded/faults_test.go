package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/sanity/pace"
)

// TestRightBytesWhateverTheSourceDoes reads at random while the source fails a third of the
// requests in every way it can, and files are evicted all the time.
func TestRightBytesWhateverTheSourceDoes(t *testing.T) {
	pace.Long(t)
	for name, cfg := range map[string]embedded.Config{
		"tier":    {Levels: tier(t.TempDir(), 16<<20)},
		"levels":  {Levels: append(tier(t.TempDir(), 12<<20), tier(t.TempDir(), 16<<20)...)},
		"staging": {StagingBytes: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) { rightBytes(t, cfg) })
	}
}

func rightBytes(t *testing.T, cfg embedded.Config) {
	t.Helper()
	src := newSource(t)
	files := make([][]byte, 8)
	for i := range files {
		files[i] = random(byte(i), 2<<20+i*777_777)
		src.write(t, numbered(i), files[i])
	}
	faults := []fault{
		cutAfter(0), cutAfter(100_000), cutAfter(1<<20 + 1), status(http.StatusInternalServerError, ""),
		status(http.StatusServiceUnavailable, "0"), status(http.StatusTooManyRequests, "0"), ignoreRange,
	}
	var n atomic.Int64
	src.setFault(func(*http.Request) fault {
		if k := n.Add(1); k%3 == 0 {
			return faults[int(k/3)%len(faults)]
		}
		return nil
	})
	c := src.client(t, cfg)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 3))
			for range 25 {
				i := rnd.IntN(len(files))
				checkRandom(t, c, rnd, numbered(i), files[i])
			}
		})
	}
	wg.Wait()
	if n.Load() < 20 {
		t.Errorf("only %d requests: the faults were not met", n.Load())
	}
	if used, quota := c.Capacity().Used, c.Capacity().Quota; used > quota || used < 0 {
		t.Errorf("%d bytes used of a quota of %d", used, quota)
	}
}

func checkRandom(t *testing.T, c cacheclient.Client, rnd *rand.Rand, name string, want []byte) {
	t.Helper()
	info, err := c.Stat(t.Context(), name)
	if err != nil {
		t.Errorf("stat %s: %v", name, err)
		return
	}
	f, err := c.Open(t.Context(), info)
	if err != nil {
		t.Errorf("open %s: %v", name, err)
		return
	}
	defer func() { _ = f.Close() }()
	for range 3 {
		off := rnd.IntN(len(want))
		d, err := f.Read(t.Context(), int64(off), 1+rnd.IntN(1<<20))
		if err != nil {
			t.Errorf("read %s at %d: %v", name, off, err)
			return
		}
		if got := slices.Concat(d.Parts...); !bytes.Equal(got, want[off:off+len(got)]) || len(got) == 0 {
			t.Errorf("read %s at %d: %d wrong bytes", name, off, len(got))
		}
		d.Release()
	}
}

// TestEachBlockComesOnce has many readers of a cold file cost the source one file.
func TestEachBlockComesOnce(t *testing.T) {
	src := newSource(t)
	want := random(1, 16<<20)
	src.write(t, "f", want)
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := readFile(t, c, "f"); !bytes.Equal(got, want) {
				t.Error("wrong bytes")
			}
		})
	}
	wg.Wait()
	if sent := src.sent.Load(); sent != int64(len(want)) {
		t.Errorf("the source sent %d bytes for a file of %d", sent, len(want))
	}
}

// TestReadersDoNotWaitForBlocks reads the first bytes of a block whose rest never comes. Where the answer does not
// prove its version the source is asked in the pause; the rest may also come very slowly.
func TestReadersDoNotWaitForBlocks(t *testing.T) {
	pace.Long(t)
	src := newSource(t)
	want := random(1, 3<<20)
	src.write(t, "f", want)
	for name, cfg := range map[string]embedded.Config{
		"tier": {Levels: tier(t.TempDir(), 64<<20), Timeout: time.Minute}, "staging": {Timeout: time.Minute},
		"weak/tier": {Levels: tier(t.TempDir(), 64<<20), Timeout: time.Minute}, "weak/staging": {Timeout: time.Minute},
		"weak/tier/slow":    {Levels: tier(t.TempDir(), 64<<20), Timeout: time.Minute},
		"weak/staging/slow": {Timeout: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			src.strong.Store(!strings.HasPrefix(name, "weak"))
			src.setFault(func(*http.Request) fault {
				if strings.HasSuffix(name, "slow") {
					return trickle(100_000)
				}
				return stall(100_000)
			})
			defer src.setFault(nil)
			f := open(t, src.client(t, cfg), "f")
			ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(5*time.Second))
			defer cancel()
			d, err := f.Read(ctx, 1000, 4096)
			if err != nil || !bytes.Equal(slices.Concat(d.Parts...), want[1000:5096]) {
				t.Fatalf("%d bytes, %v", d.Len(), err)
			}
			d.Release()
		})
	}
}

func TestSilentSourceFailsWithinTheTimeout(t *testing.T) {
	src := newSource(t)
	src.write(t, "f", random(1, 3<<20))
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20), Timeout: time.Second})
	f := open(t, c, "f")
	src.setFault(func(*http.Request) fault { return stall(0) })
	began := time.Now()
	_, err := f.Read(t.Context(), 0, 10)
	if took := time.Since(began); !errors.Is(err, cacheclient.ErrUnavailable) || took > pace.Limit(4*time.Second) {
		t.Fatalf("a silent source: %v after %v", err, took)
	}
	src.setFault(nil)
	if got := readFile(t, c, "f"); !bytes.Equal(got, random(1, 3<<20)) {
		t.Error("wrong bytes after the source came back")
	}
}

func TestSourceDownAndBack(t *testing.T) {
	src := newSource(t)
	cached, other := random(1, 3<<20), random(2, 3<<20)
	src.write(t, "cached", cached)
	src.write(t, "other", other)
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20), Timeout: 500 * time.Millisecond, TTL: -1})
	_ = readFile(t, c, "cached")
	info, err := c.Stat(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	addr := src.addr()
	src.stop()
	if got := readFile(t, c, "cached"); !bytes.Equal(got, cached) {
		t.Error("a cached file reads wrong while the source is down")
	}
	f, err := c.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(t.Context(), 0, 10); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("a file that is not cached: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	src.start(t, addr)
	if got := readFile(t, c, "other"); !bytes.Equal(got, other) {
		t.Error("wrong bytes after the source came back")
	}
}

// TestChangeHalfWay replaces a file under a reader, which must not see a mix.
func TestChangeHalfWay(t *testing.T) {
	src := newSource(t)
	before, after := random(1, 8<<20), random(2, 8<<20)
	src.write(t, "f", before)
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
	f := open(t, c, "f")
	d, err := f.Read(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	d.Release()
	src.writeAt(t, "f", after, time.Now())
	for off := int64(0); off < 8<<20; off += 1 << 20 {
		d, err := f.Read(t.Context(), off, 1<<20)
		if errors.Is(err, cacheclient.ErrStale) {
			break
		}
		if err != nil || !bytes.Equal(slices.Concat(d.Parts...), before[off:off+1<<20]) {
			t.Fatalf("the reader of the old version got other bytes at %d, or %v", off, err)
		}
		d.Release()
	}
	if got := readFile(t, c, "f"); !bytes.Equal(got, after) {
		t.Error("the next opener got other bytes than the new version's")
	}
}

func TestSourceWithoutRanges(t *testing.T) {
	src := newSource(t)
	want := random(1, 20<<20)
	src.write(t, "f", want)
	src.setFault(func(*http.Request) fault { return ignoreRange })
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 5))
			for range 5 {
				checkRandom(t, c, rnd, "f", want)
			}
		})
	}
	wg.Wait()
	f := open(t, c, "f")
	if got, err := readAll(t.Context(), f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestLentBytesOutliveTheirFetch holds bytes of a block whose rest fails for good.
func TestLentBytesOutliveTheirFetch(t *testing.T) {
	for name, cfg := range map[string]embedded.Config{"tier": {Levels: tier(t.TempDir(), 64<<20)}, "staging": {}} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t)
			want := random(1, 3<<20)
			src.write(t, "f", want)
			release := make(chan struct{})
			src.setFault(func(*http.Request) fault {
				return func(w http.ResponseWriter, r *http.Request, content http.HandlerFunc) {
					cutAfter(100_000)(&heldWriter{ResponseWriter: w, until: release}, r, content)
				}
			})
			f := open(t, src.client(t, cfg), "f")
			d, err := f.Read(t.Context(), 1000, 4096)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Release()
			src.setFault(func(*http.Request) fault { return status(http.StatusForbidden, "") })
			close(release)
			if _, err := f.Read(t.Context(), 500_000, 10); err == nil {
				t.Fatal("the rest of the block was read from a source that refuses it")
			}
			if got := slices.Concat(d.Parts...); !bytes.Equal(got, want[1000:5096]) {
				t.Error("bytes on loan changed when their fetch failed")
			}
		})
	}
}
