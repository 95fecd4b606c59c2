package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// TestSizesThatAreClaimed opens files of every size that a source may claim: those that can be are read at both ends,
// and take no more memory than what is read of them; the others are errors of their own.
func TestSizesThatAreClaimed(t *testing.T) {
	src := new(memory)
	good, want := src.put("good", filled(5000)), filled(5000)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, size := range []int64{-1 << 63, -2, -1, border.MostBytes + 1, 1 << 62, 1<<63 - 1} {
		info := src.claim(cacheclient.Info{Path: strconv.FormatInt(size, 10), Size: size, ModTime: long}, nil)
		_, err := c.Resume(t.Context(), info)
		if !errors.Is(err, cacheclient.ErrTooLarge) && !errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("%d bytes: %v", size, err)
		}
		readWhole(t, c, good, want)
	}
	before := heap()
	for _, size := range []int64{1, BlockSize, 1 << 40, 1<<47 + 1, border.MostBytes - 1, border.MostBytes} {
		info := src.claim(cacheclient.Info{Path: strconv.FormatInt(size, 10), Size: size, ModTime: long}, nil)
		f := openFile(t, c, info)
		for _, off := range []int64{0, size / 2, size - 1} {
			buf := []byte{1}
			if _, err := cacheclient.ReadAt(t.Context(), f, buf, off); err != nil || buf[0] != 0 {
				t.Errorf("%d bytes, at %d: %v, %v", size, off, buf, err)
			}
		}
		began := time.Now()
		blocks, err := c.Blocks(t.Context(), info.Path)
		if took := time.Since(began); err != nil || len(blocks) > 6 || took > time.Minute {
			t.Errorf("%d bytes are told as %d blocks after %v, %v", size, len(blocks), took, err)
		}
		var sum int64
		for _, b := range blocks {
			sum += b.Length
		}
		if sum != size {
			t.Errorf("blocks of %d bytes add up to %d", size, sum)
		}
		_ = f.Close()
		restedNow(t, c, info)
		f = openFile(t, c, info)
		if _, err := cacheclient.ReadAt(t.Context(), f, make([]byte, 1), size-1); err != nil {
			t.Errorf("%d bytes, opened again: %v", size, err)
		}
		_ = f.Close()
	}
	// Half of what a bitmap of the largest alone would take.
	if took := heap() - before; took > 48<<20 {
		t.Errorf("%d bytes of memory were taken", took)
	}
	if problem := c.Capacity().Levels[0].Problem; problem != "" {
		t.Errorf("the tier says %q", problem)
	}
	readWhole(t, c, good, want)
}

// TestLargeFileOfASourceWithoutRanges claims more than the tier has, and sends no part alone: it is refused nothing,
// and nothing hangs.
func TestLargeFileOfASourceWithoutRanges(t *testing.T) {
	src := &halting{memory: new(memory), whole: true}
	info := src.claim(cacheclient.Info{Path: "a", Size: border.MostBytes, ModTime: long}, nil)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	f := openFile(t, c, info)
	defer func() { _ = f.Close() }()
	for _, off := range []int64{0, 3 * BlockSize} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		d, err := f.Read(ctx, off, 10)
		cancel()
		if err != nil {
			t.Fatalf("at %d: %v", off, err)
		}
		d.Release()
	}
}

// TestFileWithManySegments lends across the places where mappings end.
func TestFileWithManySegments(t *testing.T) {
	src := new(memory)
	info := src.claim(cacheclient.Info{Path: "a", Size: 3*segment + 5, ModTime: long}, nil)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	f := openFile(t, c, info)
	defer func() { _ = f.Close() }()
	for range 2 {
		for _, off := range []int64{segment - 10, 2*segment - 10, 3*segment - 10} {
			d, err := f.Read(t.Context(), off, 20)
			if err != nil {
				t.Fatal(err)
			}
			if n := int64(d.Len()); n != min(20, info.Size-off) {
				t.Errorf("%d bytes at %d", n, off)
			}
			d.Release()
		}
	}
}

// TestNamesAndTimesOfAnyKind are cached like others, and found again by the next process.
func TestNamesAndTimesOfAnyKind(t *testing.T) {
	src, dir, want := new(memory), t.TempDir(), filled(5000)
	var infos []cacheclient.Info
	for i, name := range []string{
		"caf\xe9.bin", "\xff\xfe/\x80", "caf\u00e9", "cafe\u0301", "new\nline", "quo\"te\\", "\u2028", "<&>",
		strings.Repeat("n", 1024), strings.Repeat("d/", 2000) + "f",
	} {
		for j, at := range []int64{0, -1, 1 << 40, 253402300800, -62135596800, 1 << 62, -1 << 62} {
			info := cacheclient.Info{
				Path: name + strconv.Itoa(j), Size: int64(len(want)), ModTime: time.Unix(at, int64(i)).UTC(),
			}
			if i%2 == 0 {
				info.Mode, info.ModeKnown = 0o640, true
			}
			if j == 1 {
				info.Version = "\xde\xad\""
			}
			infos = append(infos, src.claim(info, want))
		}
	}
	c := cacheOf(t, src, dir, 1<<30)
	for _, info := range infos {
		readWhole(t, c, info, want)
	}
	opened := src.opened.Load()
	for range 2 {
		for _, info := range infos {
			restedNow(t, c, info)
			readWhole(t, c, info, want)
			if now, _, ok := c.cachedVersion(info.Path); !ok || now.ID != info.ID {
				t.Errorf("%.30q: the tier has another version", info.Path)
			}
		}
		if n := src.opened.Load() - opened; n != 0 || c.Counters().Discarded != 0 {
			t.Errorf("%d requests for what is cached, %d files thrown away", n, c.Counters().Discarded)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = cacheOf(t, src, dir, 1<<30)
	}
	for _, info := range infos {
		restedNow(t, c, info)
		if now, _, ok := c.cachedVersion(info.Path); !ok || now.ModeKnown != info.ModeKnown || now.Mode != info.Mode {
			t.Errorf("%.30q: the tier has mode %v, known %v", info.Path, now.Mode, now.ModeKnown)
		}
	}
}

// TestFileThatNoTierCanKeep is read past the tiers, and takes nothing from others.
func TestFileThatNoTierCanKeep(t *testing.T) {
	src, want := new(memory), filled(BlockSize+7)
	odd := src.put(strings.Repeat("p/", maxHeader/2)+"f", want)
	other := src.put("other", want)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	for range 3 {
		readWhole(t, c, odd, want)
		readWhole(t, c, other, want)
	}
	if l := c.Capacity().Levels[0]; l.Problem != "" || l.Used != pages(other.Size)+statePage {
		t.Errorf("the tier says %q and has %d bytes", l.Problem, l.Used)
	}
	for _, tt := range []struct {
		err  error
		want blame
	}{
		{unix.EFBIG, ofFile},
		{unix.ENAMETOOLONG, ofFile},
		{errNotKept, ofFile},
		{unix.EMFILE, ofProcess},
		{unix.ENOMEM, ofProcess},
		{unix.ENOSPC, ofTier},
		{unix.EROFS, ofTier},
		{unix.EACCES, ofTier},
		{unix.EIO, ofTier},
	} {
		if got := blameOf(fmt.Errorf("%w: %w", errTierWrite, tt.err)); got != tt.want {
			t.Errorf("%v is blamed on %d, want %d", tt.err, got, tt.want)
		}
	}
}

// TestFileSystemThatKnowsNoSuchSize has a tier where a file cannot be as large as claimed.
func TestFileSystemThatKnowsNoSuchSize(t *testing.T) {
	l := &level{dir: t.TempDir()}
	h := headerOf(cacheclient.Info{Path: "a", Size: 1<<63 - 1})
	data, state, err := createFiles(l, 1, h)
	if err == nil {
		_, _ = data.Close(), state.close()
		t.Skip("this file system has files of 2^63-1 bytes")
	}
	if got := blameOf(err); got != ofFile {
		t.Errorf("%v is blamed on %d", err, got)
	}
	if names, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(names) != 0 {
		t.Errorf("files are left: %v", names)
	}
}
