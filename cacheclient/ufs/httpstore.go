package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"

	"millrace.io/millrace/cacheclient"
)

// httpStore is a tree of files that a web server lists by index pages.
type httpStore struct {
	client *httpClient
	src    source
	opt    httpOptions
	// noIfMatch remembers that the server gets If-Match wrong.
	noIfMatch flag
	// greeting is the goroutine of greet, which dismiss ends.
	greeting sync.WaitGroup
	dismiss  context.CancelFunc
}

func newHTTPStore(src source, values configmap.Simple, opts Options) (*httpStore, error) {
	s := &httpStore{src: src}
	var security tlsOptions
	err := errors.Join(configstruct.Set(values, &s.opt), configstruct.Set(values, &security))
	if err != nil {
		return nil, err
	}
	s.client, err = newHTTPClient(s.opt, security, opts)
	return s, err
}

// String is the URL of the root.
func (s *httpStore) String() string { return s.src.show }

// Identity is the source alone so far.
func (s *httpStore) Identity() string { return s.String() }

// greet opens a connection for files ahead of the first one, whose reader would otherwise wait for
// the handshakes. That it fails does not matter.
func (s *httpStore) greet() {
	if s.opt.NoHead {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.client.timeout)
	s.dismiss = cancel
	s.greeting.Go(func() {
		r, err := s.request("", true)
		if err != nil {
			return
		}
		if resp, err := s.client.send(ctx, s.client.files, http.MethodHead, r, nil); err == nil {
			discard(resp)
		}
	})
}

// Close ends idle connections.
func (s *httpStore) Close() error {
	if s.dismiss != nil {
		s.dismiss()
	}
	s.greeting.Wait()
	s.client.close()
	return nil
}

// request names a path at the source; a directory is asked for with a slash at its end.
func (s *httpStore) request(path string, dir bool) (request, error) {
	if !validPath(path) {
		return request{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if dir && path != "" {
		path += "/"
	}
	base := s.src.base
	plain, escaped := base.Path+path, base.EscapedPath()+escapePath(path)
	if s.opt.NoEscape {
		u, err := url.Parse(base.String() + path)
		if err != nil {
			return request{}, fmt.Errorf("%q is no URL path, which it must be with no_escape: %w", path, fs.ErrNotExist)
		}
		return request{url: u, show: u.Redacted()}, nil
	}
	u := withPath(base, plain, escaped)
	return request{url: u, show: u.String()}, nil
}

// escapePath escapes each name of a path, so that the server reads every byte as it is.
func escapePath(path string) string {
	names := strings.Split(path, "/")
	for i, name := range names {
		names[i] = url.PathEscape(name)
	}
	return strings.Join(names, "/")
}

// Stat asks for the head of the file. That a path is a directory shows by the server's redirect
// to the same path with a slash; the root is one.
func (s *httpStore) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if path == "" {
		return cacheclient.Info{Dir: true}, nil
	}
	r, err := s.request(path, false)
	if err != nil {
		return cacheclient.Info{}, err
	}
	h, err := s.client.stat(ctx, r, s.opt.NoHead)
	switch {
	case err != nil:
		return cacheclient.Info{}, err
	case h.dir, s.opt.NoSlash && h.html:
		return cacheclient.Info{Path: path, Dir: true}, nil
	}
	return cacheclient.Info{Path: path, Size: h.size, ModTime: h.modTime, Version: h.etag}, nil
}

// List reads the directory's index page as it comes. Files come without attributes: a page
// shows sizes and times rounded.
func (s *httpStore) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	r, err := s.request(dir, true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := s.client.send(ctx, s.client.lists, http.MethodGet, r, nil) //nolint:bodyclose // page closes it
	if err != nil {
		return err
	}
	page := newPatientReader(ctx, cancel, resp.Body, r.url.Host, s.client.timeout)
	defer func() { _ = page.Close() }()
	switch {
	case isRedirect(resp):
		return fmt.Errorf("%s: %w", r.show, cacheclient.ErrNotDir)
	case resp.StatusCode != http.StatusOK:
		return s.listRefused(ctx, dir, newStatusError(resp, r.show))
	case !readHead(resp).html:
		return fmt.Errorf("%s: %w: its type is %q", r.show, errNoIndex, resp.Header.Get("Content-Type"))
	case encoded(resp):
		return fmt.Errorf("%s is sent with the Content-Encoding %s although identity was asked for", r.show, resp.Header.Get("Content-Encoding"))
	}
	base := resp.Request.URL
	if !strings.HasSuffix(base.Path, "/") {
		base = withPath(base, base.Path+"/", base.EscapedPath()+"/")
	}
	base = &url.URL{Scheme: base.Scheme, Host: base.Host, Path: base.Path, RawPath: base.RawPath}
	err = parseIndex(page, base, func(name string, isDir bool) error { return s.entry(ctx, dir, name, isDir, fn) })
	if errors.Is(err, errNoIndex) {
		return fmt.Errorf("%s: %w", r.show, err)
	}
	return err
}

// entry tells the caller about one entry of a directory.
func (s *httpStore) entry(ctx context.Context, dir, name string, isDir bool, fn func(cacheclient.Info) error) error {
	info := cacheclient.Info{Path: join(dir, name), Dir: isDir, Size: cacheclient.UnknownSize}
	if isDir {
		info.Size = 0
	}
	if s.opt.NoSlash && !isDir {
		// Only the entry's own type tells whether it is a directory.
		full, err := s.Stat(ctx, info.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return nil
		case err != nil:
			return err
		}
		info = full
	}
	return fn(info)
}

// listRefused tells a path that is a file from one that is not there: servers answer both by 404.
func (s *httpStore) listRefused(ctx context.Context, dir string, status *StatusError) error {
	if !errors.Is(status, fs.ErrNotExist) || dir == "" {
		return status
	}
	if info, err := s.Stat(ctx, dir); err == nil && !info.Dir {
		return fmt.Errorf("%s: %w", status.URL, cacheclient.ErrNotDir)
	}
	return status
}

// Open reads a range of the version, or the whole file where the server ignores ranges.
func (s *httpStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	r, err := s.request(info.Path, false)
	if err != nil {
		return nil, err
	}
	return s.client.openConfirmed(ctx, r, info, off, length, &s.noIfMatch, func(ctx context.Context) (cacheclient.Info, error) {
		return s.Stat(ctx, info.Path)
	})
}

// checkRange refuses what no caller means: a range that is not in the file, or of a file of unknown size.
func checkRange(info cacheclient.Info, off, length int64) error {
	if info.Dir {
		return fmt.Errorf("%q: %w", info.Path, cacheclient.ErrIsDir)
	}
	if info.Size < 0 || off < 0 || length < 1 || off > info.Size || length > info.Size-off {
		return fmt.Errorf("%q: %d bytes from %d are not within %d: %w", info.Path, length, off, info.Size, fs.ErrInvalid)
	}
	return nil
}
