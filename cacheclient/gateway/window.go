package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient"
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
	// pageLife is how long the pages of one listing may go on with the window of the first.
	pageLife = time.Minute
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

// covers tells whether the window has the entries from a key on, or at least the first of them.
func (w *window) covers(from string) bool {
	return w.from <= from && (w.whole || len(w.entries) > 0 && from <= w.entries[len(w.entries)-1].key)
}

// since is the entries from the key on.
func (w *window) since(from string) []entry {
	n, _ := slices.BinarySearchFunc(w.entries, from, func(e entry, key string) int { return strings.Compare(e.key, key) })
	return w.entries[n:]
}

// windows reads directories in sorted windows, and keeps the latest.
type windows struct {
	source     *source
	revalidate time.Duration
	// slots has a token for each directory that is being read.
	slots chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// kept are windows by directory, and keptSize the sum of their sizes.
	kept     *lru.LRU[string, *window]
	keptSize int
	// reading has a lock for each directory that is being read or waited for, so that it is read once for all who
	// ask at the same time.
	reading map[string]*turn
}

// turn is the lock of one directory; users counts who hold or await it.
type turn struct {
	lock  chan struct{}
	users int
}

func newWindows(src *source, revalidate time.Duration) *windows {
	// It fails for a size below 1 only.
	kept, _ := lru.NewLRU[string, *window](keptWindows, nil)
	return &windows{source: src, revalidate: revalidate, kept: kept, slots: make(chan struct{}, scans), reading: map[string]*turn{}}
}

// get is a window of the directory that covers the key. A listing that goes on may do so with what its first page saw.
func (ws *windows) get(ctx context.Context, dir, from string, goesOn bool) (*window, error) {
	if w := ws.recall(dir, from, goesOn); w != nil {
		return w, nil
	}
	done, err := ws.takeTurn(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if w := ws.recall(dir, from, goesOn); w != nil {
		return w, nil
	}
	if err := acquire(ctx, ws.slots); err != nil {
		return nil, err
	}
	defer func() { <-ws.slots }()
	w, err := ws.scan(ctx, dir, from)
	if err != nil {
		return nil, err
	}
	ws.keep(dir, w)
	return w, nil
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

// dropOldest forgets one window. The caller holds mu.
func (ws *windows) dropOldest() {
	if _, old, ok := ws.kept.RemoveOldest(); ok {
		ws.keptSize -= old.size
	}
}

func (ws *windows) recall(dir, from string, goesOn bool) *window {
	ws.mu.Lock()
	w, ok := ws.kept.Get(dir)
	ws.mu.Unlock()
	if !ok || !w.covers(from) {
		return nil
	}
	if age := time.Since(w.at); age < ws.revalidate || goesOn && age < pageLife {
		return w
	}
	return nil
}

// takeTurn waits until nobody else reads the directory.
func (ws *windows) takeTurn(ctx context.Context, dir string) (done func(), err error) {
	ws.mu.Lock()
	t := ws.reading[dir]
	if t == nil {
		t = &turn{lock: make(chan struct{}, 1)}
		ws.reading[dir] = t
	}
	t.users++
	ws.mu.Unlock()
	leave := func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(ws.reading, dir)
		}
	}
	if err := acquire(ctx, t.lock); err != nil {
		leave()
		return nil, err
	}
	return func() {
		<-t.lock
		leave()
	}, nil
}

// scan reads the directory and keeps the smallest keys from the key on that there is memory for.
func (ws *windows) scan(ctx context.Context, dir, from string) (*window, error) {
	var w *window
	var bound string
	restart := func() {
		w, bound = &window{from: from, whole: true, at: time.Now()}, ""
	}
	err := ws.source.list(ctx, dir, restart, func(info cacheclient.Info) error {
		e := entry{key: info.Name(), info: info}
		if info.Dir {
			e.key += "/"
		}
		switch {
		case e.key < from:
			return nil
		case bound != "" && e.key > bound:
			w.whole = false
			return nil
		case !utf8.ValidString(e.key):
			// A key is UTF-8. Its signature could not be checked, and XML cannot show it.
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
	return w, nil
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
