package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

const (
	// windowBytes is how much memory a window of a directory has, about; while it is made, twice as much.
	windowBytes = 2 << 20
	// keptBytes is how much memory the windows that are kept have together, and keptWindows how many they are.
	keptBytes   = 16 << 20
	keptWindows = 4096
	// scans is how many directories are read at a time.
	scans = 4
	// entryBytes is what an entry takes beside its path and version.
	entryBytes = 128
	// pageLife is how long the pages of one listing may go on with the window of the first, and a directory is read
	// on for clients that may ask again; abandonedEvery is how many entries come between two looks whether one does.
	pageLife       = time.Minute
	abandonedEvery = 4096
	// mostEntries is how many entries of one directory are read.
	mostEntries = 16 << 20
)

// entry is an entry of a directory. Its key is its name, with a slash at the end if it is a directory, as keys sort.
type entry struct {
	key  string
	info cacheclient.Info
}

// window is the entries of a directory in the order of keys, from a key on: all that follow, or as many as there is
// memory for. It does not change.
// D-064 says why.
type window struct {
	from    string
	entries []entry
	// whole says that nothing follows the last entry.
	whole bool
	// size is what the entries take, in bytes.
	size int
	at   time.Time
}

// covers reports whether the window has the entries from a key on, or at least the first of them.
func (w *window) covers(from string) bool {
	return w.from <= from && (w.whole || len(w.entries) > 0 && from <= w.entries[len(w.entries)-1].key)
}

// since is the entries from the key on.
func (w *window) since(from string) []entry {
	n, _ := slices.BinarySearchFunc(w.entries, from, func(e entry,
		key string,
	) int {
		return strings.Compare(e.key, key)
	})
	return w.entries[n:]
}

// windows reads directories in sorted windows, and keeps the latest.
type windows struct {
	source     *source
	revalidate time.Duration
	// slots has a token for each directory that is being read, and work counts those and the waiters for a token.
	slots chan struct{}
	work  sync.WaitGroup
	// odd are the directories whose names were told to be left out.
	odd noted

	// mu guards the rest.
	mu sync.Mutex
	// kept are windows by directory, and keptSize the sum of their sizes.
	kept     *lru.LRU[string, *window]
	keptSize int
	// reading are the directories that are being read, each once for all that ask meanwhile.
	reading map[string]*reading
}

// reading is a directory that is being read. It goes on when a client has no more patience, so that a directory that
// takes longer than any request may is there when the client asks again. D-184 says why.
type reading struct {
	from string
	// life is the reading's, and end ends it.
	life context.Context
	end  context.CancelCauseFunc
	// done is closed when window or err is there.
	done   chan struct{}
	window *window
	err    error
	// waiting are the requests that wait for it, and left is when the last one went; windows.mu guards both.
	waiting int
	left    time.Time
}

func newWindows(src *source, revalidate time.Duration) *windows {
	// It fails for a size below 1 only.
	kept, _ := lru.NewLRU[string, *window](keptWindows, nil)
	return &windows{
		source: src, revalidate: revalidate, kept: kept, slots: make(chan struct{}, scans),
		reading: map[string]*reading{},
	}
}

// get is a window of the directory that covers the key. A listing that goes on may do so with what its first page saw.
func (ws *windows) get(ctx context.Context, dir, from string, goesOn bool) (*window, error) {
	for {
		if w := ws.recall(dir, from, goesOn); w != nil {
			return w, nil
		}
		r := ws.join(dir, from)
		select {
		case <-r.done:
			ws.leave(r)
		case <-ctx.Done():
			ws.leave(r)
			return nil, context.Cause(ctx)
		}
		switch {
		case errors.Is(r.err, errEnough):
			// It was given up a moment before a reader came for it.
		case r.err != nil || r.window.covers(from):
			return r.window, r.err
		}
		// Otherwise it was read for another page.
	}
}

// join is the reading of a directory for one more waiter, which is begun where there is none.
func (ws *windows) join(dir, from string) *reading {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	r := ws.reading[dir]
	if r == nil {
		r = &reading{from: from, done: make(chan struct{})}
		r.life, r.end = context.WithCancelCause(context.Background())
		ws.reading[dir] = r
		ws.work.Go(func() { ws.read(dir, r) })
	}
	r.waiting++
	return r
}

// leave is called by a waiter that gives up.
func (ws *windows) leave(r *reading) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	r.waiting--
	r.left = time.Now()
}

// abandoned reports whether a reading has had no waiter for so long that none will come for it.
func (ws *windows) abandoned(r *reading) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return r.waiting == 0 && time.Since(r.left) > pageLife
}

// read reads a directory, and tells all waiters.
func (ws *windows) read(dir string, r *reading) {
	defer close(r.done)
	defer r.end(nil)
	defer ws.over(dir)
	if r.err = acquire(r.life, ws.slots); r.err != nil {
		return
	}
	defer func() { <-ws.slots }()
	silence := time.AfterFunc(queueWait, func() { r.end(errBusy) })
	defer silence.Stop()
	if r.window, r.err = ws.scan(r, dir, silence); r.err == nil {
		ws.keep(dir, r.window)
	} else if r.life.Err() != nil {
		r.err = context.Cause(r.life)
	}
}

// over has the next question for a directory read it anew.
func (ws *windows) over(dir string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.reading, dir)
}

// rest ends the readings under way, and returns when nothing of them asks the source any more.
func (ws *windows) rest() {
	ws.endAll()
	ws.work.Wait()
}

func (ws *windows) endAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, r := range ws.reading {
		r.end(errBusy)
	}
}

// keep remembers a window, and forgets those that were not used for longest.
func (ws *windows) keep(dir string, w *window) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if old, ok := ws.kept.Peek(dir); ok {
		ws.keptSize -= old.size
	} else if ws.kept.Len() == keptWindows {
		ws.dropOldest()
	}
	ws.kept.Add(dir, w)
	for ws.keptSize += w.size; ws.keptSize > keptBytes && ws.kept.Len() > 1; {
		ws.dropOldest()
	}
}

// dropOldest forgets one window; mu is held.
func (ws *windows) dropOldest() {
	if _, old, ok := ws.kept.RemoveOldest(); ok {
		ws.keptSize -= old.size
	}
}

func (ws *windows) recall(dir, from string, goesOn bool) *window {
	w := ws.latest(dir)
	if w == nil || !w.covers(from) {
		return nil
	}
	if age := time.Since(w.at); age < ws.revalidate || goesOn && age < pageLife {
		return w
	}
	return nil
}

// latest is the window of a directory that is kept, nil where there is none.
func (ws *windows) latest(dir string) *window {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w, _ := ws.kept.Get(dir)
	return w
}

// scan reads the directory and keeps the smallest keys from the key on that there is memory for. It ends by the
// silence of the source, and not by how long it takes.
func (ws *windows) scan(r *reading, dir string, silence *time.Timer) (*window, error) {
	var w *window
	var bound string
	read, odd := 0, 0
	restart := func() {
		w, bound, read, odd = &window{from: r.from, whole: true, at: time.Now()}, "", 0, 0
	}
	err := ws.source.list(r.life, dir, restart, func(info cacheclient.Info) error {
		silence.Reset(queueWait)
		if read++; read > mostEntries {
			return fmt.Errorf("directory %q has more than %d entries: %w", dir, mostEntries, cacheclient.ErrTooLarge)
		}
		if read%abandonedEvery == 0 && ws.abandoned(r) {
			return errEnough
		}
		e, ok := entryOf(info)
		switch {
		case !ok:
			odd++
			return nil
		case e.key < r.from:
			return nil
		case bound != "" && e.key > bound:
			w.whole = false
			return nil
		}
		w.entries = append(w.entries, e)
		if w.size += e.size(); w.size > 2*windowBytes {
			w.cut()
			bound = w.entries[len(w.entries)-1].key
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	w.cut()
	ws.tellOdd(dir, odd)
	return w, nil
}

// entryOf is an entry as a listing has it; false where no key can stand for it: a key is UTF-8, or its signature
// could not be checked. A size that cannot be is not known: a request for the file gets the reason. D-186 says
// why.
func entryOf(info cacheclient.Info) (entry, bool) {
	name := info.Name()
	if !border.Name(name) || !utf8.ValidString(name) {
		return entry{}, false
	}
	if info.Dir {
		return entry{key: name + "/", info: info}, true
	}
	if border.Size(info.Size) != nil {
		info.Size = cacheclient.UnknownSize
	}
	return entry{key: name, info: info}, true
}

// tellOdd logs that a directory has names that no key can be, once.
func (ws *windows) tellOdd(dir string, names int) {
	if names == 0 {
		ws.odd.forget(dir)
	} else if ws.odd.first(dir) {
		ws.source.log.Warn("names that no key can be are left out of listings", "path", dir, "names", names)
	}
	ws.source.metrics.leftOut.WithLabelValues("name").Add(float64(names))
}

func (e entry) size() int { return entryBytes + len(e.info.Path) + len(e.info.Version) }

// cut sorts the entries, of which a page may list one twice, and leaves as many of the first ones as there is memory
// for, and at least one.
func (w *window) cut() {
	slices.SortStableFunc(w.entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	w.entries = slices.CompactFunc(w.entries, func(a, b entry) bool { return a.key == b.key })
	w.size = 0
	for n, e := range w.entries {
		if w.size+e.size() > windowBytes && n > 0 {
			clear(w.entries[n:])
			w.entries, w.whole = w.entries[:n], false
			return
		}
		w.size += e.size()
	}
}

// errEnough ends a listing that has shown what it had to.
var errEnough = errors.New("enough")
