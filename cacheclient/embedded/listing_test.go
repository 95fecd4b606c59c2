package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
)

// TestEachNameOnce has a source list names twice, in any order, in few entries and in more than memory is for: each is
// shown once, in the order of names, a directory before a file of its name, and what is told before what is not.
func TestEachNameOnce(t *testing.T) {
	for _, n := range []int{1, 5, 300, 20_000} {
		entries := make([]cacheclient.Info, 0, 2*n+4)
		for i := range n {
			name := fmt.Sprintf("some-name-%06d", i)
			entries = append(entries, cacheclient.Info{Path: "d/" + name, Size: 7},
				cacheclient.Info{Path: "d/" + name, Size: 7})
		}
		entries = append(entries,
			cacheclient.Info{Path: "d/both", Size: 1}, cacheclient.Info{Path: "d/both", Dir: true},
			cacheclient.Info{Path: "d/known", Size: cacheclient.UnknownSize},
			cacheclient.Info{Path: "d/known", Size: 3})
		rand.New(rand.NewPCG(1, uint64(n))).Shuffle(len(entries),
			func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		store := newFakeStore()
		store.list = func(_ string, fn func(cacheclient.Info) error) error {
			for _, e := range entries {
				if err := fn(e); err != nil {
					return err
				}
			}
			return nil
		}
		c := cacheOf(t, store, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
		got := listAll(t, c, "d", 1000)
		if len(got) != n+2 || !slices.IsSortedFunc(got,
			func(a, b cacheclient.Info) int { return strings.Compare(a.Path, b.Path) }) {
			t.Errorf("of %d names %d are shown", n+2, len(got))
		}
		for _, e := range got {
			if e.Name() == "both" && !e.Dir || e.Name() == "known" && e.Size != 3 {
				t.Errorf("%+v", e)
			}
		}
	}
}

// TestAListingTellsWhatTheSourceTold brings attributes at their borders through a listing.
func TestAListingTellsWhatTheSourceTold(t *testing.T) {
	var want []cacheclient.Info
	for i, at := range []time.Time{
		{},
		time.Unix(0, 1), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC),
		time.Date(1677, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999, time.UTC),
		time.Date(60000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		want = append(want, cacheclient.Info{Path: fmt.Sprintf("t%d", i), Size: int64(i), ModTime: at})
	}
	for i, mode := range []os.FileMode{0, 0o400, 0o777} {
		want = append(want, cacheclient.Info{
			Path: fmt.Sprintf("u%d", i), Size: 1 << 50, Mode: mode, ModeKnown: true,
			Dir: i == 1,
		})
	}
	want = append(want, cacheclient.Info{Path: "v\xff\n", Size: 1, Version: strings.Repeat("\xfe", 1024)})
	store := newFakeStore()
	store.list = func(_ string, fn func(cacheclient.Info) error) error {
		for _, e := range want {
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	}
	got := listAll(t, cacheOf(t, store, embedded.Config{}), "", 100)
	if len(got) != len(want) {
		t.Fatalf("%d entries of %d", len(got), len(want))
	}
	for i, w := range want {
		w = cacheclient.Identify(w)
		if g := got[i]; g.ID != w.ID || g.Mode != w.Mode || g.ModeKnown != w.ModeKnown || !g.ModTime.Equal(w.ModTime) ||
			g.Dir != w.Dir {
			t.Errorf("got %+v, want %+v", g, w)
		}
	}
}

// TestOneNameHidesNoOther has a directory with names that no file system can hold: the others are there.
func TestOneNameHidesNoOther(t *testing.T) {
	store := newFakeStore()
	store.list = func(_ string, fn func(cacheclient.Info) error) error {
		for _, name := range []string{
			strings.Repeat("n", 70<<10), "a", strings.Repeat("m", 1025),
			strings.Repeat("l", 1024), "z", "..",
		} {
			if err := fn(cacheclient.Info{Path: name, Size: 1}); err != nil {
				return err
			}
		}
		return nil
	}
	var log logLines
	c := cacheOf(t, store, embedded.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got := listAll(t, c, "", 10); len(got) != 3 {
		t.Errorf("%d entries", len(got))
	}
	if !strings.Contains(log.String(), "left out") {
		t.Errorf("log: %s", log.String())
	}
}

// TestListingsCountAgainstTheQuota has long listings take the tier's room: it is counted, bounded, given back, and
// taken by no file meanwhile. The latest is there whatever it takes.
func TestListingsCountAgainstTheQuota(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "listings-") //nolint:usetesting // what is in memory is measured
	if err != nil {
		t.Skip("needs /dev/shm:", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	const quota, names = 4 << 20, 8_000
	store := newFakeStore()
	store.list = many(names)
	c, err := embedded.New(store, embedded.Config{Levels: tier(dir, quota), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i := range 12 {
		if p, err := c.List(t.Context(), fmt.Sprintf("d%d", i), cacheclient.Cursor{}, 10, false); err != nil ||
			p.Count != names {
			t.Fatalf("%d entries, %v", p.Count, err)
		}
		if used := c.Capacity().Used; used == 0 || used > quota/2 {
			t.Fatalf("%d bytes of a quota of %d are used", used, quota)
		}
	}
	if got := listAll(t, c, "d0", 1000); len(got) != names {
		t.Errorf("%d entries of a directory that was forgotten", len(got))
	}
	if open := deleted(t, dir); open > quota/2 {
		t.Errorf("%d bytes are in files without a name", open)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if open := deleted(t, dir); open != 0 {
		t.Errorf("%d bytes are in files without a name after Close", open)
	}
}

// deleted is how many bytes this process holds in files below dir that have no name.
func deleted(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		name := "/proc/self/fd/" + fd.Name()
		target, err := os.Readlink(name)
		var st unix.Stat_t
		if err == nil && strings.HasPrefix(target, dir) && strings.HasSuffix(target, "(deleted)") &&
			unix.Stat(name, &st) == nil {
			bytes += st.Blocks * 512
		}
	}
	return bytes
}

// TestAListingLargerThanTheTier is shown whole all the same.
func TestAListingLargerThanTheTier(t *testing.T) {
	store := newFakeStore()
	store.list = many(20_000)
	c := cacheOf(t, store, embedded.Config{Levels: tier(t.TempDir(), 1<<19)})
	if got := listAll(t, c, "d", 1000); len(got) != 20_000 {
		t.Errorf("%d entries", len(got))
	}
	if room := c.Capacity(); room.Used > room.Quota {
		t.Errorf("%d bytes of a quota of %d are used", room.Used, room.Quota)
	}
}

// TestAPlaceThatIsGone is an error where neither the version nor a name tells it.
func TestAPlaceThatIsGone(t *testing.T) {
	store := newFakeStore()
	store.list = many(10)
	c := cacheOf(t, store, embedded.Config{})
	if _, err := c.List(t.Context(), "d", cacheclient.Cursor{Version: 12345, Index: 5}, 10, false); !errors.Is(err,
		cacheclient.ErrStale) {
		t.Error(err)
	}
	p, err := c.List(context.Background(), "d", cacheclient.Cursor{
		Version: 12345, Index: 5,
		After: "a-name-of-some-length-00000003x",
	}, 10, false)
	if err != nil || p.First != 4 || len(p.Entries) != 6 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestWhatServersSayIsBoundedInBytes remembers the names of a server whose versions and paths are long: fewer of them.
func TestWhatServersSayIsBoundedInBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than two seconds: make test")
	}
	store := newFakeStore()
	const files = 12_000
	store.list = func(_ string, fn func(cacheclient.Info) error) error {
		for i := range files {
			if err := fn(cacheclient.Info{
				Path: fmt.Sprintf("f%08d", i), Size: 1,
				Version: strings.Repeat("v", 4000),
			}); err != nil {
				return err
			}
		}
		return nil
	}
	c := cacheOf(t, store, embedded.Config{Levels: tier(t.TempDir(), 1<<30)})
	if got := listAll(t, c, "", 1000); len(got) != files {
		t.Fatalf("%d entries", len(got))
	}
	if known := c.Counters().FilesKnown; known == 0 || known > (40<<20)/4000 {
		t.Errorf("%d names with versions of 4000 bytes are remembered", known)
	}
}
