package fuse

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// TestDirectoryOffsets: an offset means one place in one version, for all handles and in another process; one that
// is not known is an error.
func TestDirectoryOffsets(t *testing.T) {
	state := testState(t)
	table := newDirTable(state)
	page := func(version, first uint64, names ...string) cacheclient.Page {
		p := cacheclient.Page{Version: version, First: first, Count: 10}
		for _, n := range names {
			p.Entries = append(p.Entries, cacheclient.Info{Path: n})
		}
		return p
	}
	const dir = 7
	one, other := openDir(table, dir, 2, 100), openDir(table, dir, 4, 100)
	if got := table.first(dir, page(100, 0)); got != dotEntries {
		t.Errorf("the first version begins at %d", got)
	}
	places, _ := dirPlaces{}.with(0, dotEntries, "")
	last := uint64(dotEntries)
	for i, name := range []string{"a", "b", "c"} {
		at := dotEntries + uint64(i) + 1
		places, _ = places.with(last, at, name)
		last = at
	}
	table.replied(one, places)
	if got := table.first(dir, page(200, 3)); got <= dotEntries+10 {
		t.Errorf("the second version has offsets of the first: %d", got)
	}
	if a, b := table.first(dir, page(100, 4)), table.first(dir, page(100, 5)); b != a+1 || a != dotEntries+4 {
		t.Errorf("places of the first version: %d, %d", a, b)
	}
	check := func(table *dirTable, number, offset uint64, want cacheclient.Cursor, wantErr error) {
		t.Helper()
		if got, err := table.cursor(number, dir, offset); got != want || !errors.Is(err, wantErr) {
			t.Errorf("offset %d: %+v, %v; want %+v, %v", offset, got, err, want, wantErr)
		}
	}
	for _, table := range []*dirTable{table, loadedDirs(t, state)} {
		check(table, one, 0, cacheclient.Cursor{}, nil)
		check(table, one, dotEntries, cacheclient.Cursor{}, nil)
		check(table, one, dotEntries+2, cacheclient.Cursor{Version: 100, Index: 2, After: "b"}, nil)
		check(table, other, dotEntries+2, cacheclient.Cursor{Version: 100, Index: 2, After: "b"}, nil)
		check(table, one, dotEntries+9, cacheclient.Cursor{Version: 100, Index: 9}, nil)
		check(table, one, table.first(dir, page(200, 5)), cacheclient.Cursor{Version: 200, Index: 5}, nil)
		check(table, one, 5000, cacheclient.Cursor{}, cacheclient.ErrStale)
		check(table, 999, dotEntries+9, cacheclient.Cursor{Version: 100, Index: 9}, nil)
		check(table, 999, 5000, cacheclient.Cursor{}, cacheclient.ErrStale)
	}
	// Offsets that the kernel may have cached keep their meaning; others need not.
	table.release(one)
	table.release(other)
	if got := openDir(table, dir, 6, 100); table.first(dir, page(200, 0)) == dotEntries {
		t.Error("a version whose entries may be cached has other offsets")
	} else {
		table.release(got)
	}
	openDir(table, dir, 8, 300)
	if got := table.first(dir, page(300, 0)); got != dotEntries {
		t.Errorf("a directory that was opened anew begins at %d", got)
	}
}

// TestPlacesOfOtherReaders has one reader stand still while another reads new versions all the time: the kernel may
// have served the first out of its cache, at a place that only the second was told.
func TestPlacesOfOtherReaders(t *testing.T) {
	table := newDirTable(testState(t))
	const dir = 7
	still, busy := openDir(table, dir, 2, 1), openDir(table, dir, 4, 1)
	reply := func(version uint64) (at uint64) {
		at = table.first(dir, cacheclient.Page{Version: version, Count: 1000}) + 1
		places, _ := dirPlaces{}.with(0, dotEntries, "")
		places, _ = places.with(dotEntries, at, fmt.Sprintf("name of %d", version))
		table.replied(busy, places)
		return at
	}
	first := reply(1)
	const versions = 2000
	for version := uint64(2); version < versions; version++ {
		reply(version)
	}
	if got, err := table.cursor(still, dir, first); err != nil || got.After != "name of 1" {
		t.Errorf("the place of the first version is %+v, %v", got, err)
	}
	for range 2 * maxDirReplies / dirReplySize / 10 {
		reply(versions)
	}
	if d := table.dirs[dir]; d.replied > maxDirReplies || len(d.replies)*dirReplySize > d.replied {
		t.Errorf("%d replies take %d bytes, and %d may", len(d.replies), d.replied, maxDirReplies)
	}
	table.release(still)
	table.release(busy)
	if d := table.dirs[dir]; d.replied != 0 || d.replies != nil {
		t.Errorf("a directory that is not open keeps %d bytes of names", d.replied)
	}
}

// TestDirectoriesOpenOnce: an OPENDIR whose process was killed before the answer gets the same handle when it comes
// again, and one that does not come again leaves none.
func TestDirectoriesOpenOnce(t *testing.T) {
	state := testState(t)
	table := newDirTable(state)
	known, again, lost := openDir(table, 7, 100, 1), openDir(table, 7, 102, 1), openDir(table, 8, 104, 1)
	table.answering(known)
	old := openDir(table, 9, 106, 1)
	state.u32(uint64(table.handles[old].saved) + dirOpened).Store(0)

	next := loadedDirs(t, mustSucceed(t, state))
	if got := openDir(next, 7, 102|uniqueResent, 1); got != again {
		t.Errorf("the handle %d, want %d", got, again)
	}
	if got := next.unclaimed(); !slices.Equal(got, []uint64{lost}) {
		t.Fatalf("unclaimed: %v, want %d", got, lost)
	}
	for _, number := range []uint64{known, again, old, lost} {
		if next.releaseUnclaimed(number); (next.handles[number] == nil) != (number == lost) {
			t.Errorf("the handle %d: %+v", number, next.handles[number])
		}
	}
	// What was answered is another request's, whatever its number; so is what this process gave.
	for _, unique := range []uint64{100, 104, 200} {
		fresh := openDir(next, 7, unique, 1)
		if got := openDir(next, 7, unique|uniqueResent, 1); got == fresh || got == known {
			t.Errorf("the request %d got the handle %d of another", unique, got)
		}
	}
}

// openDir opens a directory that is at a version.
func openDir(table *dirTable, id, unique, version uint64) (number uint64) {
	number, _ = table.open(id, unique, version)
	return number
}

// TestWhatTheKernelCachedIsKept: what the kernel cached of a directory is kept where it is of the version that is
// there, and where no opener may still be about to drop it.
func TestWhatTheKernelCachedIsKept(t *testing.T) {
	const dir = 7
	table := newDirTable(testState(t))
	unique := uint64(0)
	opens := func(what string, version uint64, want bool) (number uint64) {
		t.Helper()
		unique += 2
		number, keep := table.open(dir, unique, version)
		if keep != want {
			t.Errorf("%s: kept is %v, want %v", what, keep, want)
		}
		return number
	}
	reads := func(number uint64) {
		t.Helper()
		if _, err := table.cursor(number, dir, 0); err != nil {
			t.Error(err)
		}
		table.mixed(dir, table.dirs[dir].listed)
	}
	first := opens("a first listing", 5, false)
	second := opens("the same version beside an opener that has read nothing", 5, false)
	reads(first)
	third := opens("the same version beside another such", 5, false)
	reads(second)
	table.release(third)
	reads(opens("the same version, once all have read or ended", 5, true))
	reads(opens("another version", 6, false))
	table.mixed(dir, 7)
	reads(opens("a mix of versions", 6, false))
	idle := opens("a version after that", 8, false)
	told := table.dirs[dir].dropping
	told[idle] = told[idle].Add(-dropPatience)
	opens("the same version beside an opener that reads nothing for long", 8, true)
	again, keep := table.open(dir, unique+2, 8)
	if !keep {
		t.Error("an opener that keeps what is cached has the next one drop it")
	}
	table.handles[again].former = true
	if _, keep := table.open(dir, (unique+2)|uniqueResent, 8); keep {
		t.Error("an open whose answer may not have come keeps what it may have been told to drop")
	}
}

func loadedDirs(t *testing.T, state *stateFile) *dirTable {
	t.Helper()
	table := newDirTable(state)
	if err := table.load(); err != nil {
		t.Fatal(err)
	}
	return table
}

// TestLongNamesFitAReply: whatever their length, a reply has room for the name before it and one more.
func TestLongNamesFitAReply(t *testing.T) {
	name := strings.Repeat("n", maxNameLength)
	places, ok := dirPlaces{}.with(0, 1<<62, name)
	n := 0
	for at := uint64(1 << 62); ok; n++ {
		places, ok = places.with(at, at+1, name)
		at++
	}
	if n < 2 || len(places) > dirPlacesMost || places.name(1<<62) != name {
		t.Errorf("%d places of %d bytes", n-1, len(places))
	}
}

// changer changes a directory while it is read: what was read last goes, and others come before it and behind it.
type changer struct {
	source string
	n      int
	gone   map[string]bool
}

func (c *changer) change(t *testing.T, last string) {
	t.Helper()
	if err := os.Remove(filepath.Join(c.source, "d", last)); err != nil {
		t.Fatal(err)
	}
	c.gone[last] = true
	c.n++
	write(t, c.source, fmt.Sprintf("d/a-%04d", c.n), nil)
	write(t, c.source, fmt.Sprintf("d/%s-and", last), nil)
}

const changing = 400

func newChanger(t *testing.T) *changer {
	t.Helper()
	c := &changer{source: t.TempDir(), gone: map[string]bool{}}
	for i := range changing {
		write(t, c.source, fmt.Sprintf("d/k-%04d", i), nil)
	}
	return c
}

// check tells what came twice, and what was there throughout and did not come.
func (c *changer) check(t *testing.T, what string, names []string) {
	t.Helper()
	seen := make(map[string]int)
	for _, n := range names {
		if seen[n]++; seen[n] == 2 {
			t.Errorf("%s: %s comes twice", what, n)
		}
	}
	for i := range changing {
		if n := fmt.Sprintf("k-%04d", i); seen[n] == 0 && !c.gone[n] {
			t.Errorf("%s: %s is missing", what, n)
		}
	}
}

// someDirents reads a few entries, as a program with a small buffer does.
func someDirents(t *testing.T, fd int) (names []string) {
	t.Helper()
	buf := make([]byte, 200)
	n, err := unix.ReadDirent(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	for todo := buf[:n]; len(todo) > 0; {
		var e gofuse.DirEntry
		todo = todo[e.Parse(todo):]
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
	}
	return names
}

// TestADirectoryThatChangesWhileItIsRead reads it by two handles in turns, with buffers smaller than replies, while it
// changes after each and others open it anew. Neither skips nor repeats what is there throughout.
func TestADirectoryThatChangesWhileItIsRead(t *testing.T) {
	needMount(t)
	c := newChanger(t)
	_, mnt := mountLocal(t, newLocalClient(c.source), nil)
	var fds [2]int
	var names [2][]string
	for i := range fds {
		fd, err := unix.Open(filepath.Join(mnt, "d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		fds[i] = fd
	}
	for step, ended := 0, [2]bool{}; !ended[0] || !ended[1]; step++ {
		i := step % 2
		some := someDirents(t, fds[i])
		names[i] = append(names[i], some...)
		ended[i] = len(some) == 0
		if step%5 == 0 && len(some) > 0 {
			c.change(t, some[len(some)-1])
			if _, err := os.ReadDir(filepath.Join(mnt, "d")); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.check(t, "the first", names[0])
	c.check(t, "the second", names[1])
	// Back to a place of long ago, and the beginning.
	if _, err := unix.Seek(fds[0], 0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadDir(filepath.Join(c.source, "d")); err != nil ||
		len(direntsFrom(t, fds[0])) != len(now)+dotEntries {
		t.Error("from the beginning: not all of what is there now", err)
	}
}

// TestADirectoryThatChangesUnderSuccessors reads a directory while it changes and one process after the other serves
// it.
func TestADirectoryThatChangesUnderSuccessors(t *testing.T) {
	notShort(t)
	c := newChanger(t)
	var names []string
	fd := -1
	k := keep(t, c.source, func(mnt string) {
		var err error
		if fd, err = unix.Open(filepath.Join(mnt, "d"), unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			names = append(names, someDirents(t, fd)...)
		}
	})
	defer func() { _ = unix.Close(fd) }()
	for range 3 {
		c.change(t, names[len(names)-1])
		cmd := k.serve(t)
		for range 3 {
			names = append(names, someDirents(t, fd)...)
		}
		kill(cmd)
	}
	cmd := k.serve(t)
	defer kill(cmd)
	for some := someDirents(t, fd); len(some) > 0; some = someDirents(t, fd) {
		names = append(names, some...)
	}
	c.check(t, "over four processes", names)
}
