package embedded

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

const (
	// maxListings is how many directories a cache remembers, and maxListed how many bytes of them
	// are in memory, of all caches that share a Budget.
	maxListings = 32 << 10
	maxListed   = 16 << 20
	// spillAt is the size in bytes at which a listing moves from memory to an unnamed file.
	spillAt = 256 << 10
	// indexEvery is how many entries lie between two whose places are remembered.
	indexEvery = 256
)

// listing is a directory as the source told it, encoded one entry after the other. It is
// immutable once made.
type listing struct {
	at      time.Time
	version uint64
	count   uint64
	// firstDir is where the first directory stands among the entries, count if there is none.
	firstDir uint64
	// index has the place of every indexEvery-th entry.
	index []int64
	size  int64
	mem   []byte
	// file holds a long listing; it has no name, and closes when the last reader is gone.
	file *os.File
}

// weight is what the listing takes of memory, in bytes, about.
func (l *listing) weight() int64 {
	n := int64(len(l.mem)) + int64(8*len(l.index)) + 256
	if l.file != nil {
		// A descriptor is dearer than memory.
		n += spillAt / 4
	}
	return n
}

// listings remembers the directories that were read lately.
type listings struct {
	mu sync.Mutex
	// The rest is guarded by mu.

	lru  *simplelru.LRU[string, *listing]
	part part
}

func newListings(most *bound) (*listings, error) {
	ls := &listings{part: part{of: most}}
	var err error
	ls.lru, err = simplelru.NewLRU(maxListings, func(_ string, l *listing) { ls.part.add(-l.weight()) })
	return ls, err
}

func (ls *listings) get(dir string) (*listing, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.lru.Get(dir)
}

// put remembers a directory, and forgets others if they take too much memory.
func (ls *listings) put(dir string, l *listing) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.lru.Remove(dir)
	ls.lru.Add(dir, l)
	ls.part.add(l.weight())
	for ls.part.tooMuch() && ls.lru.Len() > 1 {
		ls.lru.RemoveOldest()
	}
}

func (ls *listings) remove(dir string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.lru.Remove(dir)
}

func (ls *listings) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.lru.Purge()
}

// List implements cacheclient.Client.
func (c *Cache) List(ctx context.Context, dir string, from uint64, limit int, attrs bool) (cacheclient.Page, error) {
	l, err := c.listing(ctx, dir, from > 0)
	if err != nil {
		return cacheclient.Page{}, err
	}
	if from == 0 {
		c.walked(dir, l)
	}
	entries, err := l.page(dir, from, limit)
	if err != nil {
		return cacheclient.Page{}, fmt.Errorf("list %q: %w", dir, err)
	}
	if err := c.complete(ctx, entries, attrs, l.at); err != nil {
		return cacheclient.Page{}, fmt.Errorf("list %q: %w", dir, err)
	}
	return cacheclient.Page{Entries: entries, End: from+uint64(len(entries)) >= l.count, Version: l.version}, nil
}

// listing returns the directory from memory, or from the source when that is too old. Whoever
// goes on reading a directory (resume) keeps the listing that it began with, if it is still there.
func (c *Cache) listing(ctx context.Context, dir string, resume bool) (*listing, error) {
	old, known := c.lists.get(dir)
	if known && (resume || c.current(old)) {
		return old, nil
	}
	question := func() (*listing, error) { return c.listDir(dir) }
	if known {
		if l, answered, err := orKnown(ctx, c, "list\x00"+dir, question); answered {
			return l, err
		}
		return old, nil
	}
	return once(ctx, c, "list\x00"+dir, question)
}

// current tells whether a listing need not be asked for again yet.
func (c *Cache) current(l *listing) bool { return time.Since(l.at) < c.cfg.TTL }

// listDir lists a directory, unless somebody else has since the caller looked.
func (c *Cache) listDir(dir string) (*listing, error) {
	if l, known := c.lists.get(dir); known && c.current(l) {
		return l, nil
	}
	return c.readDir(dir)
}

// readDir reads a directory from the source and remembers it.
func (c *Cache) readDir(dir string) (*listing, error) {
	var l *listing
	err := c.persistently("list "+dir, func(ctx context.Context, alive func()) error {
		b := newListingBuilder(c.spillDirs())
		err := c.store.List(ctx, dir, func(i cacheclient.Info) error {
			if b.l.count%indexEvery == 0 {
				alive()
			}
			return b.add(i)
		})
		if err == nil {
			l, err = b.finish()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	c.lists.put(dir, l)
	return l, nil
}

// spillDirs are where a long listing may go, best first.
func (c *Cache) spillDirs() []string {
	var dirs []string
	for _, l := range c.levels {
		dirs = append(dirs, l.dir)
	}
	return append(dirs, os.TempDir())
}

// complete gives the entries their identities, asking the source for attributes where attrs says so.
func (c *Cache) complete(ctx context.Context, entries []cacheclient.Info, attrs bool, at time.Time) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.cfg.Connections)
	var down atomic.Bool
	for i := range entries {
		e := &entries[i]
		if e.Dir || e.Size != cacheclient.UnknownSize {
			*e = c.meta.refresh(e.Path, record{info: cacheclient.Identify(*e), at: at}).info
			continue
		}
		if r, ok := c.meta.get(e.Path); ok && !r.missing && c.meta.good(r) {
			*e = r.info
			continue
		}
		if !attrs || down.Load() {
			continue
		}
		g.Go(func() error {
			info, err := c.Stat(ctx, e.Path)
			switch {
			case err == nil:
				*e = info
			case errors.Is(err, cacheclient.ErrUnavailable):
				// The rest would wait as long, one after the other.
				down.Store(true)
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// page decodes at most limit entries from the from-th on.
func (l *listing) page(dir string, from uint64, limit int) ([]cacheclient.Info, error) {
	if from >= l.count || limit <= 0 {
		return nil, nil
	}
	var src io.ReaderAt = bytes.NewReader(l.mem)
	if l.file != nil {
		src = l.file
	}
	start := l.index[from/indexEvery]
	r := bufio.NewReader(io.NewSectionReader(src, start, l.size-start))
	for range from % indexEvery {
		if _, err := decodeEntry(r, dir); err != nil {
			return nil, err
		}
	}
	n := min(uint64(limit), l.count-from)
	entries := make([]cacheclient.Info, 0, n)
	for range n {
		e, err := decodeEntry(r, dir)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// listingBuilder encodes entries as they come.
type listingBuilder struct {
	l    *listing
	buf  []byte
	dirs []string
}

func newListingBuilder(dirs []string) *listingBuilder {
	return &listingBuilder{l: &listing{}, dirs: dirs}
}

func (b *listingBuilder) add(i cacheclient.Info) error {
	if b.l.count%indexEvery == 0 {
		b.l.index = append(b.l.index, b.l.size)
	}
	before := len(b.buf)
	b.buf = encodeEntry(b.buf, i)
	if !i.Dir && b.l.firstDir == b.l.count {
		b.l.firstDir++
	}
	b.l.count++
	b.l.size += int64(len(b.buf) - before)
	h := fnv.New64a()
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, b.l.version))
	_, _ = h.Write(b.buf[before:])
	b.l.version = h.Sum64()
	if len(b.buf) >= spillAt {
		return b.spill()
	}
	return nil
}

// spill moves what is encoded to the file.
func (b *listingBuilder) spill() error {
	if b.l.file == nil {
		f, err := unnamedFile(b.dirs)
		if err != nil {
			return fmt.Errorf("no place for a listing of more than %d bytes: %w", spillAt, err)
		}
		b.l.file = f
	}
	_, err := b.l.file.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}

func (b *listingBuilder) finish() (*listing, error) {
	if b.l.file != nil {
		if err := b.spill(); err != nil {
			return nil, err
		}
	} else {
		b.l.mem = bytes.Clone(b.buf)
	}
	b.l.at = time.Now()
	if b.l.version == 0 {
		b.l.version = 1
	}
	return b.l, nil
}

func unnamedFile(dirs []string) (*os.File, error) {
	var first error
	for _, d := range dirs {
		f, err := os.OpenFile(d, os.O_RDWR|unix.O_TMPFILE, 0o600)
		if err == nil {
			return f, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

const (
	entryDir = 1 << iota
	entryTime
)

func encodeEntry(buf []byte, i cacheclient.Info) []byte {
	var flags byte
	if i.Dir {
		flags |= entryDir
	}
	if !i.ModTime.IsZero() {
		flags |= entryTime
	}
	buf = append(buf, flags)
	buf = appendString(buf, i.Name())
	buf = binary.AppendVarint(buf, i.Size)
	if flags&entryTime != 0 {
		buf = binary.AppendVarint(buf, i.ModTime.UnixNano())
	}
	buf = binary.AppendUvarint(buf, uint64(i.Mode))
	return appendString(buf, i.Version)
}

func appendString(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

func decodeEntry(r *bufio.Reader, dir string) (cacheclient.Info, error) {
	flags, err := r.ReadByte()
	if err != nil {
		return cacheclient.Info{}, err
	}
	var i cacheclient.Info
	i.Dir = flags&entryDir != 0
	name, err := readString(r)
	if err != nil {
		return i, err
	}
	i.Path = path.Join(dir, name)
	if i.Size, err = binary.ReadVarint(r); err != nil {
		return i, err
	}
	if flags&entryTime != 0 {
		ns, err := binary.ReadVarint(r)
		if err != nil {
			return i, err
		}
		i.ModTime = time.Unix(0, ns)
	}
	mode, err := binary.ReadUvarint(r)
	if err != nil {
		return i, err
	}
	i.Mode = os.FileMode(mode)
	i.Version, err = readString(r)
	return i, err
}

func readString(r *bufio.Reader) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > maxHeader {
		return "", fmt.Errorf("a listing entry of %d bytes: %w", n, errors.Join(err, errBadState))
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}
