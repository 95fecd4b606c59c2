package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// mostIndex is how much memory a cached file may take that is not in use.
const mostIndex = 200

// TestIndexMemory puts many files into the index, ten to a directory.
func TestIndexMemory(t *testing.T) {
	const n = 50_000
	c := cacheOf(t, new(memory), t.TempDir(), 1<<30)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range n {
		name := fmt.Sprintf("some/directory/number-%08d/file-%08d.bin", i/10, i)
		f := found{stub: stub{id: uint64(i + 1), path: pathKey(name), charged: 8192}, dir: parentOf(name)}
		c.shelveAll([]found{f})
	}
	each := (heap() - before) / n
	t.Logf("%d bytes of memory a file", each)
	if each > mostIndex {
		t.Errorf("%d bytes of memory a file, %d are wanted", each, mostIndex)
	}
	runtime.KeepAlive(c)
}

// TestShelf does at random what a cache does, beside a model.
func TestShelf(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s shelf
	model := map[uint8][]uint64{}
	for range 20_000 {
		id, level := uint64(rnd.IntN(700)+1), uint8(rnd.IntN(2))
		if old, ok := s.take(id); ok {
			m := model[old.level]
			i := slices.Index(m, id)
			model[old.level] = slices.Delete(m, i, i+1)
			continue
		}
		last := rnd.IntN(3) > 0
		s.put(stub{id: id, path: id, level: level}, fmt.Sprint("d", id%9), last)
		if last {
			model[level] = append(model[level], id)
		} else {
			model[level] = slices.Insert(model[level], 0, id)
		}
	}
	if s.len() != len(model[0])+len(model[1]) {
		t.Errorf("%d stubs, want %d", s.len(), len(model[0])+len(model[1]))
	}
	for level, want := range model {
		var got []uint64
		for t := s.oldest(level); t != nil; {
			got = append(got, t.id)
			if t.newer == 0 {
				break
			}
			t = s.at(t.newer)
		}
		if !slices.Equal(got, want) {
			t.Errorf("level %d: %d stubs in another order than %d", level, len(got), len(want))
		}
	}
	files := 0
	for _, d := range s.dirs.list {
		files += d.files
	}
	if files != s.len() || len(s.dirs.places) > 9 {
		t.Errorf("%d files in %d directories", files, len(s.dirs.places))
	}
}

// TestSnapshotSparesTheStates starts over a tier whose states are all damaged: a process that has a snapshot does not
// look at them.
func TestSnapshotSparesTheStates(t *testing.T) {
	const n = 2000
	left := leave(t, n)
	c := left.open(t, 1<<30)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkContent(t, c, left.infos[n/2], n/2)
	used := c.Capacity().Used
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, info := range left.infos[1:] {
		overwrite(t, pathOf(c, info, stateSuffix), 0, []byte("damaged"))
	}
	c = left.open(t, 1<<30)
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := c.Capacity().Used; now != used || c.Counters().Discarded != 0 {
		t.Errorf("%d bytes are counted, want %d; %d files were thrown away", now, used, c.Counters().Discarded)
	}
	checkContent(t, c, left.infos[0], 0)
	if _, err := os.Lstat(filepath.Join(c.levels[0].dir, snapshotName)); err == nil {
		t.Error("the snapshot is still there")
	}
	// The order of use is that of before: the file that was read last goes last.
	for i, want := range []int{n - 1, n - 2} {
		g, ok := c.victim(c.levels[0])
		if !ok || g.id != left.infos[want].ID {
			t.Errorf("victim %d is another", i)
		}
		c.sweep([]gone{g})
	}
}

// TestSnapshotOfAnotherTime is not believed: the tier was changed since, or the snapshot.
func TestSnapshotOfAnotherTime(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, dir string, l *level, info cacheclient.Info){
		"a file is gone": func(t *testing.T, _ string, l *level, info cacheclient.Info) {
			t.Helper()
			before, err := changedAt(l.dir)
			if err = errors.Join(err, removeFiles(l, info.ID)); err != nil {
				t.Fatal(err)
			}
			// The clock of directories has steps.
			for now := before; now == before; {
				if err := os.WriteFile(filepath.Join(l.dir, "other"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(l.dir, "other")); err != nil {
					t.Fatal(err)
				}
				if now, err = changedAt(l.dir); err != nil {
					t.Fatal(err)
				}
			}
		},
		"the snapshot is cut": func(t *testing.T, name string, _ *level, _ cacheclient.Info) {
			t.Helper()
			cut(t, name, 100)
		},
		"the snapshot is damaged": func(t *testing.T, name string, _ *level, _ cacheclient.Info) {
			t.Helper()
			overwrite(t, name, 60, []byte("damage"))
		},
		"the snapshot is empty": func(t *testing.T, name string, _ *level, _ cacheclient.Info) {
			t.Helper()
			cut(t, name, 0)
		},
	} {
		t.Run(what, func(t *testing.T) {
			left := leave(t, 20)
			c := left.open(t, 1<<30)
			if err := c.adopted(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(c.levels[0].dir, snapshotName)
			if _, err := os.Lstat(name); err != nil {
				t.Fatal(err)
			}
			change(t, name, c.levels[0], left.infos[3])
			c = left.open(t, 1<<30)
			if err := c.adopted(t.Context()); err != nil {
				t.Fatal(err)
			}
			if gone := what == "a file is gone"; c.has(left.infos[3]) == gone || !c.has(left.infos[4]) {
				t.Error("the index does not tell what is there")
			}
		})
	}
}

// FuzzSnapshot reads snapshots that a broken tier may hold.
func FuzzSnapshot(f *testing.F) {
	var b snapshotBuilder
	b.numbers = make(map[string]uint32)
	b.add(stub{id: 7, path: 8, confirmed: 9, charged: 8192}, "a/b")
	b.add(stub{id: 1<<64 - 1, path: 1, confirmed: -1, charged: 4096}, "caf\xe9")
	var at [12]byte
	good := append(append([]byte(snapshotMagic), at[:]...), b.text()...)
	f.Add(good)
	for _, n := range []uint64{1 << 63, 1<<64 - 1, 1 << 40, 3} {
		f.Add(append(append([]byte(snapshotMagic), at[:]...), binary.LittleEndian.AppendUint64(nil, n)...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := decodeSnapshot(bytes.NewReader(data), int64(len(data)), at, 0)
		if err == nil && len(all)*snapshotFile > len(data) {
			t.Fatalf("%d files in %d bytes", len(all), len(data))
		}
		if bytes.Equal(data, good) && (err != nil || len(all) != 2 || all[0].dir != "a/b" || all[1].confirmed != -1) {
			t.Fatalf("%+v, %v", all, err)
		}
	})
}

// TestReadersOfAFullTierStream reads new files of a full tier while it is still being taken over: they do not wait for
// that.
func TestReadersOfAFullTierStream(t *testing.T) {
	src, want := new(memory), filled(BlockSize+5)
	info := src.put("a", want)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	adopting := func(bytes int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.left.over, c.left.touched = bytes == 0, make(map[uint64]struct{})
		c.levels[0].left = bytes
	}
	adopting(64 << 20)
	began := time.Now()
	readWhole(t, c, info, want)
	pace.Within(t, "a read while the tier was taken over", time.Since(began), 5*time.Second)
	restedNow(t, c, info)
	adopting(0)
	readWhole(t, c, info, want)
	if c.Capacity().Used == 0 {
		t.Error("nothing is cached after it")
	}
}
