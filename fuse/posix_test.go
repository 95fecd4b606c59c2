package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// TestPosix has go-fuse's posixtest cases that make sense where nothing can be written. All but
// ReadDirConsistency begin by writing to the mount. Of these, each case that also reads
// first runs as it is on the source, where it leaves its files, and its reading half, in
// readingHalves, then runs on the mount.
func TestPosix(t *testing.T) {
	t.Run("ReadDirConsistency", func(t *testing.T) {
		source := t.TempDir()
		for i := range 300 {
			write(t, source, fmt.Sprintf("file-%d", i), nil)
		}
		_, dir := mountLocal(t, newLocalClient(source), nil)
		posixtest.ReadDirConsistency(t, dir)
	})
	for name, half := range readingHalves {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			posixtest.All[name](t, source)
			if t.Skipped() || t.Failed() {
				return
			}
			_, dir := mountLocal(t, newLocalClient(source), nil)
			half(t, source, dir)
		})
	}
}

var readingHalves = map[string]func(t *testing.T, source, mnt string){
	"FileBasic":           sameFile("file"),
	"FileLarge":           sameFile("file"),
	"AppendWrite":         sameFile("file"),
	"TruncateFile":        sameFile("file"),
	"LinkUnlinkRename":    sameFile("file"),
	"DirectIO":            directIO,
	"FdLeak":              fdLeak,
	"ParallelFileOpen":    parallelOpen,
	"ReadDirBasic":        readDirBasic,
	"DirSeek":             dirSeek,
	"OpenAt":              openAt,
	"LseekHoleSeeksToEOF": seekHole,
	"LseekEnxioCheck":     seekBeyond,
}

// sameFile compares a file's bytes, size and partial reads.
func sameFile(name string) func(t *testing.T, source, mnt string) {
	return func(t *testing.T, source, mnt string) {
		t.Helper()
		want, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(mnt, name))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if fi, err := f.Stat(); err != nil || fi.Size() != int64(len(want)) {
			t.Errorf("fstat: %v %v", fi, err)
		}
		buf := make([]byte, len(want)+1000)
		n, err := io.ReadFull(f, buf)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(buf[:n], want) {
			t.Errorf("%d bytes of %d, %v", n, len(want), err)
		}
		off := len(want) / 3
		if n, err := f.ReadAt(buf[:len(want)-off], int64(off)); err != nil || !bytes.Equal(buf[:n], want[off:]) {
			t.Errorf("from %d: %d bytes, %v", off, n, err)
		}
	}
}

func directIO(t *testing.T, source, mnt string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(source, "file.txt"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(mnt, "file.txt"), unix.O_DIRECT|unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	got := make([]byte, len(want))
	if n, err := unix.Read(fd, got); err != nil || !bytes.Equal(got[:n], want) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func fdLeak(t *testing.T, _, mnt string) {
	t.Helper()
	before := countFDs(t)
	for range 100 {
		if _, err := os.ReadFile(filepath.Join(mnt, "file")); err != nil {
			t.Fatal(err)
		}
	}
	// The last RELEASE may still be on its way.
	if after := countFDs(t); after > before+5 {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func parallelOpen(t *testing.T, source, mnt string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(source, "file"))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if got, err := os.ReadFile(filepath.Join(mnt, "file")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	group.Wait()
}

func readDirBasic(t *testing.T, _, mnt string) {
	t.Helper()
	f, err := os.Open(mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range names {
		seen[name] = true
	}
	if len(names) != 110 || len(seen) != 110 {
		t.Errorf("%d names, %d different", len(names), len(seen))
	}
}

// dirSeek seeks to each entry, last first (xfstests generic/257).
func dirSeek(t *testing.T, _, mnt string) {
	t.Helper()
	fd, err := unix.Open(filepath.Join(mnt, "ttt"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	all := direntsFrom(t, fd)
	if len(all) != 170 {
		t.Fatalf("%d entries", len(all))
	}
	for i := len(all) - 1; i >= 0; i-- {
		var offset int64
		if i > 0 {
			offset = int64(all[i-1].Off)
		}
		if _, err := unix.Seek(fd, offset, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if rest := direntsFrom(t, fd); len(rest) != len(all)-i || rest[0] != all[i] {
			t.Errorf("from entry %d: %d entries, first %v, want %v", i, len(rest), rest[0], all[i])
		}
	}
}

func direntsFrom(t *testing.T, fd int) []gofuse.DirEntry {
	t.Helper()
	var all []gofuse.DirEntry
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return all
		}
		for todo := buf[:n]; len(todo) > 0; {
			var e gofuse.DirEntry
			todo = todo[e.Parse(todo):]
			all = append(all, e)
		}
	}
}

func openAt(t *testing.T, _, mnt string) {
	t.Helper()
	dirfd, err := unix.Open(filepath.Join(mnt, "dir2"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(dirfd) }()
	fd, err := unix.Openat(dirfd, "file1", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
}

func seekHole(t *testing.T, source, mnt string) {
	t.Helper()
	st, err := os.Stat(filepath.Join(source, "file.bin"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(mnt, "file.bin"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if off, err := unix.Seek(fd, st.Size()/2, unix.SEEK_HOLE); err != nil || off != st.Size() {
		t.Errorf("%d, want %d, %v", off, st.Size(), err)
	}
}

func seekBeyond(t *testing.T, source, mnt string) {
	t.Helper()
	st, err := os.Stat(filepath.Join(source, "file.bin"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(mnt, "file.bin"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for off, whence := range map[int64]int{st.Size(): unix.SEEK_DATA, st.Size() + 1: unix.SEEK_HOLE} {
		if _, err := unix.Seek(fd, off, whence); !errors.Is(err, unix.ENXIO) {
			t.Errorf("seeking %d from %d: %v", whence, off, err)
		}
	}
}
