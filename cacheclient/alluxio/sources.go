package alluxio

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/border"
	"millrace.io/millrace/cacheclient/ufs"
)

// SourceProperty is the property of a mount that names the true source behind it, where its under store is a gateway
// that only the workers reach.
const SourceProperty = "millrace.source"

// Source is an under store that this machine reads by itself.
type Source struct {
	// Path is where it is mounted, relative to the root of what the client shows; "" for all of it.
	Path string
	// URL is the source as ufs.Open takes it.
	URL string
	// Options say how to reach it.
	Options ufs.Options
}

// mounted is what is mounted at a path.
type mounted struct {
	// at is where it is in what the client shows, and below the path in the source that is shown there.
	at, below string
	// store and url are nil and "" where only workers read the source: what another mount has at the same path is not
	// what is shown there.
	store ufs.Store
	url   string
}

// sources are the under stores as one tree, read without Alluxio: what is cold comes from here, and everything when
// nobody of Alluxio answers. It is a ufs.Store, so that one embedded cache without tiers reads ahead, retries and
// bounds memory for all of them.
type sources struct {
	// addr is what the client shows.
	addr rpc.Address
	// given are the sources that the user named; options are for those that the mount table names.
	given   []Source
	options ufs.Options
	// noLocal refuses directories of this machine.
	noLocal bool
	log     *slog.Logger
	// openURL is for tests, nil for ufs.Open.
	openURL func(ctx context.Context, url string, opts ufs.Options) (ufs.Store, error)

	// following serializes the following of a mount table: what that opens may hang.
	following sync.Mutex

	// mu guards the rest.
	mu     sync.Mutex
	mounts []mounted
	// closed says that nothing is opened any more.
	closed bool
	// refused are sources that could not be opened, by URL, and when they may be tried again.
	refused map[string]time.Time
}

var (
	_ ufs.Store = (*sources)(nil)
	_ ufs.Noted = (*sources)(nil)
	// errNoSource says that this machine does not read the source of a path by itself.
	errNoSource = errors.New("the source is read by workers only")
)

// retrySource is how long a source that could not be opened is left alone.
const retrySource = 30 * time.Second

func (s *sources) String() string { return s.addr.String() }

// Identity is the address: what is kept under it is in the memory of one client.
func (s *sources) Identity() string { return s.String() }

// Notes implements ufs.Noted: what was noticed of each source that this machine reads.
func (s *sources) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, m := range s.mounts {
		if noted, ok := m.store.(ufs.Noted); ok {
			all = append(all, noted.Notes()...)
		}
	}
	return all
}

// openGiven opens what the user gave. It needs no mu: no other goroutine has s yet.
func (s *sources) openGiven(ctx context.Context) error {
	for _, g := range s.given {
		store, err := s.openStore(ctx, g.URL, g.Options)
		if err != nil {
			return err
		}
		s.mounts = append(s.mounts, mounted{at: g.Path, store: store, url: g.URL})
	}
	return nil
}

// openStore opens a source, if it may be read here.
func (s *sources) openStore(ctx context.Context, url string, opts ufs.Options) (ufs.Store, error) {
	if s.noLocal && (strings.HasPrefix(url, "/") || strings.HasPrefix(strings.ToLower(url), "file:")) {
		return nil, fmt.Errorf("source %q is a directory of this machine, and its operator allows none", url)
	}
	if s.openURL != nil {
		return s.openURL(ctx, url, opts)
	}
	return ufs.Open(ctx, url, opts)
}

// follow opens what the mount table names and this machine can read, and closes what it names no more. While an earlier
// call hangs, in a directory of a server that is gone, it does nothing.
func (s *sources) follow(ctx context.Context, table map[string]*wire.MountPointInfo) {
	if len(s.given) > 0 || !s.following.TryLock() {
		return
	}
	defer s.following.Unlock()
	wanted := s.wanted(table)
	kept, left := s.sift(wanted)
	var opened []mounted
	for _, at := range slices.Sorted(maps.Keys(wanted)) {
		w := wanted[at]
		if w.store = s.tryStore(ctx, w); w.store == nil {
			w.url = ""
		}
		opened = append(opened, w)
	}
	if !s.put(append(kept, opened...)) {
		// Close has closed the others.
		left = opened
	}
	for _, m := range left {
		if m.store != nil {
			_ = m.store.Close()
		}
	}
}

// sift tells the mounts that stay from those that go, and takes the former out of what is wanted.
func (s *sources) sift(wanted map[string]mounted) (kept, left []mounted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.refused, func(_ string, until time.Time) bool { return time.Now().After(until) })
	for _, m := range s.mounts {
		if w, ok := wanted[m.at]; ok && w.url == m.url && w.below == m.below {
			kept = append(kept, m)
			delete(wanted, m.at)
		} else {
			left = append(left, m)
		}
	}
	return kept, left
}

// put has these be the mounts, unless they were closed; then it reports false.
func (s *sources) put(mounts []mounted) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.mounts = mounts
	}
	return !s.closed
}

// leaves reports whether a source could not be opened lately, and leaves it alone for a while where it cannot be now.
func (s *sources) leaves(url string, failed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed {
		s.refused[url] = time.Now().Add(retrySource)
	}
	return time.Now().Before(s.refused[url])
}

// tryStore opens what a mount names, nil where this machine does not read it.
func (s *sources) tryStore(ctx context.Context, w mounted) ufs.Store {
	if w.url == "" || s.leaves(w.url, false) {
		return nil
	}
	opts := s.options
	opts.Deferred = true
	store, err := s.openStore(ctx, w.url, opts)
	if err != nil {
		s.leaves(w.url, true)
		s.log.Info("a source is read by workers only", "mount", w.at, "reason", err)
		return nil
	}
	return store
}

// wanted are the mounts that the table names, by where they are in what the client shows.
func (s *sources) wanted(table map[string]*wire.MountPointInfo) map[string]mounted {
	wanted := make(map[string]mounted)
	for at, info := range table {
		if !isPath(at) {
			continue
		}
		m := mounted{url: readable(info)}
		switch {
		case at == s.addr.Path:
		case within(at, s.addr.Path):
			m.at = strings.Trim(at[len(s.addr.Path):], "/")
		case within(s.addr.Path, at):
			// The mount begins above us; of several the nearest counts.
			m.below = strings.Trim(s.addr.Path[len(at):], "/")
		default:
			continue
		}
		if old, ok := wanted[m.at]; !ok || len(m.below) < len(old.below) {
			wanted[m.at] = m
		}
	}
	return wanted
}

// isPath reports whether the table can mean a directory by this.
func isPath(at string) bool {
	if at == "/" {
		return true
	}
	if !strings.HasPrefix(at, "/") {
		return false
	}
	for name := range strings.SplitSeq(at[1:], "/") {
		if !border.Name(name) {
			return false
		}
	}
	return true
}

// readable is the URL by which this machine may read an under store: the one that the mount names, an https server, or
// a directory that is here; "" where there is none. Keys of object stores are not taken from the mount table.
func readable(info *wire.MountPointInfo) string {
	if url := info.GetProperties()[SourceProperty]; url != "" {
		return url
	}
	uri := info.GetUfsUri()
	if dir, ok := strings.CutPrefix(uri, "file://"); ok {
		uri = dir
	}
	switch {
	case strings.HasPrefix(uri, "https://"), strings.HasPrefix(uri, "http://"):
		return uri
	case strings.HasPrefix(uri, "/"):
		if st, err := os.Stat(uri); err == nil && st.IsDir() {
			return uri
		}
	}
	return ""
}

// within reports whether the absolute path p is strictly below dir.
func within(p, dir string) bool {
	if dir == "/" {
		return p != "/"
	}
	return strings.HasPrefix(p, dir+"/")
}

// find is the source of a path, and the path in it.
func (s *sources) find(p string) (ufs.Store, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := s.nearest(p)
	if best == nil || best.store == nil {
		return nil, "", errNoSource
	}
	return best.store, path.Join(best.below, strings.TrimPrefix(p[len(best.at):], "/")), nil
}

// key tells the sources of paths apart.
func (s *sources) key(p string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	url := ""
	if m := s.nearest(p); m != nil {
		url = m.url
	}
	return int64(maphash.String(sourceSeed, url))
}

var sourceSeed = maphash.MakeSeed()

// nearest is the mount that a path is in, nil for none; mu is held.
func (s *sources) nearest(p string) *mounted {
	var best *mounted
	for i := range s.mounts {
		m := &s.mounts[i]
		if (m.at == "" || p == m.at || strings.HasPrefix(p, m.at+"/")) && (best == nil || len(m.at) > len(best.at)) {
			best = m
		}
	}
	return best
}

// Stat implements ufs.Store.
func (s *sources) Stat(ctx context.Context, p string) (cacheclient.Info, error) {
	store, in, err := s.find(p)
	var info cacheclient.Info
	if err == nil {
		info, err = store.Stat(ctx, in)
	} else {
		err = fmt.Errorf("%w: %w", cacheclient.ErrUnavailable, err)
	}
	if err != nil && s.above(p) {
		// A directory on the way to a mount need not be in any source.
		return cacheclient.Info{Path: p, Dir: true}, nil
	}
	info.Path, info.Version = p, notOurs(info.Version)
	return info, err
}

// above reports whether a source is mounted below the path.
func (s *sources) above(p string) bool { return len(s.below(p)) > 0 }

// below are the names of the directory p on the way to sources that are mounted below it.
func (s *sources) below(p string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, m := range s.mounts {
		rest, ok := m.at, m.at != ""
		if p != "" {
			rest, ok = strings.CutPrefix(m.at, p+"/")
		}
		if name, _, _ := strings.Cut(rest, "/"); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// List implements ufs.Store.
func (s *sources) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	mounts := s.below(dir)
	for _, name := range mounts {
		if err := fn(cacheclient.Info{Path: join(dir, name), Dir: true}); err != nil {
			return err
		}
	}
	store, in, err := s.find(dir)
	if err != nil {
		if len(mounts) > 0 {
			return nil
		}
		return fmt.Errorf("%w: %w", cacheclient.ErrUnavailable, err)
	}
	err = store.List(ctx, in, func(i cacheclient.Info) error {
		name := path.Base(i.Path)
		if slices.Contains(mounts, name) {
			return nil
		}
		i.Path, i.Version = join(dir, name), notOurs(i.Version)
		return fn(i)
	})
	if errors.Is(err, fs.ErrNotExist) && len(mounts) > 0 {
		return nil
	}
	return err
}

// Open implements ufs.Store.
func (s *sources) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*ufs.Body, error) {
	store, in, err := s.find(info.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cacheclient.ErrUnavailable, err)
	}
	info.Path, info.Version = in, asTold(info.Version)
	return store.Open(ctx, info, off, length)
}

// Close implements ufs.Store.
func (s *sources) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, m := range s.mounts {
		if m.store != nil {
			err = errors.Join(err, m.store.Close())
		}
	}
	s.mounts, s.closed = nil, true
	return err
}

// sameVersion reports whether what a source says of a file is the version that Alluxio knows: the size and the time,
// which Alluxio keeps in milliseconds and many a source tells in seconds. One that tells no time cannot be compared:
// two contents of one size would be taken for each other. It is not sure where one of them tells whole seconds and the
// other more: that may be how it tells times, or another moment of the same second.
func sameVersion(known, source cacheclient.Info) (same, sure bool) {
	if source.Dir || known.Size != source.Size || source.ModTime.IsZero() {
		return false, true
	}
	a, b := known.ModTime.UnixMilli(), source.ModTime.UnixMilli()
	if a == b {
		return true, true
	}
	if a%1000 == 0 || b%1000 == 0 {
		same = a/1000 == b/1000
		return same, !same
	}
	return false, true
}
