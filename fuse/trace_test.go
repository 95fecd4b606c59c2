package fuse

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// mountCached mounts a directory through the real cache.
func mountCached(t *testing.T, source string) (*Session, string) {
	t.Helper()
	needMount(t)
	store, err := ufs.Open(t.Context(), source, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{
		Dir:   t.TempDir(),
		Quota: 64 << 20,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := mountPoint(t)
	s, err := Mount(t.Context(), Config{Client: cache, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(true); err != nil {
			t.Error(err)
		}
		_ = cache.Close()
		_ = store.Close()
	})
	return s, dir
}

// heard are events. One comes after the answer that it tells of, so that those of two workers may come in another
// order than the answers.
type heard struct {
	from chan Event
	all  []Event
}

// await gives the first event that is as wanted, among those that came and those that come.
func (h *heard) await(t *testing.T, what string, wanted func(Event) bool) Event {
	t.Helper()
	for end := time.After(pace.Limit(30 * time.Second)); ; {
		if i := slices.IndexFunc(h.all, wanted); i >= 0 {
			return h.all[i]
		}
		select {
		case e := <-h.from:
			h.all = append(h.all, e)
		case <-end:
			t.Fatalf("no %s among %+v", what, h.all)
		}
	}
}

func TestTraceTellsWhoServedWhat(t *testing.T) {
	source := t.TempDir()
	write(t, source, "d/a b", pattern(3<<20))
	s, dir := mountCached(t, source)
	events := &heard{from: make(chan Event, 4096)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.Trace(ctx, func(Event) bool { return true }, events.from)
	path := filepath.Join(dir, "d/a b")
	if out, err := run(t, "cat", path); err != nil || len(out) == 0 {
		t.Fatal(err)
	}
	e := events.await(t, "lookup", func(e Event) bool { return e.Op == "lookup" && e.Path == path })
	if e.Errno != 0 || e.Mount != dir || e.Took <= 0 || time.Since(e.Time) > time.Minute {
		t.Errorf("lookup: %+v", e)
	}
	e = events.await(t, "open", func(e Event) bool { return e.Op == "open" && e.Path == path })
	if e.Source != "" {
		t.Errorf("a cold open: %+v", e)
	}
	e = events.await(t, "read that waited", func(e Event) bool {
		return e.Op == "read" &&
			e.Source == string(cacheclient.OriginSource)
	})
	if e.Path != path || e.Offset < 0 || e.Bytes <= 0 || e.Bytes > 1<<20 || e.Offset+e.Bytes > 3<<20 {
		t.Errorf("a cold read: %+v", e)
	}
	events.await(t, "release", func(e Event) bool { return e.Op == "release" && e.Path == path })
	if _, err := run(t, "cat", path); err != nil {
		t.Fatal(err)
	}
	e = events.await(t, "warm open", func(e Event) bool { return e.Op == "open" && e.Source == SourcePassthrough })
	if e.Path != path {
		t.Errorf("a warm open: %+v", e)
	}
	if _, err := run(t, "cat", filepath.Join(dir, "d/none")); err == nil {
		t.Error("a file that does not exist was read")
	}
	events.await(t, "absence", func(e Event) bool {
		return e.Op == "lookup" && e.Path == filepath.Join(dir, "d/none") && e.Errno == syscall.ENOENT
	})
	cancel()
	eventually(t, "the end of the subscription", func() bool { return s.tracer.listening.Load() == 0 })
	eventually(t, "every byte is counted by its source", func() bool {
		st := s.Stats()
		served := int64(0)
		for _, n := range st.Served {
			served += n
		}
		return served == st.ReadBytes && served == 3<<20 && st.Served["source"] > 0 && st.Stalled == 0
	})
}

// A file that is read from the cache by copying says so.
func TestTraceTellsTheCache(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(2<<20))
	s, dir := mountCached(t, source)
	path := filepath.Join(dir, "f")
	// The file is open by copying from before it was cached, and so stays while it is open.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	eventually(t, "a read from the cache", func() bool {
		if out, err := run(t, "dd", "if="+path, "of=/dev/null", "bs=1M", "iflag=direct"); err != nil {
			t.Fatal(out)
		}
		return s.Stats().Served["cache"] >= 2<<20
	})
	events := &heard{from: make(chan Event, 64)}
	s.Trace(t.Context(), func(e Event) bool { return e.Op == "read" && e.Offset == 3<<16 }, events.from)
	if out, err := run(t, "dd", "if="+path, "of=/dev/null", "bs=64K", "skip=3", "count=1", "iflag=direct"); err != nil {
		t.Fatal(out)
	}
	e := events.await(t, "read", func(Event) bool { return true })
	if e.Source != "cache" || e.Bytes != 1<<16 || e.Path != path {
		t.Errorf("got %+v", e)
	}
}

// A listener that does not read holds up no request, and is told what it missed.
func TestTraceDropsWhatIsNotRead(t *testing.T) {
	var tr tracer
	slow, quick := make(chan Event, 1), make(chan Event, 10)
	lookups := func(e Event) bool { return e.Op == "lookup" }
	tr.add(&listener{keep: lookups, into: slow})
	tr.add(&listener{keep: lookups, into: quick})
	for _, path := range []string{"/1", "/2", "/3", "/4"} {
		tr.tell(Event{Op: "lookup", Path: path})
		tr.tell(Event{Op: "read", Path: path})
	}
	first := <-slow
	tr.tell(Event{Op: "lookup", Path: "/5"})
	second := <-slow
	if first.Path != "/1" || first.Dropped != 0 || second.Path != "/5" || second.Dropped != 3 {
		t.Errorf("got %+v and %+v", first, second)
	}
	for range 5 {
		if e := <-quick; e.Dropped != 0 {
			t.Errorf("lost by a listener that keeps up: %+v", e)
		}
	}
	if !tr.wants(0) {
		t.Error("nobody wants what two listeners wait for")
	}
}

func TestSlowestOfTheLastMinute(t *testing.T) {
	var s slowest
	now := time.Unix(1_000_000, 0)
	note := func(ago, took time.Duration) {
		e := Event{Time: now.Add(-ago - took), Took: took}
		if s.enters(e.Time, e.Took) {
			s.add(e)
		}
	}
	for i := range 100 {
		note(50*time.Second, time.Duration(i+1)*time.Millisecond)
	}
	note(70*time.Second, time.Hour)
	note(30*time.Second, 98500*time.Microsecond)
	note(0, slowFloor-1)
	note(0, 3*time.Second)
	got := s.list(now)
	var took []time.Duration
	for _, e := range got {
		took = append(took, e.Took)
	}
	if len(got) != slowKept || got[0].Took != 3*time.Second || took[1] != 100*time.Millisecond ||
		!slices.Contains(took, 98500*time.Microsecond) {
		t.Errorf("got %v", took)
	}
	if later := s.list(now.Add(55 * time.Second)); len(later) != 1 || later[0].Took != 3*time.Second {
		t.Errorf("55 s later: %+v", later)
	}
	if later := s.list(now.Add(2 * time.Minute)); len(later) != 0 {
		t.Errorf("two minutes later: %+v", later)
	}
	// The place of an old slice is taken by a new one.
	now = now.Add(slowSlice * time.Duration(slowSlices))
	note(0, 2*time.Second)
	if got := s.list(now); len(got) != 1 || got[0].Took != 2*time.Second {
		t.Errorf("a later minute: %+v", got)
	}
}

func TestSlowRequestsAreRemembered(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(100))
	client := newLocalClient(source)
	client.onOpen = func(context.Context, string) error {
		time.Sleep(50 * time.Millisecond)
		return nil
	}
	s, dir := mountLocal(t, client, nil)
	if _, err := run(t, "cat", filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	slow := s.Slowest()
	if !slices.ContainsFunc(slow, func(e Event) bool {
		return e.Op == "open" && e.Path == dir+"/f" && e.Took >= 50*time.Millisecond && e.Mount == dir
	}) {
		t.Errorf("got %+v", slow)
	}
}

func TestStalledRequests(t *testing.T) {
	f := newInflight(t.Context(), 0)
	f.begin(inHeader{op: opRead, unique: 1})
	if n := f.stalled(); n != 0 {
		t.Errorf("%d stalled", n)
	}
	f.calls[1].start = time.Now().Add(-StallTime - time.Second)
	if n := f.stalled(); n != 1 {
		t.Errorf("%d stalled, want 1", n)
	}
}

func TestOutcomes(t *testing.T) {
	var o outcomes
	o.fail(syscall.ENOENT)
	o.fail(syscall.ENOENT)
	o.fail(syscall.EXDEV)
	o.serve(cacheclient.OriginCache, 10)
	o.serve("elsewhere", 5)
	served, failed := o.snapshot()
	if failed["ENOENT"] != 2 || failed["other"] != 1 || failed["EIO"] != 0 || len(failed) != len(errnos)+1 {
		t.Errorf("errors %v", failed)
	}
	if served["cache"] != 10 || len(served) != len(origins) {
		t.Errorf("served %v", served)
	}
}
