package fuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"millrace.io/millrace/cacheclient"
)

// localClient shows a directory through cacheclient, and misbehaves where a test wants it to.
type localClient struct {
	root string
	// local has File.Local give the file itself; it may change while files are open.
	local atomic.Bool
	// localPrefix has the files whose names begin so be local always; set before the client is used.
	localPrefix string
	// modeless tells no permissions; set before the client is used.
	modeless bool
	// bare lists names alone, of files as of directories; set before the client is used.
	bare bool
	// onResume is called first by Resume, and its error is the answer; set before the client is used.
	onResume func(ctx context.Context, path string) error
	// whole lends each read in one part instead of two.
	whole atomic.Bool
	// stats, lists and opens count the calls.
	stats, lists, opens atomic.Int64

	// mu guards the hooks and cached.
	mu sync.Mutex
	// onStat, onOpen and onRead are called first, and their error is the answer.
	onStat, onOpen func(ctx context.Context, path string) error
	onRead         func(ctx context.Context, path string, off int64, n int) error
	// cached are listings by directory and version.
	cached map[string][]cacheclient.Info
	// open counts the files that were not closed.
	open atomic.Int64
}

func newLocalClient(root string) *localClient {
	return &localClient{root: root, cached: make(map[string][]cacheclient.Info)}
}

func (c *localClient) describe(path string, st fs.FileInfo) cacheclient.Info {
	info := cacheclient.Info{
		Path: path, Dir: st.IsDir(), Mode: st.Mode().Perm(), ModeKnown: true,
		ModTime: st.ModTime(),
	}
	if c.modeless {
		info.Mode, info.ModeKnown = 0, false
	}
	if !info.Dir {
		info.Size = st.Size()
	}
	return cacheclient.Identify(info)
}

func (c *localClient) hookStat(ctx context.Context, path string) error {
	c.mu.Lock()
	hook := c.onStat
	c.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, path)
}

func (c *localClient) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	c.stats.Add(1)
	if err := c.hookStat(ctx, path); err != nil {
		return cacheclient.Info{}, err
	}
	st, err := os.Lstat(filepath.Join(c.root, path))
	if err != nil {
		return cacheclient.Info{}, err
	}
	return c.describe(path, st), nil
}

func (c *localClient) List(_ context.Context, dir string, from cacheclient.Cursor, limit int, _ bool) (
	cacheclient.Page, error,
) {
	c.lists.Add(1)
	st, err := os.Lstat(filepath.Join(c.root, dir))
	if err != nil {
		return cacheclient.Page{}, err
	}
	if !st.IsDir() {
		return cacheclient.Page{}, cacheclient.ErrNotDir
	}
	version := uint64(st.ModTime().UnixNano())
	all, err := c.listing(dir, version)
	if err != nil {
		return cacheclient.Page{}, err
	}
	at := int(min(from.Index, uint64(len(all))))
	if from.Version != version && from.After != "" {
		at = sort.Search(len(all), func(i int) bool { return all[i].Name() > from.After })
	}
	page := all[at:]
	end := true
	if len(page) > limit {
		page, end = page[:limit], false
	}
	if c.bare {
		page = slices.Clone(page)
		for i := range page {
			page[i] = cacheclient.Info{Path: page[i].Path, Size: cacheclient.UnknownSize}
		}
	}
	next := cacheclient.Cursor{Version: version, Index: uint64(at + len(page)), After: from.After}
	if len(page) > 0 {
		next.After = page[len(page)-1].Name()
	}
	return cacheclient.Page{
		Entries: page, First: uint64(at), Count: uint64(len(all)), Next: next, End: end,
		Version: version,
	}, nil
}

func (c *localClient) listing(dir string, version uint64) ([]cacheclient.Info, error) {
	key := fmt.Sprintf("%s@%d", dir, version)
	c.mu.Lock()
	defer c.mu.Unlock()
	if all, ok := c.cached[key]; ok {
		return all, nil
	}
	entries, err := os.ReadDir(filepath.Join(c.root, dir))
	if err != nil {
		return nil, err
	}
	var all []cacheclient.Info
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			continue
		}
		all = append(all, c.describe(strings.TrimPrefix(dir+"/"+e.Name(), "/"), st))
	}
	c.cached[key] = all
	return all, nil
}

func (c *localClient) Open(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	c.opens.Add(1)
	c.mu.Lock()
	hook := c.onOpen
	c.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, info.Path); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(filepath.Join(c.root, info.Path))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && c.describe(info.Path, st).ID != info.ID {
		err = cacheclient.ErrStale
	}
	var data []byte
	if err == nil && info.Size > 0 {
		data, err = syscall.Mmap(int(f.Fd()), 0, int(info.Size), syscall.PROT_READ, syscall.MAP_SHARED)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	c.open.Add(1)
	return &localFile{c: c, info: info, file: f, data: data}, nil
}

func (c *localClient) Resume(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	if c.onResume != nil {
		if err := c.onResume(ctx, info.Path); err != nil {
			return nil, err
		}
	}
	return c.Open(ctx, info)
}

func (c *localClient) Blocks(context.Context, string) ([]cacheclient.Block, error) {
	return nil, nil
}

func (c *localClient) Warm(context.Context, string, func(int64)) error { return nil }

func (c *localClient) Free(context.Context, string) (int64, error) { return 0, nil }

func (c *localClient) Capacity() cacheclient.Capacity {
	return cacheclient.Capacity{Quota: 100 << 20, Used: 40 << 20}
}

func (c *localClient) Counters() cacheclient.Counters { return cacheclient.Counters{} }

func (c *localClient) Close() error { return nil }

// localFile is an open file, read through a mapping.
type localFile struct {
	c    *localClient
	info cacheclient.Info
	file *os.File
	data []byte
}

func (f *localFile) Info() cacheclient.Info { return f.info }

func (f *localFile) Read(ctx context.Context, off int64, n int) (cacheclient.Data, error) {
	f.c.mu.Lock()
	hook := f.c.onRead
	f.c.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, f.info.Path, off, n); err != nil {
			return cacheclient.Data{}, err
		}
	}
	part := f.data[off : off+int64(n)]
	if n > 8192 && !f.c.whole.Load() {
		// Two parts, as at the border of two blocks.
		return cacheclient.Data{Parts: [][]byte{part[:4097], part[4097:]}}, nil
	}
	return cacheclient.Data{Parts: [][]byte{part}}, nil
}

func (f *localFile) Local() (*os.File, bool) {
	prefix := f.c.localPrefix
	return f.file, f.c.local.Load() || prefix != "" && strings.HasPrefix(f.info.Name(), prefix)
}

func (f *localFile) Close() error {
	f.c.open.Add(-1)
	var err error
	if f.data != nil {
		err = syscall.Munmap(f.data)
	}
	return errors.Join(err, f.file.Close())
}
