package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// wide is a web server with files of random bytes, so many bytes each, and its own cache over it.
func wide(t *testing.T, budget *Budget, files int, size int64, delay time.Duration) (*Cache, []byte) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(files)}).Read(data)
	mod := time.Now().Add(-48 * time.Hour)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			_, _ = fmt.Fprint(w, "<html><title>Index of /</title><pre><a href=\"f0\">f0</a></pre></html>")
			return
		}
		if r.Method == http.MethodGet {
			time.Sleep(delay)
		}
		http.ServeContent(w, r, r.URL.Path, mod, bytes.NewReader(data))
	}))
	t.Cleanup(srv.Close)
	store, err := ufs.Open(t.Context(), srv.URL+"/", ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(store, Config{Budget: budget, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, data
}

// readThrough reads a file from its beginning in reads of 128 KiB until the end or the context's, and tells how long
// each took.
func readThrough(ctx context.Context, c *Cache, name string, want []byte) ([]time.Duration, error) {
	info, err := c.Stat(ctx, name)
	if err != nil {
		return nil, err
	}
	f, err := c.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	const n = 128 << 10
	var took []time.Duration
	for off := int64(0); off < info.Size && ctx.Err() == nil; off += n {
		began := time.Now()
		d, err := f.Read(ctx, off, n)
		if err != nil {
			return took, err
		}
		took = append(took, time.Since(began))
		same := bytes.Equal(slices.Concat(d.Parts...), want[off:min(off+n, info.Size)])
		d.Release()
		if !same {
			return took, fmt.Errorf("wrong bytes at %d", off)
		}
	}
	return took, nil
}

// TestGreedyCacheStarvesNobody has fifty streams through one cache, none of whose bytes a tier takes, and measures one
// through another cache of the same budget.
func TestGreedyCacheStarvesNobody(t *testing.T) {
	pace.Long(t)
	const total = 16
	budget := NewBudget(total * BlockSize)
	greedy, much := wide(t, budget, 50, 64<<20, 5*time.Millisecond)
	modest, little := wide(t, budget, 1, 16<<20, 0)
	ctx, stop := context.WithCancel(t.Context())
	var streams sync.WaitGroup
	for i := range 50 {
		streams.Go(func() {
			for ctx.Err() == nil {
				if _, err := readThrough(ctx, greedy, fmt.Sprintf("f%d", i), much); err != nil && ctx.Err() == nil {
					t.Errorf("a greedy stream: %v", err)
					return
				}
			}
		})
	}
	until(t, func() bool { return budget.Used() >= (total-1)*BlockSize })
	took, err := readThrough(t.Context(), modest, "f0", little)
	stop()
	streams.Wait()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d reads beside 50 streams: median %v, p99 %v, longest %v; at most %d MiB held of %d",
		len(took), took[len(took)/2], p99, took[len(took)-1], budget.Most()>>20, total)
	if p99 > pace.Limit(2*time.Second) {
		t.Errorf("p99 of the modest reader is %v", p99)
	}
	if most := budget.Most(); most > (total+2*leastBlocks)*BlockSize {
		t.Errorf("%d bytes were held of a budget of %d", most, budget.Size())
	}
}

// until waits for a condition.
func until(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(pace.Limit(20 * time.Second)); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// TestIdleMemoryIsGivenBack reads through a cache and waits.
func TestIdleMemoryIsGivenBack(t *testing.T) {
	budget := NewBudget(8 * BlockSize)
	budget.idle = 50 * time.Millisecond
	c, data := wide(t, budget, 1, 12<<20, 0)
	if _, err := readThrough(t.Context(), c, "f0", data); err != nil {
		t.Fatal(err)
	}
	if budget.Most() == 0 {
		t.Fatal("nothing was staged")
	}
	until(t, func() bool { return budget.Used() == 0 })
	if _, err := readThrough(t.Context(), c, "f0", data); err != nil {
		t.Errorf("after memory was given back: %v", err)
	}
}

// TestLoanedMemoryOutlivesItsCache holds bytes of a cache that is closed.
func TestLoanedMemoryOutlivesItsCache(t *testing.T) {
	budget := NewBudget(4 * BlockSize)
	budget.idle = 10 * time.Millisecond
	c, data := wide(t, budget, 1, 3<<20, 0)
	info, err := c.Stat(t.Context(), "f0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Read(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(slices.Concat(d.Parts...), data[:1000]) {
		t.Error("bytes on loan changed when their cache was closed")
	}
	d.Release()
	// A read that had begun before Close and comes back to look again ends: the block has no memory any longer.
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(10*time.Second))
	defer cancel()
	late := make(chan error, 1)
	go func() {
		_, err := f.(*file).e.await(ctx, 0, 1000, run{0, 1})
		late <- err
	}()
	select {
	case err := <-late:
		if !errors.Is(err, cacheclient.ErrClosed) {
			t.Errorf("a read under way when the cache was closed: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("a read that was under way when the cache was closed never ends")
	}
	_ = f.Close()
	until(t, func() bool { return budget.Used() == 0 })
	if len(budget.members) != 0 {
		t.Errorf("%d caches are still on the list", len(budget.members))
	}
}

// TestBudgetUnderTurmoil has caches come, take, wait, give up and go at random: the accounts end at zero.
func TestBudgetUnderTurmoil(t *testing.T) {
	const total, caches = 8, 6
	budget := NewBudget(total * BlockSize)
	budget.idle = time.Millisecond
	c := &Cache{ctx: context.Background()}
	e := newEntry(c, cacheclient.Info{Path: "f", Size: 1 << 40})
	var all sync.WaitGroup
	for k := range caches {
		s := &staging{b: budget}
		var users sync.WaitGroup
		for g := range 4 {
			users.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(k), uint64(g)))
				for i := range 300 {
					ctx, cancel := context.WithTimeout(context.Background(),
						time.Duration(rnd.IntN(3000))*time.Microsecond)
					turmoil(ctx, s, e, rnd, int64(i))
					cancel()
				}
			})
		}
		all.Go(func() { users.Wait(); s.close() })
	}
	all.Wait()
	until(t, func() bool { return budget.Used() == 0 })
	budget.mu.Lock()
	defer budget.mu.Unlock()
	if len(budget.members) != 0 || budget.waiters != 0 || budget.used != 0 {
		t.Errorf("%d members, %d waiters, %d blocks used", len(budget.members), budget.waiters, budget.used)
	}
	if budget.most > total+caches*leastBlocks {
		t.Errorf("%d blocks were held of %d", budget.most, total)
	}
}

// turmoil is one use of memory.
func turmoil(ctx context.Context, s *staging, e *entry, rnd *rand.Rand, block int64) {
	if rnd.IntN(2) == 0 {
		if buf, err := s.buffer(ctx); err == nil {
			s.giveBack(buf)
		}
		return
	}
	sb, err := s.take(ctx, e, block)
	if err != nil {
		return
	}
	read := s.use(sb)
	s.filled(sb)
	if read {
		s.done(sb)
	}
}
