package embedded

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// leftOver is a tier as an earlier process may have left it.
type leftOver struct {
	source, tier string
	infos        []cacheclient.Info
}

// leave makes n cached files of a page each, the first of them used last; the source has none of them.
func leave(t *testing.T, n int) *leftOver {
	t.Helper()
	left := &leftOver{source: t.TempDir(), tier: t.TempDir()}
	dir := left.dir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := &level{dir: dir}
	for i := range n {
		info := cacheclient.Identify(cacheclient.Info{
			Path: fmt.Sprintf("dir%d/file%d", i%10, i), Size: 4096,
			ModTime: time.Unix(int64(i), 0).UTC(),
		})
		data := content(i)
		if err := os.WriteFile(l.path(info.ID, dataSuffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := createState(l.path(info.ID, stateSuffix), headerOf(info))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.set(0, crc32.Checksum(data, castagnoli)); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		used := time.Now().Add(-time.Duration(i+1) * time.Minute)
		if err := os.Chtimes(l.path(info.ID, stateSuffix), used, used); err != nil {
			t.Fatal(err)
		}
		left.infos = append(left.infos, info)
	}
	return left
}

// dir is where the source's files are on the tier.
func (left *leftOver) dir() string {
	return filepath.Join(left.tier, SourceDir("local\n"+left.source+"\nfollow=false\nwithin=", ""))
}

func content(i int) []byte {
	b := make([]byte, 4096)
	copy(b, fmt.Sprintf("content of %d", i))
	return b
}

// open starts a process over the tier.
func (left *leftOver) open(t *testing.T, quota int64) *Cache {
	t.Helper()
	store, err := ufs.Open(t.Context(), left.source, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(store, Config{Levels: []LevelConfig{{Dir: left.tier, Quota: quota}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func checkContent(t *testing.T, c *Cache, info cacheclient.Info, i int) {
	t.Helper()
	f, err := c.Resume(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got := make([]byte, 4096)
	if _, err := cacheclient.ReadAt(t.Context(), f, got, 0); err != nil || string(got) != string(content(i)) {
		t.Fatalf("file %d: %v", i, err)
	}
}

// has reports whether a version is in the index.
func (c *Cache) has(info cacheclient.Info) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[info.ID] != nil || c.shelf.get(info.ID) != nil
}

// TestManyFilesAreThereAtOnce starts over 10,000 cached files.
func TestManyFilesAreThereAtOnce(t *testing.T) {
	pace.Long(t)
	const n, each = 10_000, 4096 + statePage
	left := leave(t, n)
	began := time.Now()
	c := left.open(t, 1<<30)
	opened := time.Since(began)
	for i := n - 1; i > n-100; i-- {
		checkContent(t, c, left.infos[i], i)
	}
	read := time.Since(began)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("New took %v, 99 files were read after %v, all were taken over after %v", opened, read, time.Since(began))
	// Far more than it takes, and far less than to look at each file takes.
	if opened > pace.Limit(50*time.Millisecond) {
		t.Errorf("New took %v", opened)
	}
	if used := c.Capacity().Used; used != n*each {
		t.Errorf("%d bytes used, want %d", used, n*each)
	}
	if idle := c.idle.Len(); len(c.entries) != idle || c.shelf.len()+idle != n {
		t.Errorf("%d entries, %d of them idle, and %d stubs", len(c.entries), idle, c.shelf.len())
	}
	checkContent(t, c, left.infos[17], 17)
	if freed, err := c.Free(t.Context(), ""); err != nil || freed != n*each {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	if names, err := os.ReadDir(c.levels[0].dir); err != nil || len(names) != 1 {
		t.Errorf("%d files are left, want the lock; %v", len(names), err)
	}
}

// TestEvictionAfterTheTakeover opens a tier with a smaller quota than before: the least recently used files go.
func TestEvictionAfterTheTakeover(t *testing.T) {
	const n, each = 200, 4096 + statePage
	left := leave(t, n)
	c := left.open(t, n*each/2)
	checkContent(t, c, left.infos[n-1], n-1)
	for deadline := time.Now().Add(pace.Limit(10 * time.Second)); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		used, over := c.levels[0].used, c.left.over
		c.mu.Unlock()
		if over && used <= c.levels[0].high {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes used of %d after the takeover", used, c.levels[0].quota)
		}
	}
	if !c.has(left.infos[0]) || !c.has(left.infos[n-1]) {
		t.Error("a file that was used last is gone")
	}
	if c.has(left.infos[n-2]) {
		t.Error("the file that was used longest ago is still there")
	}
}

// TestTwoVersionsOfOnePath: the one that was used before stays for its readers, and goes when none came.
func TestTwoVersionsOfOnePath(t *testing.T) {
	left := leave(t, 1)
	now := left.infos[0]
	before := now
	before.ModTime = before.ModTime.Add(-time.Hour)
	before = cacheclient.Identify(before)
	l := &level{dir: left.dir()}
	for _, info := range []cacheclient.Info{before} {
		s, err := createState(l.path(info.ID, stateSuffix), headerOf(info))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.set(0, crc32.Checksum(content(7), castagnoli)); err != nil {
			t.Fatal(err)
		}
		_ = s.close()
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(l.path(info.ID, stateSuffix), old, old); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.path(info.ID, dataSuffix), content(7), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := left.open(t, 1<<20)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	latest := c.latest[pathKey(now.Path)]
	c.mu.Unlock()
	if latest != now.ID {
		t.Error("the version that was used before is taken for the latest")
	}
	f, err := c.Resume(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	c.endGrace()
	got := make([]byte, 4096)
	if _, err := cacheclient.ReadAt(t.Context(), f, got, 0); err != nil || string(got) != string(content(7)) {
		t.Errorf("the reader of the version before: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if c.has(before) || !c.has(now) {
		t.Error("after its reader the version before is still there, or the latest is not")
	}
}

// TestTheLatestWasConfirmedLast comes upon the older of two versions first, as a reader of the former process asks for
// it: the one that the source told of later is the latest all the same.
func TestTheLatestWasConfirmedLast(t *testing.T) {
	c := leave(t, 0).open(t, 1<<20)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index(found{stub: stub{id: 1, path: 7, confirmed: 100}}, true)
	c.index(found{stub: stub{id: 2, path: 7, confirmed: 200}}, false)
	c.index(found{stub: stub{id: 3, path: 7, confirmed: 50}}, false)
	if c.latest[7] != 2 || !slices.Equal(c.left.replaced, []uint64{1, 3}) {
		t.Errorf("the latest is %d, and replaced are %v", c.latest[7], c.left.replaced)
	}
}

// TestSealedFileNeedsNoCheck restarts over a whole file: as it was left it can be passed through at once; written
// to, it is checked.
func TestSealedFileNeedsNoCheck(t *testing.T) {
	left := leave(t, 1)
	info := left.infos[0]
	state := func() (unverified, whole bool) {
		c := left.open(t, 1<<20)
		f, err := c.Resume(t.Context(), info)
		if err != nil {
			t.Fatal(err)
		}
		e := c.entries[info.ID]
		e.mu.Lock()
		unverified, whole = len(e.unverified) > 0, e.whole()
		e.mu.Unlock()
		if err := e.check(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, local := f.Local(); !local && whole {
			t.Log("checked, and not right")
		}
		_ = f.Close()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		return unverified, whole
	}
	if unverified, whole := state(); !unverified || !whole {
		t.Error("a file without a seal is trusted")
	}
	if unverified, whole := state(); unverified || !whole {
		t.Error("a sealed file is not trusted")
	}
	l := &level{dir: left.dir()}
	f, err := os.OpenFile(l.path(info.ID, dataSuffix), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("X"), 100); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if unverified, _ := state(); !unverified {
		t.Error("a file that was written to is trusted")
	}
	if _, whole := state(); whole {
		t.Error("a damaged file is whole")
	}
}

// TestConfirmedBefore: what an earlier process had confirmed lately is believed as if this one had asked, and no
// longer.
func TestConfirmedBefore(t *testing.T) {
	left := leave(t, 3)
	dir := left.dir()
	l := &level{dir: dir}
	for i, ago := range []time.Duration{10 * time.Second, time.Hour, -time.Hour} {
		if err := confirmFile(l.path(left.infos[i].ID, stateSuffix), time.Now().Add(-ago)); err != nil {
			t.Fatal(err)
		}
	}
	c := left.open(t, 1<<30)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(t.Context(), left.infos[0])
	if err != nil {
		t.Fatal("confirmed ten seconds ago:", err)
	}
	_ = f.Close()
	if n := c.Counters().SourceRequests; n != 0 {
		t.Errorf("%d requests to the source", n)
	}
	// The source has none of them.
	for i, when := range map[int]string{1: "an hour ago", 2: "in the future"} {
		if _, err := c.Open(t.Context(), left.infos[i]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("confirmed %s: %v", when, err)
		}
	}
}

// TestOpenOfWhatIsNotWholeAfterARestart has a file change between two processes: the word of the first that the source
// has the version is not enough to open what is here in part, for its first read would fail.
func TestOpenOfWhatIsNotWholeAfterARestart(t *testing.T) {
	dir, src := t.TempDir(), &memory{}
	before := src.put("f", filled(40<<20))
	whole := src.put("whole", filled(1000))
	first := cacheOf(t, src, dir, 256<<20)
	f := openFile(t, first, before)
	if _, err := cacheclient.ReadAt(t.Context(), f, make([]byte, 1000), 0); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	readWhole(t, first, whole, filled(1000))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	after := src.claim(cacheclient.Info{Path: "f", Size: 40 << 20, ModTime: long.Add(time.Hour)}, filled(40<<20))
	second := cacheOf(t, src, dir, 256<<20)
	if info, err := second.Stat(t.Context(), "f"); err != nil || info.ID != before.ID {
		t.Fatalf("the word of the first process does not count: %+v, %v", info, err)
	}
	if f, err := second.openFile(t.Context(), before); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("%v, %v", f, err)
	}
	if info, err := second.Stat(t.Context(), "f"); err != nil || info.ID != after.ID {
		t.Errorf("%+v, %v", info, err)
	}
	asked := second.count.sourceRequests.Load()
	readWhole(t, second, whole, filled(1000))
	if n := second.count.sourceRequests.Load() - asked; n != 0 {
		t.Errorf("what is whole costs %d requests", n)
	}
}
