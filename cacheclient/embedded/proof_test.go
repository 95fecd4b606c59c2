package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/sanity/pace"
)

// eachWay runs a test for bytes that go into a tier and into memory, from sources with ranges and without.
func eachWay(t *testing.T, test func(t *testing.T, store *fakeStore, cfg embedded.Config)) {
	t.Helper()
	for _, tiered := range []bool{true, false} {
		for _, ranges := range []bool{true, false} {
			t.Run(fmt.Sprintf("tier %v, ranges %v", tiered, ranges), func(t *testing.T) {
				store, cfg := newFakeStore(), embedded.Config{Timeout: 30 * time.Second}
				store.noRanges = !ranges
				if tiered {
					cfg.Levels = tier(t.TempDir(), 256<<20)
				}
				test(t, store, cfg)
			})
		}
	}
}

// TestBytesInDoubtAreProvenOnceARun reads files whose bodies are to be confirmed: right bytes, and few more requests.
func TestBytesInDoubtAreProvenOnceARun(t *testing.T) {
	pace.Long(t)
	eachWay(t, func(t *testing.T, store *fakeStore, cfg embedded.Config) {
		t.Helper()
		want := random(1, 20<<20+77)
		store.put("a", want, "v")
		store.confirm = func(context.Context) error { return nil }
		c := cacheOf(t, store, cfg)
		if got := readFile(t, c, "a"); !bytes.Equal(got, want) {
			t.Error("wrong bytes")
		}
		n := store.confirms.Load()
		t.Logf("%d bodies, %d confirmations", store.opens.Load(), n)
		if len(cfg.Levels) > 0 && n > store.opens.Load()+3 {
			t.Errorf("%d confirmations of %d bodies", n, store.opens.Load())
		}
		if sent := store.sent.Load(); sent > int64(len(want))*3/2 {
			t.Errorf("%d bytes sent of a file of %d", sent, len(want))
		}
	})
}

// TestNobodyHasBytesInDoubt holds the confirmation back: no reader gets a byte, and no block is vouched for, until it
// comes.
func TestNobodyHasBytesInDoubt(t *testing.T) {
	eachWay(t, func(t *testing.T, store *fakeStore, cfg embedded.Config) {
		t.Helper()
		want := random(1, 3<<20)
		store.put("a", want, "v")
		asked, answer := make(chan struct{}, 100), make(chan struct{})
		store.confirm = func(ctx context.Context) error {
			asked <- struct{}{}
			select {
			case <-answer:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		c := cacheOf(t, store, cfg)
		f := open(t, c, "a")
		var shown atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := readAll(t.Context(), f)
			shown.Store(true)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
		<-asked
		blocks, err := c.Blocks(t.Context(), "a")
		if err != nil || shown.Load() {
			t.Errorf("read before it is proven: %v (%v)", shown.Load(), err)
		}
		for _, b := range blocks {
			if len(b.Where) > 0 {
				t.Errorf("vouched for before it is proven: %+v", b)
			}
		}
		if _, local := f.Local(); local {
			t.Error("the kernel may have it before it is proven")
		}
		close(answer)
		wg.Wait()
	})
}

// TestBytesOfAnotherVersionAreNobodys replaces a file in the middle of its body. Its readers get ErrStale, and neither
// they nor those after them, nor the next process, see a byte of the mix, though the source comes back with the
// version.
func TestBytesOfAnotherVersionAreNobodys(t *testing.T) {
	eachWay(t, func(t *testing.T, store *fakeStore, cfg embedded.Config) {
		t.Helper()
		before, after := random(1, 6<<20), random(2, 6<<20)
		store.put("a", before, "one")
		var mixing atomic.Bool
		store.opened = func(_ context.Context, _ cacheclient.Info, data []byte) ([]byte, error) {
			if !mixing.Load() {
				return data, nil
			}
			return slices.Concat(before[:512<<10], after[512<<10:]), nil
		}
		store.confirm = func(context.Context) error {
			if mixing.Load() {
				store.put("a", after, "two")
				return cacheclient.ErrStale
			}
			return nil
		}
		mixing.Store(true)
		c := cacheOf(t, store, cfg)
		f := open(t, c, "a")
		if got, err := readAll(t.Context(), f); !errors.Is(err, cacheclient.ErrStale) || len(got) > 0 {
			t.Errorf("%d bytes of a mix, %v", len(got), err)
		}
		mixing.Store(false)
		store.put("a", before, "one")
		if got := readFile(t, c, "a"); !bytes.Equal(got, before) {
			t.Error("a later reader: wrong bytes")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		next := cacheOf(t, store, cfg)
		if got := readFile(t, next, "a"); !bytes.Equal(got, before) {
			t.Error("the next process: wrong bytes")
		}
	})
}

// TestAProofThatDoesNotCome asks again, and does not bring the bytes again.
func TestAProofThatDoesNotCome(t *testing.T) {
	eachWay(t, func(t *testing.T, store *fakeStore, cfg embedded.Config) {
		t.Helper()
		want := random(1, 1<<20)
		store.put("a", want, "v")
		var n atomic.Int64
		store.confirm = func(context.Context) error {
			if n.Add(1) < 3 {
				return cacheclient.ErrUnavailable
			}
			return nil
		}
		c := cacheOf(t, store, cfg)
		if got := readFile(t, c, "a"); !bytes.Equal(got, want) {
			t.Error("wrong bytes")
		}
		if store.sent.Load() != int64(len(want)) || n.Load() != 3 {
			t.Errorf("%d bytes sent, %d confirmations", store.sent.Load(), n.Load())
		}
	})
}

// TestAProofThatNeverComes is an error of the read within its patience, and nothing is kept.
func TestAProofThatNeverComes(t *testing.T) {
	eachWay(t, func(t *testing.T, store *fakeStore, cfg embedded.Config) {
		t.Helper()
		cfg.Timeout = 300 * time.Millisecond
		store.put("a", random(1, 3<<20), "v")
		store.confirm = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		c := cacheOf(t, store, cfg)
		begun := time.Now()
		if _, err := open(t, c, "a").Read(t.Context(), 0, 10); !errors.Is(err, cacheclient.ErrUnavailable) {
			t.Error(err)
		}
		pace.Within(t, "its error", time.Since(begun), 3*time.Second)
		blocks, err := c.Blocks(t.Context(), "a")
		if err != nil || len(blocks) != 1 || len(blocks[0].Where) > 0 {
			t.Errorf("%+v, %v", blocks, err)
		}
	})
}

// TestAProofThatFailsForAMoment says once that the version is gone, which it is not: the bytes come again.
func TestAProofThatFailsForAMoment(t *testing.T) {
	eachWay(t, func(t *testing.T, store *fakeStore, cfg embedded.Config) {
		t.Helper()
		want := random(1, 5<<20)
		store.put("a", want, "v")
		var n atomic.Int64
		store.opened = func(_ context.Context, _ cacheclient.Info, data []byte) ([]byte, error) {
			if n.Load() == 0 {
				return random(3, len(data)), nil
			}
			return data, nil
		}
		store.confirm = func(context.Context) error {
			if n.Add(1) == 1 {
				return cacheclient.ErrStale
			}
			return nil
		}
		c := cacheOf(t, store, cfg)
		f := open(t, c, "a")
		d, err := f.Read(t.Context(), 0, 1000)
		if err != nil || !bytes.Equal(slices.Concat(d.Parts...), want[:1000]) {
			t.Fatalf("%d bytes, %v", d.Len(), err)
		}
		d.Release()
		if got, err := readAll(t.Context(), f); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if c.Counters().Changed != 0 {
			t.Error("it counts as a change")
		}
	})
}

// TestProofsInLittleMemory has more readers of files in doubt than memory for their runs: each wait ends.
func TestProofsInLittleMemory(t *testing.T) {
	store := newFakeStore()
	store.confirm = func(context.Context) error { return nil }
	want := random(1, 5<<20)
	for i := range 6 {
		store.put(numbered(i), want, "v")
	}
	c := cacheOf(t, store, embedded.Config{StagingBytes: 2 << 20})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			f := open(t, c, numbered(i))
			ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(20*time.Second))
			defer cancel()
			if got, err := readAll(ctx, f); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}
