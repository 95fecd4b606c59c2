package fuse

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

func TestNodes(t *testing.T) {
	table := newNodeTable(testState(t))
	root := table.get(rootID)
	dirInfo := cacheclient.Identify(cacheclient.Info{Path: "a", Dir: true})
	dir, err := table.add(root, "a", dirInfo)
	if err != nil {
		t.Fatal(err)
	}
	want := cacheclient.Identify(cacheclient.Info{
		Path: "a/b", Size: 5, ModTime: time.Unix(1700000000, 123456789), Mode: 0o640, ModeKnown: true, Version: `"etag"`,
	})
	file, err := table.add(dir, "b", want)
	if err != nil {
		t.Fatal(err)
	}
	got := file.info()
	if !got.ModTime.Equal(want.ModTime) {
		t.Errorf("time %v, want %v", got.ModTime, want.ModTime)
	}
	got.ModTime = want.ModTime
	if got != want {
		t.Errorf("info %+v, want %+v", got, want)
	}
	if cacheclient.Identify(got).ID != want.ID {
		t.Error("the info has another identity than the one that came")
	}
	if _, err := table.add(dir, "b", want); err != nil {
		t.Fatal(err)
	}
	table.forget(want.ID, 1)
	if table.get(want.ID) == nil {
		t.Error("forgotten with a lookup left")
	}
	table.forget(dirInfo.ID, 1)
	if file.path() != "a/b" {
		t.Errorf("path %q after the parent was forgotten", file.path())
	}
	table.forget(want.ID, 1)
	table.forget(rootID, 1000)
	if table.known() != 1 || table.get(rootID) == nil {
		t.Errorf("%d nodes left", table.known())
	}
}

func TestNodeWithoutTime(t *testing.T) {
	table := newNodeTable(testState(t))
	n, err := table.add(table.get(rootID), "x", cacheclient.Identify(cacheclient.Info{Path: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	if !n.attrs.modTime().IsZero() {
		t.Errorf("time %v", n.attrs.modTime())
	}
}

func TestNodeCollision(t *testing.T) {
	table := newNodeTable(testState(t))
	root := table.get(rootID)
	if _, err := table.add(root, "x", cacheclient.Info{Path: "x", ID: 42}); err != nil {
		t.Fatal(err)
	}
	for name, info := range map[string]cacheclient.Info{
		"y": {Path: "y", ID: 42},
		"x": {Path: "x", ID: 42, Dir: true},
		"z": {Path: "z", ID: rootID},
	} {
		if _, err := table.add(root, name, info); !errors.Is(err, errCollision) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNodesAreSmall: 100,000 files that the kernel knows cost well under 40 MB.
func TestNodesAreSmall(t *testing.T) {
	const files = 100_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	table := newNodeTable(testState(t))
	var dir *node
	for i := range files {
		if i%1000 == 0 {
			name := fmt.Sprintf("directory-%04d", i/1000)
			dir, _ = table.add(table.get(rootID), name, cacheclient.Identify(cacheclient.Info{Path: name, Dir: true}))
		}
		name := fmt.Sprintf("a-file-of-usual-length-%06d.bin", i)
		info := cacheclient.Identify(cacheclient.Info{
			Path: dir.path() + "/" + name, Size: int64(i), ModTime: time.Now(), Version: fmt.Sprintf("%032x", i),
		})
		if _, err := table.add(dir, name, info); err != nil {
			t.Fatal(err)
		}
	}
	spent := heap() - before
	t.Logf("%d bytes for each of %d files, %d MB in all", spent/files, files, spent>>20)
	if spent > 30<<20 {
		t.Errorf("%d bytes for %d files", spent, files)
	}
	runtime.KeepAlive(table)
}
