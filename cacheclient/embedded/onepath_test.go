package embedded

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// TestOpenersOfADamagedFile has many open a file whose state was damaged while it was not in use: there is one entry,
// all read what is right, and no file that is open loses a byte.
func TestOpenersOfADamagedFile(t *testing.T) {
	pace.Long(t)
	src, want := new(memory), filled(3*BlockSize+5)
	info := src.put("a", want)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	for round := range 8 {
		readWhole(t, c, info, want)
		restedNow(t, c, info)
		reader, err := os.Open(pathOf(c, info, dataSuffix))
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, pathOf(c, info, stateSuffix), 0, []byte("damaged"))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { readWhole(t, c, info, want) })
		}
		all.Wait()
		got := make([]byte, len(want))
		if _, err := reader.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: the file of a reader was changed: %v", round, err)
		}
		_ = reader.Close()
		if n := c.Counters().Discarded; n != int64(round+1) {
			t.Fatalf("round %d: %d files were thrown away", round, n)
		}
	}
	restedNow(t, c, info)
	if used := c.Capacity().Used; used != pages(int64(len(want)))+statePage {
		t.Errorf("%d bytes are charged for a file of %d", used, len(want))
	}
}

// TestFilesAreReplacedAndNotReused makes files where others have their names.
func TestFilesAreReplacedAndNotReused(t *testing.T) {
	l := &level{dir: t.TempDir()}
	for _, suffix := range []string{dataSuffix, stateSuffix} {
		if err := os.WriteFile(l.path(7, suffix), []byte("held by another"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := os.Open(l.path(7, dataSuffix))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	data, state, err := createFiles(l, 7, testHeader())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = data.Close(), state.close()
	if fi, err := reader.Stat(); err != nil || fi.Size() != 15 {
		t.Errorf("the file that was there has %d bytes, %v", fi.Size(), err)
	}
	if fi, err := os.Stat(l.path(7, dataSuffix)); err != nil || fi.Size() != testHeader().Size {
		t.Errorf("the new file has %d bytes, %v", fi.Size(), err)
	}
	if names, err := os.ReadDir(l.dir); err != nil || len(names) != 2 {
		t.Errorf("%d files are there, %v", len(names), err)
	}
}

// TestUnfinishedFilesOfAnotherProcess are swept; those of this one are not.
func TestUnfinishedFilesOfAnotherProcess(t *testing.T) {
	l := &level{dir: t.TempDir()}
	for _, name := range []string{l.path(1, dataSuffix) + ".new-0", l.path(2, dataSuffix) + unfinished} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ids, _, err := listFiles(l); err != nil || len(ids) != 0 {
		t.Errorf("identities %v, %v", ids, err)
	}
	if names, err := os.ReadDir(l.dir); err != nil || len(names) != 1 {
		t.Errorf("%d files are there, %v", len(names), err)
	}
}

// TestRemovalIsWaitedFor takes a version off the index and opens it before its files are gone: the opener waits, and
// what it then makes is not removed.
func TestRemovalIsWaitedFor(t *testing.T) {
	src, want := new(memory), filled(5000)
	info := src.put("a", want)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	readWhole(t, c, info, want)
	restedNow(t, c, info)
	taken, _ := c.takeShelved("", 0)
	if len(taken) != 1 {
		t.Fatalf("%d files are taken off", len(taken))
	}
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		readWhole(t, c, info, want)
	}()
	select {
	case <-opened:
		t.Error("a version was opened while its files were being removed")
	case <-time.After(20 * time.Millisecond):
	}
	c.sweep(taken)
	<-opened
	restedNow(t, c, info)
	before := src.opened.Load()
	readWhole(t, c, info, want)
	if src.opened.Load() != before {
		t.Error("what was cached anew is gone")
	}
}
