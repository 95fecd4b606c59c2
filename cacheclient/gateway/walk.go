package gateway

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"millrace.io/millrace/cacheclient"
)

// item is an object or a common prefix of a listing.
type item struct {
	key string
	// common says that it is a common prefix; then there is no info.
	common bool
	info   cacheclient.Info
}

// walker collects one page of a listing: the first items after a key, in the order of keys. It holds no
// directory while it is in one below, but comes back to it by its key; windows remember.
type walker struct {
	windows *windows
	// prefix and delimiter are the request's.
	prefix, delimiter string
	// after is the key that the page begins after, "" for the first.
	after string
	// most is how many items the page may have.
	most int
	// plain says that keys are written as they are, so that those are left out which XML cannot show.
	plain bool
	items []item
	// more says that another item follows.
	more bool
	// leftOut are the directories that could not be listed, and unshown counts the keys that are left out.
	leftOut []leftOut
	unshown int
}

// leftOut is a directory that could not be listed, and why.
type leftOut struct {
	path string
	err  error
}

// errFull ends a walk.
var errFull = errors.New("the page is full")

// walk fills the page. A prefix that nothing begins with gives an empty one.
func (w *walker) walk(ctx context.Context) error {
	dir := ""
	if slash := strings.LastIndexByte(w.prefix, '/'); slash >= 0 {
		dir = w.prefix[:slash]
		if !isPath(dir) {
			// No key begins with a slash, or has two in a row.
			return nil
		}
	}
	err := w.directory(ctx, dir)
	if errors.Is(err, errFull) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, cacheclient.ErrNotDir) {
		return nil
	}
	return err
}

// directory adds what a directory holds, itself first.
func (w *walker) directory(ctx context.Context, dir string) error {
	base := ""
	if dir != "" {
		base = dir + "/"
	}
	from := w.from(base)
	for first := true; ; first = false {
		window, err := w.windows.get(ctx, dir, from, w.after != "" || !first)
		if err != nil {
			return err
		}
		if first && base != "" && strings.HasPrefix(base, w.prefix) {
			if err := w.object(base, cacheclient.Info{Path: dir, Dir: true}); err != nil {
				return err
			}
		}
		next, err := w.entries(ctx, base, window.since(from))
		if err != nil || next == "" && window.whole {
			return err
		}
		if next == "" {
			next = window.entries[len(window.entries)-1].key
		}
		from = next + "\x00"
	}
}

// from is the first key, below base, that can matter to the page.
func (w *walker) from(base string) string {
	var from string
	if rest, below := strings.CutPrefix(w.prefix, base); below {
		from = rest
	}
	if rest, below := strings.CutPrefix(w.after, base); below {
		// The page may begin within a directory.
		name, _, inside := strings.Cut(rest, "/")
		if inside {
			name += "/"
		}
		from = max(from, name)
	} else if w.after > base {
		// All that is below base comes before the page, which callers have seen.
		from = max(from, "\xff")
	}
	return from
}

// entries adds entries of one window. It stops after it went into a directory, whose key it returns, since the window
// may have to make room meanwhile.
func (w *walker) entries(ctx context.Context, base string, entries []entry) (next string, err error) {
	for _, e := range entries {
		key := base + e.key
		if !strings.HasPrefix(key, w.prefix) {
			if key > w.prefix {
				// So are all that follow.
				return "", errFull
			}
			continue
		}
		common, rolled := w.commonPrefix(key)
		switch {
		case rolled:
			err = w.rollUp(common)
		case !e.info.Dir:
			err = w.object(key, e.info)
		case w.after > key && !strings.HasPrefix(w.after, key):
			// The page begins after it.
		default:
			return e.key, w.below(ctx, e.info.Path)
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// below adds what a directory further down holds. One that has gone is empty. Of one that the source does not show,
// that it fails on or that is no index page, there is the mark alone, and it is told at the end; when the source does
// not answer, the listing fails.
func (w *walker) below(ctx context.Context, dir string) error {
	if len(dir) >= maxKeyBytes {
		// No client has keys of such a length, and a tree that holds itself would have no end.
		w.unshown++
		return nil
	}
	before := len(w.items)
	err := w.directory(ctx, dir)
	switch {
	case err == nil, errors.Is(err, errFull), ctx.Err() != nil, ofAll(err):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	w.leftOut = append(w.leftOut, leftOut{dir, err})
	if mark := dir + "/"; len(w.items) == before && strings.HasPrefix(mark, w.prefix) {
		return w.object(mark, cacheclient.Info{Path: dir, Dir: true})
	}
	return nil
}

// maxKeyBytes is the longest key that S3 knows.
const maxKeyBytes = 1024

// commonPrefix is what a key is rolled up into, if it has the delimiter after the prefix.
func (w *walker) commonPrefix(key string) (string, bool) {
	if w.delimiter == "" {
		return "", false
	}
	n := strings.Index(key[len(w.prefix):], w.delimiter)
	if n < 0 {
		return "", false
	}
	return key[:len(w.prefix)+n+len(w.delimiter)], true
}

// rollUp adds a common prefix once.
func (w *walker) rollUp(prefix string) error {
	if n := len(w.items); n > 0 && w.items[n-1].key == prefix && w.items[n-1].common {
		return nil
	}
	return w.add(item{key: prefix, common: true})
}

func (w *walker) object(key string, info cacheclient.Info) error {
	if common, rolled := w.commonPrefix(key); rolled {
		return w.rollUp(common)
	}
	return w.add(item{key: key, info: info})
}

func (w *walker) add(i item) error {
	if w.after != "" && i.key <= w.after {
		return nil
	}
	if w.plain && !inXML(i.key) {
		w.unshown++
		return nil
	}
	if len(w.items) == w.most {
		w.more = true
		return errFull
	}
	w.items = append(w.items, i)
	return nil
}
