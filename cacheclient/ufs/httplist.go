package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"millrace.io/millrace/cacheclient"
)

// acceptIndex asks for a page that people see, or for a listing that programs do: Caddy gives JSON to clients that
// accept it.
const acceptIndex = "text/html, application/xhtml+xml, application/json;q=0.9, text/xml;q=0.8, */*;q=0.5"

// List reads the directory's index as it comes. Files come without attributes: a page shows sizes and times rounded,
// and none shows the ETag.
func (s *httpStore) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	if s.opt.NoSlash {
		// Only an entry's own type reports whether it is a directory.
		fn = s.described(ctx, fn)
	}
	shape, pairs := newShape(), s.newPairs(fn)
	emit := func(info cacheclient.Info) error {
		shape.add(info)
		return pairs.add(info)
	}
	var end func() error
	if s.shapes.repeats(dir) {
		emit, end = s.heldBack(dir, shape, emit)
	}
	err := s.listIndex(ctx, dir, emit)
	var status *StatusError
	if dir != "" && errors.As(err, &status) {
		return s.listRefused(ctx, dir, status)
	}
	if err == nil && end != nil {
		err = end()
	}
	if err == nil {
		err = pairs.end(ctx)
	}
	if err == nil {
		s.shapes.put(dir, shape)
	}
	return err
}

// described completes entries by their own types. What cannot be described is there all the same, and a question for
// its attributes gets the error; one that says nothing of the entry ends the listing.
func (s *httpStore) described(ctx context.Context, fn func(cacheclient.Info) error) func(cacheclient.Info) error {
	return func(info cacheclient.Info) error {
		if info.Dir {
			return fn(info)
		}
		full, err := s.Stat(ctx, info.Path)
		status, answered := statusOf(err)
		again, _ := Retryable(err)
		switch {
		case err == nil:
			return fn(full)
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case ctx.Err() != nil, answered && busy(status), !answered && again:
			return err
		}
		return fn(info)
	}
}

// listIndex asks for the index of a directory. The root may have its index at its address without a slash. Where it was
// given with one, what is there has to call itself an index.
func (s *httpStore) listIndex(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	r, err := s.request(dir, true)
	if err != nil {
		return err
	}
	if dir == "" && s.bare.Load() {
		return s.readIndex(ctx, dir, s.bareRoot(), acceptIndex, fn)
	}
	err = s.readIndex(ctx, dir, r, acceptIndex, fn)
	if dir != "" || !errors.Is(err, fs.ErrNotExist) || s.src.base.Path == "/" {
		return err
	}
	bareErr := s.readIndex(ctx, dir, s.bareRoot(), acceptIndex, fn)
	switch _, refused := statusOf(bareErr); {
	case refused:
		return err
	case errors.Is(bareErr, errNoIndex):
		return &fileRootError{err}
	}
	s.bare.Store(true)
	return bareErr
}

// fileRootError is a root that is not there as a directory, and is there without the slash at its end.
type fileRootError struct{ err error }

func (e *fileRootError) Error() string { return e.err.Error() }
func (e *fileRootError) Unwrap() error { return e.err }

// otherTypeError is errNoIndex for what has a type that no index has.
type otherTypeError struct{ contentType string }

func (e *otherTypeError) Error() string {
	return fmt.Sprintf("%v: its type is %q", errNoIndex, e.contentType)
}

func (e *otherTypeError) Unwrap() error { return errNoIndex }

// bareRoot is the root without its slash.
func (s *httpStore) bareRoot() request {
	base := s.src.base
	u := withPath(base, strings.TrimSuffix(base.Path, "/"), strings.TrimSuffix(base.EscapedPath(), "/"))
	return request{url: u, show: u.String(), dropped: !s.src.bare}
}

// mostBetween bounds what an index has between two entries, in bytes: each part of it is a sign of life.
const mostBetween = 64 << 20

// readIndex reads one index, in the form that the server gives it.
func (s *httpStore) readIndex(
	ctx context.Context, dir string, r request, accept string, fn func(cacheclient.Info) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{}
	if s.client.header.Get("Accept") == "" {
		header.Set("Accept", accept)
	}
	resp, err := s.client.send(ctx, s.client.lists, http.MethodGet, r, header)
	if err != nil {
		return err
	}
	cacheclient.Heard(ctx)
	patient := newPatientReader(ctx, cancel, resp.Body, r.url.Host, s.client.timeout)
	defer func() { _ = patient.Close() }()
	page := &boundedBody{ReadCloser: plainBody(resp, heardBody{patient, ctx}), left: mostBetween, host: r.url.Host}
	switch {
	case isRedirect(resp):
		discard(resp)
		return s.readDropped(ctx, dir, r, accept, fn)
	case resp.StatusCode == http.StatusNotAcceptable && accept != "":
		return s.readIndex(ctx, dir, r, "", fn)
	case resp.StatusCode != http.StatusOK:
		return newStatusError(resp, r.show)
	case strangelyPacked(resp):
		return &encodedError{resp.Header.Get("Content-Encoding"), r.show}
	}
	i := index{
		base: indexBase(resp), asked: r.url, strict: r.dropped, entry: func(name string, isDir bool) error {
			page.left = mostBetween
			return fn(s.entry(dir, name, isDir))
		}, literal: s.opt.NoEscape, expected: s.called.has(dir),
		endless: resp.ContentLength < 0 && len(resp.TransferEncoding) == 0,
	}
	err = s.parse(resp, page, &i)
	var elsewhere *listedElsewhereError
	switch {
	case errors.As(err, &elsewhere) && r.url.RawQuery == "":
		u := *r.url
		u.RawQuery = elsewhere.query
		return s.readIndex(ctx, dir, request{url: &u, show: r.show, dropped: r.dropped}, acceptIndex, fn)
	case errors.Is(err, errNoIndex) && i.entries == 0 && accept == acceptIndex && mediaType(resp) == mediaJSON:
		// It may have a page for people after all.
		return s.readIndex(ctx, dir, r, "text/html", fn)
	case errors.Is(err, errNoIndex):
		return fmt.Errorf("%s: %w", r.show, err)
	}
	if err == nil {
		s.tellOf(r, &i)
		if i.named {
			s.called.add(dir)
		}
	}
	return err
}

// readDropped reads the index of a directory whose address the server wants without a slash. So it wants those of
// files, too: what does not call itself an index is one. D-195 says why.
func (s *httpStore) readDropped(
	ctx context.Context, dir string, r request, accept string, fn func(cacheclient.Info) error,
) error {
	plain, slash := strings.CutSuffix(r.url.Path, "/")
	if !slash {
		return fmt.Errorf("%s: %w", r.show, cacheclient.ErrNotDir)
	}
	u := withPath(r.url, plain, strings.TrimSuffix(r.url.EscapedPath(), "/"))
	err := s.readIndex(ctx, dir, request{url: u, show: r.show, dropped: true}, accept, fn)
	if errors.Is(err, errNoIndex) {
		return fmt.Errorf("%s: %w", r.show, cacheclient.ErrNotDir)
	}
	return err
}

const mediaJSON = "application/json"

// parse reads the index by its type.
func (s *httpStore) parse(resp *http.Response, page io.Reader, i *index) error {
	switch kind := mediaType(resp); {
	case readHead(resp).html:
		return i.parseHTML(page)
	case i.strict:
		return errNoIndex
	case kind == mediaJSON:
		return i.parseJSON(page)
	case kind == "text/xml", kind == "application/xml":
		return i.parseXML(page)
	}
	return &otherTypeError{resp.Header.Get("Content-Type")}
}

// tellOf tells what of an index was not understood, so that a part is not taken for the whole.
func (s *httpStore) tellOf(r request, i *index) {
	switch {
	case i.goesOn:
		s.notes.tell("pages", fmt.Sprintf("the index of %s goes on at other addresses, which are not followed: "+
			"entries are missing", r.show))
	case i.entries == 0 && i.foreign > 0:
		s.notes.tell("foreign", fmt.Sprintf("the index of %s has %d links and none to an entry: it is shown as empty",
			r.show, i.foreign))
	}
}

// indexBase is what the links of an index are relative to, as browsers have it: the address that answered at last.
func indexBase(resp *http.Response) *url.URL {
	u := resp.Request.URL
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
}

// entry is an entry of a directory; that it is a directory is remembered.
func (s *httpStore) entry(dir, name string, isDir bool) cacheclient.Info {
	info := cacheclient.Info{Path: join(dir, name), Dir: isDir, Size: cacheclient.UnknownSize}
	if isDir {
		info.Size = 0
		s.told.add(info.Path)
	}
	return info
}

// listRefused tells a path that is a file from one that is not there: servers answer both by 404.
func (s *httpStore) listRefused(ctx context.Context, dir string, status *StatusError) error {
	if !errors.Is(status, fs.ErrNotExist) {
		return status
	}
	if info, err := s.Stat(ctx, dir); err == nil && !info.Dir {
		return fmt.Errorf("%s: %w", status.URL, cacheclient.ErrNotDir)
	}
	return status
}

// heldBack keeps the entries of a directory until it is known whether it is one of those above it once more. Then its
// directories are left out, for below them there is only the same again.
func (s *httpStore) heldBack(
	dir string, shape *shape, emit func(cacheclient.Info) error,
) (hold func(cacheclient.Info) error, end func() error) {
	var held []cacheclient.Info
	size := 0
	hold = func(info cacheclient.Info) error {
		if size += len(info.Path); len(held) < mostHeld && size < mostHeldBytes {
			shape.add(info)
			held = append(held, info)
			return nil
		}
		return emit(info)
	}
	return hold, func() error {
		same := s.shapes.same(dir, shape)
		if same {
			s.notes.tell("loop",
				fmt.Sprintf("the tree holds itself: %.200q is one of the directories above it once more, and "+
					"its directories are left out", dir))
		}
		shape.reset()
		for _, info := range held {
			if same && info.Dir {
				continue
			}
			if err := emit(info); err != nil {
				return err
			}
		}
		return nil
	}
}
