package ufs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"regexp"
	"sync"

	"millrace.io/millrace/cacheclient"
)

// mostTold is how many directories a generation of toldDirs has.
const mostTold = 1 << 15

// toldDirs remembers, by their hashes, the paths that listings told to be directories: those told last, 32 Ki at the
// least and 64 Ki at the most.
type toldDirs struct {
	seed maphash.Seed

	// mu guards the rest.
	mu         sync.Mutex
	young, old map[uint64]struct{}
}

func newToldDirs() *toldDirs {
	return &toldDirs{seed: maphash.MakeSeed(), young: map[uint64]struct{}{}}
}

func (t *toldDirs) add(path string) {
	h := maphash.String(t.seed, path)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.young) >= mostTold {
		t.old, t.young = t.young, map[uint64]struct{}{}
	}
	t.young[h] = struct{}{}
}

func (t *toldDirs) has(path string) bool {
	h := maphash.String(t.seed, path)
	t.mu.Lock()
	defer t.mu.Unlock()
	_, young := t.young[h]
	_, old := t.old[h]
	return young || old
}

// htmlName has the names of files that are pages.
var htmlName = regexp.MustCompile(`(?i)\.(x?html?|shtml|xht|php|asp|jsp|md|txt)$`)

// Stat asks for the path without a slash at its end, which servers redirect where it is a directory. Where the answer
// may be about something else, what listings told of the name decides. D-152 says why.
func (s *httpStore) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	dir := cacheclient.Info{Path: path, Dir: true}
	if path == "" {
		return dir, nil
	}
	r, err := s.request(path, false)
	if err != nil {
		return cacheclient.Info{}, err
	}
	h, err := s.heads.ask(ctx, r)
	switch {
	case err == nil && h.dir:
		s.slashes.add(above(path))
		return dir, nil
	case err == nil && s.opt.NoSlash && h.html:
		return dir, nil
	case err == nil && !h.html && !s.told.has(path):
		return s.file(ctx, r, path, h)
	case err == nil:
		return s.doubtful(ctx, r, path, h)
	}
	return s.refused(ctx, path, err)
}

// doubtful describes a path whose answer may be a page instead of the file: a directory's index without a redirect, or
// a page that says that nothing is there.
func (s *httpStore) doubtful(ctx context.Context, r request, path string, h head) (cacheclient.Info, error) {
	var kind kind
	switch {
	case s.told.has(path):
		// It may have become a file; then it has no index.
		kind = kindDir
		if !h.html {
			if isDir, err := s.slashed(ctx, path, false); err == nil && !isDir {
				kind = kindFile
			}
		}
	case htmlName.MatchString(path):
		kind = kindFile
	default:
		kind = s.lookedFor(ctx, path)
	}
	switch kind {
	case kindDir:
		return cacheclient.Info{Path: path, Dir: true}, nil
	case kindUnknown:
		if s.called.has(above(path)) {
			return cacheclient.Info{}, fmt.Errorf("%s is answered by a page, and so is its directory: %w", r.show,
				errNoIndex)
		}
	case kindAbsent:
		return cacheclient.Info{}, fmt.Errorf("%s is answered by a page, and no listing has it: %w", r.show,
			fs.ErrNotExist)
	}
	return s.file(ctx, r, path, h)
}

// refused is what a path is whose address without a slash is answered by an error: a directory that the server knows
// with a slash only, or one that may not be listed; or nothing, where a server refuses what is not there.
func (s *httpStore) refused(ctx context.Context, path string, err error) (cacheclient.Info, error) {
	status, answered := statusOf(err)
	if !answered || busy(status) {
		return cacheclient.Info{}, err
	}
	if told := s.told.has(path); told || !s.slashes.has(above(path)) {
		isDir, slashErr := s.slashed(ctx, path, told)
		if isDir {
			return cacheclient.Info{Path: path, Dir: true}, nil
		}
		if slashErr != nil {
			return cacheclient.Info{}, slashErr
		}
	}
	if errors.Is(err, fs.ErrPermission) && s.kindInListing(ctx, path) == kindAbsent {
		return cacheclient.Info{}, fmt.Errorf("%w, and no listing has it: %w", meaninglessError{err}, fs.ErrNotExist)
	}
	return cacheclient.Info{}, err
}

// meaninglessError is an error that is no errno any more.
type meaninglessError struct{ err error }

func (e meaninglessError) Error() string { return e.err.Error() }

// slashed asks for a path with a slash. It is a directory if that is an index, and if it was told to be one also where
// that is another page, or may not be seen. An error is of the moment, and tells nothing.
func (s *httpStore) slashed(ctx context.Context, path string, told bool) (isDir bool, err error) {
	err = s.listIndex(ctx, path, func(cacheclient.Info) error { return errEnough })
	status, answered := statusOf(err)
	switch {
	case err == nil, errors.Is(err, errEnough):
		return true, nil
	case errors.Is(err, errNoIndex), errors.Is(err, fs.ErrPermission):
		return told, nil
	case errors.Is(err, cacheclient.ErrNotDir), answered && !busy(status):
		return false, nil
	}
	return false, err
}

// kind is what a listing tells of a name.
type kind int

const (
	// kindUnknown: there is no listing.
	kindUnknown kind = iota
	kindFile
	kindDir
	// kindAbsent: the listing is there, and lacks the name.
	kindAbsent
)

// lookedFor asks the server for the kind of a name that no listing told to be a directory: the listing that may have
// it, unless that was lately read for it, and the address with a slash.
func (s *httpStore) lookedFor(ctx context.Context, path string) kind {
	found := kindFile
	if !s.pages.has(path) {
		if found = s.kindInListing(ctx, path); found == kindFile {
			s.pages.add(path)
		}
	}
	if found == kindUnknown && s.called.has(above(path)) {
		// Pages of this moment are not what they were.
		return found
	}
	if found == kindFile || found == kindUnknown {
		if isDir, _ := s.slashed(ctx, path, false); isDir {
			return kindDir
		}
	}
	return found
}

// kindInListing lists the directory that the path is in.
func (s *httpStore) kindInListing(ctx context.Context, path string) kind {
	found := kindAbsent
	err := s.listIndex(ctx, above(path), func(info cacheclient.Info) error {
		if info.Path != path {
			return nil
		}
		found = kindFile
		if info.Dir {
			found = kindDir
		}
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return kindUnknown
	}
	return found
}
