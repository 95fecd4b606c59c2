package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/faultproxy"
	"millrace.io/millrace/sanity/pace"
)

// throughProxies connects to masters behind proxies, of which the leader's is returned.
func throughProxies(t *testing.T, c *cluster.Cluster) (*Cluster, *faultproxy.Proxy) {
	t.Helper()
	leader := leaderOf(t, c)
	var masters []string
	var first *faultproxy.Proxy
	for _, s := range c.Masters() {
		p := faulty(t, s)
		masters = append(masters, p.Address())
		if s == leader {
			first = p
		}
	}
	return connect(t, masters...), first
}

// many is a directory of so many files that a listing of it comes in two messages and megabytes.
var many struct {
	once sync.Once
	dir  string
}

const manyFiles = 10_050

func manyDir(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	many.once.Do(func() {
		many.dir = newDir(t, c, manyFiles)
		if err := connect(t, addresses(c)...).Load(within(t, time.Minute), many.dir, AlwaysSync); err != nil {
			t.Fatal(err)
		}
	})
	return many.dir
}

// listing is what a List tells: names, and how often it began anew.
type listing struct {
	names    map[string]bool
	restarts int
	failed   error // what a restart answers
}

func (l *listing) list(ctx context.Context, m *Cluster, dir string) error {
	l.names = make(map[string]bool)
	return m.List(ctx, dir, NeverSync, func() error {
		l.restarts++
		clear(l.names)
		return l.failed
	}, func(f *wire.FileInfo) error {
		l.names[f.GetName()] = true
		return nil
	})
}

// TestListIsWholeOrAnError resets connections in the middle of a listing.
func TestListIsWholeOrAnError(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	dir := manyDir(t, c)
	m, leader := throughProxies(t, c)
	var l listing
	before := leader.Stats().Down
	if err := l.list(within(t, 30*time.Second), m, dir); err != nil || len(l.names) != manyFiles || l.restarts != 0 {
		t.Fatalf("%d entries of %d, %d restarts, %v", len(l.names), manyFiles, l.restarts, err)
	}
	size := leader.Stats().Down - before
	t.Logf("a listing of %d entries has %d bytes", manyFiles, size)

	// Nothing but the first message or less passes: an error, whatever came before.
	for _, part := range []int64{size / 10, size - 1000} {
		leader.Set(faultproxy.Faults{ResetAfter: part})
		leader.Reset()
		// A busy machine sends little in a while: the listing has to begin anew before it is given up.
		for patience := 2500 * time.Millisecond; ; patience *= 2 {
			begin := time.Now()
			if err := l.list(endingAfter(t, patience), m, dir); !errors.Is(err, cacheclient.ErrUnavailable) {
				t.Errorf("a listing of which %d bytes come: %d entries, %v", part, len(l.names), err)
			}
			t.Logf("of %d bytes each time came %d entries, with %d restarts in %v", part, len(l.names), l.restarts,
				time.Since(begin).Round(time.Millisecond))
			if part < size/2 || l.restarts > 0 || patience > time.Minute {
				break
			}
		}
	}
	if l.restarts == 0 {
		t.Error("no listing began anew: this tested too little")
	}
	// It comes right in the middle of the attempts.
	time.AfterFunc(500*time.Millisecond, func() { leader.Set(faultproxy.Faults{}) })
	if err := l.list(within(t, 30*time.Second), m, dir); err != nil || len(l.names) != manyFiles {
		t.Errorf("%d entries of %d, %v", len(l.names), manyFiles, err)
	}
	// A caller that cannot begin anew ends it.
	leader.Set(faultproxy.Faults{ResetAfter: size - 1000})
	leader.Reset()
	l.failed = io.ErrNoProgress
	if err := l.list(within(t, 30*time.Second), m, dir); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a listing whose reader cannot begin anew: %v", err)
	}
	leader.Set(faultproxy.Faults{})
}

// TestListEndsWithItsReader checks that an error of the reader is not taken for the server's, whatever it is.
func TestListEndsWithItsReader(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	calls := 0
	want := &Unreachable{Addr: "the reader", Why: "has enough"}
	err := m.List(within(t, 30*time.Second), manyDir(t, c), NeverSync, func() error { return nil },
		func(*wire.FileInfo) error {
			calls++
			return want
		})
	if !errors.Is(err, want) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// TestSlowWire talks to real servers over a wire with 20 ms of delay, and byte by byte.
func TestSlowWire(t *testing.T) {
	c := shared.Get(t)
	for name, wire := range map[string]struct {
		faults faultproxy.Faults
		size   int
	}{
		"delay": {
			faultproxy.Faults{DelayUp: 20 * time.Millisecond, DelayDown: 20 * time.Millisecond},
			5 << 20,
		},
		"single bytes":            {faultproxy.Faults{Chunk: 1}, 50_000},
		"single bytes and pauses": {faultproxy.Faults{Chunk: 1, Pause: 10 * time.Microsecond}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			noMoreGoroutines(t)
			m, leader := throughProxies(t, c)
			leader.Set(wire.faults)
			begin := time.Now()
			if err := m.Check(within(t, 20*time.Second)); err != nil {
				t.Error(err)
			}
			s := newSource(t, c, m, wire.size)
			w, p := proxied(t, m, c.Workers()[0])
			p.Set(wire.faults)
			r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, int64(wire.size), s.under(0))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.content) {
				t.Errorf("%d bytes, or others, and %v", len(got), err)
			}
			if _, err := w.Locate(within(t, 20*time.Second), s.block(0)); err != nil {
				t.Error(err)
			}
			if err := w.Remove(within(t, 20*time.Second), s.block(0)); err != nil {
				t.Error(err)
			}
			b, err := w.WriteBlock(within(t, 20*time.Second), s.block(0), int64(wire.size))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Write(s.content); err != nil {
				t.Error(err)
			}
			if err := b.Commit(within(t, 20*time.Second)); err != nil {
				t.Error(err)
			}
			t.Logf("took %v", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// TestHalfOpen has the connection to the leader go dead without an end: calls fail within their deadlines, and succeed
// as soon as bytes pass again.
func TestHalfOpen(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m, leader := throughProxies(t, c)
	if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
		t.Fatal(err)
	}
	leader.Set(faultproxy.Faults{StallUp: true, StallDown: true})
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			begin := time.Now()
			if _, err := m.Status(endingAfter(t, 3*time.Second), "/", NeverSync); !errors.Is(err,
				cacheclient.ErrUnavailable) {
				t.Error(err)
			}
			if took := time.Since(begin); took > pace.Limit(4*time.Second) {
				t.Errorf("a call with 3 s took %v", took)
			}
		})
	}
	calls.Wait()
	leader.Set(faultproxy.Faults{})
	begin := time.Now()
	if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
		t.Error(err)
	}
	t.Logf("bytes pass again, and %v later the next call is answered", time.Since(begin).Round(time.Millisecond))
	if took := time.Since(begin); took > pace.Limit(2*time.Second) {
		t.Errorf("the next call took %v", took)
	}
	// A connection that is cut is no failure of a call that comes later.
	leader.Reset()
	if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
		t.Error(err)
	}
}

// TestReadIsCutOff resets the connection to a worker in the middle of a block: what came is right, and the rest is an
// error that says that another may have it.
func TestReadIsCutOff(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	s := newSource(t, c, m, 8<<20)
	w, p := proxied(t, m, c.Workers()[0])
	s.cache(t, w, 0)
	for _, after := range []int64{3000, 100_000, 5 << 20} {
		p.Set(faultproxy.Faults{ResetAfter: after})
		p.Reset()
		var got []byte
		r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, 8<<20, nil)
		if err == nil {
			got, err = readAll(r)
		}
		if !errors.Is(err, cacheclient.ErrUnavailable) || errors.Is(err, ErrShort) ||
			!bytes.Equal(got, s.content[:len(got)]) || len(got) > int(after) {
			t.Errorf("reset after %d bytes: %d bytes, %v", after, len(got), err)
		}
		t.Logf("reset after %d bytes: %d bytes and %v", after, len(got), err)
	}
	p.Set(faultproxy.Faults{})
	// gRPC connects again by itself.
	time.Sleep(2 * redialPause)
	r, err := w.ReadBlock(within(t, 20*time.Second), s.block(0), 0, 8<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, s.content) {
		t.Errorf("%d bytes, or others, and %v", len(got), err)
	}
}
