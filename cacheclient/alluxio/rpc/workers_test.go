package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/pace"
)

func TestLiveWorkers(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	if known := m.Known(); len(known) != 0 {
		t.Errorf("workers are known before anybody was asked: %v", known)
	}
	requests := make([][]*Worker, 50)
	var calls sync.WaitGroup
	for i := range requests {
		calls.Go(func() {
			var err error
			if requests[i], err = m.Live(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	var want []string
	for _, w := range c.Workers() {
		want = append(want, w.Address())
	}
	slices.Sort(want)
	for _, live := range requests {
		var got []string
		for _, w := range live {
			got = append(got, w.Addr())
			if w.Capacity() != 512<<20 || !strings.HasPrefix(w.Addr(), w.Host()+":") {
				t.Errorf("%s is known with host %s and %d bytes", w.Addr(), w.Host(), w.Capacity())
			}
		}
		if !slices.Equal(got, want) || !slices.Equal(live, requests[0]) {
			t.Fatalf("%v are live, wanted %v", got, want)
		}
	}
	if w := workerAt(t, m, c.Workers()[0]); !slices.Contains(requests[0], w) {
		t.Error("a worker that is listed and one that a location names are two")
	}
	m.Workers.mu.Lock()
	m.stale = time.Time{}
	m.Workers.mu.Unlock()
	m.Masters.close()
	if live, err := m.Live(within(t, 10*time.Second)); err != nil || len(live) != 2 {
		t.Errorf("while no master answers %d of 2 workers are known: %v", len(live), err)
	}
}

func TestNoWorkersToList(t *testing.T) {
	pace.Long(t)
	noMoreGoroutines(t)
	unused := listen(t)
	_ = unused.Close()
	m := connect(t, unused.Addr().String())
	for range 3 {
		begin := time.Now()
		live, err := m.Live(within(t, 10*time.Second))
		if len(live) != 0 || !errors.Is(err, cacheclient.ErrUnavailable) ||
			time.Since(begin) > pace.Limit(listPatience+time.Second) {
			t.Errorf("%v, %v after %v", live, err, time.Since(begin))
		}
	}
	for _, a := range []*wire.WorkerNetAddress{
		nil, workerAddress("", 1), workerAddress("h", 0),
		workerAddress("h", 70000), workerAddress("h", -1),
	} {
		if w, err := m.At(a); err == nil {
			t.Errorf("%v is the worker %s", a, w.Addr())
		}
	}
	w, err := m.At(&wire.WorkerNetAddress{
		Host: proto.String("node"), ContainerHost: proto.String("10.1.2.3"),
		RpcPort: proto.Int32(29999),
	})
	if err != nil || w.Addr() != "10.1.2.3:29999" || w.Host() != "node" {
		t.Errorf("a worker in a container is connected to at %q and called %q (%v)", w.Addr(), w.Host(), err)
	}
}

// TestBreaker checks what counts as a failure of a worker.
func TestBreaker(t *testing.T) {
	plain := []error{nil, fs.ErrNotExist, fs.ErrPermission, ErrNoRoom, ErrShort, fs.ErrExist}
	silent := []error{context.Canceled, errReleased}
	failures := []error{&Unreachable{}, context.DeadlineExceeded, fmt.Errorf("x: %w", cacheclient.ErrUnavailable)}
	for _, failure := range failures {
		w := newWorker(nil, nil)
		for range brokenAfter - 1 {
			w.outcome(failure)
		}
		for _, err := range silent {
			w.outcome(err)
		}
		if w.Broken() {
			t.Errorf("%d times %v, and the worker is broken", brokenAfter-1, failure)
		}
		w.outcome(failure)
		if !w.Broken() {
			t.Errorf("%d times %v, and the worker is not broken", brokenAfter, failure)
		}
		for _, err := range plain {
			w.outcome(failure)
			w.outcome(err)
			if w.Broken() {
				t.Errorf("a worker that answered %v is broken", err)
			}
		}
	}
}

// TestRoles asks all masters what they are.
func TestRoles(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roles := m.Roles(within(t, 10*time.Second))
	for _, master := range c.Masters() {
		want := Standby
		if master == leader {
			want = Leading
		}
		if got := roles[master.Address()]; got != want {
			t.Errorf("%s says that it is %q, want %q", master.Name, got, want)
		}
	}
}

// TestReport reports what was read, and looks for it in the leader's own metrics.
func TestReport(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	const name = "Cluster.BytesReadLocal"
	read := func() float64 {
		metrics, err := m.Metrics(within(t, 10*time.Second))
		value, ok := metrics[name]
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", name, ok, err)
		}
		return value
	}
	before := read()
	for range 3 {
		if err := m.Report(within(t, 10*time.Second), "millrace-test",
			map[string]int64{"BytesReadLocal": 1000}); err != nil {
			t.Fatal(err)
		}
	}
	after := read()
	for ctx := within(t, 20*time.Second); after-before != 3000 && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		after = read()
	}
	if after-before != 3000 {
		t.Errorf("%s was %.0f and is %.0f after 3 reports of 1000", name, before, after)
	}
}

// TestReleaseWhileCallsRun releases the cluster under all kinds of calls: they end, with an error that says why, and
// nothing is left.
func TestReleaseWhileCallsRun(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	other := connect(t, addresses(c)...)
	s := newSource(t, c, other, 8<<20)
	s.cache(t, workerAt(t, other, c.Workers()[0]), 0)
	for range 5 {
		m, err := Connect(Config{Masters: addresses(c), Security: Security{User: "releases"}})
		if err != nil {
			t.Fatal(err)
		}
		w := workerAt(t, m, c.Workers()[0])
		var released atomic.Bool
		var calls sync.WaitGroup
		for i := range 40 {
			calls.Go(func() {
				for err := error(nil); err == nil; {
					ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(10*time.Second))
					err = someCall(ctx, m, w, s, i)
					cancel()
					if err != nil && !released.Load() || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("call %d: %v", i, err)
					}
				}
			})
		}
		time.Sleep(200 * time.Millisecond)
		released.Store(true)
		begin := time.Now()
		m.Release()
		if took := time.Since(begin); took > pace.Limit(3*time.Second) {
			t.Errorf("Release took %v", took)
		}
		calls.Wait()
		if took := time.Since(begin); took > pace.Limit(5*time.Second) {
			t.Errorf("the calls ended %v after Release", took)
		}
		if _, err := m.Status(within(t, time.Second), "/", NeverSync); !errors.Is(err, cacheclient.ErrClosed) {
			t.Errorf("a call after Release: %v", err)
		}
		if err := w.Remove(within(t, time.Second), 1); !errors.Is(err, cacheclient.ErrClosed) {
			t.Errorf("a call after Release: %v", err)
		}
	}
}

// someCall makes one of several calls.
func someCall(ctx context.Context, m *Cluster, w *Worker, s *source, i int) error {
	switch i % 5 {
	case 0:
		_, err := m.Status(ctx, s.path, NeverSync)
		return err
	case 1:
		m.Workers.mu.Lock()
		m.stale = time.Time{}
		m.Workers.mu.Unlock()
		if _, err := m.Live(ctx); err != nil {
			return err
		}
		return m.Check(ctx)
	case 2:
		r, err := w.ReadBlock(ctx, s.block(0), 0, 8<<20, nil)
		if err != nil {
			return err
		}
		if got, err := readAll(r); len(got) < 8<<20 {
			return err
		}
		return nil
	case 3:
		_, err := w.Locate(ctx, s.block(0))
		return err
	}
	return m.List(ctx, "/", NeverSync, func() error { return nil }, func(*wire.FileInfo) error { return nil })
}

// TestReleaseOfWhatHangs releases a cluster whose leader and a worker are paused, with calls under way.
func TestReleaseOfWhatHangs(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m, err := Connect(Config{Masters: addresses(c), Security: Security{User: "hangs"}})
	if err != nil {
		t.Fatal(err)
	}
	w := workerAt(t, m, c.Workers()[1])
	if err := w.Remove(within(t, 10*time.Second), 1); err != nil && !NotCached(err) {
		t.Fatal(err)
	}
	if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
		t.Fatal(err)
	}
	pause(t, c, leaderOf(t, c))
	if err := c.Workers()[1].Pause(); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for _, call := range []func() error{
		func() (err error) {
			// Another master may come to lead meanwhile, and answer.
			for err == nil {
				_, err = m.Status(t.Context(), "/", NeverSync)
			}
			return err
		},
		func() error { return w.Remove(t.Context(), 1) },
		func() error { _, err := w.Locate(t.Context(), 1); return err },
	} {
		calls.Go(func() {
			if err := call(); !errors.Is(err, cacheclient.ErrClosed) {
				t.Error(err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	m.Release()
	calls.Wait()
	if took := time.Since(begin); took > pace.Limit(8*time.Second) {
		t.Errorf("Release took %v", took)
	}
	t.Logf("Release took %v", time.Since(begin).Round(time.Millisecond))
}
