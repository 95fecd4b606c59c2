package fuse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
)

// deaf has Stat of one name wait for release, whatever its context says, as a system call on a file system that hangs.
func deaf(client *localClient, name string) (entered, release chan struct{}) {
	entered, release = make(chan struct{}, 10), make(chan struct{})
	client.mu.Lock()
	defer client.mu.Unlock()
	client.onStat = func(_ context.Context, path string) error {
		if path == name {
			entered <- struct{}{}
			<-release
		}
		return nil
	}
	return entered, release
}

// TestHangingHandler: a handler that does not end holds up neither the handover of its session nor the session's end.
// What it does afterwards reaches no caller, and the next process answers its request.
func TestHangingHandler(t *testing.T) {
	notShort(t)
	needMount(t)
	source := t.TempDir()
	write(t, source, "f", pattern(100))
	write(t, source, "hangs", pattern(200))
	client := newLocalClient(source)
	entered, release := deaf(client, "hangs")
	dir := mountPoint(t)
	s, err := Mount(t.Context(), Config{Client: client, Dir: dir, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mountpoint.Detach(dir, mountpoint.Lazily) }()
	dev, saved, err := s.Handles()
	if err != nil {
		t.Fatal(err)
	}
	size := make(chan int64, 1)
	go func() {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "hangs"), &st); err != nil {
			t.Error("the request that hung:", err)
		}
		size <- st.Size
	}()
	<-entered
	began := time.Now()
	if err := s.Leave(); !errors.Is(err, ErrHangs) {
		t.Errorf("leaving a session whose handler hangs: %v", err)
	}
	pace.Within(t, "leaving a session whose handler hangs", time.Since(began), severGrace+time.Second)
	if err := s.Wait(); !errors.Is(err, ErrHangs) {
		t.Errorf("the session's end: %v", err)
	}
	other := newLocalClient(source)
	next, err := Serve(t.Context(), Config{Client: other, Dir: dir, TTL: time.Hour}, dev, saved)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-size; got != 200 {
		t.Errorf("%d bytes", got)
	}
	nodes := func() (n int) {
		if err := next.state.each(recordNode, func(record) error { n++; return nil }); err != nil {
			t.Error(err)
		}
		return n
	}
	known := nodes()
	close(release)
	eventually(t, "the handler that hung ends", func() bool {
		n, _, _ := s.inflight.oldest()
		return n == 0
	})
	if now := nodes(); now != known {
		t.Errorf("the former process wrote to the state: it has %d nodes, and had %d", now, known)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, pattern(100)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := next.Unmount(true); err != nil {
		t.Error(err)
	}
	if err := next.Wait(); err != nil {
		t.Error(err)
	}
}

// TestHangingHandlerAtTheEnd: the mount is gone, and its session ends, whatever hangs.
func TestHangingHandlerAtTheEnd(t *testing.T) {
	notShort(t)
	needMount(t)
	source := t.TempDir()
	client := newLocalClient(source)
	entered, release := deaf(client, "hangs")
	dir := mountPoint(t)
	s, err := Mount(t.Context(), Config{Client: client, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() { asked <- unix.Stat(filepath.Join(dir, "hangs"), &unix.Stat_t{}) }()
	<-entered
	began := time.Now()
	if err := s.Unmount(true); err != nil && !errors.Is(err, ErrHangs) {
		t.Error(err)
	}
	if err := s.Wait(); !errors.Is(err, ErrHangs) {
		t.Error(err)
	}
	if err := <-asked; err == nil {
		t.Error("the request was answered")
	}
	pace.Within(t, "ending a session whose handler hangs", time.Since(began), forceGrace+severGrace+2*time.Second)
	close(release)
}

// TestHangingReopen: one file of an earlier process that does not open holds up no other, is tried again where that may
// help, and READs of it end.
func TestHangingReopen(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	var held []*os.File
	names := []string{"hangs", "late", "gone", "a", "b", "c"}
	for _, name := range names {
		write(t, source, name, pattern(100_000))
	}
	k := keep(t, source, func(mnt string) {
		for _, name := range names {
			f, err := os.Open(filepath.Join(mnt, name))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, f)
		}
	})
	defer func() {
		for _, f := range held {
			_ = f.Close()
		}
	}()
	client := newLocalClient(source)
	release := make(chan struct{})
	var late atomic.Int64
	client.onResume = func(_ context.Context, path string) error {
		switch {
		case path == "hangs":
			<-release
		case path == "late" && late.Add(1) == 1:
			return cacheclient.ErrUnavailable
		case path == "gone":
			return cacheclient.ErrStale
		}
		return nil
	}
	dev, err := handover.CopyFile(k.dev)
	if err != nil {
		t.Fatal(err)
	}
	state, err := handover.CopyFile(k.state)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Serve(t.Context(), Config{Client: client, Dir: k.dir, TTL: time.Hour, Timeout: time.Second}, dev, state)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]error{"hangs": unix.EIO, "gone": unix.ESTALE}
	for i, name := range names {
		_, err := held[i].ReadAt(make([]byte, 1000), 0)
		if err != nil && errors.Is(err, io.EOF) || !errors.Is(err, want[name]) {
			t.Errorf("%s: %v, want %v", name, err, want[name])
		}
	}
	if late.Load() != 2 {
		t.Errorf("%d attempts at a file that the source did not give at first", late.Load())
	}
	close(release)
	eventually(t, "the file that hung is open", func() bool { return !anyAwaited(s) })
	if err := s.Leave(); err != nil {
		t.Error(err)
	}
}

// anyAwaited reports whether a file of an earlier process is not open yet.
func anyAwaited(s *Session) bool {
	s.fs.opens.mu.RLock()
	defer s.fs.opens.mu.RUnlock()
	for _, f := range s.fs.opens.files {
		select {
		case <-f.ready:
		default:
			return true
		}
	}
	return false
}

// TestHandlesThatNobodyKnows: an OPEN that was carried out, whose process and then its caller were killed before the
// answer, leaves no file open.
func TestHandlesThatNobodyKnows(t *testing.T) {
	state := testState(t)
	table := newOpenTable(state)
	open := func(table *openTable, id, unique uint64) opened {
		t.Helper()
		o, err := table.open(t.Context(), id, unique, func() (cacheclient.File, int32, error) {
			return &localFile{}, 0,
				nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	known := open(table, 5, 100)
	table.answering(known.handle)
	again, lost := open(table, 5, 102), open(table, 6, 104)

	next := newOpenTable(mustSucceed(t, state))
	if _, _, _, err := next.load(); err != nil {
		t.Fatal(err)
	}
	if o := open(next, 5, 102|uniqueResent); o.handle != again.handle {
		t.Errorf("%+v, want the handle %d", o, again.handle)
	}
	if got := next.unclaimed(); len(got) != 1 || got[0] != lost.handle {
		t.Fatalf("unclaimed: %v, want %d", got, lost.handle)
	}
	for _, number := range []uint64{known.handle, again.handle} {
		if r := next.releaseUnclaimed(number); r != (released{}) || next.handles[number] == nil {
			t.Errorf("the handle %d, which the kernel knows, was released", number)
		}
	}
	if next.releaseUnclaimed(lost.handle); next.count() != 1 || len(next.unclaimed()) != 0 {
		t.Errorf("%d files are open", next.count())
	}
	// Should it come after all, it is an open like any other.
	if o := open(next, 6, 104|uniqueResent); o.handle == lost.handle || o.joined {
		t.Errorf("%+v", o)
	}
	// The first format does not tell what was answered.
	old := testState(t)
	former := newOpenTable(old)
	open(former, 5, 100)
	old.u32(8).Store(1)
	modern := newOpenTable(mustSucceed(t, old))
	if _, _, _, err := modern.load(); err != nil || len(modern.unclaimed()) != 0 {
		t.Errorf("handles of the first format: %v, %v", modern.unclaimed(), err)
	}
}

// TestFullSessionGoesOn: a session whose state is full says so, and serves.
func TestFullSessionGoesOn(t *testing.T) {
	source := t.TempDir()
	for i := range 8 {
		write(t, source, strconv.Itoa(i), pattern(100))
	}
	var log logBuffer
	s, dir := mountLocal(t, newLocalClient(source), func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log,
			nil))
	})
	// Enough for a worker, and not for a node.
	s.state.u64(stateEnd).Store(stateSize - recordUnit)
	served := make(chan error, 1)
	go func() {
		var err error
		for i := range 8 {
			_, e := os.Stat(filepath.Join(dir, strconv.Itoa(i)))
			err = errors.Join(err, e)
		}
		served <- err
	}()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(pace.Limit(30 * time.Second)):
		_ = s.Abort()
		t.Fatal("a session whose state is full serves nothing more")
	}
	eventually(t, "it says so", func() bool { return strings.Count(log.String(), "state is full") == 1 })
}

// TestFullState: that there is no room is said once.
func TestFullState(t *testing.T) {
	state := testState(t)
	said := 0
	state.onFull = func() { said++ }
	state.u64(stateEnd).Store(stateSize - 2*recordUnit)
	table := newNodeTable(state)
	for _, name := range []string{"a", "b", "c", "d"} {
		if _, err := table.add(table.get(rootID), name,
			cacheclient.Identify(cacheclient.Info{Path: name})); err != nil {
			t.Fatal(err)
		}
	}
	if said != 1 {
		t.Errorf("it was said %d times that the state is full", said)
	}
}

// TestAnswersThatTakeLong: a lookup and an open go on while something of the answer comes, however long that takes;
// silence alone ends them.
func TestAnswersThatTakeLong(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	write(t, source, "talks", pattern(100))
	write(t, source, "silent", pattern(100))
	client := newLocalClient(source)
	timeout := pace.Limit(200 * time.Millisecond)
	slow := func(ctx context.Context, path string) error {
		for range 10 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(timeout / 4):
			}
			if path == "talks" {
				cacheclient.Heard(ctx)
			}
		}
		return nil
	}
	client.onStat, client.onOpen = slow, slow
	_, dir := mountLocal(t, client, func(c *Config) { c.Timeout = timeout })
	if got, err := os.ReadFile(filepath.Join(dir, "talks")); err != nil || !bytes.Equal(got, pattern(100)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "silent")); !errors.Is(err, unix.EIO) {
		t.Errorf("a source that says nothing: %v", err)
	}
}
