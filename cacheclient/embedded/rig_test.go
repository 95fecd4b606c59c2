package embedded

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// long is when files of tests changed: so long ago that what is known of them is believed.
var long = time.Unix(1_500_000_000, 0).UTC()

// memory is a source in memory. Of a file without content it tells what it likes, and gives zeros.
type memory struct {
	opened atomic.Int64

	mu    sync.Mutex
	files map[string]memoryFile // guarded by mu
}

type memoryFile struct {
	info    cacheclient.Info
	content []byte
}

func (*memory) String() string   { return "memory" }
func (*memory) Identity() string { return "memory" }
func (*memory) Close() error     { return nil }

// put has the source have a file of that content.
func (m *memory) put(path string, content []byte) cacheclient.Info {
	return m.claim(cacheclient.Info{Path: path, Size: int64(len(content)), ModTime: long}, content)
}

// claim has the source tell a file as given.
func (m *memory) claim(info cacheclient.Info, content []byte) cacheclient.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		m.files = make(map[string]memoryFile)
	}
	m.files[info.Path] = memoryFile{info, content}
	return cacheclient.Identify(info)
}

func (m *memory) get(path string) (memoryFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[path]
	if !ok {
		return f, fs.ErrNotExist
	}
	return f, nil
}

func (m *memory) Stat(_ context.Context, path string) (cacheclient.Info, error) {
	f, err := m.get(path)
	return f.info, err
}

func (m *memory) List(context.Context, string, func(cacheclient.Info) error) error { return nil }

func (m *memory) Open(_ context.Context, info cacheclient.Info, off, n int64) (*ufs.Body, error) {
	m.opened.Add(1)
	f, err := m.get(info.Path)
	if err != nil {
		return nil, err
	}
	r := io.LimitReader(zeros{}, n)
	if f.content != nil {
		r = bytes.NewReader(f.content[off : off+n])
	}
	return &ufs.Body{ReadCloser: io.NopCloser(r), Start: off, End: off + n}, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// cacheOf opens a cache of a source over a tier, and waits until what is there was taken over.
func cacheOf(t *testing.T, src ufs.Store, dir string, quota int64) *Cache {
	t.Helper()
	c, err := New(src, Config{Levels: []LevelConfig{{Dir: dir, Quota: quota}}, NameTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.adopted(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// openFile opens a version.
func openFile(t *testing.T, c *Cache, info cacheclient.Info) *file {
	t.Helper()
	f, err := c.openFile(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// wholeOf reads all of an open file.
func wholeOf(f cacheclient.File) ([]byte, error) {
	got := make([]byte, f.Info().Size)
	for off := 0; off < len(got); off += BlockSize {
		end := min(off+BlockSize, len(got))
		if _, err := cacheclient.ReadAt(context.Background(), f, got[off:end], int64(off)); err != nil {
			return nil, fmt.Errorf("at %d: %w", off, err)
		}
	}
	return got, nil
}

// readWhole opens a version, compares all of it, and closes it.
func readWhole(t *testing.T, c *Cache, info cacheclient.Info, want []byte) {
	t.Helper()
	f := openFile(t, c, info)
	defer func() { _ = f.Close() }()
	if got, err := wholeOf(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%.30q reads %d bytes, right %v, %v", info.Path, len(got), bytes.Equal(got, want), err)
	}
}

// restedNow waits until a version is not in use, and has its files closed.
func restedNow(t *testing.T, c *Cache, info cacheclient.Info) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		done, e := func() (bool, *entry) {
			c.mu.Lock()
			defer c.mu.Unlock()
			e := c.entries[info.ID]
			if e == nil || e.idle == nil {
				return e == nil, nil
			}
			return true, c.shelve(e)
		}()
		if e != nil {
			e.detach()
		}
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q does not come to rest", info.Path)
		}
	}
}

// pathOf is the path of a file of the only level.
func pathOf(c *Cache, info cacheclient.Info, suffix string) string {
	return c.levels[0].path(info.ID, suffix)
}

// filled is content that differs from block to block.
func filled(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>12)
	}
	return b
}

// overwrite writes into a file in place.
func overwrite(t *testing.T, name string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Clean(name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}
