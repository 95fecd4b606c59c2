package embedded

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

// TestDamageUnderReaders has another process change a data file that readers have open: they read what is right all the
// same, and the file is whole again after.
func TestDamageUnderReaders(t *testing.T) {
	want := filled(3*BlockSize + 100)
	for what, damage := range map[string]func(t *testing.T, name string){
		"cut to nothing": func(t *testing.T, name string) { t.Helper(); cut(t, name, 0) },
		"cut in a block": func(t *testing.T, name string) { t.Helper(); cut(t, name, BlockSize+4096) },
		"written to": func(t *testing.T, name string) {
			t.Helper()
			overwrite(t, name, 2*BlockSize,
				[]byte("????"))
		},
		"cut and grown": func(t *testing.T, name string) {
			t.Helper()
			cut(t, name, BlockSize)
			cut(t, name, int64(len(want)))
		},
	} {
		t.Run(what, func(t *testing.T) {
			src := new(memory)
			info := src.put("a", want)
			c := cacheOf(t, src, t.TempDir(), 64<<20)
			f := openFile(t, c, info)
			defer func() { _ = f.Close() }()
			for range 2 {
				if got, err := wholeOf(f); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("before: %v", err)
				}
			}
			damage(t, pathOf(c, info, dataSuffix))
			if got, err := wholeOf(f); err != nil || !bytes.Equal(got, want) {
				t.Errorf("after: right %v, %v", bytes.Equal(got, want), err)
			}
			again := openFile(t, c, info)
			defer func() { _ = again.Close() }()
			local, ok := again.Local()
			if !ok {
				t.Fatal("the file is not whole again")
			}
			got := make([]byte, len(want))
			if _, err := local.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the kernel reads what is right: %v, %v", bytes.Equal(got, want), err)
			}
			if used := c.Capacity().Used; used != pages(info.Size)+statePage {
				t.Errorf("%d bytes are charged", used)
			}
		})
	}
}

func cut(t *testing.T, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

// TestCutWhileNobodyReads has the same happen to a file that rests: it comes again.
func TestCutWhileNobodyReads(t *testing.T) {
	src, want := new(memory), filled(2*BlockSize)
	info := src.put("a", want)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	for _, suffix := range []string{dataSuffix, stateSuffix} {
		readWhole(t, c, info, want)
		cut(t, pathOf(c, info, suffix), 10)
		readWhole(t, c, info, want)
		restedNow(t, c, info)
		cut(t, pathOf(c, info, suffix), 10)
		readWhole(t, c, info, want)
		restedNow(t, c, info)
	}
	before := src.opened.Load()
	readWhole(t, c, info, want)
	if src.opened.Load() != before {
		t.Error("the file is not cached any more")
	}
}

// TestCutUnderAFetch cuts the data file while a block is on its way: the reader gets what is right.
func TestCutUnderAFetch(t *testing.T) {
	src, want := &halting{memory: new(memory), at: BlockSize / 2, goOn: make(chan struct{})}, filled(2*BlockSize)
	info := src.put("a", want)
	c := cacheOf(t, src, t.TempDir(), 64<<20)
	f := openFile(t, c, info)
	defer func() { _ = f.Close() }()
	got := make([]byte, 1000)
	if _, err := cacheclient.ReadAt(t.Context(), f, got, 0); err != nil || !bytes.Equal(got, want[:1000]) {
		t.Fatal(err)
	}
	cut(t, pathOf(c, info, dataSuffix), 100)
	close(src.goOn)
	if got, err := wholeOf(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("right %v, %v", bytes.Equal(got, want), err)
	}
	restAndCompare(t, c, f, info, want)
}

func restAndCompare(t *testing.T, c *Cache, f *file, info cacheclient.Info, want []byte) {
	t.Helper()
	_ = f.Close()
	restedNow(t, c, info)
	readWhole(t, c, info, want)
	if used := c.Capacity().Used; used != pages(info.Size)+statePage {
		t.Errorf("%d bytes are charged", used)
	}
}

// TestDamagedBlockOfASourceWithoutRanges: the fetch of the whole file passes a damaged block that the tier has. It is
// not lent until it is right.
func TestDamagedBlockOfASourceWithoutRanges(t *testing.T) {
	const size = 6 * BlockSize
	src, want, dir := &halting{memory: new(memory)}, filled(size), t.TempDir()
	info := src.put("a", want)
	c := cacheOf(t, src, dir, 64<<20)
	f := openFile(t, c, info)
	for _, b := range []int64{2, 0, 1} {
		d, err := f.Read(t.Context(), b*BlockSize, BlockSize)
		if err != nil {
			t.Fatal(err)
		}
		d.Release()
	}
	_ = f.Close()
	restedNow(t, c, info)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	overwrite(t, pathOf(c, info, dataSuffix), 5000, []byte("damage"))

	src.whole, src.at, src.goOn = true, 5*BlockSize, make(chan struct{})
	c = cacheOf(t, src, dir, 64<<20)
	f = openFile(t, c, info)
	for _, b := range []int64{4, 0, 2} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		d, err := f.Read(ctx, b*BlockSize, BlockSize)
		cancel()
		if err != nil {
			t.Fatalf("block %d: %v", b, err)
		}
		if got := bytes.Join(d.Parts, nil); !bytes.Equal(got, want[b*BlockSize:][:BlockSize]) {
			t.Errorf("block %d is wrong; all zeros: %v", b, bytes.Equal(got, make([]byte, BlockSize)))
		}
		d.Release()
	}
	close(src.goOn)
	if got, err := wholeOf(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("right %v, %v", bytes.Equal(got, want), err)
	}
	restAndCompare(t, c, f, info, want)
}
