package embedded_test

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/sanity/pace"
)

// noRanges is a cache over a source without ranges, in whose tier a file of size bytes has no room.
func noRanges(t *testing.T, size int, cfg embedded.Config) (*fakeStore, *embedded.Cache, []byte) {
	t.Helper()
	store := newFakeStore()
	store.noRanges = true
	want := random(11, size)
	store.put("a", want, "v")
	if cfg.Levels == nil {
		cfg.Levels = tier(t.TempDir(), 2<<20)
	}
	return store, cacheOf(t, store, cfg), want
}

// readAt checks n bytes at off.
func readAt(ctx context.Context, t *testing.T, f cacheclient.File, want []byte, off, n int) {
	t.Helper()
	d, err := f.Read(ctx, int64(off), n)
	if err != nil {
		t.Fatalf("read at %d: %v", off, err)
	}
	defer d.Release()
	if !bytes.Equal(slices.Concat(d.Parts...), want[off:min(off+n, len(want))]) {
		t.Fatalf("wrong bytes at %d", off)
	}
}

// TestAPassCostsTheFileOnce reads a file that no tier takes from one end to the other, in the pieces that programs and
// kernels read in: the source sends it about once.
func TestAPassCostsTheFileOnce(t *testing.T) {
	pace.Long(t)
	for _, piece := range []int{100_000, 128 << 10, 5 << 20} {
		store, c, want := noRanges(t, 12<<20+5, embedded.Config{})
		f := open(t, c, "a")
		for off := 0; off < len(want); off += piece {
			readAt(t.Context(), t, f, want, off, piece)
		}
		if sent := store.sent.Load(); sent > int64(len(want))*3/2 || store.opens.Load() > 4 {
			t.Errorf("in pieces of %d: %d bodies, %d bytes of %d", piece, store.opens.Load(), sent, len(want))
		}
	}
}

// TestAPassGoesForward reads a little here and there, always further on: what lies between is passed over once.
func TestAPassGoesForward(t *testing.T) {
	store, c, want := noRanges(t, 16<<20, embedded.Config{})
	f := open(t, c, "a")
	for off := 0; off < len(want); off += 1<<20 + 1000 {
		readAt(t.Context(), t, f, want, off, 4096)
	}
	if sent := store.sent.Load(); sent > 2*int64(len(want)) {
		t.Errorf("%d bytes sent of a file of %d", sent, len(want))
	}
}

// TestReadersHavePassesOfTheirOwn has several readers go through the file at different places: each costs it once at
// the most.
func TestReadersHavePassesOfTheirOwn(t *testing.T) {
	const readers = 4
	store, c, want := noRanges(t, 10<<20, embedded.Config{})
	f := open(t, c, "a")
	at := make([]int, readers)
	for i := range at {
		// The first is the furthest on.
		at[i] = (readers - i - 1) * 2 << 20
	}
	for moved := true; moved; {
		moved = false
		for i := range at {
			if at[i] < len(want) {
				readAt(t.Context(), t, f, want, at[i], 300_000)
				at[i] += 300_000
				moved = true
			}
		}
	}
	if sent := store.sent.Load(); sent > (readers+1)*int64(len(want)) {
		t.Errorf("%d bytes sent of a file of %d for %d readers", sent, len(want), readers)
	}
}

// TestPassesAtRandom reads at random places, side by side and in little memory: right bytes, no hang, and it is told
// once.
func TestPassesAtRandom(t *testing.T) {
	pace.Long(t)
	var log logLines
	_, c, want := noRanges(t, 6<<20, embedded.Config{
		StagingBytes: 2 << 20,
		Log:          slog.New(slog.NewTextHandler(&log, nil)),
	})
	f := open(t, c, "a")
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(time.Minute))
	defer cancel()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 7))
			for range 10 {
				off, n := rnd.IntN(len(want)), 1+rnd.IntN(1<<20)
				d, err := f.Read(ctx, int64(off), n)
				if err != nil {
					t.Errorf("read at %d: %v", off, err)
					return
				}
				if !bytes.Equal(slices.Concat(d.Parts...), want[off:min(off+n, len(want))]) {
					t.Errorf("wrong bytes at %d", off)
				}
				d.Release()
			}
		})
	}
	wg.Wait()
	if n := strings.Count(log.String(), "from the beginning"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
}

// TestAPausedPassHoldsNoSlot has readers of more files than there are connections stop in the middle. Others go on.
func TestAPausedPassHoldsNoSlot(t *testing.T) {
	const connections = 2
	store, c, want := noRanges(t, 6<<20, embedded.Config{Connections: connections})
	var files []cacheclient.File
	for i := range 3 * connections {
		store.put(numbered(i), want, "v")
		f := open(t, c, numbered(i))
		readAt(t.Context(), t, f, want, 0, 10)
		files = append(files, f)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(20*time.Second))
	defer cancel()
	for _, f := range files {
		readAt(ctx, t, f, want, 5<<20, 10)
	}
}

// TestAPassBreaks goes on after an error where it was.
func TestAPassBreaks(t *testing.T) {
	src := newSource(t)
	want := random(1, 6<<20)
	src.write(t, "a", want)
	n := 0
	src.setFault(func(*http.Request) fault {
		if n++; n == 2 {
			return func(w http.ResponseWriter, r *http.Request, content http.HandlerFunc) {
				r.Header.Del("Range")
				cutAfter(4<<20)(w, r, content)
			}
		}
		return ignoreRange
	})
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 2<<20), Timeout: time.Minute})
	if got := readFile(t, c, "a"); !bytes.Equal(got, want) {
		t.Error("wrong bytes")
	}
	if sent := src.sent.Load(); sent > 4*int64(len(want)) {
		t.Errorf("%d bytes sent of a file of %d", sent, len(want))
	}
}

// logLines collects what is logged.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestPausedPassesAreFew has readers stop in the middle of more files than a quarter of the connections: their bodies
// are given back, other files are read meanwhile, and each reader goes on all the same.
func TestPausedPassesAreFew(t *testing.T) {
	const files, connections = 9, 8
	store := newFakeStore()
	store.noRanges = true
	var live atomic.Int64
	store.opened = func(ctx context.Context, _ cacheclient.Info, data []byte) ([]byte, error) {
		live.Add(1)
		context.AfterFunc(ctx, func() { live.Add(-1) })
		return data, nil
	}
	want := random(12, 6<<20)
	for i := range files {
		store.put(strconv.Itoa(i), want, "v")
	}
	c := cacheOf(t, store, embedded.Config{Connections: connections, Levels: tier(t.TempDir(), 2<<20)})
	opened := make([]cacheclient.File, files)
	for i := range opened {
		opened[i] = open(t, c, strconv.Itoa(i))
		readAt(t.Context(), t, opened[i], want, 0, 4096)
	}
	// A pass that is cancelled ends a moment later.
	for end := time.Now().Add(pace.Limit(10 * time.Second)); live.Load() > connections/4; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bodies are held for readers that do not read", live.Load())
		}
	}
	for _, f := range opened {
		readAt(t.Context(), t, f, want, 4<<20, 4096)
	}
}
