package ufs

import (
	"context"
	"fmt"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// Values of the option validate.
const (
	validateAuto    = "auto"
	validateETag    = "etag"
	validateSize    = "size"
	validateContent = "content"
)

// setTrust reads the option validate.
func (s *httpStore) setTrust() error {
	s.fixed = s.opt.Validate != validateAuto && s.opt.Validate != ""
	switch s.opt.Validate {
	case "", validateAuto, validateETag:
	case validateTime:
		s.chosen = trustTime
	case validateSize:
		s.chosen = trustSize
	case validateContent:
		s.chosen, s.whole = trustContent, true
	default:
		return fmt.Errorf("option validate: %q is none of %s, %s, %s, %s and %s", s.opt.Validate, validateAuto,
			validateETag,
			validateTime, validateSize, validateContent)
	}
	return nil
}

// trustOf is the trust in what tells versions of a file apart: the user's, or what was noticed of this file. What one
// file shows says nothing of another. D-220 says why.
func (s *httpStore) trustOf(path string) trust {
	if s.fixed {
		return s.chosen
	}
	t, _ := s.noticed.Get(pathKey(path))
	return t
}

// pathKey is a path in the memory of what was noticed, whose size does not depend on names.
func pathKey(path string) uint64 { return cacheclient.Identify(cacheclient.Info{Path: path}).ID }

// fallBack has a file trusted for less, and says so.
func (s *httpStore) fallBack(path string, to trust, key, why string) {
	if s.fixed || s.trustOf(path) >= to {
		return
	}
	s.noticed.Add(pathKey(path), to)
	s.notes.tell(key, fmt.Sprintf("%s; %.200q is the first", why, path))
}

// file describes a file that has this head.
func (s *httpStore) file(ctx context.Context, r request, path string, h head) (cacheclient.Info, error) {
	t := s.trustOf(path)
	info := cacheclient.Info{Path: path, Size: h.size, ModTime: h.modTime, Version: h.version(t)}
	if h.growing(info, t) {
		s.plant(info, h)
	}
	if h.size >= 0 && !s.needsContent(h, t) {
		return info, nil
	}
	size, version, err := s.byContent(ctx, r, h, t)
	if err != nil {
		return cacheclient.Info{}, err
	}
	info.Size, info.Version = size, version
	return info, nil
}

// needsContent reports whether nothing but the content tells this version from the next.
func (s *httpStore) needsContent(h head, t trust) bool {
	switch {
	case h.size == 0, t == trustSize, border.Size(max(h.size, 0)) != nil:
		return false
	case t == trustContent:
		return true
	case t == trustAll && !s.fixed && h.none(), h.nothing(t):
		s.notes.tell("none", fmt.Sprintf("it tells neither ETag nor time of files, so that they are read to know "+
			"whether "+
			"they changed: all of them up to %d MiB, samples above (option validate)", wholeContent>>20))
		return true
	}
	return false
}
