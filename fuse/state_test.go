package fuse

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/handover"
)

func testState(tb testing.TB) *stateFile {
	tb.Helper()
	s, err := newStateFile()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.close)
	return s
}

// successor opens the state as another process would.
func successor(tb testing.TB, s *stateFile) (*stateFile, error) {
	tb.Helper()
	file, err := handover.CopyFile(s.file)
	if err != nil {
		tb.Fatal(err)
	}
	next, err := openStateFile(file)
	if err == nil {
		tb.Cleanup(next.close)
	}
	return next, err
}

func mustSucceed(tb testing.TB, s *stateFile) *stateFile {
	tb.Helper()
	next, err := successor(tb, s)
	if err != nil {
		tb.Fatal(err)
	}
	return next
}

// TestNodesOutliveTheirProcess: ids, attributes, paths and lookups come back, what was forgotten does not,
// and a directory whose FORGET came before its child's still tells the child's path.
func TestNodesOutliveTheirProcess(t *testing.T) {
	state := testState(t)
	table := newNodeTable(state)
	root := table.get(rootID)
	add := func(parent *node, name string, info cacheclient.Info) *node {
		t.Helper()
		info.Path = parent.child(name)
		n, err := table.add(parent, name, cacheclient.Identify(info))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	dir := add(root, "dir", cacheclient.Info{Dir: true})
	long := string(make([]byte, maxNameLength-1)) + "x"
	file := add(dir, "file ☃", cacheclient.Info{
		Size: 1 << 40, ModTime: time.Unix(-5, 999999999), Mode: 0o640, ModeKnown: true, Version: `W/"etag"`,
	})
	add(dir, "file ☃", file.info())
	odd := add(dir, long, cacheclient.Info{})
	gone := add(dir, "gone", cacheclient.Info{Size: 1})
	table.forget(gone.id, 1)
	table.forget(dir.id, 1)

	next := newNodeTable(mustSucceed(t, state))
	if err := next.load(); err != nil {
		t.Fatal(err)
	}
	got := next.get(file.id)
	if got == nil || got.info() != file.info() || got.lookups != 2 {
		t.Fatalf("%+v, want %+v", got, file)
	}
	if o := next.get(odd.id); o == nil || o.path() != "dir/"+long {
		t.Errorf("%+v", o)
	}
	if next.get(gone.id) != nil || next.get(dir.id) != nil || next.known() != 3 {
		t.Errorf("%d nodes", next.known())
	}
	next.forget(file.id, 2)
	next.forget(odd.id, 1)
	last := newNodeTable(mustSucceed(t, state))
	if err := last.load(); err != nil || last.known() != 1 {
		t.Errorf("%d nodes, %v", last.known(), err)
	}
	if err := last.state.each(recordNode, func(record) error { return errors.New("a record is left") }); err != nil {
		t.Error(err)
	}
}

// TestStateOfTheFirstFormat: permissions of 0 were those of a source that tells none.
func TestStateOfTheFirstFormat(t *testing.T) {
	state := testState(t)
	table := newNodeTable(state)
	for name, mode := range map[string]os.FileMode{"silent": 0, "telling": 0o600} {
		n, err := table.add(table.get(rootID), name, cacheclient.Identify(cacheclient.Info{Path: name, Mode: mode}))
		if err != nil {
			t.Fatal(err)
		}
		state.bytes(n.saved)[nodeFlags] = 0
	}
	state.u32(8).Store(1)
	for round := range 2 {
		next := newNodeTable(mustSucceed(t, state))
		if err := next.load(); err != nil {
			t.Fatal(err)
		}
		for name, known := range map[string]bool{"silent": false, "telling": true} {
			n := next.get(cacheclient.Identify(cacheclient.Info{Path: name}).ID)
			if n == nil || n.attrs.permKnown != known {
				t.Errorf("round %d: %s: %+v, permissions known: want %v", round, name, n, known)
			}
		}
	}
	if got := state.u32(8).Load(); got != stateVersion {
		t.Errorf("the format is %d after a process of this build", got)
	}
}

// TestRecordsAreUsedAgain: names that come and go do not make the state grow.
func TestRecordsAreUsedAgain(t *testing.T) {
	state := testState(t)
	table := newNodeTable(state)
	root := table.get(rootID)
	round := func() {
		for i := range 1000 {
			name := string(rune('a'+i%26)) + time.Duration(i).String()
			n, err := table.add(root, name, cacheclient.Identify(cacheclient.Info{Path: name}))
			if err != nil {
				t.Fatal(err)
			}
			defer table.forget(n.id, 1)
		}
	}
	round()
	end := state.u64(stateEnd).Load()
	for range 20 {
		round()
	}
	if now := state.u64(stateEnd).Load(); now != end {
		t.Errorf("the records end at %d, and at %d after more rounds", end, now)
	}
}

// TestHandlesOutliveTheirProcess: modes, counts and backing ids come back; a request that is sent again gets the
// handle that it had; a release that is sent again does nothing.
func TestHandlesOutliveTheirProcess(t *testing.T) {
	state := testState(t)
	table := newOpenTable(state)
	open := func(table *openTable, id, unique uint64, backing int32) opened {
		t.Helper()
		o, err := table.open(t.Context(), id, unique, func() (cacheclient.File, int32, error) {
			return &localFile{},
				backing, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	first, second := open(table, 5, 100, 7), open(table, 5, 102, 0)
	copied := open(table, 6, 104, 0)
	closed := open(table, 8, 106, 9)
	// A process that died between taking the handle out and unregistering its backing id.
	table.release(closed.handle)

	next := newOpenTable(mustSucceed(t, state))
	ids, left, used, err := next.load()
	if err != nil || len(ids) != 2 || len(left) != 1 || left[0].backing != 9 || !used[7] || used[9] {
		t.Fatal(ids, left, used, err)
	}
	if again := open(next, 5, 102|uniqueResent, 99); again.handle != second.handle || again.io.backing != 7 ||
		again.io.opens != 2 {
		t.Errorf("an open that was sent again: %+v, was %+v", again, second)
	}
	if fresh := open(next, 5, 102, 99); fresh.handle == second.handle || fresh.handle == first.handle ||
		fresh.io.backing != 7 || !fresh.joined {
		t.Errorf("another open: %+v", fresh)
	} else {
		next.release(fresh.handle)
	}
	if r := next.release(first.handle); r != (released{}) {
		t.Errorf("not the last: %+v", r)
	}
	if r := next.release(first.handle); r != (released{}) {
		t.Errorf("released twice: %+v", r)
	}
	if r := next.release(second.handle); r.backing != 7 {
		t.Errorf("the last: %+v", r)
	}
	// READs wait for the file that is opened again.
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := next.get(canceled, 6); !errors.Is(err, canceled.Err()) {
		t.Error(err)
	}
	file := &localFile{}
	if next.reopened(6, file, nil) != nil {
		t.Error("the file was not wanted")
	}
	if got, err := next.get(t.Context(), 6); got != file || err != nil {
		t.Error(got, err)
	}
	if r := next.release(copied.handle); r.file != file {
		t.Errorf("%+v", r)
	}
	if next.reopened(6, file, nil) != file || next.count() != 0 {
		t.Error("a file was wanted that nobody has open")
	}
}

// TestStateRefused: what another build left, or none, is an error and no crash.
func TestStateRefused(t *testing.T) {
	damages := map[string]func(s *stateFile){
		"magic":          func(s *stateFile) { s.mem[0] = 'X' },
		"version":        func(s *stateFile) { binary.LittleEndian.PutUint32(s.mem[8:], stateVersion+1) },
		"older version":  func(s *stateFile) { binary.LittleEndian.PutUint32(s.mem[8:], stateOldest-1) },
		"INIT's length":  func(s *stateFile) { s.u32(stateInitLen).Store(1 << 31) },
		"end":            func(s *stateFile) { s.u64(stateEnd).Store(1 << 60) },
		"odd end":        func(s *stateFile) { s.u64(stateEnd).Store(stateRecords + 1) },
		"record's size":  func(s *stateFile) { s.u32(stateRecords + 4).Store(0) },
		"record's width": func(s *stateFile) { s.u32(stateRecords + 4).Store(1 << 20) },
		"kind":           func(s *stateFile) { s.u32(stateRecords).Store(77) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			state := testState(t)
			table := newNodeTable(state)
			if _, err := table.add(table.get(rootID), "x",
				cacheclient.Identify(cacheclient.Info{Path: "x"})); err != nil {
				t.Fatal(err)
			}
			damage(state)
			if _, err := successor(t, state); !errors.Is(err, ErrState) {
				t.Error(err)
			}
		})
	}
	t.Run("name", func(t *testing.T) {
		state := testState(t)
		table := newNodeTable(state)
		n, err := table.add(table.get(rootID), "x", cacheclient.Identify(cacheclient.Info{Path: "x"}))
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint16(state.bytes(n.saved)[nodeNameLen:], 60000)
		if err := newNodeTable(mustSucceed(t, state)).load(); !errors.Is(err, ErrState) {
			t.Error(err)
		}
	})
	t.Run("ancestors", func(t *testing.T) {
		state := testState(t)
		table := newNodeTable(state)
		dir, err := table.add(table.get(rootID), "x", cacheclient.Identify(cacheclient.Info{Path: "x", Dir: true}))
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint64(state.bytes(dir.saved)[nodeParent:], uint64(dir.saved))
		if err := newNodeTable(mustSucceed(t, state)).load(); !errors.Is(err, ErrState) {
			t.Error(err)
		}
	})
	t.Run("size", func(t *testing.T) {
		if err := unix.Ftruncate(int(testState(t).file.Fd()), stateSize/2); err == nil {
			t.Error("the size can be changed")
		}
	})
	t.Run("empty file", func(t *testing.T) {
		file, err := os.CreateTemp(t.TempDir(), "state")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openStateFile(file); !errors.Is(err, ErrState) {
			t.Error(err)
		}
	})
}

func TestRecordSize(t *testing.T) {
	for n, want := range map[int]uint64{1: 64, 64: 64, 65: 128, 128: 128, 129: 256, 300: 512, 513: 768, 8192: 8192} {
		if got := recordSize(n); got != want {
			t.Errorf("recordSize(%d) = %d, want %d", n, got, want)
		}
	}
}
