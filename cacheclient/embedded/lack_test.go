package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// withoutDescriptors runs f in a process that can open nothing.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	f()
}

// cachedFiles are the files of a tier by their names.
func cachedFiles(t *testing.T, dir string) int {
	t.Helper()
	data, err := filepath.Glob(filepath.Join(dir, "*", "*"+dataSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return len(data)
}

// TestNoDescriptorsForAReader opens cached files while nothing can be opened: they are read past the tier, and stay.
func TestNoDescriptorsForAReader(t *testing.T) {
	src, dir, want := new(memory), t.TempDir(), filled(BlockSize+5)
	c := cacheOf(t, src, dir, 64<<20)
	var infos []cacheclient.Info
	for _, name := range []string{"a", "b", "c"} {
		info := src.put(name, want)
		readWhole(t, c, info, want)
		restedNow(t, c, info)
		infos = append(infos, info)
	}
	used := c.Capacity().Used
	before := src.opened.Load()
	withoutDescriptors(t, func() {
		for _, info := range infos {
			readWhole(t, c, info, want)
		}
	})
	if src.opened.Load() == before {
		t.Error("the tier was read without descriptors")
	}
	for _, info := range infos {
		restedNow(t, c, info)
	}
	before = src.opened.Load()
	for _, info := range infos {
		readWhole(t, c, info, want)
	}
	n := c.Counters()
	if src.opened.Load() != before || n.Discarded != 0 || c.Capacity().Used != used {
		t.Errorf("%d requests after it, %d files thrown away, %d bytes used of %d",
			src.opened.Load()-before, n.Discarded, c.Capacity().Used, used)
	}
	if problem := c.Capacity().Levels[0].Problem; problem != "" {
		t.Errorf("the tier says %q", problem)
	}
}

// TestNoDescriptorsForATakeover takes a tier over while nothing can be opened: all is there when it can again.
func TestNoDescriptorsForATakeover(t *testing.T) {
	const n = 300
	left := leave(t, n)
	c := left.open(t, 1<<30)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := c.levels[0]
	ids, _, err := listFiles(l)
	if err != nil || len(ids) != n {
		t.Fatalf("%d files, %v", len(ids), err)
	}
	used := c.Capacity().Used
	c.forgetAll()
	var unread []found
	withoutDescriptors(t, func() { unread = c.takeOver([]remains{{l: l, ids: ids}}) })
	if len(unread) != n || cachedFiles(t, left.tier) != n || c.Capacity().Used < used {
		t.Errorf("%d files are to be read later, %d are there, %d bytes are counted",
			len(unread), cachedFiles(t, left.tier), c.Capacity().Used)
	}
	checkContent(t, c, left.infos[7], 7)
	if _, unread = c.takeOverRest(nil, unread); len(unread) != 0 {
		t.Errorf("%d files are still to be read", len(unread))
	}
	if now := c.Capacity().Used; now != used || c.Counters().Discarded != 0 {
		t.Errorf("%d bytes are counted, want %d", now, used)
	}
	for i, info := range left.infos {
		if _, _, ok := c.cachedVersion(info.Path); !ok {
			t.Fatalf("file %d is gone", i)
		}
	}
}

// forgetAll empties the index, and leaves the files.
func (c *Cache) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shelf = shelf{}
	clear(c.latest)
	c.levels[0].used = 0
}

// TestTierThatCannotBeListed takes no data until it can be, and then has what was there.
func TestTierThatCannotBeListed(t *testing.T) {
	left := leave(t, 3)
	c := left.open(t, 1<<30)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.forgetAll()
	l := c.levels[0]
	withoutDescriptors(t, func() {
		if _, err := c.survey(l); !errors.Is(err, unix.EMFILE) {
			t.Errorf("listed without descriptors: %v", err)
		}
	})
	if problem := c.Capacity().Levels[0].Problem; problem == "" {
		t.Error("the tier is not told to be out of use")
	}
	if levels, unread := c.takeOverRest([]*level{l}, nil); len(levels)+len(unread) != 0 {
		t.Errorf("%d tiers and %d files are left", len(levels), len(unread))
	}
	if now := c.Capacity(); now.Levels[0].Problem != "" || now.Used != 3*(4096+statePage) {
		t.Errorf("the tier says %q and has %d bytes", now.Levels[0].Problem, now.Used)
	}
}

// TestSealSurvivesAConfirmation: a file that the source has confirmed since is trusted by the next process all the
// same.
func TestSealSurvivesAConfirmation(t *testing.T) {
	src, dir, want := new(memory), t.TempDir(), filled(2*BlockSize)
	info := src.put("a", want)
	c := cacheOf(t, src, dir, 64<<20)
	readWhole(t, c, info, want)
	state := pathOf(c, info, stateSuffix)
	for _, shelved := range []bool{false, true} {
		if shelved {
			restedNow(t, c, info)
		}
		c.unconfirm(info.Path, 0)
		before := time.Now()
		c.confirm(info)
		f, err := os.Open(filepath.Clean(state))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, at, err := readHeader(f); err != nil || at.Before(before.Truncate(time.Second)) {
			t.Errorf("shelved %v: confirmed at %v, %v", shelved, at, err)
		}
		_ = f.Close()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = cacheOf(t, src, dir, 64<<20)
		r, err := c.Resume(t.Context(), info)
		if err != nil {
			t.Fatal(err)
		}
		if _, trusted := r.Local(); !trusted {
			t.Errorf("shelved %v: the next process does not trust the seal", shelved)
		}
		_ = r.Close()
	}
}

// TestFreeHoldsNobodyUp frees much, and looks meanwhile how long the cache's lock is held.
func TestFreeHoldsNobodyUp(t *testing.T) {
	pace.Long(t)
	const files, size = 32, 4 * BlockSize
	src := new(memory)
	c := cacheOf(t, src, t.TempDir(), 1<<30)
	want := filled(size)
	for i := range files {
		info := src.put(string(rune('a'+i)), want)
		readWhole(t, c, info, want)
	}
	done := make(chan time.Duration)
	go func() {
		began := time.Now()
		if n, err := c.Free(t.Context(), ""); err != nil || n != files*(size+statePage) {
			t.Errorf("freed %d bytes, %v", n, err)
		}
		done <- time.Since(began)
	}()
	var longest time.Duration
	for {
		select {
		case took := <-done:
			t.Logf("freed in %v; the lock was held for %v", took, longest)
			pace.Within(t, "the longest wait for the lock", longest, max(10*time.Millisecond, took/4))
			return
		default:
		}
		began := time.Now()
		_ = c.Capacity()
		longest = max(longest, time.Since(began))
	}
}
